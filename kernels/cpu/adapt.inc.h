/* Adapters: right and sigma of each part into scratch, then left into y.
 *
 * Rows of one cluster share right and left, so entries of the list that have
 * the same matrix are worked on together, as rows of one product. Which ones
 * meet changes no bit: every sum has one order.
 *   right . x and sigma . t   as in every product (dot.inc.h)
 *   left . s                  elements of s from 0 up, one after the other, with
 *                             outputs in the lanes: rank_out is too short for
 *                             adding lanes to pay */

/* Entries that are looked over at once, a bit each. */
#define CHUNK 64

/* How far behind an entry others with the same matrix are looked for: rows with
 * two parts each still fill a tile, and rows that share nothing lose little. */
#define AHEAD 16

/* Rows that share one transposition of left. */
#define EXPAND_ROWS 32

struct chunk {
    const struct ctsk_row_part *parts; /* [n] */
    const struct ctsk_factor   *factors[CHUNK];
    int64_t                     first; /* number of parts[0] in the list */
    int                         n;
    uint64_t                    done;  /* bit i: parts[i] needs no more work */
};

static void chunk_init(struct chunk *c, const struct ctsk_adapt *a, int64_t begin, int64_t end)
{
    c->parts = (const struct ctsk_row_part *)cts_cpu_at(a->row_parts) + begin;
    c->first = begin;
    c->n = end - begin < CHUNK ? (int)(end - begin) : CHUNK;
    c->done = 0;
    for (int i = 0; i < c->n; i++) {
        const struct ctsk_factor *modules = cts_cpu_at((struct ctsk_ptr){ c->parts[i].factors });

        c->factors[i] = modules + a->module_idx;
        if (c->factors[i]->rank_in == 0) c->done |= (uint64_t)1 << i;
    }
}

static int is_done(const struct chunk *c, int i)
{
    return (int)(c->done >> i & 1);
}

static float *scratch_of(const struct ctsk_adapt *a, const struct chunk *c, int i)
{
    return (float *)cts_cpu_at(a->scratch) + (c->first + i) * 2 * a->rank_max;
}

/* An entry's vector between right and left lies in the second half of its
 * scratch, or in the first where there is no sigma. */
static float *inner_of(const struct ctsk_adapt *a, const struct chunk *c, int i)
{
    return scratch_of(a, c, i) + (c->factors[i]->sigma != 0 ? a->rank_max : 0);
}

/* Entry i, which is not done, and the next ones with the same right. */
static int pick_right(struct chunk *c, int i, int *picked)
{
    int n = 0;

    for (int j = i; j < c->n && j <= i + AHEAD && n < VF_MM_ROWS; j++) {
        if (is_done(c, j) || c->factors[j]->right != c->factors[i]->right ||
            c->factors[j]->rank_in != c->factors[i]->rank_in)
            continue;
        picked[n++] = j;
        c->done |= (uint64_t)1 << j;
    }
    return n;
}

static void shrink_tile(const struct ctsk_adapt *a, const struct chunk *c, const int *picked, int n)
{
    const struct ctsk_factor *f = c->factors[picked[0]];
    const float              *right = cts_cpu_at((struct ctsk_ptr){ f->right }), *x[VF_MM_ROWS], *w[4];
    float                    *out[VF_MM_ROWS], sums[VF_MM_ROWS * 4];

    for (int r = 0; r < n; r++) {
        x[r] = (const float *)cts_cpu_at(a->x) + c->parts[picked[r]].row * a->x_ld;
        out[r] = scratch_of(a, c, picked[r]);
    }
    if (n == 1) {
        dot_matrix(out[0], right, x[0], f->rank_in, a->n_in);
        return;
    }
    for (int64_t o = 0; o < f->rank_in; o += 4) {
        int n_outs = at_most(f->rank_in - o, 4);

        name_rows(w, right + o * a->n_in, n_outs, 4, a->n_in);
        dot_rows(sums, x, w, n, a->n_in);
        for (int r = 0; r < n; r++) memcpy(out[r] + o, sums + r * 4, (size_t)n_outs * sizeof(float));
    }
}

