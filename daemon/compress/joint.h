#ifndef CTS_DAEMON_COMPRESS_JOINT_H
#define CTS_DAEMON_COMPRESS_JOINT_H

/* JD-Full of one module: the pair of orthonormal bases U, V that maximises
 * sum over adapters of |U^T dW_j V|^2, each dW_j scaled to norm 1. Everything
 * runs on the factors, in the coordinates of their own span where that is
 * smaller than the module. */

#include "common/err.h"
#include "daemon/compress/delta.h"

#include <stdint.h>

/* The factors of n adapters, each scaled to norm 1, one below the other:
 * dW_j = bt[rows of j]^T a[rows of j]. */
struct cts_stack {
    uint32_t  n, n_out, n_in;
    uint32_t  n_rows; /* sum of ranks */
    uint32_t *first;  /* [n + 1]; the rows of adapter j are first[j] .. first[j + 1] - 1 */
    double   *bt;     /* [n_rows, n_out] */
    double   *a;      /* [n_rows, n_in] */
};

/* Stack the n deltas, all of one shape; norm[j] > 0 is that of delta j. 0, -ENOMEM
 * (s is empty then). Any thread. */
int cts_stack_build(struct cts_stack *s, const struct cts_delta *d, const double *norm, uint32_t n);

/* Those adapters of all that pick[0 .. n - 1] names, copied. 0, -ENOMEM. */
int  cts_stack_pick(struct cts_stack *s, const struct cts_stack *all, const uint32_t *pick, uint32_t n);
void cts_stack_free(struct cts_stack *s); /* empty is fine */

struct cts_joint {
    uint32_t n_out, n_in, rank;
    double  *ut;        /* [rank, n_out]: the columns of U, by descending energy */
    double  *vt;        /* [rank, n_in] */
    double   objective; /* of n at most */
    uint32_t n_sweeps;
};

struct cts_joint_opts {
    uint32_t rank;         /* clipped to min(n_out, n_in, sum of ranks) */
    uint32_t n_sweeps_max;
    uint32_t n_steps;      /* of power iteration in a half-sweep; 0: solve it */
    double   tolerance;    /* stop when a sweep moves the objective by less than this share */
    uint64_t seed;         /* of the start */
    const struct cts_joint *start; /* NULL, or a pair to start from; of any rank, 0 (random) too */
};
#define CTS_JOINT_EXACT_MAX  1024 /* longest side whose half-sweep is solved by LAPACK */
#define CTS_JOINT_SWEEPS_MAX 100
#define CTS_JOINT_TOLERANCE  1e-7

/* Fit. s has at least one adapter. 0; -ENOMEM, -EDOM (an eigenproblem that does
 * not converge), *out empty. The same bits for the same input. Any thread. */
int  cts_joint_fit(struct cts_joint *out, const struct cts_stack *s, const struct cts_joint_opts *o);
void cts_joint_free(struct cts_joint *j); /* empty is fine */

#endif
