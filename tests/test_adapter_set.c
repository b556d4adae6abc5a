#include "daemon/compress/adapter_set.h"

#include "tests/check.h"
#include "tests/demo_links.h"
#include "tests/fault.h"

#include <errno.h>

static char top[256], dir[300], base[512];

static int setup(void **state)
{
    (void)state;
    temp_dir(top, sizeof(top));
    snprintf(dir, sizeof(dir), "%s/adapters", top);
    demo_links(dir, "shared-start", 3);
    src_path(base, sizeof(base), "contrib/demo/base");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_all(top);
    return 0;
}

/* A folder in dir with the given adapter_config.json and nothing else. */
static void put_bad(const char *name, const char *config)
{
    char  path[600];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    CHECK(mkdir(path, 0777) == 0);
    snprintf(path, sizeof(path), "%s/%s/adapter_config.json", dir, name);
    CHECK((f = fopen(path, "w")) != NULL && fputs(config, f) != EOF && fclose(f) == 0);
}

static int load(struct cts_adapter_set *s, uint32_t linears, struct cts_err *err)
{
    struct cts_adapter_set_opts o = { .base_dir = base, .adapters_dir = dir, .linears = linears, .n_threads = 2 };

    return cts_adapter_set_load(s, &o, err);
}

static void adapter_set_loads_folders_in_catalog_order(void **state)
{
    struct cts_adapter_set s;
    char                   path[600];
    FILE                  *f;

    (void)state;
    put_bad(".hidden", "{}");
    snprintf(path, sizeof(path), "%s/README.md", dir);
    CHECK((f = fopen(path, "w")) != NULL && fclose(f) == 0);
    CHECK(load(&s, 0, NULL) == 0);
    CHECK(s.n == 3 && s.n_refused == 0 && s.n_modules == 12); /* q, k and v of four layers */
    CHECK(strcmp(s.adapters[0].name, s.adapters[1].name) < 0 && strcmp(s.adapters[1].name, s.adapters[2].name) < 0);
    for (uint32_t m = 0; m < s.n_modules; m++) {
        struct cts_delta d;
        double           norm, again;

        CHECK(s.modules[m].layer == m / 3 && s.modules[m].linear == (enum cts_linear)(m % 3));
        CHECK(cts_adapter_set_delta(&s, 1, m, &d, &norm) == 1);
        CHECK(d.n_out == s.modules[m].n_out && d.n_in == s.modules[m].n_in && d.rank == 16 && d.scale == 2);
        CHECK(cts_delta_norm(&d, &again) == 0 && norm == again && norm > 0);
    }
    cts_adapter_set_free(&s);
}

static void adapter_set_refuses_by_name_and_goes_on(void **state)
{
    struct cts_adapter_set s;

    (void)state;
    put_bad("a bad name", "{}");
    put_bad("dora", "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 8, \"use_dora\": true}");
    put_bad("empty", "{}");
    CHECK(load(&s, 0, NULL) == 0);
    CHECK(s.n == 3 && s.n_refused == 3);
    CHECK(strcmp(s.refused[0].name, "a bad name") == 0 && strstr(s.refused[0].why.text, "rename") != NULL);
    CHECK(strcmp(s.refused[1].name, "dora") == 0 && strstr(s.refused[1].why.text, "dora") != NULL);
    CHECK(strcmp(s.refused[2].name, "empty") == 0 && s.refused[2].why.text[0] != 0);
    cts_adapter_set_free(&s);
}

static void adapter_set_refuses_adapters_that_change_another_linear(void **state)
{
    struct cts_adapter_set s;

    (void)state;
    CHECK(load(&s, 1u << CTS_Q | 1u << CTS_V, NULL) == 0);
    CHECK(s.n == 0 && s.n_refused == 3 && s.n_modules == 0);
    CHECK(strstr(s.refused[0].why.text, "it changes k_proj of layer 0, which --modules leaves out") != NULL);
    cts_adapter_set_free(&s);
    CHECK(load(&s, 1u << CTS_Q | 1u << CTS_K | 1u << CTS_V, NULL) == 0 && s.n == 3);
    cts_adapter_set_free(&s);
}

static void adapter_set_says_when_the_folder_is_none_of_adapters(void **state)
{
    struct cts_adapter_set s;
    struct cts_err         err = { 0 };

    (void)state;
    snprintf(dir, sizeof(dir), "%s/none", top);
    CHECK(load(&s, 0, &err) == -ENOENT);
    CHECK(mkdir(dir, 0777) == 0);
    CHECK(load(&s, 0, &err) == CTS_ENOTFOUND && strstr(err.text, "has no folder in it") != NULL);
    put_bad("checkpoint-1", "{}");
    put_bad("../none/adapter_config.json", "{}");
    CHECK(load(&s, 0, &err) == CTS_ENOTFOUND && strstr(err.text, "is an adapter itself") != NULL);
    CHECK(s.adapters == NULL && s.modules == NULL);
}

static void adapter_set_load_survives_failure_of_every_allocation(void **state)
{
    struct cts_adapter_set s;
    int64_t                n_live = fault_n_live();
    int                    rc = -ENOMEM, n = 0;

    (void)state;
    for (; rc < 0 && n < 5000; n += n < 60 ? 1 : 7) {
        fault_after(n);
        rc = load(&s, 0, NULL);
        fault_after(-1);
        if (rc < 0) CHECK_MSG(fault_n_live() == n_live && s.adapters == NULL, "allocation %d: %d\n", n, rc);
    }
    CHECK(rc == 0 && n > 60 && s.n == 3); /* memory that runs out never counts as an adapter's fault */
    cts_adapter_set_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(adapter_set_loads_folders_in_catalog_order, setup, teardown),
        cmocka_unit_test_setup_teardown(adapter_set_refuses_by_name_and_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(adapter_set_refuses_adapters_that_change_another_linear, setup, teardown),
        cmocka_unit_test_setup_teardown(adapter_set_says_when_the_folder_is_none_of_adapters, setup, teardown),
        cmocka_unit_test_setup_teardown(adapter_set_load_survives_failure_of_every_allocation, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
