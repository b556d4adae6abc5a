#include "common/assert.h"
#include "common/clock.h"
#include "common/log.h"
#include "daemon/serve/ctl_conn.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define LS_LIMIT 10000u /* adapters in one answer: they fit into a message */

static void put_str(struct cts_mpw *w, const char *key, const char *v)
{
    cts_mpw_str(w, key);
    cts_mpw_text(w, v);
}

static void put_u64(struct cts_mpw *w, const char *key, uint64_t v)
{
    cts_mpw_str(w, key);
    cts_mpw_u64(w, v);
}

static void put_real(struct cts_mpw *w, const char *key, double v)
{
    cts_mpw_str(w, key);
    cts_mpw_real(w, v);
}

static void put_digest(struct cts_mpw *w, const char *key, const uint8_t digest[CTS_DIGEST_BYTES])
{
    char hex[CTS_DIGEST_HEX_BYTES];

    cts_digest_hex(digest, hex);
    put_str(w, key, hex);
}

static void put_map(struct cts_mpw *w, const char *key, uint32_t n_pairs)
{
    cts_mpw_str(w, key);
    cts_mpw_map(w, n_pairs);
}

static int end_result(struct cts_ctl_out *o, struct cts_err *err)
{
    int rc = cts_ctl_end(o);

    return rc < 0 ? cts_err_set(err, rc, "the answer does not fit") : 0;
}

/* ---- hello, health, stop ---- */

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

int cts_ctl_hello(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_ctl_conn *c = call->conn;
    uint64_t             major = call->args[0].u, minor = call->args[1].u;
    struct cts_span      client = call->args[2].s;
    struct cts_ctl_out   o;

    if (c->has_hello) return cts_err_set(err, CTS_EPROTO, "hello was said before");
    if (major != CTS_CTL_MAJOR) {
        call->param = "major";
        c->ends = 1;
        return cts_err_set(err, CTS_EVERSION,
                           "the daemon speaks version %d.%d of the control protocol, the client %llu.%llu",
                           CTS_CTL_MAJOR, CTS_CTL_MINOR, (unsigned long long)major, (unsigned long long)minor);
    }
    c->has_hello = 1;
    c->ctl->n_half_open--;
    cts_log(CTS_LOG_DEBUG, "pid %d: client '%.*s'", (int)c->pid, (int)(client.len > 64 ? 64 : client.len),
            (const char *)client.ptr);
    cts_ctl_begin(c, &o, call->id, "result", 4);
    put_u64(&o.w, "major", CTS_CTL_MAJOR);
    put_u64(&o.w, "minor", lower(minor, CTS_CTL_MINOR));
    put_str(&o.w, "server", c->ctl->o.version);
    put_u64(&o.w, "pid", (uint64_t)getpid());
    return end_result(&o, err);
}

static const char *state_name(const struct cts_ctl *t)
{
    return t->o.lives->is_draining ? "draining" : "ok";
}

int cts_ctl_health(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_ctl_out o;

    cts_ctl_begin(call->conn, &o, call->id, "result", 1);
    put_str(&o.w, "status", state_name(call->conn->ctl));
    return end_result(&o, err);
}

int cts_ctl_stop_daemon(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_ctl    *t = call->conn->ctl;
    struct cts_ctl_out o;

    cts_log(CTS_LOG_NOTICE, "pid %d asked to stop", (int)call->conn->pid);
    t->o.on_stop(t->o.on_stop_arg);
    cts_ctl_begin(call->conn, &o, call->id, "result", 0);
    return end_result(&o, err);
}

/* ---- status ---- */

static void put_base(struct cts_mpw *w, const struct cts_ctl *t)
{
    const struct cts_model_config *c = cts_engine_model(t->o.engine);

    put_map(w, "base", 7);
    put_str(w, "dir", t->o.base_dir);
    put_digest(w, "digest", cts_engine_base_digest(t->o.engine));
    put_u64(w, "context", cts_engine_context(t->o.engine));
    put_u64(w, "layers", c->n_layers);
    put_u64(w, "hidden", c->hidden);
    put_u64(w, "vocab", c->vocab_size);
    cts_mpw_str(w, "chat");
    cts_mpw_bool(w, cts_engine_chat(t->o.engine)->kind != CTS_CHAT_UNKNOWN);
}

