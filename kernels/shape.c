#include "kernels/shape.h"

/* A block of rows inside a matrix. */
struct block {
    struct ctsk_ptr at;
    int64_t         n_rows, n_cols, ld;
};

/* A count that ids of 32 bits and the unsigned of a GPU's grid can hold. */
static int is_count(int64_t n)
{
    return n >= 1 && n <= INT32_MAX;
}

static int are_rows(int64_t n_rows)
{
    return n_rows >= 0 && n_rows <= INT32_MAX;
}

static int is_place(struct ctsk_ptr p)
{
    return p.addr != 0 && p.addr % sizeof(float) == 0;
}

/* The block's bytes from its first element to the end of its last; 0: it is
 * nowhere, or runs past the end of what can be addressed. */
static int64_t block_bytes(const struct block *b)
{
    int64_t elements, bytes, end;

    if (!is_place(b->at) || b->at.addr > INT64_MAX) return 0;
    if (__builtin_mul_overflow(b->n_rows - 1, b->ld, &elements)) return 0;
    if (__builtin_add_overflow(elements, b->n_cols, &elements)) return 0;
    if (__builtin_mul_overflow(elements, (int64_t)sizeof(float), &bytes)) return 0;
    if (__builtin_add_overflow((int64_t)b->at.addr, bytes, &end)) return 0;
    return bytes;
}

static int is_block(struct ctsk_ptr at, int64_t n_rows, int64_t n_cols, int64_t ld)
{
    return block_bytes(&(struct block){ at, n_rows, n_cols, ld }) > 0;
}

/* Do two blocks (both of which passed is_block) share an element? Blocks that
 * interleave as columns of one matrix do not. */
static int do_overlap(struct block a, struct block b)
{
    uint64_t gap;

    if (a.at.addr > b.at.addr) return do_overlap(b, a);
    if (a.at.addr + (uint64_t)block_bytes(&a) <= b.at.addr) return 0;
    if (a.ld != b.ld) return 1;
    gap = (b.at.addr - a.at.addr) / sizeof(float) % (uint64_t)a.ld;
    return gap < (uint64_t)a.n_cols || gap + (uint64_t)b.n_cols > (uint64_t)a.ld;
}

int ctsk_fits_embed(const struct ctsk_embed *a)
{
    if (!are_rows(a->n_rows) || !is_count(a->n_cols) || !is_count(a->n_ids)) return 0;
    if (a->n_rows == 0) return 1;
    return is_place(a->ids) && is_block(a->table, a->n_ids, a->n_cols, a->n_cols) &&
           is_block(a->y, a->n_rows, a->n_cols, a->n_cols);
}

int ctsk_fits_gather(const struct ctsk_gather *a)
{
    if (!are_rows(a->n_rows) || !is_count(a->n_cols) || a->x_ld < a->n_cols) return 0;
    if (a->n_rows == 0) return 1;
    return is_place(a->ids) && is_place(a->x) && a->x.addr != a->y.addr &&
           is_block(a->y, a->n_rows, a->n_cols, a->n_cols);
}

int ctsk_fits_rmsnorm(const struct ctsk_rmsnorm *a)
{
    struct block x = { a->x, a->n_rows, a->n_cols, a->x_ld }, y = { a->y, a->n_rows, a->n_cols, a->n_cols };

    if (!are_rows(a->n_rows) || !is_count(a->n_cols) || a->x_ld < a->n_cols || !(a->eps >= 0.0f)) return 0;
    if (a->n_rows == 0) return 1;
    if (!block_bytes(&x) || !block_bytes(&y) || !is_block(a->w, 1, a->n_cols, a->n_cols)) return 0;
    return !do_overlap(x, y) || (x.at.addr == y.at.addr && x.ld == y.ld);
}

int ctsk_fits_matmul(const struct ctsk_matmul *a)
{
    struct block x = { a->x, a->n_rows, a->n_in, a->x_ld }, y = { a->y, a->n_rows, a->n_out, a->y_ld };
    struct block w = { a->w, a->n_out, a->n_in, a->n_in };

    if (!are_rows(a->n_rows) || !is_count(a->n_in) || !is_count(a->n_out)) return 0;
    if (a->x_ld < a->n_in || a->y_ld < a->n_out) return 0;
    if (a->n_rows == 0) return 1;
    if (!block_bytes(&x) || !block_bytes(&y) || !block_bytes(&w)) return 0;
    return !do_overlap(x, y) && !do_overlap(w, y);
}

