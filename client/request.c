#include "client/request.h"

#include "common/utf8.h"
#include "proto/msgpack.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* The daemon refuses a message of more objects, so larger arrays could never
 * be taken; the bound also keeps the counts below in 32 bits. */
#define ARRAY_MAX (CTS_MP_OBJECTS_MAX - 64)

static int check_text(const char *what, const char *s, size_t n, struct cts_err *err)
{
    if (s == NULL) return cts_err_set(err, CTS_EARG, "%s is NULL", what);
    if (!cts_utf8_is_valid(s, n)) return cts_err_set(err, CTS_EARG, "%s is not UTF-8", what);
    return 0;
}

static int check_array(const char *what, const void *p, size_t n, struct cts_err *err)
{
    if (n > 0 && p == NULL) return cts_err_set(err, CTS_EARG, "%s is NULL, with %zu entries", what, n);
    if (n > ARRAY_MAX)
        return cts_err_set(err, CTS_EARG, "%s has %zu entries, at most %d can be sent", what, n, ARRAY_MAX);
    return 0;
}

static int check_messages(const struct cts_request *r, struct cts_err *err)
{
    int rc = check_array("messages", r->messages, r->n_messages, err);

    for (size_t i = 0; rc == 0 && i < r->n_messages; i++) {
        const struct cts_message *m = &r->messages[i];

        rc = check_text("a message's role", m->role, m->role != NULL ? strlen(m->role) : 0, err);
        if (rc == 0)
            rc = check_text("a message's content", m->content, m->content != NULL ? strlen(m->content) : 0,
                            err);
    }
    return rc;
}

static size_t prompt_bytes(const struct cts_request *r)
{
    return r->prompt_bytes != 0 ? r->prompt_bytes : strlen(r->prompt);
}

static int check(const struct cts_request *r, struct cts_err *err)
{
    int n_inputs = (r->prompt != NULL) + (r->n_tokens > 0) + (r->n_messages > 0);
    int rc;

    if (n_inputs != 1)
        return cts_err_set(err, CTS_EARG, "exactly one of prompt, tokens and messages is needed, not %d", n_inputs);
    if (isnan(r->temperature) || isnan(r->top_p))
        return cts_err_set(err, CTS_EARG, "temperature or top_p is no number");
    rc = check_array("tokens", r->tokens, r->n_tokens, err);
    if (rc == 0) rc = check_array("stop", r->stop, r->n_stop, err);
    if (rc == 0) rc = check_array("stop_tokens", r->stop_tokens, r->n_stop_tokens, err);
    if (rc == 0) rc = check_messages(r, err);
    if (rc == 0 && r->prompt != NULL) rc = check_text("prompt", r->prompt, prompt_bytes(r), err);
    for (size_t i = 0; rc == 0 && i < r->n_stop; i++)
        rc = check_text("a stop string", r->stop[i], r->stop[i] != NULL ? strlen(r->stop[i]) : 0, err);
    return rc;
}

static void put_ints(struct cts_mpw *w, const char *key, const int32_t *v, size_t n)
{
    cts_mpw_str(w, key);
    cts_mpw_array(w, (uint32_t)n);
    for (size_t i = 0; i < n; i++) cts_mpw_int(w, v[i]);
}

static void put_input(struct cts_mpw *w, const struct cts_request *r)
{
    if (r->prompt != NULL) {
        cts_mpw_str(w, "prompt");
        cts_mpw_strn(w, r->prompt, prompt_bytes(r));
    } else if (r->n_tokens > 0) {
        put_ints(w, "tokens", r->tokens, r->n_tokens);
    } else {
        cts_mpw_str(w, "messages");
        cts_mpw_array(w, (uint32_t)r->n_messages);
        for (size_t i = 0; i < r->n_messages; i++) {
            cts_mpw_map(w, 2);
            cts_mpw_str(w, "role");
            cts_mpw_str(w, r->messages[i].role);
            cts_mpw_str(w, "content");
            cts_mpw_str(w, r->messages[i].content);
        }
    }
}

static void put_real(struct cts_mpw *w, const char *key, double v)
{
    if (v < 0) return;
    cts_mpw_str(w, key);
    cts_mpw_real(w, v);
}

static void put_int(struct cts_mpw *w, const char *key, int is_set, int64_t v)
{
    if (!is_set) return;
    cts_mpw_str(w, key);
    cts_mpw_int(w, v);
}

static void put_bool(struct cts_mpw *w, const char *key, int is_set, int v)
{
    if (!is_set) return;
    cts_mpw_str(w, key);
    cts_mpw_bool(w, v);
}

/* Only what differs from the daemon's defaults is sent, so that those stay its own. */
static uint32_t n_pairs(const struct cts_request *r)
{
    return 1u + (r->max_tokens > 0) + (r->temperature >= 0) + (r->top_p >= 0) + (r->top_k >= 0) + (r->has_seed != 0) +
           (r->n_stop > 0) + (r->n_stop_tokens > 0) + (r->logprobs >= 0) + (r->no_text != 0) + (r->no_special != 0);
}

static void put_options(struct cts_mpw *w, const struct cts_request *r)
{
    put_int(w, "max_tokens", r->max_tokens > 0, r->max_tokens);
    put_real(w, "temperature", r->temperature);
    put_real(w, "top_p", r->top_p);
    put_int(w, "top_k", r->top_k >= 0, r->top_k);
    if (r->has_seed) {
        cts_mpw_str(w, "seed");
        cts_mpw_u64(w, r->seed);
    }
    if (r->n_stop > 0) {
        cts_mpw_str(w, "stop");
        cts_mpw_array(w, (uint32_t)r->n_stop);
        for (size_t i = 0; i < r->n_stop; i++) cts_mpw_str(w, r->stop[i]);
    }
    if (r->n_stop_tokens > 0) put_ints(w, "stop_tokens", r->stop_tokens, r->n_stop_tokens);
    put_int(w, "logprobs", r->logprobs >= 0, r->logprobs);
    put_bool(w, "text", r->no_text != 0, 0);
    put_bool(w, "special", r->no_special != 0, 0);
}

int cts_request_encode(const struct cts_request *r, struct cts_buf *out, struct cts_err *err)
{
    struct cts_mpw w = { .out = out };
    size_t         begin = out->len;
    int            rc = check(r, err);

    if (rc != 0) return rc;
    cts_mpw_map(&w, n_pairs(r));
    put_input(&w, r);
    put_options(&w, r);
    if (w.rc == 0) return 0;
    out->len = begin;
    if (w.rc == -EMSGSIZE) return cts_err_set(err, -EMSGSIZE, "a request of more than %zu bytes", out->max);
    return cts_err_set(err, w.rc, "encode the request");
}
