/* The cpu backend: float32, one level, a pool of threads. Every op has happened
 * when its call returns, so a stream holds nothing but a failure. */
#include "kernels/cpu/level.h"
#include "kernels/cpu/pool.h"

#include "common/assert.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Below this many multiply-adds (some microseconds) an op stays on the caller:
 * sharing it out costs about as much. */
#define ALONE_FMA 32768

/* Pieces per thread, so that a thread that was held up is helped out. */
#define PIECES_PER_THREAD 4

#define THREADS_MAX 1024

struct cpu_dev {
    const struct cts_cpu_level *level;
    struct cts_pool            *pool;
};

/* What a piece of work needs: handed to the pool as its argument. */
struct job {
    const struct cts_cpu_level *level;
    const struct ctsk_op       *op;
    int64_t                     n_row_tiles; /* of a matrix product */
};

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Share n_items out, each of fma_per_item multiply-adds. */
static void share(struct cpu_dev *c, cts_pool_fn *fn, struct job *j, int64_t n_items, int64_t fma_per_item)
{
    int64_t pieces = (int64_t)cts_pool_n_threads(c->pool) * PIECES_PER_THREAD;
    int64_t grain = (n_items + pieces - 1) / pieces, least = ALONE_FMA / 4 / (fma_per_item + 1) + 1;

    if (n_items <= ALONE_FMA / (fma_per_item + 1)) fn(j, 0, n_items);
    else cts_pool_run(c->pool, fn, j, n_items, grain > least ? grain : least);
}

/* y[r,:] = x[ids[r],:] for rows begin .. end-1 */
static void copy_rows(const struct ctsk_gather *a, int64_t begin, int64_t end)
{
    const int32_t *ids = cts_cpu_at(a->ids);
    const float   *x = cts_cpu_at(a->x);
    float         *y = cts_cpu_at(a->y);

    for (int64_t r = begin; r < end; r++)
        memcpy(y + r * a->n_cols, x + ids[r] * a->x_ld, (size_t)a->n_cols * sizeof(float));
}

static void do_embed(void *arg, int64_t begin, int64_t end)
{
    struct job              *j = arg;
    const struct ctsk_embed *a = &j->op->embed;

    copy_rows(&(struct ctsk_gather){ a->y, a->table, a->ids, a->n_rows, a->n_cols, a->n_cols }, begin, end);
}

static void do_gather(void *arg, int64_t begin, int64_t end)
{
    struct job *j = arg;

    copy_rows(&j->op->gather, begin, end);
}

static void do_rmsnorm(void *arg, int64_t begin, int64_t end)
{
    struct job *j = arg;

    j->level->rmsnorm(&j->op->rmsnorm, begin, end);
}

/* An item is a tile; neighbours in number share their weights. */
static void do_matmul(void *arg, int64_t begin, int64_t end)
{
    struct job               *j = arg;
    const struct ctsk_matmul *a = &j->op->matmul;

    for (int64_t i = begin; i < end; i++) {
        int64_t out = i / j->n_row_tiles * CTS_CPU_TILE_OUTS, row = i % j->n_row_tiles * CTS_CPU_TILE_ROWS;

        j->level->matmul(a, row, min_i64(row + CTS_CPU_TILE_ROWS, a->n_rows), out,
                         min_i64(out + CTS_CPU_TILE_OUTS, a->n_out));
    }
}

static void do_rope_append(void *arg, int64_t begin, int64_t end)
{
    struct job *j = arg;

    j->level->rope_append(&j->op->rope_append, begin, end);
}

static void do_attention(void *arg, int64_t begin, int64_t end)
{
    struct job *j = arg;

    j->level->attention(&j->op->attention, begin, end);
}

static void do_silu_mul(void *arg, int64_t begin, int64_t end)
{
    struct job *j = arg;

    j->level->silu_mul(&j->op->silu_mul, begin, end);
}

static void do_adapt_shrink(void *arg, int64_t begin, int64_t end)
{
    struct job *j = arg;

    j->level->adapt_shrink(&j->op->adapt, begin, end);
}