static void put_collection(struct cts_mpw *w, const struct cts_collection *c)
{
    put_map(w, "collection", 6);
    put_str(w, "dir", c->dir);
    put_digest(w, "digest", c->digest);
    put_u64(w, "generation", c->generation);
    put_u64(w, "adapters", c->n_adapters);
    put_real(w, "error_mean", c->error_mean);
    put_real(w, "error_energy", c->error_energy);
}

static void put_engine(struct cts_mpw *w, const struct cts_ctl *t)
{
    struct cts_engine_stats s;

    cts_engine_stats(t->o.engine, &s);
    put_map(w, "engine", 15);
    put_u64(w, "n_steps", s.n_steps);
    put_u64(w, "n_rows", s.n_rows);
    put_u64(w, "n_tokens", s.n_tokens);
    put_u64(w, "n_prompt_tokens", s.n_prompt_tokens);
    put_u64(w, "n_admitted", s.n_admitted);
    put_u64(w, "n_done", s.n_done);
    put_u64(w, "n_errors", s.n_errors);
    put_u64(w, "n_cancelled", s.n_cancelled);
    put_u64(w, "n_parked", s.n_parked);
    put_u64(w, "step_ns_sum", s.step_ns_sum);
    put_u64(w, "step_ns_max", s.step_ns_max);
    put_u64(w, "n_live", s.n_live);
    put_u64(w, "n_waiting", s.n_waiting);
    put_u64(w, "n_pages_free", s.n_pages_free);
    put_u64(w, "n_pages", s.n_pages);
}

static void put_doors(struct cts_mpw *w, const struct cts_ctl *t)
{
    const struct cts_lives *l = t->o.lives;

    put_map(w, "clients", 4);
    put_u64(w, "connections", t->n_conns);
    put_u64(w, "rings", cts_shm_n_rings(t->o.shm));
    put_u64(w, "n_accepted", t->n_accepted);
    put_u64(w, "n_denied", t->n_denied);
    put_map(w, "requests", 5);
    put_u64(w, "live", l->n_live);
    put_u64(w, "n_submitted", l->stats.n_submitted);
    put_u64(w, "n_refused", l->stats.n_refused);
    put_u64(w, "n_stalls", l->stats.n_stalls);
    put_u64(w, "n_slow", l->stats.n_slow);
}

static uint32_t count_exact(const struct cts_adapters *t)
{
    uint32_t n = 0;

    for (uint32_t i = 1; i < cts_adapters_n(t); i++) {
        const struct cts_adapter *a = cts_adapters_at(t, i);

        n += a != NULL && a->kind == CTS_ADAPTER_EXACT;
    }
    return n;
}

int cts_ctl_status(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_ctl              *t = call->conn->ctl;
    const struct cts_collection *c = cts_engine_collection(t->o.engine);
    struct cts_ctl_out           o;

    cts_ctl_begin(call->conn, &o, call->id, "result", c != NULL ? 11 : 10);
    put_str(&o.w, "server", t->o.version);
    put_u64(&o.w, "pid", (uint64_t)getpid());
    put_u64(&o.w, "uptime_s", (cts_clock_ns() - t->started_ns) / 1000000000u);
    put_str(&o.w, "state", state_name(t));
    put_str(&o.w, "backend", cts_engine_describe(t->o.engine));
    put_base(&o.w, t);
    if (c != NULL) put_collection(&o.w, c);
    put_u64(&o.w, "exact", count_exact(t->o.adapters));
    put_engine(&o.w, t);
    put_doors(&o.w, t);
    return end_result(&o, err);
}

/* ---- adapters ---- */

static void put_identity(struct cts_mpw *w, const struct cts_adapter *a)
{
    put_u64(w, "number", a->number);
    put_u64(w, "generation", a->generation);
    put_digest(w, "digest", a->digest);
    put_str(w, "kind", cts_adapter_kind_name(a->kind));
}
#define IDENTITY_PAIRS 4

