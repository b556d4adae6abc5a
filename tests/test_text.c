#include "daemon/engine/text.h"
#include "tests/check.h"

#include "common/utf8.h"

#include <string.h>

#define PIECE_MAX 16

struct fixture {
    struct cts_text  t;
    uint8_t          buf[CTS_STOP_STRING_BYTES_MAX + 3 * (3 + PIECE_MAX)];
    uint8_t          bytes[CTS_STOP_STRINGS_MAX];
    char             text[CTS_STOP_STRINGS_MAX][CTS_STOP_STRING_BYTES_MAX];
    struct cts_stops stops;
    char             got[4096];
    uint32_t         n_got;
};

static void start(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    CHECK(sizeof(f->buf) == cts_text_cap(PIECE_MAX));
    cts_text_start(&f->t, f->buf, sizeof(f->buf));
    f->stops = (struct cts_stops){ 0, f->bytes, f->text };
}

static void add_stop(struct fixture *f, const char *s)
{
    uint32_t i = f->stops.n++;

    f->bytes[i] = (uint8_t)strlen(s);
    memcpy(f->text[i], s, strlen(s));
}

/* Everything that may be given out, in records of cap bytes; each is whole characters. */
static void drain(struct fixture *f, uint32_t cap)
{
    uint32_t n;

    while ((n = cts_text_take(&f->t, f->got + f->n_got, cap)) > 0) {
        CHECK(cts_utf8_is_valid(f->got + f->n_got, n));
        f->n_got += n;
        CHECK(f->n_got < sizeof(f->got) - cap);
    }
    f->got[f->n_got] = 0;
}

static int push(struct fixture *f, const void *bytes, size_t n)
{
    int rc = cts_text_push(&f->t, (struct cts_span){ bytes, n }, &f->stops);

    drain(f, 256);
    return rc;
}

/* The text of src [n], given as pieces that are cut at every place that mask names. */
static const char *decode_cut(struct fixture *f, const char *src, size_t n, uint32_t mask)
{
    size_t from = 0;

    start(f);
    for (size_t i = 1; i <= n; i++) {
        if (i < n && !(mask >> (i - 1) & 1)) continue;
        CHECK(push(f, src + from, i - from) == 0);
        from = i;
    }
    cts_text_end(&f->t);
    drain(f, 4);
    return f->got;
}

static void characters_are_whole_however_the_tokens_cut_them(void **state)
{
    static const char SRC[] = "a\xc3\xa9\xe6\x97\xa5\xf0\x9f\x99\x82z"; /* 1, 2, 3, 4 bytes and 1 */
    struct fixture    f;

    (void)state;
    for (uint32_t mask = 0; mask < 1u << (sizeof(SRC) - 2); mask++)
        CHECK(strcmp(decode_cut(&f, SRC, sizeof(SRC) - 1, mask), SRC) == 0);
}

/* Python: bytes.decode("utf-8", "replace"), which the tokenizers library follows. */
static void malformed_bytes_become_replacements_as_python_makes_them(void **state)
{
#define R "\xef\xbf\xbd"
    static const struct {
        const char *src, *want;
    } CASES[] = {
        { "\x80", R },
        { "a\xff"
          "b",
          "a" R "b" },
        { "\xc3"
          "a",
          R "a" },
        { "\xc0\xaf", R R }, /* overlong: neither byte begins a character */
        { "\xe6\x97", R },   /* cut off at the end: one, not two */
        { "\xe6\x97"
          "a",
          R "a" },
        { "\xf0\x9f\x99", R },
        { "\xf0\x9f"
          "a\xf0",
          R "a" R },
        { "\xed\xa0\x80", R R R },       /* a surrogate */
        { "\xf4\x90\x80\x80", R R R R }, /* past U+10FFFF */
        { "\xe6\xe6\x97\xa5", R "\xe6\x97\xa5" },
        { "\xf0\x80\x80\x80", R R R R }, /* overlong */
    };
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++)
        for (uint32_t mask = 0; mask < 8; mask++) {
            const char *got = decode_cut(&f, CASES[i].src, strlen(CASES[i].src), mask);
            CHECK_MSG(strcmp(got, CASES[i].want) == 0, "case %zu cut %u: '%s'\n", i, mask, got);
        }
#undef R
}

