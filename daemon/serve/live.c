#include "daemon/serve/live.h"

#include "common/assert.h"

#include <errno.h>
#include <stdlib.h>

#define NO_IDX            UINT32_MAX
#define HELD_PER_REQUEST  4u /* events that may be on their way when a request is parked, about */
#define HELD_MIN          256u
#define RETRY_BUSY_MS     100u
#define RETRY_DRAINING_MS 1000u

/* An event that found no room, in its request's list. */
struct cts_held {
    struct cts_engine_event ev;
    uint32_t                next;
};

int cts_lives_open(struct cts_lives *t, const struct cts_lives_opts *o, struct cts_err *err)
{
    uint32_t n_held = HELD_PER_REQUEST * o->n_requests_max;

    if (n_held < HELD_MIN) n_held = HELD_MIN;
    *t = (struct cts_lives){ .o = *o, .held_free = NO_IDX };
    t->at = calloc(o->n_requests_max, sizeof(*t->at));
    t->held = calloc(n_held, sizeof(*t->held));
    if (t->at == NULL || t->held == NULL) {
        cts_lives_close(t);
        return cts_err_set(err, -ENOMEM, "table of %u live requests", o->n_requests_max);
    }
    for (uint32_t i = n_held; i > 0; i--) {
        t->held[i - 1].next = t->held_free;
        t->held_free = i - 1;
    }
    return 0;
}

void cts_lives_close(struct cts_lives *t)
{
    free(t->held);
    free(t->at);
    *t = (struct cts_lives){ .n_live = 0 };
}

/* ---- orders to the engine ---- */

/* Something is to be told or no longer to be told: keep the count right. */
static void set_wish(struct cts_lives *t, uint8_t *wish, int v)
{
    if (*wish == v) return;
    *wish = (uint8_t)v;
    t->n_orders += v ? 1u : UINT32_MAX;
}

/* Tell the engine what l wants; what does not fit into its queue stays a wish. */
static void give_orders(struct cts_lives *t, struct cts_live *l)
{
    struct cts_engine *e = t->o.engine;

    if (l->wants_cancel && cts_engine_cancel(e, l->req) == 0) {
        set_wish(t, &l->wants_cancel, 0);
        t->has_orders = 1;
    }
    if (l->wants_park && cts_engine_park(e, l->req, l->is_parked) == 0) {
        set_wish(t, &l->wants_park, 0);
        t->has_orders = 1;
    }
}

/* A wish that the engine was not told yet is taken back by its opposite. */
static void set_parked(struct cts_lives *t, struct cts_live *l, int is_parked)
{
    if (l->is_parked == is_parked) return;
    l->is_parked = (uint8_t)is_parked;
    l->sink->n_parked += is_parked ? 1u : UINT32_MAX;
    set_wish(t, &l->wants_park, !l->wants_park);
    give_orders(t, l);
}

void cts_lives_flush(struct cts_lives *t)
{
    for (uint32_t i = 0; t->n_orders > 0 && i < t->o.n_requests_max; i++)
        if (t->at[i].wants_cancel || t->at[i].wants_park) give_orders(t, &t->at[i]);
    if (t->has_orders) cts_engine_kick(t->o.engine);
    t->has_orders = 0;
}

/* ---- beginning and end ---- */

static void link_live(struct cts_sink *s, struct cts_live *l)
{
    l->next = s->first;
    if (s->first != NULL) s->first->prev = l;
    s->first = l;
    s->n_live++;
}

/* Forget what is held for l; it is not stalled any more. */
static void drop_held(struct cts_lives *t, struct cts_live *l)
{
    if (l->n_held == 0) return;
    t->held[l->held_last].next = t->held_free;
    t->held_free = l->held_first;
    l->n_held = 0;
    l->sink->n_stalled--;
    t->n_stalled--;
}

/* l has nobody to hand events to from here on. */
static void unlink_live(struct cts_lives *t, struct cts_live *l)
{
    struct cts_sink *s = l->sink;

    drop_held(t, l);
    if (l->is_parked) s->n_parked--;
    if (l->prev != NULL) l->prev->next = l->next;
    else s->first = l->next;
    if (l->next != NULL) l->next->prev = l->prev;
    s->n_live--;
    l->sink = NULL;
    l->next = l->prev = NULL;
}

/* The engine is done with the request. */
static void free_live(struct cts_lives *t, struct cts_live *l)
{
    if (l->sink != NULL) unlink_live(t, l);
    set_wish(t, &l->wants_cancel, 0);
    set_wish(t, &l->wants_park, 0);
    if (l->adapter != 0) cts_adapters_release(t->o.adapters, l->adapter);
    cts_request_free(t->o.engine, l->req);
    l->req = NULL;
    t->n_live--;
}

