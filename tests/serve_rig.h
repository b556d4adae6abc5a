#ifndef CTS_TESTS_SERVE_RIG_H
#define CTS_TESTS_SERVE_RIG_H

/* The real engine on the demo's base, with what stands between it and the doors. */

#include "daemon/serve/adapters.h"
#include "daemon/serve/generate.h"
#include "daemon/serve/live.h"

struct serve_rig {
    uv_loop_t            loop;
    uv_async_t           events; /* keeps the loop waiting for the engine */
    struct cts_engine   *engine;
    struct cts_adapters *adapters;
    struct cts_gen       gen;
    struct cts_lives     lives;
};

#define RIG_REQUESTS   16u
#define RIG_PER_CLIENT 8u
#define RIG_STALL_NS   UINT64_C(5000000000)
#define RIG_EXACT      2u

void serve_rig_open(struct serve_rig *r);
void serve_rig_close(struct serve_rig *r);

/* Wait until the engine has published, then one turn: events to sinks, orders out. */
void serve_rig_turn(struct serve_rig *r, uint64_t now_ns);

/* Only the orders, e.g. before waiting for something else. */
void serve_rig_flush(struct serve_rig *r);

#endif