static int is_listed(const struct cts_adapter *a)
{
    return a != NULL && a->state == CTS_ADAPTER_READY;
}

int cts_ctl_ls(struct cts_ctl_call *call, struct cts_err *err)
{
    const struct cts_adapters *t = call->conn->ctl->o.adapters;
    uint64_t limit = call->args[1].is_given && call->args[1].u < LS_LIMIT ? call->args[1].u : LS_LIMIT;
    uint64_t from = call->args[0].is_given && call->args[0].u > 0 ? call->args[0].u : 1;
    uint32_t n = 0, end = cts_adapters_n(t), next;
    struct cts_ctl_out o;

    for (next = from < end ? (uint32_t)from : end;
         next < end && (n < limit || !is_listed(cts_adapters_at(t, next))); next++)
        n += (uint32_t)is_listed(cts_adapters_at(t, next));
    cts_ctl_begin(call->conn, &o, call->id, "result", next < end ? 2 : 1);
    cts_mpw_str(&o.w, "adapters");
    cts_mpw_array(&o.w, n);
    for (uint32_t i = (uint32_t)(from < end ? from : end); i < next; i++) {
        const struct cts_adapter *a = cts_adapters_at(t, i);

        if (!is_listed(a)) continue;
        cts_mpw_map(&o.w, IDENTITY_PAIRS + 2);
        put_str(&o.w, "name", a->name);
        put_identity(&o.w, a);
        put_u64(&o.w, "live", a->n_live);
    }
    if (next < end) put_u64(&o.w, "next", next);
    return end_result(&o, err);
}

static void put_compressed(struct cts_mpw *w, const struct cts_collection_adapter *a)
{
    put_real(w, "error_mean", a->error_mean);
    put_real(w, "error_energy", a->error_energy);
    cts_mpw_str(w, "cluster");
    if (a->cluster == CTS_CLUSTER_NONE) cts_mpw_nil(w);
    else cts_mpw_u64(w, a->cluster);
}

static void put_exact(struct cts_mpw *w, const struct cts_adapter *a)
{
    put_u64(w, "modules", a->n_modules);
    put_u64(w, "rank", a->rank_max);
}

int cts_ctl_show(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_ctl     *t = call->conn->ctl;
    struct cts_adapter *a;
    struct cts_ctl_out  o;
    int                 rc = cts_adapters_find(t->o.adapters, call->args[0].s, &a, err), is_exact;

    call->param = rc < 0 ? "name" : NULL;
    if (rc < 0) return rc;
    is_exact = a->kind == CTS_ADAPTER_EXACT;
    cts_ctl_begin(call->conn, &o, call->id, "result", IDENTITY_PAIRS + 3 + (is_exact ? 2 : 3));
    put_str(&o.w, "name", a->name);
    put_identity(&o.w, a);
    put_u64(&o.w, "live", a->n_live);
    put_u64(&o.w, "bytes", a->bytes);
    if (is_exact) put_exact(&o.w, a);
    else put_compressed(&o.w, &cts_engine_collection(t->o.engine)->adapters[a->adapter_idx]);
    return end_result(&o, err);
}

int cts_ctl_resolve(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_ctl     *t = call->conn->ctl;
    struct cts_adapter *a;
    struct cts_ctl_out  o;

    if (call->args[0].s.len == 0) {
        cts_ctl_begin(call->conn, &o, call->id, "result", IDENTITY_PAIRS);
        put_u64(&o.w, "number", 0);
        put_u64(&o.w, "generation", 0);
        put_digest(&o.w, "digest", cts_engine_base_digest(t->o.engine));
        put_str(&o.w, "kind", "base");
        return end_result(&o, err);
    }
    call->param = "name";
    if (cts_adapters_find(t->o.adapters, call->args[0].s, &a, err) < 0) return CTS_ENOTFOUND;
    cts_ctl_begin(call->conn, &o, call->id, "result", IDENTITY_PAIRS);
    put_identity(&o.w, a);
    return end_result(&o, err);
}

