#include "daemon/compress/delta.h"

#include "common/assert.h"
#include "daemon/compress/linalg.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* dt [rank, n] = the rank columns of b [n, rank], widened and times scale. */
static void turn(double *dt, const float *b, uint32_t n, uint32_t rank, double scale)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < rank; k++) dt[k * n + i] = scale * b[i * rank + k];
}

static void widen(double *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++) dst[i] = src[i];
}

/* |L^T R|^2 for L [m, n_out] and R [m, n_in] (both destroyed), by QR of both. */
static int product_squares(double *lt, double *rt, uint32_t m, uint32_t n_out, uint32_t n_in, double *out)
{
    uint32_t kl = m < n_out ? m : n_out, kr = m < n_in ? m : n_in;
    double  *rl = malloc((size_t)kl * m * sizeof(*rl)), *rr = malloc((size_t)kr * m * sizeof(*rr));
    double  *p = malloc((size_t)kl * kr * sizeof(*p));
    int      rc = rl == NULL || rr == NULL || p == NULL ? -ENOMEM : 0;

    if (rc == 0) rc = cts_qr(lt, m, n_out, rl, 0);
    if (rc == 0) rc = cts_qr(rt, m, n_in, rr, 0);
    if (rc == 0) {
        cts_mul_nt(kl, kr, m, rl, rr, p);
        *out = cts_sum_squares(p, (size_t)kl * kr);
    }
    free(p);
    free(rr);
    free(rl);
    return rc;
}

int cts_delta_norm(const struct cts_delta *d, double *norm)
{
    size_t  r = d->rank;
    double *bt = malloc(r * d->n_out * sizeof(*bt)), *a = malloc(r * d->n_in * sizeof(*a));
    double *gb = malloc(r * r * sizeof(*gb)), *ga = malloc(r * r * sizeof(*ga)), sum = 0, tb = 0, ta = 0;
    int     rc = bt == NULL || a == NULL || gb == NULL || ga == NULL ? -ENOMEM : 0;

    if (rc == 0) {
        turn(bt, d->b, d->n_out, d->rank, d->scale);
        widen(a, d->a, r * d->n_in);
        cts_gram(d->rank, d->n_out, bt, gb);
        cts_gram(d->rank, d->n_in, a, ga);
        sum = cts_dot(gb, ga, r * r);
        for (size_t i = 0; i < r; i++) {
            tb += gb[i * r + i];
            ta += ga[i * r + i];
        }
        /* B and A that cancel in their product: the sum is mostly rounding. */
        if (sum < CTS_SHARE_TRUSTED * tb * ta) rc = product_squares(bt, a, d->rank, d->n_out, d->n_in, &sum);
    }
    if (rc == 0) *norm = sqrt(sum);
    free(ga);
    free(gb);
    free(a);
    free(bt);
    return rc;
}

/* The expanded square: total - 2 <dW, c P Q^T> + |c P Q^T|^2. g, h: scratch [m * m], m >= k, rank. */
static double expanded(const double *bt, const double *a, const struct cts_delta *d, const struct cts_pair *p,
                       double total, double *g, double *h)
{
    double cross, square;

    cts_mul_nt(p->k, d->rank, d->n_out, p->pt, bt, g);
    cts_mul_nt(p->k, d->rank, d->n_in, p->qt, a, h);
    cross = cts_dot(g, h, (size_t)p->k * d->rank);
    cts_gram(p->k, d->n_out, p->pt, g);
    cts_gram(p->k, d->n_in, p->qt, h);
    square = cts_dot(g, h, (size_t)p->k * p->k);
    return total - 2 * p->c * cross + p->c * p->c * square;
}

int cts_delta_lost(const struct cts_delta *d, const struct cts_pair *p, double total, double *lost)
{
    /* The residual is L^T R with the rows of L those of B^T and then of -c P^T, of R those of A and then of Q^T. */
    size_t  m = (size_t)d->rank + p->k, n_out = d->n_out, n_in = d->n_in;
    double *lt = malloc(m * n_out * sizeof(*lt)), *rt = malloc(m * n_in * sizeof(*rt));
    double *g = malloc(m * m * sizeof(*g)), *h = malloc(m * m * sizeof(*h)), sum = 0;
    int     rc = lt == NULL || rt == NULL || g == NULL || h == NULL ? -ENOMEM : 0;

    CTS_ASSERT(m <= UINT32_MAX);
    if (rc == 0) {
        turn(lt, d->b, d->n_out, d->rank, d->scale);
        widen(rt, d->a, d->rank * n_in);
        sum = expanded(lt, rt, d, p, total, g, h);
        if (!(sum >= CTS_SHARE_TRUSTED * total)) {
            for (size_t i = 0; i < p->k * n_out; i++) lt[d->rank * n_out + i] = -p->c * p->pt[i];
            memcpy(rt + d->rank * n_in, p->qt, p->k * n_in * sizeof(*rt));
            rc = product_squares(lt, rt, (uint32_t)m, d->n_out, d->n_in, &sum);
        }
    }
    if (rc == 0) *lost = sum;
    free(h);
    free(g);
    free(rt);
    free(lt);
    return rc;
}
