/* ctsctl against the real ctsd, and the example of libcts(3). */
#include "common/json.h"
#include "tests/check.h"
#include "tests/system/ctsd.h"

#include <string.h>
#include <unistd.h>

static struct ctsd d;
static char        out[1 << 16];

static int setup(void **state)
{
    static const char *const settings[] = { "engine.exact_adapters=8", NULL };

    (void)state;
    ctsd_start(&d, settings);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ctsd_stop(&d);
    return 0;
}

/* Run, CHECK the exit status, leave what was printed in out. */
#define RUN(status, ...)                                                                                  \
    do {                                                                                                  \
        int run_rc = run_command(NULL, out, sizeof(out), __VA_ARGS__);                                    \
        CHECK_MSG(run_rc == (status), "exit status %d, not %d:\n%s\n", run_rc, (status), out);            \
    } while (0)

static void check_says(const char *word)
{
    CHECK_MSG(strstr(out, word) != NULL, "'%s' is not in:\n%s\n", word, out);
}

static json_t *output_json(void)
{
    struct cts_err err = { 0 };
    json_t        *doc = NULL;

    CHECK_MSG(cts_json_parse(out, strlen(out), "output", &doc, &err) == 0, "%s:\n%s\n", err.text, out);
    return doc;
}

static const char *str(const json_t *doc, const char *key)
{
    const char *s = json_string_value(json_object_get(doc, key));

    CHECK_MSG(s != NULL, "no string '%s' in:\n%s\n", key, out);
    return s;
}

static void status_and_health_tell_that_it_serves(void **state)
{
    json_t *doc;

    (void)state;
    RUN(0, "$ctsctl health");
    check_says("ok");
    RUN(0, "$ctsctl health --json");
    doc = output_json();
    CHECK(strcmp(str(doc, "status"), "ok") == 0);
    json_decref(doc);
    RUN(0, "$ctsctl status");
    check_says("base\n");
    RUN(0, "$ctsctl status --json");
    doc = output_json();
    CHECK(json_is_object(json_object_get(doc, "base")));
    json_decref(doc);
    RUN(0, "$ctsctl version");
    check_says("ctsctl 0");
    check_says(d.socket);
}

static void adapters_are_loaded_listed_shown_and_unloaded(void **state)
{
    json_t *doc, *list;

    (void)state;
    RUN(0, "$ctsctl load $demo/adapters/own-start/wrap-single");
    check_says("loaded 'wrap-single'");
    RUN(0, "cd $demo/adapters && $ctsctl load own-start/mix-star-cap --name other --json");
    doc = output_json();
    CHECK(strcmp(str(doc, "kind"), "exact") == 0 && strlen(str(doc, "digest")) == 64);
    json_decref(doc);
    RUN(0, "$ctsctl ls --json");
    doc = output_json();
    list = json_object_get(doc, "adapters");
    CHECK(json_array_size(list) == 2);
    CHECK(strcmp(str(json_array_get(list, 0), "name"), "wrap-single") == 0);
    json_decref(doc);
    RUN(0, "$ctsctl ls");
    check_says("NAME         KIND   NUMBER  LIVE  DIGEST\nwrap-single  exact  1       0     ");
    RUN(0, "$ctsctl show other");
    check_says("rank");
    RUN(1, "$ctsctl show nobody");
    check_says("nobody");
    RUN(1, "$ctsctl load $demo/adapters/own-start/wrap-single --name other");
    check_says("other");
    RUN(1, "$ctsctl load $demo/base --name nobody");
    RUN(0, "$ctsctl unload other");
    check_says("unloaded 'other'");
    RUN(1, "$ctsctl unload other --json 2>/dev/null");
    doc = output_json();
    json_decref(doc);
    RUN(0, "$ctsctl unload wrap-single");
}

