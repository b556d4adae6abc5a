/* Adapters: sigmas of a cluster, pairs of low-rank factors and several of them
 * on one row, on every backend against ref and bit by bit in any company. */
#include "tests/check.h"
#include "tests/ctsk_rig.h"

#include <math.h>
#include <string.h>

enum { N_ROWS = 70, N_MODULES = 3, MODULE = 1, N_ADAPTERS = 6, PARTS_MAX = 3 * N_ROWS };

struct shape {
    int64_t  n_rows, n_in, n_out, x_ld, y_ld;
    uint32_t ranks[N_ADAPTERS]; /* of the adapters below, each used both as rank_in and, by neighbours, rank_out */
};

static const struct shape SHAPES[] = {
    { 0, 4, 4, 4, 4, { 1, 1, 1, 1, 1, 1 } },
    { 5, 1, 1, 1, 1, { 1, 1, 1, 1, 1, 1 } },
    { 7, 33, 19, 40, 23, { 1, 2, 3, 4, 5, 6 } },
    { N_ROWS, 256, 128, 256, 130, { 16, 16, 16, 32, 8, 17 } },
    { N_ROWS, 203, 71, 203, 71, { 16, 16, 33, 3, 64, 5 } },
    { 3, 2000, 9, 2000, 9, { 16, 15, 14, 200, 12, 11 } },
};

/* Adapters 0 and 1 are sigmas of one cluster, 2 is a sigma of another with
 * rank_out != rank_in, 3 and 4 are low-rank pairs, 5 leaves the module alone. */
struct adapter {
    uint32_t rank_in, rank_out;
    float   *right, *sigma, *left; /* sigma NULL: none */
    float    scale;
};

struct data {
    const struct shape  *shape;
    float               *x, *y;
    struct adapter       adapters[N_ADAPTERS];
    struct { uint32_t row, adapter; float weight; } parts[PARTS_MAX];
    int64_t              n_parts;
};

static void adapter_init(struct data *d, int i)
{
    const struct shape *s = d->shape;
    struct adapter     *a = &d->adapters[i];
    uint64_t            cluster = i < 2 ? 0 : (uint64_t)i;

    a->rank_in = i == 5 ? 0 : s->ranks[i < 2 ? 0 : i];
    a->rank_out = i == 2 ? s->ranks[3] : a->rank_in;
    a->right = rig_noise(10 + cluster, (size_t)(a->rank_in * s->n_in));
    a->left = rig_noise(20 + cluster, (size_t)(a->rank_out * s->n_out));
    a->sigma = i < 3 ? rig_noise(30 + (uint64_t)i, a->rank_in * a->rank_out) : NULL;
    a->scale = 0.5f + (float)i;
}

/* Row r: none, one, two or three parts, in an order of its own. */
static void data_init(struct data *d, const struct shape *s)
{
    *d = (struct data){ .shape = s };
    d->x = rig_noise(1, (size_t)(N_ROWS * s->x_ld));
    d->y = rig_noise(2, (size_t)(N_ROWS * s->y_ld));
    for (int i = 0; i < N_ADAPTERS; i++) adapter_init(d, i);
    for (uint32_t r = 0; r < s->n_rows; r++) {
        for (uint32_t k = 0; k < r % 4; k++) {
            d->parts[d->n_parts].row = r;
            d->parts[d->n_parts].adapter = (r / 4 + k * (r / 16 + 1)) % N_ADAPTERS;
            d->parts[d->n_parts++].weight = 1.0f - 0.25f * (float)(r % 7);
        }
    }
}

static void data_deinit(struct data *d)
{
    for (int i = 0; i < N_ADAPTERS; i++) {
        free(d->adapters[i].right);
        free(d->adapters[i].left);
        free(d->adapters[i].sigma);
    }
    free(d->x);
    free(d->y);
}

