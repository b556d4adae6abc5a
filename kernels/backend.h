#ifndef CTS_KERNELS_BACKEND_H
#define CTS_KERNELS_BACKEND_H

/* What stands behind ctsk.h: a backend is one table, chosen once at open. Only
 * the files of kernels/ include this header. */

#include "kernels/ctsk.h"

#include <stdatomic.h>

enum ctsk_op_kind {
    CTSK_OP_COPY,
    CTSK_OP_EMBED,
    CTSK_OP_GATHER,
    CTSK_OP_RMSNORM,
    CTSK_OP_MATMUL,
    CTSK_OP_ROPE_APPEND,
    CTSK_OP_ATTENTION,
    CTSK_OP_SILU_MUL,
    CTSK_OP_ADAPT,
};

/* An upload or a download: one side is host memory, the other device memory. */
struct ctsk_copy {
    struct ctsk_ptr dst, src;
    size_t          bytes;
};

/* One call as it lies in a queue. Its shape has been checked and it has rows. */
struct ctsk_op {
    enum ctsk_op_kind kind;
    union {
        struct ctsk_copy        copy;
        struct ctsk_embed       embed;
        struct ctsk_gather      gather;
        struct ctsk_rmsnorm     rmsnorm;
        struct ctsk_matmul      matmul;
        struct ctsk_rope_append rope_append;
        struct ctsk_attention   attention;
        struct ctsk_silu_mul    silu_mul;
        struct ctsk_adapt       adapt;
    };
};

struct ctsk_backend {
    const char *name;

    /* open fills d->impl and d->describe or leaves nothing behind. */
    int  (*open)(struct ctsk_dev *d, const struct ctsk_opts *o, struct cts_err *err);
    void (*close)(struct ctsk_dev *d);

    /* Device memory, bytes > 0: 64-byte aligned, or NULL. */
    void *(*mem_new)(struct ctsk_dev *d, size_t bytes);
    void  (*mem_free)(struct ctsk_dev *d, void *mem, size_t bytes);

    int  (*stream_open)(struct ctsk_stream *s); /* 0 or -ENOMEM */
    void (*stream_close)(struct ctsk_stream *s);

    /* Queue op. A failure on the device's side is kept for sync. */
    int (*run)(struct ctsk_stream *s, const struct ctsk_op *op);
    int (*sync)(struct ctsk_stream *s);
};

struct ctsk_dev {
    const struct ctsk_backend *backend;
    void                      *impl;
    uint32_t                   n_objects; /* buffers and streams that live; close asserts 0 */
    char                       describe[64];
};

struct ctsk_buf {
    struct ctsk_dev *dev;
    void            *mem; /* the device's: not for the host to read */
    size_t           bytes;
};

struct ctsk_stream {
    struct ctsk_dev *dev;
    void            *impl;
    int              failed; /* first failure since the last sync */
};

extern const struct ctsk_backend ctsk_backend_ref, ctsk_backend_cpu, ctsk_backend_async;

/* Device memory of the backends whose device is the host: 64-byte aligned,
 * huge pages where it is large, contents undefined; NULL: no memory. */
void *ctsk_hostmem_new(size_t bytes);
void  ctsk_hostmem_free(void *mem);

/* The first failure since the last call, for backends that run each op at once. */
int ctsk_take_failed(struct ctsk_stream *s);

#endif
