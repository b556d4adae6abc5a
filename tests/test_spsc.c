#include "common/spsc.h"
#include "tests/check.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#define N_SENT 300000

struct record {
    uint64_t no, twice;
};

static void spsc_is_first_in_first_out_and_says_when_full(void **state)
{
    struct cts_spsc q;
    struct record   r;

    (void)state;
    CHECK(cts_spsc_init(&q, 4, sizeof(r)) == 0);
    CHECK(cts_spsc_is_empty(&q) && cts_spsc_pop(&q, &r) == 0 && cts_spsc_room(&q) == 4);
    for (uint64_t i = 0; i < 4; i++) CHECK(cts_spsc_push(&q, &(struct record){ i, 2 * i }) == 0);
    CHECK(cts_spsc_push(&q, &(struct record){ 9, 9 }) == -EAGAIN && cts_spsc_room(&q) == 0);
    CHECK(cts_spsc_pop(&q, &r) == 1 && r.no == 0);
    CHECK(cts_spsc_room(&q) == 1 && cts_spsc_push(&q, &(struct record){ 4, 8 }) == 0);
    CHECK(cts_spsc_push(&q, &(struct record){ 9, 9 }) == -EAGAIN);
    for (uint64_t i = 1; i <= 4; i++) CHECK(cts_spsc_pop(&q, &r) == 1 && r.no == i && r.twice == 2 * i);
    CHECK(cts_spsc_is_empty(&q) && cts_spsc_pop(&q, &r) == 0);
    cts_spsc_deinit(&q);
    cts_spsc_deinit(&q);
}

static void spsc_of_one_record_works(void **state)
{
    struct cts_spsc q;
    uint8_t         b = 7;

    (void)state;
    CHECK(cts_spsc_init(&q, 1, 1) == 0);
    for (int i = 0; i < 5; i++) {
        CHECK(cts_spsc_push(&q, &b) == 0 && cts_spsc_push(&q, &b) == -EAGAIN);
        CHECK(cts_spsc_pop(&q, &b) == 1 && cts_spsc_pop(&q, &b) == 0);
    }
    cts_spsc_deinit(&q);
}

/* The counters run on past 2^32. */
static void start_at(struct cts_spsc *q, uint32_t pos)
{
    atomic_store(&q->head, pos);
    atomic_store(&q->tail, pos);
    q->head_seen = pos;
    q->tail_seen = pos;
}

struct sender {
    struct cts_spsc *q;
    uint64_t         n_full;
};

static void *send_all(void *arg)
{
    struct sender *s = arg;

    for (uint64_t i = 0; i < N_SENT;) {
        if (cts_spsc_push(s->q, &(struct record){ i, 2 * i }) == 0) {
            i++;
            continue;
        }
        s->n_full++;
        sched_yield();
    }
    return NULL;
}

static void spsc_between_two_threads_loses_and_repeats_nothing(void **state)
{
    struct cts_spsc q;
    struct sender   s = { &q, 0 };
    pthread_t       thread;
    uint64_t        n = 0, n_bad = 0;
    struct record   r;

    (void)state;
    CHECK(cts_spsc_init(&q, 64, sizeof(r)) == 0);
    start_at(&q, UINT32_MAX - 1000); /* wraps on the way */
    CHECK(pthread_create(&thread, NULL, send_all, &s) == 0);
    while (n < N_SENT) {
        if (cts_spsc_pop(&q, &r) == 0) {
            sched_yield();
            continue;
        }
        n_bad += r.no != n || r.twice != 2 * n;
        n++;
    }
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(n_bad == 0 && cts_spsc_is_empty(&q));
    cts_spsc_deinit(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spsc_is_first_in_first_out_and_says_when_full),
        cmocka_unit_test(spsc_of_one_record_works),
        cmocka_unit_test(spsc_between_two_threads_loses_and_repeats_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
