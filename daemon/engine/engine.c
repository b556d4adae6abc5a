/* The loop thread's side: requests and orders in, events out. Everything that
 * comes from a client is checked here, before the engine thread sees it. */

#include "daemon/engine/state.h"

#include "common/assert.h"
#include "common/utf8.h"

#include <math.h>
#include <string.h>

const struct cts_model_config *cts_engine_model(const struct cts_engine *e)
{
    return &e->model;
}

const struct cts_tokenizer *cts_engine_tokenizer(const struct cts_engine *e)
{
    return e->tokenizer;
}

const struct cts_chat_template *cts_engine_chat(const struct cts_engine *e)
{
    return &e->chat;
}

const uint8_t *cts_engine_base_digest(const struct cts_engine *e)
{
    return e->weights.digest;
}

const char *cts_engine_describe(const struct cts_engine *e)
{
    return ctsk_describe(e->dev);
}

uint32_t cts_engine_context(const struct cts_engine *e)
{
    return e->context;
}

const struct cts_collection *cts_engine_collection(const struct cts_engine *e)
{
    return e->has_collection ? &e->collection : NULL;
}

void cts_engine_stats(const struct cts_engine *e, struct cts_engine_stats *out)
{
    uint64_t words[CTS_STATS_WORDS];

    /* Each number is true; they need not be of one turn. */
    for (size_t i = 0; i < CTS_STATS_WORDS; i++)
        words[i] = atomic_load_explicit(&e->stats_words[i], memory_order_relaxed);
    memcpy(out, words, sizeof(words));
}

void cts_engine_tap(struct cts_engine *e, cts_logits_tap_fn fn, void *arg)
{
    struct cts_order o = { .type = CTS_ORDER_TAP, .tap = fn, .tap_arg = arg };

    CTS_ASSERT(cts_spsc_push(&e->orders, &o) == 0); /* before the first admit there is room */
}

struct cts_engine_request *cts_request_new(struct cts_engine *e)
{
    struct cts_requests       *p = &e->requests;
    struct cts_engine_request *r;

    if (p->n_free == 0) return NULL;
    r = &p->at[p->free[--p->n_free]];
    *r = (struct cts_engine_request){ .idx = r->idx, .prompt = r->prompt, .top_p = 1, .n_logprobs = -1 };
    return r;
}

void cts_request_free(struct cts_engine *e, struct cts_engine_request *r)
{
    struct cts_requests *p = &e->requests;

    if (r == NULL) return;
    CTS_ASSERT(r == &p->at[r->idx]);
    CTS_ASSERT(p->n_free < p->n); /* freed twice */
    p->free[p->n_free++] = r->idx;
}

struct cts_engine_request *cts_request_at(struct cts_engine *e, uint32_t idx)
{
    CTS_ASSERT(idx < e->requests.n);
    return &e->requests.at[idx];
}

static int check_length(const struct cts_engine *e, const struct cts_engine_request *r, struct cts_err *err)
{
    uint64_t n_tokens = (uint64_t)r->n_prompt + r->max_tokens;
    uint64_t n_cache = (uint64_t)e->o.n_pages * e->o.page_tokens;

    if (r->n_prompt == 0) return cts_err_set(err, CTS_EARG, "the prompt is empty");
    if (r->max_tokens == 0) return cts_err_set(err, CTS_EARG, "max_tokens is 0");
    if (n_tokens > e->context)
        return cts_err_set(err, CTS_ETOOLONG, "%u prompt tokens and max_tokens %u make %llu, the context has %u",
                           r->n_prompt, r->max_tokens, (unsigned long long)n_tokens, e->context);
    if (n_tokens > n_cache)
        return cts_err_set(err, CTS_ETOOLONG, "%u prompt tokens and max_tokens %u make %llu, the KV cache has %llu",
                           r->n_prompt, r->max_tokens, (unsigned long long)n_tokens, (unsigned long long)n_cache);
    for (uint32_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || (uint32_t)r->prompt[i] >= e->model.vocab_size)
            return cts_err_set(err, CTS_EARG, "prompt token %u is %d, the vocabulary has %u", i, r->prompt[i],
                               e->model.vocab_size);
    return 0;
}

static int check_sampling(const struct cts_engine_request *r, struct cts_err *err)
{
    if (!(r->temperature >= 0) || !isfinite(r->temperature))
        return cts_err_set(err, CTS_EARG, "temperature is %g, wanted 0 or more", (double)r->temperature);
    if (!(r->top_p > 0 && r->top_p <= 1))
        return cts_err_set(err, CTS_EARG, "top_p is %g, wanted more than 0 and at most 1", (double)r->top_p);
    if (r->n_logprobs < -1 || r->n_logprobs > CTS_TOP_LOGPROBS_MAX)
        return cts_err_set(err, CTS_EARG, "%d top log-probabilities, wanted at most %d", r->n_logprobs,
                           CTS_TOP_LOGPROBS_MAX);
    return 0;
}

static int check_stops(const struct cts_engine_request *r, struct cts_err *err)
{
    if (r->n_stop > CTS_STOP_STRINGS_MAX || r->n_stop_tokens > CTS_REQ_STOP_TOKENS_MAX)
        return cts_err_set(err, CTS_EARG, "%u stop strings and %u stop tokens, wanted at most %d and %d", r->n_stop,
                           r->n_stop_tokens, CTS_STOP_STRINGS_MAX, CTS_REQ_STOP_TOKENS_MAX);
    for (uint32_t i = 0; i < r->n_stop; i++) {
        if (r->stop_bytes[i] == 0 || r->stop_bytes[i] > CTS_STOP_STRING_BYTES_MAX)
            return cts_err_set(err, CTS_EARG, "stop string %u has %u bytes, wanted 1 to %d", i, r->stop_bytes[i],
                               CTS_STOP_STRING_BYTES_MAX);
        if (!cts_utf8_is_valid(r->stop[i], r->stop_bytes[i]))
            return cts_err_set(err, CTS_EARG, "stop string %u is not UTF-8", i);
    }
    return 0;
}

