/* Everything that the engine takes, it takes here, and gives back here: the base,
 * the collection, the pools, the thread. The plan for ctsd -T adds up the same sizes. */

#include "daemon/engine/state.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_PER_SEQ         8u /* tokens that a sequence may be ahead of the loop, about */
#define EVENTS_MIN             256u
#define ORDERS_SPARE           64u /* beyond an admit, a cancel and a park for every request */
#define TEXT_PER_EVENT         (CTS_EVENT_TEXT_BYTES - 3u) /* at least, with whole characters */
#define TABLES_PER_ADAPTER_MAX 8u /* a sigma and residuals; keeps n_rows_max x parts in 32 bits */

/* Sizes that follow from the options, the base and the collection. */
struct sizes {
    struct cts_forward_opts        forward;
    struct cts_requests_opts       requests;
    struct cts_adapter_tables_size adapters;
    uint32_t                       n_orders, n_events, events_per_token_max;
};

static void no_events(void *arg)
{
    (void)arg;
}

static int check_opts(const struct cts_engine_opts *o, struct cts_err *err)
{
    const struct {
        const char *name;
        uint64_t    value, max;
    } fields[] = {
        { "n_requests_max", o->n_requests_max, 1u << 20 }, { "n_rows_max", o->n_rows_max, 1u << 16 },
        { "n_seqs_max", o->n_seqs_max, 1u << 16 },         { "prefill_chunk_rows", o->prefill_chunk_rows, 1u << 16 },
        { "page_tokens", o->page_tokens, 1u << 12 },       { "n_pages", o->n_pages, 1u << 30 },
    };

    if (o->base_dir == NULL) return cts_err_set(err, CTS_EARG, "engine: no base");
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].value == 0 || fields[i].value > fields[i].max)
            return cts_err_set(err, CTS_EARG, "engine: %s is %llu, wanted 1 to %llu", fields[i].name,
                               (unsigned long long)fields[i].value, (unsigned long long)fields[i].max);
    if ((uint64_t)o->n_pages * o->page_tokens > INT32_MAX)
        return cts_err_set(err, CTS_EARG, "engine: n_pages x page_tokens is %llu, wanted less than 2^31",
                           (unsigned long long)o->n_pages * o->page_tokens);
    if (o->n_exact_max > 1u << 20 || (o->n_exact_max > 0 && (o->rank_max == 0 || o->rank_max > 1024)))
        return cts_err_set(err, CTS_EARG, "engine: %u exact adapters of rank %u, wanted a rank of 1 to 1024",
                           o->n_exact_max, o->rank_max);
    return 0;
}

/* Cores that this process may run on, less one for the loop thread. */
static uint32_t default_threads(void)
{
    cpu_set_t set;
    int       n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n > 1 ? (uint32_t)n - 1 : 1;
}

/* The parts of the base that need no device, and the collection's outline. */
static int read_base(struct cts_engine *e, struct cts_err *err)
{
    char path[4096];
    int  rc;

    if (snprintf(path, sizeof(path), "%s/tokenizer.json", e->o.base_dir) >= (int)sizeof(path))
        return cts_err_set(err, -ENAMETOOLONG, "base '%.64s...'", e->o.base_dir);
    if ((rc = cts_model_config_load(&e->model, e->o.base_dir, err)) != 0) return rc;
    if ((rc = cts_tokenizer_open(&e->tokenizer, path, err)) != 0) return rc;
    if ((rc = cts_chat_template_load(&e->chat, e->o.base_dir, e->tokenizer, err)) != 0) return rc;
    if (e->o.collection_dir != NULL) {
        if ((rc = cts_collection_open(&e->collection, e->o.collection_dir, err)) != 0) return rc;
        e->has_collection = 1;
    }
    if (e->o.context_max > e->model.max_positions)
        return cts_err_set(err, CTS_EARG, "engine: a context of %u tokens, the base '%s' has %u", e->o.context_max,
                           e->o.base_dir, e->model.max_positions);
    e->context = e->o.context_max > 0 ? e->o.context_max : e->model.max_positions;
    e->n_pages_per_seq_max = (e->context + e->o.page_tokens - 1) / e->o.page_tokens;
    return 0;
}

static uint32_t longest_piece(const struct cts_tokenizer *t)
{
    uint32_t max = 0;

    for (uint32_t i = 0; i < cts_tokenizer_n_vocab(t); i++) {
        size_t len = cts_tokenizer_piece(t, (int32_t)i).len;
        if (len > max) max = (uint32_t)len;
    }
    return max;
}

static uint32_t power_of_two(uint64_t at_least)
{
    uint32_t n = 1;

    while (n < at_least) n *= 2;
    return n;
}

