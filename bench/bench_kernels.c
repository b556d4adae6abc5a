/* The kernels against what this machine can do: products against fused
 * multiply-adds from registers where they compute, against reading memory where
 * they read; the adapters against the product that they ride on.
 *
 *   bench_kernels [level [n_threads [matmul | memory | adapt | attention | rows]]]
 *
 * Each case is first checked against ref, then timed; best of several runs. */
#include "kernels/ctsk.h"

#include "common/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS       25
#define RUN_NS     4000000u /* of one timed run, about: short enough that some run is not disturbed */
#define BIG_FLOATS ((size_t)64 << 20) /* 256 MiB: no cache keeps it */

static const char *level;
static uint32_t    n_threads = 1;

static void die(const char *what)
{
    fprintf(stderr, "bench_kernels: %s\n", what);
    exit(1);
}

struct rig {
    struct ctsk_dev    *dev;
    struct ctsk_stream *stream;
};

static struct rig cpu, ref;

static void rig_open(struct rig *g, const char *backend)
{
    struct ctsk_opts o = { .backend = backend, .cpu_level = level, .n_threads = n_threads, .spin_ns = 200000 };
    struct cts_err   err = { 0 };

    if (ctsk_open(&g->dev, &o, &err) != 0) die(err.text);
    if (ctsk_stream_new(g->dev, &g->stream) != 0) die("no stream");
}

/* A buffer of noise; ref and cpu both compute in host memory and share it. */
static struct ctsk_buf *noise(size_t n)
{
    static uint64_t  state = 88172645463325252u;
    struct ctsk_buf *b;
    float           *x = malloc(n * sizeof(*x));

    if (x == NULL || ctsk_buf_new(cpu.dev, n * sizeof(*x), &b) != 0) die("no memory");
    for (size_t i = 0; i < n; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        x[i] = (float)(int32_t)(state >> 32) * 0x1p-31f;
    }
    if (ctsk_upload(cpu.stream, b, 0, x, n * sizeof(*x)) != 0 || ctsk_sync(cpu.stream) != 0) die("upload");
    free(x);
    return b;
}

static struct ctsk_buf *put(const void *data, size_t bytes)
{
    struct ctsk_buf *b;

    if (ctsk_buf_new(cpu.dev, bytes, &b) != 0) die("no memory");
    if (ctsk_upload(cpu.stream, b, 0, data, bytes) != 0 || ctsk_sync(cpu.stream) != 0) die("upload");
    return b;
}

/* An op to be timed: call it once, on g. */
struct op {
    void (*call)(struct rig *g, const void *args);
    const void      *args;
    struct ctsk_buf *y;
    size_t           n_y;
};

static void must(int rc)
{
    if (rc != 0) die(cts_strerror(rc));
}

/* The op on both, from the same y; largest difference against the largest value. */
static void check(const struct op *o)
{
    size_t bytes = o->n_y * sizeof(float);
    float *zero = calloc(o->n_y, sizeof(float)), *got = malloc(bytes), *want = malloc(bytes);
    double worst = 0.0, size = 0.0;

    if (zero == NULL || got == NULL || want == NULL) die("no memory");
    must(ctsk_upload(cpu.stream, o->y, 0, zero, bytes));
    o->call(&cpu, o->args);
    must(ctsk_download(cpu.stream, got, o->y, 0, bytes));
    must(ctsk_upload(cpu.stream, o->y, 0, zero, bytes));
    must(ctsk_sync(cpu.stream));
    o->call(&ref, o->args);
    must(ctsk_sync(ref.stream));
    must(ctsk_download(cpu.stream, want, o->y, 0, bytes));
    must(ctsk_sync(cpu.stream));
    for (size_t i = 0; i < o->n_y; i++) {
        worst = fmax(worst, fabs((double)got[i] - want[i]));
        size = fmax(size, fabs((double)want[i]));
    }
    if (!(worst <= 1e-4 * size)) die("the result is wrong");
    free(zero);
    free(got);
    free(want);
}

struct timing {
    double   best_ns, spread; /* of one call; (worst - best) / best */
    uint64_t n;
};

static struct timing time_op(const struct op *o)
{
    struct timing t = { INFINITY, 0.0, 1 };
    uint64_t      start = cts_clock_ns(), ns;
    double        worst = 0.0;

