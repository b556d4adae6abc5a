#include "daemon/compress/tasks.h"

#include "common/assert.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

struct job {
    const struct cts_tasks *t;
    pthread_mutex_t         lock; /* over all below */
    pthread_cond_t          moved; /* n_done or n_running changed */
    uint32_t                n_next, n_done, n_running;
    uint32_t                failed_idx; /* UINT32_MAX: none */
    int                     rc;
    struct cts_err          err;
};

/* Keep the failure of the lowest task, so that the message does not depend on who was faster. */
static void note_result(struct job *j, uint32_t task_idx, int rc, const struct cts_err *err)
{
    j->n_done++;
    if (rc < 0 && task_idx < j->failed_idx) {
        j->failed_idx = task_idx;
        j->rc = rc;
        j->err = *err;
    }
    pthread_cond_signal(&j->moved);
}

static void *work(void *arg)
{
    struct job *j = arg;

    pthread_mutex_lock(&j->lock);
    while (j->n_next < j->t->n_tasks && j->failed_idx == UINT32_MAX) {
        uint32_t       task_idx = j->n_next++;
        struct cts_err err = { 0 };
        int            rc;

        pthread_mutex_unlock(&j->lock);
        rc = j->t->run(j->t->arg, task_idx, &err);
        pthread_mutex_lock(&j->lock);
        note_result(j, task_idx, rc, &err);
    }
    j->n_running--;
    pthread_cond_signal(&j->moved);
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

/* Tell about every step until the last thread is through. */
static void watch(struct job *j)
{
    uint32_t told = 0;

    pthread_mutex_lock(&j->lock);
    while (j->n_running > 0 || told < j->n_done) {
        if (told == j->n_done) {
            pthread_cond_wait(&j->moved, &j->lock);
            continue;
        }
        told = j->n_done;
        pthread_mutex_unlock(&j->lock);
        if (j->t->on_done != NULL) j->t->on_done(j->t->on_done_arg, told);
        pthread_mutex_lock(&j->lock);
    }
    pthread_mutex_unlock(&j->lock);
}

int cts_tasks_run(const struct cts_tasks *t, uint32_t n_threads, struct cts_err *err)
{
    struct job j = {
        .t = t, .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER, .failed_idx = UINT32_MAX
    };
    uint32_t   n = n_threads < t->n_tasks ? n_threads : t->n_tasks, n_started = 0;
    pthread_t *thread;
    int        rc = 0;

    CTS_ASSERT(n_threads > 0);
    if (t->n_tasks == 0) return 0;
    thread = calloc(n, sizeof(*thread));
    if (thread == NULL) return cts_err_set(err, -ENOMEM, "%u threads", n);
    j.n_running = n;
    while (n_started < n && (rc = pthread_create(&thread[n_started], NULL, work, &j)) == 0) n_started++;
    pthread_mutex_lock(&j.lock);
    j.n_running -= n - n_started; /* fewer threads do the same work */
    pthread_mutex_unlock(&j.lock);
    watch(&j);
    for (uint32_t i = 0; i < n_started; i++) pthread_join(thread[i], NULL);
    free(thread);
    pthread_cond_destroy(&j.moved);
    pthread_mutex_destroy(&j.lock);
    if (n_started == 0) return cts_err_set(err, -rc, "start a thread");
    if (j.rc < 0 && err != NULL) *err = j.err;
    return j.rc;
}

uint32_t cts_cpu_count(void)
{
    cpu_set_t set;

    /* More CPUs than the set holds: ask for fewer threads than there could be. */
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}
