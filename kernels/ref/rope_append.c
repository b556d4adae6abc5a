#include "kernels/ref/ref.h"

#include <string.h>

/* to may be from: both halves of a pair are read before either is written. */
static void rotate(float *to, const float *from, const float *cos, const float *sin, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        double lo = from[i], hi = from[i + half];

        to[i] = (float)(lo * cos[i] - hi * sin[i]);
        to[i + half] = (float)(hi * cos[i] + lo * sin[i]);
    }
}

int cts_ref_rope_append(const struct ctsk_rope_append *a)
{
    const int32_t *pos = cts_ref_at(a->pos), *place = cts_ref_at(a->place);
    int64_t        half = a->head_dim / 2, kv_cols = a->n_kv_heads * a->head_dim;

    for (int64_t r = 0; r < a->n_rows; r++)
        if (pos[r] < 0 || place[r] < 0) return CTS_EGPU;
    for (int64_t r = 0; r < a->n_rows; r++) {
        float       *q = (float *)cts_ref_at(a->q) + r * a->qkv_ld;
        const float *k = (const float *)cts_ref_at(a->k) + r * a->qkv_ld;
        const float *v = (const float *)cts_ref_at(a->v) + r * a->qkv_ld;
        const float *cos = (const float *)cts_ref_at(a->cos) + pos[r] * half;
        const float *sin = (const float *)cts_ref_at(a->sin) + pos[r] * half;
        float       *k_to = (float *)cts_ref_at(a->k_pages) + place[r] * kv_cols;
        float       *v_to = (float *)cts_ref_at(a->v_pages) + place[r] * kv_cols;

        for (int64_t h = 0; h < a->n_heads; h++)
            rotate(q + h * a->head_dim, q + h * a->head_dim, cos, sin, half);
        for (int64_t h = 0; h < a->n_kv_heads; h++)
            rotate(k_to + h * a->head_dim, k + h * a->head_dim, cos, sin, half);
        memcpy(v_to, v, (size_t)kv_cols * sizeof(float));
    }
    return 0;
}
