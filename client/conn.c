#include "client/conn.h"

#include "common/clock.h"
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HELLO_TIMEOUT_NS 10000000000u
#define RX_KEEP_BYTES    65536u /* an answer above this gives its memory back at the next call */
#define CLIENT_NAME      "libcts/0.1"

const char *cts_conn_path(const char *path)
{
    const char *env = getenv("CTS_SOCKET");

    if (path != NULL && path[0] != '\0') return path;
    return env != NULL && env[0] != '\0' ? env : CTS_CTL_SOCKET;
}

int cts_conn_code(struct cts_span name)
{
    if (cts_span_is(name, "unknown")) return -EREMOTEIO; /* what cts_err_name says of numbers in between */
    for (int code = CTS_EPROTO; code > CTS_EPROTO - 100; code--)
        if (cts_span_is(name, cts_err_name(code))) return code;
    for (int code = -1; code >= -133; code--)
        if (cts_span_is(name, cts_err_name(code))) return code;
    return -EREMOTEIO;
}

static void close_fds(struct cts_conn *c)
{
    for (uint32_t i = 0; i < c->n_fds; i++)
        if (c->fds[i] >= 0) close(c->fds[i]);
    c->n_fds = 0;
}

/* The connection is over, as every later call will say; the buffers live on. */
static void close_fd(struct cts_conn *c)
{
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

void cts_conn_close(struct cts_conn *c)
{
    close_fds(c);
    close_fd(c);
    cts_buf_deinit(&c->rx);
    cts_buf_deinit(&c->tx);
}

int cts_conn_is_alive(const struct cts_conn *c)
{
    struct pollfd p = { .fd = c->fd, .events = POLLRDHUP };

    if (c->fd < 0) return 0;
    return poll(&p, 1, 0) <= 0 || !(p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

/* 0 when the socket is ready for events, -ETIMEDOUT at the deadline. A signal
 * does not end the wait: an answer half taken would be lost. */
static int wait_ready(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd p = { .fd = fd, .events = events };

    for (;;) {
        uint64_t now_ns = cts_clock_ns();
        uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
        uint64_t left_ms = (left_ns + 999999) / 1000000;
        int      n = poll(&p, 1, deadline_ns == UINT64_MAX ? -1 : left_ms > 60000 ? 60000 : (int)left_ms);

        if (n > 0) return 0;
        if (n < 0 && errno != EINTR) return -errno;
        if (n == 0 && left_ns == 0) return -ETIMEDOUT;
    }
}

static int send_all(int fd, const uint8_t *p, size_t n, uint64_t deadline_ns)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent > 0) {
            p += sent;
            n -= (size_t)sent;
            continue;
        }
        if (errno == EPIPE || errno == ECONNRESET) return CTS_ECLOSED;
        if (errno != EAGAIN && errno != EINTR) return -errno;
        int rc = wait_ready(fd, POLLOUT, deadline_ns);
        if (rc != 0) return rc;
    }
    return 0;
}

/* What is there, at most n bytes: a count, or an error. */
static int64_t recv_some(struct cts_conn *c, uint8_t *p, size_t n)
{
    int      fds[CTS_FDS_MAX];
    uint32_t n_fds;
    int64_t  got = cts_fds_recv(c->fd, p, n, fds, &n_fds);

    for (uint32_t i = 0; i < n_fds; i++) {
        if (c->n_fds < CTS_FDS_MAX) {
            c->fds[c->n_fds++] = fds[i];
        } else {
            close(fds[i]);
            got = -EMSGSIZE;
        }
    }
    if (got == -EMSGSIZE) return CTS_EPROTO; /* more descriptors than any answer has */
    return got == 0 || got == -ECONNRESET ? CTS_ECLOSED : got;
}

