/* Making and unmaking a handle. Everything that the daemon says about sizes is
 * compared with what was mapped before anything is used. */
#include "client/handle.h"

#include "common/clock.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SPIN_NS_DEFAULT   50000u
#define N_RECORDS_DEFAULT 256u
#define BYTES_DEFAULT     (1u << 20)
#define LIVE_MAX          65536u
#define OPEN_TIMEOUT_NS   10000000000u
#define ASK_TIMEOUT_NS    10000000000u

_Static_assert((int)CTS_ERROR_PROTOCOL == CTS_EPROTO, "public name of a code");
_Static_assert((int)CTS_ERROR_DEVICE == CTS_EGPU, "public name of a code");
_Static_assert((int)CTS_ERROR_DEVICE_LOST == CTS_EGPU_LOST, "public name of a code");
_Static_assert((int)CTS_ERROR_FORMAT == CTS_EFORMAT, "public name of a code");
_Static_assert((int)CTS_ERROR_UNSUPPORTED == CTS_EUNSUP, "public name of a code");
_Static_assert((int)CTS_ERROR_DIGEST == CTS_EDIGEST, "public name of a code");
_Static_assert((int)CTS_ERROR_BUSY == CTS_EBUSY, "public name of a code");
_Static_assert((int)CTS_ERROR_NOT_FOUND == CTS_ENOTFOUND, "public name of a code");
_Static_assert((int)CTS_ERROR_ARGUMENT == CTS_EARG, "public name of a code");
_Static_assert((int)CTS_ERROR_DENIED == CTS_EDENIED, "public name of a code");
_Static_assert((int)CTS_ERROR_VERSION == CTS_EVERSION, "public name of a code");
_Static_assert((int)CTS_ERROR_SLOW == CTS_ESLOW, "public name of a code");
_Static_assert((int)CTS_ERROR_CANCELLED == CTS_ECANCELED, "public name of a code");
_Static_assert((int)CTS_ERROR_TOO_LONG == CTS_ETOOLONG, "public name of a code");

/* What the daemon chose. */
struct geometry {
    uint64_t n_records, arena_bytes, out_bytes, ring_id, n_live_max;
};

/* Spinning on the only CPU would keep the daemon from running. */
static uint64_t default_spin_ns(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1) return 0;
    return SPIN_NS_DEFAULT;
}

static uint32_t pow2_within(uint32_t v, uint32_t lo, uint32_t hi)
{
    uint32_t p = lo;

    while (p < v && p < hi) p *= 2;
    return p;
}

static void put_u32(struct cts_mpw *w, const char *key, uint32_t v)
{
    cts_mpw_str(w, key);
    cts_mpw_u64(w, v);
}

static int take_u64(struct cts_mp map, const char *key, uint64_t *out)
{
    struct cts_mp v;

    return cts_mp_find(map, key, &v) && cts_mp_u64(&v, out) == 0 ? 0 : CTS_EPROTO;
}

static int take_geometry(struct cts_mp result, struct geometry *g)
{
    if (take_u64(result, "records", &g->n_records) != 0 || take_u64(result, "arena_bytes", &g->arena_bytes) != 0 ||
        take_u64(result, "out_bytes", &g->out_bytes) != 0 || take_u64(result, "ring_id", &g->ring_id) != 0 ||
        take_u64(result, "live_max", &g->n_live_max) != 0)
        return CTS_EPROTO;
    if (g->n_records > UINT32_MAX || g->arena_bytes > UINT32_MAX || g->out_bytes > UINT32_MAX) return CTS_EPROTO;
    if (!cts_sub_is_geometry((uint32_t)g->n_records, (uint32_t)g->arena_bytes)) return CTS_EPROTO;
    if (!cts_out_is_geometry((uint32_t)g->out_bytes)) return CTS_EPROTO;
    return g->n_live_max >= 1 && g->n_live_max <= LIVE_MAX ? 0 : CTS_EPROTO;
}