static struct cts_adapter_tables_opts adapter_opts(const struct cts_engine *e)
{
    return (struct cts_adapter_tables_opts){ .model = &e->model,
                                             .collection = e->has_collection ? &e->collection : NULL,
                                             .n_exact = e->o.n_exact_max,
                                             .rank_max = e->o.rank_max };
}

static int find_sizes(struct cts_engine *e, struct sizes *s, struct cts_err *err)
{
    struct cts_adapter_tables_opts ao = adapter_opts(e);
    uint32_t                       refs, text_cap = cts_text_cap(longest_piece(e->tokenizer));
    int                            rc = cts_adapter_tables_measure(&ao, &s->adapters, err);

    if (rc != 0) return rc;
    if (s->adapters.n_tables_max > TABLES_PER_ADAPTER_MAX)
        return cts_err_set(err, CTS_EUNSUP,
                           "collection '%s': an adapter has %u parts for one module, wanted at most %u",
                           e->o.collection_dir, s->adapters.n_tables_max, TABLES_PER_ADAPTER_MAX);
    refs = CTS_PARTS_PER_REQUEST_MAX * s->adapters.n_tables_max;
    s->forward = (struct cts_forward_opts){ .n_rows_max = e->o.n_rows_max,
                                            .n_seqs_max = e->o.n_seqs_max,
                                            .n_parts_max = e->o.n_rows_max * refs,
                                            .n_logits_max = e->o.n_logits_max,
                                            .n_pages = e->o.n_pages,
                                            .page_tokens = e->o.page_tokens,
                                            .n_pages_per_seq_max = e->n_pages_per_seq_max,
                                            .rank_max = s->adapters.rank_max };
    s->requests = (struct cts_requests_opts){ .n = e->o.n_requests_max,
                                              .context = e->context,
                                              .n_pages_per_seq_max = e->n_pages_per_seq_max,
                                              .n_refs_max = refs,
                                              .text_cap = text_cap };
    s->events_per_token_max = (text_cap + TEXT_PER_EVENT - 1) / TEXT_PER_EVENT + 1;
    s->n_orders = power_of_two(3ull * e->o.n_requests_max + ORDERS_SPARE);
    s->n_events = power_of_two((uint64_t)EVENTS_PER_SEQ * s->events_per_token_max * e->o.n_seqs_max);
    if (s->n_events < EVENTS_MIN) s->n_events = EVENTS_MIN;
    return 0;
}

/* Options with their defaults filled in, into a zeroed engine. */
static int take_opts(struct cts_engine *e, const struct cts_engine_opts *o, struct cts_err *err)
{
    int rc = check_opts(o, err);

    if (rc != 0) return rc;
    e->o = *o;
    if (e->o.n_threads == 0) e->o.n_threads = default_threads();
    if (e->o.on_events == NULL) e->o.on_events = no_events;
    if (e->o.n_logits_max == 0) e->o.n_logits_max = o->n_seqs_max;
    if (e->o.n_logits_max > o->n_rows_max) e->o.n_logits_max = o->n_rows_max;
    if (e->o.n_exact_max == 0) e->o.rank_max = 0;
    return 0;
}

static int open_device(struct cts_engine *e, const struct sizes *s, struct cts_err *err)
{
    struct ctsk_opts               ko = { e->o.backend, e->o.cpu_level, e->o.n_threads, e->o.spin_ns };
    struct cts_adapter_tables_opts ao = adapter_opts(e);
    int                            rc;

    if ((rc = ctsk_open(&e->dev, &ko, err)) != 0) return rc;
    if ((rc = ctsk_stream_new(e->dev, &e->stream)) != 0)
        return cts_err_set(err, rc, "engine: a stream on the device");
    if ((rc = cts_weights_load(&e->weights, e->dev, &e->model, e->o.base_dir, err)) != 0) return rc;
    if (e->has_collection && memcmp(e->weights.digest, e->collection.base_digest, CTS_DIGEST_BYTES) != 0)
        return cts_err_set(err, CTS_EDIGEST, "collection '%s' was made for another base than '%s'",
                           e->o.collection_dir, e->o.base_dir);
    if ((rc = cts_forward_new(&e->forward, e->dev, e->stream, &e->model, &e->weights, &s->forward, err)) != 0)
        return rc;
    if ((rc = cts_adapter_tables_open(&e->adapters, e->dev, e->stream, &ao, &s->adapters, err)) != 0) return rc;
    e->n_adapters = e->adapters.n;
    return 0;
}

