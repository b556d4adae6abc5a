#ifndef CTS_COMMON_BUF_H
#define CTS_COMMON_BUF_H

#include <stddef.h>
#include <stdint.h>

/* A byte buffer that grows up to a limit and never past it. Zero-initialise
 * with CTS_BUF(limit); the owner calls cts_buf_deinit. One thread. */
struct cts_buf {
    uint8_t *ptr;
    size_t   len, cap; /* bytes */
    size_t   max;      /* bytes, the limit */
};
#define CTS_BUF(max_bytes) ((struct cts_buf){ .max = (max_bytes) })

/* Room for extra more bytes. 0, -ENOMEM, or -EMSGSIZE when that would pass the
 * limit; the contents stay as they are on failure. */
int cts_buf_reserve(struct cts_buf *b, size_t extra);

/* Append n bytes. Errors as cts_buf_reserve. */
int cts_buf_put(struct cts_buf *b, const void *src, size_t n);

/* Drop the first n bytes, n <= len. */
void cts_buf_take(struct cts_buf *b, size_t n);

/* Free the memory; b is empty and usable again. */
void cts_buf_deinit(struct cts_buf *b);

#endif
