#include "tests/system/raw.h"

#include "common/wait.h"
#include "tests/check.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE_BYTES_MAX (CTS_CTL_MESSAGE_MAX + 4)

void raw_connect(struct raw *c, const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    *c = (struct raw){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
                       .rx = CTS_BUF(MESSAGE_BYTES_MAX),
                       .tx = CTS_BUF(MESSAGE_BYTES_MAX) };
    CHECK(strlen(path) < sizeof(a.sun_path));
    memcpy(a.sun_path, path, strlen(path));
    CHECK(c->fd >= 0 && connect(c->fd, (struct sockaddr *)&a, sizeof(a)) == 0);
}

void raw_open(struct raw *c, const char *path)
{
    struct cts_ctl_reply reply;
    struct cts_mpw      *w;

    raw_connect(c, path);
    w = raw_begin(c, "hello", 3);
    cts_mpw_str(w, "major"), cts_mpw_u64(w, CTS_CTL_MAJOR);
    cts_mpw_str(w, "minor"), cts_mpw_u64(w, 7);
    cts_mpw_str(w, "client"), cts_mpw_str(w, "raw");
    raw_end(c);
    CHECK(raw_recv(c, &reply) == 1 && reply.kind == CTS_CTL_RESULT);
    CHECK(raw_u64(reply.body, "major") == CTS_CTL_MAJOR && raw_u64(reply.body, "minor") == CTS_CTL_MINOR);
}

void raw_close(struct raw *c)
{
    for (uint32_t i = 0; i < c->n_fds; i++) close(c->fds[i]);
    c->n_fds = 0;
    close(c->fd);
    cts_buf_deinit(&c->rx);
    cts_buf_deinit(&c->tx);
}

void raw_send(struct raw *c, const void *p, size_t n)
{
    CHECK(send(c->fd, p, n, MSG_NOSIGNAL) == (ssize_t)n);
}

struct cts_mpw *raw_begin(struct raw *c, const char *method, uint32_t n_pairs)
{
    c->tx.len = 0;
    c->w = (struct cts_mpw){ &c->tx, 0 };
    c->begin = cts_frame_begin(&c->w);
    cts_mpw_map(&c->w, 3);
    cts_mpw_str(&c->w, "id"), cts_mpw_u64(&c->w, ++c->id);
    cts_mpw_str(&c->w, "method"), cts_mpw_str(&c->w, method);
    cts_mpw_str(&c->w, "params"), cts_mpw_map(&c->w, n_pairs);
    return &c->w;
}

void raw_end(struct raw *c)
{
    CHECK(cts_frame_end(&c->w, c->begin) == 0);
    raw_send(c, c->tx.ptr, c->tx.len);
}

/* n bytes into rx; 0 when the daemon closed before the first of them. */
static int recv_all(struct raw *c, size_t n)
{
    int      fds[CTS_FDS_MAX];
    uint32_t n_fds;

    c->rx.len = 0;
    CHECK(cts_buf_reserve(&c->rx, n) == 0);
    while (c->rx.len < n) {
        int64_t got = cts_fds_recv(c->fd, c->rx.ptr + c->rx.len, n - c->rx.len, fds, &n_fds);

        if (got == 0 || got == -ECONNRESET) {
            CHECK(c->rx.len == 0);
            return 0;
        }
        CHECK(got > 0);
        if (n_fds > 0) {
            CHECK(c->n_fds == 0);
            memcpy(c->fds, fds, sizeof(fds));
            c->n_fds = n_fds;
        }
        c->rx.len += (size_t)got;
    }
    return 1;
}

int raw_recv(struct raw *c, struct cts_ctl_reply *reply)
{
    int64_t n;

    if (!recv_all(c, 4)) return 0;
    n = cts_frame_bytes(c->rx.ptr, 4);
    CHECK(n > 4);
    CHECK(recv_all(c, (size_t)n - 4));
    CHECK(cts_ctl_reply_decode(c->rx.ptr, c->rx.len, reply) == 0);
    return 1;
}

void raw_check_error(const struct cts_ctl_reply *reply, const char *code, const char *param)
{
    struct cts_span s = { NULL, 0 };
    struct cts_mp   v;

    CHECK(reply->kind == CTS_CTL_ERROR);
    CHECK(cts_mp_find(reply->body, "code", &v) && cts_mp_str(&v, &s) == 0);
    CHECK_MSG(cts_span_is(s, code), "%.*s, not %s\n", (int)s.len, (const char *)s.ptr, code);
    CHECK(cts_mp_find(reply->body, "message", &v) && cts_mp_str(&v, &s) == 0 && s.len > 0);
    if (param == NULL) return;
    CHECK(cts_mp_find(reply->body, "param", &v) && cts_mp_str(&v, &s) == 0);
    CHECK_MSG(cts_span_is(s, param), "%.*s, not %s\n", (int)s.len, (const char *)s.ptr, param);
}

