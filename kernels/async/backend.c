/* The async backend: ref, made to behave as badly as a GPU may. What is queued
 * happens as late as it is allowed to, on a worker thread while the host waits
 * in a sync. Device memory belongs to the worker: outside its turn every page
 * is PROT_NONE, so a host dereference dies at the line that did it, and so does
 * an op that runs past the end of a buffer or uses one that was freed. Fresh
 * memory reads 0xA5. For tests; it has no speed. */
#include "kernels/ref/ref.h"

#include "common/assert.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A queue that is full runs dry before it takes the next op, as a driver's does. */
#define QUEUE_OPS 1024

#define LINE_BYTES ((size_t)64)

struct queue {
    uint32_t       n;
    struct ctsk_op ops[QUEUE_OPS];
};

/* One buffer: [map, map + map_bytes) and a page behind it that stays shut. The
 * buffer ends where its pages end, but for less than a line. */
struct region {
    struct region *next;
    char          *map;
    size_t         map_bytes;
};

struct async_dev {
    struct region  *regions;
    pthread_t       thread;
    pthread_mutex_t lock;
    pthread_cond_t  changed;   /* turn or is_closing */
    struct ctsk_stream *turn;  /* whose queue the worker is to run; NULL: the host's turn */
    int             is_closing;
};

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static void protect_all(const struct async_dev *a, int prot)
{
    for (const struct region *r = a->regions; r != NULL; r = r->next)
        CTS_ASSERT(mprotect(r->map, r->map_bytes, prot) == 0);
}

/* The worker's turn: the host waits in hand_over, so nothing else runs. */
static void run_queue(struct async_dev *a, struct ctsk_stream *s)
{
    struct queue *q = s->impl;

    protect_all(a, PROT_READ | PROT_WRITE);
    for (uint32_t i = 0; i < q->n; i++) {
        int rc = cts_ref_run(&q->ops[i]);

        if (s->failed == 0) s->failed = rc;
    }
    q->n = 0;
    protect_all(a, PROT_NONE);
}

static void *worker_main(void *arg)
{
    struct async_dev *a = arg;

    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (a->turn == NULL && !a->is_closing) pthread_cond_wait(&a->changed, &a->lock);
        if (a->turn == NULL) break;
        run_queue(a, a->turn);
        a->turn = NULL;
        pthread_cond_broadcast(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* Let the worker run all that s has queued, and wait for it. */
static void hand_over(struct ctsk_stream *s)
{
    struct async_dev *a = s->dev->impl;

    if (((struct queue *)s->impl)->n == 0) return;
    pthread_mutex_lock(&a->lock);
    a->turn = s;
    pthread_cond_broadcast(&a->changed);
    while (a->turn != NULL) pthread_cond_wait(&a->changed, &a->lock);
    pthread_mutex_unlock(&a->lock);
}

static int async_open(struct ctsk_dev *d, const struct ctsk_opts *o, struct cts_err *err)
{
    struct async_dev *a = calloc(1, sizeof(*a));
    int               rc;

    (void)o;
    if (a == NULL) return cts_err_set(err, -ENOMEM, "async backend");
    pthread_mutex_init(&a->lock, NULL); /* neither of the two fails on Linux */
    pthread_cond_init(&a->changed, NULL);
    rc = pthread_create(&a->thread, NULL, worker_main, a);
    if (rc != 0) {
        free(a);
        return cts_err_set(err, -rc, "start the async backend's thread");
    }
    (void)pthread_setname_np(a->thread, "ctsd-async"); /* for top(1) only */
    d->impl = a;
    snprintf(d->describe, sizeof(d->describe), "async ref");
    return 0;
}

static void async_close(struct ctsk_dev *d)
{
    struct async_dev *a = d->impl;

    CTS_ASSERT(a->regions == NULL);
    pthread_mutex_lock(&a->lock);
    a->is_closing = 1;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* Pages for bytes of memory, filled and then shut, and one shut page behind. */
static int map_region(struct region *r, size_t bytes)
{
    size_t page = page_bytes(), whole;

    if (__builtin_add_overflow(bytes, 2 * page - 1, &whole)) return -ENOMEM;
    whole -= whole % page;
    r->map_bytes = whole - page;
    r->map = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (r->map == MAP_FAILED) return -ENOMEM;
    memset(r->map, 0xA5, r->map_bytes);
    CTS_ASSERT(mprotect(r->map, whole, PROT_NONE) == 0);
    return 0;
}

static void *async_mem_new(struct ctsk_dev *d, size_t bytes)
{
    struct async_dev *a = d->impl;
    struct region    *r = calloc(1, sizeof(*r));

    if (r == NULL || map_region(r, bytes) < 0) {
        free(r);
        return NULL;
    }
    r->next = a->regions;
    a->regions = r;
    return r->map + (r->map_bytes - bytes) / LINE_BYTES * LINE_BYTES;
}

static void async_mem_free(struct ctsk_dev *d, void *mem, size_t bytes)
{
    struct async_dev *a = d->impl;
    struct region   **at = &a->regions, *r;

    (void)bytes;
    while (*at != NULL && ((char *)mem < (*at)->map || (char *)mem >= (*at)->map + (*at)->map_bytes))
        at = &(*at)->next;
    r = *at;
    CTS_ASSERT(r != NULL);
    *at = r->next;
    munmap(r->map, r->map_bytes + page_bytes());
    free(r);
}

static int async_stream_open(struct ctsk_stream *s)
{
    s->impl = calloc(1, sizeof(struct queue));
    return s->impl != NULL ? 0 : -ENOMEM;
}

static void async_stream_close(struct ctsk_stream *s)
{
    hand_over(s);
    free(s->impl);
}

static int async_run(struct ctsk_stream *s, const struct ctsk_op *op)
{
    struct queue *q = s->impl;

    if (q->n == QUEUE_OPS) hand_over(s);
    q->ops[q->n++] = *op;
    return 0;
}

static int async_sync(struct ctsk_stream *s)
{
    hand_over(s);
    return ctsk_take_failed(s);
}

const struct ctsk_backend ctsk_backend_async = {
    .name = "async",
    .open = async_open,
    .close = async_close,
    .mem_new = async_mem_new,
    .mem_free = async_mem_free,
    .stream_open = async_stream_open,
    .stream_close = async_stream_close,
    .run = async_run,
    .sync = async_sync,
};
