/* The ops on whole rows: embed, gather, norm, rotation and append, gate. */
#include "tests/check.h"
#include "tests/ctsk_rig.h"

#include <math.h>
#include <string.h>

#define UNIT 0x1p-24

/* What every comparison here does: the same call on ref and on g. */
typedef void case_fn(struct rig *g, const void *shape, float *y);

struct comparison {
    const char *what;
    case_fn    *call;
    const void *shape;
    size_t      n_y;
    double     *bound; /* [n_y] */
};

static void compare(struct rig *g, void *arg)
{
    struct comparison *c = arg;
    float             *got = rig_alloc(c->n_y + RIG_GUARD, sizeof(float));
    float             *want = rig_alloc(c->n_y + RIG_GUARD, sizeof(float));
    struct rig         ref;

    rig_open(&ref, "ref", NULL, 1);
    c->call(&ref, c->shape, want);
    c->call(g, c->shape, got);
    rig_clear(g);
    rig_close(&ref);
    rig_check_close(g, c->what, got, want, c->bound, c->n_y);
    free(got);
    free(want);
}

/* Embed and gather. */
struct pick_shape {
    int64_t n_rows, n_cols, x_ld;
};

static int32_t PICKED[70];

static void pick_init(void)
{
    for (int i = 0; i < 70; i++) PICKED[i] = (i * 37 + 11) % 64;
}

static void call_embed(struct rig *g, const void *shape, float *y)
{
    const struct pick_shape *s = shape;
    size_t                   n_y = (size_t)(s->n_rows * s->n_cols) + RIG_GUARD;
    float                   *table = rig_noise(1, (size_t)(64 * s->n_cols)), *old = rig_guarded(2, n_y - RIG_GUARD);
    struct ctsk_embed        a = { .n_rows = s->n_rows, .n_cols = s->n_cols, .n_ids = 64 };

    a.table = rig_put(g, table, (size_t)(64 * s->n_cols) * sizeof(float));
    a.ids = rig_put(g, PICKED, sizeof(PICKED));
    a.y = rig_put(g, old, n_y * sizeof(float));
    CHECK(ctsk_embed(g->stream, &a) == 0);
    rig_get(g, y, a.y, n_y * sizeof(float));
    for (int64_t r = 0; r < s->n_rows; r++)
        CHECK(memcmp(y + r * s->n_cols, table + PICKED[r] * s->n_cols, (size_t)s->n_cols * sizeof(float)) == 0);
    free(table);
    free(old);
}

static void call_gather(struct rig *g, const void *shape, float *y)
{
    const struct pick_shape *s = shape;
    size_t                   n_y = (size_t)(s->n_rows * s->n_cols) + RIG_GUARD;
    float                   *x = rig_noise(1, (size_t)(64 * s->x_ld)), *old = rig_guarded(2, n_y - RIG_GUARD);
    struct ctsk_gather       a = { .n_rows = s->n_rows, .n_cols = s->n_cols, .x_ld = s->x_ld };

    a.x = rig_put(g, x, (size_t)(64 * s->x_ld) * sizeof(float));
    a.ids = rig_put(g, PICKED, sizeof(PICKED));
    a.y = rig_put(g, old, n_y * sizeof(float));
    CHECK(ctsk_gather(g->stream, &a) == 0);
    rig_get(g, y, a.y, n_y * sizeof(float));
    for (int64_t r = 0; r < s->n_rows; r++)
        CHECK(memcmp(y + r * s->n_cols, x + PICKED[r] * s->x_ld, (size_t)s->n_cols * sizeof(float)) == 0);
    free(x);
    free(old);
}

static void embed_and_gather_copy_the_named_rows(void **state)
{
    static const struct pick_shape SHAPES[] = { { 0, 4, 4 }, { 1, 1, 1 }, { 3, 5, 9 }, { 70, 256, 300 }, { 70, 3, 3 } };

    (void)state;
    pick_init();
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]); i++) {
        size_t            n_y = (size_t)(SHAPES[i].n_rows * SHAPES[i].n_cols);
        struct comparison c = { "embed", call_embed, &SHAPES[i], n_y, rig_alloc(n_y, sizeof(double)) };

        rig_each_backend(compare, &c);
        c.what = "gather";
        c.call = call_gather;
        rig_each_backend(compare, &c);
        free(c.bound);
    }
}

