#ifndef CTS_DAEMON_COMPRESS_TASKS_H
#define CTS_DAEMON_COMPRESS_TASKS_H

/* Independent tasks on several threads. What a task computes must depend on
 * its index alone; then the result does not depend on the number of threads. */

#include "common/err.h"

#include <stdint.h>

/* Task task_idx of a job. 0, or negative with err filled. Any thread. */
typedef int (*cts_task_fn)(void *arg, uint32_t task_idx, struct cts_err *err);

/* Called by the thread that runs the job, after n_done tasks are through. */
typedef void (*cts_tasks_done_fn)(void *arg, uint32_t n_done);

struct cts_tasks {
    uint32_t          n_tasks;
    cts_task_fn       run;
    void             *arg;
    cts_tasks_done_fn on_done; /* may be NULL */
    void             *on_done_arg;
};

/* Run all tasks on at most n_threads >= 1 threads, lowest index first. After a
 * failure no further task begins; returned is the failure of the lowest index
 * that failed. 0, that failure, or -errno when no thread can be started. Blocks. */
int cts_tasks_run(const struct cts_tasks *t, uint32_t n_threads, struct cts_err *err);

/* Number of CPUs that this process may use. */
uint32_t cts_cpu_count(void);

#endif
