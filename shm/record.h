#ifndef CTS_SHM_RECORD_H
#define CTS_SHM_RECORD_H

/* OUT records as bytes: building them in private memory and taking them apart
 * again with every length checked. No shared memory here: cts_out_put and
 * cts_outr_take move whole records. */

#include "shm/layout.h"

#include <stddef.h>
#include <stdint.h>

struct cts_top_pair {
    uint32_t id;
    float    logprob;
};
_Static_assert(sizeof(struct cts_top_pair) == 8, "shm ABI");

/* A record's parts. When decoded, the pointers lie in the record's bytes. */
struct cts_out_view {
    uint8_t  type, flags;
    uint64_t req_id;
    uint32_t first;                 /* TOKENS */
    uint32_t n_tokens;              /* TOKENS: in the record; DONE: generated in all */
    uint32_t n_prompt;              /* ACCEPTED, DONE */
    uint32_t status, retry_ms;      /* DONE: enum cts_finish; ERROR: negated code */
    const uint32_t            *ids; /* [n_tokens] */
    const float               *logprobs; /* [n_tokens], or NULL */
    uint32_t                   n_top;    /* per token */
    const struct cts_top_pair *top;      /* [n_tokens * n_top], or NULL */
    const char                *text;     /* text_len bytes, or NULL */
    uint32_t                   text_len;
};

/* Write v into buf [CTS_OUT_RECORD_MAX], 8-byte aligned: the record's length, a
 * multiple of 32. The flags of the parts that are there are set; LAST comes from
 * the type. What does not fit is our own bug (the caller bounds the parts). */
uint32_t cts_out_encode(const struct cts_out_view *v, void *buf);

/* Take the record in buf apart (as cts_outr_take left it, len checked there).
 * 0 or CTS_EPROTO. */
int cts_out_decode(const void *buf, struct cts_out_view *v);

#endif
