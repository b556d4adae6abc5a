#ifndef CTS_DAEMON_COMPRESS_DELTA_H
#define CTS_DAEMON_COMPRESS_DELTA_H

/* What one adapter adds to one module, as its factors: dW = scale B A. dW
 * itself is never formed. Sums, Gram matrices and norms are in float64. */

#include "common/err.h"

#include <stdint.h>

struct cts_delta {
    uint32_t     n_out, n_in, rank;
    double       scale; /* any sign */
    const float *b;     /* [n_out, rank] */
    const float *a;     /* [rank, n_in] */
};

/* Frobenius norm of dW. Also right where B and A are large and their product
 * is small. 0 or -ENOMEM. Any thread. */
int cts_delta_norm(const struct cts_delta *d, double *norm);

/* |dW - c P Q^T|^2 for a pair of k columns each: pt [k, n_out] is P transposed,
 * qt [k, n_in] Q transposed. total is |dW|^2. From the expanded square, and
 * where that would be lost in rounding (below 1e-6 total) from the factors of
 * the residual. 0 or -ENOMEM. Any thread. */
struct cts_pair {
    uint32_t      k;
    double        c;
    const double *pt, *qt;
};
int cts_delta_lost(const struct cts_delta *d, const struct cts_pair *p, double total, double *lost);

/* Below this share of the whole a difference of sums is not trusted. */
#define CTS_SHARE_TRUSTED 1e-6

#endif
