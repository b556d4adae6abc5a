#include "daemon/serve/generate.h"

#include "common/assert.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

_Static_assert(CTS_GEN_STOP_MAX == CTS_STOP_STRINGS_MAX, "the schema's limit is the engine's");
_Static_assert(CTS_GEN_STOP_BYTES_MAX == CTS_STOP_STRING_BYTES_MAX, "the schema's limit is the engine's");
_Static_assert(CTS_GEN_STOP_TOKENS_MAX == CTS_REQ_STOP_TOKENS_MAX, "the schema's limit is the engine's");
_Static_assert(CTS_GEN_LOGPROBS_MAX == CTS_TOP_LOGPROBS_MAX, "the schema's limit is the engine's");

int cts_gen_open(struct cts_gen *g, struct cts_engine *engine, uint32_t prompt_bytes_max, uint32_t max_tokens,
                 struct cts_err *err)
{
    int rc;

    *g = (struct cts_gen){ .engine = engine, .prompt_bytes_max = prompt_bytes_max, .max_tokens = max_tokens };
    if (getrandom(&g->seed, sizeof(g->seed), 0) != sizeof(g->seed))
        return cts_err_set(err, -errno, "random seed");
    g->messages = calloc(CTS_GEN_MESSAGES_MAX, sizeof(*g->messages));
    rc = g->messages == NULL ? -ENOMEM
                             : cts_encoder_new(&g->encoder, cts_engine_tokenizer(engine), prompt_bytes_max);
    if (rc < 0) {
        cts_gen_close(g);
        return cts_err_set(err, rc, "encoder for prompts of %u bytes", prompt_bytes_max);
    }
    return 0;
}

void cts_gen_close(struct cts_gen *g)
{
    cts_encoder_free(g->encoder);
    free(g->messages);
    *g = (struct cts_gen){ .engine = NULL };
}