static int make_pools(struct cts_engine *e, const struct sizes *s, struct cts_err *err)
{
    int rc = cts_requests_init(&e->requests, &s->requests);

    if (rc == 0) rc = cts_kv_init(&e->kv, e->o.n_pages, e->o.page_tokens);
    if (rc == 0) rc = cts_schedule_init(&e->schedule, e->requests.runs, e->requests.n);
    if (rc == 0) rc = cts_sampler_init(&e->sampler, e->model.vocab_size);
    if (rc == 0) rc = cts_spsc_init(&e->orders, s->n_orders, sizeof(struct cts_order));
    if (rc == 0) rc = cts_spsc_init(&e->events, s->n_events, sizeof(struct cts_engine_event));
    if (rc != 0) return cts_err_set(err, rc, "engine: pools for %u requests", e->o.n_requests_max);
    e->ending = calloc(e->requests.n, sizeof(*e->ending));
    e->exact_state = calloc(e->o.n_exact_max + 1u, sizeof(*e->exact_state));
    if (e->ending == NULL || e->exact_state == NULL)
        return cts_err_set(err, -ENOMEM, "engine: pools for %u requests", e->o.n_requests_max);
    e->events_per_token_max = s->events_per_token_max;
    e->deadline_ns = UINT64_MAX;
    e->stats.n_pages = e->stats.n_pages_free = e->o.n_pages;
    for (size_t i = 0; i < CTS_STATS_WORDS; i++) atomic_store(&e->stats_words[i], ((uint64_t *)&e->stats)[i]);
    return 0;
}

static int start_thread(struct cts_engine *e, struct cts_err *err)
{
    int rc = pthread_create(&e->thread, NULL, cts_engine_run, e);

    if (rc != 0) return cts_err_set(err, -rc, "engine: start the thread");
    (void)pthread_setname_np(e->thread, "ctsd-engine");
    e->has_thread = 1;
    return 0;
}

int cts_engine_open(struct cts_engine **out, const struct cts_engine_opts *o, struct cts_err *err)
{
    struct cts_engine *e = calloc(1, sizeof(*e));
    struct sizes       s;
    sigset_t           all, before;
    int                rc;

    if (e == NULL) return cts_err_set(err, -ENOMEM, "engine");
    /* Signals are the caller's: the engine thread and the kernels' workers inherit this mask. */
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = take_opts(e, o, err);
    if (rc == 0) rc = read_base(e, err);
    if (rc == 0) rc = find_sizes(e, &s, err);
    if (rc == 0) rc = open_device(e, &s, err);
    if (rc == 0) rc = make_pools(e, &s, err);
    if (rc == 0) rc = start_thread(e, err);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        cts_engine_close(e);
        return rc;
    }
    *out = e;
    return 0;
}

void cts_engine_close(struct cts_engine *e)
{
    if (e == NULL) return;
    if (e->has_thread) {
        atomic_store(&e->is_stopping, 1);
        cts_bell_ring(&e->bell);
        (void)pthread_join(e->thread, NULL);
    }
    free(e->exact_state);
    free(e->ending);
    cts_spsc_deinit(&e->events);
    cts_spsc_deinit(&e->orders);
    cts_sampler_deinit(&e->sampler);
    cts_schedule_deinit(&e->schedule);
    cts_kv_deinit(&e->kv);
    cts_requests_deinit(&e->requests);
    cts_adapter_tables_close(&e->adapters);
    cts_forward_free(e->forward);
    cts_weights_free(&e->weights);
    ctsk_stream_free(e->stream);
    ctsk_close(e->dev);
    if (e->has_collection) cts_collection_close(&e->collection);
    cts_tokenizer_close(e->tokenizer);
    free(e);
}

static void add_up(const struct cts_engine *e, const struct sizes *s, cts_plan_fn fn, void *arg)
{
    uint64_t kv_bytes, work_bytes;

    cts_forward_bytes(&e->model, &s->forward, &kv_bytes, &work_bytes);
    fn(arg, "base weights", cts_weights_bytes(&e->model));
    fn(arg, "KV cache", kv_bytes);
    fn(arg, "work space of a step", work_bytes);
    fn(arg, "collection: bases", s->adapters.bases);
    fn(arg, "collection: sigmas", s->adapters.sigmas);
    fn(arg, "exact lane", s->adapters.exact);
    fn(arg, "tables of adapters", s->adapters.tables);
    fn(arg, "requests", cts_requests_bytes(&s->requests));
    fn(arg, "queues between the threads",
       (uint64_t)s->n_orders * sizeof(struct cts_order) + (uint64_t)s->n_events * sizeof(struct cts_engine_event));
}

int cts_engine_plan(const struct cts_engine_opts *o, cts_plan_fn fn, void *arg, struct cts_err *err)
{
    struct cts_engine *e = calloc(1, sizeof(*e));
    struct sizes       s;
    int                rc;

    if (e == NULL) return cts_err_set(err, -ENOMEM, "engine");
    rc = take_opts(e, o, err);
    if (rc == 0) rc = read_base(e, err);
    if (rc == 0) rc = find_sizes(e, &s, err);
    if (rc == 0) add_up(e, &s, fn, arg);
    cts_engine_close(e);
    return rc;
}