    o->call(&cpu, o->args);
    ns = cts_clock_ns() - start;
    t.n = ns > RUN_NS ? 1 : RUN_NS / (ns + 1) + 1;
    for (int run = 0; run < RUNS; run++) {
        start = cts_clock_ns();
        for (uint64_t i = 0; i < t.n; i++) o->call(&cpu, o->args);
        ns = cts_clock_ns() - start;
        t.best_ns = fmin(t.best_ns, (double)ns / (double)t.n);
        worst = fmax(worst, (double)ns / (double)t.n);
    }
    must(ctsk_sync(cpu.stream));
    t.spread = (worst - t.best_ns) / t.best_ns;
    return t;
}

static void print(const char *name, double value, const char *unit, const char *peer, double peer_value,
                  struct timing t)
{
    printf("{\"bench\":\"kernels\",\"case\":\"%s, %s\",\"value\":%.2f,\"unit\":\"%s\",\"peer\":\"%s\","
           "\"peer_value\":%.2f,\"ratio\":%.3f,\"n\":%llu,\"spread\":%.3f}\n",
           ctsk_describe(cpu.dev), name, value, unit, peer, peer_value, value / peer_value,
           (unsigned long long)(t.n * RUNS), t.spread);
    fflush(stdout);
}

/* The two bounds, of one core. Vectors of the compiler's own; the functions
 * differ in nothing but the width and the target. */
#define FMA_PEAK(name, bytes, ...)                                                             \
    __VA_ARGS__ static double fma_peak_##name(void)                                            \
    {                                                                                          \
        typedef float v __attribute__((vector_size(bytes)));                                   \
        v        acc[12], a = { 0 }, b = { 0 };                                                \
        uint64_t start;                                                                        \
        volatile float keep;                                                                   \
                                                                                               \
        for (int i = 0; i < 12; i++) acc[i] = a;                                               \
        a += 0.999f;                                                                           \
        b += 0.001f;                                                                           \
        start = cts_clock_ns();                                                                \
        for (int n = 0; n < 2000000; n++) {                                                   \
            _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) acc[i] = acc[i] * a + b;     \
        }                                                                                      \
        start = cts_clock_ns() - start;                                                        \
        for (int i = 1; i < 12; i++) acc[0] += acc[i];                                         \
        keep = acc[0][0];                                                                      \
        (void)keep;                                                                            \
        return 2.0 * 12 * 2000000 * (bytes / 4) / (double)start;                              \
    }

FMA_PEAK(generic, 16)
#if defined(__x86_64__)
FMA_PEAK(avx2, 32, __attribute__((target("avx2,fma"))))
FMA_PEAK(avx512f, 64, __attribute__((target("avx512f"))))
#endif

static double fma_peak_once(void)
{
    const char *d = ctsk_describe(cpu.dev);

#if defined(__x86_64__)
    if (strstr(d, "avx512f") != NULL) return n_threads * fma_peak_avx512f();
    if (strstr(d, "avx2") != NULL) return n_threads * fma_peak_avx2();
#endif
    (void)d;
    return n_threads * fma_peak_generic();
}

static double fma_peak(void)
{
    double best = 0.0;

    for (int run = 0; run < RUNS; run++) best = fmax(best, fma_peak_once());
    return best;
}

/* GB/s of one core that only reads, four streams from the same kind of pages. */
static double read_peak(void)
{
    typedef uint64_t v __attribute__((vector_size(16)));
    const size_t n = BIG_FLOATS * sizeof(float) / sizeof(v), quarter = n / 4;
    v           *x = ctsk_host_new(cpu.dev, n * sizeof(v)), a = { 0 }, b = a, c = a, d = a;
    double       best = 0.0;
    volatile uint64_t keep;

    if (x == NULL) die("no memory");
    for (int run = 0; run < RUNS; run++) {
        uint64_t start = cts_clock_ns();

        for (size_t i = 0; i < quarter; i++) {
            a ^= x[i];
            b ^= x[quarter + i];
            c ^= x[2 * quarter + i];
            d ^= x[3 * quarter + i];
        }
        best = fmax(best, (double)(n * sizeof(v)) / (double)(cts_clock_ns() - start));
    }
    keep = (a ^ b ^ c ^ d)[0];
    (void)keep;
    ctsk_host_free(cpu.dev, x);
    return n_threads * best;
}

static void call_matmul(struct rig *g, const void *args)
{
    must(ctsk_matmul(g->stream, args));
}

