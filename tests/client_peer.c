#include "tests/client_peer.h"

#include "common/err.h"
#include "common/wait.h"
#include "proto/ctl_msg.h"
#include "tests/check.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define N_RECORDS_TOLD CTS_SUB_RECORDS_MIN

/* ---- the control socket, on the thread ---- */

static int recv_all(int fd, uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t got = recv(fd, p, n, 0);

        if (got <= 0) return -1;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

static void begin_reply(struct cts_mpw *w, uint64_t id, const char *kind, uint32_t n_pairs)
{
    cts_mpw_map(w, 2);
    cts_mpw_str(w, "id");
    cts_mpw_u64(w, id);
    cts_mpw_str(w, kind);
    cts_mpw_map(w, n_pairs);
}

static void put_u64(struct cts_mpw *w, const char *key, uint64_t v)
{
    cts_mpw_str(w, key);
    cts_mpw_u64(w, v);
}

static void put_str(struct cts_mpw *w, const char *key, const char *v)
{
    cts_mpw_str(w, key);
    cts_mpw_str(w, v);
}

static void answer_hello(struct peer *p, struct cts_mpw *w, uint64_t id)
{
    begin_reply(w, id, "result", 4);
    put_u64(w, "major", p->lie == LIE_MAJOR ? CTS_CTL_MAJOR + 1 : CTS_CTL_MAJOR);
    put_u64(w, "minor", CTS_CTL_MINOR);
    put_str(w, "server", "peer");
    put_u64(w, "pid", (uint64_t)getpid());
}

static void answer_resolve(struct peer *p, struct cts_mpw *w, uint64_t id)
{
    p->n_resolved++;
    if (p->resolve_code != 0) {
        begin_reply(w, id, "error", 2);
        put_str(w, "code", cts_err_name(p->resolve_code));
        put_str(w, "message", "the peer says no");
        return;
    }
    begin_reply(w, id, "result", 4);
    put_u64(w, "number", p->number);
    put_u64(w, "generation", p->generation);
    put_str(w, "digest", "ab");
    put_str(w, "kind", "exact");
}

static void forget_client(struct peer *p)
{
    if (p->wake_fd >= 0) close(p->wake_fd);
    if (p->kick_fd >= 0) close(p->kick_fd);
    p->wake_fd = p->kick_fd = -1;
}

/* A segment as the daemon makes it, or one that lacks what it should have. */
static void make_segment(struct cts_segment *s, enum cts_segment_kind kind, size_t bytes, int is_bad)
{
    int rc = 0;

    if (!is_bad) {
        rc = cts_segment_create(s, kind, bytes, NULL);
    } else if (kind == CTS_SEGMENT_OUT) {
        rc = cts_segment_create(s, CTS_SEGMENT_SUB, bytes, NULL);
    } else {
        s->fd = memfd_create("bad", MFD_CLOEXEC);
        rc = ftruncate(s->fd, (off_t)bytes);
        s->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
        s->bytes = bytes;
    }
    if (rc != 0 || s->map == MAP_FAILED) abort();
}

/* Rings for a new client, in the segments that are there from the start: the
 * thread allocates and maps nothing, since the tests let that fail. */
static void make_rings(struct peer *p, int fds[4])
{
    int pair[2];

    forget_client(p);
    memset(p->sub_segment.map, 0, p->sub_segment.bytes);
    memset(p->out_segment.map, 0, p->out_segment.bytes);
    cts_sub_init(&p->sub, p->sub_segment.map, N_RECORDS_TOLD, CTS_ARENA_BYTES_MIN, 7);
    cts_out_init(&p->out, p->out_segment.map, p->sub.hdr, CTS_OUT_BYTES_MIN, 7);
    if (p->lie == LIE_MAGIC) p->out.hdr->magic = 1;
    if (p->lie == LIE_SHM_MAJOR) p->sub.hdr->ver_major = CTS_SHM_MAJOR + 1;
    if (p->lie == LIE_RING_ID) p->out.hdr->ring_id = 8;
    if (p->lie == LIE_HEADER_RECORDS) p->sub.hdr->n_records = 2 * N_RECORDS_TOLD;
    p->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) abort();
    p->wake_fd = pair[0];
    fds[0] = p->sub_segment.fd;
    fds[1] = p->out_segment.fd;
    fds[2] = p->kick_fd;
    fds[3] = pair[1];
}

