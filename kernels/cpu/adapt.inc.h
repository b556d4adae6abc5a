/* Adapters: right and sigma of each part into scratch, then left into y. */

static const struct ctsk_factor *factor_of(const struct ctsk_adapt *a, const struct ctsk_row_part *p)
{
    const struct ctsk_factor *f = cts_cpu_at((struct ctsk_ptr){ p->factors });

    return f + a->module_idx;
}

/* out[o] = m[o,:] . x */
static void matvec(float *out, const float *m, const float *x, int64_t n_out, int64_t n_in)
{
    for (int64_t o = 0; o < n_out; o += 4) {
        int          n = n_out - o < 4 ? (int)(n_out - o) : 4;
        const float *w[4];
        float        sums[4];

        for (int i = 0; i < 4; i++) w[i] = m + (o + (i < n ? i : n - 1)) * n_in;
        dot_4(sums, x, w, n_in);
        memcpy(out + o, sums, (size_t)n * sizeof(float));
    }
}

/* A part's vector between right and left lies in the second half of its
 * scratch, or in the first where there is no sigma. */
static float *inner_of(const struct ctsk_adapt *a, const struct ctsk_factor *f, int64_t part)
{
    return (float *)cts_cpu_at(a->scratch) + part * 2 * a->rank_max + (f->sigma != 0 ? a->rank_max : 0);
}

static void adapt_shrink(const struct ctsk_adapt *a, int64_t begin, int64_t end)
{
    const struct ctsk_row_part *parts = cts_cpu_at(a->row_parts);

    for (int64_t p = begin; p < end; p++) {
        const struct ctsk_factor *f = factor_of(a, &parts[p]);
        float                    *right_x = (float *)cts_cpu_at(a->scratch) + p * 2 * a->rank_max;
        const float              *x = (const float *)cts_cpu_at(a->x) + parts[p].row * a->x_ld;

        matvec(right_x, cts_cpu_at((struct ctsk_ptr){ f->right }), x, f->rank_in, a->n_in);
        if (f->sigma != 0)
            matvec(inner_of(a, f, p), cts_cpu_at((struct ctsk_ptr){ f->sigma }), right_x, f->rank_out, f->rank_in);
    }
}

/* y[begin .. end-1] += weight * scale * left . inner */
static void expand_part(const struct ctsk_factor *f, const float *inner, float *y, float weight, int64_t begin,
                        int64_t end)
{
    const float *left = cts_cpu_at((struct ctsk_ptr){ f->left });
    vf           scale = vf_set1(weight * f->scale);

    for (int64_t o = begin; o < end; o += 4) {
        int          n = end - o < 4 ? (int)(end - o) : 4;
        const float *w[4];
        float        sums[VF_LANES > 4 ? VF_LANES : 4];

        for (int i = 0; i < 4; i++) w[i] = left + (o + (i < n ? i : n - 1)) * f->rank_out;
        dot_4(sums, inner, w, f->rank_out);
        vf_store_n(y + o, vf_fma(vf_load_n(sums, n), scale, vf_load_n(y + o, n)), n);
    }
}

static void adapt_expand(const struct ctsk_adapt *a, int64_t begin, int64_t end)
{
    const struct ctsk_row_part *parts = cts_cpu_at(a->row_parts);

    for (int64_t p = 0; p < a->n_parts; p++) {
        const struct ctsk_factor *f = factor_of(a, &parts[p]);
        float                    *y = (float *)cts_cpu_at(a->y) + parts[p].row * a->y_ld;

        if (f->rank_in == 0) continue;
        expand_part(f, inner_of(a, f, p), y, parts[p].weight, begin, end);
    }
}
