#ifndef CTS_DAEMON_ENGINE_ENGINE_H
#define CTS_DAEMON_ENGINE_ENGINE_H

/* The engine: KV cache, schedule, step, sampling, every device call, on a
 * thread of its own. The loop thread hands it orders and takes its events
 * through two bounded queues of fixed records; neither ever waits for the
 * other. */

#include "common/err.h"
#include "common/hash.h"
#include "daemon/model/chat_template.h"
#include "daemon/model/model_config.h"
#include "daemon/model/peft.h"
#include "daemon/model/tokenizer.h"

#include <stdint.h>

#define CTS_STOP_STRINGS_MAX      8
#define CTS_STOP_STRING_BYTES_MAX 64
#define CTS_REQ_STOP_TOKENS_MAX   16
#define CTS_TOP_LOGPROBS_MAX      20
#define CTS_PARTS_PER_REQUEST_MAX 4
#define CTS_EVENT_TEXT_BYTES      256

struct cts_engine_opts {
    const char *base_dir;
    const char *collection_dir;      /* NULL: none */
    const char *backend, *cpu_level; /* as struct ctsk_opts */
    uint32_t    n_threads;           /* of the kernels, the engine's own included; 0: cores - 1, at least 1 */
    uint64_t    spin_ns;             /* of the kernels' workers between ops */
    uint32_t    n_requests_max;      /* live, waiting ones included */
    uint32_t    n_rows_max;          /* of a step */
    uint32_t    n_seqs_max;          /* sequences in a step */
    uint32_t    prefill_chunk_rows;  /* most prompt rows of one sequence in a step */
    uint32_t    page_tokens;
    uint32_t    n_pages;      /* of the KV cache */
    uint32_t    n_exact_max;  /* adapters in the exact lane */
    uint32_t    rank_max;     /* largest rank of an exact adapter */
    uint32_t    context_max;  /* tokens, at most the base's; 0: the base's */
    uint32_t    n_logits_max; /* rows of a step whose logits are made; 0: n_seqs_max. With a tap, rows of a step */
    /* Engine thread, once per step at most: from_engine has something (uv_async_send). */
    void (*on_events)(void *arg);
    void *on_events_arg;
};

/* Who an adapter is to the engine: an index into its device tables. Handles are
 * given out by the loop thread's registry (adapters.h); CTS_ADAPTER_BASE is none. */
#define CTS_ADAPTER_BASE UINT32_MAX

struct cts_request_part {
    uint32_t adapter_idx;
    float    weight;
};

/* A request as the loop hands it over. The object comes from cts_request_new
 * and belongs to the engine from cts_engine_admit until its last event was
 * popped; then to the loop again, which frees it. Nothing is allocated.
 *
 * Tokens are sampled as sample.h says; the random number of a token comes from
 * (seed, its position), so a request gives the same tokens in any batch. */
struct cts_engine_request {
    uint64_t                tag; /* the caller's, returned in events */
    uint32_t                idx; /* set by cts_request_new */
    uint32_t                n_prompt;
    int32_t                *prompt; /* [context_max], memory of the pool */
    uint32_t                n_parts;
    struct cts_request_part parts[CTS_PARTS_PER_REQUEST_MAX];
    uint32_t                client;             /* for the fair queue: small integer */
    uint64_t                deadline_ns;        /* 0: none */
    uint32_t                max_tokens;         /* >= 1 */
    float                   temperature, top_p; /* temperature 0: greedy; 0 < top_p <= 1, 1: off */
    uint32_t                top_k;              /* 0: off */
    uint64_t                seed;
    int                     n_logprobs; /* -1: none, 0: chosen token, n <= CTS_TOP_LOGPROBS_MAX */
    int                     want_text;
    uint32_t                n_stop, n_stop_tokens;
    uint8_t                 stop_bytes[CTS_STOP_STRINGS_MAX];
    char                    stop[CTS_STOP_STRINGS_MAX][CTS_STOP_STRING_BYTES_MAX];
    int32_t                 stop_tokens[CTS_REQ_STOP_TOKENS_MAX];
};

enum cts_engine_event_type { CTS_EV_TOKEN = 1, CTS_EV_TEXT, CTS_EV_DONE, CTS_EV_ERROR, CTS_EV_ADAPTER };

/* Why a request ended well: the values of shm/layout.h's enum cts_finish. */
enum cts_engine_finish {
    CTS_ENGINE_STOP = 1,        /* a stop token of the base or of the request, which is the last TOKEN */
    CTS_ENGINE_LENGTH = 2,      /* max_tokens */
    CTS_ENGINE_STOP_STRING = 3, /* the text ends before it */
    CTS_ENGINE_CANCELLED = 4,
};

/* One fixed record of from_engine. TOKEN: one token, with the text that it
 * completes (whole characters; held back while it may begin a stop string).
 * TEXT: more text without a token (a piece longer than one record, or what was
 * held back, before DONE). DONE and ERROR end the request. ADAPTER answers
 * cts_engine_load or cts_engine_unload. ERROR's codes: -ETIMEDOUT (deadline),
 * CTS_ENOTFOUND (an exact adapter is not loaded), CTS_EGPU, CTS_EGPU_LOST. */