static void answer_ring(struct peer *p, struct cts_mpw *w, uint64_t id)
{
    if (p->lie == LIE_REFUSE || p->lie == LIE_UNKNOWN_CODE) {
        begin_reply(w, id, "error", 2);
        put_str(w, "code", p->lie == LIE_REFUSE ? "busy" : "no-such-code");
        put_str(w, "message", "the peer says no");
        return;
    }
    begin_reply(w, id, "result", p->lie == LIE_NO_GEOMETRY ? 4 : 5);
    put_u64(w, "records", p->lie == LIE_ODD_GEOMETRY ? 17 : N_RECORDS_TOLD);
    put_u64(w, "arena_bytes", CTS_ARENA_BYTES_MIN);
    if (p->lie != LIE_NO_GEOMETRY)
        put_u64(w, "out_bytes", p->lie == LIE_LARGER ? 2 * CTS_OUT_BYTES_MIN : CTS_OUT_BYTES_MIN);
    put_u64(w, "ring_id", 7);
    put_u64(w, "live_max", p->lie == LIE_LIVE_HUGE ? UINT32_MAX : p->n_live_max);
}

static void send_reply(struct peer *p, const struct cts_buf *tx, const int *fds, uint32_t n_fds)
{
    size_t  at = 0;
    int64_t sent;

    while (at < tx->len) {
        sent = cts_fds_send(p->conn_fd, tx->ptr + at, tx->len - at, fds, at == 0 ? n_fds : 0);
        if (sent == -EAGAIN) {
            sched_yield();
            continue;
        }
        if (sent < 0) return; /* the client went away, which may be the test's point */
        at += (size_t)sent;
    }
}

static void answer(struct peer *p, const struct cts_ctl_request *q)
{
    static uint8_t space[65536]; /* not from the allocator, which the tests let fail */
    struct cts_buf tx = { .ptr = space, .cap = sizeof(space), .max = sizeof(space) };
    struct cts_mpw w = { .out = &tx };
    int            fds[4], is_ring = cts_span_is(q->method, "ring.open");
    uint32_t       n_fds = 0;
    size_t         begin;

    if (p->lie == LIE_OLD_ANSWER) {
        begin = cts_frame_begin(&w);
        begin_reply(&w, q->id + 1000, "result", 0);
        (void)cts_frame_end(&w, begin);
        send_reply(p, &tx, NULL, 0);
        tx.len = 0;
    }
    begin = cts_frame_begin(&w);
    if (cts_span_is(q->method, "hello")) answer_hello(p, &w, q->id);
    else if (cts_span_is(q->method, "resolve")) answer_resolve(p, &w, q->id);
    else answer_ring(p, &w, q->id);
    (void)cts_frame_end(&w, begin);
    if (is_ring && p->lie != LIE_REFUSE && p->lie != LIE_UNKNOWN_CODE) {
        make_rings(p, fds);
        n_fds = p->lie == LIE_FEW_FDS ? 3 : 4;
    }
    if (p->lie == LIE_MANY_FDS && n_fds > 0) {
        send_reply(p, &(struct cts_buf){ .ptr = tx.ptr, .len = 1 }, fds, 4); /* and four more with the rest */
        send_reply(p, &(struct cts_buf){ .ptr = tx.ptr + 1, .len = tx.len - 1 }, fds, 4);
    } else {
        send_reply(p, &tx, fds, n_fds);
    }
    if (n_fds > 0) close(fds[3]);
}

static void serve(struct peer *p)
{
    static uint8_t         msg[65536];
    uint8_t                head[4];
    struct cts_ctl_request q;

    while (recv_all(p->conn_fd, head, 4) == 0) {
        int64_t n = cts_frame_bytes(head, 4) - 4;

        if (n <= 0 || n > (int64_t)sizeof(msg) || recv_all(p->conn_fd, msg, (size_t)n) != 0) return;
        if (cts_ctl_request_decode(msg, (size_t)n, &q) != 0) return;
        if (p->lie == LIE_HELLO_HANG_UP) return;
        if (p->lie == LIE_HELLO_GARBAGE) (void)send(p->conn_fd, "\0\0\0\5\335\4\0\0\0", 9, MSG_NOSIGNAL);
        else if (p->lie == LIE_HELLO_HUGE) (void)send(p->conn_fd, "\377\377\377\377", 4, MSG_NOSIGNAL);
        else answer(p, &q);
    }
}

static void *run(void *arg)
{
    struct peer *p = arg;

    for (;;) {
        int fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0) return NULL;
        p->conn_fd = fd;
        serve(p);
        close(fd);
    }
}

/* ---- start and stop ---- */

