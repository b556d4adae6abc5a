#include "common/json.h"
#include "common/file.h"
#include "tests/check.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[256], path[300];

static void json_parse_refuses_what_is_ambiguous(void **state)
{
    static const char *const BAD[] = { "",
                                       "{",
                                       "[]",
                                       "3",
                                       "{\"a\":1,\"a\":1}",
                                       "{} x",
                                       "{\"a\":\"\xff\"}",
                                       "{\"a\":01}",
                                       "{\"a\":NaN}",
                                       "{'a':1}",
                                       "{\"a\":1e999}",
                                       "{\"a\":\"\\u0000\"}",
                                       "{\"a\":1,}",
                                       "{\"a\":123456789012345678901234567890}" };
    char                    *deep;

    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        struct cts_err err = { 0 };
        json_t        *doc = NULL;
        CHECK_MSG(cts_json_parse(BAD[i], strlen(BAD[i]), "here", &doc, &err) == CTS_EFORMAT, "%s\n", BAD[i]);
        CHECK(doc == NULL && strncmp(err.text, "here: ", 6) == 0);
    }
    deep = malloc(100000);
    CHECK(deep != NULL);
    memset(deep, '[', 100000);
    memcpy(deep, "{\"a\":", 5);
    CHECK(cts_json_parse(deep, 100000, "deep", &(json_t *){ NULL }, NULL) == CTS_EFORMAT);
    free(deep);
}

static void json_reads_are_typed_and_leave_defaults(void **state)
{
    static const char TEXT[] = "{\"i\":5,\"r\":2.5,\"b\":true,\"s\":\"x\",\"n\":null,\"neg\":-1}";
    json_t           *doc = NULL;
    struct cts_err    err = { 0 };
    int64_t           i = 77;
    double            r = 77;
    int               b = 77;
    const char       *s = "dflt";

    (void)state;
    CHECK(cts_json_parse(TEXT, sizeof(TEXT) - 1, "t", &doc, &err) == 0);
    CHECK(cts_json_int(doc, "absent", 0, 9, &i, &err) == 0 && cts_json_int(doc, "n", 0, 9, &i, &err) == 0 &&
          i == 77);
    CHECK(cts_json_real(doc, "n", 0, 9, &r, &err) == 0 && cts_json_bool(doc, "n", &b, &err) == 0 && r == 77 &&
          b == 77);
    CHECK(cts_json_str(doc, "n", &s, &err) == 0 && strcmp(s, "dflt") == 0);
    CHECK(cts_json_int(doc, "i", 5, 5, &i, &err) == 1 && i == 5);
    CHECK(cts_json_real(doc, "r", 0, 9, &r, &err) == 1 && r == 2.5);
    CHECK(cts_json_real(doc, "i", 0, 9, &r, &err) == 1 && r == 5); /* an integer is a number */
    CHECK(cts_json_bool(doc, "b", &b, &err) == 1 && b == 1 && cts_json_str(doc, "s", &s, &err) == 1);
    CHECK(strcmp(s, "x") == 0 && err.code == 0);

    CHECK(cts_json_int(doc, "i", 6, 9, &i, &err) == CTS_EFORMAT && strstr(err.text, "'i' is 5, wanted is 6 to 9"));
    CHECK(cts_json_int(doc, "neg", 0, 9, &i, &err) == CTS_EFORMAT &&
          cts_json_int(doc, "r", 0, 9, &i, &err) == CTS_EFORMAT);
    CHECK(cts_json_real(doc, "r", 3, 9, &r, &err) == CTS_EFORMAT &&
          cts_json_real(doc, "s", 0, 9, &r, &err) == CTS_EFORMAT);
    CHECK(cts_json_bool(doc, "i", &b, &err) == CTS_EFORMAT && strstr(err.text, "'i' is an integer"));
    CHECK(cts_json_str(doc, "b", &s, &err) == CTS_EFORMAT && strstr(err.text, "'b' is true"));
    CHECK(i == 5 && r == 5 && b == 1 && strcmp(s, "x") == 0); /* outputs are untouched on failure */
    json_decref(doc);
}

static void json_save_and_load_keep_order_and_replace_whole(void **state)
{
    json_t        *doc = json_pack("{s:i,s:s,s:[ii]}", "z", 1, "a", "\xc3\xa4", "list", 3, 4), *back = NULL;
    struct cts_err err = { 0 };
    char           tmp[320], *text;
    size_t         n;

    (void)state;
    CHECK(cts_json_save(doc, path, &err) == 0);
    snprintf(tmp, sizeof(tmp), "%s.tmp", path);
    CHECK(access(tmp, F_OK) < 0);
    CHECK(cts_json_load(path, 1000, &back, &err) == 0 && json_equal(doc, back));
    CHECK(cts_file_read(path, 1000, &text, &n, &err) == 0 && strstr(text, "z") < strstr(text, "\"a\""));
    CHECK(n > 0 && text[n] == '\0' && text[n - 1] == '\n');
    free(text);
    json_decref(back);
    CHECK(cts_json_load(path, 10, &back, &err) == -EFBIG && strstr(err.text, path) != NULL);
    json_decref(doc);
    unlink(path);
}

static void json_save_says_what_failed_and_leaves_no_temporary_file(void **state)
{
    json_t        *doc = json_object();
    struct cts_err err = { 0 };
    char           bad[320];

    (void)state;
    snprintf(bad, sizeof(bad), "%s/absent/x", dir);
    CHECK(cts_json_save(doc, bad, &err) == -ENOENT && strstr(err.text, bad) != NULL);
    CHECK(mkdir(path, 0700) == 0);
    CHECK(cts_json_save(doc, path, &err) < 0);
    snprintf(bad, sizeof(bad), "%s.tmp", path);
    CHECK(access(bad, F_OK) < 0 && rmdir(path) == 0);
    json_decref(doc);
}

static void file_read_refuses_what_is_no_regular_file(void **state)
{
    struct cts_err err = { 0 };
    char          *text = NULL;
    size_t         n;

    (void)state;
    CHECK(cts_file_read(path, 10, &text, &n, &err) == -ENOENT && strstr(err.text, path) != NULL);
    CHECK(cts_file_read(dir, 1 << 20, &text, &n, &err) == CTS_EFORMAT);
    CHECK(mkfifo(path, 0600) == 0);
    CHECK(cts_file_read(path, 10, &text, &n, &err) == CTS_EFORMAT && strstr(err.text, "regular") != NULL);
    CHECK(text == NULL && unlink(path) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_parse_refuses_what_is_ambiguous),
        cmocka_unit_test(json_reads_are_typed_and_leave_defaults),
        cmocka_unit_test(json_save_and_load_keep_order_and_replace_whole),
        cmocka_unit_test(json_save_says_what_failed_and_leaves_no_temporary_file),
        cmocka_unit_test(file_read_refuses_what_is_no_regular_file),
    };
    int rc;

    temp_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/f.json", dir);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(dir);
    return rc;
}
