#include "daemon/serve/adapters.h"

#include "tests/check.h"
#include "tests/serve_rig.h"

#include <errno.h>
#include <string.h>

static struct serve_rig rig;

static int open_rig(void **state)
{
    (void)state;
    serve_rig_open(&rig);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    serve_rig_close(&rig);
    return 0;
}

/* What the last waiter heard. */
static struct {
    int      n;
    uint64_t serial, id;
    uint32_t number, generation; /* 0: no adapter */
    int      code;
    char     text[CTS_ERR_TEXT_BYTES];
} heard;

static void on_done(void *owner, uint64_t conn_serial, uint64_t frame_id, const struct cts_adapter *a,
                    const struct cts_err *err)
{
    CHECK(owner == &heard);
    heard.n++;
    heard.serial = conn_serial;
    heard.id = frame_id;
    heard.number = a != NULL ? a->number : 0;
    heard.generation = a != NULL ? a->generation : 0;
    heard.code = err != NULL ? err->code : 0;
    snprintf(heard.text, sizeof(heard.text), "%s", err != NULL ? err->text : "");
}

static const struct cts_adapter_waiter WAITER = { on_done, &heard, 11, 22 };

static struct cts_span span(const char *s)
{
    return (struct cts_span){ (const uint8_t *)s, strlen(s) };
}

static const char *demo(const char *name)
{
    static char path[600];
    char        rel[300];

    snprintf(rel, sizeof(rel), "contrib/demo/adapters/own-start/%s", name);
    return src_path(path, sizeof(path), rel);
}

/* One turn of the loop and of the engine's events, whatever comes. */
static void turn(void)
{
    serve_rig_flush(&rig);
    (void)uv_run(&rig.loop, UV_RUN_ONCE);
    (void)cts_lives_drain(&rig.lives, 1, UINT32_MAX);
}

static int load(const char *dir, const char *name, const char **param, struct cts_err *err)
{
    heard.n = 0;
    *err = (struct cts_err){ .code = 0 };
    return cts_adapters_load(rig.adapters, span(dir), span(name), &WAITER, param, err);
}

static void load_ok(const char *dir, const char *name)
{
    const char    *param;
    struct cts_err err;

    CHECK_MSG(load(dir, name, &param, &err) == 0, "%s\n", err.text);
    while (heard.n == 0) turn();
    CHECK_MSG(heard.n == 1 && heard.code == 0 && heard.serial == 11 && heard.id == 22, "%s\n", heard.text);
}

static void unload_ok(const char *name)
{
    struct cts_err err;

    heard.n = 0;
    CHECK(cts_adapters_unload(rig.adapters, span(name), &WAITER, &err) == 0);
    while (heard.n == 0) turn();
    CHECK(heard.n == 1 && heard.code == 0 && heard.number == 0);
}

static int find(const char *name, struct cts_adapter **a, struct cts_err *err)
{
    return cts_adapters_find(rig.adapters, span(name), a, err);
}

static void each_load_into_a_place_has_a_new_generation(void **state)
{
    struct cts_adapter *a;
    struct cts_err      err;
    uint32_t            number, generation;

    (void)state;
    load_ok(demo("date-compact"), "dates/iso");
    number = heard.number;
    generation = heard.generation;
    CHECK(find("dates/iso", &a, &err) == 0 && a->number == number && a->kind == CTS_ADAPTER_EXACT &&
          a->rank_max == 16);
    CHECK(cts_adapters_get(rig.adapters, number, generation, &a, &err) == 0);
    CHECK(cts_adapters_get(rig.adapters, number, generation + 1, &a, &err) == CTS_ENOTFOUND);
    unload_ok("dates/iso");
    CHECK(find("dates/iso", &a, &err) == CTS_ENOTFOUND && strstr(err.text, "dates/iso") != NULL);
    CHECK(cts_adapters_get(rig.adapters, number, generation, &a, &err) == CTS_ENOTFOUND);
    CHECK(cts_adapters_at(rig.adapters, number) == NULL);
    load_ok(demo("case-sentence"), "other");
    CHECK(heard.number == number && heard.generation == generation + 1);
    CHECK(cts_adapters_get(rig.adapters, number, generation, &a, &err) ==
          CTS_ENOTFOUND); /* not the wrong adapter */
    unload_ok("other");
}

