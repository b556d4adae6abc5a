#include "daemon/serve/shm_server.h"

#include "common/assert.h"
#include "common/log.h"
#include "common/wait.h"
#include "shm/record.h"
#include "shm/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECORDS_PER_TURN  32u          /* R6: of one client */
#define PAYLOAD_PER_TURN  (256u << 10) /* R6: bytes of one client, at least one record */
#define N_RECORDS_DEFAULT 256u
#define ERROR_TEXT_MAX    480u
#define ANSWER_BYTES      (2 * CTS_OUT_RECORD_ALIGN) /* of one submission at once: ACCEPTED and a last record */

struct cts_ring {
    struct cts_sink    sink; /* first: the sink is the ring */
    struct cts_shm    *shm;
    struct cts_segment sub_seg, out_seg;
    struct cts_sub     sub;
    struct cts_out     out;
    int                kick_fd, wake_fd;
    uint32_t           idx;    /* in shm's list */
    int                failed; /* CTS_EPROTO: closed at the end of the turn */
    uint64_t           n_cancels;
    int                is_blocked; /* submissions wait for room in OUT */
    int                is_closed;  /* torn down; memory goes with its connection's handle */
};

struct cts_shm {
    struct cts_shm_opts o;
    int                 epoll_fd; /* inner: all kick eventfds, edge-triggered, never read */
    uv_poll_t           poll;
    int                 has_poll, is_armed, is_draining;
    struct cts_ring   **rings; /* [n_rings_max], the first n_rings are open */
    uint32_t            n_rings;
    uint8_t            *payload; /* [arena_bytes_max], one submission's copy */
};

/* ---- sink: events into OUT ---- */

static struct cts_ring *ring_of(struct cts_sink *s)
{
    return (struct cts_ring *)s;
}

/* As many bytes of s as fit into n, cut before a character that would be halved. */
static uint32_t cut(const char *s, uint32_t n)
{
    size_t len = strlen(s);

    if (len <= n) return (uint32_t)len;
    while (n > 0 && ((uint8_t)s[n] & 0xc0) == 0x80) n--;
    return n;
}

static int put_view(struct cts_ring *r, const struct cts_out_view *v)
{
    _Alignas(8) uint8_t buf[CTS_OUT_RECORD_MAX];
    uint32_t            bytes = cts_out_encode(v, buf);
    int                 rc = cts_out_put(&r->out, buf, bytes);

    if (rc != -EAGAIN || !cts_out_has_moved(&r->out)) return rc;
    r->failed = cts_out_look(&r->out); /* the client may have taken some since the turn's first look */
    return r->failed == 0 ? cts_out_put(&r->out, buf, bytes) : -EAGAIN;
}

/* A last record: its 32 bytes are reserved or were made sure of. The sentence of
 * an error goes along where there is room for it. */
static void put_last(struct cts_ring *r, struct cts_out_view *v)
{
    int rc = put_view(r, v);

    if (rc == -EAGAIN && v->text != NULL) {
        v->text = NULL;
        v->text_len = 0;
        rc = put_view(r, v);
    }
    CTS_ASSERT(rc == 0);
}

static void put_error(struct cts_ring *r, uint64_t req_id, int code, const char *text, uint32_t retry_ms)
{
    struct cts_out_view v = { .type = CTS_OUT_ERROR,
                              .req_id = req_id,
                              .status = (uint32_t)-code,
                              .retry_ms = retry_ms,
                              .text = text,
                              .text_len = cut(text, ERROR_TEXT_MAX) };

    put_last(r, &v);
}

static int put_tokens(struct cts_ring *r, const struct cts_live *l, const struct cts_engine_event *ev)
{
    uint32_t            id = (uint32_t)ev->token;
    struct cts_top_pair top[CTS_TOP_LOGPROBS_MAX];
    struct cts_out_view v = { .type = CTS_OUT_TOKENS,
                              .req_id = l->req_id,
                              .first = l->n_tokens,
                              .text = ev->text,
                              .text_len = ev->text_bytes };

    if (ev->type == CTS_EV_TOKEN) {
        v.n_tokens = 1;
        v.ids = &id;
        if (l->req->n_logprobs >= 0) v.logprobs = &ev->logprob;
        if (ev->n_top > 0) {
            for (uint32_t i = 0; i < ev->n_top; i++)
                top[i] = (struct cts_top_pair){ (uint32_t)ev->top[i].id, ev->top[i].logprob };
            v.n_top = ev->n_top;
            v.top = top;
        }
    }
    return put_view(r, &v);
}

