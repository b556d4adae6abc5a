#include "tests/ctsk_rig.h"

#include "tests/check.h"

#include <math.h>
#include <string.h>

void rig_open(struct rig *g, const char *backend, const char *level, uint32_t n_threads)
{
    struct ctsk_opts o = { .backend = backend, .cpu_level = level, .n_threads = n_threads, .spin_ns = 20000 };
    struct cts_err   err = { 0 };

    memset(g, 0, sizeof(*g));
    CHECK_MSG(ctsk_open(&g->dev, &o, &err) == 0, "%s\n", err.text);
    CHECK(ctsk_stream_new(g->dev, &g->stream) == 0);
}

void rig_clear(struct rig *g)
{
    while (g->n_bufs > 0) ctsk_buf_free(g->bufs[--g->n_bufs]);
}

void rig_close(struct rig *g)
{
    ctsk_stream_free(g->stream);
    rig_clear(g);
    ctsk_close(g->dev);
}

struct ctsk_ptr rig_put(struct rig *g, const void *data, size_t bytes)
{
    struct ctsk_buf *b;

    CHECK(g->n_bufs < RIG_BUFS);
    CHECK(ctsk_buf_new(g->dev, bytes, &b) == 0);
    g->bufs[g->n_bufs++] = b;
    CHECK(ctsk_upload(g->stream, b, 0, data, bytes) == 0);
    CHECK(ctsk_sync(g->stream) == 0);
    return ctsk_at(b, 0);
}

void rig_get(struct rig *g, void *out, struct ctsk_ptr at, size_t bytes)
{
    for (uint32_t i = 0; i < g->n_bufs; i++) {
        uint64_t start = ctsk_at(g->bufs[i], 0).addr;

        if (at.addr < start || at.addr + bytes > start + ctsk_buf_bytes(g->bufs[i])) continue;
        CHECK(ctsk_download(g->stream, out, g->bufs[i], at.addr - start, bytes) == 0);
        CHECK(ctsk_sync(g->stream) == 0);
        return;
    }
    CHECK(!"a place in one of the buffers");
}

void rig_each_level(uint32_t n_threads, rig_fn *fn, void *arg)
{
    const char *names[8];
    uint32_t    n = ctsk_cpu_levels(names, 8);
    struct rig  g;

    CHECK(n >= 1);
    for (uint32_t i = 0; i < n; i++) {
        rig_open(&g, "cpu", names[i], n_threads);
        fn(&g, arg);
        rig_close(&g);
    }
}

void rig_each_backend(rig_fn *fn, void *arg)
{
    struct rig g;

    rig_open(&g, "async", NULL, 1);
    fn(&g, arg);
    rig_close(&g);
    rig_each_level(1, fn, arg);
    rig_each_level(3, fn, arg);
}

/* xorshift64*: any seed but 0 */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717u;
}

float *rig_noise(uint64_t seed, size_t n)
{
    uint64_t state = seed * 2 + 1;
    float   *x = rig_alloc(n, sizeof(*x));

    for (size_t i = 0; i < n; i++) x[i] = (float)(int32_t)(next_random(&state) >> 32) * 0x1p-31f;
    return x;
}

float *rig_integers(uint64_t seed, size_t n)
{
    uint64_t state = seed * 2 + 1;
    float   *x = rig_alloc(n, sizeof(*x));

    for (size_t i = 0; i < n; i++) x[i] = (float)((int)(next_random(&state) % 9) - 4);
    return x;
}

void *rig_alloc(size_t n, size_t bytes)
{
    void *p = calloc(n > 0 ? n : 1, bytes);

    CHECK(p != NULL);
    return p;
}

float *rig_guarded(uint64_t seed, size_t n)
{
    float *x = rig_noise(seed, n + RIG_GUARD);

    for (size_t i = n; i < n + RIG_GUARD; i++) x[i] = RIG_GUARD_BITS;
    return x;
}

void rig_check_close(const struct rig *g, const char *what, const float *got, const float *want,
                     const double *bound, size_t n)
{
    for (size_t i = 0; i < n; i++)
        CHECK_MSG(fabs((double)got[i] - want[i]) <= bound[i], "%s, %s, element %zu: %.9g, not %.9g within %.3g\n",
                  ctsk_describe(g->dev), what, i, (double)got[i], (double)want[i], bound[i]);
    for (size_t i = n; i < n + RIG_GUARD; i++) CHECK_MSG(got[i] == RIG_GUARD_BITS, "%s: wrote past the end\n", what);
}
