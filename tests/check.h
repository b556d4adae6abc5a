#ifndef CTS_TESTS_CHECK_H
#define CTS_TESTS_CHECK_H

/* cmocka with one macro of ours. CHECK survives NDEBUG and belongs on the main
 * thread only: another thread hands back a result. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(cond) _assert_true((uintmax_t)(cond), #cond, __FILE__, __LINE__)

/* The same, with the values that explain a failure. cond is evaluated once. */
#define CHECK_MSG(cond, ...)                                               \
    do {                                                                   \
        int holds_ = !!(cond);                                             \
        if (!holds_) print_error(__VA_ARGS__);                             \
        _assert_true((uintmax_t)holds_, #cond, __FILE__, __LINE__);    \
    } while (0)

/* A whole program that cannot run here says why and exits with 77. */
#define SKIP_ALL(why)                  \
    do {                               \
        printf("SKIP: %s\n", (why));   \
        exit(77);                      \
    } while (0)

/* A path below the source tree ("contrib/demo/base"), in buf. */
static inline const char *src_path(char *buf, size_t cap, const char *rel)
{
    const char *dir = getenv("CTS_SRCDIR");

    snprintf(buf, cap, "%s/%s", dir != NULL ? dir : ".", rel);
    return buf;
}

/* A new temporary directory, "$TMPDIR/cts-test.XXXXXX", in buf; the test removes it. */
static inline char *temp_dir(char *buf, size_t cap)
{
    const char *base = getenv("TMPDIR");

    snprintf(buf, cap, "%s/cts-test.XXXXXX", base != NULL ? base : "/tmp");
    CHECK(mkdtemp(buf) != NULL);
    return buf;
}

#endif
