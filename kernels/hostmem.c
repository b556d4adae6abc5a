#include "kernels/backend.h"

#include <stdlib.h>
#include <sys/mman.h>

/* From this size on a buffer starts on a huge page: weights are walked once per
 * step, and with small pages the walk waits for page tables. */
#define HUGE_BYTES ((size_t)2 << 20)
#define LINE_BYTES ((size_t)64)

void *ctsk_hostmem_new(size_t bytes)
{
    size_t align = bytes >= HUGE_BYTES ? HUGE_BYTES : LINE_BYTES, whole;
    void  *mem;

    if (__builtin_add_overflow(bytes, align - 1, &whole)) return NULL;
    whole -= whole % align;
    mem = aligned_alloc(align, whole);
    if (mem != NULL && align == HUGE_BYTES)
        (void)madvise(mem, whole, MADV_HUGEPAGE); /* a wish: a kernel without them serves small pages */
    return mem;
}

void ctsk_hostmem_free(void *mem)
{
    free(mem);
}
