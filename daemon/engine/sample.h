#ifndef CTS_DAEMON_ENGINE_SAMPLE_H
#define CTS_DAEMON_ENGINE_SAMPLE_H

/* From a row of logits to a token. Depends on the row, the options, the seed
 * and the position only: not on the batch, the time or what was sampled before.
 *
 *   p[i] = exp((l[i] - max) / temperature), after which top-k keeps the k
 *   largest and top-p the fewest largest whose share of what top-k kept is at
 *   least top_p (Hugging Face's order). Equal logits rank by token id, the lower
 *   first. temperature 0 takes the first of that ranking.
 *
 * Log-probabilities are the model's own, before temperature, top-k and top-p,
 * summed in float64. Engine thread only; allocates at init. */

#include "daemon/engine/engine.h"

#include <stdint.h>

struct cts_candidate {
    float   logit;
    int32_t id;
};

struct cts_sampler {
    uint32_t              n_vocab;
    struct cts_candidate *heap; /* [n_vocab] */
};

struct cts_sample_opts {
    float    temperature, top_p; /* temperature 0: greedy; top_p 1: off */
    uint32_t top_k;              /* 0: off */
    int      n_logprobs;         /* -1: none, 0: of the token, n: and of the n largest */
    uint64_t seed, pos;          /* pos: of the token in its sequence, the prompt included */
};

struct cts_sample {
    int32_t              token;
    float                logprob; /* 0 with n_logprobs -1 */
    uint32_t             n_top;
    struct cts_candidate top[CTS_TOP_LOGPROBS_MAX]; /* logit: the log-probability; descending */
};

int  cts_sampler_init(struct cts_sampler *s, uint32_t n_vocab); /* 0 or -ENOMEM */
void cts_sampler_deinit(struct cts_sampler *s);                 /* zeroed is fine */

/* 0, or CTS_EGPU: a logit is NaN or +inf, or all are -inf (a broken base or
 * adapter: fail the request). */
int cts_sample(struct cts_sampler *s, const float *logits, const struct cts_sample_opts *o, struct cts_sample *out);

/* Philox4x32-10 (Salmon et al., 2011): a block of random words from a counter
 * and a key, so that the number of (seed, position) is the same in any batch. */
void cts_philox(const uint32_t ctr[4], const uint32_t key[2], uint32_t out[4]);

/* The number in [0, 1) of (seed, position): 53 bits. */
double cts_philox_uniform(uint64_t seed, uint64_t pos);

#endif
