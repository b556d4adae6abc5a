#include "common/dtype.h"

#include "common/assert.h"

#include <string.h>

size_t cts_dtype_bytes(enum cts_dtype t)
{
    return t == CTS_F32 ? 4 : t == CTS_F16 || t == CTS_BF16 ? 2 : 0;
}

const char *cts_dtype_name(enum cts_dtype t)
{
    return t == CTS_F32 ? "F32" : t == CTS_F16 ? "F16" : t == CTS_BF16 ? "BF16" : NULL;
}

static float from_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

static float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mant = h & 0x3ff;
    int      expo = h >> 10 & 0x1f;

    if (expo == 0) return (sign != 0 ? -1.0f : 1.0f) * (float)mant * 0x1p-24f; /* zero and subnormals */
    if (expo == 31) return from_bits(sign | 0x7f800000u | mant << 13);
    return from_bits(sign | (uint32_t)(expo + 112) << 23 | mant << 13);
}

static uint16_t f32_to_bf16(uint32_t u)
{
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40); /* NaN: keep it one */
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static uint16_t f32_to_f16(uint32_t u)
{
    uint32_t sign = u >> 16 & 0x8000, mag = u & 0x7fffffffu;

    if (mag > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
    if (mag >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520 and up round to infinity */
    if (mag < 0x38800000u) {
        /* Below 2^-14: let the adder round. 0.5f has an ulp of 2^-24, the subnormals' step. */
        float f = from_bits(mag) + 0.5f;
        memcpy(&u, &f, sizeof(u));
        return (uint16_t)(sign | (u - 0x3f000000u));
    }
    mag += 0xfffu + (mag >> 13 & 1);
    return (uint16_t)(sign | ((mag >> 13) - (112u << 10)));
}

void cts_dtype_widen(float *dst, const void *src, size_t n, enum cts_dtype t)
{
    const uint8_t *p = src;
    uint16_t       h;

    if (t == CTS_F32) {
        memcpy(dst, src, n * 4);
        return;
    }
    CTS_ASSERT(t == CTS_F16 || t == CTS_BF16);
    for (size_t i = 0; i < n; i++) {
        memcpy(&h, p + 2 * i, 2);
        dst[i] = t == CTS_BF16 ? from_bits((uint32_t)h << 16) : f16_to_f32(h);
    }
}

void cts_dtype_narrow(void *dst, const float *src, size_t n, enum cts_dtype t)
{
    uint8_t *p = dst;

    if (t == CTS_F32) {
        memcpy(dst, src, n * 4);
        return;
    }
    CTS_ASSERT(t == CTS_F16 || t == CTS_BF16);
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, src + i, 4);
        uint16_t h = t == CTS_BF16 ? f32_to_bf16(u) : f32_to_f16(u);
        memcpy(p + 2 * i, &h, 2);
    }
}
