#ifndef CTS_KERNELS_CPU_VEC_AVX512F_H
#define CTS_KERNELS_CPU_VEC_AVX512F_H

/* The vector of level avx512f: 16 floats. What each function means, and which
 * order its sums have, stands in vec_generic.h. AVX-512F alone: no DQ, no VL. */

#include <immintrin.h>
#include <stdint.h>

#define VF_LANES 16
#define VF_MM_ROWS 6 /* rows x 4 accumulators + 4 weights + 1 = 29 of 32 registers */

typedef __m512 vf;

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }

static inline vf vf_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

static inline void vf_store_n(float *p, vf v, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}

static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline vf vf_pow2(vf n)
{
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));

    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}

/* Sum of the four lanes of each 128 bits, of four registers of which each
 * holds four vectors folded to four lanes: lane 4 * i + j of the result is
 * vector i of register j. */
static inline __m512 vf_fold_lanes(__m512 a, __m512 b, __m512 c, __m512 d)
{
    __m512 ab = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_ps(c, d, 0x44), _mm512_shuffle_ps(c, d, 0xee));

    return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x88), _mm512_shuffle_ps(ab, cd, 0xdd));
}

/* Four vectors folded to four lanes each: [a, b, c, d] in 128 bits each. */
static inline __m512 vf_fold_quarters(vf a, vf b, vf c, vf d)
{
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));

    return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

static inline void vf_hsum4(float *out, vf a, vf b, vf c, vf d)
{
    __m512 g = vf_fold_quarters(a, b, c, d);

    g = _mm512_add_ps(g, _mm512_shuffle_ps(g, g, 0x4e));
    g = _mm512_add_ps(g, _mm512_shuffle_ps(g, g, 0xb1));
    g = _mm512_maskz_compress_ps(0x1111, g);
    _mm_storeu_ps(out, _mm512_castps512_ps128(g));
}

static inline __attribute__((always_inline)) void vf_hsum16(float *out, const vf *v)
{
    __m512 a = vf_fold_quarters(v[0], v[4], v[8], v[12]), b = vf_fold_quarters(v[1], v[5], v[9], v[13]);
    __m512 c = vf_fold_quarters(v[2], v[6], v[10], v[14]), d = vf_fold_quarters(v[3], v[7], v[11], v[15]);

    _mm512_storeu_ps(out, vf_fold_lanes(a, b, c, d));
}

static inline float vf_hsum(vf v)
{
    float out[4];

    vf_hsum4(out, v, v, v, v);
    return out[0];
}

static inline __attribute__((always_inline)) void vf_transpose(vf *v)
{
    __m512 a[16];

#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) { /* a[i + j]: columns j, 4 + j, 8 + j, 12 + j of rows i .. i + 3 */
        __m512 p = _mm512_unpacklo_ps(v[i], v[i + 1]), q = _mm512_unpackhi_ps(v[i], v[i + 1]);
        __m512 r = _mm512_unpacklo_ps(v[i + 2], v[i + 3]), s = _mm512_unpackhi_ps(v[i + 2], v[i + 3]);

        a[i] = _mm512_shuffle_ps(p, r, 0x44);
        a[i + 1] = _mm512_shuffle_ps(p, r, 0xee);
        a[i + 2] = _mm512_shuffle_ps(q, s, 0x44);
        a[i + 3] = _mm512_shuffle_ps(q, s, 0xee);
    }
#pragma GCC unroll 16
    for (int j = 0; j < 4; j++) { /* 128 bits at a time: columns j and 8 + j, then 4 + j and 12 + j */
        __m512 p = _mm512_shuffle_f32x4(a[j], a[4 + j], 0x88), q = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0x88);
        __m512 r = _mm512_shuffle_f32x4(a[j], a[4 + j], 0xdd), s = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0xdd);

        v[j] = _mm512_shuffle_f32x4(p, q, 0x88);
        v[8 + j] = _mm512_shuffle_f32x4(p, q, 0xdd);
        v[4 + j] = _mm512_shuffle_f32x4(r, s, 0x88);
        v[12 + j] = _mm512_shuffle_f32x4(r, s, 0xdd);
    }
}

static inline float vf_hmax(vf v) { return _mm512_reduce_max_ps(v); }

#endif
