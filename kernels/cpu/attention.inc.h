/* Attention by one running softmax over blocks of BLOCK positions, from 0 up.
 * The blocks are cut by position, not by page, so the size of a page changes
 * no bit either. */

#define BLOCK 16     /* positions: whole vectors of every level */
#define GROUP_MAX 8  /* query heads that share one walk over keys and values */
_Static_assert(BLOCK % VF_LANES == 0, "a block of scores is whole vectors");

/* The softmax so far, of one query head. */
struct running {
    float max, sum;
    float acc[CTSK_HEAD_DIM_MAX]; /* sum of e^(score - max) * v, first head_dim used */
};

/* Where the keys and values of one block lie; n of BLOCK positions are there. */
struct kv_block {
    const float *k[BLOCK], *v[BLOCK];
    int          n;
};

static void find_block(const struct ctsk_attention *a, const int32_t *pages, int64_t kv_head, int64_t first,
                       int64_t n_positions, struct kv_block *b)
{
    const float *k = cts_cpu_at(a->k_pages), *v = cts_cpu_at(a->v_pages);
    int64_t      page = first / a->page_tokens, in_page = first % a->page_tokens;

    b->n = n_positions - first < BLOCK ? (int)(n_positions - first) : BLOCK;
    for (int i = 0; i < b->n; i++) {
        int64_t off = ((pages[page] * a->page_tokens + in_page) * a->n_kv_heads + kv_head) * a->head_dim;

        b->k[i] = k + off;
        b->v[i] = v + off;
        if (++in_page == a->page_tokens) {
            in_page = 0;
            page++;
        }
    }
    for (int i = b->n; i < BLOCK; i++) b->k[i] = b->k[b->n - 1]; /* read by the last tile, then masked */
}

/* score[i] = scale * q . k[i]; -infinity where the block has no position. */
static void score_block(float *score, const float *q, const struct kv_block *b, int64_t head_dim, float scale)
{
    for (int i = 0; i < b->n; i += 4) dot_4(score + i, q, b->k + i, head_dim);
    for (int i = 0; i < b->n; i++) score[i] *= scale;
    for (int i = b->n; i < BLOCK; i++) score[i] = -INFINITY;
}

/* acc = acc * shrink + sum over the block of weight[i] * v[i], in this order. */
static void add_values(float *acc, float shrink, const float *weight, const struct kv_block *b, int64_t head_dim)
{
    for (int64_t c = 0; c < head_dim; c += VF_LANES) {
        int n = head_dim - c < VF_LANES ? (int)(head_dim - c) : VF_LANES;
        vf  sum = vf_mul(vf_load_n(acc + c, n), vf_set1(shrink));

        for (int i = 0; i < b->n; i++) sum = vf_fma(vf_set1(weight[i]), vf_load_n(b->v[i] + c, n), sum);
        vf_store_n(acc + c, sum, n);
    }
}

static void attend_block(struct running *s, const float *q, const struct kv_block *b, int64_t head_dim,
                         float scale)
{
    float score[BLOCK], max, shrink;
    vf    top, sum = vf_zero();

    score_block(score, q, b, head_dim, scale);
    top = vf_load(score);
    for (int i = VF_LANES; i < BLOCK; i += VF_LANES) top = vf_max(top, vf_load(score + i));
    max = vf_hmax(vf_max(top, vf_set1(s->max)));
    vf_store_n(&shrink, vf_exp(vf_set1(s->max - max)), 1);
    for (int i = 0; i < BLOCK; i += VF_LANES) {
        vf weight = vf_exp(vf_sub(vf_load(score + i), vf_set1(max)));

        vf_store(score + i, weight);
        sum = vf_add(sum, weight);
    }
    s->max = max;
    s->sum = s->sum * shrink + vf_hsum(sum);
    add_values(s->acc, shrink, score, b, head_dim);
}

/* Query heads head .. head + n_heads - 1 of a row, all of one key-value head. */
static void attend(const struct ctsk_attention *a, int64_t row, int64_t kv_head, int64_t head, int n_heads)
{
    const int32_t *pages = (const int32_t *)cts_cpu_at(a->page_table) +
                           ((const int32_t *)cts_cpu_at(a->seq))[row] * a->n_pages_max;
    const float   *q = (const float *)cts_cpu_at(a->q) + row * a->q_ld + head * a->head_dim;
    float         *y = (float *)cts_cpu_at(a->y) + (row * a->n_heads + head) * a->head_dim;
    int64_t        n_positions = (int64_t)((const int32_t *)cts_cpu_at(a->pos))[row] + 1;
    struct running heads[GROUP_MAX];

    for (int h = 0; h < n_heads; h++) {
        heads[h].max = -INFINITY;
        heads[h].sum = 0.0f;
        memset(heads[h].acc, 0, (size_t)a->head_dim * sizeof(float));
    }
    for (int64_t first = 0; first < n_positions; first += BLOCK) {
        struct kv_block b;

        find_block(a, pages, kv_head, first, n_positions, &b);
        for (int h = 0; h < n_heads; h++)
            attend_block(&heads[h], q + h * a->head_dim, &b, a->head_dim, a->scale);
    }
    for (int h = 0; h < n_heads; h++)
        for (int64_t c = 0; c < a->head_dim; c++) y[h * a->head_dim + c] = heads[h].acc[c] / heads[h].sum;
}

static void attention(const struct ctsk_attention *a, int64_t begin, int64_t end)
{
    int64_t group = a->n_heads / a->n_kv_heads;

    for (int64_t pair = begin; pair < end; pair++) {
        int64_t row = pair / a->n_kv_heads, kv_head = pair % a->n_kv_heads;

        for (int64_t h = 0; h < group; h += GROUP_MAX) {
            int n_heads = group - h < GROUP_MAX ? (int)(group - h) : GROUP_MAX;

            attend(a, row, kv_head, kv_head * group + h, n_heads);
        }
    }
}
