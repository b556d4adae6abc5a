#ifndef CTS_TESTS_FAULT_H
#define CTS_TESTS_FAULT_H

/* An allocator that fails on demand, for tests linked with fault.c and
 * $(fault_wraps) (-Wl,--wrap of malloc, calloc, realloc and strdup). Only
 * calls out of this tree's own objects count, not those inside of libraries. */

/* From now on the n-th allocation (from 0) fails, and only it; -1: none does. */
extern int fault_after;

#endif
