#include "daemon/serve/ctl_conn.h"

#include "tests/check.h"

#include <string.h>

/* A request's params, built by hand: "\x81\xa4name\xa1x" is {"name": "x"}. */
static int args(const char *method, const char *params, size_t n, struct cts_ctl_call *call,
                struct cts_err *err)
{
    struct cts_ctl_request r = { .method = { (const uint8_t *)method, strlen(method) } };

    *call = (struct cts_ctl_call){ .id = 0 };
    *err = (struct cts_err){ .code = 0 };
    r.params = (struct cts_mp){ (const uint8_t *)params, (const uint8_t *)params + n };
    r.has_params = n > 0;
    CHECK(n == 0 || cts_mp_check(params, n, 100) == 0);
    return cts_ctl_args(cts_ctl_find(r.method), &r, call, err);
}
#define BYTES(s) (s), sizeof(s) - 1

static void params_arrive_in_the_order_of_the_table(void **state)
{
    struct cts_ctl_call call;
    struct cts_err      err;

    (void)state;
    CHECK(args("load",
               BYTES("\x82\xa4name\xa1x\xa3"
                     "dir\xa2/d"),
               &call, &err) == 0);
    CHECK(call.args[0].is_given && cts_span_is(call.args[0].s, "/d"));
    CHECK(call.args[1].is_given && cts_span_is(call.args[1].s, "x"));
    CHECK(call.param == NULL);
    CHECK(args("ls", BYTES("\x81\xa5limit\x07"), &call, &err) == 0);
    CHECK(!call.args[0].is_given && call.args[1].is_given && call.args[1].u == 7);
    CHECK(args("status", BYTES(""), &call, &err) == 0);
    CHECK(args("status", BYTES("\x80"), &call, &err) == 0);
}

static void a_wrong_param_is_named(void **state)
{
    struct cts_ctl_call call;
    struct cts_err      err;

    (void)state;
    CHECK(args("load",
               BYTES("\x81\xa3"
                     "dir\xa2/d"),
               &call, &err) == CTS_EARG);
    CHECK(strcmp(call.param, "name") == 0 && strstr(err.text, "name") != NULL);
    CHECK(args("show", BYTES(""), &call, &err) == CTS_EARG);
    CHECK(strcmp(call.param, "name") == 0);
    CHECK(args("show", BYTES("\x81\xa4name\x01"), &call, &err) == CTS_EARG);
    CHECK(strcmp(call.param, "name") == 0);
    CHECK(args("ls", BYTES("\x81\xa5limit\xff"), &call, &err) == CTS_EARG);
    CHECK(strcmp(call.param, "limit") == 0);
    CHECK(args("status",
               BYTES("\x81\xa3"
                     "foo\x01"),
               &call, &err) == CTS_EARG);
    CHECK(strcmp(call.param, "foo") == 0 && strstr(err.text, "foo") != NULL);
}

static void an_unknown_method_is_not_found(void **state)
{
    (void)state;
    CHECK(cts_ctl_find((struct cts_span){ (const uint8_t *)"l", 1 }) == NULL);
    CHECK(cts_ctl_find((struct cts_span){ (const uint8_t *)"lsx", 3 }) == NULL);
    CHECK(cts_ctl_find((struct cts_span){ (const uint8_t *)"", 0 }) == NULL);
    CHECK(strcmp(cts_ctl_find((struct cts_span){ (const uint8_t *)"ls", 2 })->name, "ls") == 0);
}

/* The page's head of a method: its name and its params, as the table has them. */
static void put_item(const struct cts_ctl_method *m, char *out, size_t cap)
{
    size_t n = (size_t)snprintf(out, cap, ".It Cm %s No {", m->name);

    if (m->decodes_itself) {
        snprintf(out + n, cap - n, " Ns Cm adapter , ... Ns }\n");
        return;
    }
    for (uint32_t i = 0; i < m->n_params; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s", i == 0 ? " Ns Cm " : " , ", m->params[i].name);
    snprintf(out + n, cap - n, "%s}\n", m->n_params > 0 ? " Ns " : "");
}

static void the_page_has_each_method_of_the_table_and_no_other(void **state)
{
    char     path[512], line[512], want[512];
    FILE    *page = fopen(src_path(path, sizeof(path), "man/cts-control.7"), "r");
    uint32_t n = 0;

    (void)state;
    CHECK(page != NULL);
    while (fgets(line, sizeof(line), page) != NULL) {
        if (strncmp(line, ".It Cm ", 7) != 0 || strstr(line, " No {") == NULL) continue;
        CHECK(n < CTS_CTL_N_METHODS);
        put_item(&CTS_CTL_METHODS[n++], want, sizeof(want));
        CHECK_MSG(strcmp(line, want) == 0, "page:  %stable: %s", line, want);
    }
    CHECK(n == CTS_CTL_N_METHODS);
    fclose(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(params_arrive_in_the_order_of_the_table),
        cmocka_unit_test(a_wrong_param_is_named),
        cmocka_unit_test(an_unknown_method_is_not_found),
        cmocka_unit_test(the_page_has_each_method_of_the_table_and_no_other),
    };

    return cmocka_run_group_tests_name("ctl_table", tests, NULL, NULL);
}