static void a_stop_string_is_found_across_any_borders_and_never_shown(void **state)
{
    static const char SRC[] = "say STO then STOP! and more";
    struct fixture    f;

    (void)state;
    for (size_t len = 1; len <= PIECE_MAX; len++) {
        int is_stopped = 0;

        start(&f);
        add_stop(&f, "STOP!");
        for (size_t i = 0; i < sizeof(SRC) - 1 && !is_stopped; i += len) {
            is_stopped = push(&f, SRC + i, sizeof(SRC) - 1 - i < len ? sizeof(SRC) - 1 - i : len);
            CHECK(strstr(f.got, "STOP") == NULL);
        }
        CHECK(is_stopped);
        cts_text_end(&f.t);
        drain(&f, 256);
        CHECK_MSG(strcmp(f.got, "say STO then ") == 0, "'%s'\n", f.got);
    }
}

static void what_may_begin_a_stop_string_is_held_back_and_let_go(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    add_stop(&f, "aab");
    CHECK(push(&f, "xa", 2) == 0);
    CHECK(strcmp(f.got, "x") == 0);
    CHECK(push(&f, "a", 1) == 0);
    CHECK(strcmp(f.got, "x") == 0);
    CHECK(push(&f, "a", 1) == 0); /* "aaa": the first is free, the last two may begin it */
    CHECK(strcmp(f.got, "xa") == 0);
    CHECK(push(&f, "c", 1) == 0);
    CHECK(strcmp(f.got, "xaaac") == 0);
    CHECK(push(&f, "aa", 2) == 0);
    CHECK(strcmp(f.got, "xaaac") == 0);
    cts_text_end(&f.t); /* nothing more will come: it was only text */
    drain(&f, 256);
    CHECK(strcmp(f.got, "xaaacaa") == 0);
}

static void the_earliest_of_several_stop_strings_ends_the_text(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    add_stop(&f, "two");
    add_stop(&f, "one");
    CHECK(push(&f, "0 one 1 two", 11) == 1);
    cts_text_end(&f.t);
    drain(&f, 256);
    CHECK(strcmp(f.got, "0 ") == 0);
}

static void a_stop_string_of_several_bytes_a_character_is_found(void **state)
{
    static const char SRC[] = "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e";
    struct fixture    f;
    int               is_stopped = 0;

    (void)state;
    start(&f);
    add_stop(&f, "\xe6\x9c\xac");
    for (size_t i = 0; i < sizeof(SRC) - 1 && !is_stopped; i++) is_stopped = push(&f, SRC + i, 1);
    CHECK(is_stopped);
    CHECK(strcmp(f.got, "\xe6\x97\xa5") == 0);
}

static void the_longest_case_fits_the_buffer(void **state)
{
    struct fixture f;
    char           stop[CTS_STOP_STRING_BYTES_MAX + 1] = { 0 };

    (void)state;
    memset(stop, 's', CTS_STOP_STRING_BYTES_MAX);
    start(&f);
    add_stop(&f, stop);
    CHECK(push(&f, "ssssssssssssssss", 16) == 0);
    CHECK(push(&f, "ssssssssssssssss", 16) == 0);
    CHECK(push(&f, "ssssssssssssssss", 16) == 0);
    CHECK(push(&f, "ssssssssssss\xf0\x9f\x99", 15) == 0);
    CHECK(f.n_got == 0); /* 60 bytes may begin it, 3 are no character yet */
    CHECK(push(&f, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16) == 0);
    CHECK(f.n_got == 60 + 3 * 17);
    CHECK(f.t.n == 0);
}

static void dropping_keeps_what_is_held(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    add_stop(&f, "end");
    CHECK(cts_text_push(&f.t, (struct cts_span){ (const uint8_t *)"text e", 6 }, &f.stops) == 0);
    cts_text_drop(&f.t);
    CHECK(f.t.n == 1 && f.t.n_out == 0);
    CHECK(cts_text_push(&f.t, (struct cts_span){ (const uint8_t *)"nd", 2 }, &f.stops) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_are_whole_however_the_tokens_cut_them),
        cmocka_unit_test(malformed_bytes_become_replacements_as_python_makes_them),
        cmocka_unit_test(a_stop_string_is_found_across_any_borders_and_never_shown),
        cmocka_unit_test(what_may_begin_a_stop_string_is_held_back_and_let_go),
        cmocka_unit_test(the_earliest_of_several_stop_strings_ends_the_text),
        cmocka_unit_test(a_stop_string_of_several_bytes_a_character_is_found),
        cmocka_unit_test(the_longest_case_fits_the_buffer),
        cmocka_unit_test(dropping_keeps_what_is_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
