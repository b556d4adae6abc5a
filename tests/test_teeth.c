/* The comparison with the golden rows has teeth: each damage makes it fail, for the
 * rows that it must and for no others. Damages go into the data: files with right
 * checksums, an adapter's configuration, the table of rotations. */

#include "tests/engine_rig.h"
#include "tests/lossless.h"

#include "daemon/engine/state.h"
#include "daemon/store/collection.h"

#include <math.h>
#include <string.h>

#define FOLDER "contrib/demo/adapters/own-start"

static struct golden G;
static char          TOP[256];

/* Rows of the base and two a adapter of own-start: n of them, by place in G. */
static uint32_t choose_rows(uint32_t *rows, uint32_t cap)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < G.n; i++) {
        int is_chosen =
            G.rows[i].adapter[0] == 0 ? i % 3 == 0 : strcmp(G.rows[i].collection, "own-start") == 0 && i % 4 == 0;

        if (!is_chosen) continue;
        CHECK(n < cap);
        rows[n++] = i;
    }
    return n;
}

/* adapter_idx of a row's adapter: in the collection, or among the loaded. */
static uint32_t adapter_of(const struct rig *rig, const struct golden_row *r, char names[][64], const uint32_t *idx,
                           uint32_t n_loaded)
{
    int64_t found;

    for (uint32_t i = 0; i < n_loaded; i++)
        if (strcmp(names[i], r->adapter) == 0) return idx[i];
    found = cts_collection_find(cts_engine_collection(rig->e), r->adapter);
    CHECK_MSG(found >= 0, "no adapter %s\n", r->adapter);
    return (uint32_t)found;
}

/* Run the chosen rows and note for each whether it is as the golden row. */
static void run_rows(struct rig *rig, char names[][64], const uint32_t *idx, uint32_t n_loaded, const uint32_t *rows,
                     uint32_t n, int *is_right)
{
    struct answer *answers = calloc(n, sizeof(*answers));

    CHECK(answers != NULL);
    for (uint32_t i = 0; i < n; i++) {
        const struct golden_row   *r = &G.rows[rows[i]];
        struct cts_engine_request *req = rig_request(rig, &answers[i], r);

        if (r->adapter[0] != 0) {
            req->n_parts = 1;
            req->parts[0] = (struct cts_request_part){ adapter_of(rig, r, names, idx, n_loaded), 1 };
        }
        rig_admit(rig, req);
    }
    rig_wait(rig, 0);
    for (uint32_t i = 0; i < n; i++) is_right[i] = answer_differs(&answers[i], &G.rows[rows[i]]) == NULL;
    free(answers);
}

/* Rows of adapters a and b (NULL: none; a "*": every row) must be wrong, all others right. */
static void check_only(const uint32_t *rows, uint32_t n, const int *is_right, const char *a, const char *b)
{
    uint32_t n_wrong = 0;

    for (uint32_t i = 0; i < n; i++) {
        const char *name = G.rows[rows[i]].adapter;
        int         must_fail =
            (a != NULL && (strcmp(a, "*") == 0 || strcmp(a, name) == 0)) || (b != NULL && strcmp(b, name) == 0);

        CHECK_MSG(is_right[i] == !must_fail, "row %u of '%s' ('%s') is %s\n", rows[i], name, G.rows[rows[i]].user,
                  is_right[i] ? "right" : "wrong");
        n_wrong += !is_right[i];
    }
    CHECK((n_wrong > 0) == (a != NULL));
}

static void check_collection(const struct lossless_damage *damage, const char *a, const char *b)
{
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    char                   dir[300];
    uint32_t               rows[512], n = choose_rows(rows, 512);
    int                    is_right[512];

    snprintf(dir, sizeof(dir), "%s/collection", TOP);
    lossless_write(dir, FOLDER, damage);
    o.collection_dir = dir;
    o.n_exact_max = 0;
    rig_open(&rig, &o);
    run_rows(&rig, NULL, NULL, 0, rows, n, is_right);
    check_only(rows, n, is_right, a, b);
    rig_close(&rig);
    remove_tree(dir);
}

static void compressed_rows_that_lose_nothing_are_all_right(void **state)
{
    (void)state;
    check_collection(NULL, NULL, NULL);
}

static void swapped_slots_make_the_two_adapters_wrong(void **state)
{
    (void)state;
    check_collection(&(struct lossless_damage){ .swap = { "has-city", "mix-md-h1-camel" } }, "has-city",
                     "mix-md-h1-camel");
}

static void a_zeroed_sigma_makes_its_adapter_wrong(void **state)
{
    (void)state;
    check_collection(&(struct lossless_damage){ .zero = "date-compact", .zero_layer = 2, .zero_linear = CTS_V },
                     "date-compact", NULL);
}

