#ifndef CTS_DAEMON_ENGINE_STATE_H
#define CTS_DAEMON_ENGINE_STATE_H

/* What the engine is made of, by the thread that owns it. Private to daemon/engine. */

#include "common/spsc.h"
#include "common/wait.h"
#include "daemon/engine/adapter_tables.h"
#include "daemon/engine/engine.h"
#include "daemon/engine/kv.h"
#include "daemon/engine/request.h"
#include "daemon/engine/sample.h"
#include "daemon/engine/schedule.h"
#include "daemon/model/forward.h"
#include "daemon/model/weights.h"
#include "daemon/store/collection.h"

#include <pthread.h>
#include <stdatomic.h>

enum cts_order_type {
    CTS_ORDER_ADMIT = 1,
    CTS_ORDER_CANCEL,
    CTS_ORDER_PARK,
    CTS_ORDER_UNPARK,
    CTS_ORDER_LOAD,
    CTS_ORDER_UNLOAD,
    CTS_ORDER_TAP,
};

/* One record of to_engine. */
struct cts_order {
    enum cts_order_type    type;
    uint32_t               idx; /* of a request or an adapter */
    uint64_t               tag;
    const struct cts_peft *peft;
    cts_logits_tap_fn      tap;
    void                  *tap_arg;
};

/* Of a place of the exact lane, as the loop thread sees it. */
enum cts_exact_state { CTS_EXACT_FREE, CTS_EXACT_ASIDE, CTS_EXACT_LOADING, CTS_EXACT_LOADED, CTS_EXACT_UNLOADING };

#define CTS_STATS_WORDS (sizeof(struct cts_engine_stats) / sizeof(uint64_t))
_Static_assert(sizeof(struct cts_engine_stats) % sizeof(uint64_t) == 0, "stats are copied word by word");

struct cts_engine {
    /* Read-only after open. */
    struct cts_engine_opts   o;
    struct cts_model_config  model;
    struct cts_tokenizer    *tokenizer;
    struct cts_chat_template chat;
    struct cts_collection    collection;
    int                      has_collection;
    struct ctsk_dev         *dev;
    struct ctsk_stream      *stream;
    struct cts_weights       weights;
    uint32_t                 context, n_adapters, n_pages_per_seq_max;
    uint32_t                 events_per_token_max; /* records that one sampled token may need, DONE included */

    /* Between the threads. */
    struct cts_spsc  orders, events;
    struct cts_bell  bell;
    _Atomic int      is_stopping;
    _Atomic int      is_starved; /* the engine waits for room in events */
    _Atomic uint64_t stats_words[CTS_STATS_WORDS];
    pthread_t        thread;
    int              has_thread;

    /* Half each: see request.h. */
    struct cts_requests requests;

    /* Loop thread. */
    uint8_t *exact_state; /* [n_exact_max], enum cts_exact_state */

    /* Engine thread. */
    struct cts_forward       *forward;
    struct cts_adapter_tables adapters;
    struct cts_kv             kv;
    struct cts_schedule       schedule;
    struct cts_sampler        sampler;
    struct cts_step_plan      plan;
    uint32_t                 *ending; /* [n_requests_max] runs whose last events wait for room, oldest first */
    uint32_t                  n_ending;
    cts_logits_tap_fn         tap;
    void                     *tap_arg;
    uint32_t                  room;                /* records that events takes without looking again */
    uint32_t                  n_pushed;            /* events of this turn */
    uint64_t                  now_ns, deadline_ns; /* the earliest of all live requests */
    int                       is_lost;             /* the device is gone: whoever comes is refused */
    struct cts_engine_stats   stats;
};

/* The engine thread's function; arg is the engine. (turn.c) */
void *cts_engine_run(void *arg);

/* Take a run out of the batch or the queue and give back all that it holds; its
 * last events follow as soon as there is room. code 0: DONE with finish, else
 * ERROR. (turn.c) */
void cts_engine_end_run(struct cts_engine *e, uint32_t idx, int code, uint32_t finish);

/* Make one step of the rows that plan chose, sample, and push tokens. (step.c) */
void cts_engine_step(struct cts_engine *e);

/* Push one event; the caller made sure of room. (publish.c) */
void cts_engine_push(struct cts_engine *e, const struct cts_engine_event *ev);

/* Push a sampled token with the text that it completes. (publish.c) */
void cts_engine_push_token(struct cts_engine *e, uint32_t idx, const struct cts_sample *s);

/* Push the last events of ending runs while there is room. Returns how many are
 * still waiting. (publish.c) */
uint32_t cts_engine_push_endings(struct cts_engine *e);

#endif
