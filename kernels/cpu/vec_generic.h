#ifndef CTS_KERNELS_CPU_VEC_GENERIC_H
#define CTS_KERNELS_CPU_VEC_GENERIC_H

/* The vector of level generic: 4 floats in the compiler's own vector type, so
 * that it is SSE2, NEON or plain code, and the same bits on all of them, since
 * there is no fused multiply-add. This file also says what the functions of
 * every level mean:
 *
 *   vf_load_n, vf_store_n   the first n lanes, 0 <= n <= VF_LANES; the others
 *                           read 0 and are not written. Memory past them is
 *                           not touched.
 *   vf_fma(a, b, c)         a * b + c, one rounding where the level has FMA
 *   vf_fnma(a, b, c)        c - a * b, likewise
 *   vf_round                to the nearest integer, ties to even; |a| < 2^22
 *   vf_pow2                 2^n, n an integer in -126 .. 127; 0 for -127, infinity for 128
 *   vf_max, vf_min(a, b)    b where either is a NaN
 *   vf_hsum                 the lanes' sum: lane i + lane (i + half), halving
 *                           until one is left
 *   vf_hsum4, vf_hsum16     the same of 4 and of 16 vectors, bit for bit
 *   vf_transpose            lane i of vector j and lane j of vector i change places
 *   vf_hmax                 the largest lane
 *   VF_MM_ROWS              rows of a register tile of the matrix product */

#include <stdint.h>
#include <string.h>

#define VF_LANES 4
#define VF_MM_ROWS 2

typedef float   vf __attribute__((vector_size(16)));
typedef int32_t vf_mask __attribute__((vector_size(16)));
typedef uint32_t vf_bits __attribute__((vector_size(16)));

static inline vf vf_set1(float x) { return (vf){ x, x, x, x }; }
static inline vf vf_zero(void) { return vf_set1(0.0f); }

static inline vf vf_load(const float *p)
{
    vf v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof(v)); }

static inline vf vf_load_n(const float *p, int n)
{
    float lanes[VF_LANES] = { 0.0f };

    for (int i = 0; i < n; i++) lanes[i] = p[i];
    return vf_load(lanes);
}

static inline void vf_store_n(float *p, vf v, int n)
{
    for (int i = 0; i < n; i++) p[i] = v[i];
}

static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_fnma(vf a, vf b, vf c) { return c - a * b; }

static inline vf vf_pick(vf_mask mask, vf a, vf b) { return (vf)((mask & (vf_mask)a) | (~mask & (vf_mask)b)); }
static inline vf vf_max(vf a, vf b) { return vf_pick(a > b, a, b); }
static inline vf vf_min(vf a, vf b) { return vf_pick(a < b, a, b); }

/* 1.5 * 2^23: a sum with it has no bits for a fraction, so the addition
 * rounds, and the integer stands in the low bits. */
#define VF_ROUNDER 12582912.0f

static inline vf vf_round(vf a) { return (a + VF_ROUNDER) - VF_ROUNDER; }

static inline vf vf_pow2(vf n)
{
    vf_bits e = (vf_bits)(n + VF_ROUNDER) - (vf_bits)vf_set1(VF_ROUNDER);

    return (vf)((e + 127u) << 23);
}

static inline float vf_hsum(vf v) { return (v[0] + v[2]) + (v[1] + v[3]); }

static inline void vf_hsum4(float *out, vf a, vf b, vf c, vf d)
{
    out[0] = vf_hsum(a);
    out[1] = vf_hsum(b);
    out[2] = vf_hsum(c);
    out[3] = vf_hsum(d);
}

static inline void vf_hsum16(float *out, const vf *v)
{
    vf_hsum4(out, v[0], v[1], v[2], v[3]);
    vf_hsum4(out + 4, v[4], v[5], v[6], v[7]);
    vf_hsum4(out + 8, v[8], v[9], v[10], v[11]);
    vf_hsum4(out + 12, v[12], v[13], v[14], v[15]);
}

static inline __attribute__((always_inline)) void vf_transpose(vf *v)
{
    vf a = v[0], b = v[1], c = v[2], d = v[3];

    v[0] = (vf){ a[0], b[0], c[0], d[0] };
    v[1] = (vf){ a[1], b[1], c[1], d[1] };
    v[2] = (vf){ a[2], b[2], c[2], d[2] };
    v[3] = (vf){ a[3], b[3], c[3], d[3] };
}

static inline float vf_hmax(vf v)
{
    float lo = v[0] > v[2] ? v[0] : v[2], hi = v[1] > v[3] ? v[1] : v[3];

    return lo > hi ? lo : hi;
}

#endif
