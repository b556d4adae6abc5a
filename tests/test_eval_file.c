#include "client/eval_file.h"

#include "tests/check.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static char dir[64], path[128];

static int setup(void **state)
{
    (void)state;
    temp_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/q.jsonl", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    rmdir(dir);
    return 0;
}

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");

    CHECK(f != NULL);
    CHECK(fputs(text, f) >= 0);
    CHECK(fclose(f) == 0);
}

#define HELD_OUT                                                                                             \
    "{\"adapter\": \"a\", \"kind\": \"x\", \"held_out\": [{\"input\": \"1\", \"output\": \"A1\"},"           \
    " {\"input\": \"2\", \"output\": \"A2\"}, {\"input\": \"3\", \"output\": \"A3\"}]}\n"                    \
    "\n"                                                                                                     \
    "{\"adapter\": \"b\", \"held_out\": [{\"input\": \"1\", \"output\": \"B1\"}, {\"input\": \"2\", "        \
    "\"output\": \"B2\"}]}\n"
#define SHARED                                                                                  \
    "{\"input\": \"p\", \"outputs\": {\"a\": \"pa\", \"b\": \"pb\", \"c\": \"pc\"}}\n"           \
    "{\"input\": \"q\", \"outputs\": {\"c\": \"qc\", \"a\": \"qa\"}}\n"

/* The questions as "adapter:output" separated by blanks. */
static const char *order_of(const struct cts_questions *q)
{
    static char out[512];
    size_t      at = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < q->n; i++)
        at += (size_t)snprintf(out + at, sizeof(out) - at, "%s%s:%s", i > 0 ? " " : "",
                               q->adapters[q->list[i].adapter_idx], q->list[i].output);
    return out;
}

static void check_order(const char *text, const struct cts_questions_opts *o, const char *expected)
{
    struct cts_questions q;
    struct cts_err       err = { 0 };

    write_file(text);
    CHECK_MSG(cts_questions_open(&q, path, o, &err) == 0, "%s\n", err.text);
    CHECK_MSG(strcmp(order_of(&q), expected) == 0, "%s\n", order_of(&q));
    cts_questions_close(&q);
}

static void questions_of_both_forms_come_in_rounds(void **state)
{
    (void)state;
    check_order(HELD_OUT, &(struct cts_questions_opts){ 0 }, "a:A1 b:B1 a:A2 b:B2 a:A3");
    check_order(SHARED, &(struct cts_questions_opts){ 0 }, "a:pa b:pb c:pc a:qa c:qc");
    check_order(HELD_OUT SHARED, &(struct cts_questions_opts){ 0 },
                "a:A1 b:B1 c:pc a:A2 b:B2 c:qc a:A3 b:pb a:pa a:qa");
}

static void questions_stay_within_the_limits(void **state)
{
    (void)state;
    check_order(HELD_OUT, &(struct cts_questions_opts){ .n_per_adapter_max = 1 }, "a:A1 b:B1");
    check_order(SHARED, &(struct cts_questions_opts){ .n_prompts_max = 1 }, "a:pa b:pb c:pc");
    check_order(HELD_OUT SHARED, &(struct cts_questions_opts){ .n_prompts_max = 1, .n_per_adapter_max = 1 },
                "a:A1 b:B1 c:pc");
}

static void questions_follow_the_list_of_adapters(void **state)
{
    (void)state;
    check_order(SHARED, &(struct cts_questions_opts){ .adapters = "c,a" }, "c:pc a:pa c:qc a:qa");
    check_order(SHARED, &(struct cts_questions_opts){ .adapters = "c,,c," }, "c:pc c:qc");
}

static void check_refused(const char *text, const char *adapters, int code, const char *word)
{
    struct cts_questions q;
    struct cts_err       err = { 0 };
    int                  rc;

    write_file(text);
    rc = cts_questions_open(&q, path, &(struct cts_questions_opts){ .adapters = adapters }, &err);
    CHECK_MSG(rc == code, "%d: %s\n", rc, err.text);
    CHECK_MSG(strstr(err.text, word) != NULL, "'%s' lacks '%s'\n", err.text, word);
}

static void questions_refuse_a_bad_file_by_line_and_key(void **state)
{
    struct cts_questions q;
    struct cts_err       err = { 0 };

    (void)state;
    check_refused("", NULL, CTS_EFORMAT, "no question");
    check_refused(HELD_OUT "{\"adapter\": \"c\"}\n", NULL, CTS_EFORMAT, "q.jsonl:4");
    check_refused("{\"input\": \"x\"}\n", NULL, CTS_EFORMAT, "outputs");
    check_refused("{\"input\": \"x\", \"outputs\": {\"a\": 1}}\n", NULL, CTS_EFORMAT, "'a'");
    check_refused("{\"adapter\": \"c\", \"held_out\": [{\"input\": \"x\"}]}\n", NULL, CTS_EFORMAT, "held_out[0]");
    check_refused("{\n", NULL, CTS_EFORMAT, "q.jsonl:1");
    check_refused(HELD_OUT, "a,z", CTS_ENOTFOUND, "'z'");
    check_refused(HELD_OUT, ",", CTS_EARG, "empty");
    CHECK(cts_questions_open(&q, "/nonexistent", &(struct cts_questions_opts){ 0 }, &err) == -ENOENT);
}

static void questions_of_the_demo_are_all_there(void **state)
{
    struct cts_questions q;
    struct cts_err       err = { 0 };
    char                 demo[512];

    (void)state;
    src_path(demo, sizeof(demo), "contrib/demo/tasks.jsonl");
    CHECK_MSG(cts_questions_open(&q, demo, &(struct cts_questions_opts){ 0 }, &err) == 0, "%s\n", err.text);
    CHECK(q.n_adapters == 64 && q.n == 4096);
    for (uint32_t i = 0; i < 64; i++) CHECK(q.list[i].adapter_idx == i);
    cts_questions_close(&q);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(questions_of_both_forms_come_in_rounds),
        TEST(questions_stay_within_the_limits),
        TEST(questions_follow_the_list_of_adapters),
        TEST(questions_refuse_a_bad_file_by_line_and_key),
        TEST(questions_of_the_demo_are_all_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
