#ifndef CTS_COMMON_FILE_H
#define CTS_COMMON_FILE_H

#include "common/err.h"

#include <stddef.h>

/* Read a whole regular file of at most max_bytes into new memory: *n bytes and a
 * zero after them, which the caller frees. 0; -errno, -EFBIG, CTS_EFORMAT when
 * it is no regular file, with the path in err. Blocks. */
int cts_file_read(const char *path, size_t max_bytes, char **text, size_t *n, struct cts_err *err);

#endif
