#include "daemon/engine/kv.h"
#include "tests/check.h"

#include <errno.h>
#include <string.h>

static void every_page_goes_out_once_and_comes_back(void **state)
{
    struct cts_kv kv;
    int32_t       pages[10];
    int           seen[10] = { 0 };

    (void)state;
    CHECK(cts_kv_init(&kv, 10, 16) == 0);
    CHECK(cts_kv_take(&kv, 4, pages) == 0);
    CHECK(cts_kv_take(&kv, 6, pages + 4) == 0);
    CHECK(kv.n_free == 0);
    for (int i = 0; i < 10; i++) seen[pages[i]]++;
    for (int i = 0; i < 10; i++) CHECK(seen[i] == 1);
    cts_kv_give(&kv, 10, pages);
    CHECK(kv.n_free == 10);
    cts_kv_deinit(&kv);
}

static void too_many_pages_are_refused_and_none_is_taken(void **state)
{
    struct cts_kv kv;
    int32_t       pages[8] = { -1, -1, -1, -1, -1, -1, -1, -1 };

    (void)state;
    CHECK(cts_kv_init(&kv, 7, 16) == 0);
    CHECK(cts_kv_take(&kv, 8, pages) == -EAGAIN);
    CHECK(kv.n_free == 7 && pages[0] == -1);
    CHECK(cts_kv_take(&kv, 7, pages) == 0);
    CHECK(cts_kv_take(&kv, 1, pages) == -EAGAIN);
    CHECK(cts_kv_take(&kv, 0, pages) == 0);
    cts_kv_deinit(&kv);
}

static void tokens_are_rounded_up_to_pages_without_overflow(void **state)
{
    struct cts_kv kv = { .page_tokens = 16 };

    (void)state;
    CHECK(cts_kv_pages_for(&kv, 0) == 0);
    CHECK(cts_kv_pages_for(&kv, 1) == 1);
    CHECK(cts_kv_pages_for(&kv, 16) == 1);
    CHECK(cts_kv_pages_for(&kv, 17) == 2);
    CHECK(cts_kv_pages_for(&kv, UINT32_MAX) == 1u << 28);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_goes_out_once_and_comes_back),
        cmocka_unit_test(too_many_pages_are_refused_and_none_is_taken),
        cmocka_unit_test(tokens_are_rounded_up_to_pages_without_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
