#include "daemon/compress/assign.h"

#include "tests/check.h"
#include "tests/synth.h"

#include <errno.h>
#include <unistd.h>

static struct cts_adapter_set set; /* a00 .. a03, and b refused */
static char                   dir[256], path[300];

static int setup(void **state)
{
    (void)state;
    synth_set(&set, 4, 1, 3, 3, 1, 1);
    set.refused = calloc(1, sizeof(*set.refused));
    CHECK(set.refused != NULL && (set.refused[0].name = strdup("b")) != NULL);
    set.n_refused = 1;
    temp_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/assign.json", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    synth_set_free(&set);
    (void)unlink(path); /* a test may not have made it */
    return rmdir(dir);
}

static int load(const char *text, uint32_t *cluster, uint32_t *n_clusters, struct cts_err *err)
{
    FILE *f = fopen(path, "w");

    CHECK(f != NULL && fputs(text, f) != EOF && fclose(f) == 0);
    return cts_assign_load(path, &set, cluster, n_clusters, err);
}

static void assign_load_takes_every_adapters_cluster(void **state)
{
    uint32_t cluster[4], n = 0;

    (void)state;
    CHECK(load("{\"a02\": 1, \"a00\": 0, \"b\": 9, \"a03\": 0, \"a01\": 2}", cluster, &n, NULL) == 0);
    CHECK(n == 3 && cluster[0] == 0 && cluster[1] == 2 && cluster[2] == 1 && cluster[3] == 0);
}

static void assign_load_names_what_is_wrong(void **state)
{
    static const struct {
        const char *text;
        int         code;
        const char *want;
    } CASES[] = {
        { "{\"a00\": 0, \"a01\": 0, \"a02\": 0}", CTS_ENOTFOUND, "adapter 'a03' has no cluster" },
        { "{\"a00\": 0, \"a01\": 0, \"a02\": 0, \"a03\": 2}", CTS_EFORMAT, "cluster 1 has no adapter" },
        { "{\"a00\": 0, \"a01\": 0, \"a02\": 0, \"a03\": 4}", CTS_EFORMAT, "'a03' is not a number from 0 to 3" },
        { "{\"a00\": 0, \"a01\": 0, \"a02\": 0, \"a03\": -1}", CTS_EFORMAT, "'a03'" },
        { "{\"a00\": 0, \"a01\": 0, \"a02\": 0, \"a03\": \"0\"}", CTS_EFORMAT, "'a03'" },
        { "{\"a00\": 0, \"a01\": 0, \"a02\": 0, \"a03\": 0, \"x\": 0}", CTS_ENOTFOUND, "no adapter 'x'" },
        { "{\"a00\": 0, \"a00\": 0}", CTS_EFORMAT, "a00" },
        { "[0, 0, 0, 0]", CTS_EFORMAT, "" },
        { "{", CTS_EFORMAT, "" },
    };
    uint32_t cluster[4], n = 77;

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct cts_err err = { 0 };
        int            rc = load(CASES[i].text, cluster, &n, &err);

        CHECK_MSG(rc == CASES[i].code && strstr(err.text, CASES[i].want) != NULL, "%zu: got %d '%s'\n", i, rc,
                  err.text);
        CHECK_MSG(strstr(err.text, path) != NULL, "'%s' does not name the file\n", err.text);
        CHECK(n == 77);
    }
    (void)unlink(path);
    CHECK(cts_assign_load(path, &set, cluster, &n, NULL) == -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(assign_load_takes_every_adapters_cluster, setup, teardown),
        cmocka_unit_test_setup_teardown(assign_load_names_what_is_wrong, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
