#include "daemon/compress/tasks.h"

#include "tests/check.h"

#include <stdatomic.h>
#include <string.h>

#define N 100

static _Atomic int n_runs[N];
static uint32_t    n_told, last_told;
static int         fails_at[2];

static int count_task(void *arg, uint32_t task_idx, struct cts_err *err)
{
    (void)arg;
    n_runs[task_idx]++;
    for (int i = 0; i < 2; i++)
        if (fails_at[i] == (int)task_idx) return cts_err_set(err, CTS_EARG, "task %u", task_idx);
    return 0;
}

static void on_done(void *arg, uint32_t n_done)
{
    CHECK(arg == &n_told);
    CHECK(n_done > last_told && n_done <= N);
    last_told = n_done;
    n_told++;
}

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) n_runs[i] = 0;
    n_told = last_told = 0;
    fails_at[0] = fails_at[1] = -1;
    return 0;
}

static int run(uint32_t n_tasks, uint32_t n_threads, struct cts_err *err)
{
    struct cts_tasks t = { .n_tasks = n_tasks, .run = count_task, .on_done = on_done, .on_done_arg = &n_told };

    return cts_tasks_run(&t, n_threads, err);
}

static void tasks_run_each_once_on_any_number_of_threads(void **state)
{
    for (uint32_t n_threads = 1; n_threads <= 5; n_threads += 2) {
        setup(state);
        CHECK(run(N, n_threads, NULL) == 0);
        for (int i = 0; i < N; i++) CHECK(n_runs[i] == 1);
        CHECK(last_told == N && n_told >= 1);
    }
    setup(state);
    CHECK(run(0, 2, NULL) == 0 && n_told == 0);
    CHECK(run(1, 64, NULL) == 0); /* more threads than tasks */
}

static void tasks_return_the_failure_of_the_lowest_task_and_begin_no_more(void **state)
{
    struct cts_err err = { 0 };
    int            n = 0;

    (void)state;
    fails_at[0] = 7;
    CHECK(run(N, 1, &err) == CTS_EARG && strcmp(err.text, "task 7") == 0);
    for (int i = 0; i < N; i++) n += n_runs[i];
    CHECK(n == 8);
    setup(state);
    fails_at[0] = 1;
    fails_at[1] = 0;
    CHECK(run(N, 2, &err) == CTS_EARG && strcmp(err.text, n_runs[1] && !n_runs[0] ? "task 1" : "task 0") == 0);
}

static void tasks_count_the_cpus_that_they_may_use(void **state)
{
    (void)state;
    CHECK(cts_cpu_count() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(tasks_run_each_once_on_any_number_of_threads, setup),
        cmocka_unit_test_setup(tasks_return_the_failure_of_the_lowest_task_and_begin_no_more, setup),
        cmocka_unit_test(tasks_count_the_cpus_that_they_may_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
