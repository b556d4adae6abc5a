#include "proto/ctl_msg.h"

#include "common/assert.h"
#include "common/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TIMEOUT_MS_MAX 86400000

/* ---- frames ---- */

int64_t cts_frame_bytes(const uint8_t *p, size_t n)
{
    uint32_t len;

    if (n < 4) return 0;
    len = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    return len == 0 || len > CTS_CTL_MESSAGE_MAX ? CTS_EPROTO : 4 + (int64_t)len;
}

size_t cts_frame_begin(struct cts_mpw *w)
{
    size_t begin = w->out->len;

    if (w->rc == 0) w->rc = cts_buf_put(w->out, "\0\0\0", 4);
    return begin;
}

int cts_frame_end(struct cts_mpw *w, size_t begin)
{
    size_t   n;
    uint8_t *p;

    if (w->rc == 0 && w->out->len - begin - 4 > CTS_CTL_MESSAGE_MAX) w->rc = -EMSGSIZE;
    if (w->rc < 0) {
        w->out->len = begin;
        return w->rc;
    }
    n = w->out->len - begin - 4;
    CTS_ASSERT(n > 0);
    p = w->out->ptr + begin;
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(n >> (24 - 8 * i));
    return 0;
}

/* ---- heads of requests and replies ---- */

int cts_ctl_request_decode(const void *p, size_t n, struct cts_ctl_request *out)
{
    struct cts_mp          c = { p, (const uint8_t *)p + n };
    struct cts_ctl_request r = { .id = 0 };
    struct cts_span        key;
    uint32_t               n_pairs;
    int                    has_id = 0;

    if (cts_mp_check(p, n, CTS_MP_OBJECTS_MAX) < 0 || cts_mp_map(&c, &n_pairs) < 0) return CTS_EPROTO;
    for (; n_pairs > 0; n_pairs--) {
        if (cts_mp_str(&c, &key) < 0) return CTS_EPROTO;
        if (cts_span_is(key, "id")) {
            if (cts_mp_u64(&c, &r.id) < 0) return CTS_EPROTO;
            has_id = 1;
        } else if (cts_span_is(key, "method")) {
            if (cts_mp_str(&c, &r.method) < 0) return CTS_EPROTO;
        } else if (cts_span_is(key, "params") && cts_mp_type(&c) == CTS_MP_MAP) {
            r.params = c;
            r.has_params = 1;
            if (cts_mp_skip(&c) < 0) return CTS_EPROTO;
            r.params.end = c.ptr;
        } else {
            return CTS_EPROTO;
        }
    }
    if (!has_id || r.method.ptr == NULL) return CTS_EPROTO;
    *out = r;
    return 0;
}

int cts_ctl_reply_decode(const void *p, size_t n, struct cts_ctl_reply *out)
{
    static const struct {
        const char             *key;
        enum cts_ctl_reply_kind kind;
    } KINDS[] = { { "result", CTS_CTL_RESULT }, { "event", CTS_CTL_EVENT }, { "error", CTS_CTL_ERROR } };
    struct cts_mp        c = { p, (const uint8_t *)p + n }, v;
    struct cts_ctl_reply r = { .id = 0 };
    int                  n_kinds = 0;

    if (cts_mp_check(p, n, UINT32_MAX) < 0) return CTS_EPROTO; /* the frame's bytes bound the walk */
    if (!cts_mp_find(c, "id", &v) || cts_mp_u64(&v, &r.id) < 0) return CTS_EPROTO;
    for (int i = 0; i < 3; i++) {
        if (!cts_mp_find(c, KINDS[i].key, &v)) continue;
        if (cts_mp_type(&v) != CTS_MP_MAP) return CTS_EPROTO;
        r.kind = KINDS[i].kind;
        r.body = v;
        n_kinds++;
    }
    if (n_kinds != 1) return CTS_EPROTO;
    *out = r;
    return 0;
}

/* s into out [cap], cut at a whole character. */
static void cut_text(char *out, size_t cap, struct cts_span s)
{
    size_t n = s.len < cap - 1 ? s.len : cap - 1;

    memcpy(out, s.ptr, n);
    n -= cts_utf8_tail(out, n);
    out[n] = '\0';
}

int cts_ctl_error_put(struct cts_buf *out, uint64_t id, int code, const char *message, const char *param,
                      uint32_t retry_ms)
{
    struct cts_mpw w = { out, 0 };
    size_t         begin = cts_frame_begin(&w);
    uint32_t       has_param = param != NULL && param[0] != '\0', has_retry = retry_ms > 0;

    cts_mpw_map(&w, 2);
    cts_mpw_str(&w, "id");
    cts_mpw_u64(&w, id);
    cts_mpw_str(&w, "error");
    cts_mpw_map(&w, 2 + has_param + has_retry);
    cts_mpw_str(&w, "code");
    cts_mpw_str(&w, cts_err_name(code));
    cts_mpw_str(&w, "message");
    cts_mpw_text(&w, message);
    if (has_param) {
        cts_mpw_str(&w, "param");
        cts_mpw_text(&w, param);
    }
    if (has_retry) {
        cts_mpw_str(&w, "retry_ms");
        cts_mpw_u64(&w, retry_ms);
    }
    return cts_frame_end(&w, begin);
}

