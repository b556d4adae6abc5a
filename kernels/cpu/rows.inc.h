/* Ops on whole rows: norm, rotation, gate. */

/* e^x to 4 units of 2^-24, relative, for -87.3 <= x <= 88.3; 0 below, infinity
 * above, NaN for NaN. x = n ln 2 + r with |r| <= 0.35; ln 2 is in two pieces of
 * which the first times n is exact, so r is off by 0.42 units; the polynomial
 * (Cephes expf) adds 0.3 before and the two last additions 0.6 and 1. */
INLINE vf vf_exp(vf x)
{
    vf n, r, p;

    x = vf_min(vf_set1(88.8f), vf_max(vf_set1(-88.0f), x));
    n = vf_round(vf_mul(x, vf_set1(1.44269504f)));
    r = vf_fnma(n, vf_set1(0.693359375f), x);
    r = vf_fnma(n, vf_set1(-2.12194440e-4f), r);
    p = vf_set1(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set1(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set1(5.0000001201e-1f));
    p = vf_add(vf_fma(vf_mul(r, r), p, r), vf_set1(1.0f));
    return vf_mul(p, vf_pow2(n));
}

/* Four accumulators, or a row would take four cycles per vector. */
static vf square_lanes(const float *x, int64_t n)
{
    vf      acc[4] = { vf_zero(), vf_zero(), vf_zero(), vf_zero() }, v;
    int64_t i = 0;

    for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            v = vf_load(x + i + j * VF_LANES);
            acc[j] = vf_fma(v, v, acc[j]);
        }
    }
    for (; i < n; i += VF_LANES) {
        v = vf_load_n(x + i, n - i < VF_LANES ? (int)(n - i) : VF_LANES);
        acc[0] = vf_fma(v, v, acc[0]);
    }
    return vf_add(vf_add(acc[0], acc[1]), vf_add(acc[2], acc[3]));
}

static void rmsnorm_row(float *y, const float *x, const float *w, int64_t n_cols, float eps)
{
    int64_t whole = n_cols - n_cols % VF_LANES;
    int     rest = (int)(n_cols - whole);
    vf      sum, scale;

    sum = square_lanes(x, n_cols);
    scale = vf_set1(1.0f / sqrtf(vf_hsum(sum) / (float)n_cols + eps));
    for (int64_t c = 0; c < whole; c += VF_LANES)
        vf_store(y + c, vf_mul(vf_mul(vf_load(x + c), scale), vf_load(w + c)));
    vf_store_n(y + whole, vf_mul(vf_mul(vf_load_n(x + whole, rest), scale), vf_load_n(w + whole, rest)), rest);
}

static void rmsnorm(const struct ctsk_rmsnorm *a, int64_t begin, int64_t end)
{
    const float *x = cts_cpu_at(a->x), *w = cts_cpu_at(a->w);
    float       *y = cts_cpu_at(a->y);

    for (int64_t r = begin; r < end; r++)
        rmsnorm_row(y + r * a->n_cols, x + r * a->x_ld, w, a->n_cols, a->eps);
}

/* Rotate n pairs (lo[i], hi[i]), n <= VF_LANES. to may be from. */
INLINE void rotate_n(float *to, const float *from, const float *cos, const float *sin, int64_t half, int n)
{
    vf lo = vf_load_n(from, n), hi = vf_load_n(from + half, n), c = vf_load_n(cos, n), s = vf_load_n(sin, n);

    vf_store_n(to, vf_fnma(hi, s, vf_mul(lo, c)), n);
    vf_store_n(to + half, vf_fma(lo, s, vf_mul(hi, c)), n);
}

static void rotate(float *to, const float *from, const float *cos, const float *sin, int64_t half)
{
    for (int64_t i = 0; i < half; i += VF_LANES) {
        int n = half - i < VF_LANES ? (int)(half - i) : VF_LANES;

        rotate_n(to + i, from + i, cos + i, sin + i, half, n);
    }
}

static void rope_append(const struct ctsk_rope_append *a, int64_t begin, int64_t end)
{
    const int32_t *pos = cts_cpu_at(a->pos), *place = cts_cpu_at(a->place);
    int64_t        half = a->head_dim / 2, kv_cols = a->n_kv_heads * a->head_dim;

    for (int64_t r = begin; r < end; r++) {
        float       *q = (float *)cts_cpu_at(a->q) + r * a->qkv_ld;
        const float *k = (const float *)cts_cpu_at(a->k) + r * a->qkv_ld;
        const float *v = (const float *)cts_cpu_at(a->v) + r * a->qkv_ld;
        const float *cos = (const float *)cts_cpu_at(a->cos) + pos[r] * half;
        const float *sin = (const float *)cts_cpu_at(a->sin) + pos[r] * half;
        float       *k_to = (float *)cts_cpu_at(a->k_pages) + place[r] * kv_cols;
        float       *v_to = (float *)cts_cpu_at(a->v_pages) + place[r] * kv_cols;

        for (int64_t h = 0; h < a->n_heads; h++)
            rotate(q + h * a->head_dim, q + h * a->head_dim, cos, sin, half);
        for (int64_t h = 0; h < a->n_kv_heads; h++)
            rotate(k_to + h * a->head_dim, k + h * a->head_dim, cos, sin, half);
        memcpy(v_to, v, (size_t)kv_cols * sizeof(float));
    }
}

INLINE vf silu_mul_vec(vf gate, vf up)
{
    vf one = vf_set1(1.0f);

    return vf_mul(vf_div(gate, vf_add(one, vf_exp(vf_sub(vf_zero(), gate)))), up);
}

static void silu_mul(const struct ctsk_silu_mul *a, int64_t begin, int64_t end)
{
    const float *gate = cts_cpu_at(a->gate), *up = cts_cpu_at(a->up);
    float       *y = cts_cpu_at(a->y);
    int64_t      whole = end - (end - begin) % VF_LANES;
    int          rest = (int)(end - whole);

    for (int64_t i = begin; i < whole; i += VF_LANES)
        vf_store(y + i, silu_mul_vec(vf_load(gate + i), vf_load(up + i)));
    vf_store_n(y + whole, silu_mul_vec(vf_load_n(gate + whole, rest), vf_load_n(up + whole, rest)), rest);
}
