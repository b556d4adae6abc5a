/* The worker threads of the cpu backend. */
#include "tests/check.h"

#include "kernels/cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>

struct tally {
    _Atomic int64_t n_calls;
    _Atomic uint8_t hits[10000];
};

static void hit(void *arg, int64_t begin, int64_t end)
{
    struct tally *t = arg;

    atomic_fetch_add(&t->n_calls, 1);
    for (int64_t i = begin; i < end; i++) atomic_fetch_add(&t->hits[i], 1);
}

static void check_tally(struct cts_pool *p, int64_t n_items, int64_t grain)
{
    static struct tally t;

    t = (struct tally){ 0 };
    cts_pool_run(p, hit, &t, n_items, grain);
    for (int64_t i = 0; i < 10000; i++) CHECK(t.hits[i] == (i < n_items));
}

static void pool_runs_each_item_once_for_any_threads_and_spin(void **state)
{
    static const uint64_t SPINS[] = { 0, 2000, 1000000 };

    (void)state;
    for (uint32_t n_threads = 1; n_threads <= 4; n_threads++) {
        for (size_t s = 0; s < 3; s++) {
            struct cts_pool *p;

            CHECK(cts_pool_new(&p, n_threads, SPINS[s], NULL) == 0);
            CHECK(cts_pool_n_threads(p) == n_threads);
            check_tally(p, 0, 1);
            check_tally(p, 1, 1);
            for (int i = 0; i < 20; i++) {
                check_tally(p, 9, 2);
                check_tally(p, 10000, 1 + i * 97);
            }
            cts_pool_free(p);
        }
    }
    cts_pool_free(NULL);
}

/* Returns only when n_threads threads are inside at once. */
struct meeting {
    _Atomic uint32_t n_here;
    uint32_t         n_threads;
};

static void meet(void *arg, int64_t begin, int64_t end)
{
    struct meeting *m = arg;

    (void)begin;
    (void)end;
    atomic_fetch_add(&m->n_here, 1);
    while (atomic_load(&m->n_here) < m->n_threads) sched_yield();
}

static void pool_works_on_all_its_threads_at_once(void **state)
{
    (void)state;
    for (uint32_t n_threads = 1; n_threads <= 4; n_threads++) {
        for (uint64_t spin_ns = 0; spin_ns <= 100000; spin_ns += 100000) {
            struct cts_pool *p;

            CHECK(cts_pool_new(&p, n_threads, spin_ns, NULL) == 0);
            for (int i = 0; i < 50; i++) {
                struct meeting m = { .n_threads = n_threads };

                cts_pool_run(p, meet, &m, n_threads, 1);
                CHECK(m.n_here == n_threads);
            }
            cts_pool_free(p);
        }
    }
}

/* Plain memory that one job writes and the next reads, on whatever threads: a
 * missing happens-before is a race that ThreadSanitizer reports. */
static int64_t cells[512];

static void shift(void *arg, int64_t begin, int64_t end)
{
    int64_t round = *(const int64_t *)arg;

    for (int64_t i = begin; i < end; i++) {
        int64_t other = 511 - i; /* its own in even rounds, its mirror's in odd ones */

        cells[round % 2 == 0 ? i : other] += 1;
    }
}

static void pool_orders_one_job_before_the_next(void **state)
{
    struct cts_pool *p;

    (void)state;
    CHECK(cts_pool_new(&p, 3, 5000, NULL) == 0);
    for (int64_t round = 0; round < 2000; round++) cts_pool_run(p, shift, &round, 512, 7);
    for (int i = 0; i < 512; i++) CHECK(cells[i] == 2000);
    cts_pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_runs_each_item_once_for_any_threads_and_spin),
        cmocka_unit_test(pool_works_on_all_its_threads_at_once),
        cmocka_unit_test(pool_orders_one_job_before_the_next),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
