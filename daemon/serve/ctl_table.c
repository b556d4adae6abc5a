/* The commands of the control socket as data: name, handler, arguments, help.
 * cts-control(7) and a test follow this table. */

#include "common/assert.h"
#include "daemon/serve/ctl_conn.h"

#include <stdio.h>
#include <string.h>

/* clang-format off */
const struct cts_ctl_method CTS_CTL_METHODS[] = {
    { "hello", cts_ctl_hello, 3,
      { { "major", CTS_CTL_UINT, 1, "major version that the client speaks" },
        { "minor", CTS_CTL_UINT, 1, "highest minor version that it knows" },
        { "client", CTS_CTL_STR, 1, "its name and version, for the log" } },
      0, "agree on the version; the first request of a connection" },
    { "status", cts_ctl_status, 0, { { NULL, 0, 0, NULL } }, 0, "what the daemon serves, and its counters" },
    { "health", cts_ctl_health, 0, { { NULL, 0, 0, NULL } }, 0, "whether it takes requests" },
    { "ls", cts_ctl_ls, 2,
      { { "from", CTS_CTL_UINT, 0, "first number to list, default 1" },
        { "limit", CTS_CTL_UINT, 0, "adapters in one answer, default and at most 10000" } },
      0, "list the adapters" },
    { "show", cts_ctl_show, 1, { { "name", CTS_CTL_STR, 1, "adapter" } }, 0, "all that is known of one adapter" },
    { "resolve", cts_ctl_resolve, 1, { { "name", CTS_CTL_STR, 1, "adapter; empty: the base" } }, 0,
      "number and generation of an adapter, as ring submissions name it" },
    { "load", cts_ctl_load, 2,
      { { "dir", CTS_CTL_STR, 1, "absolute path of a PEFT folder" }, { "name", CTS_CTL_STR, 1, "name to give it" } },
      0, "load an adapter into the exact lane" },
    { "unload", cts_ctl_unload, 1, { { "name", CTS_CTL_STR, 1, "an adapter that was loaded" } }, 0,
      "take it away once no live request names it" },
    { "stop", cts_ctl_stop_daemon, 0, { { NULL, 0, 0, NULL } }, 0, "finish live requests, take no new ones, exit" },
    { "ring.open", cts_ctl_ring_open, 3,
      { { "records", CTS_CTL_UINT, 0, "submissions in flight, default 256" },
        { "arena_bytes", CTS_CTL_UINT, 0, "room for payloads" },
        { "out_bytes", CTS_CTL_UINT, 0, "room for output" } },
      0, "open this connection's shared-memory rings" },
    { "generate", cts_ctl_generate, 0, { { NULL, 0, 0, NULL } }, 1, "generate text; streams" },
    { "cancel", cts_ctl_cancel, 1, { { "id", CTS_CTL_UINT, 1, "of a generate of this connection" } }, 0,
      "end a generate early" },
};
/* clang-format on */
const uint32_t CTS_CTL_N_METHODS = sizeof(CTS_CTL_METHODS) / sizeof(CTS_CTL_METHODS[0]);

const struct cts_ctl_method *cts_ctl_find(struct cts_span name)
{
    for (uint32_t i = 0; i < CTS_CTL_N_METHODS; i++)
        if (cts_span_is(name, CTS_CTL_METHODS[i].name)) return &CTS_CTL_METHODS[i];
    return NULL;
}

static int take_arg(const struct cts_ctl_param *p, struct cts_mp *c, struct cts_ctl_arg *out,
                    struct cts_err *err)
{
    int rc = p->type == CTS_CTL_UINT ? cts_mp_u64(c, &out->u) : cts_mp_str(c, &out->s);

    if (rc < 0)
        return cts_err_set(err, CTS_EARG, "%s is not %s", p->name,
                           p->type == CTS_CTL_UINT ? "an unsigned integer" : "a string");
    out->is_given = 1;
    return 0;
}

/* One pair of the params. */
static int take_pair(const struct cts_ctl_method *m, struct cts_mp *c, struct cts_ctl_call *call,
                     struct cts_err *err)
{
    struct cts_span key;

    if (cts_mp_str(c, &key) < 0) return cts_err_set(err, CTS_EARG, "a parameter's name is not a string");
    for (uint32_t i = 0; i < m->n_params; i++) {
        if (!cts_span_is(key, m->params[i].name)) continue;
        call->param = m->params[i].name;
        return take_arg(&m->params[i], c, &call->args[i], err);
    }
    snprintf(call->param_text, sizeof(call->param_text), "%.*s", (int)(key.len > 31 ? 31 : key.len),
             (const char *)key.ptr);
    call->param = call->param_text;
    return cts_err_set(err, CTS_EARG, "%s has no parameter '%s'", m->name, call->param_text);
}

int cts_ctl_args(const struct cts_ctl_method *m, const struct cts_ctl_request *r, struct cts_ctl_call *call,
                 struct cts_err *err)
{
    struct cts_mp c = r->params;
    uint32_t      n_pairs = 0;
    int           rc = 0;

    CTS_ASSERT(m->n_params <= CTS_CTL_PARAMS_MAX);
    if (r->has_params && cts_mp_map(&c, &n_pairs) < 0) return cts_err_set(err, CTS_EARG, "params is not a map");
    for (; n_pairs > 0 && rc == 0; n_pairs--) rc = take_pair(m, &c, call, err);
    if (rc < 0) return rc;
    for (uint32_t i = 0; i < m->n_params; i++) {
        call->param = m->params[i].name;
        if (m->params[i].is_needed && !call->args[i].is_given)
            return cts_err_set(err, CTS_EARG, "%s needs the parameter %s", m->name, m->params[i].name);
    }
    call->param = NULL;
    return 0;
}