/* *n_got, 0 at the beginning, tells how far it came. */
static int recv_exactly(struct cts_conn *c, uint8_t *p, size_t n, size_t *n_got, uint64_t deadline_ns)
{
    while (*n_got < n) {
        int64_t got = recv_some(c, p + *n_got, n - *n_got);

        if (got > 0) {
            *n_got += (size_t)got;
            continue;
        }
        if (got != -EAGAIN && got != -EINTR) return (int)got;
        int rc = wait_ready(c->fd, POLLIN, deadline_ns);
        if (rc != 0) return rc;
    }
    return 0;
}

/* The next frame's message in rx. A time-out between two frames leaves the
 * connection as good as before, any other failure does not. */
static int recv_frame(struct cts_conn *c, uint64_t deadline_ns)
{
    uint8_t head[4];
    size_t  n_head = 0, n_body = 0;
    int64_t frame_bytes;
    int     rc = recv_exactly(c, head, sizeof(head), &n_head, deadline_ns);

    if (rc == -ETIMEDOUT && n_head == 0) return rc;
    frame_bytes = rc == 0 ? cts_frame_bytes(head, sizeof(head)) : rc;
    if (frame_bytes > 4) {
        c->rx.len = 0;
        rc = cts_buf_reserve(&c->rx, (size_t)frame_bytes - 4);
        if (rc == 0) rc = recv_exactly(c, c->rx.ptr, (size_t)frame_bytes - 4, &n_body, deadline_ns);
    } else if (rc == 0) {
        rc = CTS_EPROTO;
    }
    if (rc != 0) close_fd(c);
    c->rx.len = n_body;
    return rc;
}

struct cts_mpw *cts_conn_begin(struct cts_conn *c, const char *method, uint32_t n_params)
{
    c->tx.len = 0;
    c->w = (struct cts_mpw){ .out = &c->tx };
    c->begin = cts_frame_begin(&c->w);
    cts_mpw_map(&c->w, 3);
    cts_mpw_str(&c->w, "id");
    cts_mpw_u64(&c->w, ++c->id);
    cts_mpw_str(&c->w, "method");
    cts_mpw_str(&c->w, method);
    cts_mpw_str(&c->w, "params");
    cts_mpw_map(&c->w, n_params);
    return &c->w;
}

/* The daemon's refusal, in its own words. */
static int refuse(struct cts_mp body, struct cts_err *err)
{
    struct cts_span code = { (const uint8_t *)"", 0 }, text = code;
    struct cts_mp   v;
    int             rc;

    if (cts_mp_find(body, "code", &v)) (void)cts_mp_str(&v, &code);
    if (cts_mp_find(body, "message", &v)) (void)cts_mp_str(&v, &text);
    rc = cts_conn_code(code);
    if (err != NULL) {
        err->code = rc;
        snprintf(err->text, sizeof(err->text), "%.*s", (int)(text.len > 500 ? 500 : text.len),
                 (const char *)text.ptr);
    }
    return rc;
}

/* Wait for the answer to the last request. Answers to earlier ones, whose caller
 * stopped waiting, are passed over. An error that answers no request, id 0, is
 * about the connection: the daemon says why it closes it. */
static int take_reply(struct cts_conn *c, uint64_t deadline_ns, struct cts_mp *result, struct cts_err *err)
{
    for (;;) {
        struct cts_ctl_reply reply;
        int                  rc = recv_frame(c, deadline_ns);

        if (rc == 0) {
            rc = cts_ctl_reply_decode(c->rx.ptr, c->rx.len, &reply);
            if (rc != 0) close_fd(c);
        }
        if (rc == CTS_ECLOSED) return cts_err_set(err, rc, "ctsd closed the connection");
        if (rc == -ETIMEDOUT) return cts_err_set(err, rc, "ctsd does not answer");
        if (rc != 0) return cts_err_set(err, rc, "the answer of ctsd cannot be understood");
        if (reply.kind == CTS_CTL_ERROR && (reply.id == c->id || reply.id == 0)) return refuse(reply.body, err);
        if (reply.kind == CTS_CTL_RESULT && reply.id == c->id) {
            *result = reply.body;
            return 0;
        }
        close_fds(c);
    }
}

