#include "daemon/config.h"

#include "tests/check.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static char dir[256];

static int make_dir(void **state)
{
    (void)state;
    temp_dir(dir, sizeof(dir));
    return 0;
}

static const char *path_of(const char *name)
{
    static char path[512];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name), "w");

    CHECK(f != NULL);
    CHECK(fputs(text, f) >= 0);
    CHECK(fclose(f) == 0);
}

static int remove_dir(void **state)
{
    (void)state;
    (void)unlink(path_of("a.conf"));
    (void)unlink(path_of("b.conf"));
    return rmdir(dir);
}

/* Read text as a file. */
static int load(struct cts_config *c, const char *text, struct cts_err *err)
{
    write_file("a.conf", text);
    *err = (struct cts_err){ .code = 0 };
    return cts_config_load(c, path_of("a.conf"), err);
}

static void a_file_is_read_over_the_defaults(void **state)
{
    struct cts_config c;
    struct cts_err    err;

    (void)state;
    CHECK(cts_config_init(&c) == 0);
    CHECK(c.rows == 256 && c.model_path == NULL && c.arena_bytes == 1u << 20 && strcmp(c.backend, "cpu") == 0);
    CHECK(load(&c,
               "# a comment\nmodel {\n  path = \"/a b\"\n}\nengine { rows = 7\n cpu_level = avx2 }\nlimits { "
               "out_bytes = 64K }\n",
               &err) == 0);
    CHECK(strcmp(c.model_path, "/a b") == 0 && c.rows == 7 && strcmp(c.cpu_level, "avx2") == 0);
    CHECK(c.out_bytes == 65536 && c.sequences == 64);
    cts_config_deinit(&c);
}

static void what_is_wrong_is_named_with_file_and_line(void **state)
{
    static const struct {
        const char *text, *line, *word;
    } CASES[] = {
        { "model {\n path = x\n pith = y\n}\n", ":3:", "pith" },
        { "modle {\n}\n", ":1:", "modle" },
        { "\n\nengine {\n rows = 0\n}\n", ":4:", "engine.rows" },
        { "engine {\n rows = 70000\n}\n", ":2:", "65536" },
        { "engine {\n rows = 12x\n}\n", ":2:", "engine.rows" },
        { "engine {\n rows = -1\n}\n", ":2:", "engine.rows" },
        { "engine {\n rows = 1K\n}\n", ":2:", "engine.rows" },
        { "engine {\n\n backend = gpu\n}\n", ":3:", "cpu|ref|async" },
        { "limits {\n arena_bytes = 100K\n}\n", ":2:", "power of two" },
        { "limits {\n prompt_bytes = 99999999999999999999\n}\n", ":2:", "limits.prompt_bytes" },
        { "limits {\n prompt_bytes = 18014398509481985K\n}\n",
          ":2:", "limits.prompt_bytes" }, /* passes 64 bits */
        { "log {\n level = noti\n}\n", ":2:", "log.level" },
    };
    struct cts_config c;
    struct cts_err    err;

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        CHECK(cts_config_init(&c) == 0);
        CHECK_MSG(load(&c, CASES[i].text, &err) == CTS_EFORMAT, "case %zu\n", i);
        CHECK_MSG(strstr(err.text, "a.conf") != NULL && strstr(err.text, CASES[i].line) != NULL &&
                      strstr(err.text, CASES[i].word) != NULL,
                  "case %zu: %s\n", i, err.text);
        cts_config_deinit(&c);
    }
    CHECK(cts_config_init(&c) == 0);
    CHECK(load(&c, "engine { rows = \n", &err) == CTS_EFORMAT); /* ends too early */
    CHECK(cts_config_load(&c, path_of("none.conf"), &err) == -ENOENT);
    cts_config_deinit(&c);
}

static void an_included_file_is_read_in_its_place(void **state)
{
    struct cts_config c;
    struct cts_err    err;
    char              text[600];

    (void)state;
    CHECK(cts_config_init(&c) == 0);
    write_file("b.conf", "engine { rows = 11 }\nlimits {\n clients = 0 }\n");
    snprintf(text, sizeof(text), "include(\"%s\")\n", path_of("b.conf"));
    CHECK(load(&c, text, &err) == CTS_EFORMAT);
    CHECK(c.rows == 11);
    CHECK_MSG(strstr(err.text, "b.conf:3:") != NULL, "%s\n", err.text);
    cts_config_deinit(&c);
}