/* What the two ops on heads share. Once this holds, n_heads * head_dim can't
 * overflow: the first is below 2^31. */
static int are_heads(int64_t n_heads, int64_t n_kv_heads, int64_t head_dim)
{
    return is_count(n_heads) && is_count(n_kv_heads) && n_heads % n_kv_heads == 0 && head_dim >= 1 &&
           head_dim <= CTSK_HEAD_DIM_MAX;
}

int ctsk_fits_rope_append(const struct ctsk_rope_append *a)
{
    int64_t q_cols, kv_cols;

    if (!are_rows(a->n_rows) || !are_heads(a->n_heads, a->n_kv_heads, a->head_dim)) return 0;
    q_cols = a->n_heads * a->head_dim;
    kv_cols = a->n_kv_heads * a->head_dim;
    if (a->head_dim % 2 != 0 || a->qkv_ld < q_cols) return 0;
    if (a->n_rows == 0) return 1;
    return is_place(a->cos) && is_place(a->sin) && is_place(a->pos) && is_place(a->place) &&
           is_place(a->k_pages) && is_place(a->v_pages) && is_block(a->q, a->n_rows, q_cols, a->qkv_ld) &&
           is_block(a->k, a->n_rows, kv_cols, a->qkv_ld) && is_block(a->v, a->n_rows, kv_cols, a->qkv_ld);
}

int ctsk_fits_attention(const struct ctsk_attention *a)
{
    struct block q = { a->q, a->n_rows, 0, a->q_ld }, y = { a->y, a->n_rows, 0, 0 };

    if (!are_rows(a->n_rows) || !are_heads(a->n_heads, a->n_kv_heads, a->head_dim)) return 0;
    q.n_cols = y.n_cols = y.ld = a->n_heads * a->head_dim;
    if (a->q_ld < q.n_cols || !is_count(a->n_pages_max) || !is_count(a->page_tokens)) return 0;
    if (a->n_rows == 0) return 1;
    if (!is_place(a->pos) || !is_place(a->seq) || !is_place(a->page_table) || !is_place(a->k_pages) ||
        !is_place(a->v_pages))
        return 0;
    return block_bytes(&q) > 0 && block_bytes(&y) > 0 && !do_overlap(q, y);
}

/* May y, which is written, be x, which is read? As a whole, or not at all. */
static int is_same_or_apart(struct block x, struct block y)
{
    return x.at.addr == y.at.addr || !do_overlap(x, y);
}

int ctsk_fits_silu_mul(const struct ctsk_silu_mul *a)
{
    struct block gate = { a->gate, a->n_rows, a->n_cols, a->n_cols };
    struct block up = { a->up, a->n_rows, a->n_cols, a->n_cols }, y = { a->y, a->n_rows, a->n_cols, a->n_cols };

    if (!are_rows(a->n_rows) || !is_count(a->n_cols)) return 0;
    if (a->n_rows == 0) return 1;
    if (!block_bytes(&gate) || !block_bytes(&up) || !block_bytes(&y)) return 0;
    return is_same_or_apart(gate, y) && is_same_or_apart(up, y);
}

int ctsk_fits_adapt(const struct ctsk_adapt *a)
{
    struct block x = { a->x, a->n_rows, a->n_in, a->x_ld }, y = { a->y, a->n_rows, a->n_out, a->y_ld };

    if (!are_rows(a->n_rows) || !are_rows(a->n_parts) || !is_count(a->n_in) || !is_count(a->n_out)) return 0;
    if (a->x_ld < a->n_in || a->y_ld < a->n_out || a->rank_max < 1 || a->rank_max > CTSK_RANK_MAX) return 0;
    if (a->n_rows == 0 || a->n_parts == 0) return 1;
    if (!block_bytes(&x) || !block_bytes(&y) || a->row_parts.addr == 0 || a->row_parts.addr % 8 != 0) return 0;
    return is_block(a->scratch, a->n_parts, 2 * a->rank_max, 2 * a->rank_max) && !do_overlap(x, y);
}