void raw_call(struct raw *c, const char *method, struct cts_ctl_reply *reply)
{
    (void)raw_begin(c, method, 0);
    raw_end(c);
    CHECK(raw_recv(c, reply) == 1);
    CHECK(reply->id == c->id && reply->kind == CTS_CTL_RESULT);
}

uint64_t raw_u64(struct cts_mp map, const char *key)
{
    struct cts_mp v;
    uint64_t      u = 0;

    CHECK_MSG(cts_mp_find(map, key, &v) && cts_mp_u64(&v, &u) == 0, "no %s\n", key);
    return u;
}

uint64_t raw_status(struct raw *c, const char *map, const char *key)
{
    struct cts_ctl_reply reply;
    struct cts_mp        v;

    raw_call(c, "status", &reply);
    CHECK(cts_mp_find(reply.body, map, &v));
    return raw_u64(v, key);
}

/* ---- rings ---- */

void raw_ring_open(struct raw_ring *r, struct raw *c, uint32_t n_records, uint32_t arena_bytes,
                   uint32_t out_bytes)
{
    struct cts_mpw      *w = raw_begin(c, "ring.open", 3);
    struct cts_ctl_reply reply;
    uint32_t             n, arena, out;

    cts_mpw_str(w, "records"), cts_mpw_u64(w, n_records);
    cts_mpw_str(w, "arena_bytes"), cts_mpw_u64(w, arena_bytes);
    cts_mpw_str(w, "out_bytes"), cts_mpw_u64(w, out_bytes);
    raw_end(c);
    CHECK(raw_recv(c, &reply) == 1 && reply.kind == CTS_CTL_RESULT);
    CHECK(c->n_fds == CTS_FDS_MAX);
    n = (uint32_t)raw_u64(reply.body, "records");
    arena = (uint32_t)raw_u64(reply.body, "arena_bytes");
    out = (uint32_t)raw_u64(reply.body, "out_bytes");
    memset(r, 0, sizeof(*r));
    CHECK(cts_segment_map(&r->sub, c->fds[0], CTS_SEGMENT_SUB, cts_sub_bytes(n, arena), NULL) == 0);
    CHECK(cts_segment_map(&r->out, c->fds[1], CTS_SEGMENT_OUT, cts_out_bytes(out), NULL) == 0);
    r->kick_fd = c->fds[2];
    r->wake_fd = c->fds[3];
    c->n_fds = 0;
    CHECK(cts_subw_init(&r->subw, r->sub.map, r->out.map, n, arena) == 0);
    CHECK(cts_outr_init(&r->outr, r->out.map, r->sub.map, out) == 0);
}

void raw_ring_close(struct raw_ring *r)
{
    cts_segment_close(&r->sub);
    cts_segment_close(&r->out);
    close(r->kick_fd);
    close(r->wake_fd);
}

static void kick(struct raw_ring *r)
{
    uint64_t one = 1;

    r->n_kicks++;
    CHECK(write(r->kick_fd, &one, sizeof(one)) == sizeof(one));
}

void raw_ring_put(struct raw_ring *r, struct cts_sub_record rec, const void *payload, size_t n)
{
    CHECK(cts_subw_put(&r->subw, &rec, payload, (uint32_t)n) == 0);
    if (cts_subw_publish(&r->subw)) kick(r);
}

int raw_ring_take(struct raw_ring *r)
{
    uint32_t seq;
    int      must_kick, rc;

    for (;;) {
        rc = cts_outr_take(&r->outr, r->rec, &must_kick);
        CHECK(rc >= 0);
        if (must_kick) kick(r);
        if (rc == 1) return 1;
        if (cts_outr_flags(&r->outr) & CTS_OUT_CLOSED) return 0;
        if (cts_outr_sleep_begin(&r->outr, CTS_WAIT_FUTEX, 0, &seq)) continue;
        rc = cts_futex_wait(&r->outr.hdr->wake_seq, seq, UINT64_C(60000000000), 1);
        cts_outr_sleep_end(&r->outr);
        CHECK_MSG(rc != -ETIMEDOUT, "the daemon did not answer\n");
    }
}

/* ---- the daemon from outside ---- */

uint64_t raw_proc_kib(pid_t pid, const char *key)
{
    char               path[64], line[256];
    unsigned long long kib = 0;
    FILE              *f;

    snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
    f = fopen(path, "r");
    CHECK(f != NULL);
    while (fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':')
            CHECK(sscanf(line + strlen(key) + 1, "%llu", &kib) == 1);
    fclose(f);
    CHECK(kib > 0);
    return kib;
}

uint32_t raw_n_fds(pid_t pid)
{
    char     path[64];
    uint32_t n = 0;
    DIR     *d;

    snprintf(path, sizeof(path), "/proc/%ld/fd", (long)pid);
    d = opendir(path);
    CHECK(d != NULL);
    while (readdir(d) != NULL) n++;
    closedir(d);
    return n;
}
