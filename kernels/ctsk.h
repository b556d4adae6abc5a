#ifndef CTS_KERNELS_CTSK_H
#define CTS_KERNELS_CTSK_H

/* The kernels behind one table, so that a GPU, a CPU and the reference are the
 * same to whoever calls: memory is opaque, work is queued on a stream, results
 * are there after ctsk_sync. Backends:
 *
 *   ref     the definition of right: one thread, sums in float64
 *   cpu     float32 SIMD, level generic | avx2 | avx512f, worker threads
 *   async   ref behind a worker thread with delayed completion and memory that
 *           the host can't touch and that reads 0xA5 until it is copied to: a
 *           missing wait or a host dereference fails here, without a GPU
 *
 * All shapes are checked here once, before a backend sees a call: CTS_ESHAPE,
 * and nothing was queued. Every op allows n_rows == 0 (does nothing). Strides
 * (x_ld) are in elements. All tensors are float32, row-major.
 *
 * Batch invariance: on one backend and level, each output element is one sum in
 * an order that depends on the shape (n_in, ranks, head_dim, position) only,
 * never on n_rows, on the row's place in the batch or on the number of threads.
 *
 * A device and everything made from it belong to one thread at a time (the
 * engine's); opening and closing may happen on another before and after. */

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

struct ctsk_dev;
struct ctsk_buf;
struct ctsk_stream;

struct ctsk_opts {
    const char *backend;   /* "cpu" (default when NULL), "ref", "async" */
    const char *cpu_level; /* "generic", "avx2", "avx512f"; NULL or "auto": the best the host has */
    uint32_t    n_threads; /* of the cpu backend, caller included; 0 and 1: the caller alone */
    uint64_t    spin_ns;   /* how long a worker polls for the next op before it sleeps */
};

/* CTS_EARG names a backend or level that is unknown, CTS_EUNSUP one that this host can't run. */
int  ctsk_open(struct ctsk_dev **out, const struct ctsk_opts *o, struct cts_err *err);
void ctsk_close(struct ctsk_dev *d); /* NULL is fine; every buffer and stream is freed before */

/* "cpu avx512f, 2 threads": for ctsd -V and the log. Lives as long as d. */
const char *ctsk_describe(const struct ctsk_dev *d);

/* Levels of the cpu backend that this host can run, best last: fills names
 * [cap], returns how many there are. */
uint32_t ctsk_cpu_levels(const char **names, uint32_t cap);

/* Device memory, 64-byte aligned, contents undefined. 0 or -ENOMEM. */
int    ctsk_buf_new(struct ctsk_dev *d, size_t bytes, struct ctsk_buf **out);
void   ctsk_buf_free(struct ctsk_buf *b); /* NULL is fine; no queued op may use it any more */
size_t ctsk_buf_bytes(const struct ctsk_buf *b);

/* Host memory that copies run from and to at full speed (pinned on a GPU). */
void *ctsk_host_new(struct ctsk_dev *d, size_t bytes); /* zeroed; NULL: no memory */
void  ctsk_host_free(struct ctsk_dev *d, void *p);

/* A place in device memory: a number for kernels and for tables that kernels
 * read. Never dereferenced on the host. {0} is no place. */
struct ctsk_ptr {
    uint64_t addr;
};
struct ctsk_ptr ctsk_at(const struct ctsk_buf *b, size_t off_bytes); /* asserts off_bytes <= size */

int  ctsk_stream_new(struct ctsk_dev *d, struct ctsk_stream **out);
void ctsk_stream_free(struct ctsk_stream *s); /* NULL is fine; waits for what is queued */

/* Queue a copy. src and dst stay valid and untouched until a sync. Bounds of
 * the buffer are checked: CTS_ESHAPE. */
int ctsk_upload(struct ctsk_stream *s, struct ctsk_buf *dst, size_t dst_off, const void *src, size_t bytes);
int ctsk_download(struct ctsk_stream *s, void *dst, const struct ctsk_buf *src, size_t src_off, size_t bytes);

/* Wait for all that is queued. 0, or the first failure since the last sync
 * (CTS_EGPU, CTS_EGPU_LOST). */
int ctsk_sync(struct ctsk_stream *s);

/* Limits of the shapes. Every other extent is at most 2^31-1. */
#define CTSK_HEAD_DIM_MAX 512
#define CTSK_RANK_MAX     65536

/* y[r,:] = table[ids[r],:].   ids i32 [n_rows], 0 <= id < n_ids (the caller's promise) */
struct ctsk_embed {
    struct ctsk_ptr y, table, ids;
    int64_t         n_rows, n_cols, n_ids;
};
int ctsk_embed(struct ctsk_stream *s, const struct ctsk_embed *a);

/* y[r,:] = x[ids[r],:].   ids i32 [n_rows]; y dense */
struct ctsk_gather {
    struct ctsk_ptr y, x, ids;
    int64_t         n_rows, n_cols, x_ld;
};
int ctsk_gather(struct ctsk_stream *s, const struct ctsk_gather *a);

/* y[r,c] = x[r,c] * w[c] / sqrt(mean over c of x[r,c]^2 + eps).   w [n_cols]; y dense, may be x when x_ld == n_cols
 * cpu agrees with ref within (n_cols / 8 + 12) * 2^-24 * |y|: the sum is off by
 * (n_cols / 4 + 8) units, which the root halves, and 8 operations round. */
struct ctsk_rmsnorm {
    struct ctsk_ptr x, w, y;
    int64_t         n_rows, n_cols, x_ld;
    float           eps;
};
int ctsk_rmsnorm(struct ctsk_stream *s, const struct ctsk_rmsnorm *a);

