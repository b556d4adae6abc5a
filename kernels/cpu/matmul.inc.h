/* The matrix product, cut into register tiles of VF_MM_ROWS rows by 4 outputs. */

/* Elements of a row that are worked on at once: VF_MM_ROWS rows of x and four of
 * w of this length stay in a first-level cache of 48 KiB. */
#define DEEP 1024

/* y[0..3] (+)= sums[0..3], the first n of them. */
INLINE void put_sums(float *y, const float *sums, int n, int accumulate)
{
    if (n == 4 && !accumulate) {
        memcpy(y, sums, 4 * sizeof(*y));
        return;
    }
    for (int o = 0; o < n; o++) y[o] = accumulate ? sums[o] + y[o] : sums[o];
}

static void put_tile(const struct ctsk_matmul *a, const float *sums, int64_t row, int n_rows, int64_t out, int n_outs)
{
    float *y = (float *)cts_cpu_at(a->y) + row * a->y_ld + out;

    for (int r = 0; r < n_rows; r++) put_sums(y + r * a->y_ld, sums + r * 4, n_outs, a->accumulate);
}

/* Rows of x and of w that one register tile reads. */
struct tile {
    const float *x[VF_MM_ROWS], *w[4];
    int          n_rows, n_outs;
};

static void tile_init(struct tile *t, const struct ctsk_matmul *a, int64_t row, int n_rows, int64_t out, int n_outs)
{
    const float *x = (const float *)cts_cpu_at(a->x) + row * a->x_ld;

    t->n_rows = n_rows;
    t->n_outs = n_outs;
    for (int r = 0; r < n_rows; r++) t->x[r] = x + r * a->x_ld;
    name_rows(t->w, (const float *)cts_cpu_at(a->w) + out * a->n_in, n_outs, 4, a->n_in);
}

static void dot_more(vf *acc, const struct tile *t, int64_t begin, int64_t end)
{
    vf regs[VF_MM_ROWS * 4];

#define CODE(rows)                                                      \
    memcpy(regs, acc, (rows) * 4 * sizeof(vf));                         \
    dot_tile(regs, t->x, t->w, rows, 4, begin, end);                    \
    memcpy(acc, regs, (rows) * 4 * sizeof(vf));                         \
    break
    WITH_ROWS(t->n_rows, CODE)
#undef CODE
}

static void sum_acc(float *sums, const vf *acc, int n_rows)
{
#define CODE(rows) sum_tile(sums, acc, rows); break
    WITH_ROWS(n_rows, CODE)
#undef CODE
}

/* Long rows: DEEP elements of all tiles, then the next DEEP; in between the
 * accumulators lie in memory, where they keep their bits. */
static void matmul_deep(const struct ctsk_matmul *a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                        int64_t out_end)
{
    vf      acc[CTS_CPU_TILE_ROWS / VF_MM_ROWS * (CTS_CPU_TILE_OUTS / 4)][VF_MM_ROWS * 4];
    int64_t n_tiles = (row_end - row_begin + VF_MM_ROWS - 1) / VF_MM_ROWS * ((out_end - out_begin + 3) / 4);
    float   sums[VF_MM_ROWS * 4];

    memset(acc, 0, (size_t)n_tiles * sizeof(acc[0]));
    for (int64_t begin = 0; begin < a->n_in; begin += DEEP) {
        int64_t end = begin + DEEP < a->n_in ? begin + DEEP : a->n_in;
        int     i = 0;

        for (int64_t r = row_begin; r < row_end; r += VF_MM_ROWS) {
            for (int64_t o = out_begin; o < out_end; o += 4, i++) {
                struct tile t;

                tile_init(&t, a, r, at_most(row_end - r, VF_MM_ROWS), o, at_most(out_end - o, 4));
                dot_more(acc[i], &t, begin, end);
                if (end < a->n_in) continue;
                sum_acc(sums, acc[i], t.n_rows);
                put_tile(a, sums, r, t.n_rows, o, t.n_outs);
            }
        }
    }
}

/* One row: the weights stream by once, eight rows of them at a time. */
static void matmul_row(const struct ctsk_matmul *a, int64_t row, int64_t out_begin, int64_t out_end)
{
    const float *x = (const float *)cts_cpu_at(a->x) + row * a->x_ld, *w = cts_cpu_at(a->w);
    float       *y = (float *)cts_cpu_at(a->y) + row * a->y_ld;

    for (int64_t o = out_begin; o < out_end; o += 8) {
        int   n_outs = at_most(out_end - o, 8);
        float sums[8];

        dot_matrix(sums, w + o * a->n_in, x, n_outs, a->n_in);
        for (int i = 0; i < n_outs; i += 4) put_sums(y + o + i, sums + i, at_most(n_outs - i, 4), a->accumulate);
    }
}

static void matmul_flat(const struct ctsk_matmul *a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                        int64_t out_end)
{
    float sums[VF_MM_ROWS * 4];

    for (int64_t r = row_begin; r < row_end; r += VF_MM_ROWS) {
        for (int64_t o = out_begin; o < out_end; o += 4) {
            struct tile t;

            tile_init(&t, a, r, at_most(row_end - r, VF_MM_ROWS), o, at_most(out_end - o, 4));
            dot_rows(sums, t.x, t.w, t.n_rows, a->n_in);
            put_tile(a, sums, r, t.n_rows, o, t.n_outs);
        }
    }
}

static void matmul(const struct ctsk_matmul *a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                   int64_t out_end)
{
    if (row_end - row_begin == 1) matmul_row(a, row_begin, out_begin, out_end);
    else if (a->n_in > DEEP && row_end - row_begin > VF_MM_ROWS)
        matmul_deep(a, row_begin, row_end, out_begin, out_end);
    else matmul_flat(a, row_begin, row_end, out_begin, out_end);
}
