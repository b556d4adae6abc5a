/* Attention by one running softmax over blocks of BLOCK positions, from 0 up.
 * The blocks are cut by position, not by page, so the size of a page changes
 * no bit either. */

#define BLOCK     64 /* positions: whole vectors of every level */
#define GROUP_MAX 8  /* query heads that share one walk over keys and values */
_Static_assert(BLOCK % VF_LANES == 0, "a block of scores is whole vectors");

/* Query heads of one row that read the same key-value head, and their softmax so far. */
struct group {
    const float *q[GROUP_MAX];
    int          n_heads;
    float        max[GROUP_MAX], sum[GROUP_MAX];
    float        shrink[GROUP_MAX];                 /* e^(old max - new max) of this block */
    float        weight[GROUP_MAX][BLOCK];          /* of this block: scores, then e^(score - max) */
    float        acc[GROUP_MAX][CTSK_HEAD_DIM_MAX]; /* sum of e^(score - max) * v */
};

/* Where the keys and values of one block lie; n of BLOCK positions are there. */
struct kv_block {
    const float *k[BLOCK], *v[BLOCK];
    int          n;
};

static void find_block(const struct ctsk_attention *a, const int32_t *pages, int64_t kv_head, int64_t first,
                       int64_t n_positions, struct kv_block *b)
{
    int64_t stride = a->n_kv_heads * a->head_dim, page = first / a->page_tokens, in_page = first % a->page_tokens;
    int     i = 0;

    b->n = at_most(n_positions - first, BLOCK);
    while (i < b->n) {
        int64_t      off = (pages[page++] * a->page_tokens + in_page) * stride + kv_head * a->head_dim;
        const float *k = (const float *)cts_cpu_at(a->k_pages) + off, *v = (const float *)cts_cpu_at(a->v_pages) + off;

        for (; in_page < a->page_tokens && i < b->n; in_page++, i++, k += stride, v += stride) {
            b->k[i] = k;
            b->v[i] = v;
        }
        in_page = 0;
    }
    for (; i % 4 != 0; i++) b->k[i] = b->k[i - 1]; /* read by the last tile, then masked */
}

/* weight[h][i] = scale * q[h] . k[i], -infinity from the block's end to the end of its last vector */
static void score_block(struct group *g, const struct kv_block *b, int64_t head_dim, float scale)
{
    float sums[VF_MM_ROWS * 4];

    for (int h = 0; h < g->n_heads; h += VF_MM_ROWS) {
        int n_heads = at_most(g->n_heads - h, VF_MM_ROWS);

        for (int i = 0; i < b->n; i += 4) {
            dot_rows(sums, g->q + h, b->k + i, n_heads, head_dim);
            for (int r = 0; r < n_heads; r++) memcpy(g->weight[h + r] + i, sums + 4 * r, 4 * sizeof(float));
        }
    }
    for (int h = 0; h < g->n_heads; h++) {
        for (int i = 0; i < b->n; i += VF_LANES)
            vf_store(g->weight[h] + i, vf_mul(vf_load(g->weight[h] + i), vf_set1(scale)));
        for (int i = b->n; i % VF_LANES != 0; i++) g->weight[h][i] = -INFINITY;
    }
}

/* Move the maxima; shrink is the factor for what was summed up under the old ones. */
static void move_max(struct group *g, int n)
{
    float old[GROUP_MAX] = { 0.0f };

    for (int h = 0; h < g->n_heads; h++) {
        vf top = vf_set1(g->max[h]);

        for (int i = 0; i < n; i += VF_LANES) top = vf_max(top, vf_load(g->weight[h] + i));
        old[h] = g->max[h] - vf_hmax(top);
        g->max[h] = vf_hmax(top);
    }
    for (int h = 0; h < GROUP_MAX; h += VF_LANES) {
        int lanes = at_most(GROUP_MAX - h, VF_LANES);

        vf_store_n(g->shrink + h, vf_exp(vf_load_n(old + h, lanes)), lanes);
    }
}

static void weigh_block(struct group *g, int n)
{
    move_max(g, n);
    for (int h = 0; h < g->n_heads; h++) {
        vf sum = vf_zero(), max = vf_set1(g->max[h]);

        for (int i = 0; i < n; i += VF_LANES) {
            vf weight = vf_exp(vf_sub(vf_load(g->weight[h] + i), max));

            vf_store(g->weight[h] + i, weight);
            sum = vf_add(sum, weight);
        }
        g->sum[h] = g->sum[h] * g->shrink[h] + vf_hsum(sum);
    }
}