static void set_takes_one_option_and_refuses_what_is_none(void **state)
{
    static const char *const BAD[] = { "engine.rows",   "rows=3",        "engine.rows=",
                                       "engine.rows=x", "engine.raws=3", "=",
                                       "a.b=c",         "engine=rows.3", "log.level=" };
    struct cts_config        c;
    struct cts_err           err = { .code = 0 };

    (void)state;
    CHECK(cts_config_init(&c) == 0);
    CHECK(cts_config_set(&c, "engine.rows=9", &err) == 0 && c.rows == 9);
    CHECK(cts_config_set(&c, "model.path=/x=y.z", &err) == 0 && strcmp(c.model_path, "/x=y.z") == 0);
    CHECK(cts_config_set(&c, "model.path=", &err) == 0 && c.model_path == NULL);
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        CHECK_MSG(cts_config_set(&c, BAD[i], &err) == CTS_EARG, "'%s'\n", BAD[i]);
    CHECK(c.rows == 9);
    cts_config_deinit(&c);
}

static void each_number_takes_its_bounds_and_nothing_beyond(void **state)
{
    struct cts_config c;

    (void)state;
    CHECK(cts_config_init(&c) == 0);
    for (uint32_t i = 0; i < CTS_CONFIG_N_OPTIONS; i++) {
        const struct cts_config_option *o = &CTS_CONFIG_OPTIONS[i];
        const uint64_t                 *at = (const uint64_t *)((const char *)&c + o->off);
        char                            text[128];

        if (o->type != CTS_CONFIG_UINT && o->type != CTS_CONFIG_BYTES) continue;
        snprintf(text, sizeof(text), "%s.%s=%" PRIu64, o->section, o->name, o->lo);
        CHECK(cts_config_set(&c, text, NULL) == 0 && *at == o->lo);
        snprintf(text, sizeof(text), "%s.%s=%" PRIu64, o->section, o->name, o->hi);
        CHECK(cts_config_set(&c, text, NULL) == 0 && *at == o->hi);
        snprintf(text, sizeof(text), "%s.%s=%" PRIu64, o->section, o->name,
                 o->hi * (o->is_pow2 ? 2 : 1) + !o->is_pow2);
        CHECK(cts_config_set(&c, text, NULL) == CTS_EARG);
        if (o->lo == 0) continue;
        snprintf(text, sizeof(text), "%s.%s=%" PRIu64, o->section, o->name, o->is_pow2 ? o->lo / 2 : o->lo - 1);
        CHECK(cts_config_set(&c, text, NULL) == CTS_EARG);
        CHECK(*at == o->hi);
    }
    cts_config_deinit(&c);
}

static void what_is_printed_reads_back_as_the_same(void **state)
{
    struct cts_config a, b;
    struct cts_err    err = { .code = 0 };
    char             *text[2];
    size_t            n[2];
    FILE             *f;

    (void)state;
    CHECK(cts_config_init(&a) == 0 && cts_config_init(&b) == 0);
    CHECK(cts_config_set(&a, "model.path=/a \"b\" \\c ${HOME}", NULL) == 0);
    CHECK(cts_config_set(&a, "limits.prompt_bytes=3145728", NULL) == 0 &&
          cts_config_set(&a, "log.level=debug", NULL) == 0);
    f = open_memstream(&text[0], &n[0]);
    cts_config_print(&a, f);
    CHECK(fclose(f) == 0);
    CHECK(strstr(text[0], "prompt_bytes = 3M\n") != NULL);
    CHECK_MSG(load(&b, text[0], &err) == 0, "%s\n%s\n", err.text, text[0]);
    CHECK(strcmp(a.model_path, b.model_path) == 0);
    f = open_memstream(&text[1], &n[1]);
    cts_config_print(&b, f);
    CHECK(fclose(f) == 0);
    CHECK(n[0] == n[1] && memcmp(text[0], text[1], n[0]) == 0);
    free(text[0]);
    free(text[1]);
    cts_config_deinit(&a);
    cts_config_deinit(&b);
}

static void check_wants_a_model_and_rows_for_every_sequence(void **state)
{
    struct cts_config c;
    struct cts_err    err = { .code = 0 };

    (void)state;
    CHECK(cts_config_init(&c) == 0);
    CHECK(cts_config_check(&c, &err) == CTS_EARG && strstr(err.text, "model.path") != NULL);
    CHECK(cts_config_set(&c, "model.path=/m", NULL) == 0 && cts_config_check(&c, &err) == 0);
    CHECK(cts_config_set(&c, "engine.rows=63", NULL) == 0);
    CHECK(cts_config_check(&c, &err) == CTS_EARG && strstr(err.text, "engine.sequences") != NULL);
    cts_config_deinit(&c);
}

