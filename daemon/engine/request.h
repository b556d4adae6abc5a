#ifndef CTS_DAEMON_ENGINE_REQUEST_H
#define CTS_DAEMON_ENGINE_REQUEST_H

/* The pool of requests, and what the engine knows of each while it runs. All
 * memory is taken at start. The loop thread owns the free list, the engine
 * thread the runs; a request itself changes hands with the records of the two
 * queues. */

#include "daemon/engine/engine.h"
#include "daemon/engine/text.h"

#include <stdint.h>

#define CTS_RUN_IDX_NONE UINT32_MAX

enum cts_run_state {
    CTS_RUN_NONE,    /* the loop's, or not yet taken from the queue of orders */
    CTS_RUN_WAITING, /* for pages */
    CTS_RUN_READY,   /* in the batch */
    CTS_RUN_PARKED,  /* keeps its pages, makes no rows */
    CTS_RUN_ENDING,  /* out of everything, its last events wait for room */
};

/* One entry of a row's list of parts, as it goes to the device. */
struct cts_part_ref {
    uint64_t factors;
    float    weight;
};

struct cts_run {
    enum cts_run_state   state;
    int                  is_parked;   /* what the loop last asked for */
    uint32_t             n_fed;       /* positions that the KV cache has */
    uint32_t             n_out;       /* tokens sampled */
    int32_t              last;        /* the newest of them: the next row's token */
    uint32_t             n_step_rows; /* in the step being made */
    uint32_t             n_pages;
    int32_t             *pages; /* [n_pages_per_seq_max] */
    uint32_t             n_refs;
    struct cts_part_ref *refs;        /* [n_refs_max] */
    uint32_t             linears;     /* bits of enum cts_linear that its parts change */
    uint64_t             key;         /* rows that share a basis, then an adapter, stand together */
    uint64_t             deadline_ns; /* UINT64_MAX: none */
    uint32_t             next, prev;  /* in a client's queue */
    struct cts_text      text;
    uint8_t             *text_buf; /* [text_cap] */
    int32_t              end_code; /* 0: DONE with end_finish, else ERROR */
    uint32_t             end_finish;
};

struct cts_requests_opts {
    uint32_t n, context, n_pages_per_seq_max, n_refs_max, text_cap;
};

struct cts_requests {
    uint32_t                   n, text_cap;
    struct cts_engine_request *at;      /* [n] */
    struct cts_run            *runs;    /* [n] */
    int32_t                   *prompts; /* [n, context] */
    int32_t                   *pages;   /* [n, n_pages_per_seq_max] */
    struct cts_part_ref       *refs;    /* [n, n_refs_max] */
    uint8_t                   *text;    /* [n, text_cap] */
    uint32_t                  *free;    /* loop thread: [n], the first n_free are free */
    uint32_t                   n_free;
};

int  cts_requests_init(struct cts_requests *p, const struct cts_requests_opts *o); /* 0 or -ENOMEM */
void cts_requests_deinit(struct cts_requests *p);                                  /* zeroed is fine */

/* Bytes that cts_requests_init takes. */
uint64_t cts_requests_bytes(const struct cts_requests_opts *o);

#endif
