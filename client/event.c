#include "client/event.h"

#include "common/err.h"
#include "common/utf8.h"
#include "shm/record.h"

#include <string.h>

#define CODE_MAX 1999 /* of the project's error space */

_Static_assert((int)CTS_FINISHED_STOP == (int)CTS_FINISH_STOP, "public name of the wire's value");
_Static_assert((int)CTS_FINISHED_LENGTH == (int)CTS_FINISH_LENGTH, "public name of the wire's value");
_Static_assert((int)CTS_FINISHED_STOP_STRING == (int)CTS_FINISH_STOP_STRING, "public name of the wire's value");
_Static_assert((int)CTS_FINISHED_CANCELLED == (int)CTS_FINISH_CANCELLED, "public name of the wire's value");
_Static_assert(sizeof(struct cts_top) == sizeof(struct cts_top_pair), "public name of the wire's pair");

static int tokens_event(const struct cts_out_view *v, struct cts_event *ev)
{
    ev->type = CTS_EVENT_TOKENS;
    ev->first = v->first;
    ev->n_tokens = v->n_tokens;
    ev->ids = v->ids;
    ev->logprobs = v->logprobs;
    ev->n_top = v->n_top;
    ev->top = (const struct cts_top *)(const void *)v->top;
    ev->text = v->text != NULL ? v->text : "";
    ev->text_bytes = v->text_len;
    return cts_utf8_is_valid(ev->text, ev->text_bytes) ? 1 : CTS_EPROTO;
}

static int done_event(const struct cts_out_view *v, struct cts_event *ev)
{
    if (v->status < CTS_FINISH_STOP || v->status > CTS_FINISH_CANCELLED) return CTS_EPROTO;
    ev->type = CTS_EVENT_DONE;
    ev->is_last = 1;
    ev->finish = (enum cts_finish_reason)v->status;
    ev->n_prompt = v->n_prompt;
    ev->n_generated = v->n_tokens;
    return 1;
}

static int error_event(const struct cts_out_view *v, struct cts_event *ev, char *message, size_t cap)
{
    size_t n = v->text_len < cap - 1 ? v->text_len : cap - 1;

    if (v->status == 0 || v->status > CODE_MAX) return CTS_EPROTO;
    ev->type = CTS_EVENT_ERROR;
    ev->is_last = 1;
    ev->code = -(int)v->status;
    ev->retry_ms = v->retry_ms;
    ev->message = cts_strerror(ev->code);
    if (n == 0) return 1;
    memcpy(message, v->text, n);
    n -= cts_utf8_tail(message, n);
    message[n] = '\0';
    ev->message = message;
    return cts_utf8_is_valid(message, n) ? 1 : CTS_EPROTO;
}

int cts_event_parse(const void *rec, struct cts_event *ev, char *message, size_t cap)
{
    struct cts_out_view v;
    int                 is_last, rc = cts_out_decode(rec, &v);

    if (rc != 0) return rc;
    is_last = v.type == CTS_OUT_DONE || v.type == CTS_OUT_ERROR;
    if (((v.flags & CTS_OUTF_LAST) != 0) != is_last) return CTS_EPROTO;
    *ev = (struct cts_event){ .request = v.req_id, .text = "" };
    switch (v.type) {
    case CTS_OUT_TOKENS: return tokens_event(&v, ev);
    case CTS_OUT_DONE: return done_event(&v, ev);
    case CTS_OUT_ERROR: return error_event(&v, ev, message, cap);
    case CTS_OUT_ACCEPTED:
        ev->type = CTS_EVENT_ACCEPTED;
        ev->n_prompt = v.n_prompt;
        return 1;
    default: return 0;
    }
}