static int ask_for_rings(cts *c, const struct cts_options *o, struct geometry *g)
{
    uint32_t        n_records = o->n_records != 0 ? o->n_records : N_RECORDS_DEFAULT;
    uint32_t        arena_bytes = o->arena_bytes != 0 ? o->arena_bytes : BYTES_DEFAULT;
    uint32_t        out_bytes = o->out_bytes != 0 ? o->out_bytes : BYTES_DEFAULT;
    struct cts_mpw *w = cts_conn_begin(&c->conn, "ring.open", 3);
    struct cts_mp   result;
    int             rc;

    put_u32(w, "records", pow2_within(n_records, CTS_SUB_RECORDS_MIN, CTS_SUB_RECORDS_MAX));
    put_u32(w, "arena_bytes", pow2_within(arena_bytes, CTS_ARENA_BYTES_MIN, CTS_ARENA_BYTES_MAX));
    put_u32(w, "out_bytes", pow2_within(out_bytes, CTS_OUT_BYTES_MIN, CTS_OUT_BYTES_MAX));
    rc = cts_conn_call(&c->conn, OPEN_TIMEOUT_NS, &result, &c->err);
    if (rc != 0) return rc;
    if (take_geometry(result, g) != 0)
        return cts_err_set(&c->err, CTS_EPROTO, "the rings that ctsd offers have impossible sizes");
    if (c->conn.n_fds != 4)
        return cts_err_set(&c->err, CTS_EPROTO, "ctsd sent %u descriptors with its rings, not 4", c->conn.n_fds);
    return 0;
}

/* The handle owns descriptor i of the last answer from here on. */
static int take_fd(cts *c, uint32_t i)
{
    int fd = c->conn.fds[i];

    c->conn.fds[i] = -1;
    return fd;
}

static int map_rings(cts *c, const struct geometry *g)
{
    uint32_t n_records = (uint32_t)g->n_records, arena_bytes = (uint32_t)g->arena_bytes,
             out_bytes = (uint32_t)g->out_bytes;
    int      rc, sub_fd = take_fd(c, 0), out_fd = take_fd(c, 1);

    c->kick_fd = take_fd(c, 2);
    c->wake_fd = take_fd(c, 3);
    rc = cts_segment_map(&c->sub, sub_fd, CTS_SEGMENT_SUB, cts_sub_bytes(n_records, arena_bytes), &c->err);
    if (rc != 0) {
        close(out_fd);
        return rc;
    }
    rc = cts_segment_map(&c->out, out_fd, CTS_SEGMENT_OUT, cts_out_bytes(out_bytes), &c->err);
    if (rc != 0) return rc;
    cts_segment_close_fd(&c->sub);
    cts_segment_close_fd(&c->out);
    rc = cts_subw_init(&c->subw, c->sub.map, c->out.map, n_records, arena_bytes);
    if (rc == 0) rc = cts_outr_init(&c->outr, c->out.map, c->sub.map, out_bytes);
    if (rc != 0) return cts_err_set(&c->err, rc, "the rings of ctsd are not those of version %d", CTS_SHM_MAJOR);
    if (c->subw.hdr->ring_id != g->ring_id || c->outr.hdr->ring_id != g->ring_id)
        return cts_err_set(&c->err, CTS_EPROTO, "ctsd sent the rings of another connection");
    return 0;
}

static int make_live(cts *c, uint32_t n)
{
    c->live = calloc(n, sizeof(*c->live));
    if (c->live == NULL) return cts_err_set(&c->err, -ENOMEM, "room for %u live requests", n);
    c->n_live_max = n;
    for (uint32_t i = 0; i < n; i++) {
        c->live[i].next_free_idx = i + 1 < n ? i + 1 : CTS_LIVE_NONE;
        c->live[i].kept = CTS_BUF(c->subw.arena_bytes + 1024u);
    }
    c->free_idx = 0;
    return 0;
}

static int open_all(cts *c, const struct cts_options *o)
{
    struct geometry g;
    int             rc = cts_conn_open(&c->conn, cts_conn_path(o->socket), &c->err);

    if (rc == 0) rc = ask_for_rings(c, o, &g);
    if (rc == 0) rc = map_rings(c, &g);
    if (rc == 0) rc = make_live(c, (uint32_t)g.n_live_max);
    return rc == CTS_ECLOSED ? -ECONNRESET : rc;
}