/* splitmix64: seeds need to differ, not to be secret. */
static uint64_t next_seed(struct cts_gen *g)
{
    uint64_t z = g->seed += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ---- the prompt ---- */

static int encode_messages(struct cts_gen *g, const struct cts_gen_msg *m, struct cts_engine_request *r,
                           int64_t *n)
{
    struct cts_mp at = m->messages;

    CTS_ASSERT(m->n_messages <= CTS_GEN_MESSAGES_MAX); /* the decoder's limit */
    for (uint32_t i = 0; i < m->n_messages; i++)
        cts_gen_next_message(&at, &g->messages[i].role, &g->messages[i].content);
    *n = cts_chat_render(cts_engine_chat(g->engine), g->encoder, g->messages, m->n_messages, r->prompt,
                         cts_engine_context(g->engine));
    return *n < 0 ? (int)*n : 0;
}

static int copy_tokens(struct cts_gen *g, const struct cts_gen_msg *m, struct cts_engine_request *r, int64_t *n)
{
    struct cts_mp at = m->tokens;
    int64_t       id = 0;

    if (m->n_tokens > cts_engine_context(g->engine)) return -EMSGSIZE;
    for (uint32_t i = 0; i < m->n_tokens; i++) {
        int rc = cts_mp_int(&at, 0, INT32_MAX, &id);

        CTS_ASSERT(rc == 0); /* the decoder read it before */
        r->prompt[i] = (int32_t)id;
    }
    *n = m->n_tokens;
    return 0;
}

static int fail_prompt(const struct cts_gen *g, int rc, const char *param, struct cts_err *err)
{
    const struct cts_chat_template *chat = cts_engine_chat(g->engine);

    switch (rc) {
    case -EMSGSIZE:
        return cts_err_set(err, CTS_ETOOLONG,
                           "%s has more than the %u tokens of the context, or more than %u bytes", param,
                           cts_engine_context(g->engine), g->prompt_bytes_max);
    case CTS_EUNSUP:
        return cts_err_set(err, rc, "the base has no chat template that is known here (%s); give a raw prompt",
                           chat->unknown_why);
    case CTS_EARG:
        return cts_err_set(err, rc, "%s has a role that the chat template does not have", param);
    default:
        return cts_err_set(err, CTS_EARG, "%s is not UTF-8", param);
    }
}

static int fill_prompt(struct cts_gen *g, const struct cts_gen_msg *m, struct cts_engine_request *r,
                       const char **param, struct cts_err *err)
{
    int64_t n = 0;
    int     rc = 0;

    if (m->n_messages > 0) {
        *param = "messages";
        rc = encode_messages(g, m, r, &n);
    } else if (m->n_tokens > 0) {
        *param = "tokens";
        rc = copy_tokens(g, m, r, &n);
    } else {
        *param = "prompt";
        n = cts_encode(g->encoder, (const char *)m->prompt.ptr, m->prompt.len, m->parse_special, r->prompt,
                       cts_engine_context(g->engine));
        if (n < 0) rc = (int)n;
    }
    if (rc < 0) return fail_prompt(g, rc, *param, err);
    if (n == 0) return cts_err_set(err, CTS_EARG, "%s has no tokens", *param);
    r->n_prompt = (uint32_t)n;
    return 0;
}

/* ---- the rest ---- */

static void fill_stops(const struct cts_gen_msg *m, struct cts_engine_request *r)
{
    struct cts_mp   stop = m->stop, stop_tokens = m->stop_tokens;
    struct cts_span s = { NULL, 0 };
    int64_t         id = 0;
    int             rc = 0;

    r->n_stop = m->n_stop;
    for (uint32_t i = 0; i < m->n_stop; i++) {
        rc |= cts_mp_str(&stop, &s);
        memcpy(r->stop[i], s.ptr, s.len);
        r->stop_bytes[i] = (uint8_t)s.len;
    }
    r->n_stop_tokens = m->n_stop_tokens;
    for (uint32_t i = 0; i < m->n_stop_tokens; i++) {
        rc |= cts_mp_int(&stop_tokens, 0, INT32_MAX, &id);
        r->stop_tokens[i] = (int32_t)id;
    }
    CTS_ASSERT(rc == 0); /* the decoder read them before, lengths included */
}

/* What the request says, else what the base's generation_config.json says, else
 * greedy without limits. */
static void fill_sampling(struct cts_gen *g, const struct cts_gen_msg *m, struct cts_engine_request *r)
{
    const struct cts_model_config *c = cts_engine_model(g->engine);

    r->temperature = m->temperature >= 0 ? (float)m->temperature : isnan(c->temperature) ? 0 : c->temperature;
    r->top_p = m->top_p >= 0 ? (float)m->top_p : isnan(c->top_p) || c->top_p <= 0 ? 1 : c->top_p;
    if (r->top_p <= 0) r->top_p = 1e-30f; /* a double above 0 that float32 rounds to it */
    r->top_k = m->top_k >= 0 ? (uint32_t)m->top_k : c->top_k;
    r->seed = m->has_seed ? m->seed : next_seed(g);
    r->n_logprobs = m->n_logprobs;
    r->want_text = m->want_text;
}

static int fill_max_tokens(struct cts_gen *g, const struct cts_gen_msg *m, struct cts_engine_request *r,
                           const char **param, struct cts_err *err)
{
    uint32_t left = cts_engine_context(g->engine) - r->n_prompt;

    if (left == 0)
        return cts_err_set(err, CTS_ETOOLONG, "%s has %u tokens and fills the context of %u", *param,
                           r->n_prompt, cts_engine_context(g->engine));
    r->max_tokens = m->max_tokens > 0 ? m->max_tokens : g->max_tokens < left ? g->max_tokens : left;
    *param = "max_tokens";
    if (r->max_tokens > left)
        return cts_err_set(err, CTS_ETOOLONG, "%u prompt tokens and %u new ones pass the context of %u",
                           r->n_prompt, r->max_tokens, cts_engine_context(g->engine));
    *param = NULL;
    return 0;
}

int cts_gen_fill(struct cts_gen *g, const struct cts_gen_msg *m, uint64_t now_ns, uint64_t deadline_ns,
                 struct cts_engine_request *r, const char **param, struct cts_err *err)
{
    uint64_t timeout_at_ns = m->timeout_ms > 0 ? now_ns + m->timeout_ms * 1000000 : 0;
    int      rc = fill_prompt(g, m, r, param, err);

    if (rc == 0) rc = fill_max_tokens(g, m, r, param, err);
    if (rc < 0) return rc;
    fill_stops(m, r);
    fill_sampling(g, m, r);
    r->deadline_ns =
        timeout_at_ns == 0 || (deadline_ns != 0 && deadline_ns < timeout_at_ns) ? deadline_ns : timeout_at_ns;
    return 0;
}