static void bench_matmul(int64_t n_rows, int64_t n_in, int64_t n_out, double peak)
{
    struct ctsk_buf   *x = noise((size_t)(n_rows * n_in)), *w = noise((size_t)(n_out * n_in));
    struct ctsk_buf   *y = noise((size_t)(n_rows * n_out));
    struct ctsk_matmul a = { ctsk_at(x, 0), ctsk_at(w, 0), ctsk_at(y, 0), n_rows, n_in, n_out, n_in, n_out, 0 };
    struct op          o = { call_matmul, &a, y, (size_t)(n_rows * n_out) };
    char               name[80];
    struct timing      t;

    check(&o);
    t = time_op(&o);
    snprintf(name, sizeof(name), "matmul %d rows, %d x %d, weights in cache", (int)n_rows, (int)n_out, (int)n_in);
    print(name, 2.0 * (double)(n_rows * n_in * n_out) / t.best_ns, "GFLOP/s", "fma from registers", peak, t);
    ctsk_buf_free(x);
    ctsk_buf_free(w);
    ctsk_buf_free(y);
}

/* Walks through many copies of the weights, so that each comes from memory. */
struct walk {
    struct ctsk_matmul m;
    int64_t            n_copies;
};

static void call_walk(struct rig *g, const void *args)
{
    const struct walk *wk = args;
    struct ctsk_matmul m = wk->m;

    for (int64_t i = 0; i < wk->n_copies; i++) {
        must(ctsk_matmul(g->stream, &m));
        m.w.addr += (uint64_t)(m.n_in * m.n_out) * sizeof(float);
    }
}

static void bench_walk(const struct ctsk_buf *big, int64_t n_rows, int64_t n, double read_gbs, double peak)
{
    struct ctsk_buf *x = noise((size_t)(n_rows * n)), *y = noise((size_t)(n_rows * n));
    struct walk      wk = { { ctsk_at(x, 0), ctsk_at(big, 0), ctsk_at(y, 0), n_rows, n, n, n, n, 0 },
                            (int64_t)BIG_FLOATS / (n * n) };
    struct op        o = { call_walk, &wk, y, (size_t)(n_rows * n) };
    double           flop = 2.0 * (double)(n_rows * n * n * wk.n_copies);
    char             name[80];
    struct timing    t;

    t = time_op(&o);
    snprintf(name, sizeof(name), "matmul %d rows, %d x %d, weights from memory", (int)n_rows, (int)n, (int)n);
    if (n_rows <= 4) print(name, (double)BIG_FLOATS * 4 / t.best_ns, "GB/s", "reading", read_gbs, t);
    else print(name, flop / t.best_ns, "GFLOP/s", "fma from registers", peak, t);
    ctsk_buf_free(x);
    ctsk_buf_free(y);
}

static void call_adapt(struct rig *g, const void *args)
{
    must(ctsk_adapt(g->stream, args));
}

static void call_both(struct rig *g, const void *args)
{
    const struct ctsk_adapt *a = args;
    struct ctsk_matmul       m = { a->x, { 0 }, a->y, a->n_rows, a->n_in, a->n_out, a->x_ld, a->y_ld, 0 };

    m.w.addr = a->scratch.addr + (uint64_t)(a->n_parts * 2 * a->rank_max) * sizeof(float); /* see bench_adapt */
    must(ctsk_matmul(g->stream, &m));
    must(ctsk_adapt(g->stream, a));
}

/* n_rows rows, each its own adapter of one cluster (a sigma) or an exact one
 * (a pair), on a module of n x n: the time beside that of the product alone. */