static int ring_put(struct cts_sink *s, const struct cts_live *l, const struct cts_engine_event *ev)
{
    struct cts_ring *r = ring_of(s);

    switch (ev->type) {
    case CTS_EV_TOKEN:
    case CTS_EV_TEXT:
        return put_tokens(r, l, ev);
    case CTS_EV_DONE: {
        struct cts_out_view v = { .type = CTS_OUT_DONE,
                                  .req_id = l->req_id,
                                  .status = ev->finish,
                                  .n_prompt = ev->n_prompt,
                                  .n_tokens = ev->n_tokens };

        cts_out_reserve(&r->out, -CTS_OUT_RECORD_ALIGN);
        put_last(r, &v);
        return 0;
    }
    default:
        CTS_ASSERT(ev->type == CTS_EV_ERROR);
        cts_out_reserve(&r->out, -CTS_OUT_RECORD_ALIGN);
        put_error(r, l->req_id, ev->code, cts_live_error_text(ev->code), 0);
        return 0;
    }
}

static int ring_has_room(struct cts_sink *s)
{
    return cts_out_room(&ring_of(s)->out) >= ring_of(s)->out.out_bytes / 4;
}

static const struct cts_sink_ops RING_OPS = { ring_put, ring_has_room };

/* ---- open and close ---- */

static void on_kick(uv_poll_t *h, int status, int events)
{
    struct cts_shm    *s = h->data;
    struct epoll_event ev[64];

    (void)status;
    (void)events;
    /* Take the edges, so that the outer epoll reports the next; the eventfds
     * themselves are never read: a client can make that block. The turn that
     * follows looks at every ring. */
    (void)epoll_wait(s->epoll_fd, ev, 64, 0);
}

int cts_shm_open(struct cts_shm **out, const struct cts_shm_opts *o, struct cts_err *err)
{
    struct cts_shm *s = *out = calloc(1, sizeof(*s));
    int             rc;

    if (s == NULL) return cts_err_set(err, -ENOMEM, "shared-memory door");
    *s = (struct cts_shm){ .o = *o, .epoll_fd = -1 };
    s->rings = calloc(o->n_rings_max, sizeof(*s->rings));
    s->payload = malloc(o->arena_bytes_max);
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->rings == NULL || s->payload == NULL || s->epoll_fd < 0)
        return cts_err_set(err, s->epoll_fd < 0 ? -errno : -ENOMEM, "shared-memory door for %u clients",
                           o->n_rings_max);
    rc = uv_poll_init(o->loop, &s->poll, s->epoll_fd);
    if (rc < 0) return cts_err_set(err, rc, "watch for kicks");
    s->has_poll = 1;
    s->poll.data = s;
    rc = uv_poll_start(&s->poll, UV_READABLE, on_kick);
    return rc < 0 ? cts_err_set(err, rc, "watch for kicks") : 0;
}

void cts_shm_stop(struct cts_shm *s)
{
    while (s->n_rings > 0) cts_ring_close(s->rings[0], CTS_ECLOSED);
    if (s->has_poll && !uv_is_closing((uv_handle_t *)&s->poll)) uv_close((uv_handle_t *)&s->poll, NULL);
}

void cts_shm_free(struct cts_shm *s)
{
    if (s == NULL) return;
    CTS_ASSERT(s->n_rings == 0);
    if (s->epoll_fd >= 0) close(s->epoll_fd);
    free(s->payload);
    free(s->rings);
    free(s);
}

/* A power of two within the limits: what the client asked for, rounded up. */
static uint32_t clamp(uint32_t want, uint32_t dflt, uint32_t lo, uint32_t hi)
{
    uint32_t v = lo;

    if (want == 0) want = dflt;
    while (v < want && v < hi) v *= 2;
    return v;
}

static void choose_sizes(const struct cts_shm_opts *o, struct cts_shm_sizes *z)
{
    z->n_records = clamp(z->n_records, N_RECORDS_DEFAULT, CTS_SUB_RECORDS_MIN, CTS_SUB_RECORDS_MAX);
    z->arena_bytes = clamp(z->arena_bytes, o->arena_bytes_max, CTS_ARENA_BYTES_MIN, o->arena_bytes_max);
    z->out_bytes = clamp(z->out_bytes, o->out_bytes_max, CTS_OUT_BYTES_MIN, o->out_bytes_max);
    z->live_max = o->live_per_client;
}