/* Norm. */
struct norm_shape {
    int64_t n_rows, n_cols, x_ld;
    int     is_in_place;
};

static void call_rmsnorm(struct rig *g, const void *shape, float *y)
{
    const struct norm_shape *s = shape;
    size_t                   n_y = (size_t)(s->n_rows * s->n_cols), n_x = (size_t)(s->n_rows * s->x_ld);
    float                   *x = rig_guarded(1, n_x), *w = rig_noise(2, (size_t)s->n_cols), *old = rig_guarded(3, n_y);
    struct ctsk_rmsnorm      a = { .n_rows = s->n_rows, .n_cols = s->n_cols, .x_ld = s->x_ld, .eps = 1e-5f };

    a.x = rig_put(g, x, (n_x + RIG_GUARD) * sizeof(float));
    a.w = rig_put(g, w, (size_t)s->n_cols * sizeof(float));
    a.y = s->is_in_place ? a.x : rig_put(g, old, (n_y + RIG_GUARD) * sizeof(float));
    CHECK(ctsk_rmsnorm(g->stream, &a) == 0);
    rig_get(g, y, a.y, (n_y + RIG_GUARD) * sizeof(float));
    free(x);
    free(w);
    free(old);
}

/* The bounds that are a multiple of the result are filled from ref's result. */
static double *relative_bound(case_fn *call, const void *shape, size_t n_y, double factor)
{
    float     *want = rig_alloc(n_y + RIG_GUARD, sizeof(float));
    double    *bound = rig_alloc(n_y, sizeof(double));
    struct rig ref;

    rig_open(&ref, "ref", NULL, 1);
    call(&ref, shape, want);
    rig_close(&ref);
    for (size_t i = 0; i < n_y; i++) bound[i] = factor * fabs((double)want[i]);
    free(want);
    return bound;
}

static void rmsnorm_agrees_with_ref_on_every_backend(void **state)
{
    static const struct norm_shape SHAPES[] = { { 0, 4, 4, 0 },     { 1, 1, 1, 0 },       { 2, 1, 7, 0 },
                                                { 3, 5, 5, 1 },     { 1, 256, 256, 1 },   { 64, 256, 256, 0 },
                                                { 70, 31, 33, 0 },  { 5, 4099, 4100, 0 }, { 70, 100, 100, 1 } };

    (void)state;
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]); i++) {
        const struct norm_shape *s = &SHAPES[i];
        struct comparison        c = { "rmsnorm", call_rmsnorm, s, (size_t)(s->n_rows * s->n_cols), NULL };

        c.bound = relative_bound(call_rmsnorm, s, c.n_y, ((double)s->n_cols / 8 + 12) * UNIT);
        rig_each_backend(compare, &c);
        free(c.bound);
    }
}

/* Gate. */
struct silu_shape {
    int64_t n_rows, n_cols;
    int     y_is; /* 0: its own, 1: gate, 2: up */
};

/* Gates that meet the ends of the exponential's range, then a fine sweep. */
static float *gates(size_t n)
{
    static const float ENDS[] = { 0.0f, -0.0f, 1e-30f, -87.3f, -87.5f, -88.0f, -88.3f, -88.6f, -89.0f, -1000.0f,
                                  87.5f, 88.6f, 104.0f, 1000.0f, 3e38f, -3e38f };
    float             *x = rig_noise(1, n + RIG_GUARD);

    for (size_t i = 0; i < n; i++) x[i] = i % 40 < 16 ? ENDS[i % 40] : x[i] * (i % 3 == 0 ? 90.0f : 8.0f);
    for (size_t i = n; i < n + RIG_GUARD; i++) x[i] = RIG_GUARD_BITS;
    return x;
}