/* A load or unload is over, well or not; its client may be gone. */
static void on_adapter_done(void *owner, uint64_t conn_serial, uint64_t frame_id, const struct cts_adapter *a,
                            const struct cts_err *err)
{
    struct cts_ctl_conn *c = cts_ctl_conn_at(owner, conn_serial);
    struct cts_ctl_out   o;

    if (err != NULL) cts_log(CTS_LOG_NOTICE, "an adapter was not loaded or unloaded: %s", err->text);
    if (a != NULL)
        cts_log(CTS_LOG_INFO, "adapter '%s' is loaded as number %u, generation %u", a->name, a->number,
                a->generation);
    if (c == NULL) return;
    if (err != NULL) {
        cts_ctl_refuse(c, frame_id, err->code, err->text, NULL, 0);
        return;
    }
    cts_ctl_begin(c, &o, frame_id, "result", a != NULL ? IDENTITY_PAIRS : 0);
    if (a != NULL) put_identity(&o.w, a);
    if (cts_ctl_end(&o) < 0) c->failed = 1;
}

static struct cts_adapter_waiter waiter_of(const struct cts_ctl_call *call)
{
    return (struct cts_adapter_waiter){ on_adapter_done, call->conn->ctl, call->conn->serial, call->id };
}

int cts_ctl_load(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_adapter_waiter w = waiter_of(call);

    if (call->conn->ctl->o.lives->is_draining) return cts_err_set(err, CTS_EBUSY, "the daemon is draining");
    return cts_adapters_load(call->conn->ctl->o.adapters, call->args[0].s, call->args[1].s, &w, &call->param,
                             err);
}

int cts_ctl_unload(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_adapter_waiter w = waiter_of(call);
    int                       rc = cts_adapters_unload(call->conn->ctl->o.adapters, call->args[0].s, &w, err);

    if (rc < 0) call->param = "name";
    return rc;
}

/* ---- ring.open ---- */

static int put_rings(struct cts_ctl_call *call, const struct cts_shm_sizes *z, const int fds[CTS_FDS_MAX],
                     struct cts_err *err)
{
    struct cts_ctl_conn *c = call->conn;
    size_t               off = c->tx.len;
    struct cts_ctl_out   o;
    int                  rc;

    cts_ctl_begin(c, &o, call->id, "result", 5);
    put_u64(&o.w, "records", z->n_records);
    put_u64(&o.w, "arena_bytes", z->arena_bytes);
    put_u64(&o.w, "out_bytes", z->out_bytes);
    put_u64(&o.w, "ring_id", z->ring_id);
    put_u64(&o.w, "live_max", z->live_max);
    rc = end_result(&o, err);
    if (rc < 0) {
        for (uint32_t i = 0; i < CTS_FDS_MAX; i++) close(fds[i]);
        return rc;
    }
    memcpy(c->fds, fds, sizeof(c->fds));
    c->n_fds = CTS_FDS_MAX;
    c->fd_off = off;
    return 0;
}

static uint32_t size_arg(const struct cts_ctl_arg *a)
{
    return !a->is_given ? 0 : a->u > UINT32_MAX ? UINT32_MAX : (uint32_t)a->u;
}

int cts_ctl_ring_open(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_ctl_conn *c = call->conn;
    struct cts_shm_sizes z = { .n_records = size_arg(&call->args[0]),
                               .arena_bytes = size_arg(&call->args[1]),
                               .out_bytes = size_arg(&call->args[2]) };
    int                  fds[CTS_FDS_MAX], rc;

    if (c->ring != NULL) return cts_err_set(err, -EEXIST, "this connection has its rings already");
    rc = cts_ring_open(c->ctl->o.shm, c->sink.client, &z, &c->ring, fds, err);
    if (rc < 0) return rc;
    rc = put_rings(call, &z, fds, err);
    if (rc < 0) {
        cts_ring_close(c->ring, rc);
        c->ring = NULL;
    }
    return rc;
}
