#include "common/wait.h"
#include "tests/check.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#define N_ROUNDS 20000

static void futex_wait_returns_at_once_when_the_word_has_changed(void **state)
{
    _Atomic uint32_t word = 5;

    (void)state;
    CHECK(cts_futex_wait(&word, 4, UINT64_MAX, 0) == 0);
    CHECK(cts_futex_wait(&word, 4, UINT64_MAX, 1) == 0);
    CHECK(cts_futex_wait(&word, 5, 1000, 0) == -ETIMEDOUT);
    CHECK(cts_futex_wait(&word, 5, 0, 1) == -ETIMEDOUT);
}

/* A sleeper that gets only a read-only view of the word sleeps and times out all the same. */
static void futex_wait_works_on_a_read_only_mapping(void **state)
{
    int                     fd = memfd_create("test", MFD_CLOEXEC);
    const _Atomic uint32_t *word;

    (void)state;
    CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    word = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(word != MAP_FAILED);
    CHECK(cts_futex_wait(word, 0, 1000, 1) == -ETIMEDOUT);
    CHECK(cts_futex_wait(word, 1, UINT64_MAX, 1) == 0);
    munmap((void *)word, 4096);
    close(fd);
}

/* Two threads hand a turn to and fro; each sleeps until the other has rung. A
 * lost wake-up stops both for ever. */
struct side {
    struct cts_bell  mine, *other;
    _Atomic uint32_t work, *other_work;
};

static void play(struct side *s, int begins)
{
    for (int i = 0; i < N_ROUNDS; i++) {
        if (begins) {
            atomic_fetch_add(s->other_work, 1);
            cts_bell_ring(s->other);
        }
        for (;;) {
            uint32_t ticket = cts_bell_ticket(&s->mine);
            if (atomic_load(&s->work) > (uint32_t)i) break;
            cts_bell_sleep(&s->mine, ticket, UINT64_MAX);
        }
        if (!begins) {
            atomic_fetch_add(s->other_work, 1);
            cts_bell_ring(s->other);
        }
    }
}

static void *second(void *arg)
{
    play(arg, 0);
    return NULL;
}

static void bell_loses_no_ring(void **state)
{
    static struct side a, b;
    pthread_t          thread;

    (void)state;
    a.other = &b.mine;
    a.other_work = &b.work;
    b.other = &a.mine;
    b.other_work = &a.work;
    CHECK(pthread_create(&thread, NULL, second, &b) == 0);
    play(&a, 1);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(atomic_load(&a.work) == N_ROUNDS && atomic_load(&b.work) == N_ROUNDS);
}

static void bell_sleep_returns_at_once_after_a_ring_and_at_the_timeout(void **state)
{
    struct cts_bell b = { 0 };
    uint32_t        ticket = cts_bell_ticket(&b);

    (void)state;
    cts_bell_ring(&b);
    cts_bell_sleep(&b, ticket, UINT64_MAX); /* the ring is newer than the ticket */
    cts_bell_sleep(&b, cts_bell_ticket(&b), 1000);
    CHECK(atomic_load(&b.is_asleep) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(futex_wait_returns_at_once_when_the_word_has_changed),
        cmocka_unit_test(futex_wait_works_on_a_read_only_mapping),
        cmocka_unit_test(bell_loses_no_ring),
        cmocka_unit_test(bell_sleep_returns_at_once_after_a_ring_and_at_the_timeout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
