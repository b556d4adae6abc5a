#ifndef CTS_KERNELS_CPU_VEC_AVX2_H
#define CTS_KERNELS_CPU_VEC_AVX2_H

/* The vector of level avx2: 8 floats, with FMA. What each function means, and
 * which order its sums have, stands in vec_generic.h. */

#include <immintrin.h>
#include <stdint.h>

#define VF_LANES 8
#define VF_MM_ROWS 3 /* rows x 4 accumulators + 1 weight + 3 rows of x = 16 of 16 registers */

typedef __m256 vf;

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm256_storeu_ps(p, v); }

/* All ones in the first n lanes. */
static inline __m256i vf_first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf vf_load_n(const float *p, int n) { return _mm256_maskload_ps(p, vf_first(n)); }
static inline void vf_store_n(float *p, vf v, int n) { _mm256_maskstore_ps(p, vf_first(n), v); }

static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vf vf_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline vf vf_pow2(vf n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));

    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}

static inline void vf_hsum4(float *out, vf a, vf b, vf c, vf d)
{
    __m256 ab = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    __m256 cd = _mm256_add_ps(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
    __m256 acbd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    __m128 ac = _mm256_castps256_ps128(acbd), bd = _mm256_extractf128_ps(acbd, 1);
    __m128 sum = _mm_add_ps(_mm_shuffle_ps(ac, bd, 0x88), _mm_shuffle_ps(ac, bd, 0xdd)); /* a c b d */

    _mm_storeu_ps(out, _mm_shuffle_ps(sum, sum, 0xd8));
}

static inline void vf_hsum16(float *out, const vf *v)
{
    vf_hsum4(out, v[0], v[1], v[2], v[3]);
    vf_hsum4(out + 4, v[4], v[5], v[6], v[7]);
    vf_hsum4(out + 8, v[8], v[9], v[10], v[11]);
    vf_hsum4(out + 12, v[12], v[13], v[14], v[15]);
}

static inline float vf_hsum(vf v)
{
    float out[4];

    vf_hsum4(out, v, v, v, v);
    return out[0];
}

static inline __attribute__((always_inline)) void vf_transpose(vf *v)
{
    __m256 a[8];

#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 4) { /* a[i + j]: columns j and 4 + j of rows i .. i + 3 */
        __m256 p = _mm256_unpacklo_ps(v[i], v[i + 1]), q = _mm256_unpackhi_ps(v[i], v[i + 1]);
        __m256 r = _mm256_unpacklo_ps(v[i + 2], v[i + 3]), s = _mm256_unpackhi_ps(v[i + 2], v[i + 3]);

        a[i] = _mm256_shuffle_ps(p, r, 0x44);
        a[i + 1] = _mm256_shuffle_ps(p, r, 0xee);
        a[i + 2] = _mm256_shuffle_ps(q, s, 0x44);
        a[i + 3] = _mm256_shuffle_ps(q, s, 0xee);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 4; j++) {
        v[j] = _mm256_permute2f128_ps(a[j], a[4 + j], 0x20);
        v[4 + j] = _mm256_permute2f128_ps(a[j], a[4 + j], 0x31);
    }
}

static inline float vf_hmax(vf v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    m = _mm_max_ps(m, _mm_shuffle_ps(m, m, 0x4e));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 0xb1)));
}

#endif