static void what_cannot_be_loaded_leaves_nothing(void **state)
{
    static const char *const BAD_NAMES[] = { "", ".x", "a b", "a//b", "a/../b", "a/", "-x", "\xc3\xa9" };
    struct cts_adapter      *a;
    const char              *param;
    struct cts_err           err;
    char                     long_name[200];

    (void)state;
    for (size_t i = 0; i < sizeof(BAD_NAMES) / sizeof(BAD_NAMES[0]); i++)
        CHECK_MSG(load(demo("date-compact"), BAD_NAMES[i], &param, &err) == CTS_EARG &&
                      strcmp(param, "name") == 0,
                  "'%s'\n", BAD_NAMES[i]);
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    CHECK(load(demo("date-compact"), long_name, &param, &err) == CTS_EARG && strcmp(param, "name") == 0);
    CHECK(load("relative", "x", &param, &err) == CTS_EARG && strcmp(param, "dir") == 0);
    CHECK(load("", "x", &param, &err) == CTS_EARG && strcmp(param, "dir") == 0);

    CHECK(load("/nonexistent/folder", "x", &param, &err) == 0);
    while (heard.n == 0) turn();
    CHECK_MSG(heard.code == -ENOENT && strstr(heard.text, "/nonexistent/folder") != NULL, "%s\n", heard.text);
    CHECK(find("x", &a, &err) == CTS_ENOTFOUND);
    load_ok(demo("date-compact"), "x"); /* the place and the name are free again */
    unload_ok("x");
}

static void names_and_places_are_taken_once(void **state)
{
    const char         *param;
    struct cts_err      err;
    struct cts_adapter *a;

    (void)state;
    CHECK(load(demo("date-compact"), "a", &param, &err) == 0);
    CHECK(find("a", &a, &err) == CTS_ENOTFOUND && strstr(err.text, "being loaded") != NULL);
    CHECK(load(demo("date-compact"), "a", &param, &err) == -EEXIST &&
          strcmp(param, "name") == 0); /* while the first is on its way */
    while (heard.n == 0) turn();
    load_ok(demo("date-compact"), "b");
    CHECK(load(demo("date-compact"), "c", &param, &err) == CTS_EBUSY &&
          strstr(err.text, "exact_adapters") != NULL);
    unload_ok("a");
    load_ok(demo("date-compact"), "c");
    unload_ok("b");
    unload_ok("c");
}

static void unload_waits_for_the_last_request_that_names_it(void **state)
{
    struct cts_adapter *a, *b;
    struct cts_err      err;

    (void)state;
    load_ok(demo("date-compact"), "a");
    CHECK(find("a", &a, &err) == 0);
    cts_adapters_hold(rig.adapters, a);
    cts_adapters_hold(rig.adapters, a);
    heard.n = 0;
    CHECK(cts_adapters_unload(rig.adapters, span("a"), &WAITER, &err) == 0);
    CHECK(find("a", &b, &err) == CTS_ENOTFOUND && strstr(err.text, "being unloaded") != NULL);
    CHECK(cts_adapters_unload(rig.adapters, span("a"), &WAITER, &err) == CTS_ENOTFOUND);
    CHECK(cts_adapters_turn(rig.adapters) == 0); /* no order yet */
    cts_adapters_release(rig.adapters, a->number);
    CHECK(cts_adapters_turn(rig.adapters) == 0);
    cts_adapters_release(rig.adapters, a->number);
    while (heard.n == 0) turn();
    CHECK(heard.n == 1 && heard.code == 0);
    CHECK(cts_adapters_unload(rig.adapters, span("a"), &WAITER, &err) == CTS_ENOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_load_into_a_place_has_a_new_generation),
        cmocka_unit_test(what_cannot_be_loaded_leaves_nothing),
        cmocka_unit_test(names_and_places_are_taken_once),
        cmocka_unit_test(unload_waits_for_the_last_request_that_names_it),
    };

    return cmocka_run_group_tests_name("adapters", tests, open_rig, close_rig);
}
