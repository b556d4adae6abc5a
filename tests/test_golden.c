/* The exact lane against transformers and peft: every row of golden.jsonl, through
 * the engine, in mixed batches. On every level of this host's CPU; the other
 * backends take a part of the rows, since they are slow by design. */

#include "tests/engine_rig.h"

#include "kernels/ctsk.h"

#include <string.h>

#define N_ADAPTERS 64

static struct golden G;

struct adapters {
    uint32_t n;
    char     names[N_ADAPTERS][64];
    uint32_t idx[N_ADAPTERS];
};

static uint32_t find(const struct adapters *a, const char *name)
{
    for (uint32_t i = 0; i < a->n; i++)
        if (strcmp(a->names[i], name) == 0) return a->idx[i];
    return CTS_ADAPTER_BASE;
}

/* Every stride-th row of the base and of a collection, as many at once as the
 * engine has room for, in an order in which one batch holds many adapters. */
static void check_rows(struct rig *rig, const struct adapters *adapters, const char *collection, uint32_t stride)
{
    struct answer *answers = calloc(G.n, sizeof(*answers));
    uint32_t       n = 0;

    CHECK(answers != NULL);
    for (uint32_t lane = 0; lane < 8; lane++) /* 8 prompts an adapter stand together in the file */
        for (uint32_t i = lane; i < G.n; i += 8) {
            struct golden_row         *r = &G.rows[i];
            struct cts_engine_request *req;

            if ((i / 8 + lane) % stride != 0) continue;
            if (r->adapter[0] != 0 && strcmp(r->collection, collection) != 0) continue;
            if (rig->n_live == 256) rig_wait(rig, 200);
            req = rig_request(rig, &answers[i], r);
            if (r->adapter[0] != 0) {
                req->n_parts = 1;
                req->parts[0] = (struct cts_request_part){ find(adapters, r->adapter), 1 };
                CHECK(req->parts[0].adapter_idx != CTS_ADAPTER_BASE);
            }
            rig_admit(rig, req);
            n++;
        }
    rig_wait(rig, 0);
    for (uint32_t i = 0; i < G.n; i++) {
        const char *differs;

        if (!answers[i].is_over) continue;
        differs = answer_differs(&answers[i], &G.rows[i]);
        CHECK_MSG(differs == NULL, "row %u, '%s' of %s '%s': %s\n", i, G.rows[i].user, G.rows[i].collection,
                  G.rows[i].adapter, differs);
        n--;
    }
    CHECK(n == 0);
    free(answers);
}

static void check_collection(struct cts_engine_opts o, const char *collection, uint32_t stride)
{
    struct adapters         a = { 0 };
    struct rig              rig;
    struct cts_engine_stats stats;
    char                    folder[256];

    rig_open(&rig, &o);
    snprintf(folder, sizeof(folder), "contrib/demo/adapters/%s", collection);
    a.n = rig_load_all(&rig, folder, a.names, a.idx, N_ADAPTERS);
    CHECK(a.n == N_ADAPTERS);
    check_rows(&rig, &a, collection, stride);
    cts_engine_stats(rig.e, &stats);
    CHECK(stats.n_pages_free == stats.n_pages);
    CHECK(stats.n_errors == 0 && stats.n_live == 0 && stats.n_waiting == 0);
    rig_close(&rig);
}

static void every_row_is_right_on_every_cpu_level(void **state)
{
    const char *levels[8];
    uint32_t    n = ctsk_cpu_levels(levels, 8);

    (void)state;
    CHECK(n >= 1 && n <= 8);
    for (uint32_t i = 0; i < n; i++) {
        struct cts_engine_opts o = rig_opts();

        o.cpu_level = levels[i];
        o.n_threads = i % 2 == 0 ? 2 : 1;
        check_collection(o, "shared-start", RIG_IS_SANITIZED ? 23 : strcmp(levels[i], "generic") == 0 ? 9 : 1);
        check_collection(o, "own-start", RIG_IS_SANITIZED ? 23 : strcmp(levels[i], "generic") == 0 ? 9 : 1);
    }
}

static void rows_are_right_on_the_reference(void **state)
{
    struct cts_engine_opts o = rig_opts();

    (void)state;
    o.backend = "ref";
    check_collection(o, "own-start", 31);
}

static void rows_are_right_where_memory_is_apart_and_results_come_late(void **state)
{
    struct cts_engine_opts o = rig_opts();

    (void)state;
    o.backend = "async";
    check_collection(o, "shared-start", 31);
}

static int setup(void **state)
{
    (void)state;
    golden_load(&G);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    golden_free(&G);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_right_on_every_cpu_level),
        cmocka_unit_test(rows_are_right_on_the_reference),
        cmocka_unit_test(rows_are_right_where_memory_is_apart_and_results_come_late),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