struct cts_engine_event {
    enum cts_engine_event_type type;
    uint32_t                   req_idx; /* of the request, or adapter_idx of an ADAPTER */
    uint64_t                   tag;
    int32_t                    code;   /* ERROR, ADAPTER: 0 or the code */
    uint32_t                   finish; /* DONE: enum cts_engine_finish */
    uint32_t                   index;  /* TOKEN: in the stream, from 0 */
    int32_t                    token;
    float                      logprob; /* of the model, before temperature, top-k and top-p; 0 unless asked for */
    uint32_t                   n_prompt, n_tokens; /* DONE */
    uint32_t                   n_top;
    struct {
        int32_t id;
        float   logprob;
    } top[CTS_TOP_LOGPROBS_MAX];
    uint32_t text_bytes;
    char     text[CTS_EVENT_TEXT_BYTES];
};

/* Counters, written by the engine thread, read by anyone (relaxed). */
struct cts_engine_stats {
    uint64_t n_steps, n_rows, n_tokens, n_prompt_tokens, n_admitted, n_done, n_errors, n_cancelled;
    uint64_t n_parked;                 /* times a row was left out of a step since from_engine was full */
    uint64_t step_ns_sum, step_ns_max; /* of turns that made a step */
    uint32_t n_live, n_waiting, n_pages_free, n_pages;
};

struct cts_engine;

/* Load everything (base, collection, pools) on the caller's thread, then start
 * the engine thread. On failure nothing is left. Blocks for seconds. */
int cts_engine_open(struct cts_engine **out, const struct cts_engine_opts *o, struct cts_err *err);

/* Stop the thread; live requests end without events. */
void cts_engine_close(struct cts_engine *e);

/* Read-only after open, any thread. */
const struct cts_model_config  *cts_engine_model(const struct cts_engine *e);
const struct cts_tokenizer     *cts_engine_tokenizer(const struct cts_engine *e);
const struct cts_chat_template *cts_engine_chat(const struct cts_engine *e);
const uint8_t                  *cts_engine_base_digest(const struct cts_engine *e);
const char                     *cts_engine_describe(const struct cts_engine *e);
uint32_t                        cts_engine_context(const struct cts_engine *e); /* tokens */

/* NULL: none. Its adapter i has adapter_idx i. */
struct cts_collection;
const struct cts_collection *cts_engine_collection(const struct cts_engine *e);

void cts_engine_stats(const struct cts_engine *e, struct cts_engine_stats *out);

/* Sum of the memory that open would take, by line, for ctsd -T. No device is
 * opened; the collection is read. fn is called once per line. Errors as open. Blocks. */
typedef void (*cts_plan_fn)(void *arg, const char *what, uint64_t bytes);
int cts_engine_plan(const struct cts_engine_opts *o, cts_plan_fn fn, void *arg, struct cts_err *err);

/* ---- loop thread only, from here on ---- */

/* A request object from the pool: greedy, top_p 1, no logprobs, all else 0. NULL
 * when all n_requests_max are in use: the client gets `busy`. */
struct cts_engine_request *cts_request_new(struct cts_engine *e);
void                       cts_request_free(struct cts_engine *e, struct cts_engine_request *r);
struct cts_engine_request *cts_request_at(struct cts_engine *e, uint32_t idx);

/* Queue a filled request. CTS_ETOOLONG when n_prompt + max_tokens pass the
 * context or the whole KV cache, with both numbers in err; CTS_EARG names the
 * field; CTS_EBUSY when the order queue is full. On failure the caller still owns r. */
int cts_engine_admit(struct cts_engine *e, struct cts_engine_request *r, struct cts_err *err);

/* End a request soon: its last event is DONE with finish cancelled, unless it
 * ended by itself just before. CTS_EBUSY: try again next turn. */
int cts_engine_cancel(struct cts_engine *e, const struct cts_engine_request *r);

/* Take r out of the batch while its client's output is full, and back. Its KV
 * pages stay. */
int cts_engine_park(struct cts_engine *e, const struct cts_engine_request *r, int is_parked);

/* Put an exact adapter on the device under a free adapter_idx, which
 * cts_engine_exact_idx set aside (cts_engine_exact_put_back when no load follows).
 * p belongs to the engine until the ADAPTER event with this tag; then the caller
 * frees it. A load that failed (CTS_ESHAPE: a rank past rank_max, a module that
 * the base does not have) and an unload that went well set the index free.
 * Unload: the caller made sure that no live request names the adapter, else the
 * event's code is CTS_EBUSY and the adapter stays. Both return CTS_EBUSY when the
 * order queue is full, CTS_EARG for an index that is not in the state it must be. */
int  cts_engine_exact_idx(struct cts_engine *e, uint32_t *adapter_idx); /* CTS_EBUSY: n_exact_max are loaded */
void cts_engine_exact_put_back(struct cts_engine *e, uint32_t adapter_idx);
int  cts_engine_load(struct cts_engine *e, uint32_t adapter_idx, const struct cts_peft *p, uint64_t tag);
int  cts_engine_unload(struct cts_engine *e, uint32_t adapter_idx, uint64_t tag);

/* The next event: 1, or 0 when there is none. */
int cts_engine_next(struct cts_engine *e, struct cts_engine_event *ev);

/* Ring the engine's doorbell: once per turn of the loop, after all orders. */
void cts_engine_kick(struct cts_engine *e);

/* Tests: called on the engine thread with the logits [vocab] of every position
 * of every request, before sampling. Set before the first admit. A step then has
 * at most n_logits_max rows. */
typedef void (*cts_logits_tap_fn)(void *arg, uint64_t tag, uint32_t pos, const float *logits);
void cts_engine_tap(struct cts_engine *e, cts_logits_tap_fn fn, void *arg);

#endif
