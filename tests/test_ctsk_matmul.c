/* The matrix product on every backend against ref, within the bound of ctsk.h,
 * and each row's bits against the same row in other company. */
#include "tests/check.h"
#include "tests/ctsk_rig.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

struct shape {
    int64_t n_rows, n_in, n_out, x_ld, y_ld;
    int     accumulate;
};

static const struct shape SHAPES[] = {
    { 0, 8, 8, 8, 8, 0 },     { 1, 1, 1, 1, 1, 0 },       { 1, 1, 3, 1, 3, 1 },      { 2, 3, 1, 3, 1, 0 },
    { 3, 7, 5, 9, 11, 1 },    { 5, 16, 4, 16, 4, 0 },     { 6, 17, 6, 17, 6, 1 },    { 7, 33, 19, 40, 23, 1 },
    { 13, 64, 31, 64, 32, 0 }, { 64, 256, 37, 300, 40, 0 }, { 97, 31, 17, 31, 17, 1 }, { 200, 5, 3, 8, 3, 0 },
    { 1, 4096, 65, 4096, 65, 0 }, { 66, 640, 130, 640, 130, 0 }, { 4, 2500, 9, 2500, 9, 1 },
    { 13, 1025, 5, 1025, 5, 1 }, { 98, 2049, 18, 2049, 20, 1 },
};
#define N_SHAPES (sizeof(SHAPES) / sizeof(SHAPES[0]))

struct data {
    const struct shape *shape;
    float              *x, *w, *y; /* y as it was before, with its guard */
    size_t              n_x, n_w, n_y;
};

static void data_init(struct data *d, const struct shape *s, float *(*fill)(uint64_t, size_t))
{
    d->shape = s;
    d->n_x = (size_t)(s->n_rows * s->x_ld);
    d->n_w = (size_t)(s->n_out * s->n_in);
    d->n_y = (size_t)(s->n_rows * s->y_ld) + RIG_GUARD;
    d->x = fill(1, d->n_x);
    d->w = fill(2, d->n_w);
    d->y = fill(3, d->n_y);
    for (size_t i = d->n_y - RIG_GUARD; i < d->n_y; i++) d->y[i] = RIG_GUARD_BITS;
}

static void data_deinit(struct data *d)
{
    free(d->x);
    free(d->w);
    free(d->y);
}

/* y of rows first .. first + n_rows - 1 alone, with whatever stands beside and behind it. */
static void multiply(struct rig *g, const struct data *d, int64_t first, int64_t n_rows, float *y)
{
    const struct shape *s = d->shape;
    size_t              n_y = (size_t)(n_rows * s->y_ld) + RIG_GUARD;
    struct ctsk_matmul  a = { .n_rows = n_rows, .n_in = s->n_in, .n_out = s->n_out, .x_ld = s->x_ld,
                              .y_ld = s->y_ld, .accumulate = s->accumulate };

    memcpy(y, d->y + first * s->y_ld, n_y * sizeof(*y));
    for (size_t i = n_y - RIG_GUARD; i < n_y; i++) y[i] = RIG_GUARD_BITS;
    a.x = rig_put(g, d->x + first * s->x_ld, (size_t)(n_rows * s->x_ld) * sizeof(float));
    a.w = rig_put(g, d->w, d->n_w * sizeof(float));
    a.y = rig_put(g, y, n_y * sizeof(float));
    CHECK(ctsk_matmul(g->stream, &a) == 0);
    rig_get(g, y, a.y, n_y * sizeof(float));
    rig_clear(g);
}

static double magnitude(const struct data *d, int64_t r, int64_t o)
{
    const struct shape *s = d->shape;
    double              sum = s->accumulate ? fabs((double)d->y[r * s->y_ld + o]) : 0.0;

    for (int64_t i = 0; i < s->n_in; i++)
        sum += fabs((double)d->x[r * s->x_ld + i] * d->w[o * s->n_in + i]);
    return sum;
}

/* Equal outside of the n_out columns, within the bound inside. */
static void check_close(struct rig *g, const struct data *d, const float *want, const float *got)
{
    const struct shape *s = d->shape;
    double              unit = ((double)s->n_in / 4 + 8) * 0x1p-24;

    for (size_t i = 0; i < d->n_y; i++) {
        int64_t r = (int64_t)i / s->y_ld, o = (int64_t)i % s->y_ld;
        double  bound = r < s->n_rows && o < s->n_out ? unit * magnitude(d, r, o) : 0.0;

        CHECK_MSG(fabs((double)got[i] - want[i]) <= bound, "%s: %dx%dx%d at %zu: %.9g, not %.9g\n",
                  ctsk_describe(g->dev), (int)s->n_rows, (int)s->n_in, (int)s->n_out, i, (double)got[i],
                  (double)want[i]);
    }
}

static void compare_shapes(struct rig *g, void *arg)
{
    struct rig ref;

    (void)arg;
    rig_open(&ref, "ref", NULL, 1);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct data d;
        float      *want, *got;

        data_init(&d, &SHAPES[i], rig_noise);
        want = rig_alloc(d.n_y, sizeof(float));
        got = rig_alloc(d.n_y, sizeof(float));
        multiply(&ref, &d, 0, d.shape->n_rows, want);
        multiply(g, &d, 0, d.shape->n_rows, got);
        check_close(g, &d, want, got);
        free(want);
        free(got);
        data_deinit(&d);
    }
    rig_close(&ref);
}

