/* The program cts-compress as a user meets it. */
#include "common/json.h"
#include "daemon/store/collection.h"
#include "tests/check.h"
#include "tests/demo_links.h"

#include <fcntl.h>
#include <sys/wait.h>

static char top[256], adapters[300], out[300], base[512], text_out[65536], text_err[65536];

static int setup(void **state)
{
    (void)state;
    temp_dir(top, sizeof(top));
    snprintf(adapters, sizeof(adapters), "%s/adapters", top);
    snprintf(out, sizeof(out), "%s/out", top);
    demo_links(adapters, "own-start", 4);
    src_path(base, sizeof(base), "contrib/demo/base");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_all(top);
    return 0;
}

static void slurp(const char *name, char *buf, size_t cap)
{
    char   path[600];
    FILE  *f;
    size_t n;

    snprintf(path, sizeof(path), "%s/%s", top, name);
    CHECK((f = fopen(path, "rb")) != NULL);
    n = fread(buf, 1, cap - 1, f);
    buf[n] = 0;
    CHECK(fclose(f) == 0);
}

/* Run cts-compress with args; its exit status. What it wrote is in text_out and text_err. */
static int run(const char *args)
{
    const char *build = getenv("CTS_BUILDDIR");
    char        cmd[4096];
    int         status;

    snprintf(cmd, sizeof(cmd), "'%s/cts-compress' %s >'%s/stdout' 2>'%s/stderr' </dev/null",
             build != NULL ? build : ".", args, top, top);
    status = system(cmd);
    CHECK(WIFEXITED(status));
    slurp("stdout", text_out, sizeof(text_out));
    slurp("stderr", text_err, sizeof(text_err));
    return WEXITSTATUS(status);
}

/* BASE ADAPTERS -o OUT and more. */
static int compress(const char *more)
{
    char args[3000];

    snprintf(args, sizeof(args), "'%s' '%s' -o '%s' %s", base, adapters, out, more);
    return run(args);
}

static void check_says(const char *text, const char *want)
{
    CHECK_MSG(strstr(text, want) != NULL, "no '%s' in: %s\n", want, text);
}

static void check_nothing_written(void)
{
    char hidden[400];

    snprintf(hidden, sizeof(hidden), "%s/.out.new", top);
    CHECK(access(out, F_OK) < 0 && access(hidden, F_OK) < 0);
}

/* A folder beside the adapters that is none. */
static void put_bad(const char *name)
{
    char  path[600];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", adapters, name);
    CHECK(mkdir(path, 0777) == 0);
    snprintf(path, sizeof(path), "%s/%s/adapter_config.json", adapters, name);
    CHECK((f = fopen(path, "w")) != NULL && fputs("{\"peft_type\": \"IA3\"}", f) != EOF && fclose(f) == 0);
}

static void compress_main_writes_a_collection_and_says_what_it_lost(void **state)
{
    struct cts_collection c;
    char                  hex[CTS_DIGEST_HEX_BYTES];

    (void)state;
    CHECK_MSG(compress("--rank 4 --clusters 2 --format bf16 --basis-format bf16 --threads 2 --seed 7") == 0,
              "%s\n", text_err);
    CHECK(text_err[0] == 0); /* no bar where no terminal is */
    CHECK(cts_collection_open(&c, out, NULL) == 0 && c.n_adapters == 4 && c.n_clusters == 2);
    for (uint32_t i = 0; i < 4; i++) check_says(text_out, c.adapters[i].name);
    cts_digest_hex(c.digest, hex);
    check_says(text_out, hex);
    check_says(text_out, "4 adapters, jd-full, rank 4, 2 clusters, basis BF16, sigma BF16");
    check_says(text_out, "error mean 0.");
    check_says(text_out, "scales 192"); /* 4 adapters of 12 modules, 4 bytes each */
    cts_collection_close(&c);
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    CHECK_MSG(json_is_number(v), "'%s' is no number\n", key);
    return json_number_value(v);
}