static void bench_adapt(int64_t n_rows, int64_t n, int64_t rank, int is_exact)
{
    size_t               n_base = (size_t)(n * rank), n_pairs = is_exact ? (size_t)n_rows : 1;
    struct ctsk_buf     *x = noise((size_t)(n_rows * n)), *y = noise((size_t)(n_rows * n));
    struct ctsk_buf     *right = noise(n_base * n_pairs), *left = noise(n_base * n_pairs);
    struct ctsk_buf     *sigma = noise((size_t)(n_rows * rank * rank));
    struct ctsk_buf     *scratch = noise((size_t)(n_rows * 2 * rank + n * n)), *factors, *parts;
    struct ctsk_factor   f[64];
    struct ctsk_row_part p[64];
    struct ctsk_adapt    a = { ctsk_at(x, 0), ctsk_at(y, 0), { 0 }, ctsk_at(scratch, 0), n_rows, n_rows, n, n, n, n,
                               rank, 0 };
    struct op            o = { call_adapt, &a, y, (size_t)(n_rows * n) };
    struct timing        base, both;
    struct ctsk_matmul   m = { a.x, { 0 }, a.y, n_rows, n, n, n, n, 0 };
    char                 name[80];

    for (uint32_t r = 0; r < n_rows; r++) {
        size_t pair = is_exact ? r * n_base * sizeof(float) : 0;

        f[r] = (struct ctsk_factor){ .right = ctsk_at(right, pair).addr, .left = ctsk_at(left, pair).addr,
                                     .rank_in = (uint32_t)rank, .rank_out = (uint32_t)rank, .scale = 1.0f };
        if (!is_exact) f[r].sigma = ctsk_at(sigma, r * (size_t)(rank * rank) * sizeof(float)).addr;
    }
    factors = put(f, sizeof(f));
    for (uint32_t r = 0; r < n_rows; r++)
        p[r] = (struct ctsk_row_part){ ctsk_at(factors, r * sizeof(f[0])).addr, 1.0f, r };
    parts = put(p, sizeof(p));
    a.row_parts = ctsk_at(parts, 0);
    check(&o);
    m.w.addr = a.scratch.addr + (uint64_t)(n_rows * 2 * rank) * sizeof(float);
    base = time_op(&(struct op){ call_matmul, &m, y, o.n_y });
    both = time_op(&(struct op){ call_both, &a, y, o.n_y });
    snprintf(name, sizeof(name), "%s rank %d on %d rows, %d x %d, with the base", is_exact ? "exact" : "sigma",
             (int)rank, (int)n_rows, (int)n, (int)n);
    print(name, (double)n_rows * 1e9 / both.best_ns, "rows/s", "base only", (double)n_rows * 1e9 / base.best_ns, both);
    ctsk_buf_free(x);
    ctsk_buf_free(y);
    ctsk_buf_free(right);
    ctsk_buf_free(left);
    ctsk_buf_free(sigma);
    ctsk_buf_free(scratch);
    ctsk_buf_free(factors);
    ctsk_buf_free(parts);
}

static void call_attention(struct rig *g, const void *args)
{
    must(ctsk_attention(g->stream, args));
}

/* Decode: n_rows sequences of n_positions each. */
static void bench_attention(int64_t n_rows, int64_t n_positions, double read_gbs, double peak)
{
    enum { HEADS = 8, KV_HEADS = 2, DIM = 64, PAGE = 16 };
    int64_t               n_pages = (n_positions + PAGE - 1) / PAGE, n_kv = n_rows * n_pages * PAGE * KV_HEADS * DIM;
    struct ctsk_buf      *q = noise((size_t)(n_rows * HEADS * DIM)), *y = noise((size_t)(n_rows * HEADS * DIM));
    struct ctsk_buf      *k = noise((size_t)n_kv), *v = noise((size_t)n_kv), *at[3];
    int32_t              *ids = malloc((size_t)(n_rows * n_pages + 2 * n_rows) * sizeof(*ids));
    struct ctsk_attention a = { .n_rows = n_rows, .n_heads = HEADS, .n_kv_heads = KV_HEADS, .head_dim = DIM,
                                .q_ld = HEADS * DIM, .n_pages_max = n_pages, .page_tokens = PAGE, .scale = 0.125f };
    struct op             o = { call_attention, &a, y, (size_t)(n_rows * HEADS * DIM) };
    char                  name[80];
    struct timing         t;

    if (ids == NULL) die("no memory");
    for (int64_t i = 0; i < n_rows * n_pages; i++) ids[i] = (int32_t)i;
    at[0] = put(ids, (size_t)(n_rows * n_pages) * sizeof(*ids));
    at[1] = put(ids, (size_t)n_rows * sizeof(*ids));
    for (int64_t i = 0; i < n_rows; i++) ids[i] = (int32_t)n_positions - 1;
    at[2] = put(ids, (size_t)n_rows * sizeof(*ids));
    a.q = ctsk_at(q, 0);
    a.y = ctsk_at(y, 0);
    a.k_pages = ctsk_at(k, 0);
    a.v_pages = ctsk_at(v, 0);
    a.page_table = ctsk_at(at[0], 0);
    a.seq = ctsk_at(at[1], 0);
    a.pos = ctsk_at(at[2], 0);
    check(&o);
    t = time_op(&o);
    snprintf(name, sizeof(name), "attention %d rows of %d positions, 8 heads on 2, d 64", (int)n_rows,
             (int)n_positions);
    print(name, 8.0 * (double)n_kv / t.best_ns, "GB/s", "reading", read_gbs, t);
    print(name, 4.0 * (double)(n_rows * n_positions * HEADS * DIM) / t.best_ns, "GFLOP/s", "fma from registers", peak,
          t);
    ctsk_buf_free(q);
    ctsk_buf_free(y);
    ctsk_buf_free(k);
    ctsk_buf_free(v);
    for (int i = 0; i < 3; i++) ctsk_buf_free(at[i]);
    free(ids);
}

