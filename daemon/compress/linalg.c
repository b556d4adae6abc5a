#include "daemon/compress/linalg.h"

#include "common/assert.h"

#include <cblas.h>
#include <errno.h>
#include <lapacke.h>
#include <stdlib.h>
#include <string.h>

void cts_linalg_init(void)
{
    openblas_set_num_threads(1); /* the tasks are the parallelism, and sums keep one order */
}

static void mul(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, uint32_t m, uint32_t n, uint32_t k, const double *a,
                const double *b, double *c)
{
    int lda = (int)(ta == CblasNoTrans ? k : m), ldb = (int)(tb == CblasNoTrans ? n : k);

    if (m == 0 || n == 0) return;
    if (k == 0) memset(c, 0, (size_t)m * n * sizeof(*c));
    else cblas_dgemm(CblasRowMajor, ta, tb, (int)m, (int)n, (int)k, 1.0, a, lda, b, ldb, 0.0, c, (int)n);
}

void cts_mul_nn(uint32_t m, uint32_t n, uint32_t k, const double *a, const double *b, double *c)
{
    mul(CblasNoTrans, CblasNoTrans, m, n, k, a, b, c);
}

void cts_mul_tn(uint32_t m, uint32_t n, uint32_t k, const double *a, const double *b, double *c)
{
    mul(CblasTrans, CblasNoTrans, m, n, k, a, b, c);
}

void cts_mul_nt(uint32_t m, uint32_t n, uint32_t k, const double *a, const double *b, double *c)
{
    mul(CblasNoTrans, CblasTrans, m, n, k, a, b, c);
}

void cts_gram(uint32_t m, uint32_t k, const double *a, double *c)
{
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasNoTrans, (int)m, (int)k, 1.0, a, (int)k, 0.0, c, (int)m);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < i; j++) c[i * m + j] = c[j * m + i];
}

double cts_sum_squares(const double *x, size_t n)
{
    return cts_dot(x, x, n);
}

double cts_dot(const double *x, const double *y, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

int cts_qr(double *xt, uint32_t r, uint32_t d, double *rr, int want_q)
{
    uint32_t k = r < d ? r : d;
    double  *tau;
    int      info;

    CTS_ASSERT(k > 0);
    tau = malloc(k * sizeof(*tau));
    if (tau == NULL) return -ENOMEM;
    /* The rows of xt are the columns of a column-major [d, r]: no transposing anywhere. */
    info = LAPACKE_dgeqrf(LAPACK_COL_MAJOR, (int)d, (int)r, xt, (int)d, tau);
    for (size_t i = 0; i < k && rr != NULL; i++)
        for (size_t j = 0; j < r; j++) rr[i * r + j] = j < i ? 0.0 : xt[j * d + i];
    if (info == 0 && want_q) info = LAPACKE_dorgqr(LAPACK_COL_MAJOR, (int)d, (int)k, (int)k, xt, (int)d, tau);
    free(tau);
    CTS_ASSERT(info >= 0 || info == LAPACK_WORK_MEMORY_ERROR); /* every argument is ours; NaN is checked before */
    return info == 0 ? 0 : -ENOMEM;
}

int cts_orth(double *xt, uint32_t r, uint32_t d)
{
    CTS_ASSERT(r <= d);
    return cts_qr(xt, r, d, NULL, 1);
}

static int lapack_rc(int info)
{
    if (info == LAPACK_WORK_MEMORY_ERROR || info == LAPACK_TRANSPOSE_MEMORY_ERROR) return -ENOMEM;
    CTS_ASSERT(info >= 0); /* every argument is ours */
    return info == 0 ? 0 : -EDOM;
}

int cts_eigen(double *x, uint32_t n, double *w)
{
    int rc = lapack_rc(LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', (int)n, x, (int)n, w));

    if (rc < 0) return rc;
    /* LAPACK ascends; its columns are our rows. */
    for (size_t i = 0, k = n - 1; i < k; i++, k--) {
        double t = w[i];

        w[i] = w[k];
        w[k] = t;
        cblas_dswap((int)n, x + i * n, 1, x + k * n, 1);
    }
    return 0;
}

int cts_svd(double *x, uint32_t m, uint32_t n, double *w, double *u, double *vt)
{
    uint32_t k = m < n ? m : n;

    return lapack_rc(LAPACKE_dgesdd(LAPACK_ROW_MAJOR, 'S', (int)m, (int)n, x, (int)n, w, u, (int)k, vt, (int)n));
}

double *cts_doubles(size_t n, size_t m)
{
    return calloc(n * m + 1, sizeof(double));
}

uint64_t cts_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t cts_random_stream(uint64_t seed, uint64_t stream)
{
    uint64_t s = seed;

    s = cts_random(&s) ^ stream * 0xd1342543de82ef95u;
    return cts_random(&s);
}

void cts_random_signs(uint64_t *state, double *x, size_t n)
{
    uint64_t bits = 0;

    for (size_t i = 0; i < n; i++, bits >>= 1) {
        if (i % 64 == 0) bits = cts_random(state);
        x[i] = bits & 1 ? 1.0 : -1.0;
    }
}
