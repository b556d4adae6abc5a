/* Owns the choice of a backend and the check of every call: what passes here
 * may be queued. Computes nothing. */
#include "kernels/ctsk.h"

#include "common/assert.h"
#include "kernels/backend.h"
#include "kernels/shape.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct ctsk_backend *const BACKENDS[] = { &ctsk_backend_cpu, &ctsk_backend_ref, &ctsk_backend_async };

static const struct ctsk_backend *find_backend(const char *name)
{
    if (name == NULL) name = "cpu";
    for (size_t i = 0; i < sizeof(BACKENDS) / sizeof(BACKENDS[0]); i++)
        if (strcmp(BACKENDS[i]->name, name) == 0) return BACKENDS[i];
    return NULL;
}

int ctsk_open(struct ctsk_dev **out, const struct ctsk_opts *o, struct cts_err *err)
{
    const struct ctsk_backend *b = find_backend(o->backend);
    struct ctsk_dev           *d;
    int                        rc;

    if (b == NULL)
        return cts_err_set(err, CTS_EARG, "backend '%s': there are cpu, ref and async", o->backend);
    d = calloc(1, sizeof(*d));
    if (d == NULL) return cts_err_set(err, -ENOMEM, "backend '%s'", b->name);
    d->backend = b;
    rc = b->open(d, o, err);
    if (rc < 0) {
        free(d);
        return rc;
    }
    *out = d;
    return 0;
}

void ctsk_close(struct ctsk_dev *d)
{
    if (d == NULL) return;
    CTS_ASSERT(d->n_objects == 0);
    d->backend->close(d);
    free(d);
}

const char *ctsk_describe(const struct ctsk_dev *d)
{
    return d->describe;
}

int ctsk_buf_new(struct ctsk_dev *d, size_t bytes, struct ctsk_buf **out)
{
    struct ctsk_buf *b = calloc(1, sizeof(*b));

    if (b == NULL) return -ENOMEM;
    *b = (struct ctsk_buf){ .dev = d, .bytes = bytes };
    b->mem = d->backend->mem_new(d, bytes > 0 ? bytes : 1);
    if (b->mem == NULL) {
        free(b);
        return -ENOMEM;
    }
    d->n_objects++;
    *out = b;
    return 0;
}

void ctsk_buf_free(struct ctsk_buf *b)
{
    if (b == NULL) return;
    b->dev->backend->mem_free(b->dev, b->mem, b->bytes > 0 ? b->bytes : 1);
    b->dev->n_objects--;
    free(b);
}

size_t ctsk_buf_bytes(const struct ctsk_buf *b)
{
    return b->bytes;
}

void *ctsk_host_new(struct ctsk_dev *d, size_t bytes)
{
    void *p = ctsk_hostmem_new(bytes > 0 ? bytes : 1);

    (void)d; /* a GPU's will pin what it hands out */
    if (p != NULL) memset(p, 0, bytes);
    return p;
}

void ctsk_host_free(struct ctsk_dev *d, void *p)
{
    (void)d;
    ctsk_hostmem_free(p);
}

struct ctsk_ptr ctsk_at(const struct ctsk_buf *b, size_t off_bytes)
{
    CTS_ASSERT(off_bytes <= b->bytes);
    return (struct ctsk_ptr){ (uint64_t)(uintptr_t)b->mem + off_bytes };
}

int ctsk_stream_new(struct ctsk_dev *d, struct ctsk_stream **out)
{
    struct ctsk_stream *s = calloc(1, sizeof(*s));
    int                 rc;

    if (s == NULL) return -ENOMEM;
    s->dev = d;
    rc = d->backend->stream_open(s);
    if (rc < 0) {
        free(s);
        return rc;
    }
    d->n_objects++;
    *out = s;
    return 0;
}

void ctsk_stream_free(struct ctsk_stream *s)
{
    if (s == NULL) return;
    s->dev->backend->stream_close(s);
    s->dev->n_objects--;
    free(s);
}

int ctsk_sync(struct ctsk_stream *s)
{
    return s->dev->backend->sync(s);
}

int ctsk_take_failed(struct ctsk_stream *s)
{
    int rc = s->failed;

    s->failed = 0;
    return rc;
}