/* The last event of a request reached its sink before the engine ended it. */
static void end_early(struct cts_lives *t, struct cts_live *l, int code)
{
    struct cts_engine_event ev = { .type = CTS_EV_ERROR, .code = code };
    struct cts_sink        *s = l->sink;
    int                     rc;

    rc = s->ops->put(s, l, &ev);
    CTS_ASSERT(rc == 0); /* a last event always fits */
    unlink_live(t, l);
    set_wish(t, &l->wants_cancel, 1);
    give_orders(t, l);
}

static struct cts_live *find_live(const struct cts_sink *s, uint64_t req_id)
{
    struct cts_live *l = s->first;

    while (l != NULL && l->req_id != req_id) l = l->next;
    return l;
}

static int check_may_submit(const struct cts_lives *t, const struct cts_sink *s, uint64_t req_id,
                            uint32_t *retry_ms, struct cts_err *err)
{
    if (t->is_draining) {
        *retry_ms = RETRY_DRAINING_MS;
        return cts_err_set(err, CTS_EBUSY, "the daemon is draining and takes no new requests");
    }
    if (s->n_live >= t->o.live_per_client) {
        *retry_ms = RETRY_BUSY_MS;
        return cts_err_set(err, CTS_EBUSY,
                           "%u requests of this client are live, the most allowed (limits.live_per_client)",
                           s->n_live);
    }
    if (find_live(s, req_id) != NULL)
        return cts_err_set(err, CTS_EARG, "request id %llu is live already", (unsigned long long)req_id);
    return 0;
}

/* Into the engine; r is still the caller's on failure. */
static int admit(struct cts_lives *t, struct cts_sink *s, const struct cts_submission *sub,
                 struct cts_engine_request *r, const char **param, struct cts_err *err)
{
    int rc = cts_gen_fill(t->o.gen, sub->msg, sub->now_ns, sub->deadline_ns, r, param, err);

    if (rc < 0) return rc;
    r->tag = ++t->tag;
    r->client = s->client;
    if (sub->adapter != NULL) {
        r->n_parts = 1;
        r->parts[0] = (struct cts_request_part){ sub->adapter->adapter_idx, 1 };
    }
    return cts_engine_admit(t->o.engine, r, err);
}

int cts_live_submit(struct cts_lives *t, struct cts_sink *s, const struct cts_submission *sub,
                    struct cts_live **out, const char **param, uint32_t *retry_ms, struct cts_err *err)
{
    struct cts_engine_request *r = NULL;
    struct cts_live           *l;
    int                        rc;

    *param = NULL;
    *retry_ms = 0;
    rc = check_may_submit(t, s, sub->req_id, retry_ms, err);
    if (rc == 0 && (r = cts_request_new(t->o.engine)) == NULL)
        rc = cts_err_set(err, CTS_EBUSY, "all %u requests of the daemon are live (engine.requests)",
                         t->o.n_requests_max);
    if (rc == 0) rc = admit(t, s, sub, r, param, err);
    if (rc < 0) {
        if (rc == CTS_EBUSY && *retry_ms == 0) *retry_ms = RETRY_BUSY_MS;
        cts_request_free(t->o.engine, r);
        t->stats.n_refused++;
        return rc;
    }
    l = &t->at[r->idx];
    CTS_ASSERT(l->req == NULL);
    *l = (struct cts_live){ .sink = s, .req = r, .req_id = sub->req_id, .tag = r->tag };
    if (sub->adapter != NULL) {
        l->adapter = sub->adapter->number;
        cts_adapters_hold(t->o.adapters, sub->adapter);
    }
    link_live(s, l);
    t->n_live++;
    t->stats.n_submitted++;
    t->has_orders = 1;
    *out = l;
    return 0;
}

const char *cts_live_error_text(int code)
{
    switch (code) {
    case -ETIMEDOUT:
        return "the request's deadline has passed";
    case CTS_ESLOW:
        return "the client did not take its output in time (limits.client_stall_s)";
    case CTS_ENOTFOUND:
        return "the adapter is not loaded any more";
    case CTS_EGPU_LOST:
        return "the device is lost, the daemon has to be restarted";
    default:
        return cts_strerror(code);
    }
}

int cts_live_cancel(struct cts_lives *t, struct cts_sink *s, uint64_t req_id)
{
    struct cts_live *l = find_live(s, req_id);

    if (l == NULL) return CTS_ENOTFOUND;
    set_wish(t, &l->wants_cancel, 1);
    give_orders(t, l);
    return 0;
}

void cts_live_detach(struct cts_lives *t, struct cts_sink *s)
{
    while (s->first != NULL) {
        struct cts_live *l = s->first;

        unlink_live(t, l);
        set_wish(t, &l->wants_cancel, 1);
        give_orders(t, l);
    }
}

/* ---- events ---- */

