#ifndef CTS_COMMON_FILE_H
#define CTS_COMMON_FILE_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

/* Read a whole regular file of at most max_bytes into new memory: *n bytes and a
 * zero after them, which the caller frees. 0; -errno, -EFBIG, CTS_EFORMAT when
 * it is no regular file, with the path in err. Blocks. */
int cts_file_read(const char *path, size_t max_bytes, char **text, size_t *n, struct cts_err *err);

/* Write all n bytes at the descriptor's place, however often the kernel takes
 * only some. 0 or -errno. */
int cts_file_write(int fd, const void *src, uint64_t n);

#endif