int cts_conn_call(struct cts_conn *c, uint64_t timeout_ns, struct cts_mp *result, struct cts_err *err)
{
    uint64_t now_ns = cts_clock_ns();
    uint64_t deadline_ns = timeout_ns >= UINT64_MAX - now_ns ? UINT64_MAX : now_ns + timeout_ns;
    int      rc = cts_frame_end(&c->w, c->begin);

    if (rc != 0) return cts_err_set(err, rc, "the request does not fit into a message");
    if (c->fd < 0) return cts_err_set(err, CTS_ECLOSED, "the connection to ctsd is closed");
    close_fds(c);
    if (c->rx.cap > RX_KEEP_BYTES) cts_buf_deinit(&c->rx);
    rc = send_all(c->fd, c->tx.ptr, c->tx.len, deadline_ns);
    if (rc == 0 || rc == CTS_ECLOSED)
        return take_reply(c, deadline_ns, result, err); /* it may have said why before it closed */
    close_fd(c); /* half a request may be under way */
    return cts_err_set(err, rc, "send a request to ctsd");
}

static int connect_to(struct cts_conn *c, const char *path, struct cts_err *err)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    size_t             n = strlen(path);

    if (n >= sizeof(a.sun_path))
        return cts_err_set(err, -ENAMETOOLONG, "socket '%s' (at most %zu bytes)", path, sizeof(a.sun_path) - 1);
    memcpy(a.sun_path, path, n + 1);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) return cts_err_set(err, -errno, "make a socket");
    if (connect(c->fd, (struct sockaddr *)&a, sizeof(a)) != 0)
        return cts_err_set(err, -errno, "no ctsd answers at '%s'", path);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0) return cts_err_set(err, -errno, "set up the socket '%s'", path);
    return 0;
}

static void copy_printable(char *out, size_t cap, struct cts_span s)
{
    size_t n = s.len < cap - 1 ? s.len : cap - 1;

    for (size_t i = 0; i < n; i++) out[i] = s.ptr[i] < 0x20 || s.ptr[i] == 0x7f ? '?' : (char)s.ptr[i];
    out[n] = '\0';
}

static int say_hello(struct cts_conn *c, struct cts_err *err)
{
    struct cts_mpw *w = cts_conn_begin(c, "hello", 3);
    struct cts_mp   result, v;
    struct cts_span server;
    uint64_t        major = 0, pid = 0;
    int             rc;

    cts_mpw_str(w, "major");
    cts_mpw_u64(w, CTS_CTL_MAJOR);
    cts_mpw_str(w, "minor");
    cts_mpw_u64(w, CTS_CTL_MINOR);
    cts_mpw_str(w, "client");
    cts_mpw_str(w, CLIENT_NAME);
    rc = cts_conn_call(c, HELLO_TIMEOUT_NS, &result, err);
    if (rc != 0) return rc;
    if (!cts_mp_find(result, "major", &v) || cts_mp_u64(&v, &major) != 0)
        return cts_err_set(err, CTS_EPROTO, "what answers is no ctsd: its hello has no major");
    if (major != CTS_CTL_MAJOR)
        return cts_err_set(err, CTS_EVERSION, "ctsd speaks version %llu of the control protocol, this client %d",
                           (unsigned long long)major, CTS_CTL_MAJOR);
    if (cts_mp_find(result, "pid", &v) && cts_mp_u64(&v, &pid) == 0) c->server_pid = (uint32_t)pid;
    if (cts_mp_find(result, "server", &v) && cts_mp_str(&v, &server) == 0)
        copy_printable(c->server, sizeof(c->server), server);
    return 0;
}

int cts_conn_open(struct cts_conn *c, const char *path, struct cts_err *err)
{
    int rc;

    *c = (struct cts_conn){ .fd = -1, .rx = CTS_BUF(CTS_CTL_MESSAGE_MAX), .tx = CTS_BUF(CTS_CTL_MESSAGE_MAX) };
    rc = connect_to(c, path, err);
    if (rc == 0) rc = say_hello(c, err);
    if (rc != 0) cts_conn_close(c);
    return rc;
}