struct peer *peer_start(enum peer_lie lie)
{
    struct peer       *p = calloc(1, sizeof(*p));
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    CHECK(p != NULL);
    p->lie = lie;
    p->n_live_max = 8;
    p->number = 3;
    p->generation = 1;
    p->conn_fd = -1;
    p->wake_fd = p->kick_fd = -1;
    make_segment(&p->sub_segment, CTS_SEGMENT_SUB, cts_sub_bytes(N_RECORDS_TOLD, CTS_ARENA_BYTES_MIN),
                 lie == LIE_UNSEALED);
    make_segment(&p->out_segment, CTS_SEGMENT_OUT, cts_out_bytes(CTS_OUT_BYTES_MIN), lie == LIE_WRITABLE_OUT);
    temp_dir(p->dir, sizeof(p->dir));
    snprintf(p->path, sizeof(p->path), "%s/s", p->dir);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/s", p->dir);
    p->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(p->listen_fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    CHECK(listen(p->listen_fd, 8) == 0);
    CHECK(pthread_create(&p->thread, NULL, run, p) == 0);
    return p;
}

void peer_stop(struct peer *p)
{
    shutdown(p->listen_fd, SHUT_RDWR);
    if (p->conn_fd >= 0) shutdown(p->conn_fd, SHUT_RDWR); /* harmless where the thread closed it already */
    pthread_join(p->thread, NULL);
    close(p->listen_fd);
    forget_client(p);
    cts_segment_close(&p->sub_segment);
    cts_segment_close(&p->out_segment);
    unlink(p->path);
    rmdir(p->dir);
    free(p);
}

cts *peer_open(struct peer *p, uint32_t n_records)
{
    struct cts_options o = CTS_OPTIONS_INIT;
    char               message[512];
    cts               *c;
    int                rc;

    o.socket = p->path;
    o.n_records = n_records;
    o.spin_ns = 0;
    rc = cts_open(&c, &o, message, sizeof(message));
    CHECK_MSG(rc == 0, "open: %s\n", message);
    return c;
}

/* ---- the rings ---- */

int peer_take(struct peer *p, struct cts_sub_record *rec)
{
    int rc = cts_sub_take(&p->sub, rec, p->payload, sizeof(p->payload));

    CHECK(rc >= 0);
    cts_out_publish_head(&p->out, p->sub.head);
    return rc;
}

void peer_show(struct peer *p)
{
    uint32_t how = cts_out_publish(&p->out);

    if (how & CTS_WAIT_FUTEX) cts_futex_wake(&p->out.hdr->wake_seq, 1, 1);
    if (how & CTS_WAIT_SOCKET) (void)send(p->wake_fd, "w", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void peer_put(struct peer *p, const struct cts_out_view *v)
{
    _Alignas(8) uint8_t rec[CTS_OUT_RECORD_MAX];
    uint32_t            n = cts_out_encode(v, rec);

    if (cts_out_look(&p->out) != 0 || cts_out_put(&p->out, rec, n) != 0) abort();
    peer_show(p);
}

void peer_accept(struct peer *p, uint64_t req_id)
{
    peer_put(p, &(struct cts_out_view){ .type = CTS_OUT_ACCEPTED, .req_id = req_id, .n_prompt = 5 });
}

void peer_token(struct peer *p, uint64_t req_id, uint32_t first, uint32_t id, const char *text)
{
    peer_put(p, &(struct cts_out_view){ .type = CTS_OUT_TOKENS,
                                        .req_id = req_id,
                                        .first = first,
                                        .n_tokens = 1,
                                        .ids = &id,
                                        .text = text,
                                        .text_len = (uint32_t)strlen(text) });
}

void peer_done(struct peer *p, uint64_t req_id, uint32_t n_tokens)
{
    peer_put(p, &(struct cts_out_view){ .type = CTS_OUT_DONE,
                                        .req_id = req_id,
                                        .status = CTS_FINISH_STOP,
                                        .n_prompt = 5,
                                        .n_tokens = n_tokens });
}

void peer_error(struct peer *p, uint64_t req_id, int code, const char *text)
{
    peer_put(p, &(struct cts_out_view){ .type = CTS_OUT_ERROR,
                                        .req_id = req_id,
                                        .status = (uint32_t)-code,
                                        .retry_ms = 7,
                                        .text = text,
                                        .text_len = (uint32_t)strlen(text) });
}

void peer_die(struct peer *p)
{
    shutdown(p->conn_fd, SHUT_RDWR);
    close(p->wake_fd);
    p->wake_fd = -1;
}

static void *act_when_asleep(void *arg)
{
    struct peer_act *a = arg;

    while (atomic_load(&a->peer->sub.hdr->out_wait) == 0 && !a->peer->is_over) sched_yield();
    if (!a->peer->is_over) a->act(a->peer);
    return NULL;
}

void peer_when_asleep(struct peer *p, struct peer_act *a, void (*act)(struct peer *p))
{
    *a = (struct peer_act){ .peer = p, .act = act };
    p->is_over = 0;
    CHECK(pthread_create(&a->thread, NULL, act_when_asleep, a) == 0);
}

void peer_act_join(struct peer_act *a)
{
    a->peer->is_over = 1;
    pthread_join(a->thread, NULL);
}
