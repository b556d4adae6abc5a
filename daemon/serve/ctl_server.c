#include "daemon/serve/ctl_server.h"

#include "common/assert.h"
#include "common/clock.h"
#include "common/log.h"
#include "daemon/serve/ctl_conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEEP_BYTES        (16u << 10) /* an empty buffer above this gives its memory back */
#define ACCEPTS_PER_EVENT 16
#define PAUSE_NS          1000000000u /* without accepting, where there are no descriptors left */
#define LAST_EVENT_BYTES  1024u       /* of one live request, at most: DONE and ERROR always fit */

/* ---- writing ---- */

void cts_ctl_begin(struct cts_ctl_conn *c, struct cts_ctl_out *o, uint64_t id, const char *kind,
                   uint32_t n_pairs)
{
    o->w = (struct cts_mpw){ &c->tx, 0 };
    o->begin = cts_frame_begin(&o->w);
    cts_mpw_map(&o->w, 2);
    cts_mpw_str(&o->w, "id");
    cts_mpw_u64(&o->w, id);
    cts_mpw_str(&o->w, kind);
    cts_mpw_map(&o->w, n_pairs);
}

int cts_ctl_end(struct cts_ctl_out *o)
{
    return cts_frame_end(&o->w, o->begin);
}

void cts_ctl_refuse(struct cts_ctl_conn *c, uint64_t id, int code, const char *text, const char *param,
                    uint32_t retry_ms)
{
    if (cts_ctl_error_put(&c->tx, id, code, text, param, retry_ms) < 0) c->failed = 1;
}

struct cts_ctl_conn *cts_ctl_conn_at(struct cts_ctl *t, uint64_t serial)
{
    for (uint32_t i = 0; i < t->n_conns; i++)
        if (t->conns[i]->serial == serial) return t->conns[i];
    return NULL;
}

/* ---- closing ---- */

static void watch_listener(struct cts_ctl *t, int on);

static void on_conn_closed(uv_handle_t *h)
{
    struct cts_ctl_conn *c = h->data;

    close(c->fd); /* only now: the loop watched it until this turn */
    for (uint32_t i = 0; i < c->n_fds; i++) close(c->fds[i]);
    cts_buf_deinit(&c->rx);
    cts_buf_deinit(&c->tx);
    free(c);
}

/* Idempotent: a parse error and a read error may meet on one turn. */
static void conn_close(struct cts_ctl_conn *c)
{
    struct cts_ctl *t = c->ctl;

    if (uv_is_closing((uv_handle_t *)&c->poll)) return;
    CTS_ASSERT(t->conns[c->idx] == c);
    cts_live_detach(t->o.lives, &c->sink);
    cts_ring_close(c->ring, CTS_ECLOSED);
    c->ring = NULL;
    t->conns[c->idx] = t->conns[--t->n_conns];
    t->conns[c->idx]->idx = c->idx;
    if (!c->has_hello) t->n_half_open--;
    uv_close((uv_handle_t *)&c->poll, on_conn_closed);
    if (!t->is_listening) watch_listener(t, 1); /* a descriptor is about to be free again */
}

/* ---- requests ---- */

static void handle(struct cts_ctl_conn *c, const struct cts_ctl_request *r)
{
    const struct cts_ctl_method *m = cts_ctl_find(r->method);
    struct cts_ctl_call          call = { .conn = c, .id = r->id, .params = r->params };
    struct cts_err               err = { .code = 0 };
    int                          rc;

    if (m == NULL) {
        int n = r->method.len > 64 ? 64 : (int)r->method.len;

        rc = cts_err_set(&err, CTS_ENOTFOUND, "there is no method '%.*s'", n, (const char *)r->method.ptr);
    } else if (!c->has_hello && strcmp(m->name, "hello") != 0) {
        rc = cts_err_set(&err, CTS_EPROTO, "the first request of a connection is hello");
        c->ends = 1;
    } else {
        rc = m->decodes_itself ? 0 : cts_ctl_args(m, r, &call, &err);
        if (rc == 0) rc = m->handle(&call, &err);
    }
    if (rc < 0) cts_ctl_refuse(c, r->id, rc, err.text, call.param, call.retry_ms);
}