/* An item is CTS_CPU_TILE_OUTS outputs of all rows. */
static void do_adapt_expand(void *arg, int64_t begin, int64_t end)
{
    struct job              *j = arg;
    const struct ctsk_adapt *a = &j->op->adapt;

    j->level->adapt_expand(a, begin * CTS_CPU_TILE_OUTS, min_i64(end * CTS_CPU_TILE_OUTS, a->n_out));
}

static void run_matmul(struct cpu_dev *c, struct job *j)
{
    const struct ctsk_matmul *a = &j->op->matmul;
    int64_t                   n_out_tiles = (a->n_out + CTS_CPU_TILE_OUTS - 1) / CTS_CPU_TILE_OUTS;

    j->n_row_tiles = (a->n_rows + CTS_CPU_TILE_ROWS - 1) / CTS_CPU_TILE_ROWS;
    share(c, do_matmul, j, n_out_tiles * j->n_row_tiles,
          min_i64(a->n_rows, CTS_CPU_TILE_ROWS) * CTS_CPU_TILE_OUTS * a->n_in);
}

/* Rows differ in how far they look back; the mean is enough to decide whether to
 * share. */
static void run_attention(struct cpu_dev *c, struct job *j)
{
    const struct ctsk_attention *a = &j->op->attention;
    const int32_t               *pos = cts_cpu_at(a->pos);
    int64_t                      n_positions = 0;

    for (int64_t r = 0; r < a->n_rows; r++) n_positions += pos[r] + 1;
    share(c, do_attention, j, a->n_rows * a->n_kv_heads,
          2 * (n_positions / a->n_rows) * (a->n_heads / a->n_kv_heads) * a->head_dim);
}

/* Large pieces: entries with the same matrix are to meet in one, and each piece
 * of the outputs walks the whole list. */
static void run_adapt(struct cpu_dev *c, struct job *j)
{
    const struct ctsk_adapt *a = &j->op->adapt;
    int64_t                  n_threads = cts_pool_n_threads(c->pool);
    int64_t                  n_tiles = (a->n_out + CTS_CPU_TILE_OUTS - 1) / CTS_CPU_TILE_OUTS;
    int64_t                  fma = a->n_parts * a->rank_max * (a->n_in + a->n_out);

    if (fma < ALONE_FMA) n_threads = 1;
    cts_pool_run(c->pool, do_adapt_shrink, j, a->n_parts, (a->n_parts + n_threads - 1) / n_threads);
    cts_pool_run(c->pool, do_adapt_expand, j, n_tiles, (n_tiles + n_threads - 1) / n_threads);
}

static int cpu_run_shared(struct cpu_dev *c, const struct ctsk_op *op)
{
    struct job j = { .level = c->level, .op = op };

    switch (op->kind) {
    case CTSK_OP_COPY: memcpy(cts_cpu_at(op->copy.dst), cts_cpu_at(op->copy.src), op->copy.bytes); return 0;
    case CTSK_OP_EMBED: share(c, do_embed, &j, op->embed.n_rows, op->embed.n_cols); return 0;
    case CTSK_OP_GATHER: share(c, do_gather, &j, op->gather.n_rows, op->gather.n_cols); return 0;
    case CTSK_OP_RMSNORM: share(c, do_rmsnorm, &j, op->rmsnorm.n_rows, 2 * op->rmsnorm.n_cols); return 0;
    case CTSK_OP_MATMUL: run_matmul(c, &j); return 0;
    case CTSK_OP_ROPE_APPEND:
        share(c, do_rope_append, &j, op->rope_append.n_rows,
              2 * (op->rope_append.n_heads + op->rope_append.n_kv_heads) * op->rope_append.head_dim);
        return 0;
    case CTSK_OP_ATTENTION: run_attention(c, &j); return 0;
    case CTSK_OP_SILU_MUL:
        share(c, do_silu_mul, &j, op->silu_mul.n_rows * op->silu_mul.n_cols, 8); /* an exp and a division */
        return 0;
    case CTSK_OP_ADAPT: run_adapt(c, &j); return 0;
    }
    CTS_ASSERT(!"a kind of op");
    return CTS_EGPU;
}