/* Bytes that the report gives of each kind: all adapters' add up to the total's. */
static void check_bytes(const json_t *j)
{
    static const char *const kinds[] = { "values", "scales" };
    const json_t            *list = json_object_get(j, "adapters"), *o;
    size_t                   i;

    for (int k = 0; k < 2; k++) {
        double sum = 0;

        json_array_foreach(list, i, o)
        {
            sum += number(json_object_get(o, "bytes"), kinds[k]);
        }
        CHECK(sum == number(json_object_get(j, "bytes"), kinds[k]));
    }
    CHECK(number(json_object_get(j, "bytes"), "before") == 4 * 163840);
}

static void compress_main_reports_in_json_to_a_file_or_alone_on_stdout(void **state)
{
    char    more[600];
    json_t *j = NULL;

    (void)state;
    CHECK(compress("--method svd --rank 2 --json -") == 0);
    CHECK(cts_json_parse(text_out, strlen(text_out), "stdout", &j, NULL) == 0);
    CHECK(json_array_size(json_object_get(j, "adapters")) == 4 && json_array_size(json_object_get(j, "refused")) == 0);
    CHECK(number(j, "error_mean") > 0.1 && number(j, "rank") == 2 && number(j, "clusters") == 0);
    CHECK(number(json_object_get(j, "bytes"), "basis") == 0);
    check_bytes(j);
    json_decref(j);
    snprintf(more, sizeof(more), "--rank 4 --force --json '%s/report'", top);
    CHECK(compress(more) == 0);
    check_says(text_out, "error mean");
    slurp("report", text_out, sizeof(text_out));
    CHECK(cts_json_parse(text_out, strlen(text_out), "report", &j, NULL) == 0);
    CHECK(number(json_object_get(j, "bytes"), "basis") > 0);
    check_bytes(j);
    json_decref(j);
}

static void compress_main_names_bad_adapters_and_writes_nothing(void **state)
{
    struct cts_collection c;
    json_t               *j = NULL;

    (void)state;
    put_bad("ia3");
    CHECK(compress("--rank 2") == 1);
    check_says(text_err, "refused: ia3: ");
    check_says(text_err, "IA3");
    check_says(text_err, "1 of 5 adapters refused: nothing was written; --skip-bad");
    check_nothing_written();
    CHECK(compress("--rank 2 --skip-bad --json -") == 0);
    check_says(text_err, "refused: ia3: ");
    CHECK(cts_json_parse(text_out, strlen(text_out), "stdout", &j, NULL) == 0);
    CHECK(json_array_size(json_object_get(j, "refused")) == 1);
    json_decref(j);
    CHECK(cts_collection_open(&c, out, NULL) == 0 && c.n_adapters == 4);
    cts_collection_close(&c);
}

static void compress_main_fails_when_no_adapter_is_left(void **state)
{
    (void)state;
    CHECK(compress("--skip-bad --modules q_proj") == 1);
    check_says(text_err, "which --modules leaves out");
    check_says(text_err, "no adapter is left: nothing was written");
    check_nothing_written();
}

static void compress_main_replaces_a_collection_only_when_told(void **state)
{
    (void)state;
    CHECK(compress("--rank 2") == 0);
    CHECK(compress("--rank 3") == 1);
    check_says(text_err, "out'");
    CHECK(compress("--rank 3 --force") == 0);
    check_says(text_out, "rank 3");
    CHECK(access(out, F_OK) == 0);
}

