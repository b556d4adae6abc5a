/* generate over the control socket: the connection is the sink, its frames are
 * the events. For clients that have no shared memory; rings are the fast way. */

#include "common/assert.h"
#include "common/clock.h"
#include "daemon/serve/ctl_conn.h"
#include "shm/layout.h"

#include <errno.h>

static struct cts_ctl_conn *conn_of(struct cts_sink *s)
{
    return (struct cts_ctl_conn *)s;
}

static const char *finish_name(uint32_t finish)
{
    static const char *const NAMES[] = { [CTS_FINISH_STOP] = "stop",
                                         [CTS_FINISH_LENGTH] = "length",
                                         [CTS_FINISH_STOP_STRING] = "stop-string",
                                         [CTS_FINISH_CANCELLED] = "cancelled" };

    CTS_ASSERT(finish >= CTS_FINISH_STOP && finish <= CTS_FINISH_CANCELLED);
    return NAMES[finish];
}

static void put_top(struct cts_mpw *w, const struct cts_engine_event *ev)
{
    cts_mpw_str(w, "top");
    cts_mpw_array(w, 1);
    cts_mpw_array(w, ev->n_top);
    for (uint32_t i = 0; i < ev->n_top; i++) {
        cts_mpw_array(w, 2);
        cts_mpw_int(w, ev->top[i].id);
        cts_mpw_real(w, (double)ev->top[i].logprob);
    }
}

static int put_tokens(struct cts_ctl_conn *c, const struct cts_live *l, const struct cts_engine_event *ev)
{
    uint32_t           has_token = ev->type == CTS_EV_TOKEN, has_logprob = has_token && l->req->n_logprobs >= 0;
    uint32_t           has_top = has_token && ev->n_top > 0, has_text = ev->text_bytes > 0;
    struct cts_ctl_out o;

    cts_ctl_begin(c, &o, l->req_id, "event", 1 + has_logprob + has_top + has_text);
    cts_mpw_str(&o.w, "tokens");
    cts_mpw_array(&o.w, has_token);
    if (has_token) cts_mpw_int(&o.w, ev->token);
    if (has_logprob) {
        cts_mpw_str(&o.w, "logprobs");
        cts_mpw_array(&o.w, 1);
        cts_mpw_real(&o.w, (double)ev->logprob);
    }
    if (has_top) put_top(&o.w, ev);
    if (has_text) {
        cts_mpw_str(&o.w, "text");
        cts_mpw_strn(&o.w, ev->text, ev->text_bytes);
    }
    return cts_ctl_end(&o);
}

static int put_done(struct cts_ctl_conn *c, const struct cts_live *l, const struct cts_engine_event *ev)
{
    struct cts_ctl_out o;

    cts_ctl_begin(c, &o, l->req_id, "result", 3);
    cts_mpw_str(&o.w, "finish");
    cts_mpw_str(&o.w, finish_name(ev->finish));
    cts_mpw_str(&o.w, "n_prompt");
    cts_mpw_u64(&o.w, ev->n_prompt);
    cts_mpw_str(&o.w, "n_tokens");
    cts_mpw_u64(&o.w, ev->n_tokens);
    return cts_ctl_end(&o);
}

/* tx has room for the last event of every live request above CTS_CTL_TX_SOFT, so
 * a failure to write is a lack of memory: the connection ends. */
static int conn_put(struct cts_sink *s, const struct cts_live *l, const struct cts_engine_event *ev)
{
    struct cts_ctl_conn *c = conn_of(s);
    int                  rc = 0;

    switch (ev->type) {
    case CTS_EV_TOKEN:
    case CTS_EV_TEXT:
        if (c->tx.len >= CTS_CTL_TX_SOFT) return -EAGAIN;
        rc = put_tokens(c, l, ev);
        break;
    case CTS_EV_DONE:
        rc = put_done(c, l, ev);
        break;
    default:
        CTS_ASSERT(ev->type == CTS_EV_ERROR);
        cts_ctl_refuse(c, l->req_id, ev->code, cts_live_error_text(ev->code), NULL, 0);
    }
    if (rc < 0) c->failed = 1;
    return 0;
}

static int conn_has_room(struct cts_sink *s)
{
    return conn_of(s)->tx.len < CTS_CTL_TX_SOFT / 2;
}

const struct cts_sink_ops CTS_CTL_SINK_OPS = { conn_put, conn_has_room };

static int submit(struct cts_ctl_call *call, const struct cts_gen_msg *m, struct cts_err *err)
{
    struct cts_ctl_conn  *c = call->conn;
    struct cts_submission sub = { .req_id = call->id, .now_ns = cts_clock_ns(), .msg = m };
    struct cts_live      *l;
    struct cts_ctl_out    o;
    int                   rc;

    if (m->adapter.len > 0) {
        call->param = "adapter";
        rc = cts_adapters_find(c->ctl->o.adapters, m->adapter, &sub.adapter, err);
        if (rc < 0) return rc;
    }
    rc = cts_live_submit(c->ctl->o.lives, &c->sink, &sub, &l, &call->param, &call->retry_ms, err);
    if (rc < 0) return rc;
    cts_ctl_begin(c, &o, call->id, "event", 1);
    cts_mpw_str(&o.w, "accepted");
    cts_mpw_u64(&o.w, l->req->n_prompt);
    if (cts_ctl_end(&o) < 0) c->failed = 1;
    return 0;
}

int cts_ctl_generate(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_gen_msg m;
    struct cts_mp      params = call->params;
    int                rc;

    if (params.ptr == NULL) return cts_err_set(err, CTS_EARG, "generate needs parameters");
    rc = cts_gen_decode(&params, &m, call->param_text, err);
    if (rc < 0) {
        call->param = call->param_text;
        return rc;
    }
    return submit(call, &m, err);
}

int cts_ctl_cancel(struct cts_ctl_call *call, struct cts_err *err)
{
    struct cts_ctl_conn *c = call->conn;
    struct cts_ctl_out   o;

    if (cts_live_cancel(c->ctl->o.lives, &c->sink, call->args[0].u) < 0)
        return cts_err_set(err, CTS_ENOTFOUND, "this connection has no live generate with id %llu",
                           (unsigned long long)call->args[0].u);
    cts_ctl_begin(c, &o, call->id, "result", 0);
    return cts_ctl_end(&o);
}
