#ifndef CTS_KERNELS_CPU_POOL_H
#define CTS_KERNELS_CPU_POOL_H

/* The worker threads of the cpu backend. One caller at a time hands out a job
 * of n_items items; the caller works too, so a pool of one thread has no
 * thread, and its jobs are plain calls. */

#include "common/err.h"

#include <stdint.h>

struct cts_pool;

/* Work on items begin .. end-1. Runs on several threads at once. */
typedef void cts_pool_fn(void *arg, int64_t begin, int64_t end);

/* n_threads >= 1 includes the caller. spin_ns: how long a worker polls for the
 * next job, and the caller for the last worker, before it sleeps. -ENOMEM or
 * -EAGAIN (no thread to be had), and nothing is left running. */
int  cts_pool_new(struct cts_pool **out, uint32_t n_threads, uint64_t spin_ns, struct cts_err *err);
void cts_pool_free(struct cts_pool *p); /* NULL is fine; joins the workers */

/* Run fn over all items, grain >= 1 at a time, and return when every item is
 * done. Who works on which item is chance, so fn must not care. A worker that
 * is late takes no part and is not waited for. No system call while all workers
 * are awake; one to wake those that sleep. */
void cts_pool_run(struct cts_pool *p, cts_pool_fn *fn, void *arg, int64_t n_items, int64_t grain);

uint32_t cts_pool_n_threads(const struct cts_pool *p);

#endif
