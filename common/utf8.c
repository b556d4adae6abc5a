#include "common/utf8.h"

/* Length of the sequence that a lead byte begins, 0 when it begins none. */
static size_t lead_len(uint8_t b)
{
    return b < 0x80 ? 1 : b < 0xc2 ? 0 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : b < 0xf5 ? 4 : 0;
}

/* The second byte is what excludes overlong forms, surrogates and values past
 * U+10FFFF (Unicode 15, table 3-7); the others are plain continuations. */
static int second_is_ok(uint8_t lead, uint8_t b)
{
    uint8_t lo = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t hi = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;

    return b >= lo && b <= hi;
}

/* How many of the n bytes at s belong to one sequence; *is_whole says whether it ended. */
static size_t match(const uint8_t *s, size_t n, int *is_whole)
{
    size_t want = lead_len(s[0]), i;

    *is_whole = 0;
    if (want == 0) return 0;
    for (i = 1; i < want && i < n; i++)
        if (i == 1 ? !second_is_ok(s[0], s[1]) : (s[i] & 0xc0) != 0x80) return 0;
    *is_whole = i == want;
    return i;
}

size_t cts_utf8_next(const uint8_t *s, size_t n, uint32_t *cp)
{
    static const uint8_t LEAD_MASK[5] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    int                  is_whole;
    size_t               len = match(s, n, &is_whole);
    uint32_t             c;

    if (len == 0 || !is_whole) return 0;
    c = s[0] & LEAD_MASK[len];
    for (size_t i = 1; i < len; i++) c = c << 6 | (s[i] & 0x3f);
    *cp = c;
    return len;
}

int cts_utf8_is_valid(const void *s, size_t n)
{
    const uint8_t *p = s;
    uint32_t       cp;

    for (size_t i = 0; i < n;) {
        size_t len = cts_utf8_next(p + i, n - i, &cp);
        if (len == 0) return 0;
        i += len;
    }
    return 1;
}

size_t cts_utf8_tail(const void *s, size_t n)
{
    const uint8_t *p = s;
    int            is_whole;

    for (size_t back = 1; back <= 3 && back <= n; back++) {
        if ((p[n - back] & 0xc0) == 0x80) continue; /* a continuation: look further back */
        return match(p + n - back, back, &is_whole) == back && !is_whole ? back : 0;
    }
    return 0;
}

size_t cts_utf8_put(uint32_t cp, uint8_t *out)
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6) out[i] = (uint8_t)(0x80 | (cp & 0x3f));
    out[0] = (uint8_t)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | cp);
    return n;
}