static void call_silu(struct rig *g, const void *args)
{
    must(ctsk_silu_mul(g->stream, args));
}

static void call_norm(struct rig *g, const void *args)
{
    must(ctsk_rmsnorm(g->stream, args));
}

static void bench_rows(int64_t n_rows, int64_t n_cols, double read_gbs)
{
    size_t               n = (size_t)(n_rows * n_cols);
    struct ctsk_buf     *x = noise(n), *w = noise(n), *y = noise(n);
    struct ctsk_silu_mul s = { ctsk_at(x, 0), ctsk_at(w, 0), ctsk_at(y, 0), n_rows, n_cols };
    struct ctsk_rmsnorm  r = { ctsk_at(x, 0), ctsk_at(w, 0), ctsk_at(y, 0), n_rows, n_cols, n_cols, 1e-5f };
    struct op            silu = { call_silu, &s, y, n }, norm = { call_norm, &r, y, n };
    char                 name[80];
    struct timing        t;

    check(&silu);
    t = time_op(&silu);
    snprintf(name, sizeof(name), "silu_mul %d x %d", (int)n_rows, (int)n_cols);
    print(name, (double)n * 12 / t.best_ns, "GB/s", "reading", read_gbs, t);
    check(&norm);
    t = time_op(&norm);
    snprintf(name, sizeof(name), "rmsnorm %d x %d", (int)n_rows, (int)n_cols);
    print(name, (double)n * 8 / t.best_ns, "GB/s", "reading", read_gbs, t);
    ctsk_buf_free(x);
    ctsk_buf_free(w);
    ctsk_buf_free(y);
}

static int is_wanted(int argc, char **argv, const char *group)
{
    return argc < 4 || strcmp(argv[3], group) == 0;
}

int main(int argc, char **argv)
{
    static const int64_t ROWS[] = { 1, 4, 16, 64 };
    double               peak, read_gbs;

    if (argc > 1) level = argv[1];
    if (argc > 2) n_threads = (uint32_t)strtoul(argv[2], NULL, 10);
    rig_open(&cpu, "cpu");
    rig_open(&ref, "ref");
    peak = fma_peak();
    read_gbs = read_peak();
    for (int i = 0; i < 4 && is_wanted(argc, argv, "matmul"); i++) {
        bench_matmul(ROWS[i], 256, 512, peak);
        bench_matmul(ROWS[i], 256, 640, peak);
        bench_matmul(ROWS[i], 640, 256, peak);
        bench_matmul(ROWS[i], 256, 2048, peak);
    }
    if (is_wanted(argc, argv, "memory")) {
        struct ctsk_buf *big = noise(BIG_FLOATS);

        for (int i = 0; i < 4; i++) bench_walk(big, ROWS[i], 4096, read_gbs, peak);
        ctsk_buf_free(big);
    }
    for (int i = 0; i < 4 && is_wanted(argc, argv, "adapt"); i++) {
        bench_adapt(ROWS[i], 256, 16, 0);
        bench_adapt(ROWS[i], 256, 16, 1);
        bench_adapt(ROWS[i], 2048, 32, 0);
    }
    if (is_wanted(argc, argv, "attention")) {
        bench_attention(4, 64, read_gbs, peak);
        bench_attention(64, 64, read_gbs, peak);
        bench_attention(32, 1024, read_gbs, peak);
    }
    if (is_wanted(argc, argv, "rows")) {
        bench_rows(64, 640, read_gbs);
        bench_rows(1, 4096, read_gbs);
    }
    ctsk_stream_free(cpu.stream);
    ctsk_stream_free(ref.stream);
    ctsk_close(cpu.dev);
    ctsk_close(ref.dev);
    return 0;
}
