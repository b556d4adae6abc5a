#ifndef CTS_KERNELS_CPU_LEVEL_H
#define CTS_KERNELS_CPU_LEVEL_H

/* One level of the cpu backend: the ops, each over a range of its work, so that
 * a pool can share it out. Every level is the same source (ops.inc.h) compiled
 * over another vector (vec_<level>.h). How the work is cut never changes a bit. */

#include "kernels/backend.h"

/* The matrix product is cut into tiles of this size at most; both are
 * multiples of every level's register tile. */
#define CTS_CPU_TILE_ROWS 96
#define CTS_CPU_TILE_OUTS 16

struct cts_cpu_level {
    const char *name;

    /* Rows begin .. end-1. */
    void (*rmsnorm)(const struct ctsk_rmsnorm *a, int64_t begin, int64_t end);
    void (*rope_append)(const struct ctsk_rope_append *a, int64_t begin, int64_t end);

    /* Rows row_begin .. row_end-1 of outputs out_begin .. out_end-1. */
    void (*matmul)(const struct ctsk_matmul *a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                   int64_t out_end);

    /* Pairs begin .. end-1, pair = row * n_kv_heads + key-value head. */
    void (*attention)(const struct ctsk_attention *a, int64_t begin, int64_t end);

    /* Elements begin .. end-1 of n_rows * n_cols. */
    void (*silu_mul)(const struct ctsk_silu_mul *a, int64_t begin, int64_t end);

    /* First, entries begin .. end-1 of row_parts into scratch; when all are
     * done, outputs begin .. end-1 of all rows. */
    void (*adapt_shrink)(const struct ctsk_adapt *a, int64_t begin, int64_t end);
    void (*adapt_expand)(const struct ctsk_adapt *a, int64_t begin, int64_t end);
};

extern const struct cts_cpu_level cts_cpu_generic, cts_cpu_avx2, cts_cpu_avx512f;

/* The levels that this build has, best last, and whether this host can run
 * one: levels_x86.c or levels_other.c. */
extern const struct cts_cpu_level *const cts_cpu_levels[];
extern const uint32_t                    cts_cpu_n_levels;
int                                      cts_cpu_can_run(const struct cts_cpu_level *l);

static inline void *cts_cpu_at(struct ctsk_ptr p)
{
    return (void *)(uintptr_t)p.addr;
}

#endif
