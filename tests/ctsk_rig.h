#ifndef CTS_TESTS_CTSK_RIG_H
#define CTS_TESTS_CTSK_RIG_H

/* A device with one stream and a handful of buffers, for the tests of kernels/. */

#include "kernels/ctsk.h"

#define RIG_BUFS 64

struct rig {
    struct ctsk_dev    *dev;
    struct ctsk_stream *stream;
    struct ctsk_buf    *bufs[RIG_BUFS];
    uint32_t            n_bufs;
};

/* level and n_threads matter to "cpu" only. Both fail the test on error. */
void rig_open(struct rig *g, const char *backend, const char *level, uint32_t n_threads);
void rig_close(struct rig *g);

/* Free the buffers, keep the device. */
void rig_clear(struct rig *g);

/* A new buffer that holds a copy of data. */
struct ctsk_ptr rig_put(struct rig *g, const void *data, size_t bytes);

/* bytes from a place in one of the buffers, after a sync that must succeed. */
void rig_get(struct rig *g, void *out, struct ctsk_ptr at, size_t bytes);

/* Every backend and level that this host runs, one after the other: calls
 * fn(g, arg) with an open rig, cpu levels with each number of threads given. */
typedef void rig_fn(struct rig *g, void *arg);
void         rig_each_backend(rig_fn *fn, void *arg);
void         rig_each_level(uint32_t n_threads, rig_fn *fn, void *arg);

/* n floats in -1 .. 1, the same for the same seed; free() them. */
float *rig_noise(uint64_t seed, size_t n);

/* n floats that are integers in -4 .. 4: sums of their products are exact. */
float *rig_integers(uint64_t seed, size_t n);

/* calloc that fails the test. */
void *rig_alloc(size_t n, size_t bytes);

/* y arrays end in this many floats that no op may touch. */
#define RIG_GUARD      16
#define RIG_GUARD_BITS 12345.5f

/* rig_noise, RIG_GUARD floats longer, with the guard set. */
float *rig_guarded(uint64_t seed, size_t n);

/* |got - want| <= bound, element by element, and the guard behind n is intact. */
void rig_check_close(const struct rig *g, const char *what, const float *got, const float *want,
                     const double *bound, size_t n);

#endif
