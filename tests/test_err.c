#include "common/err.h"
#include "tests/check.h"

#include <errno.h>
#include <string.h>

static void err_set_returns_the_code_and_adds_the_systems_words(void **state)
{
    struct cts_err err = { 0 };

    (void)state;
    CHECK(cts_err_set(&err, CTS_EFORMAT, "'%s': %d", "x", 7) == CTS_EFORMAT);
    CHECK(err.code == CTS_EFORMAT && strcmp(err.text, "'x': 7") == 0);
    CHECK(cts_err_set(&err, -ENOENT, "open '%s'", "f") == -ENOENT);
    CHECK(strcmp(err.text, "open 'f': No such file or directory") == 0);
    CHECK(cts_err_set(NULL, -EIO, "%s", "nobody listens") == -EIO);
}

static void err_texts_are_cut_and_stay_terminated(void **state)
{
    struct cts_err err = { 0 };
    char           text[2000];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    CHECK(cts_err_set(&err, -ENOENT, "%s", text) == -ENOENT && strlen(err.text) == CTS_ERR_TEXT_BYTES - 1);
    CHECK(cts_err_set(&err, -ENOENT, "%.*s", CTS_ERR_TEXT_BYTES - 5, text) == -ENOENT);
    CHECK(strlen(err.text) == CTS_ERR_TEXT_BYTES - 1);
    CHECK(cts_err_prefix(&err, 0, "head") == -ENOENT && strlen(err.text) == CTS_ERR_TEXT_BYTES - 1);
    CHECK(strncmp(err.text, "head: xxx", 9) == 0);
    CHECK(cts_err_prefix(&err, 0, "%s", text) == -ENOENT); /* a prefix without room for the rest is left out */
    CHECK(strncmp(err.text, "head: xxx", 9) == 0);
}

static void err_prefix_goes_in_front(void **state)
{
    struct cts_err err = { 0 };

    (void)state;
    cts_err_set(&err, CTS_EARG, "bad");
    CHECK(cts_err_prefix(&err, -1, "layer %d", 3) == CTS_EARG && strcmp(err.text, "layer 3: bad") == 0);
    CHECK(cts_err_prefix(NULL, CTS_EARG, "x") == CTS_EARG);
}

static void every_code_has_words_and_a_name_of_its_own(void **state)
{
    (void)state;
    for (int code = CTS_EPROTO; code >= CTS_ETOOLONG; code--) {
        CHECK(strcmp(cts_strerror(code), "unknown error") != 0 && strcmp(cts_err_name(code), "unknown") != 0);
        for (int other = CTS_EPROTO; other > code; other--)
            CHECK(strcmp(cts_err_name(code), cts_err_name(other)) != 0);
    }
    CHECK(strcmp(cts_err_name(CTS_ENOTFOUND), "not-found") == 0 && strcmp(cts_err_name(-ENOENT), "ENOENT") == 0);
    CHECK(strcmp(cts_err_name(0), "ok") == 0 && strcmp(cts_strerror(0), "success") == 0);
    CHECK(strcmp(cts_err_name(-1999), "unknown") == 0 && strcmp(cts_strerror(-1999), "unknown error") == 0);
    CHECK(strcmp(cts_err_name(5), "unknown") == 0 && strcmp(cts_err_name(-900), "unknown") == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_set_returns_the_code_and_adds_the_systems_words),
        cmocka_unit_test(err_texts_are_cut_and_stay_terminated),
        cmocka_unit_test(err_prefix_goes_in_front),
        cmocka_unit_test(every_code_has_words_and_a_name_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