/* The device's tables of all adapters; the cluster's bases are put once. */
static void put_adapters(struct rig *g, const struct data *d, uint64_t *tables)
{
    const struct shape *s = d->shape;
    uint64_t            right = 0, left = 0;

    for (int i = 0; i < N_ADAPTERS; i++) {
        const struct adapter *a = &d->adapters[i];
        struct ctsk_factor    f[N_MODULES] = { { 0 } };

        if (i != 1) {
            right = rig_put(g, a->right, (size_t)(a->rank_in * s->n_in) * sizeof(float)).addr;
            left = rig_put(g, a->left, (size_t)(a->rank_out * s->n_out) * sizeof(float)).addr;
        }
        f[MODULE] = (struct ctsk_factor){ .right = right, .left = left, .rank_in = a->rank_in,
                                          .rank_out = a->rank_out, .scale = a->scale };
        if (a->sigma != NULL)
            f[MODULE].sigma = rig_put(g, a->sigma, (size_t)a->rank_in * a->rank_out * sizeof(float)).addr;
        tables[i] = rig_put(g, f, sizeof(f)).addr;
    }
}

/* Rows first .. first + n_rows - 1 of the data, as one call; y has a guard. */
static void adapt(struct rig *g, const struct data *d, int64_t first, int64_t n_rows, float *y)
{
    const struct shape  *s = d->shape;
    size_t               n_y = (size_t)(n_rows * s->y_ld), n_scratch;
    float               *old = rig_guarded(3, n_y), *scratch;
    uint64_t             tables[N_ADAPTERS];
    struct ctsk_row_part parts[PARTS_MAX];
    struct ctsk_adapt    a = { .n_rows = n_rows, .n_in = s->n_in, .n_out = s->n_out, .x_ld = s->x_ld, .y_ld = s->y_ld,
                               .rank_max = 1, .module_idx = MODULE };

    put_adapters(g, d, tables);
    for (int i = 0; i < N_ADAPTERS; i++)
        if (s->ranks[i] > a.rank_max) a.rank_max = s->ranks[i];
    for (int64_t p = 0; p < d->n_parts; p++) {
        if (d->parts[p].row < first || d->parts[p].row >= first + n_rows) continue;
        parts[a.n_parts++] = (struct ctsk_row_part){ tables[d->parts[p].adapter], d->parts[p].weight,
                                                     d->parts[p].row - (uint32_t)first };
    }
    n_scratch = (size_t)(a.n_parts * 2 * a.rank_max);
    scratch = rig_guarded(4, n_scratch);
    memcpy(old, d->y + first * s->y_ld, n_y * sizeof(float));
    a.x = rig_put(g, d->x + first * s->x_ld, (size_t)(n_rows * s->x_ld) * sizeof(float));
    a.y = rig_put(g, old, (n_y + RIG_GUARD) * sizeof(float));
    a.row_parts = rig_put(g, parts, (size_t)a.n_parts * sizeof(parts[0]));
    a.scratch = rig_put(g, scratch, (n_scratch + RIG_GUARD) * sizeof(float));
    CHECK(ctsk_adapt(g->stream, &a) == 0);
    rig_get(g, y, a.y, (n_y + RIG_GUARD) * sizeof(float));
    rig_get(g, scratch, (struct ctsk_ptr){ a.scratch.addr + n_scratch * sizeof(float) }, RIG_GUARD * sizeof(float));
    for (int i = 0; i < RIG_GUARD; i++) CHECK(scratch[i] == RIG_GUARD_BITS);
    rig_clear(g);
    free(old);
    free(scratch);
}

/* |left| . |sigma| . |right| . |x|, of one output. */
static double magnitude(const struct data *d, const struct adapter *a, const float *x, int64_t o)
{
    double t[256], total = 0.0;

    for (uint32_t i = 0; i < a->rank_in; i++) {
        t[i] = 0.0;
        for (int64_t c = 0; c < d->shape->n_in; c++) t[i] += fabs((double)a->right[i * d->shape->n_in + c] * x[c]);
    }
    for (uint32_t i = 0; i < a->rank_out; i++) {
        double inner = a->sigma == NULL ? t[i] : 0.0;

        for (uint32_t j = 0; j < a->rank_in && a->sigma != NULL; j++)
            inner += fabs((double)a->sigma[i * a->rank_in + j]) * t[j];
        total += fabs((double)a->left[o * a->rank_out + i]) * inner;
    }
    return total;
}

