/* Attention on every backend against ref, within the bound of ctsk.h, and bits:
 * neither the batch, nor threads, nor the size of a page may change one. */
#include "tests/check.h"
#include "tests/ctsk_rig.h"

#include <math.h>
#include <string.h>

enum { N_SEQS = 5, SEQ_TOKENS = 100, N_ROWS = 70 };

struct shape {
    int64_t n_rows, n_heads, n_kv_heads, head_dim, page_tokens, q_ld;
    float   loud; /* factor on q: large ones make the maximum move */
};

static const struct shape SHAPES[] = {
    { 0, 1, 1, 4, 4, 4, 1 },        { 1, 1, 1, 1, 1, 1, 1 },      { 5, 2, 1, 3, 7, 9, 30 },
    { 7, 4, 2, 64, 16, 256, 4 },    { 70, 4, 2, 64, 16, 300, 9 }, { 3, 12, 1, 20, 100, 240, 1 },
    { 2, 2, 2, 512, 16, 1024, 1 },  { 9, 3, 3, 33, 5, 99, 200 },
};

/* Row r asks at POS(r) of sequence SEQ(r); the pages of the pool are dealt out
 * in an order of their own. */
static int32_t seq_of(int64_t r)
{
    return (int32_t)(r % N_SEQS);
}

static int32_t pos_of(int64_t r)
{
    return (int32_t)(r * 29 % SEQ_TOKENS);
}

static int64_t n_pages(const struct shape *s)
{
    return (SEQ_TOKENS + s->page_tokens - 1) / s->page_tokens;
}

static int32_t page_of(const struct shape *s, int64_t seq, int64_t page)
{
    int64_t all = N_SEQS * n_pages(s);

    return (int32_t)(all - 1 - (seq + page * N_SEQS)); /* interleaved, backwards */
}

/* kv of [seq][position][kv head][d], laid out in pages. */
static float *in_pages(const struct shape *s, const float *kv)
{
    int64_t cols = s->n_kv_heads * s->head_dim;
    float  *pages = rig_noise(9, (size_t)(N_SEQS * n_pages(s) * s->page_tokens * cols)); /* the rest: other's tokens */

    for (int64_t i = 0; i < N_SEQS * SEQ_TOKENS; i++) {
        int64_t seq = i / SEQ_TOKENS, pos = i % SEQ_TOKENS;
        int64_t place = page_of(s, seq, pos / s->page_tokens) * s->page_tokens + pos % s->page_tokens;

        memcpy(pages + place * cols, kv + i * cols, (size_t)cols * sizeof(float));
    }
    return pages;
}

struct data {
    const struct shape *shape;
    float              *q, *k, *v; /* k, v [N_SEQS][SEQ_TOKENS][n_kv_heads][head_dim] */
};

static void data_init(struct data *d, const struct shape *s)
{
    size_t n_q = (size_t)(N_ROWS * s->q_ld), n_kv = (size_t)(N_SEQS * SEQ_TOKENS * s->n_kv_heads * s->head_dim);

    *d = (struct data){ s, rig_noise(1, n_q), rig_noise(2, n_kv), rig_noise(3, n_kv) };
    for (size_t i = 0; i < n_q; i++) d->q[i] *= s->loud;
}

static void data_deinit(struct data *d)
{
    free(d->q);
    free(d->k);
    free(d->v);
}

static struct ctsk_ptr put_pages(struct rig *g, const struct shape *s, const float *kv)
{
    float          *pages = in_pages(s, kv);
    struct ctsk_ptr at = rig_put(g, pages, (size_t)(N_SEQS * n_pages(s) * s->page_tokens * s->n_kv_heads *
                                                    s->head_dim) * sizeof(float));

    free(pages);
    return at;
}

/* Rows first .. first + n_rows - 1, in one call; y has a guard. */
static void attend(struct rig *g, const struct data *d, int64_t first, int64_t n_rows, float *y)
{
    const struct shape   *s = d->shape;
    size_t                n_y = (size_t)(n_rows * s->n_heads * s->head_dim);
    float                *old = rig_guarded(4, n_y);
    int32_t               pos[N_ROWS], seq[N_ROWS], *table = rig_alloc((size_t)(N_SEQS * n_pages(s)), sizeof(int32_t));
    struct ctsk_attention a = { .n_rows = n_rows, .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads,
                                .head_dim = s->head_dim, .q_ld = s->q_ld, .n_pages_max = n_pages(s),
                                .page_tokens = s->page_tokens, .scale = 1.0f / sqrtf((float)s->head_dim) };

    for (int64_t r = 0; r < n_rows; r++) {
        pos[r] = pos_of(first + r);
        seq[r] = seq_of(first + r);
    }
    for (int64_t i = 0; i < N_SEQS * n_pages(s); i++) table[i] = page_of(s, i / n_pages(s), i % n_pages(s));
    a.q = rig_put(g, d->q + first * s->q_ld, (size_t)(n_rows * s->q_ld) * sizeof(float));
    a.pos = rig_put(g, pos, (size_t)n_rows * sizeof(int32_t));
    a.seq = rig_put(g, seq, (size_t)n_rows * sizeof(int32_t));
    a.page_table = rig_put(g, table, (size_t)(N_SEQS * n_pages(s)) * sizeof(int32_t));
    a.k_pages = put_pages(g, s, d->k);
    a.v_pages = put_pages(g, s, d->v);
    a.y = rig_put(g, old, (n_y + RIG_GUARD) * sizeof(float));
    CHECK(ctsk_attention(g->stream, &a) == 0);
    rig_get(g, y, a.y, (n_y + RIG_GUARD) * sizeof(float));
    rig_clear(g);
    free(old);
    free(table);
}