/* ---- ctsd.conf(5) ---- */

/* A size as a person writes it. */
static void put_number(char out[32], const struct cts_config_option *o, uint64_t v)
{
    if (o->type == CTS_CONFIG_BYTES && v % (1u << 20) == 0) snprintf(out, 32, "%" PRIu64 "M", v >> 20);
    else if (o->type == CTS_CONFIG_BYTES && v % 1024 == 0) snprintf(out, 32, "%" PRIu64 "K", v >> 10);
    else snprintf(out, 32, "%" PRIu64, v);
}

/* What the page has to say of an option, its lines joined. */
static void describe(const struct cts_config_option *o, char *out, size_t cap)
{
    const char *dflt = o->dflt;
    char        lo[32], hi[32];

    if (strncmp(dflt, CTS_RUNSTATEDIR, strlen(CTS_RUNSTATEDIR)) == 0) dflt += strlen(CTS_RUNSTATEDIR) + 1;
    put_number(lo, o, o->lo);
    put_number(hi, o, o->hi);
    if (o->type == CTS_CONFIG_STRING)
        snprintf(out, cap, "%s A path, default %s.", o->text, dflt[0] != '\0' ? dflt : "none");
    else if (o->type == CTS_CONFIG_CHOICE)
        snprintf(out, cap, "%s One of %s, default %s.", o->text, o->choices, dflt);
    else
        snprintf(out, cap, "%s From %s to %s%s%s, default %s.", o->text, lo, hi, o->unit[0] != '\0' ? " " : "",
                 o->unit, dflt);
}

/* The text of one option from the page: what stands between its .It and the next
 * request line, joined; NULL when it is not there. */
static const char *text_in_page(FILE *page, const char *section, const char *name)
{
    static char text[1024];
    char        line[512], head[128], item[128];
    int         in_section = 0, in_item = 0;

    snprintf(head, sizeof(head), ".Ss %s\n", section);
    snprintf(item, sizeof(item), ".It Cm %s\n", name);
    text[0] = '\0';
    rewind(page);
    while (fgets(line, sizeof(line), page) != NULL) {
        if (in_item && line[0] == '.') return text;
        if (strncmp(line, ".Ss ", 4) == 0) in_section = strcmp(line, head) == 0;
        if (in_item) {
            line[strcspn(line, "\n")] = '\0';
            if (text[0] != '\0') strncat(text, " ", sizeof(text) - strlen(text) - 1);
            strncat(text, line, sizeof(text) - strlen(text) - 1);
        }
        if (in_section && strcmp(line, item) == 0) in_item = 1;
    }
    return NULL;
}

static void the_page_says_of_each_option_what_the_table_says(void **state)
{
    char     path[512], line[512], want[1024];
    FILE    *page = fopen(src_path(path, sizeof(path), "man/ctsd.conf.5"), "r");
    uint32_t n_items = 0;

    (void)state;
    CHECK_MSG(page != NULL, "%s\n", path);
    for (uint32_t i = 0; i < CTS_CONFIG_N_OPTIONS; i++) {
        const struct cts_config_option *o = &CTS_CONFIG_OPTIONS[i];
        const char                     *text = text_in_page(page, o->section, o->name);

        describe(o, want, sizeof(want));
        CHECK_MSG(text != NULL && strcmp(text, want) == 0, "%s.%s:\npage:  %s\ntable: %s\n", o->section,
                  o->name, text != NULL ? text : "(nothing)", want);
    }
    rewind(page);
    while (fgets(line, sizeof(line), page) != NULL) n_items += strncmp(line, ".It Cm ", 7) == 0;
    CHECK(n_items == CTS_CONFIG_N_OPTIONS);
    fclose(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_over_the_defaults),
        cmocka_unit_test(what_is_wrong_is_named_with_file_and_line),
        cmocka_unit_test(an_included_file_is_read_in_its_place),
        cmocka_unit_test(set_takes_one_option_and_refuses_what_is_none),
        cmocka_unit_test(each_number_takes_its_bounds_and_nothing_beyond),
        cmocka_unit_test(what_is_printed_reads_back_as_the_same),
        cmocka_unit_test(check_wants_a_model_and_rows_for_every_sequence),
        cmocka_unit_test(the_page_says_of_each_option_what_the_table_says),
    };

    return cmocka_run_group_tests_name("config", tests, make_dir, remove_dir);
}
