#include "common/buf.h"

#include "common/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int cts_buf_reserve(struct cts_buf *b, size_t extra)
{
    size_t   want, cap;
    uint8_t *ptr;

    if (extra > b->max || b->len > b->max - extra) return -EMSGSIZE;
    want = b->len + extra;
    if (want <= b->cap) return 0;
    cap = b->cap < 256 ? 256 : b->cap;
    while (cap < want) cap = cap > b->max / 2 ? b->max : cap * 2;
    if (cap > b->max) cap = b->max;
    ptr = realloc(b->ptr, cap);
    if (ptr == NULL) return -ENOMEM;
    b->ptr = ptr;
    b->cap = cap;
    return 0;
}

int cts_buf_put(struct cts_buf *b, const void *src, size_t n)
{
    int rc = cts_buf_reserve(b, n);

    if (rc < 0) return rc;
    if (n > 0) memcpy(b->ptr + b->len, src, n);
    b->len += n;
    return 0;
}

void cts_buf_take(struct cts_buf *b, size_t n)
{
    CTS_ASSERT(n <= b->len);
    if (n > 0 && n < b->len) memmove(b->ptr, b->ptr + n, b->len - n);
    b->len -= n;
}

void cts_buf_deinit(struct cts_buf *b)
{
    free(b->ptr);
    *b = CTS_BUF(b->max);
}
