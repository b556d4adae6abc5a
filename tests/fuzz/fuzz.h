#ifndef CTS_TESTS_FUZZ_FUZZ_H
#define CTS_TESTS_FUZZ_FUZZ_H

/* A fuzz target is one function over bytes; it must return for any input, and
 * what it asserts is what the parser promises for inputs that it accepts. Built
 * with libFuzzer by contrib/fuzz, with replay.c over its seeds in make check. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A broken promise is a crash, which is what a fuzzer looks for. */
#define PROMISE(cond) ((cond) ? (void)0 : abort())

#endif
