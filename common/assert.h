#ifndef CTS_COMMON_ASSERT_H
#define CTS_COMMON_ASSERT_H

/* A broken invariant of ours: prints where and what, then aborts. Never for
 * anything that comes from outside (files, sockets, shared memory). Survives
 * NDEBUG. */
#define CTS_ASSERT(cond) \
    ((cond) ? (void)0 : cts_assert_failed(#cond, __FILE__, __LINE__, __func__))

/* The same on a path measured in nanoseconds: only in builds with -DCTS_DEBUG. */
#ifdef CTS_DEBUG
#define CTS_DASSERT(cond) CTS_ASSERT(cond)
#else
#define CTS_DASSERT(cond) ((void)sizeof(cond))
#endif

void cts_assert_failed(const char *cond, const char *file, int line, const char *func)
    __attribute__((noreturn, cold));

#endif
