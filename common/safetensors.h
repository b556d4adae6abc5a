#ifndef CTS_COMMON_SAFETENSORS_H
#define CTS_COMMON_SAFETENSORS_H

/* The safetensors container: u64 LE N, N bytes of JSON header, data. Read with
 * pread into the caller's memory (never mapped: a file that is truncated while
 * it is open gives -EIO, not SIGBUS). Refused: everything that the reference
 * implementation refuses (header too small, too large, not JSON; offsets with a
 * hole, an overlap or a wrong size; trailing bytes), and duplicate names,
 * a Git LFS pointer, an empty file, a pickle, each by name. */

#include "common/dtype.h"
#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#define CTS_TENSOR_DIMS_MAX 4

struct cts_tensor {
    const char    *name;       /* owned by the file */
    const char    *dtype_name; /* as the file spells it */
    enum cts_dtype dtype;      /* 0: one that is not in the list; reading its values is refused */
    uint32_t       n_dims;     /* a file with more than CTS_TENSOR_DIMS_MAX is refused */
    uint64_t       dim[CTS_TENSOR_DIMS_MAX];
    uint64_t       n_values, off, bytes; /* off from the start of the file */
};

struct cts_safetensors {
    int                fd;
    char              *path; /* for messages */
    uint32_t           n_tensors;
    struct cts_tensor *tensors; /* sorted by name */
    void              *header;  /* private */
};

/* Open and check the whole header. 0; -errno, CTS_EFORMAT, CTS_EUNSUP with the
 * file and the reason in err. On failure f is closed. Blocks. */
int  cts_safetensors_open(struct cts_safetensors *f, const char *path, struct cts_err *err);
void cts_safetensors_close(struct cts_safetensors *f);

/* The header alone: header_bytes bytes of JSON (at most 16 MiB), as they lie at
 * byte 8 of a file of file_bytes. Fills n_tensors and tensors of *f, whose path
 * must be set and whose tensors must be NULL; cts_safetensors_close releases
 * them, after a failure too. What cts_safetensors_open and the fuzzer call.
 * 0, CTS_EFORMAT, CTS_EUNSUP, -ENOMEM. Any thread. */
int cts_safetensors_parse(struct cts_safetensors *f, const void *header, size_t header_bytes, uint64_t file_bytes,
                          struct cts_err *err);

/* By exact name; NULL when absent. */
const struct cts_tensor *cts_safetensors_find(const struct cts_safetensors *f, const char *name);

/* Read the tensor's bytes as they lie into dst [t->bytes]. 0, -errno, -EIO when the file is shorter now. */
int cts_safetensors_read(const struct cts_safetensors *f, const struct cts_tensor *t, void *dst,
                         struct cts_err *err);

/* Read and widen to float32 into dst [t->n_values]; CTS_EUNSUP names a dtype
 * that is not F32, F16 or BF16. */
int cts_safetensors_read_f32(const struct cts_safetensors *f, const struct cts_tensor *t, float *dst,
                             struct cts_err *err);

/* Writing: values are given as float32 and narrowed. The file appears whole
 * (temporary name, fsync, rename); tensors lie in the given order, aligned to
 * 64 bytes by padding the header (each tensor's size must be a multiple of 2). */
struct cts_tensor_out {
    const char    *name;
    enum cts_dtype dtype; /* as stored */
    uint32_t       n_dims;
    uint64_t       dim[CTS_TENSOR_DIMS_MAX];
    const float   *values; /* borrowed until the call returns */
};
int cts_safetensors_write(const char *path, const struct cts_tensor_out *t, uint32_t n_tensors,
                          struct cts_err *err);

#endif