static void compress_main_takes_clusters_from_a_file(void **state)
{
    struct cts_collection c;
    char                  more[600], path[400];
    FILE                 *f;

    (void)state;
    CHECK(compress("--rank 2") == 0);
    CHECK(cts_collection_open(&c, out, NULL) == 0);
    snprintf(path, sizeof(path), "%s/assign", top);
    CHECK((f = fopen(path, "w")) != NULL);
    fprintf(f, "{\"%s\": 1, \"%s\": 0, \"%s\": 1, \"%s\": 1}", c.adapters[0].name, c.adapters[1].name,
            c.adapters[2].name, c.adapters[3].name);
    CHECK(fclose(f) == 0);
    cts_collection_close(&c);
    snprintf(more, sizeof(more), "--rank 2 --force --assign '%s'", path);
    CHECK(compress(more) == 0);
    CHECK(cts_collection_open(&c, out, NULL) == 0 && c.n_clusters == 2);
    CHECK(c.adapters[0].cluster == 1 && c.adapters[1].cluster == 0 && c.adapters[2].cluster == 1);
    cts_collection_close(&c);
    CHECK(compress("--force --assign /nonexistent") == 1);
    check_says(text_err, "/nonexistent");
}

static void compress_main_refuses_a_wrong_command_line(void **state)
{
    static const char *const CASES[][2] = {
        { "--rank 0", "--rank: '0'" },
        { "--rank 4097", "--rank" },
        { "--rank 3x", "--rank" },
        { "--rank -1", "--rank" },
        { "--clusters 0", "--clusters" },
        { "--threads 0", "--threads" },
        { "--method jd", "--method: 'jd'" },
        { "--format f16", "--format" },
        { "--basis-format x", "--basis-format" },
        { "--modules q_proj,x", "--modules" },
        { "--modules ''", "--modules" },
        { "--seed x", "--seed" },
        { "--frobnicate", "frobnicate" },
        { "extra", "BASE and ADAPTERS" },
        { "--clusters 2 --assign x", "exclude each other" },
        { "--method svd --clusters 2", "svd has no clusters" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        int rc = compress(CASES[i][0]);

        CHECK_MSG(rc == 2, "'%s' gave %d\n", CASES[i][0], rc);
        check_says(text_err, CASES[i][1]);
        check_nothing_written();
    }
    CHECK(run("a b") == 2);
    check_says(text_err, "-o is missing");
    CHECK(run("") == 2);
}

static void compress_main_says_what_is_missing(void **state)
{
    char args[2000];

    (void)state;
    CHECK(compress("--clusters 5") == 1);
    check_says(text_err, "--clusters 5: there are 4 adapters");
    snprintf(args, sizeof(args), "'%s' '%s/none' -o '%s'", base, top, out);
    CHECK(run(args) == 1);
    check_says(text_err, "/none'");
    snprintf(args, sizeof(args), "'%s' '%s' -o '%s'", top, adapters, out);
    CHECK(run(args) == 1);
    check_says(text_err, "config.json");
    snprintf(args, sizeof(args), "'%s' '%s' -o '%s/none/out'", base, adapters, top);
    CHECK(run(args) == 1);
    check_says(text_err, "/none/");
    check_nothing_written();
}

static void compress_main_prints_help_and_version(void **state)
{
    (void)state;
    CHECK(run("--help") == 0 && text_err[0] == 0);
    check_says(text_out, "Usage: cts-compress BASE ADAPTERS -o COLLECTION");
    CHECK(run("--version") == 0);
    check_says(text_out, "cts-compress ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(compress_main_writes_a_collection_and_says_what_it_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(compress_main_reports_in_json_to_a_file_or_alone_on_stdout, setup, teardown),
        cmocka_unit_test_setup_teardown(compress_main_names_bad_adapters_and_writes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(compress_main_fails_when_no_adapter_is_left, setup, teardown),
        cmocka_unit_test_setup_teardown(compress_main_replaces_a_collection_only_when_told, setup, teardown),
        cmocka_unit_test_setup_teardown(compress_main_takes_clusters_from_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(compress_main_refuses_a_wrong_command_line, setup, teardown),
        cmocka_unit_test_setup_teardown(compress_main_says_what_is_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(compress_main_prints_help_and_version, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
