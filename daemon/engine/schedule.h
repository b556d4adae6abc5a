#ifndef CTS_DAEMON_ENGINE_SCHEDULE_H
#define CTS_DAEMON_ENGINE_SCHEDULE_H

/* Who waits, who is in the batch, and which rows the next step has. Waiting is
 * FIFO per client and round robin over clients; whose turn it is waits until its
 * pages are there, so nobody large is passed over for ever. Rows of one basis
 * stand together. Engine thread only; allocates at init. */

#include "daemon/engine/request.h"

#include <stdint.h>

/* Clients whose numbers are equal modulo this share a queue: a power of two,
 * larger than the number of connections that are usual. */
#define CTS_CLIENT_QUEUES 1024

struct cts_client_queue {
    uint32_t head, tail; /* runs, CTS_RUN_IDX_NONE: empty */
    uint32_t next, prev; /* in the ring of queues that are not empty */
};

struct cts_schedule {
    struct cts_run          *runs;   /* the pool's */
    struct cts_client_queue *queues; /* [CTS_CLIENT_QUEUES] */
    uint32_t                 turn;   /* the queue whose turn it is; CTS_RUN_IDX_NONE: nobody waits */
    uint32_t                 n_waiting;
    uint32_t                *ready; /* [n_requests] runs, by key, then index */
    uint32_t                 n_ready;
    uint32_t cursor[2]; /* places in ready at which the next step begins to hand out prompt rows and decode rows */
};

/* What the next step may have at most. */
struct cts_step_limits {
    uint32_t n_rows, n_seqs;
    uint32_t chunk;    /* prompt rows of one sequence */
    uint32_t n_tokens; /* sequences that get a token: rows of logits, and room for events */
};

struct cts_step_plan {
    uint32_t n_rows, n_seqs, n_tokens;
    uint32_t n_no_room; /* sequences left out only since n_tokens was reached */
};

int  cts_schedule_init(struct cts_schedule *s, struct cts_run *runs, uint32_t n_requests); /* 0 or -ENOMEM */
void cts_schedule_deinit(struct cts_schedule *s);                                          /* zeroed is fine */

/* Queue run idx for its client; take it out again; the run whose turn it is
 * (CTS_RUN_IDX_NONE: nobody waits). Taking the run out whose turn it was passes
 * the turn on. */
void     cts_schedule_wait(struct cts_schedule *s, uint32_t idx, uint32_t client);
void     cts_schedule_unwait(struct cts_schedule *s, uint32_t idx, uint32_t client);
uint32_t cts_schedule_whose_turn(const struct cts_schedule *s);

/* Put run idx into the batch, by its key; take it out. */
void cts_schedule_join(struct cts_schedule *s, uint32_t idx);
void cts_schedule_leave(struct cts_schedule *s, uint32_t idx);

/* Choose the next step's rows: n_step_rows of every ready run. One row for each
 * that is past its prompt, then prompt chunks in the rows that are left. Who was
 * left out is first next time. */
void cts_schedule_plan(struct cts_schedule *s, const struct cts_engine_request *reqs,
                       const struct cts_step_limits *limits, struct cts_step_plan *out);

#endif