static void call_silu_mul(struct rig *g, const void *shape, float *y)
{
    const struct silu_shape *s = shape;
    size_t                   n = (size_t)(s->n_rows * s->n_cols), bytes = (n + RIG_GUARD) * sizeof(float);
    float                   *gate = gates(n), *up = rig_guarded(2, n), *old = rig_guarded(3, n);
    struct ctsk_silu_mul     a = { .n_rows = s->n_rows, .n_cols = s->n_cols };

    a.gate = rig_put(g, gate, bytes);
    a.up = rig_put(g, up, bytes);
    a.y = s->y_is == 1 ? a.gate : s->y_is == 2 ? a.up : rig_put(g, old, bytes);
    CHECK(ctsk_silu_mul(g->stream, &a) == 0);
    rig_get(g, y, a.y, bytes);
    free(gate);
    free(up);
    free(old);
}

static void silu_mul_agrees_with_ref_on_every_backend(void **state)
{
    static const struct silu_shape SHAPES[] = { { 0, 4, 0 },  { 1, 1, 0 },   { 3, 5, 1 },    { 7, 33, 2 },
                                                { 1, 640, 0 }, { 64, 640, 1 }, { 13, 1001, 2 } };

    (void)state;
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]); i++) {
        const struct silu_shape *s = &SHAPES[i];
        struct comparison        c = { "silu_mul", call_silu_mul, s, (size_t)(s->n_rows * s->n_cols), NULL };
        float                   *up = rig_guarded(2, c.n_y);

        c.bound = relative_bound(call_silu_mul, s, c.n_y, 8 * UNIT);
        for (size_t e = 0; e < c.n_y; e++) c.bound[e] += 0x1p-120 * fabs((double)up[e]);
        rig_each_backend(compare, &c);
        free(c.bound);
        free(up);
    }
}

/* Rotation and append: y is q, then the pages of k, then those of v. */
struct rope_shape {
    int64_t n_rows, n_heads, n_kv_heads, head_dim, qkv_ld;
};

#define N_PLACES    80
#define N_POSITIONS 50

static void call_rope_append(struct rig *g, const void *shape, float *y)
{
    const struct rope_shape *s = shape;
    int64_t                  kv_cols = s->n_kv_heads * s->head_dim;
    size_t                   n_qkv = (size_t)(s->n_rows * s->qkv_ld) + RIG_GUARD;
    size_t                   n_pages = (size_t)(N_PLACES * kv_cols);
    size_t                   n_angles = (size_t)(N_POSITIONS * s->head_dim / 2);
    float *q = rig_noise(1, n_qkv), *k = rig_noise(2, n_qkv), *v = rig_noise(3, n_qkv), *cos = rig_noise(4, n_angles),
          *sin = rig_noise(5, n_angles), *k_old = rig_noise(6, n_pages), *v_old = rig_guarded(7, n_pages);
    float                  *all[] = { q, k, v, cos, sin, k_old, v_old };
    int32_t                 pos[70], place[70];
    struct ctsk_rope_append a = { .n_rows = s->n_rows, .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads,
                                  .head_dim = s->head_dim, .qkv_ld = s->qkv_ld };

    for (int i = 0; i < 70; i++) {
        pos[i] = (i * 31 + 5) % N_POSITIONS;
        place[i] = (i * 17 + 3) % N_PLACES; /* 17 and 80 have no common factor: all differ */
    }
    a.q = rig_put(g, q, n_qkv * sizeof(float));
    a.k = rig_put(g, k, n_qkv * sizeof(float));
    a.v = rig_put(g, v, n_qkv * sizeof(float));
    a.cos = rig_put(g, cos, n_angles * sizeof(float));
    a.sin = rig_put(g, sin, n_angles * sizeof(float));
    a.pos = rig_put(g, pos, sizeof(pos));
    a.place = rig_put(g, place, sizeof(place));
    a.k_pages = rig_put(g, k_old, n_pages * sizeof(float));
    a.v_pages = rig_put(g, v_old, (n_pages + RIG_GUARD) * sizeof(float));
    CHECK(ctsk_rope_append(g->stream, &a) == 0);
    rig_get(g, y, a.q, n_qkv * sizeof(float));
    rig_get(g, y + n_qkv, a.k_pages, n_pages * sizeof(float));
    rig_get(g, y + n_qkv + n_pages, a.v_pages, (n_pages + RIG_GUARD) * sizeof(float));
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) free(all[i]);
}

