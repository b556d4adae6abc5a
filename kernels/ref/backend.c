/* The ref backend: every op has happened when its call returns. */
#include "kernels/ref/ref.h"

#include "common/assert.h"

#include <stdio.h>
#include <string.h>

int cts_ref_run(const struct ctsk_op *op)
{
    switch (op->kind) {
    case CTSK_OP_COPY:
        memcpy(cts_ref_at(op->copy.dst), cts_ref_at(op->copy.src), op->copy.bytes);
        return 0;
    case CTSK_OP_EMBED: return cts_ref_embed(&op->embed);
    case CTSK_OP_GATHER: return cts_ref_gather(&op->gather);
    case CTSK_OP_RMSNORM: return cts_ref_rmsnorm(&op->rmsnorm);
    case CTSK_OP_MATMUL: return cts_ref_matmul(&op->matmul);
    case CTSK_OP_ROPE_APPEND: return cts_ref_rope_append(&op->rope_append);
    case CTSK_OP_ATTENTION: return cts_ref_attention(&op->attention);
    case CTSK_OP_SILU_MUL: return cts_ref_silu_mul(&op->silu_mul);
    case CTSK_OP_ADAPT: return cts_ref_adapt(&op->adapt);
    }
    CTS_ASSERT(!"a kind of op");
    return CTS_EGPU;
}

static int ref_open(struct ctsk_dev *d, const struct ctsk_opts *o, struct cts_err *err)
{
    (void)o;
    (void)err;
    snprintf(d->describe, sizeof(d->describe), "ref");
    return 0;
}

static void ref_close(struct ctsk_dev *d)
{
    (void)d;
}

static void *ref_mem_new(struct ctsk_dev *d, size_t bytes)
{
    (void)d;
    return ctsk_hostmem_new(bytes);
}

static void ref_mem_free(struct ctsk_dev *d, void *mem, size_t bytes)
{
    (void)d;
    (void)bytes;
    ctsk_hostmem_free(mem);
}

static int ref_stream_open(struct ctsk_stream *s)
{
    (void)s;
    return 0;
}

static void ref_stream_close(struct ctsk_stream *s)
{
    (void)s;
}

static int ref_run(struct ctsk_stream *s, const struct ctsk_op *op)
{
    int rc = cts_ref_run(op);

    if (s->failed == 0) s->failed = rc;
    return 0;
}

const struct ctsk_backend ctsk_backend_ref = {
    .name = "ref",
    .open = ref_open,
    .close = ref_close,
    .mem_new = ref_mem_new,
    .mem_free = ref_mem_free,
    .stream_open = ref_stream_open,
    .stream_close = ref_stream_close,
    .run = ref_run,
    .sync = ctsk_take_failed,
};