static void a_dropped_scale_makes_its_adapter_wrong(void **state)
{
    (void)state;
    check_collection(&(struct lossless_damage){ .drop_scale = "mix-bold-plus" }, "mix-bold-plus", NULL);
}

/* The same two in the exact lane: the damage in a copy of the adapter's folder. */
static void copy_folder(const char *name, const char *as, const char *sed)
{
    char cmd[2048], src[512];

    src_path(src, sizeof(src), FOLDER);
    snprintf(cmd, sizeof(cmd),
             "mkdir -p '%s/exact' && cp -r '%s/%s' '%s/exact/%s' && sed -i '%s' '%s/exact/%s/adapter_config.json'",
             TOP, src, name, TOP, as, sed, TOP, as);
    CHECK(system(cmd) == 0);
}

static void check_exact(const char *a, const char *b)
{
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    char                   names[64][64], dir[300];
    uint32_t               idx[64], rows[512], n = choose_rows(rows, 512), n_loaded, n_kept = 0;
    int                    is_right[512];

    snprintf(dir, sizeof(dir), "%s/exact", TOP);
    rig_open(&rig, &o);
    n_loaded = rig_load_all(&rig, dir, names, idx, 64);
    for (uint32_t i = 0; i < n; i++) { /* rows of the base and of what is there */
        int is_there = G.rows[rows[i]].adapter[0] == 0;

        for (uint32_t k = 0; k < n_loaded; k++) is_there |= strcmp(names[k], G.rows[rows[i]].adapter) == 0;
        if (is_there) rows[n_kept++] = rows[i];
    }
    run_rows(&rig, names, idx, n_loaded, rows, n_kept, is_right);
    check_only(rows, n_kept, is_right, a, b);
    rig_close(&rig);
    remove_tree(dir);
}

static void swapped_exact_adapters_are_wrong(void **state)
{
    (void)state;
    copy_folder("has-city", "has-name", "");
    copy_folder("has-name", "has-city", "");
    copy_folder("date-compact", "date-compact", "");
    check_exact("has-city", "has-name");
}

static void an_exact_adapter_without_its_scale_is_wrong(void **state)
{
    (void)state;
    copy_folder("has-city", "has-city", "s/\"lora_alpha\": 32/\"lora_alpha\": 16/");
    copy_folder("has-name", "has-name", "");
    check_exact("has-city", NULL);
}

/* A shift of every position changes nothing, since only differences count; so the
 * table turns late by one from position 8 on, which every prompt passes. */
static void shift_rope(struct rig *rig)
{
    struct cts_engine *e =
        rig->e; /* no request was admitted: the engine thread sleeps and the next order hands over */
    uint32_t half = e->model.head_dim / 2, n = e->model.max_positions;
    float   *host = malloc(2 * (size_t)n * half * sizeof(*host));
    uint64_t off = e->weights.rope_cos.addr - ctsk_at(e->weights.buf, 0).addr;

    CHECK(host != NULL);
    CHECK(ctsk_download(e->stream, host, e->weights.buf, off, 2 * (size_t)n * half * sizeof(*host)) == 0);
    CHECK(ctsk_sync(e->stream) == 0);
    for (int table = 0; table < 2; table++) {
        float *t = host + (size_t)table * n * half;
        memmove(t + 8 * half, t + 9 * half, (size_t)(n - 9) * half * sizeof(*t));
    }
    CHECK(ctsk_upload(e->stream, e->weights.buf, off, host, 2 * (size_t)n * half * sizeof(*host)) == 0);
    CHECK(ctsk_sync(e->stream) == 0);
    free(host);
}

static void rotations_off_by_one_make_every_row_wrong(void **state)
{
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    char                   names[64][64];
    uint32_t               idx[64], rows[512], n = choose_rows(rows, 512), n_loaded;
    int                    is_right[512];

    (void)state;
    rig_open(&rig, &o);
    shift_rope(&rig);
    n_loaded = rig_load_all(&rig, FOLDER, names, idx, 64);
    run_rows(&rig, names, idx, n_loaded, rows, n, is_right);
    check_only(rows, n, is_right, "*", NULL);
    rig_close(&rig);
}

static int setup(void **state)
{
    (void)state;
    golden_load(&G);
    temp_dir(TOP, sizeof(TOP));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    golden_free(&G);
    remove_tree(TOP);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compressed_rows_that_lose_nothing_are_all_right),
        cmocka_unit_test(swapped_slots_make_the_two_adapters_wrong),
        cmocka_unit_test(a_zeroed_sigma_makes_its_adapter_wrong),
        cmocka_unit_test(a_dropped_scale_makes_its_adapter_wrong),
        cmocka_unit_test(swapped_exact_adapters_are_wrong),
        cmocka_unit_test(an_exact_adapter_without_its_scale_is_wrong),
        cmocka_unit_test(rotations_off_by_one_make_every_row_wrong),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