static int is_last(const struct cts_engine_event *ev)
{
    return ev->type == CTS_EV_DONE || ev->type == CTS_EV_ERROR;
}

/* Hand one event over; -EAGAIN leaves everything as it was. l is free after its last. */
static int deliver(struct cts_lives *t, struct cts_live *l, const struct cts_engine_event *ev)
{
    int rc = l->sink->ops->put(l->sink, l, ev);

    if (rc < 0) return rc;
    if (ev->type == CTS_EV_TOKEN) l->n_tokens++;
    if (is_last(ev)) free_live(t, l);
    return 0;
}

/* Keep an event until there is room. When the pool is empty, the request ends:
 * the daemon's memory is bounded, whatever its clients do. */
static void hold(struct cts_lives *t, struct cts_live *l, const struct cts_engine_event *ev, uint64_t now_ns)
{
    uint32_t idx = t->held_free;

    if (idx == NO_IDX) {
        t->stats.n_slow++;
        end_early(t, l, CTS_ESLOW);
        if (is_last(ev)) free_live(t, l);
        return;
    }
    t->held_free = t->held[idx].next;
    t->held[idx] = (struct cts_held){ *ev, NO_IDX };
    if (l->n_held++ == 0) {
        l->held_first = idx;
        l->stalled_ns = now_ns;
        l->sink->n_stalled++;
        l->sink->n_stalls++;
        t->n_stalled++;
        t->stats.n_stalls++;
        set_parked(t, l, 1);
    } else {
        t->held[l->held_last].next = idx;
    }
    l->held_last = idx;
}

static void dispatch(struct cts_lives *t, const struct cts_engine_event *ev, uint64_t now_ns)
{
    struct cts_live *l;

    if (ev->type == CTS_EV_ADAPTER) {
        cts_adapters_on_event(t->o.adapters, ev);
        return;
    }
    CTS_ASSERT(ev->req_idx < t->o.n_requests_max);
    l = &t->at[ev->req_idx];
    CTS_ASSERT(l->req != NULL);
    CTS_ASSERT(l->tag == ev->tag);
    if (ev->type == CTS_EV_ERROR && ev->code == CTS_EGPU_LOST) t->is_device_lost = 1;
    if (l->sink == NULL) {
        if (is_last(ev)) free_live(t, l);
        return;
    }
    if (l->n_held > 0 || deliver(t, l, ev) == -EAGAIN) hold(t, l, ev, now_ns);
}

uint32_t cts_lives_drain(struct cts_lives *t, uint64_t now_ns, uint32_t n_max)
{
    struct cts_engine_event ev;
    uint32_t                n = 0;

    while (n < n_max && cts_engine_next(t->o.engine, &ev)) {
        dispatch(t, &ev, now_ns);
        n++;
    }
    return n;
}

/* Put what is held for l, as far as it fits; 1 when nothing is held any more. */
static int put_held(struct cts_lives *t, struct cts_live *l, uint64_t now_ns)
{
    while (l->n_held > 0) {
        uint32_t         idx = l->held_first;
        struct cts_held *h = &t->held[idx];
        struct cts_sink *s = l->sink;
        int              ends = is_last(&h->ev);

        if (s->ops->put(s, l, &h->ev) < 0) return 0;
        if (h->ev.type == CTS_EV_TOKEN) l->n_tokens++;
        l->stalled_ns = now_ns;
        l->held_first = h->next;
        h->next = t->held_free;
        t->held_free = idx;
        if (--l->n_held == 0) {
            s->n_stalled--;
            t->n_stalled--;
        }
        if (ends) {
            free_live(t, l);
            return 1;
        }
    }
    return 1;
}

void cts_lives_resume(struct cts_lives *t, struct cts_sink *s, uint64_t now_ns)
{
    struct cts_live *l, *next;

    for (l = s->first; l != NULL && s->n_stalled > 0; l = next) {
        next = l->next;
        (void)put_held(t, l, now_ns);
    }
    if (s->n_stalled > 0 || !s->ops->has_room(s)) return;
    for (l = s->first; l != NULL && s->n_parked > 0; l = l->next) set_parked(t, l, 0);
}

void cts_lives_tick(struct cts_lives *t, uint64_t now_ns)
{
    for (uint32_t i = 0; t->n_stalled > 0 && i < t->o.n_requests_max; i++) {
        struct cts_live *l = &t->at[i];

        if (l->req == NULL || l->n_held == 0 || now_ns - l->stalled_ns < t->o.stall_ns) continue;
        t->stats.n_slow++;
        if (is_last(&t->held[l->held_last].ev)) {
            /* The engine has ended it already; only the client does not know. */
            end_early(t, l, CTS_ESLOW);
            free_live(t, l);
        } else {
            end_early(t, l, CTS_ESLOW);
        }
    }
}