static void rope_append_agrees_with_ref_on_every_backend(void **state)
{
    static const struct rope_shape SHAPES[] = { { 0, 2, 1, 4, 8 },     { 1, 1, 1, 2, 2 },     { 3, 4, 2, 6, 40 },
                                                { 70, 4, 2, 64, 256 }, { 9, 6, 3, 34, 210 },  { 2, 2, 2, 512, 1024 } };

    (void)state;
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]); i++) {
        const struct rope_shape *s = &SHAPES[i];
        size_t                   n_qkv = (size_t)(s->n_rows * s->qkv_ld) + RIG_GUARD;
        size_t                   n_pages = (size_t)(N_PLACES * s->n_kv_heads * s->head_dim);
        struct comparison        c = { "rope_append", call_rope_append, s, n_qkv + 2 * n_pages, NULL };

        /* Inputs and angles are below 1, so |x[i]| + |x[i + d/2]| is below 2. */
        c.bound = rig_alloc(c.n_y, sizeof(double));
        for (size_t e = 0; e < n_qkv + n_pages; e++) c.bound[e] = 4 * UNIT * 2;
        rig_each_backend(compare, &c);
        free(c.bound);
    }
}

/* Bits: rows of many against the same rows alone. */
enum { ROWS = 70, COLS = 515 };

struct company {
    float alone[ROWS * COLS], y[ROWS * COLS];
    int   is_alone; /* fill alone[], one row at a time */
};

static void norm_and_gate(struct rig *g, int64_t first, int64_t n_rows, float *y)
{
    size_t               bytes = (size_t)(n_rows * COLS) * sizeof(float);
    float               *x = rig_noise(1, ROWS * COLS);
    struct ctsk_rmsnorm  norm = { .n_rows = n_rows, .n_cols = COLS, .x_ld = COLS, .eps = 1e-6f };
    struct ctsk_silu_mul gate = { .n_rows = n_rows, .n_cols = COLS };

    norm.x = gate.gate = rig_put(g, x + first * COLS, bytes);
    norm.w = rig_put(g, x + COLS, COLS * sizeof(float));
    norm.y = gate.up = gate.y = rig_put(g, x, bytes);
    CHECK(ctsk_rmsnorm(g->stream, &norm) == 0);
    CHECK(ctsk_silu_mul(g->stream, &gate) == 0);
    rig_get(g, y, gate.y, bytes);
    rig_clear(g);
    free(x);
}

static void rows_in_company(struct rig *g, void *arg)
{
    struct company *c = arg;

    for (int64_t r = 0; r < ROWS && c->is_alone; r++) norm_and_gate(g, r, 1, c->alone + r * COLS);
    for (int64_t n = 1; n <= ROWS && !c->is_alone; n++) {
        norm_and_gate(g, ROWS - n, n, c->y);
        CHECK_MSG(memcmp(c->y, c->alone + (ROWS - n) * COLS, (size_t)(n * COLS) * sizeof(float)) == 0,
                  "%s: %d rows\n", ctsk_describe(g->dev), (int)n);
    }
}

static void norm_and_gate_rows_have_the_same_bits_in_any_batch_and_on_any_threads(void **state)
{
    struct company *c = rig_alloc(1, sizeof(*c));
    const char     *names[8];
    uint32_t        n_levels = ctsk_cpu_levels(names, 8);

    (void)state;
    for (uint32_t l = 0; l < n_levels; l++) {
        for (uint32_t n_threads = 0; n_threads <= 3; n_threads++) { /* 0 is 1: the rows alone */
            struct rig g;

            rig_open(&g, "cpu", names[l], n_threads);
            c->is_alone = n_threads == 0;
            rows_in_company(&g, c);
            rig_close(&g);
        }
    }
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embed_and_gather_copy_the_named_rows),
        cmocka_unit_test(rmsnorm_agrees_with_ref_on_every_backend),
        cmocka_unit_test(silu_mul_agrees_with_ref_on_every_backend),
        cmocka_unit_test(rope_append_agrees_with_ref_on_every_backend),
        cmocka_unit_test(norm_and_gate_rows_have_the_same_bits_in_any_batch_and_on_any_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