static void take_frame(struct cts_ctl_conn *c, const uint8_t *p, size_t n)
{
    struct cts_ctl_request r;

    if (cts_ctl_request_decode(p, n, &r) == 0) {
        handle(c, &r);
        return;
    }
    cts_log(CTS_LOG_NOTICE, "pid %d: closed: what it sent is no request", (int)c->pid);
    cts_ctl_refuse(c, 0, CTS_EPROTO, "not a map of id, method and params in well-formed msgpack", NULL, 0);
    c->ends = 1;
}

/* All whole frames, as long as the answers find room. */
static void take_frames(struct cts_ctl_conn *c)
{
    size_t off = 0;

    while (c->rx.len > off && !c->ends && !c->failed && c->tx.len < CTS_CTL_TX_SOFT) {
        int64_t n = cts_frame_bytes(c->rx.ptr + off, c->rx.len - off);

        if (n < 0) {
            cts_log(CTS_LOG_NOTICE, "pid %d: closed: it announced a message of an impossible size",
                    (int)c->pid);
            cts_ctl_refuse(c, 0, CTS_EPROTO, "a message has 1 to 4194304 bytes", NULL, 0);
            c->ends = 1;
            break;
        }
        if (n == 0 || (uint64_t)n > c->rx.len - off) break;
        take_frame(c, c->rx.ptr + off + 4, (size_t)n - 4);
        off += (size_t)n;
    }
    cts_buf_take(&c->rx, off);
    if (c->rx.len == 0 && c->rx.cap > KEEP_BYTES) cts_buf_deinit(&c->rx);
}

/* One read: what is there, at most a chunk. Memory grows with what came, not with
 * what was announced. */
