#ifndef CTS_TESTS_FAULT_H
#define CTS_TESTS_FAULT_H

/* Allocations that fail on command. A test program that uses this links
 * tests/fault.c with $(fault_ldflags), which diverts the calls of our own code
 * (not those inside libc or another library) to malloc, calloc, realloc,
 * aligned_alloc, strdup, free, mmap, munmap and pthread_create. */

#include <stdint.h>

/* That many more allocations (or threads) succeed, then all fail; negative: none fails. Any thread. */
void fault_after(int64_t n);

/* What our code has allocated and not yet freed, mappings and threads' starts included. */
int64_t fault_n_live(void);

#endif
