/* Three words carry the protocol, all of them sequentially consistent:
 *
 *   epoch      +1 for each job; workers poll it, and sleep on it
 *   is_open    1 while a job takes helpers
 *   n_inside   workers between the door and the end of their work
 *
 * A worker steps inside (n_inside + 1) and then looks whether the job is open.
 * The caller closes the job and then looks whether somebody is inside. One of
 * the two sees the other, so after the caller has read n_inside == 0 nobody
 * reads the job's fields until they are filled and is_open is 1 again. */
#include "kernels/cpu/pool.h"

#include "common/assert.h"
#include "common/wait.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* How many polls pass between two looks at the clock: a look costs as much as a few polls. */
#define POLLS_PER_LOOK 64

struct cts_pool {
    uint32_t n_threads; /* the caller included */
    uint32_t n_started; /* workers that run */
    uint64_t spin_ns;
    pthread_t *threads; /* [n_threads - 1] */

    /* The job: written by the caller while nobody is inside. */
    cts_pool_fn *fn;
    void        *arg;
    int64_t      n_items, grain;

    _Alignas(128) _Atomic uint32_t epoch;
    _Atomic uint32_t is_open;
    _Atomic uint32_t may_sleep;     /* a worker sleeps on epoch, or is about to */
    _Atomic uint32_t is_closing;
    _Alignas(128) _Atomic int64_t next; /* first item that nobody has taken */
    _Alignas(128) _Atomic uint32_t n_inside;
    _Atomic uint32_t caller_sleeps; /* the caller sleeps on n_inside, or is about to */
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Real time: a test's stopped clock must not make a worker spin for ever. */
static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Poll until *word differs from seen, at most spin_ns. Returns the word. */
static uint32_t poll_change(_Atomic uint32_t *word, uint32_t seen, uint64_t spin_ns)
{
    uint32_t value = atomic_load(word);
    uint64_t start_ns;

    if (value != seen || spin_ns == 0) return value;
    start_ns = now_ns();
    do {
        for (int i = 0; i < POLLS_PER_LOOK && value == seen; i++) {
            relax();
            value = atomic_load(word);
        }
    } while (value == seen && now_ns() - start_ns < spin_ns);
    return value;
}

static void take_items(struct cts_pool *p)
{
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&p->next, p->grain, memory_order_relaxed);
        int64_t end = begin + p->grain;

        if (begin >= p->n_items) return;
        p->fn(p->arg, begin, end < p->n_items ? end : p->n_items);
    }
}

/* Wait for an epoch other than seen; returns it. */
static uint32_t wait_epoch(struct cts_pool *p, uint32_t seen)
{
    uint32_t epoch = poll_change(&p->epoch, seen, p->spin_ns);

    while (epoch == seen) {
        /* may_sleep before the kernel compares epoch, against publish's store
         * of epoch before its exchange of may_sleep: no wake-up is lost. */
        atomic_store(&p->may_sleep, 1);
        (void)cts_futex_wait(&p->epoch, seen, UINT64_MAX, 0);
        epoch = atomic_load(&p->epoch);
    }
    return epoch;
}

static void *worker_main(void *arg)
{
    struct cts_pool *p = arg;
    uint32_t         epoch = 0;

    for (;;) {
        epoch = wait_epoch(p, epoch);
        if (atomic_load(&p->is_closing)) return NULL;
        atomic_fetch_add(&p->n_inside, 1);
        if (atomic_load(&p->is_open)) take_items(p);
        if (atomic_fetch_sub(&p->n_inside, 1) == 1 && atomic_load(&p->caller_sleeps))
            cts_futex_wake(&p->n_inside, 1, 0);
    }
}

static void publish(struct cts_pool *p)
{
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_exchange(&p->may_sleep, 0)) cts_futex_wake(&p->epoch, INT_MAX, 0);
}

/* Wait until every worker has left. */
static void wait_empty(struct cts_pool *p)
{
    uint32_t n, last = 0;
    int      is_polled = 0;

    while ((n = atomic_load(&p->n_inside)) != 0) {
        if (!is_polled || n != last) {
            is_polled = 1;
            last = n;
            (void)poll_change(&p->n_inside, n, p->spin_ns);
            continue;
        }
        atomic_store(&p->caller_sleeps, 1);
        (void)cts_futex_wait(&p->n_inside, n, UINT64_MAX, 0);
        atomic_store(&p->caller_sleeps, 0);
    }
}

void cts_pool_run(struct cts_pool *p, cts_pool_fn *fn, void *arg, int64_t n_items, int64_t grain)
{
    CTS_DASSERT(grain >= 1);
    if (p->n_started == 0 || n_items <= grain) {
        if (n_items > 0) fn(arg, 0, n_items);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n_items = n_items;
    p->grain = grain;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store(&p->is_open, 1);
    publish(p);
    take_items(p);
    atomic_store(&p->is_open, 0);
    wait_empty(p);
}

uint32_t cts_pool_n_threads(const struct cts_pool *p)
{
    return p->n_threads;
}

/* Workers take no signals: those belong to the thread that runs the loop. */
static int start_workers(struct cts_pool *p, struct cts_err *err)
{
    sigset_t all, old;
    int      rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (rc == 0 && p->n_started < p->n_threads - 1) {
        rc = pthread_create(&p->threads[p->n_started], NULL, worker_main, p);
        if (rc != 0) break;
        (void)pthread_setname_np(p->threads[p->n_started], "ctsd-kernels"); /* for top(1) only */
        p->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0 ? 0 : cts_err_set(err, -rc, "start kernel thread %u of %u", p->n_started + 1, p->n_threads - 1);
}

int cts_pool_new(struct cts_pool **out, uint32_t n_threads, uint64_t spin_ns, struct cts_err *err)
{
    struct cts_pool *p = aligned_alloc(_Alignof(struct cts_pool), sizeof(*p));
    int              rc;

    CTS_ASSERT(n_threads >= 1);
    if (p == NULL) return cts_err_set(err, -ENOMEM, "kernel threads");
    *p = (struct cts_pool){ .n_threads = n_threads, .spin_ns = spin_ns };
    if (n_threads > 1) {
        p->threads = calloc(n_threads - 1, sizeof(*p->threads));
        if (p->threads == NULL) {
            rc = cts_err_set(err, -ENOMEM, "%u kernel threads", n_threads);
            goto fail;
        }
        rc = start_workers(p, err);
        if (rc < 0) goto fail;
    }
    *out = p;
    return 0;

fail:
    cts_pool_free(p);
    return rc;
}

void cts_pool_free(struct cts_pool *p)
{
    if (p == NULL) return;
    atomic_store(&p->is_closing, 1);
    publish(p);
    for (uint32_t i = 0; i < p->n_started; i++) pthread_join(p->threads[i], NULL);
    free(p->threads);
    free(p);
}
