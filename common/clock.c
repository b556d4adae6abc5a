#include "common/clock.h"

#include <stdatomic.h>
#include <time.h>

/* Relaxed: a test sets it before it starts what reads it. */
static _Atomic uint64_t mock_ns = UINT64_MAX;

uint64_t cts_clock_ns(void)
{
    struct timespec ts;
    uint64_t        mock = atomic_load_explicit(&mock_ns, memory_order_relaxed);

    if (mock != UINT64_MAX) return mock;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void cts_clock_mock(uint64_t ns)
{
    atomic_store_explicit(&mock_ns, ns, memory_order_relaxed);
}