/* Map both segments and write their headers. */
static int map_segments(struct cts_ring *r, struct cts_shm_sizes *z, struct cts_err *err)
{
    int rc = cts_segment_create(&r->sub_seg, CTS_SEGMENT_SUB, cts_sub_bytes(z->n_records, z->arena_bytes), err);

    if (rc == 0) rc = cts_segment_create(&r->out_seg, CTS_SEGMENT_OUT, cts_out_bytes(z->out_bytes), err);
    if (rc < 0) return rc;
    if (getrandom(&z->ring_id, sizeof(z->ring_id), 0) != sizeof(z->ring_id))
        return cts_err_set(err, -errno, "ring id");
    cts_sub_init(&r->sub, r->sub_seg.map, z->n_records, z->arena_bytes, z->ring_id);
    cts_out_init(&r->out, r->out_seg.map, r->sub.hdr, z->out_bytes, z->ring_id);
    rc = cts_segment_protect(&r->sub_seg);
    return rc < 0 ? cts_err_set(err, rc, "protect the submission ring") : 0;
}

/* The kick eventfd under the inner epoll, and the wake socket; wake is the
 * client's end. */
static int open_wakeups(struct cts_ring *r, int *wake, struct cts_err *err)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
    int                sv[2];

    r->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->kick_fd < 0 || epoll_ctl(r->shm->epoll_fd, EPOLL_CTL_ADD, r->kick_fd, &ev) < 0)
        return cts_err_set(err, -errno, "kick eventfd");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0)
        return cts_err_set(err, -errno, "wake socket");
    r->wake_fd = sv[0];
    *wake = sv[1];
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void unmap(struct cts_ring *r)
{
    /* The client holds the eventfd too, so closing ours does not take it out of
     * the inner epoll. */
    if (r->kick_fd >= 0) (void)epoll_ctl(r->shm->epoll_fd, EPOLL_CTL_DEL, r->kick_fd, NULL);
    close_fd(&r->kick_fd);
    close_fd(&r->wake_fd);
    cts_segment_close(&r->sub_seg);
    cts_segment_close(&r->out_seg);
}

int cts_ring_open(struct cts_shm *s, uint32_t client, struct cts_shm_sizes *sizes, struct cts_ring **out,
                  int fds[CTS_FDS_MAX], struct cts_err *err)
{
    struct cts_ring *r;
    int              rc, wake = -1;

    if (s->n_rings == s->o.n_rings_max)
        return cts_err_set(err, CTS_EBUSY, "%u clients have rings, the most allowed", s->n_rings);
    r = calloc(1, sizeof(*r));
    if (r == NULL) return cts_err_set(err, -ENOMEM, "rings");
    *r = (struct cts_ring){ .sink = { .ops = &RING_OPS },
                            .shm = s,
                            .sub_seg = CTS_SEGMENT_NONE,
                            .out_seg = CTS_SEGMENT_NONE,
                            .kick_fd = -1,
                            .wake_fd = -1 };
    choose_sizes(&s->o, sizes);
    rc = map_segments(r, sizes, err);
    if (rc == 0) rc = open_wakeups(r, &wake, err);
    if (rc == 0) {
        fds[0] = r->sub_seg.fd;
        fds[1] = r->out_seg.fd;
        fds[2] = dup(r->kick_fd);
        fds[3] = wake;
        if (fds[2] < 0) rc = cts_err_set(err, -errno, "kick eventfd");
    }
    if (rc < 0) {
        close_fd(&wake);
        unmap(r);
        free(r);
        return rc;
    }
    r->sub_seg.fd = r->out_seg.fd = -1; /* the caller's now; the mappings stay */
    r->sink.client = client;
    r->idx = s->n_rings;
    s->rings[s->n_rings++] = r;
    if (s->is_draining) cts_out_flag(&r->out, CTS_OUT_DRAINING, 0);
    if (s->is_armed) cts_out_flag(&r->out, CTS_OUT_NEED_KICK, 0);
    *out = r;
    return 0;
}

