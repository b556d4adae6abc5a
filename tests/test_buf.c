#include "common/buf.h"
#include "tests/check.h"

#include <errno.h>
#include <string.h>

static void buf_grows_to_its_limit_and_not_past_it(void **state)
{
    struct cts_buf b = CTS_BUF(1000);
    uint8_t        bytes[1001];

    (void)state;
    for (int i = 0; i < 1001; i++) bytes[i] = (uint8_t)i;
    for (size_t n = 0; n < 1000; n += 100) CHECK(cts_buf_put(&b, bytes + n, 100) == 0);
    CHECK(b.len == 1000 && b.cap <= 1000 && memcmp(b.ptr, bytes, 1000) == 0);
    CHECK(cts_buf_put(&b, bytes, 1) == -EMSGSIZE && b.len == 1000);
    CHECK(cts_buf_reserve(&b, SIZE_MAX) == -EMSGSIZE && cts_buf_reserve(&b, SIZE_MAX - 500) == -EMSGSIZE);
    CHECK(cts_buf_put(&b, NULL, 0) == 0);
    cts_buf_take(&b, 0);
    cts_buf_take(&b, 990);
    CHECK(b.len == 10 && memcmp(b.ptr, bytes + 990, 10) == 0);
    CHECK(cts_buf_put(&b, bytes, 990) == 0 && b.len == 1000);
    cts_buf_take(&b, 1000);
    CHECK(b.len == 0);
    cts_buf_deinit(&b);
    CHECK(b.ptr == NULL && b.cap == 0 && b.max == 1000);
    CHECK(cts_buf_put(&b, bytes, 3) == 0 && b.len == 3); /* usable again */
    cts_buf_deinit(&b);
    cts_buf_deinit(&b);
}

static void buf_of_a_small_limit_stays_below_it(void **state)
{
    struct cts_buf b = CTS_BUF(3);

    (void)state;
    CHECK(cts_buf_put(&b, "abcd", 4) == -EMSGSIZE && b.ptr == NULL);
    CHECK(cts_buf_put(&b, "abc", 3) == 0 && b.cap == 3);
    cts_buf_deinit(&b);
    b = CTS_BUF(0);
    CHECK(cts_buf_put(&b, "a", 1) == -EMSGSIZE && cts_buf_put(&b, "", 0) == 0);
    cts_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_grows_to_its_limit_and_not_past_it),
        cmocka_unit_test(buf_of_a_small_limit_stays_below_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
