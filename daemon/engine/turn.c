/* The engine thread: one turn after the other while there is work, asleep on the
 * bell when there is none. A turn allocates nothing, logs nothing, takes no lock,
 * reads the clock once and makes one system call at most: on_events. */

#include "daemon/engine/state.h"

#include "common/assert.h"
#include "common/clock.h"

#include <errno.h>

#define ORDERS_PER_TURN 256u /* of one turn, so that no flood of orders delays the step */
#define LOADS_PER_TURN  1u   /* each copies megabytes to the device */

static void hold_adapters(struct cts_engine *e, const struct cts_engine_request *req)
{
    for (uint32_t i = 0; i < req->n_parts; i++)
        if (req->parts[i].adapter_idx != CTS_ADAPTER_BASE) e->adapters.views[req->parts[i].adapter_idx].n_users++;
}

static void drop_adapters(struct cts_engine *e, const struct cts_engine_request *req)
{
    for (uint32_t i = 0; i < req->n_parts; i++) {
        if (req->parts[i].adapter_idx == CTS_ADAPTER_BASE) continue;
        CTS_ASSERT(e->adapters.views[req->parts[i].adapter_idx].n_users > 0);
        e->adapters.views[req->parts[i].adapter_idx].n_users--;
    }
}

void cts_engine_end_run(struct cts_engine *e, uint32_t idx, int code, uint32_t finish)
{
    struct cts_run *run = &e->requests.runs[idx];

    CTS_ASSERT(run->state != CTS_RUN_NONE && run->state != CTS_RUN_ENDING);
    if (run->state == CTS_RUN_WAITING) cts_schedule_unwait(&e->schedule, idx, e->requests.at[idx].client);
    if (run->state == CTS_RUN_READY) cts_schedule_leave(&e->schedule, idx);
    cts_kv_give(&e->kv, run->n_pages, run->pages);
    run->n_pages = 0;
    drop_adapters(e, &e->requests.at[idx]);
    if (code == 0 && e->requests.at[idx].want_text) cts_text_end(&run->text);

    run->state = CTS_RUN_ENDING;
    run->end_code = code;
    run->end_finish = finish;
    e->ending[e->n_ending++] = idx;
    e->stats.n_live--;
    if (code != 0) e->stats.n_errors++;
    else if (finish == CTS_ENGINE_CANCELLED) e->stats.n_cancelled++;
    else e->stats.n_done++;
}

/* The tables that every row of the request names, and the key by which rows that
 * share a basis come to stand together. The base alone comes first. */
static int resolve_parts(struct cts_engine *e, const struct cts_engine_request *req, struct cts_run *run)
{
    run->n_refs = run->linears = 0;
    run->key = 0;
    for (uint32_t i = 0; i < req->n_parts; i++) {
        const struct cts_request_part *p = &req->parts[i];
        const struct cts_adapter_view *v;

        if (p->adapter_idx == CTS_ADAPTER_BASE) continue;
        v = &e->adapters.views[p->adapter_idx];
        if (!v->is_loaded) return CTS_ENOTFOUND;
        if (run->n_refs == 0) run->key = ((uint64_t)v->cluster << 32 | p->adapter_idx) + 1;
        run->linears |= v->linears;
        for (uint32_t k = 0; k < v->n_tables; k++)
            run->refs[run->n_refs++] =
                (struct cts_part_ref){ cts_adapter_tables_at(&e->adapters, v->first_table + k), p->weight };
    }
    return 0;
}

static void take_admit(struct cts_engine *e, uint32_t idx)
{
    const struct cts_engine_request *req = &e->requests.at[idx];
    struct cts_run                  *run = &e->requests.runs[idx];
    int                              rc;

    CTS_ASSERT(run->state == CTS_RUN_NONE);
    run->is_parked = 0;
    run->n_fed = run->n_out = run->n_step_rows = run->n_pages = 0;
    run->deadline_ns = req->deadline_ns != 0 ? req->deadline_ns : UINT64_MAX;
    cts_text_start(&run->text, run->text_buf, e->requests.text_cap);
    hold_adapters(e, req);
    run->state = CTS_RUN_WAITING;
    cts_schedule_wait(&e->schedule, idx, req->client);
    e->stats.n_live++;
    e->stats.n_admitted++;
    if (run->deadline_ns < e->deadline_ns) e->deadline_ns = run->deadline_ns;

    if ((rc = resolve_parts(e, req, run)) != 0) cts_engine_end_run(e, idx, rc, 0);
}