/* ---- generate ---- */

/* A key's reader: takes the value at c into m. On failure the sentence is in err. */
typedef int (*read_fn)(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err);

static int read_adapter(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    return cts_mp_str(c, &m->adapter) < 0 ? cts_err_set(err, CTS_EARG, "adapter is not a string") : 0;
}

static int read_prompt(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    return cts_mp_str(c, &m->prompt) < 0 ? cts_err_set(err, CTS_EARG, "prompt is not a string") : 0;
}

/* An array of token ids: *first behind its head, c behind the whole. */
static int read_ids(struct cts_mp *c, const char *key, uint32_t n_max, struct cts_mp *first, uint32_t *n,
                    struct cts_err *err)
{
    struct cts_mp at = *c;
    int64_t       id;
    uint32_t      n_ids;

    if (cts_mp_array(&at, &n_ids) < 0)
        return cts_err_set(err, CTS_EARG, "%s is not an array of token ids", key);
    if (n_ids > n_max)
        return cts_err_set(err, CTS_EARG, "%s has %u token ids, at most %u are allowed", key, n_ids, n_max);
    *first = at;
    for (uint32_t i = 0; i < n_ids; i++)
        if (cts_mp_int(&at, 0, INT32_MAX, &id) < 0)
            return cts_err_set(err, CTS_EARG, "%s[%u] is not a token id (0 to %d)", key, i, INT32_MAX);
    *n = n_ids;
    *c = at;
    return 0;
}

static int read_tokens(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    int rc = read_ids(c, "tokens", UINT32_MAX, &m->tokens, &m->n_tokens, err);

    return rc == 0 && m->n_tokens == 0 ? cts_err_set(err, CTS_EARG, "tokens is empty") : rc;
}

static int read_stop_tokens(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    return read_ids(c, "stop_tokens", CTS_GEN_STOP_TOKENS_MAX, &m->stop_tokens, &m->n_stop_tokens, err);
}

/* One message, a map of exactly role and content. */
static int read_message(struct cts_mp *c, struct cts_span *role, struct cts_span *content)
{
    struct cts_span key;
    uint32_t        n_pairs;

    *role = *content = (struct cts_span){ NULL, 0 };
    if (cts_mp_map(c, &n_pairs) < 0) return CTS_EARG;
    for (; n_pairs > 0; n_pairs--) {
        if (cts_mp_str(c, &key) < 0) return CTS_EARG;
        if (!cts_span_is(key, "role") && !cts_span_is(key, "content")) return CTS_EARG;
        if (cts_mp_str(c, key.ptr[0] == 'r' ? role : content) < 0) return CTS_EARG;
    }
    return role->ptr == NULL || content->ptr == NULL ? CTS_EARG : 0;
}

static int read_messages(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    struct cts_mp   at = *c;
    struct cts_span role, content;
    uint32_t        n;

    if (cts_mp_array(&at, &n) < 0) return cts_err_set(err, CTS_EARG, "messages is not an array");
    if (n == 0 || n > CTS_GEN_MESSAGES_MAX)
        return cts_err_set(err, CTS_EARG, "messages has %u entries, 1 to %d are allowed", n,
                           CTS_GEN_MESSAGES_MAX);
    m->messages = at;
    m->n_messages = n;
    for (uint32_t i = 0; i < n; i++)
        if (read_message(&at, &role, &content) < 0)
            return cts_err_set(err, CTS_EARG, "messages[%u] is not a map of two strings, role and content", i);
    *c = at;
    return 0;
}

static int read_stop(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    struct cts_mp   at = *c;
    struct cts_span s;
    uint32_t        n;

    if (cts_mp_array(&at, &n) < 0) return cts_err_set(err, CTS_EARG, "stop is not an array of strings");
    if (n > CTS_GEN_STOP_MAX)
        return cts_err_set(err, CTS_EARG, "stop has %u strings, at most %d are allowed", n, CTS_GEN_STOP_MAX);
    m->stop = at;
    m->n_stop = n;
    for (uint32_t i = 0; i < n; i++)
        if (cts_mp_str(&at, &s) < 0 || s.len == 0 || s.len > CTS_GEN_STOP_BYTES_MAX)
            return cts_err_set(err, CTS_EARG, "stop[%u] is not a string of 1 to %d bytes", i,
                               CTS_GEN_STOP_BYTES_MAX);
    *c = at;
    return 0;
}

static int read_int(struct cts_mp *c, const char *key, int64_t lo, int64_t hi, int64_t *out,
                    struct cts_err *err)
{
    if (cts_mp_int(c, lo, hi, out) == 0) return 0;
    return cts_err_set(err, CTS_EARG, "%s is not an integer from %lld to %lld", key, (long long)lo,
                       (long long)hi);
}

