#ifndef CTS_DAEMON_COMPRESS_LINALG_H
#define CTS_DAEMON_COMPRESS_LINALG_H

/* Dense float64 algebra for the compressor, one thread a call. All matrices
 * are row-major and dense. Results depend on shapes and values only. */

#include <stddef.h>
#include <stdint.h>

/* Keep OpenBLAS to the calling thread. Once, before any other call here. */
void cts_linalg_init(void);

/* c [m, n] = a [m, k] b [k, n], with a or b given transposed: tn: a [k, m]; nt: b [n, k]. */
void cts_mul_nn(uint32_t m, uint32_t n, uint32_t k, const double *a, const double *b, double *c);
void cts_mul_tn(uint32_t m, uint32_t n, uint32_t k, const double *a, const double *b, double *c);
void cts_mul_nt(uint32_t m, uint32_t n, uint32_t k, const double *a, const double *b, double *c);

/* c [m, m] = a [m, k] a^T, both triangles. */
void cts_gram(uint32_t m, uint32_t k, const double *a, double *c);

/* Sum of squares and dot product of n values. */
double cts_sum_squares(const double *x, size_t n);
double cts_dot(const double *x, const double *y, size_t n);

/* Make the r rows of xt [r, d], r <= d, orthonormal with the same span (QR);
 * rows that depend on others become any that complete the set. 0, -ENOMEM. */
int cts_orth(double *xt, uint32_t r, uint32_t d);

/* QR of the r vectors of length d that are the rows of xt [r, d]: R [k, r],
 * k = min(r, d), upper triangular, goes to rr [k, r]; the rows of xt become the
 * k orthonormal ones when want_q is set, else they are lost. 0, -ENOMEM. */
int cts_qr(double *xt, uint32_t r, uint32_t d, double *rr, int want_q);

/* Eigenvectors of the symmetric x [n, n] as its rows, by descending eigenvalue,
 * which go to w [n]. 0, -ENOMEM, -EDOM when LAPACK does not converge. */
int cts_eigen(double *x, uint32_t n, double *w);

/* Singular values w [k], k = min(m, n), and vectors of x [m, n] (destroyed):
 * u [m, k], vt [k, n]. 0, -ENOMEM, -EDOM when LAPACK does not converge. */
int cts_svd(double *x, uint32_t m, uint32_t n, double *w, double *u, double *vt);

/* The next of a sequence of 64-bit random numbers (splitmix64). */
uint64_t cts_random(uint64_t *state);

/* n times m zeroed numbers, the caller's to free. NULL means that there is no
 * memory, also where n or m is 0. */
double *cts_doubles(size_t n, size_t m);

/* A state for the stream number of a seed. */
uint64_t cts_random_stream(uint64_t seed, uint64_t stream);

/* Fill x with -1 and 1 at random. */
void cts_random_signs(uint64_t *state, double *x, size_t n);

#endif