/* acc = acc * shrink + sum over the block of weight * v, in the order of
 * positions, for n_heads heads from head on and n_vecs whole vectors of their
 * width, or the first n lanes of one; n_heads and n_vecs are constants. */
INLINE void value_tile(struct group *g, const struct kv_block *b, int head, const int n_heads, int64_t col,
                       const int n_vecs, int n)
{
    vf acc[VF_MM_ROWS * 2], v[2];

#pragma GCC unroll 8
    for (int h = 0; h < n_heads; h++)
#pragma GCC unroll 2
        for (int c = 0; c < n_vecs; c++) {
            const float *old = g->acc[head + h] + col + c * VF_LANES;

            acc[h * n_vecs + c] = vf_mul(n_vecs == 1 ? vf_load_n(old, n) : vf_load(old), vf_set1(g->shrink[head + h]));
        }
    for (int i = 0; i < b->n; i++) {
#pragma GCC unroll 2
        for (int c = 0; c < n_vecs; c++)
            v[c] = n_vecs == 1 ? vf_load_n(b->v[i] + col, n) : vf_load(b->v[i] + col + c * VF_LANES);
#pragma GCC unroll 8
        for (int h = 0; h < n_heads; h++)
#pragma GCC unroll 2
            for (int c = 0; c < n_vecs; c++)
                acc[h * n_vecs + c] = vf_fma(vf_set1(g->weight[head + h][i]), v[c], acc[h * n_vecs + c]);
    }
#pragma GCC unroll 8
    for (int h = 0; h < n_heads; h++)
#pragma GCC unroll 2
        for (int c = 0; c < n_vecs; c++) {
            float *to = g->acc[head + h] + col + c * VF_LANES;

            if (n_vecs == 1) vf_store_n(to, acc[h], n);
            else vf_store(to, acc[h * n_vecs + c]);
        }
}

static void add_values(struct group *g, const struct kv_block *b, int head, int n_heads, int64_t head_dim)
{
    int64_t col = 0;

#define CODE(rows)                                                                                       \
    for (; col + 2 * VF_LANES <= head_dim; col += 2 * VF_LANES) value_tile(g, b, head, rows, col, 2, 0); \
    for (; col < head_dim; col += VF_LANES)                                                              \
        value_tile(g, b, head, rows, col, 1, at_most(head_dim - col, VF_LANES));                         \
    break
    WITH_ROWS(n_heads, CODE)
#undef CODE
}

static void group_init(struct group *g, const float *q, int n_heads, int64_t head_dim)
{
    g->n_heads = n_heads;
    for (int h = 0; h < n_heads; h++) {
        g->q[h] = q + h * head_dim;
        g->max[h] = -INFINITY;
        g->sum[h] = 0.0f;
        memset(g->acc[h], 0, (size_t)head_dim * sizeof(float));
    }
}

/* Query heads head .. head + n_heads - 1 of a row, all of one key-value head. */
static void attend(const struct ctsk_attention *a, int64_t row, int64_t kv_head, int64_t head, int n_heads)
{
    const int32_t *seq = cts_cpu_at(a->seq), *pos = cts_cpu_at(a->pos);
    const int32_t *pages = (const int32_t *)cts_cpu_at(a->page_table) + seq[row] * a->n_pages_max;
    float         *y = (float *)cts_cpu_at(a->y) + (row * a->n_heads + head) * a->head_dim;
    int64_t        n_positions = (int64_t)pos[row] + 1;
    struct group   g;

    group_init(&g, (const float *)cts_cpu_at(a->q) + row * a->q_ld + head * a->head_dim, n_heads, a->head_dim);
    for (int64_t first = 0; first < n_positions; first += BLOCK) {
        struct kv_block b;

        find_block(a, pages, kv_head, first, n_positions, &b);
        score_block(&g, &b, a->head_dim, a->scale);
        weigh_block(&g, b.n);
        for (int h = 0; h < n_heads; h += VF_MM_ROWS)
            add_values(&g, &b, h, at_most(n_heads - h, VF_MM_ROWS), a->head_dim);
    }
    for (int h = 0; h < n_heads; h++)
        for (int64_t c = 0; c < a->head_dim; c++) y[h * a->head_dim + c] = g.acc[h][c] / g.sum[h];
}

static void attention(const struct ctsk_attention *a, int64_t begin, int64_t end)
{
    int64_t group = a->n_heads / a->n_kv_heads;

    for (int64_t pair = begin; pair < end; pair++) {
        int64_t row = pair / a->n_kv_heads, kv_head = pair % a->n_kv_heads;

        for (int64_t h = 0; h < group; h += GROUP_MAX)
            attend(a, row, kv_head, kv_head * group + h, at_most(group - h, GROUP_MAX));
    }
}