/* The one promise that is checked here, since a check per row costs nothing:
 * ids come from a tokenizer, and a wrong one would read far away. */
static int are_ids(const struct ctsk_embed *a)
{
    const int32_t *ids = cts_cpu_at(a->ids);

    for (int64_t r = 0; r < a->n_rows; r++)
        if (ids[r] < 0 || ids[r] >= a->n_ids) return 0;
    return 1;
}

static int cpu_run(struct ctsk_stream *s, const struct ctsk_op *op)
{
    int rc = CTS_EGPU;

    if (op->kind != CTSK_OP_EMBED || are_ids(&op->embed)) rc = cpu_run_shared(s->dev->impl, op);
    if (s->failed == 0) s->failed = rc;
    return 0;
}

/* The best level that this host runs, or the one that is named. */
static int choose_level(const struct cts_cpu_level **out, const char *name, struct cts_err *err)
{
    int is_auto = name == NULL || strcmp(name, "auto") == 0;

    for (uint32_t i = cts_cpu_n_levels; i-- > 0;) {
        const struct cts_cpu_level *l = cts_cpu_levels[i];

        if (!is_auto && strcmp(l->name, name) != 0) continue;
        if (cts_cpu_can_run(l)) {
            *out = l;
            return 0;
        }
        if (!is_auto) return cts_err_set(err, CTS_EUNSUP, "cpu level '%s': this processor lacks it", name);
    }
    return cts_err_set(err, CTS_EARG, "cpu level '%s': there are auto, generic, avx2 and avx512f", name);
}

static int cpu_open(struct ctsk_dev *d, const struct ctsk_opts *o, struct cts_err *err)
{
    uint32_t        n_threads = o->n_threads > 0 ? o->n_threads : 1;
    struct cpu_dev *c;
    int             rc;

    if (n_threads > THREADS_MAX)
        return cts_err_set(err, CTS_EARG, "%u kernel threads: at most %d", n_threads, THREADS_MAX);
    c = calloc(1, sizeof(*c));
    if (c == NULL) return cts_err_set(err, -ENOMEM, "cpu backend");
    rc = choose_level(&c->level, o->cpu_level, err);
    if (rc == 0) rc = cts_pool_new(&c->pool, n_threads, o->spin_ns, err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    snprintf(d->describe, sizeof(d->describe), "cpu %s, %u thread%s", c->level->name, n_threads,
             n_threads == 1 ? "" : "s");
    d->impl = c;
    return 0;
}

static void cpu_close(struct ctsk_dev *d)
{
    struct cpu_dev *c = d->impl;

    cts_pool_free(c->pool);
    free(c);
}

static void *cpu_mem_new(struct ctsk_dev *d, size_t bytes)
{
    (void)d;
    return ctsk_hostmem_new(bytes);
}

static void cpu_mem_free(struct ctsk_dev *d, void *mem, size_t bytes)
{
    (void)d;
    (void)bytes;
    ctsk_hostmem_free(mem);
}

static int cpu_stream_open(struct ctsk_stream *s)
{
    (void)s;
    return 0;
}

static void cpu_stream_close(struct ctsk_stream *s)
{
    (void)s;
}

uint32_t ctsk_cpu_levels(const char **names, uint32_t cap)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < cts_cpu_n_levels && n < cap; i++)
        if (cts_cpu_can_run(cts_cpu_levels[i])) names[n++] = cts_cpu_levels[i]->name;
    return n;
}

const struct ctsk_backend ctsk_backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .mem_new = cpu_mem_new,
    .mem_free = cpu_mem_free,
    .stream_open = cpu_stream_open,
    .stream_close = cpu_stream_close,
    .run = cpu_run,
    .sync = ctsk_take_failed,
};