/* Wake the client as it sleeps; neither call can block. */
static void wake(struct cts_ring *r, uint32_t how)
{
    if (how & CTS_WAIT_FUTEX) cts_futex_wake(&r->out.hdr->wake_seq, INT32_MAX, 1);
    if (how & CTS_WAIT_SOCKET)
        (void)send(r->wake_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* EAGAIN: it has plenty to read */
}

/* All but the object itself, which its connection holds. */
static void shut(struct cts_ring *r, int reason)
{
    struct cts_shm *s = r->shm;

    CTS_ASSERT(!r->is_closed);
    CTS_ASSERT(s->rings[r->idx] == r);
    cts_live_detach(s->o.lives, &r->sink); /* R8: nothing names this memory from here on */
    cts_out_close(&r->out, reason);
    wake(r, CTS_WAIT_FUTEX | CTS_WAIT_SOCKET);
    s->rings[r->idx] = s->rings[--s->n_rings];
    s->rings[r->idx]->idx = r->idx;
    unmap(r);
    r->is_closed = 1;
}

void cts_ring_close(struct cts_ring *r, int reason)
{
    if (r == NULL) return;
    if (!r->is_closed) shut(r, reason);
    free(r);
}

/* ---- submissions ---- */

static int resolve(struct cts_ring *r, const struct cts_sub_record *rec, struct cts_adapter **out,
                   struct cts_err *err)
{
    *out = NULL;
    if (rec->adapter == 0 && rec->generation == 0) return 0;
    return cts_adapters_get(r->shm->o.adapters, rec->adapter, rec->generation, out, err);
}

/* The payload in shm->payload as a message. What is wrong in it is the client's
 * to hear, not a reason to close (R7). */
static int decode(struct cts_ring *r, const struct cts_sub_record *rec, struct cts_gen_msg *m,
                  struct cts_err *err)
{
    struct cts_mp c = { r->shm->payload, r->shm->payload + rec->pay_len };
    char          param[CTS_PARAM_BYTES];
    int           rc;

    if (cts_mp_check(r->shm->payload, rec->pay_len, CTS_MP_OBJECTS_MAX) < 0)
        return cts_err_set(err, CTS_EARG, "the payload of %u bytes is not one well-formed msgpack map",
                           rec->pay_len);
    rc = cts_gen_decode(&c, m, param, err);
    if (rc == 0 && m->adapter.ptr != NULL)
        return cts_err_set(err, CTS_EARG,
                           "there is no parameter 'adapter' in a ring: its number stands in the record");
    return rc;
}

static void generate(struct cts_ring *r, const struct cts_sub_record *rec, uint64_t now_ns)
{
    struct cts_gen_msg    m;
    struct cts_submission sub = {
        .req_id = rec->req_id, .now_ns = now_ns, .deadline_ns = rec->deadline_ns, .msg = &m
    };
    struct cts_out_view accepted = { .type = CTS_OUT_ACCEPTED, .req_id = rec->req_id };
    struct cts_live    *l;
    struct cts_err      err = { .code = 0 };
    const char         *param;
    uint32_t            retry_ms = 0;
    int                 rc = decode(r, rec, &m, &err);

    if (rc == 0) rc = resolve(r, rec, &sub.adapter, &err);
    if (rc == 0) rc = cts_live_submit(r->shm->o.lives, &r->sink, &sub, &l, &param, &retry_ms, &err);
    if (rc < 0) {
        put_error(r, rec->req_id, rc, err.text, retry_ms);
        return;
    }
    accepted.n_prompt = l->req->n_prompt;
    rc = put_view(r, &accepted);
    CTS_ASSERT(rc == 0); /* take_records made sure of ANSWER_BYTES */
    cts_out_reserve(&r->out, CTS_OUT_RECORD_ALIGN);
}

static void act(struct cts_ring *r, const struct cts_sub_record *rec, uint64_t now_ns)
{
    struct cts_out_view pong = { .type = CTS_OUT_PONG, .req_id = rec->req_id };

    switch (rec->op) {
    case CTS_OP_GENERATE:
        generate(r, rec, now_ns);
        break;
    case CTS_OP_CANCEL:
        /* One that is gone has had its last record: nothing to say. */
        if (cts_live_cancel(r->shm->o.lives, &r->sink, rec->req_id) == 0)
            cts_out_count(&r->out, CTS_OUT_N_CANCELS, ++r->n_cancels);
        break;
    case CTS_OP_PING:
        (void)put_view(r, &pong);
        break; /* fits: ANSWER_BYTES */
    default:
        put_error(r, rec->req_id, CTS_EUNSUP, "this op is not known here", 0);
    }
}

/* Copy, judge and act, within the turn's bounds (R6). 1 when they cut it short. */
static int take_records(struct cts_ring *r, uint64_t now_ns)
{
    struct cts_sub_record rec;
    uint32_t              n = 0, bytes = 0;
    int                   rc = 0;

    while (n < RECORDS_PER_TURN && bytes < PAYLOAD_PER_TURN) {
        /* Without room for the answer the record stays where it is: the client
         * has to take its output first. */
        r->is_blocked = cts_out_room(&r->out) < ANSWER_BYTES;
        if (r->is_blocked) break;
        rc = cts_sub_take(&r->sub, &rec, r->shm->payload, r->shm->o.arena_bytes_max);
        if (rc <= 0) break;
        act(r, &rec, now_ns);
        n++;
        bytes += rec.pay_len;
    }
    if (rc < 0) r->failed = rc; /* R3 */
    if (n > 0) cts_out_publish_head(&r->out, r->sub.head);
    return rc > 0 && !r->is_blocked && cts_sub_has_more(&r->sub);
}

static void close_failed(struct cts_shm *s)
{
    for (uint32_t i = s->n_rings; i > 0; i--) {
        struct cts_ring *r = s->rings[i - 1];

        if (!r->failed) continue;
        cts_log(CTS_LOG_WARNING, "client %u: its rings are closed: it wrote what the layout forbids",
                r->sink.client);
        cts_out_count(&r->out, CTS_OUT_N_PROTO_ERRORS, 1);
        shut(r, r->failed);
    }
}

int cts_shm_take(struct cts_shm *s, uint64_t now_ns)
{
    int has_more = 0, n_failed = 0;

    for (uint32_t i = 0; i < s->n_rings; i++) {
        struct cts_ring *r = s->rings[i];

        if (r->failed == 0) r->failed = cts_out_look(&r->out); /* R3 */
        if (r->failed == 0) {
            if (r->sink.n_parked > 0) cts_lives_resume(s->o.lives, &r->sink, now_ns);
            has_more |= take_records(r, now_ns);
        }
        n_failed += r->failed != 0;
    }
    if (n_failed > 0) close_failed(s);
    return has_more;
}

/* What waits for the client to take its output. */
static int needs_room(const struct cts_ring *r)
{
    return r->is_blocked || r->sink.n_parked > 0;
}

void cts_shm_publish(struct cts_shm *s)
{
    for (uint32_t i = 0; i < s->n_rings; i++) {
        struct cts_ring *r = s->rings[i];
        uint32_t         how = cts_out_publish(&r->out);

        if (how != 0) wake(r, how);
        cts_out_count(&r->out, CTS_OUT_N_STALLS, r->sink.n_stalls);
    }
}

int cts_shm_has_more(const struct cts_shm *s)
{
    for (uint32_t i = 0; i < s->n_rings; i++) {
        const struct cts_ring *r = s->rings[i];

        if (!r->is_blocked && cts_sub_has_more(&r->sub)) return 1;
        if (needs_room(r) && cts_out_has_moved(&r->out)) return 1;
    }
    return 0;
}

int cts_shm_arm(struct cts_shm *s)
{
    s->is_armed = 1;
    for (uint32_t i = 0; i < s->n_rings; i++)
        cts_out_flag(&s->rings[i]->out, CTS_OUT_NEED_KICK | (needs_room(s->rings[i]) ? CTS_OUT_NEED_ROOM : 0),
                     0);
    return cts_shm_has_more(s); /* after the flags, seq_cst: what came before they were seen, we see */
}

void cts_shm_disarm(struct cts_shm *s)
{
    s->is_armed = 0;
    for (uint32_t i = 0; i < s->n_rings; i++)
        cts_out_flag(&s->rings[i]->out, 0, CTS_OUT_NEED_KICK | CTS_OUT_NEED_ROOM);
}

void cts_shm_set_draining(struct cts_shm *s)
{
    s->is_draining = 1;
    for (uint32_t i = 0; i < s->n_rings; i++) cts_out_flag(&s->rings[i]->out, CTS_OUT_DRAINING, 0);
}

uint32_t cts_shm_n_rings(const struct cts_shm *s)
{
    return s->n_rings;
}