static void matmul_agrees_with_ref_on_every_backend(void **state)
{
    (void)state;
    rig_each_backend(compare_shapes, NULL);
}

static void compare_integers(struct rig *g, void *arg)
{
    struct rig ref;

    (void)arg;
    rig_open(&ref, "ref", NULL, 1);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct data d;
        float      *want, *got;

        data_init(&d, &SHAPES[i], rig_integers);
        want = rig_alloc(d.n_y, sizeof(float));
        got = rig_alloc(d.n_y, sizeof(float));
        multiply(&ref, &d, 0, d.shape->n_rows, want);
        multiply(g, &d, 0, d.shape->n_rows, got);
        CHECK(memcmp(want, got, d.n_y * sizeof(float)) == 0);
        free(want);
        free(got);
        data_deinit(&d);
    }
    rig_close(&ref);
}

static void matmul_of_small_integers_is_exact_on_every_backend(void **state)
{
    (void)state;
    rig_each_backend(compare_integers, NULL);
}

/* Of one data set, every row alone, kept as the standard. */
struct company {
    struct data *d;
    float       *alone; /* [70, y_ld] */
};

static void rows_alone(struct rig *g, void *arg)
{
    struct company *c = arg;
    int64_t         ld = c->d->shape->y_ld;
    float          *y = rig_alloc((size_t)ld + RIG_GUARD, sizeof(float));

    for (int64_t r = 0; r < 70; r++) {
        multiply(g, c->d, r, 1, y);
        memcpy(c->alone + r * ld, y, (size_t)ld * sizeof(float));
    }
    free(y);
}

/* Batches of every size, each from another first row. */
static void rows_in_batches(struct rig *g, void *arg)
{
    struct company *c = arg;
    int64_t         ld = c->d->shape->y_ld;
    float          *y = rig_alloc((size_t)(70 * ld) + RIG_GUARD, sizeof(float));

    for (int64_t n = 1; n <= 70; n++) {
        int64_t first = 70 - n < 3 ? 70 - n : 3;

        multiply(g, c->d, first, n, y);
        CHECK_MSG(memcmp(y, c->alone + first * ld, (size_t)(n * ld) * sizeof(float)) == 0, "%s: %d rows\n",
                  ctsk_describe(g->dev), (int)n);
    }
    free(y);
}

static void matmul_row_has_the_same_bits_in_any_batch_and_on_any_threads(void **state)
{
    static const struct shape WIDE = { 70, 203, 70, 210, 71, 0 }, ADDED = { 70, 64, 37, 64, 37, 1 };
    const struct shape       *shapes[] = { &WIDE, &ADDED };
    const char               *names[8];
    uint32_t                  n_levels = ctsk_cpu_levels(names, 8);

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct data    d;
        struct company c = { .d = &d };
        struct rig     g;

        data_init(&d, shapes[i], rig_noise);
        c.alone = rig_alloc((size_t)(70 * d.shape->y_ld), sizeof(float));
        for (uint32_t l = 0; l < n_levels; l++) {
            for (uint32_t t = 1; t <= 3; t++) {
                rig_open(&g, "cpu", names[l], t);
                if (t == 1) rows_alone(&g, &c);
                rows_in_batches(&g, &c);
                rig_close(&g);
            }
        }
        free(c.alone);
        data_deinit(&d);
    }
}

/* Three rows whose last lies past 2^31 elements, in pages of which few are ever
 * touched. The device of these backends is the host, so the test may map them. */
static float *sparse(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

static void multiply_far(struct rig *g, void *arg)
{
    const int64_t      far = ((int64_t)1 << 30) + 16;
    size_t             bytes = (size_t)(2 * far + 16) * sizeof(float);
    float             *x = sparse(bytes), *y = sparse(bytes), w[2] = { 1.0f, 10.0f };
    struct ctsk_matmul a = { .n_rows = 3, .n_in = 2, .n_out = 1, .x_ld = far, .y_ld = far };

    (void)arg;
    for (int64_t r = 0; r < 3; r++) {
        x[r * far] = (float)(r + 1);
        x[r * far + 1] = 0.5f;
    }
    a.x.addr = (uint64_t)(uintptr_t)x;
    a.y.addr = (uint64_t)(uintptr_t)y;
    a.w.addr = (uint64_t)(uintptr_t)w;
    CHECK(ctsk_matmul(g->stream, &a) == 0);
    CHECK(ctsk_sync(g->stream) == 0);
    for (int64_t r = 0; r < 3; r++) CHECK(y[r * far] == (float)(r + 6));
    munmap(x, bytes);
    munmap(y, bytes);
}

static void matmul_reaches_rows_beyond_2_to_31_elements(void **state)
{
    struct rig ref;

    (void)state;
    rig_open(&ref, "ref", NULL, 1);
    multiply_far(&ref, NULL);
    rig_close(&ref);
    rig_each_level(1, multiply_far, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matmul_agrees_with_ref_on_every_backend),
        cmocka_unit_test(matmul_of_small_integers_is_exact_on_every_backend),
        cmocka_unit_test(matmul_reaches_rows_beyond_2_to_31_elements),
        cmocka_unit_test(matmul_row_has_the_same_bits_in_any_batch_and_on_any_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
