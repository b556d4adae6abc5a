#include "common/assert.h"

#include <stdio.h>
#include <stdlib.h>

void cts_assert_failed(const char *cond, const char *file, int line, const char *func)
{
    fprintf(stderr, "%s:%d: %s: assertion failed: %s\n", file, line, func, cond);
    abort();
}