/* y[r,o] = sum over i of x[r,i] * w[o,i], plus the old y[r,o] where accumulate
 * is set (added after the sum).   w [n_out, n_in] dense; y overlaps neither x nor w.
 * cpu agrees with ref within (n_in / 4 + 8) * 2^-24 * (sum of |x * w| + |old y|):
 * each of at least 4 lanes adds n_in / 4 rounded products, then come the lanes. */
struct ctsk_matmul {
    struct ctsk_ptr x, w, y;
    int64_t         n_rows, n_in, n_out, x_ld, y_ld;
    int             accumulate;
};
int ctsk_matmul(struct ctsk_stream *s, const struct ctsk_matmul *a);

/* Rotate q and k by position (Hugging Face's rotate_half: pairs (i, i + d/2)),
 * q in place, and append k and v to the paged cache.
 *   q [n_rows, n_heads * head_dim], k and v [n_rows, n_kv_heads * head_dim], strides qkv_ld each
 *   cos, sin [n_positions, head_dim / 2]
 *   pos i32 [n_rows]; place i32 [n_rows]: page * page_tokens + index in the page
 *   k_pages, v_pages [n_places, n_kv_heads, head_dim] of one layer
 * cpu agrees with ref within 4 * 2^-24 * (|x[i]| + |x[i + d/2]|): two products,
 * their sum and ref's own result round. */
struct ctsk_rope_append {
    struct ctsk_ptr q, k, v, cos, sin, pos, place, k_pages, v_pages;
    int64_t         n_rows, n_heads, n_kv_heads, head_dim, qkv_ld;
};
int ctsk_rope_append(struct ctsk_stream *s, const struct ctsk_rope_append *a);

/* Causal attention of each row over its own sequence, positions 0 .. pos[r],
 * walked page by page from 0 up with one running softmax, so that neither the
 * borders of prefill chunks nor neighbours change a bit.
 *   q [n_rows, n_heads * head_dim], stride q_ld; y [n_rows, n_heads * head_dim], dense
 *   seq i32 [n_rows]: row of page_table; page_table i32 [n_seqs, n_pages_max]: page numbers
 *   query head h reads key-value head h / (n_heads / n_kv_heads)
 * y does not overlap q.
 *
 * cpu agrees with ref within, where n = pos + 1, u = 2^-24 and p are the weights,
 *   (2 * e + 2 * n + 32) * u * (sum over positions of p * |v|)
 *   e = (head_dim / 4 + 16) * (largest scale * sum of |q * k| of the row)
 * A score, and its distance to the maximum, are off by e units at most, which
 * weigh above and below the division; n additions make the result; and each of
 * the n / 64 blocks rounds a shrink factor (4 units) and three products of it. */
struct ctsk_attention {
    struct ctsk_ptr q, y, pos, seq, page_table, k_pages, v_pages;
    int64_t         n_rows, n_heads, n_kv_heads, head_dim, q_ld, n_pages_max, page_tokens;
    float           scale;
};
int ctsk_attention(struct ctsk_stream *s, const struct ctsk_attention *a);

/* y[r,c] = silu(gate[r,c]) * up[r,c], silu(z) = z / (1 + exp(-z)).   all dense; y may be gate or up
 * cpu agrees with ref within 8 * 2^-24 * |y| + 2^-120 * |up|: 4 units from the
 * exponential, 4 roundings, and exp(-z) is infinite from z = -88.3 down. */
struct ctsk_silu_mul {
    struct ctsk_ptr gate, up, y;
    int64_t         n_rows, n_cols;
};
int ctsk_silu_mul(struct ctsk_stream *s, const struct ctsk_silu_mul *a);

/* One module of one part of an adapter, in device memory. A part is either a
 * sigma of a cluster (right = V transposed, left = U, shared by the cluster) or
 * a pair of low-rank factors (right = A or Q transposed, left = B or P, no
 * sigma). rank_in == 0: the part leaves this module alone. */
struct ctsk_factor {
    uint64_t right;             /* f32 [rank_in, n_in] */
    uint64_t sigma;             /* f32 [rank_out, rank_in]; 0: the identity, rank_in == rank_out */
    uint64_t left;              /* f32 [n_out, rank_out] */
    uint32_t rank_in, rank_out;
    float    scale;             /* the module's norm, or alpha / r */
    uint32_t reserved;          /* 0 */
};

/* One entry of the rows' lists, in device memory: row's result gets this part
 * times weight. Entries of one row stand together, rows ascend; parts of a row
 * add in list order. */
struct ctsk_row_part {
    uint64_t factors; /* address of struct ctsk_factor [n_modules] */
    float    weight;
    uint32_t row;
};

/* For every entry p of row_parts, with f = p.factors[module_idx]:
 *   y[p.row,:] += p.weight * f.scale * f.left . (f.sigma . (f.right . x[p.row,:]))
 * scratch f32 [n_parts, 2 * rank_max]; every rank <= rank_max (the caller's promise)
 * cpu agrees with ref within, per part, (n_in / 4 + rank_in / 4 + rank_out + 32) * 2^-24
 * * |weight * scale| * (the product with every factor's absolute value), plus
 * 2^-24 * |y| after each part: two sums as in the matrix product and, over
 * rank_out, one that adds an element after the other. */
struct ctsk_adapt {
    struct ctsk_ptr x, y, row_parts, scratch;
    int64_t         n_rows, n_parts, n_in, n_out, x_ld, y_ld, rank_max;
    uint32_t        module_idx;
};
int ctsk_adapt(struct ctsk_stream *s, const struct ctsk_adapt *a);

#endif