static int conn_receive(struct cts_ctl_conn *c)
{
    size_t  room = c->rx.max - c->rx.len, n = room < sizeof(c->ctl->chunk) ? room : sizeof(c->ctl->chunk);
    ssize_t got;

    if (n == 0) return 0;                              /* a whole frame is there and waits for room in tx */
    got = recv(c->fd, c->ctl->chunk, n, MSG_DONTWAIT); /* no control buffer: passed descriptors are dropped */
    if (got < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    return got == 0 ? CTS_ECLOSED : cts_buf_put(&c->rx, c->ctl->chunk, (size_t)got);
}

/* ---- sending ---- */

static void forget_fds(struct cts_ctl_conn *c)
{
    for (uint32_t i = 0; i < c->n_fds; i++) close(c->fds[i]);
    c->n_fds = 0;
}

/* One send: all of tx, or up to the byte that descriptors go with. */
static int64_t send_some(struct cts_ctl_conn *c)
{
    int64_t sent;

    if (c->n_fds == 0) return cts_fds_send(c->fd, c->tx.ptr, c->tx.len, NULL, 0);
    if (c->fd_off > 0) return cts_fds_send(c->fd, c->tx.ptr, c->fd_off, NULL, 0);
    sent = cts_fds_send(c->fd, c->tx.ptr, c->tx.len, c->fds, c->n_fds);
    if (sent > 0) forget_fds(c);
    return sent;
}

static int conn_send(struct cts_ctl_conn *c)
{
    while (c->tx.len > 0) {
        int64_t sent = send_some(c);

        if (sent == -EAGAIN) return 0;
        if (sent < 0) return (int)sent;
        cts_buf_take(&c->tx, (size_t)sent);
        if (c->n_fds > 0) c->fd_off -= (size_t)sent;
    }
    if (c->tx.cap > 2 * CTS_CTL_TX_SOFT) cts_buf_deinit(&c->tx);
    return 0;
}

static void on_conn_ready(uv_poll_t *h, int status, int events);

/* Watch for what the connection is waiting for now. */
static void watch(struct cts_ctl_conn *c)
{
    int events = UV_DISCONNECT;

    if (!c->ends && c->tx.len < CTS_CTL_TX_SOFT) events |= UV_READABLE;
    if (c->tx.len > 0) events |= UV_WRITABLE;
    if (events == c->polled) return;
    c->polled = events;
    if (uv_poll_start(&c->poll, events, on_conn_ready) < 0) c->failed = 1;
}

/* Send, go on with requests that waited for room, and close what is through. */
static void conn_turn(struct cts_ctl_conn *c, uint64_t now_ns)
{
    int was_full = c->tx.len >= CTS_CTL_TX_SOFT;

    if (c->tx.len > 0 && !c->failed && conn_send(c) < 0) c->failed = 1;
    if (was_full && c->tx.len < CTS_CTL_TX_SOFT) take_frames(c);
    if (c->sink.n_parked > 0) cts_lives_resume(c->ctl->o.lives, &c->sink, now_ns);
    if (c->failed || (c->ends && c->tx.len == 0)) {
        conn_close(c);
        return;
    }
    watch(c);
}

static void on_conn_ready(uv_poll_t *h, int status, int events)
{
    struct cts_ctl_conn *c = h->data;

    if (status < 0) c->failed = 1;
    if (!c->failed && (events & UV_READABLE)) {
        if (conn_receive(c) < 0) c->failed = 1;
        else take_frames(c);
    } else if (events & UV_DISCONNECT) {
        c->failed = 1;
    }
    conn_turn(c, cts_clock_ns());
}

void cts_ctl_flush(struct cts_ctl *t, uint64_t now_ns)
{
    for (uint32_t i = t->n_conns; i > 0; i--) {
        struct cts_ctl_conn *c = t->conns[i - 1];

        /* One that waits to be writable is woken by the loop, not tried each turn. */
        if (c->failed || (c->tx.len > 0 && !(c->polled & UV_WRITABLE)) || c->sink.n_parked > 0)
            conn_turn(c, now_ns);
    }
}

/* ---- connections ---- */

/* The kernel's word on who is there: the daemon's own user and root may come in. */
static int look_at_peer(struct cts_ctl_conn *c)
{
    struct ucred peer;
    socklen_t    n = sizeof(peer);

    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0) return -errno;
    c->pid = peer.pid;
    c->uid = peer.uid;
    return peer.uid == 0 || peer.uid == geteuid() ? 0 : CTS_EDENIED;
}

static void add_conn(struct cts_ctl *t, struct cts_ctl_conn *c)
{
    c->idx = t->n_conns;
    t->conns[t->n_conns++] = c;
    t->n_half_open++;
    t->n_accepted++;
    if (look_at_peer(c) == 0) return;
    t->n_denied++;
    cts_log(CTS_LOG_NOTICE, "pid %d of user %u: denied", (int)c->pid, (unsigned)c->uid);
    cts_ctl_refuse(c, 0, CTS_EDENIED, "only the daemon's own user and root may use this socket", NULL, 0);
    c->ends = 1;
}

/* One more than can be served: it hears so, if its socket takes the words at once. */
static void turn_away(int fd)
{
    struct cts_buf b = CTS_BUF(1024);

    if (cts_ctl_error_put(&b, 0, CTS_EBUSY, "all connections are taken (limits.clients)", NULL, 1000) == 0)
        (void)cts_fds_send(fd, b.ptr, b.len, NULL, 0);
    cts_buf_deinit(&b);
    close(fd);
}

