#include "client/names.h"

#include "tests/check.h"

static void names_find_what_was_put_and_replace_it(void **state)
{
    struct cts_names       t = CTS_NAMES_INIT;
    const struct cts_name *n;

    (void)state;
    CHECK(cts_names_find(&t, "a") == NULL);
    CHECK(cts_names_put(&t, "a", 1, 10) == 0);
    CHECK(cts_names_put(&t, "b", 2, 20) == 0);
    CHECK(cts_names_put(&t, "a", 3, 30) == 0);
    n = cts_names_find(&t, "a");
    CHECK(n != NULL);
    CHECK(n->number == 3 && n->generation == 30);
    n = cts_names_find(&t, "b");
    CHECK(n != NULL);
    CHECK(n->number == 2 && n->generation == 20);
    CHECK(cts_names_find(&t, "c") == NULL);
    CHECK(t.n_names == 2);
    cts_names_clear(&t);
}

static void names_keep_every_entry_while_the_table_grows(void **state)
{
    struct cts_names t = CTS_NAMES_INIT;
    char             name[16];

    (void)state;
    for (uint32_t i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        CHECK(cts_names_put(&t, name, i, ~i) == 0);
    }
    for (uint32_t i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        CHECK(cts_names_find(&t, name) != NULL);
        CHECK(cts_names_find(&t, name)->number == i && cts_names_find(&t, name)->generation == ~i);
    }
    cts_names_clear(&t);
}

static void names_forget_all_at_the_limit_and_go_on(void **state)
{
    struct cts_names t = CTS_NAMES_INIT;
    char             name[16];

    (void)state;
    for (uint32_t i = 0; i < CTS_NAMES_MAX; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        CHECK(cts_names_put(&t, name, i, 0) == 0);
    }
    CHECK(t.n_names == CTS_NAMES_MAX);
    CHECK(cts_names_put(&t, "n7", 99, 0) == 0); /* a known one pushes nobody out */
    CHECK(t.n_names == CTS_NAMES_MAX);
    CHECK(cts_names_put(&t, "one more", 1, 0) == 0);
    CHECK(t.n_names == 1);
    CHECK(cts_names_find(&t, "n7") == NULL && cts_names_find(&t, "one more") != NULL);
    cts_names_clear(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_find_what_was_put_and_replace_it),
        cmocka_unit_test(names_keep_every_entry_while_the_table_grows),
        cmocka_unit_test(names_forget_all_at_the_limit_and_go_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
