#include "daemon/compress/cluster.h"

#include "tests/check.h"
#include "tests/fault.h"
#include "tests/synth.h"

#include <errno.h>

#define N_OUT 24
#define N_IN  20
#define RANK  2

/* n adapters over two modules, adapter i of group i % k: the columns of its B
 * and the rows of its A lie in its group's own space of dimension RANK, but for noise. */
static void plant(struct cts_adapter_set *s, uint32_t n, uint32_t k, float noise)
{
    float u[N_OUT * RANK], v[RANK * N_IN], mix[2 * RANK * RANK];

    synth_set(s, n, 2, N_OUT, N_IN, RANK, 1);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t m = 0; m < 2; m++) {
            uint64_t of_group = cts_random_stream(77, i % k * 2 + m), own = cts_random_stream(78, i * 2 + m);
            float   *b = synth_b(s, i, m), *a = synth_a(s, i, m);

            synth_fill(u, N_OUT * RANK, &of_group);
            synth_fill(v, RANK * N_IN, &of_group);
            synth_fill(mix, 2 * RANK * RANK, &own);
            for (int x = 0; x < N_OUT * RANK; x++) b[x] *= noise;
            for (int x = 0; x < RANK * N_IN; x++) a[x] *= noise;
            for (int r = 0; r < RANK; r++)
                for (int q = 0; q < RANK; q++) {
                    for (int x = 0; x < N_OUT; x++) b[x * RANK + r] += u[x * RANK + q] * mix[q * RANK + r];
                    for (int x = 0; x < N_IN; x++) a[r * N_IN + x] += mix[RANK * RANK + r * RANK + q] * v[q * N_IN + x];
                }
        }
    synth_measure(s);
}

static int find(const struct cts_adapter_set *s, uint32_t k, uint32_t n_threads, uint32_t *cluster)
{
    struct cts_compress_opts o = { .rank = RANK, .n_clusters = k, .n_threads = n_threads, .seed = 5 };

    return cts_cluster_find(cluster, s, &o, NULL);
}

static void cluster_find_finds_groups_that_share_a_space(void **state)
{
    struct cts_adapter_set s;
    uint32_t               cluster[18];

    (void)state;
    plant(&s, 18, 3, 0.05f);
    CHECK(find(&s, 3, 1, cluster) == 0);
    for (uint32_t i = 0; i < 18; i++)
        CHECK_MSG(cluster[i] == i % 3, "adapter %u is in cluster %u\n", i, cluster[i]); /* numbered as they appear */
    synth_set_free(&s);
}

static void cluster_find_makes_clusters_of_one_size(void **state)
{
    static const uint32_t ks[] = { 1, 2, 3, 5, 6, 7 };
    struct cts_adapter_set s;
    uint32_t               cluster[17];

    (void)state;
    plant(&s, 17, 2, 0.5f);
    for (size_t t = 0; t < sizeof(ks) / sizeof(ks[0]); t++) {
        uint32_t count[17] = { 0 };

        CHECK(find(&s, ks[t], 2, cluster) == 0);
        for (uint32_t i = 0; i < 17; i++) count[cluster[i]]++;
        for (uint32_t k = 0; k < ks[t]; k++) CHECK(count[k] == 17 / ks[t] || count[k] == 17 / ks[t] + 1);
    }
    CHECK(find(&s, 17, 1, cluster) == 0); /* each its own */
    for (uint32_t i = 0; i < 17; i++) CHECK(cluster[i] == i);
    synth_set_free(&s);
}

static void cluster_find_does_not_depend_on_the_threads(void **state)
{
    struct cts_adapter_set s;
    uint32_t               one[16], three[16];

    (void)state;
    plant(&s, 16, 4, 1.0f);
    CHECK(find(&s, 4, 1, one) == 0);
    CHECK(find(&s, 4, 3, three) == 0);
    CHECK(memcmp(one, three, sizeof(one)) == 0);
    synth_set_free(&s);
}

/* Adapters that are zero in a module, or in all, have nothing to be judged by and go where there is room. */
static void cluster_find_places_adapters_that_change_nothing(void **state)
{
    struct cts_adapter_set s;
    uint32_t               cluster[6];

    (void)state;
    plant(&s, 6, 2, 0.05f);
    for (uint32_t m = 0; m < 2; m++) memset(synth_b(&s, 0, m), 0, N_OUT * RANK * sizeof(float));
    memset(synth_b(&s, 1, 1), 0, N_OUT * RANK * sizeof(float));
    synth_measure(&s);
    CHECK(find(&s, 2, 1, cluster) == 0);
    for (uint32_t i = 2; i < 6; i++) CHECK(cluster[i] == cluster[2 + i % 2]);
    CHECK(cluster[2] != cluster[3]);
    synth_set_free(&s);
}

static void cluster_find_survives_failure_of_every_allocation(void **state)
{
    struct cts_adapter_set s;
    uint32_t               cluster[4];
    int64_t                n_live;
    int                    rc = -ENOMEM, n = 0;

    (void)state;
    plant(&s, 4, 2, 0.1f);
    n_live = fault_n_live();
    for (; rc < 0 && n < 20000; n += n < 100 ? 1 : 61) {
        fault_after(n);
        rc = find(&s, 2, 1, cluster);
        fault_after(-1);
        CHECK(rc == 0 || rc == -ENOMEM || rc == -EAGAIN); /* the last when a thread could not start */
        CHECK(fault_n_live() == n_live);
    }
    CHECK(rc == 0 && n > 100);
    synth_set_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cluster_find_finds_groups_that_share_a_space),
        cmocka_unit_test(cluster_find_makes_clusters_of_one_size),
        cmocka_unit_test(cluster_find_does_not_depend_on_the_threads),
        cmocka_unit_test(cluster_find_places_adapters_that_change_nothing),
        cmocka_unit_test(cluster_find_survives_failure_of_every_allocation),
    };
    cts_linalg_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
