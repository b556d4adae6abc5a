#ifndef CTS_COMMON_CLOCK_H
#define CTS_COMMON_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in nanoseconds, or the mock's time. Any thread. */
uint64_t cts_clock_ns(void);

/* Tests only: from now on cts_clock_ns() answers ns; UINT64_MAX ends the mock. */
void cts_clock_mock(uint64_t ns);

#endif