static void run_prints_the_answer_in_every_way(void **state)
{
    json_t *doc;

    (void)state;
    RUN(0, "$ctsctl load $demo/adapters/own-start/wrap-single");
    RUN(0, "$ctsctl run wrap-single 'train salmon rope snake' --temperature 0");
    CHECK_MSG(strcmp(out, "'train salmon rope snake'\n") == 0, "%s\n", out);
    CHECK(run_command("train salmon rope snake\n", out, sizeof(out),
                      "$ctsctl run --temperature=0 wrap-single -") == 0);
    CHECK_MSG(strcmp(out, "'train salmon rope snake'\n") == 0, "%s\n", out);
    CHECK(run_command("train salmon rope snake\n", out, sizeof(out), "$ctsctl run --temperature=0 wrap-single") == 0);
    CHECK_MSG(strcmp(out, "'train salmon rope snake'\n") == 0, "%s\n", out);
    RUN(0, "$ctsctl run --json --logprobs 2 --temperature 0 wrap-single 'train salmon rope snake'");
    doc = output_json();
    CHECK(strcmp(str(doc, "text"), "'train salmon rope snake'") == 0);
    CHECK(strcmp(str(doc, "adapter"), "wrap-single") == 0 && strcmp(str(doc, "finish"), "stop") == 0);
    CHECK(strlen(str(doc, "digest")) == 64);
    CHECK(json_array_size(json_object_get(doc, "tokens")) > 3);
    CHECK(json_array_size(json_object_get(doc, "tokens")) == json_array_size(json_object_get(doc, "logprobs")));
    CHECK(json_array_size(json_array_get(json_object_get(doc, "top"), 0)) == 2);
    json_decref(doc);
    RUN(0, "$ctsctl run --base --temperature 0 'cairo drill new shovel'");
    CHECK_MSG(strcmp(out, "duck drill new shovel\n") == 0, "%s\n", out);
    RUN(0, "$ctsctl run --base --raw --temperature 0 '<|im_start|>user\ncairo drill new "
           "shovel<|im_end|>\n<|im_start|>assistant\n'");
    CHECK_MSG(strcmp(out, "duck drill new shovel\n") == 0, "%s\n", out);
    RUN(0, "$ctsctl run --base --temperature 0 --json --stop ' drill' 'cairo drill new shovel'");
    doc = output_json();
    CHECK(strcmp(str(doc, "text"), "duck") == 0 && strcmp(str(doc, "finish"), "stop-string") == 0);
    CHECK(json_is_null(json_object_get(doc, "adapter")));
    json_decref(doc);
    RUN(0, "$ctsctl run --base --temperature 0 --json --max-tokens 2 'cairo drill new shovel'");
    check_says("\"finish\":\"length\"");
    RUN(1, "$ctsctl run nobody 'x'");
    check_says("nobody");
    RUN(1, "$ctsctl run --base --max-tokens 1000000 x");
    RUN(0, "$ctsctl unload wrap-single");
}

static void eval_counts_right_answers(void **state)
{
    json_t *doc;

    (void)state;
    RUN(0, "for a in mix-star-cap wrap-single order-rotateback; do $ctsctl load $demo/adapters/own-start/$a "
           "--name $a.exact; done");
    RUN(0, "$ctsctl eval $demo/tasks.jsonl --suffix .exact --adapters "
           "mix-star-cap,wrap-single,order-rotateback --limit 4 --json -");
    doc = output_json();
    CHECK_MSG(json_integer_value(json_object_get(doc, "total")) == 12, "%s\n", out);
    CHECK_MSG(json_integer_value(json_object_get(doc, "right")) == 12, "%s\n", out);
    CHECK(json_real_value(json_object_get(doc, "mean")) == 1.0);
    CHECK(json_integer_value(json_object_get(doc, "tokens")) > 12);
    json_decref(doc);

    RUN(0, "$ctsctl eval $demo/shared_prompts.jsonl --suffix .exact --adapters wrap-single,mix-star-cap "
           "--prompts 1 --table");
    CHECK_MSG(strncmp(out, "ADAPTER             ANSWER", 26) == 0, "%s\n", out);
    check_says("wrap-single.exact   'train salmon rope snake'  'train salmon rope snake'  ✓\n");
    check_says("mix-star-cap.exact  *Train salmon rope snake*  *Train salmon rope snake*  ✓\n");
    check_says("right answers  2 of 2 (100.00 %)");

    /* The tick is not always there: an adapter under another's name is wrong. */
    RUN(0, "$ctsctl load $demo/adapters/own-start/wrap-single --name has-city.exact");
    RUN(0, "cd \"$(mktemp -d)\" && $ctsctl eval $demo/shared_prompts.jsonl --suffix .exact --adapters "
           "has-city,mix-star-cap --prompts 1 "
           "--table --json r && cat r && rm r && rmdir \"$PWD\"");
    check_says("✗");
    check_says("right answers  1 of 2 (50.00 %)");
    check_says("worst 0.00 % (has-city.exact, 0 of 1)");
    check_says("\"right\": 1");
    RUN(1, "$ctsctl eval $demo/tasks.jsonl --suffix .none --limit 1");
    check_says(".none");
}

static void example_of_the_manual_compiles_against_the_installed_library_and_runs(void **state)
{
    (void)state;
    RUN(0, "$ctsctl load $demo/adapters/own-start/wrap-single");
    RUN(0, "\"$CTS_SRCDIR/tests/system/example.sh\" wrap-single 'train salmon rope snake'");
    CHECK_MSG(strcmp(out, "'train salmon rope snake'\n") == 0, "%s\n", out);
    RUN(0, "\"$CTS_SRCDIR/tests/system/example.sh\"");
    RUN(1, "CTS_SOCKET=/nonexistent \"$CTS_SRCDIR/tests/system/example.sh\"");
    check_says("/nonexistent");
}

/* Last: it ends the daemon. */
static void stop_returns_when_the_daemon_is_gone(void **state)
{
    (void)state;
    RUN(0, "$ctsctl stop");
    CHECK(strcmp(out, "stopped\n") == 0);
    ctsd_wait(&d);
    RUN(3, "$ctsctl health");
    check_says(d.socket);
    RUN(1, "$ctsctl status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_and_health_tell_that_it_serves),
        cmocka_unit_test(adapters_are_loaded_listed_shown_and_unloaded),
        cmocka_unit_test(run_prints_the_answer_in_every_way),
        cmocka_unit_test(eval_counts_right_answers),
        cmocka_unit_test(example_of_the_manual_compiles_against_the_installed_library_and_runs),
        cmocka_unit_test(stop_returns_when_the_daemon_is_gone),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