int cts_open(cts **out, const struct cts_options *opts, char *message, size_t message_bytes)
{
    static const struct cts_options DEFAULTS = CTS_OPTIONS_INIT;
    const struct cts_options       *o = opts != NULL ? opts : &DEFAULTS;
    cts                            *c = malloc(sizeof(*c));
    int                             rc;

    *out = NULL;
    if (message != NULL && message_bytes > 0) message[0] = '\0';
    if (c == NULL) return -ENOMEM;
    *c = (cts){ .conn = { .fd = -1 }, .sub = CTS_SEGMENT_NONE, .out = CTS_SEGMENT_NONE, .kick_fd = -1, .wake_fd = -1,
                .free_idx = CTS_LIVE_NONE };
    c->spin_ns = o->spin_ns == UINT64_MAX ? default_spin_ns() : o->spin_ns;
    c->looked_ns = cts_clock_ns();
    rc = open_all(c, o);
    if (rc != 0) {
        if (message != NULL) snprintf(message, message_bytes, "%s", c->err.text);
        cts_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

/* The daemon sees the hang-up and cancels. In the child of a fork this closes
 * the child's copies only, so the parent's handle works on. */
void cts_close(cts *c)
{
    if (c == NULL) return;
    cts_conn_close(&c->conn);
    if (c->kick_fd >= 0) close(c->kick_fd);
    if (c->wake_fd >= 0) close(c->wake_fd);
    cts_segment_close(&c->sub);
    cts_segment_close(&c->out);
    for (uint32_t i = 0; i < c->n_live_max; i++) cts_buf_deinit(&c->live[i].kept);
    free(c->live);
    cts_names_clear(&c->names);
    free(c);
}

int cts_handle_say(cts *c, int code, const char *fmt, ...)
{
    va_list ap;

    c->err.code = code;
    va_start(ap, fmt);
    vsnprintf(c->err.text, sizeof(c->err.text), fmt, ap);
    va_end(ap);
    return code;
}

int cts_handle_fail(cts *c, int code, const char *text)
{
    if (c->rc == 0) c->rc = cts_handle_say(c, code, "%s", text);
    return c->rc;
}

const char *cts_last_message(const cts *c)
{
    return c->err.text;
}

static void copy_str(struct cts_mp map, const char *key, char *out, size_t cap)
{
    struct cts_span s = { (const uint8_t *)"", 0 };
    struct cts_mp   v;

    if (cts_mp_find(map, key, &v)) (void)cts_mp_str(&v, &s);
    snprintf(out, cap, "%.*s", (int)(s.len < cap ? s.len : cap - 1), (const char *)s.ptr);
}

int cts_resolve(cts *c, const char *name, struct cts_adapter_info *out)
{
    struct cts_mpw *w;
    struct cts_mp   result;
    uint64_t        number, generation;
    int             rc;

    if (c->rc != 0) return c->rc;
    w = cts_conn_begin(&c->conn, "resolve", 1);
    cts_mpw_str(w, "name");
    cts_mpw_str(w, name != NULL ? name : "");
    rc = cts_conn_call(&c->conn, ASK_TIMEOUT_NS, &result, &c->err);
    if (rc == CTS_ECLOSED) return cts_handle_fail(c, -ECONNRESET, "ctsd went away");
    if (rc == CTS_EPROTO) return cts_handle_fail(c, rc, "ctsd broke the control protocol");
    if (rc != 0) return rc;
    if (take_u64(result, "number", &number) != 0 || take_u64(result, "generation", &generation) != 0 ||
        number > UINT32_MAX || generation > UINT32_MAX)
        return cts_handle_fail(c, CTS_EPROTO, "ctsd's answer to resolve has no number or generation");
    *out = (struct cts_adapter_info){ .number = (uint32_t)number, .generation = (uint32_t)generation };
    copy_str(result, "digest", out->digest, sizeof(out->digest));
    copy_str(result, "kind", out->kind, sizeof(out->kind));
    if (name != NULL && name[0] != '\0') (void)cts_names_put(&c->names, name, out->number, out->generation);
    return 0;
}