static int check_parts(const struct cts_engine *e, const struct cts_engine_request *r, struct cts_err *err)
{
    if (r->n_parts > CTS_PARTS_PER_REQUEST_MAX)
        return cts_err_set(err, CTS_EARG, "%u adapters in one request, wanted at most %d", r->n_parts,
                           CTS_PARTS_PER_REQUEST_MAX);
    for (uint32_t i = 0; i < r->n_parts; i++) {
        if (r->parts[i].adapter_idx != CTS_ADAPTER_BASE && r->parts[i].adapter_idx >= e->n_adapters)
            return cts_err_set(err, CTS_EARG, "adapter %u of %u", r->parts[i].adapter_idx, e->n_adapters);
        if (!isfinite(r->parts[i].weight))
            return cts_err_set(err, CTS_EARG, "an adapter's weight is %g", (double)r->parts[i].weight);
    }
    return 0;
}

int cts_engine_admit(struct cts_engine *e, struct cts_engine_request *r, struct cts_err *err)
{
    struct cts_order o = { .type = CTS_ORDER_ADMIT, .idx = r->idx };
    int              rc;

    if ((rc = check_length(e, r, err)) != 0) return rc;
    if ((rc = check_sampling(r, err)) != 0) return rc;
    if ((rc = check_stops(r, err)) != 0) return rc;
    if ((rc = check_parts(e, r, err)) != 0) return rc;
    if (cts_spsc_push(&e->orders, &o) != 0)
        return cts_err_set(err, CTS_EBUSY, "the engine's queue of orders is full");
    return 0;
}

static int order(struct cts_engine *e, enum cts_order_type type, uint32_t idx, uint64_t tag, const struct cts_peft *p)
{
    struct cts_order o = { .type = type, .idx = idx, .tag = tag, .peft = p };

    return cts_spsc_push(&e->orders, &o) == 0 ? 0 : CTS_EBUSY;
}

int cts_engine_cancel(struct cts_engine *e, const struct cts_engine_request *r)
{
    return order(e, CTS_ORDER_CANCEL, r->idx, r->tag, NULL);
}

int cts_engine_park(struct cts_engine *e, const struct cts_engine_request *r, int is_parked)
{
    return order(e, is_parked ? CTS_ORDER_PARK : CTS_ORDER_UNPARK, r->idx, r->tag, NULL);
}

/* The loop's record of a place of the exact lane; NULL when adapter_idx is none. */
static uint8_t *exact_at(struct cts_engine *e, uint32_t adapter_idx)
{
    uint32_t n_compressed = e->n_adapters - e->o.n_exact_max;

    if (adapter_idx < n_compressed || adapter_idx >= e->n_adapters) return NULL;
    return &e->exact_state[adapter_idx - n_compressed];
}

int cts_engine_exact_idx(struct cts_engine *e, uint32_t *adapter_idx)
{
    for (uint32_t i = 0; i < e->o.n_exact_max; i++) {
        if (e->exact_state[i] != CTS_EXACT_FREE) continue;
        e->exact_state[i] = CTS_EXACT_ASIDE;
        *adapter_idx = e->n_adapters - e->o.n_exact_max + i;
        return 0;
    }
    return CTS_EBUSY;
}

void cts_engine_exact_put_back(struct cts_engine *e, uint32_t adapter_idx)
{
    uint8_t *state = exact_at(e, adapter_idx);

    CTS_ASSERT(state != NULL && *state == CTS_EXACT_ASIDE);
    *state = CTS_EXACT_FREE;
}

int cts_engine_load(struct cts_engine *e, uint32_t adapter_idx, const struct cts_peft *p, uint64_t tag)
{
    uint8_t *state = exact_at(e, adapter_idx);
    int      rc;

    if (state == NULL || *state != CTS_EXACT_ASIDE) return CTS_EARG;
    if ((rc = order(e, CTS_ORDER_LOAD, adapter_idx, tag, p)) == 0) *state = CTS_EXACT_LOADING;
    return rc;
}

int cts_engine_unload(struct cts_engine *e, uint32_t adapter_idx, uint64_t tag)
{
    uint8_t *state = exact_at(e, adapter_idx);
    int      rc;

    if (state == NULL || *state != CTS_EXACT_LOADED) return CTS_EARG;
    if ((rc = order(e, CTS_ORDER_UNLOAD, adapter_idx, tag, NULL)) == 0) *state = CTS_EXACT_UNLOADING;
    return rc;
}

/* An order about a place was carried out, or not. */
static void note_adapter(struct cts_engine *e, const struct cts_engine_event *ev)
{
    uint8_t *state = exact_at(e, ev->req_idx);
    int      is_load = *state == CTS_EXACT_LOADING, is_ok = ev->code == 0;

    CTS_ASSERT(is_load || *state == CTS_EXACT_UNLOADING);
    *state = is_load == is_ok ? CTS_EXACT_LOADED : CTS_EXACT_FREE;
}

int cts_engine_next(struct cts_engine *e, struct cts_engine_event *ev)
{
    if (!cts_spsc_pop(&e->events, ev)) return 0;
    /* A read that is a write too, against has_new_room's exchange: see there. */
    if (atomic_fetch_or_explicit(&e->is_starved, 0, memory_order_acq_rel)) cts_bell_ring(&e->bell);
    if (ev->type == CTS_EV_ADAPTER) note_adapter(e, ev);
    return 1;
}

void cts_engine_kick(struct cts_engine *e)
{
    cts_bell_ring(&e->bell);
}
