/* The matrix product: register tiles of up to VF_MM_ROWS rows by 4 outputs. */

/* y[r][0..3] (+)= sums[0..3], the first n of them. */
INLINE void put_sums(float *y, const float *sums, int n, int accumulate)
{
    for (int o = 0; o < n; o++) y[o] = accumulate ? sums[o] + y[o] : sums[o];
}

/* n_x rows, a constant where this is inlined, by n_outs <= 4 outputs; w has four
 * rows in any case, the last repeated. */
INLINE void matmul_tile(const struct ctsk_matmul *a, float *y, const float *const *x, const float *const *w,
                        const int n_x, int n_outs)
{
    vf acc[VF_MM_ROWS * 4];

    dot_tile(acc, x, w, n_x, 4, a->n_in);
    for (int r = 0; r < n_x; r++) {
        float sums[4];

        vf_hsum4(sums, acc[r * 4], acc[r * 4 + 1], acc[r * 4 + 2], acc[r * 4 + 3]);
        if (n_outs == 4 && !a->accumulate) memcpy(y + r * a->y_ld, sums, sizeof(sums));
        else put_sums(y + r * a->y_ld, sums, n_outs, a->accumulate);
    }
}

static void matmul_rows(const struct ctsk_matmul *a, float *y, const float *x, const float *const *w, int n_x,
                        int n_outs)
{
    const float *xs[8];

    for (int r = 0; r < n_x; r++) xs[r] = x + r * a->x_ld;
    switch (n_x) {
    case 1: matmul_tile(a, y, xs, w, 1, n_outs); return;
#if VF_MM_ROWS >= 2
    case 2: matmul_tile(a, y, xs, w, 2, n_outs); return;
#endif
#if VF_MM_ROWS >= 3
    case 3: matmul_tile(a, y, xs, w, 3, n_outs); return;
#endif
#if VF_MM_ROWS >= 6
    case 4: matmul_tile(a, y, xs, w, 4, n_outs); return;
    case 5: matmul_tile(a, y, xs, w, 5, n_outs); return;
    case 6: matmul_tile(a, y, xs, w, 6, n_outs); return;
#endif
    }
}

static void matmul(const struct ctsk_matmul *a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                   int64_t out_end)
{
    const float *x = cts_cpu_at(a->x), *w = cts_cpu_at(a->w);
    float       *y = cts_cpu_at(a->y);

    for (int64_t r = row_begin; r < row_end; r += VF_MM_ROWS) {
        int n_x = row_end - r < VF_MM_ROWS ? (int)(row_end - r) : VF_MM_ROWS;

        for (int64_t o = out_begin; o < out_end; o += 4) {
            int          n_outs = out_end - o < 4 ? (int)(out_end - o) : 4;
            const float *ws[4];

            for (int i = 0; i < 4; i++) ws[i] = w + (o + (i < n_outs ? i : n_outs - 1)) * a->n_in;
            matmul_rows(a, y + r * a->y_ld + o, x + r * a->x_ld, ws, n_x, n_outs);
        }
    }
}