/* The bound of ctsk.h for one row and head. */
static void bound_head(const struct data *d, int64_t r, int64_t head, double *bound)
{
    const struct shape *s = d->shape;
    int64_t             cols = s->n_kv_heads * s->head_dim, n = pos_of(r) + 1;
    int64_t             off = seq_of(r) * SEQ_TOKENS * cols + head / (s->n_heads / s->n_kv_heads) * s->head_dim;
    const float        *q = d->q + r * s->q_ld + head * s->head_dim;
    double              p[SEQ_TOKENS], max = -INFINITY, total = 0.0, largest = 0.0, units;

    for (int64_t j = 0; j < n; j++) {
        double sum = 0.0, size = 0.0;

        for (int64_t i = 0; i < s->head_dim; i++) {
            double product = (double)q[i] * d->k[off + j * cols + i];

            sum += product;
            size += fabs(product);
        }
        p[j] = sum / sqrt((double)s->head_dim);
        max = fmax(max, p[j]);
        largest = fmax(largest, size / sqrt((double)s->head_dim));
    }
    for (int64_t j = 0; j < n; j++) total += p[j] = exp(p[j] - max);
    units = 2 * ((double)s->head_dim / 4 + 16) * largest + 2.0 * (double)n + 32;
    for (int64_t i = 0; i < s->head_dim; i++) {
        bound[i] = 0.0;
        for (int64_t j = 0; j < n; j++) bound[i] += p[j] / total * fabs((double)d->v[off + j * cols + i]);
        bound[i] *= units * 0x1p-24;
    }
}

static void compare_shapes(struct rig *g, void *arg)
{
    struct rig ref;

    (void)arg;
    rig_open(&ref, "ref", NULL, 1);
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]); i++) {
        const struct shape *s = &SHAPES[i];
        size_t              n_y = (size_t)(s->n_rows * s->n_heads * s->head_dim);
        float              *want = rig_alloc(n_y + RIG_GUARD, sizeof(float));
        float              *got = rig_alloc(n_y + RIG_GUARD, sizeof(float));
        double             *bound = rig_alloc(n_y, sizeof(double));
        struct data         d;

        data_init(&d, s);
        for (int64_t h = 0; h < s->n_rows * s->n_heads; h++)
            bound_head(&d, h / s->n_heads, h % s->n_heads, bound + h * s->head_dim);
        attend(&ref, &d, 0, s->n_rows, want);
        attend(g, &d, 0, s->n_rows, got);
        rig_check_close(g, "attention", got, want, bound, n_y);
        data_deinit(&d);
        free(want);
        free(got);
        free(bound);
    }
    rig_close(&ref);
}

static void attention_agrees_with_ref_on_every_backend(void **state)
{
    (void)state;
    rig_each_backend(compare_shapes, NULL);
}

/* Rows alone, on one thread and pages of 16, against batches of every size. */
static void check_company(const char *level, const struct data *d, struct data *repaged, uint32_t n_threads)
{
    const struct shape *s = d->shape;
    int64_t             row = s->n_heads * s->head_dim;
    float              *alone = rig_alloc((size_t)(N_ROWS * row) + RIG_GUARD, sizeof(float));
    float              *y = rig_alloc((size_t)(N_ROWS * row) + RIG_GUARD, sizeof(float));
    struct rig          one, g;

    rig_open(&one, "cpu", level, 1);
    rig_open(&g, "cpu", level, n_threads);
    for (int64_t r = 0; r < N_ROWS; r++) attend(&one, d, r, 1, alone + r * row);
    for (int64_t n = 1; n <= N_ROWS; n++) {
        attend(&g, n % 2 == 0 ? d : repaged, N_ROWS - n, n, y);
        CHECK_MSG(memcmp(y, alone + (N_ROWS - n) * row, (size_t)(n * row) * sizeof(float)) == 0, "%s: %d rows\n",
                  ctsk_describe(g.dev), (int)n);
    }
    rig_close(&g);
    rig_close(&one);
    free(alone);
    free(y);
}

static void attention_row_has_the_same_bits_in_any_batch_on_any_threads_and_pages(void **state)
{
    static const struct shape PAGES_16 = { N_ROWS, 4, 2, 36, 16, 150, 5 }, PAGES_7 = { N_ROWS, 4, 2, 36, 7, 150, 5 };
    struct data               d, repaged;
    const char               *names[8];
    uint32_t                  n_levels = ctsk_cpu_levels(names, 8);

    (void)state;
    data_init(&d, &PAGES_16);
    data_init(&repaged, &PAGES_7);
    for (uint32_t l = 0; l < n_levels; l++)
        for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) check_company(names[l], &d, &repaged, n_threads);
    data_deinit(&d);
    data_deinit(&repaged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_agrees_with_ref_on_every_backend),
        cmocka_unit_test(attention_row_has_the_same_bits_in_any_batch_on_any_threads_and_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