static int read_max_tokens(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    int64_t v = 0;
    int     rc = read_int(c, "max_tokens", 1, INT32_MAX, &v, err);

    m->max_tokens = (uint32_t)v;
    return rc;
}

static int read_temperature(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    double v;

    if (cts_mp_real(c, &v) < 0 || !(v >= 0 && v <= 100)) /* a NaN fails both */
        return cts_err_set(err, CTS_EARG, "temperature is not a number from 0 to 100");
    m->temperature = v;
    return 0;
}

static int read_top_p(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    double v;

    if (cts_mp_real(c, &v) < 0 || !(v > 0 && v <= 1))
        return cts_err_set(err, CTS_EARG, "top_p is not a number above 0 and up to 1");
    m->top_p = v;
    return 0;
}

static int read_top_k(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    return read_int(c, "top_k", 0, INT32_MAX, &m->top_k, err);
}

static int read_seed(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    if (cts_mp_u64(c, &m->seed) < 0) return cts_err_set(err, CTS_EARG, "seed is not an unsigned integer");
    m->has_seed = 1;
    return 0;
}

static int read_logprobs(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    int64_t v = -1;
    int     rc = read_int(c, "logprobs", 0, CTS_GEN_LOGPROBS_MAX, &v, err);

    m->n_logprobs = (int)v;
    return rc;
}

static int read_text(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    return cts_mp_bool(c, &m->want_text) < 0 ? cts_err_set(err, CTS_EARG, "text is neither true nor false") : 0;
}

static int read_special(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    return cts_mp_bool(c, &m->parse_special) < 0
               ? cts_err_set(err, CTS_EARG, "special is neither true nor false")
               : 0;
}

static int read_timeout(struct cts_mp *c, struct cts_gen_msg *m, struct cts_err *err)
{
    int64_t v = 0;
    int     rc = read_int(c, "timeout_ms", 1, TIMEOUT_MS_MAX, &v, err);

    m->timeout_ms = (uint64_t)v;
    return rc;
}

static const struct {
    const char *key;
    read_fn     read;
} GEN_KEYS[] = {
    { "adapter", read_adapter },
    { "prompt", read_prompt },
    { "tokens", read_tokens },
    { "messages", read_messages },
    { "max_tokens", read_max_tokens },
    { "temperature", read_temperature },
    { "top_p", read_top_p },
    { "top_k", read_top_k },
    { "seed", read_seed },
    { "stop", read_stop },
    { "stop_tokens", read_stop_tokens },
    { "logprobs", read_logprobs },
    { "text", read_text },
    { "special", read_special },
    { "timeout_ms", read_timeout },
};

static read_fn find_reader(struct cts_span key)
{
    for (size_t i = 0; i < sizeof(GEN_KEYS) / sizeof(GEN_KEYS[0]); i++)
        if (cts_span_is(key, GEN_KEYS[i].key)) return GEN_KEYS[i].read;
    return NULL;
}

static int check_one_source(const struct cts_gen_msg *m, char param[CTS_PARAM_BYTES], struct cts_err *err)
{
    int n = (m->prompt.ptr != NULL) + (m->n_tokens > 0) + (m->n_messages > 0);

    if (n == 1) return 0;
    snprintf(param, CTS_PARAM_BYTES, "prompt");
    return cts_err_set(err, CTS_EARG,
                       n == 0 ? "one of prompt, tokens and messages is needed"
                              : "only one of prompt, tokens and messages is allowed");
}

int cts_gen_decode(struct cts_mp *c, struct cts_gen_msg *out, char param[CTS_PARAM_BYTES], struct cts_err *err)
{
    struct cts_gen_msg m = {
        .temperature = -1, .top_p = -1, .top_k = -1, .n_logprobs = -1, .want_text = 1, .parse_special = 1
    };
    struct cts_mp   at = *c;
    struct cts_span key;
    read_fn         read;
    uint32_t        n_pairs;
    int             rc;

    param[0] = '\0';
    if (cts_mp_map(&at, &n_pairs) < 0) return cts_err_set(err, CTS_EARG, "the request is not a map");
    for (; n_pairs > 0; n_pairs--) {
        if (cts_mp_str(&at, &key) < 0)
            return cts_err_set(err, CTS_EARG, "a key of the request is not a string");
        cut_text(param, CTS_PARAM_BYTES, key);
        read = find_reader(key);
        if (read == NULL) return cts_err_set(err, CTS_EARG, "there is no parameter '%s'", param);
        rc = read(&at, &m, err);
        if (rc < 0) return rc;
    }
    rc = check_one_source(&m, param, err);
    if (rc < 0) return rc;
    param[0] = '\0';
    *out = m;
    *c = at;
    return 0;
}

void cts_gen_next_message(struct cts_mp *messages, struct cts_span *role, struct cts_span *content)
{
    int rc = read_message(messages, role, content);

    CTS_ASSERT(rc == 0); /* cts_gen_decode read it before */
}