static void take_park(struct cts_engine *e, uint32_t idx, int is_parked)
{
    struct cts_run *run = &e->requests.runs[idx];

    run->is_parked = is_parked;
    if (is_parked && run->state == CTS_RUN_READY) {
        cts_schedule_leave(&e->schedule, idx);
        run->state = CTS_RUN_PARKED;
    } else if (!is_parked && run->state == CTS_RUN_PARKED) {
        cts_schedule_join(&e->schedule, idx);
        run->state = CTS_RUN_READY;
    }
}

static void take_load(struct cts_engine *e, const struct cts_order *o)
{
    struct cts_engine_event ev = { .type = CTS_EV_ADAPTER, .req_idx = o->idx, .tag = o->tag };

    if (e->adapters.views[o->idx].n_users > 0) ev.code = CTS_EBUSY;
    else if (o->type == CTS_ORDER_LOAD) ev.code = cts_adapter_tables_load(&e->adapters, o->idx, o->peft);
    else ev.code = cts_adapter_tables_unload(&e->adapters, o->idx);
    if (ev.code == CTS_EGPU_LOST) e->is_lost = 1;
    cts_engine_push(e, &ev);
}

static int is_live(const struct cts_run *run)
{
    return run->state == CTS_RUN_WAITING || run->state == CTS_RUN_READY || run->state == CTS_RUN_PARKED;
}

/* Orders in the order in which they came. Each may need one event, so none is
 * taken without room. A cancel or park may come for a request that has just
 * ended: it is no longer live and its object not yet given out again, since that
 * admit would stand behind this order. Returns how many were taken. */
static uint32_t take_orders(struct cts_engine *e)
{
    struct cts_order o;
    uint32_t         n = 0, n_loads = 0;

    while (n < ORDERS_PER_TURN && n_loads < LOADS_PER_TURN && e->room > 0 && cts_spsc_pop(&e->orders, &o)) {
        n++;
        switch (o.type) {
        case CTS_ORDER_ADMIT:
            take_admit(e, o.idx);
            break;
        case CTS_ORDER_CANCEL:
            if (is_live(&e->requests.runs[o.idx])) cts_engine_end_run(e, o.idx, 0, CTS_ENGINE_CANCELLED);
            break;
        case CTS_ORDER_PARK:
        case CTS_ORDER_UNPARK:
            if (is_live(&e->requests.runs[o.idx])) take_park(e, o.idx, o.type == CTS_ORDER_PARK);
            break;
        case CTS_ORDER_LOAD:
        case CTS_ORDER_UNLOAD:
            take_load(e, &o);
            n_loads++;
            break;
        case CTS_ORDER_TAP:
            e->tap = o.tap;
            e->tap_arg = o.tap_arg;
            break;
        }
    }
    return n;
}

/* The device is gone: so is every KV page. */
static void end_all_runs(struct cts_engine *e)
{
    for (uint32_t i = 0; i < e->requests.n; i++)
        if (is_live(&e->requests.runs[i])) cts_engine_end_run(e, i, CTS_EGPU_LOST, 0);
}

/* End what is past its deadline; looked at only when the earliest has come. */
static void end_late_runs(struct cts_engine *e)
{
    if (e->now_ns < e->deadline_ns) return;
    e->deadline_ns = UINT64_MAX;
    for (uint32_t i = 0; i < e->requests.n; i++) {
        struct cts_run *run = &e->requests.runs[i];

        if (!is_live(run)) continue;
        if (run->deadline_ns <= e->now_ns) cts_engine_end_run(e, i, -ETIMEDOUT, 0);
        else if (run->deadline_ns < e->deadline_ns) e->deadline_ns = run->deadline_ns;
    }
}

/* Into the batch, one after the other, while the next in turn finds its pages.
 * Whose turn it is waits for them: nobody behind it goes first. Returns how many. */