static void bound_parts(const struct data *d, double *bound)
{
    const struct shape *s = d->shape;

    for (int64_t p = 0; p < d->n_parts; p++) {
        const struct adapter *a = &d->adapters[d->parts[p].adapter];
        const float          *x = d->x + d->parts[p].row * s->x_ld;
        double                units = (double)(s->n_in + a->rank_in) / 4 + (double)a->rank_out + 32;
        double                size = fabs((double)d->parts[p].weight * a->scale);

        /* |y| is at most its old value and all parts' magnitudes so far, which are at least as large as 1 unit each */
        for (int64_t o = 0; o < s->n_out && a->rank_in > 0; o++)
            bound[d->parts[p].row * s->y_ld + o] += ((units + 3) * size * magnitude(d, a, x, o) + 1) * 0x1p-24;
    }
}

static void compare_shapes(struct rig *g, void *arg)
{
    struct rig ref;

    (void)arg;
    rig_open(&ref, "ref", NULL, 1);
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]); i++) {
        const struct shape *s = &SHAPES[i];
        size_t              n_y = (size_t)(s->n_rows * s->y_ld);
        float              *want = rig_alloc(n_y + RIG_GUARD, sizeof(float));
        float              *got = rig_alloc(n_y + RIG_GUARD, sizeof(float));
        double             *bound = rig_alloc(n_y, sizeof(double));
        struct data         d;

        data_init(&d, s);
        bound_parts(&d, bound);
        adapt(&ref, &d, 0, s->n_rows, want);
        adapt(g, &d, 0, s->n_rows, got);
        rig_check_close(g, "adapt", got, want, bound, n_y);
        data_deinit(&d);
        free(want);
        free(got);
        free(bound);
    }
    rig_close(&ref);
}

static void adapt_agrees_with_ref_on_every_backend(void **state)
{
    (void)state;
    rig_each_backend(compare_shapes, NULL);
}

static void check_company(const char *level, const struct data *d, uint32_t n_threads)
{
    int64_t    ld = d->shape->y_ld;
    float     *alone = rig_alloc((size_t)(N_ROWS * ld) + RIG_GUARD, sizeof(float));
    float     *y = rig_alloc((size_t)(N_ROWS * ld) + RIG_GUARD, sizeof(float));
    struct rig one, g;

    rig_open(&one, "cpu", level, 1);
    rig_open(&g, "cpu", level, n_threads);
    for (int64_t r = 0; r < N_ROWS; r++) adapt(&one, d, r, 1, alone + r * ld);
    for (int64_t n = 1; n <= N_ROWS; n++) {
        int64_t first = N_ROWS - n < 5 ? N_ROWS - n : 5;

        adapt(&g, d, first, n, y);
        CHECK_MSG(memcmp(y, alone + first * ld, (size_t)(n * ld) * sizeof(float)) == 0, "%s: %d rows\n",
                  ctsk_describe(g.dev), (int)n);
    }
    rig_close(&g);
    rig_close(&one);
    free(alone);
    free(y);
}

static void adapt_row_has_the_same_bits_in_any_batch_and_on_any_threads(void **state)
{
    struct data d;
    const char *names[8];
    uint32_t    n_levels = ctsk_cpu_levels(names, 8);

    (void)state;
    data_init(&d, &SHAPES[4]);
    for (uint32_t l = 0; l < n_levels; l++)
        for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) check_company(names[l], &d, n_threads);
    data_deinit(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapt_agrees_with_ref_on_every_backend),
        cmocka_unit_test(adapt_row_has_the_same_bits_in_any_batch_and_on_any_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
