#include "common/utf8.h"
#include "tests/check.h"

#include <string.h>

/* The definition, slowly: what a sequence of len bytes at s encodes, -1 when it is malformed. */
static int64_t decode_by_the_book(const uint8_t *s, size_t len)
{
    static const uint32_t LEAST[] = { 0, 0, 0x80, 0x800, 0x10000 };
    static const uint8_t  LEAD[] = { 0, 0x00, 0xc0, 0xe0, 0xf0 }, MASK[] = { 0, 0x80, 0xe0, 0xf0, 0xf8 };
    uint32_t              cp;

    if ((s[0] & MASK[len]) != LEAD[len]) return -1;
    cp = s[0] & (uint8_t)~MASK[len];
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) return -1;
        cp = cp << 6 | (s[i] & 0x3f);
    }
    if (cp < LEAST[len] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) return -1;
    return cp;
}

/* Every pair of first bytes, with third and fourth bytes at the borders. */
static void utf8_next_accepts_what_the_definition_accepts(void **state)
{
    static const uint8_t TAIL[] = { 0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xff };
    uint8_t              s[4];

    (void)state;
    for (uint32_t i = 0; i < 65536 * 36; i++) {
        uint32_t cp = 0xffffffff;
        int64_t  want = -1;
        size_t   len, got;

        s[0] = (uint8_t)i;
        s[1] = (uint8_t)(i >> 8);
        s[2] = TAIL[(i >> 16) % 6];
        s[3] = TAIL[(i >> 16) / 6];
        for (len = 1; len <= 4 && want < 0; len++) want = decode_by_the_book(s, len);
        got = cts_utf8_next(s, 4, &cp);
        CHECK_MSG(want < 0 ? got == 0 : got == len - 1 && cp == (uint32_t)want, "%02x %02x %02x %02x: %zu\n", s[0],
                  s[1], s[2], s[3], got);
        if (got > 1) CHECK(cts_utf8_next(s, got - 1, &cp) == 0); /* cut off */
    }
}

static void utf8_put_and_next_agree_on_every_character(void **state)
{
    uint8_t s[4];

    (void)state;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        uint32_t back = 0;
        size_t   n;
        if (cp == 0xd800) cp = 0xe000;
        n = cts_utf8_put(cp, s);
        CHECK(cts_utf8_next(s, 4, &back) == n && back == cp);
    }
}

static void utf8_is_valid_looks_at_every_byte(void **state)
{
    char text[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x99\x82z";

    (void)state;
    CHECK(cts_utf8_is_valid(text, strlen(text)));
    CHECK(cts_utf8_is_valid(NULL, 0) && cts_utf8_is_valid("\0", 1));
    for (size_t i = 0; i < strlen(text); i++) {
        char kept = text[i];
        text[i] = (char)0xff;
        CHECK(!cts_utf8_is_valid(text, strlen(text)));
        text[i] = kept;
    }
    for (size_t n = 0; n < strlen(text); n++) /* whole up to n: not inside a character */
        CHECK(cts_utf8_is_valid(text, n) == ((text[n] & 0xc0) != 0x80));
}

static void utf8_tail_is_what_may_still_become_a_character(void **state)
{
    static const struct {
        const char *s;
        size_t      tail;
    } CASES[] = {
        { "", 0 },
        { "a", 0 },
        { "\xc3", 1 },
        { "a\xc3", 1 },
        { "\xc3\xa4", 0 },
        { "\xe2\x82", 2 },
        { "\xe2", 1 },
        { "a\xe2\x82\xac", 0 },
        { "\xf0\x9f\x99", 3 },
        { "\xf0\x9f", 2 },
        { "\xf0\x80", 0 },
        { "\xed\xa0", 0 },
        { "\xff", 0 },
        { "\x80", 0 },
        { "\x80\x80\x80", 0 },
        { "\xc3\xc3", 1 },
        { "\xf4\x90", 0 },
        { "\xe0\x9f", 0 },
        { "\xf0\x9f\x99\x82", 0 },
        { "\xc0", 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++)
        CHECK_MSG(cts_utf8_tail(CASES[i].s, strlen(CASES[i].s)) == CASES[i].tail, "case %zu\n", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_next_accepts_what_the_definition_accepts),
        cmocka_unit_test(utf8_put_and_next_agree_on_every_character),
        cmocka_unit_test(utf8_is_valid_looks_at_every_byte),
        cmocka_unit_test(utf8_tail_is_what_may_still_become_a_character),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