static uint32_t admit_waiting(struct cts_engine *e)
{
    uint32_t idx, n = 0;

    while (e->schedule.n_ready < e->o.n_seqs_max &&
           (idx = cts_schedule_whose_turn(&e->schedule)) != CTS_RUN_IDX_NONE) {
        const struct cts_engine_request *req = &e->requests.at[idx];
        struct cts_run                  *run = &e->requests.runs[idx];
        uint32_t                         n_pages = cts_kv_pages_for(&e->kv, req->n_prompt + req->max_tokens);

        if (cts_kv_take(&e->kv, n_pages, run->pages) != 0) break;
        run->n_pages = n_pages;
        cts_schedule_unwait(&e->schedule, idx, req->client);
        run->state = run->is_parked ? CTS_RUN_PARKED : CTS_RUN_READY;
        if (!run->is_parked) cts_schedule_join(&e->schedule, idx);
        n++;
    }
    return n;
}

static void plan_step(struct cts_engine *e)
{
    struct cts_step_limits limits = { .n_rows = e->o.n_rows_max,
                                      .n_seqs = e->o.n_seqs_max,
                                      .chunk = e->o.prefill_chunk_rows,
                                      .n_tokens = e->room / e->events_per_token_max };

    if (limits.n_tokens > e->o.n_logits_max) limits.n_tokens = e->o.n_logits_max;
    if (e->tap != NULL && limits.n_rows > e->o.n_logits_max) limits.n_rows = e->o.n_logits_max;
    cts_schedule_plan(&e->schedule, e->requests.at, &limits, &e->plan);
    e->stats.n_parked += e->plan.n_no_room;
}

static void publish_stats(struct cts_engine *e)
{
    uint64_t words[CTS_STATS_WORDS];

    e->stats.n_waiting = e->schedule.n_waiting;
    e->stats.n_pages_free = e->kv.n_free;
    __builtin_memcpy(words, &e->stats, sizeof(words));
    for (size_t i = 0; i < CTS_STATS_WORDS; i++)
        atomic_store_explicit(&e->stats_words[i], words[i], memory_order_relaxed);
}

static void count_step_time(struct cts_engine *e, uint64_t started_ns)
{
    uint64_t ns = e->now_ns - started_ns;

    e->stats.step_ns_sum += ns;
    if (ns > e->stats.step_ns_max) e->stats.step_ns_max = ns;
}

/* One turn. Returns whether anything was done. */
static int turn(struct cts_engine *e)
{
    uint64_t before_ns = e->now_ns;
    uint32_t n_done;

    e->now_ns = cts_clock_ns();
    if (e->plan.n_rows > 0) count_step_time(e, before_ns); /* the turn before made a step */
    e->room = cts_spsc_room(&e->events);
    e->n_pushed = 0;
    n_done = take_orders(e);
    end_late_runs(e);
    if (e->is_lost && e->stats.n_live > 0) end_all_runs(e);
    cts_engine_push_endings(e);
    n_done += admit_waiting(e);
    plan_step(e);
    if (e->plan.n_rows > 0) cts_engine_step(e);
    cts_engine_push_endings(e);
    publish_stats(e);
    if (e->n_pushed > 0) e->o.on_events(e->o.on_events_arg);
    return n_done + e->plan.n_rows + e->n_pushed > 0;
}

/* Whether room in events came while the engine looked elsewhere. Both sides read
 * and write is_starved in one operation, so one comes first: ours, then
 * cts_engine_next sees the flag after its pop and rings; or its, then we see the pop. */
static int has_new_room(struct cts_engine *e)
{
    (void)atomic_exchange_explicit(&e->is_starved, 1, memory_order_acq_rel);
    return cts_spsc_room(&e->events) != e->room;
}

/* Nothing can be done now. Where that is for want of room in events, whoever
 * takes one rings the bell. */
static void sleep_on_bell(struct cts_engine *e, uint32_t ticket)
{
    int      is_starved = e->n_ending > 0 || e->plan.n_no_room > 0 || e->room == 0;
    uint64_t timeout_ns = e->deadline_ns == UINT64_MAX ? UINT64_MAX : e->deadline_ns - e->now_ns;

    if (!is_starved || !has_new_room(e)) cts_bell_sleep(&e->bell, ticket, timeout_ns);
    atomic_store_explicit(&e->is_starved, 0, memory_order_relaxed); /* a ring too many does no harm */
}

void *cts_engine_run(void *arg)
{
    struct cts_engine *e = arg;

    while (!atomic_load(&e->is_stopping)) {
        uint32_t ticket = cts_bell_ticket(&e->bell); /* before the look for work */

        if (!turn(e)) sleep_on_bell(e, ticket);
    }
    return NULL;
}