static void adapt_shrink(const struct ctsk_adapt *a, int64_t begin, int64_t end)
{
    for (; begin < end; begin += CHUNK) {
        struct chunk c;
        int          picked[VF_MM_ROWS];

        chunk_init(&c, a, begin, end);
        for (int i = 0; i < c.n; i++) {
            const struct ctsk_factor *f = c.factors[i];

            if (!is_done(&c, i)) shrink_tile(a, &c, picked, pick_right(&c, i, picked));
            if (f->sigma != 0 && f->rank_in > 0) /* entry i is done by now, whoever did it */
                dot_matrix(inner_of(a, &c, i), cts_cpu_at((struct ctsk_ptr){ f->sigma }), scratch_of(a, &c, i),
                           f->rank_out, f->rank_in);
        }
    }
}

/* Rows that get the same left: y[r] += scale[r] * left . inner[r]. */
struct expansion {
    const float *left, *inner[EXPAND_ROWS];
    float       *y[EXPAND_ROWS], scale[EXPAND_ROWS];
    int64_t      rank;
    int          n;
};

/* Entry i, which is not done, and the next ones with the same left. One row's
 * parts add in list order: an entry waits for the one before it of its row. */
static void pick_left(struct expansion *e, const struct ctsk_adapt *a, struct chunk *c, int i)
{
    e->left = cts_cpu_at((struct ctsk_ptr){ c->factors[i]->left });
    e->rank = c->factors[i]->rank_out;
    e->n = 0;
    for (int j = i; j < c->n && e->n < EXPAND_ROWS && j <= i + 2 * EXPAND_ROWS; j++) {
        const struct ctsk_factor *f = c->factors[j];

        if (is_done(c, j) || f->left != c->factors[i]->left || f->rank_out != e->rank) continue;
        if (j > i && c->parts[j].row == c->parts[j - 1].row && !is_done(c, j - 1)) continue;
        c->done |= (uint64_t)1 << j;
        e->inner[e->n] = inner_of(a, c, j);
        e->y[e->n] = (float *)cts_cpu_at(a->y) + c->parts[j].row * a->y_ld;
        e->scale[e->n++] = c->parts[j].weight * f->scale;
    }
}

/* acc[r] += the first n columns, which lie in cols[], times inner[r][k ..]; n_x a constant. */
INLINE void expand_cols(vf *acc, const vf *cols, const float *const *inner, const int n_x, int64_t k,
                        const int n)
{
    vf sum[VF_LANES];

#pragma GCC unroll 8
    for (int r = 0; r < n_x; r++) sum[r] = acc[r];
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (int r = 0; r < n_x; r++) sum[r] = vf_fma(vf_set1(inner[r][k + i]), cols[i], sum[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < n_x; r++) acc[r] = sum[r];
}

/* Outputs out .. out + n_outs - 1 of all rows of e, n_outs <= VF_LANES. */
static void expand_lanes(const struct expansion *e, int64_t out, int n_outs)
{
    vf  acc[EXPAND_ROWS], cols[VF_LANES];
    int r;

    for (r = 0; r < e->n; r++) acc[r] = vf_zero();
    for (int64_t k = 0; k < e->rank; k += VF_LANES) {
        int n = at_most(e->rank - k, VF_LANES);

#pragma GCC unroll 16
        for (int i = 0; i < VF_LANES; i++) {
            const float *row = e->left + (out + (i < n_outs ? i : n_outs - 1)) * e->rank + k;

            cols[i] = n == VF_LANES ? vf_load(row) : vf_load_n(row, n);
        }
        vf_transpose(cols);
        if (n == VF_LANES) {
            for (r = 0; r + VF_LANES / 2 <= e->n; r += VF_LANES / 2)
                expand_cols(acc + r, cols, e->inner + r, VF_LANES / 2, k, VF_LANES);
            for (; r < e->n; r++) expand_cols(acc + r, cols, e->inner + r, 1, k, VF_LANES);
        } else {
            for (r = 0; r < e->n; r++) expand_cols(acc + r, cols, e->inner + r, 1, k, n);
        }
    }
    for (r = 0; r < e->n; r++) {
        float *y = e->y[r] + out;

        vf_store_n(y, vf_fma(acc[r], vf_set1(e->scale[r]), vf_load_n(y, n_outs)), n_outs);
    }
}

static void adapt_expand(const struct ctsk_adapt *a, int64_t begin, int64_t end)
{
    for (int64_t first = 0; first < a->n_parts; first += CHUNK) {
        struct chunk     c;
        struct expansion e;

        chunk_init(&c, a, first, a->n_parts);
        for (int i = 0; i < c.n; i++) {
            if (is_done(&c, i)) continue;
            pick_left(&e, a, &c, i);
            for (int64_t o = begin; o < end; o += VF_LANES) expand_lanes(&e, o, at_most(end - o, VF_LANES));
        }
    }
}
