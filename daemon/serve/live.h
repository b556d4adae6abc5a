#ifndef CTS_DAEMON_SERVE_LIVE_H
#define CTS_DAEMON_SERVE_LIVE_H

/* Live requests, between the doors and the engine. A door is a sink: it submits,
 * and takes its requests' events where it has room. Where it has none, events
 * are held here, the request is parked in the engine and goes on when there is
 * room again; one that gets no room for too long ends with ESLOW. Each request
 * ends with exactly one DONE or ERROR at its sink, unless the sink went away.
 * All memory is taken at open. Loop thread only. */

#include "daemon/engine/engine.h"
#include "daemon/serve/adapters.h"
#include "daemon/serve/generate.h"

#include <stdint.h>

struct cts_live;
struct cts_sink;

struct cts_sink_ops {
    /* Take one event of a request: 0, or -EAGAIN when it does not fit now. DONE
     * and ERROR always fit. ERROR's sentence is cts_live_error_text of its code. */
    int (*put)(struct cts_sink *s, const struct cts_live *l, const struct cts_engine_event *ev);
    /* 1 when there is room enough to let a parked request run again. */
    int (*has_room)(struct cts_sink *s);
};

struct cts_sink {
    const struct cts_sink_ops *ops;
    uint32_t                   client;    /* for the engine's fair queue */
    uint32_t                   n_live;
    uint32_t                   n_stalled; /* of them with events held here */
    uint32_t                   n_parked;  /* of them out of the batch */
    uint64_t                   n_stalls;  /* so far */
    struct cts_live           *first;
};

struct cts_live {
    struct cts_sink           *sink;   /* NULL: nobody waits, events are dropped */
    struct cts_engine_request *req;    /* NULL: this entry is free */
    struct cts_live           *next, *prev; /* of the sink */
    uint64_t                   req_id; /* the client's */
    uint64_t                   tag;
    uint64_t                   stalled_ns; /* since when nothing was taken */
    uint32_t                   adapter;    /* number; 0: the base */
    uint32_t                   n_tokens;   /* put so far */
    uint32_t                   held_first, held_last, n_held;
    uint8_t                    is_parked;  /* as we want it */
    uint8_t                    wants_park, wants_cancel; /* the engine is yet to be told: is_parked, to cancel */
};

struct cts_lives_opts {
    struct cts_engine   *engine;
    struct cts_adapters *adapters;
    struct cts_gen      *gen;
    uint32_t             n_requests_max; /* the engine's */
    uint32_t             live_per_client;
    uint64_t             stall_ns;
};

struct cts_lives_stats {
    uint64_t n_submitted, n_refused, n_stalls, n_slow;
};

struct cts_lives {
    struct cts_lives_opts  o;
    struct cts_live       *at;   /* [n_requests_max], by the request's idx */
    struct cts_held       *held; /* [n_held_max] */
    uint32_t               held_free;
    uint32_t               n_live, n_stalled, n_orders; /* n_orders: entries with something to tell the engine */
    uint64_t               tag;
    int                    has_orders; /* the engine's bell is to be rung at the end of the turn */
    int                    is_draining;
    int                    is_device_lost; /* the engine said so: nothing will work any more */
    struct cts_lives_stats stats;
};

int  cts_lives_open(struct cts_lives *t, const struct cts_lives_opts *o, struct cts_err *err); /* 0 or -ENOMEM */
void cts_lives_close(struct cts_lives *t); /* zeroed is fine */

/* Submit for a sink. a is NULL for the base. 0 with *out; else nothing is live,
 * and *param (may come back NULL), *retry_ms and err say why. */
struct cts_submission {
    uint64_t                  req_id, now_ns, deadline_ns;
    const struct cts_gen_msg *msg;
    struct cts_adapter       *adapter;
};
int cts_live_submit(struct cts_lives *t, struct cts_sink *s, const struct cts_submission *sub, struct cts_live **out,
                    const char **param, uint32_t *retry_ms, struct cts_err *err);

/* Words for an ERROR's code, static storage: what it means to whoever asked. */
const char *cts_live_error_text(int code);

/* Ask for the end of a request; CTS_ENOTFOUND when the sink has none of that id. */
int cts_live_cancel(struct cts_lives *t, struct cts_sink *s, uint64_t req_id);

/* The sink goes away: cancel everything, hand it nothing more. */
void cts_live_detach(struct cts_lives *t, struct cts_sink *s);

/* Take at most n_max events of the engine to their sinks: how many there were. */
uint32_t cts_lives_drain(struct cts_lives *t, uint64_t now_ns, uint32_t n_max);

/* The sink may have room again: put what is held, let its requests go on. */
void cts_lives_resume(struct cts_lives *t, struct cts_sink *s, uint64_t now_ns);

/* Tell the engine what its queue had no room for, and ring it when anything was
 * queued since the last call: at the end of each turn. */
void cts_lives_flush(struct cts_lives *t);

/* End what has been stalled for too long: now and then. */
void cts_lives_tick(struct cts_lives *t, uint64_t now_ns);

#endif