static int run(struct ctsk_stream *s, const struct ctsk_op *op)
{
    return s->dev->backend->run(s, op);
}

static int copy(struct ctsk_stream *s, struct ctsk_ptr dst, struct ctsk_ptr src, size_t bytes)
{
    if (bytes == 0) return 0;
    return run(s, &(struct ctsk_op){ .kind = CTSK_OP_COPY, .copy = { dst, src, bytes } });
}

static int is_inside(const struct ctsk_buf *b, size_t off, size_t bytes)
{
    return off <= b->bytes && bytes <= b->bytes - off;
}

int ctsk_upload(struct ctsk_stream *s, struct ctsk_buf *dst, size_t dst_off, const void *src, size_t bytes)
{
    if (!is_inside(dst, dst_off, bytes)) return CTS_ESHAPE;
    return copy(s, ctsk_at(dst, dst_off), (struct ctsk_ptr){ (uint64_t)(uintptr_t)src }, bytes);
}

int ctsk_download(struct ctsk_stream *s, void *dst, const struct ctsk_buf *src, size_t src_off, size_t bytes)
{
    if (!is_inside(src, src_off, bytes)) return CTS_ESHAPE;
    return copy(s, (struct ctsk_ptr){ (uint64_t)(uintptr_t)dst }, ctsk_at(src, src_off), bytes);
}

int ctsk_embed(struct ctsk_stream *s, const struct ctsk_embed *a)
{
    if (!ctsk_fits_embed(a)) return CTS_ESHAPE;
    if (a->n_rows == 0) return 0;
    return run(s, &(struct ctsk_op){ .kind = CTSK_OP_EMBED, .embed = *a });
}

int ctsk_gather(struct ctsk_stream *s, const struct ctsk_gather *a)
{
    if (!ctsk_fits_gather(a)) return CTS_ESHAPE;
    if (a->n_rows == 0) return 0;
    return run(s, &(struct ctsk_op){ .kind = CTSK_OP_GATHER, .gather = *a });
}

int ctsk_rmsnorm(struct ctsk_stream *s, const struct ctsk_rmsnorm *a)
{
    if (!ctsk_fits_rmsnorm(a)) return CTS_ESHAPE;
    if (a->n_rows == 0) return 0;
    return run(s, &(struct ctsk_op){ .kind = CTSK_OP_RMSNORM, .rmsnorm = *a });
}

int ctsk_matmul(struct ctsk_stream *s, const struct ctsk_matmul *a)
{
    if (!ctsk_fits_matmul(a)) return CTS_ESHAPE;
    if (a->n_rows == 0) return 0;
    return run(s, &(struct ctsk_op){ .kind = CTSK_OP_MATMUL, .matmul = *a });
}

int ctsk_rope_append(struct ctsk_stream *s, const struct ctsk_rope_append *a)
{
    if (!ctsk_fits_rope_append(a)) return CTS_ESHAPE;
    if (a->n_rows == 0) return 0;
    return run(s, &(struct ctsk_op){ .kind = CTSK_OP_ROPE_APPEND, .rope_append = *a });
}

int ctsk_attention(struct ctsk_stream *s, const struct ctsk_attention *a)
{
    if (!ctsk_fits_attention(a)) return CTS_ESHAPE;
    if (a->n_rows == 0) return 0;
    return run(s, &(struct ctsk_op){ .kind = CTSK_OP_ATTENTION, .attention = *a });
}

int ctsk_silu_mul(struct ctsk_stream *s, const struct ctsk_silu_mul *a)
{
    if (!ctsk_fits_silu_mul(a)) return CTS_ESHAPE;
    if (a->n_rows == 0) return 0;
    return run(s, &(struct ctsk_op){ .kind = CTSK_OP_SILU_MUL, .silu_mul = *a });
}

int ctsk_adapt(struct ctsk_stream *s, const struct ctsk_adapt *a)
{
    if (!ctsk_fits_adapt(a)) return CTS_ESHAPE;
    if (a->n_rows == 0 || a->n_parts == 0) return 0;
    return run(s, &(struct ctsk_op){ .kind = CTSK_OP_ADAPT, .adapt = *a });
}