static void new_conn(struct cts_ctl *t, int fd)
{
    struct cts_ctl_conn *c = t->n_conns < t->o.n_conns_max ? calloc(1, sizeof(*c)) : NULL;
    size_t tx_max = CTS_CTL_MESSAGE_MAX + 4 + CTS_CTL_TX_SOFT + (size_t)t->o.live_per_client * LAST_EVENT_BYTES;

    if (c == NULL) {
        turn_away(fd);
        return;
    }
    *c = (struct cts_ctl_conn){ .ctl = t,
                                .fd = fd,
                                .serial = ++t->serial,
                                .opened_ns = cts_clock_ns(),
                                .rx = CTS_BUF(CTS_CTL_MESSAGE_MAX + 4),
                                .tx = CTS_BUF(tx_max) };
    c->sink = (struct cts_sink){ .ops = &CTS_CTL_SINK_OPS, .client = (uint32_t)c->serial };
    if (uv_poll_init(t->o.loop, &c->poll, fd) < 0) {
        close(fd);
        free(c);
        return;
    }
    c->poll.data = c;
    add_conn(t, c);
    conn_turn(c, c->opened_ns);
}

static void on_listener_ready(uv_poll_t *h, int status, int events)
{
    struct cts_ctl *t = h->data;

    (void)events;
    for (int i = 0; status == 0 && i < ACCEPTS_PER_EVENT; i++) {
        int fd = accept4(t->o.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            new_conn(t, fd);
            continue;
        }
        if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) return;
        cts_log(CTS_LOG_WARNING, "accept: %s: new connections wait until one is closed", strerror(errno));
        watch_listener(t, 0); /* it would be readable for ever */
        t->paused_ns = cts_clock_ns();
        return;
    }
}

static void watch_listener(struct cts_ctl *t, int on)
{
    if (uv_is_closing((uv_handle_t *)&t->listener)) return;
    if (on && uv_poll_start(&t->listener, UV_READABLE, on_listener_ready) == 0) t->is_listening = 1;
    if (!on && uv_poll_stop(&t->listener) == 0) t->is_listening = 0;
}

int cts_ctl_needs_tick(const struct cts_ctl *t)
{
    return t->n_half_open > 0 || !t->is_listening;
}

void cts_ctl_tick(struct cts_ctl *t, uint64_t now_ns)
{
    for (uint32_t i = t->n_conns; t->n_half_open > 0 && i > 0; i--) {
        struct cts_ctl_conn *c = t->conns[i - 1];

        if (!c->has_hello && now_ns - c->opened_ns >= t->o.setup_ns) conn_close(c);
    }
    if (!t->is_listening && now_ns - t->paused_ns >= PAUSE_NS) watch_listener(t, 1);
}

int cts_ctl_open(struct cts_ctl **out, const struct cts_ctl_opts *o, struct cts_err *err)
{
    struct cts_ctl *t = calloc(1, sizeof(*t));
    int             rc;

    if (t == NULL) return cts_err_set(err, -ENOMEM, "control socket");
    *t = (struct cts_ctl){ .o = *o, .started_ns = cts_clock_ns() };
    t->conns = calloc(o->n_conns_max, sizeof(*t->conns));
    if (t->conns == NULL) {
        rc = cts_err_set(err, -ENOMEM, "control socket for %u connections", o->n_conns_max);
        goto fail;
    }
    rc = uv_poll_init(o->loop, &t->listener, o->listen_fd);
    if (rc < 0) {
        rc = cts_err_set(err, rc, "watch the control socket");
        goto fail;
    }
    t->has_listener = 1;
    t->listener.data = t;
    watch_listener(t, 1);
    *out = t;
    return 0;

fail:
    cts_ctl_free(t);
    return rc;
}

void cts_ctl_stop(struct cts_ctl *t)
{
    while (t->n_conns > 0) {
        struct cts_ctl_conn *c = t->conns[0];

        if (!c->failed) (void)conn_send(c); /* best effort: what fits goes out */
        conn_close(c);
    }
    if (t->has_listener && !uv_is_closing((uv_handle_t *)&t->listener))
        uv_close((uv_handle_t *)&t->listener, NULL);
}

void cts_ctl_free(struct cts_ctl *t)
{
    if (t == NULL) return;
    CTS_ASSERT(t->n_conns == 0);
    free(t->conns);
    free(t);
}
