#include "daemon/model/pretok.h"

#include "common/assert.h"
#include "common/utf8.h"

#include <string.h>

enum cts_char_class cts_char_class(uint32_t cp)
{
    size_t lo = 0, hi = CTS_N_UNICODE_RANGES;

    if (cp < 0x80) { /* most of most texts */
        uint32_t letter = (cp | 0x20) - 'a';
        return letter < 26                          ? CTS_CHAR_LETTER
               : cp - '0' < 10                      ? CTS_CHAR_NUMBER
               : cp == ' ' || (cp >= 9 && cp <= 13) ? CTS_CHAR_SPACE
                                                    : CTS_CHAR_OTHER;
    }
    while (lo < hi) {
        size_t                          mid = (lo + hi) / 2;
        const struct cts_unicode_range *r = &CTS_UNICODE_RANGES[mid];
        if (cp < r->lo) hi = mid;
        else if (cp > r->hi) lo = mid + 1;
        else return (enum cts_char_class)r->cls;
    }
    return CTS_CHAR_OTHER;
}

/* Class of the character at s; *len gets its bytes. */
static enum cts_char_class class_at(const uint8_t *s, size_t n, size_t *len)
{
    uint32_t cp = 0;

    *len = cts_utf8_next(s, n, &cp);
    CTS_ASSERT(*len > 0); /* the text was checked before it was cut */
    return cts_char_class(cp);
}

/* End of the run of characters that begins at byte at and is of class cls, or,
 * with is_not, of any other. *last gets where its last character begins. */
static size_t run_end(const uint8_t *s, size_t n, size_t at, enum cts_char_class cls, int is_not, size_t *last)
{
    size_t len;

    while (at < n && (class_at(s + at, n - at, &len) == cls) == !is_not) {
        *last = at;
        at += len;
    }
    return at;
}

size_t cts_pretok_piece(const struct cts_pretok *p, const uint8_t *s, size_t n)
{
    size_t len, last = 0;
    int    is_number;

    if (p->digits == CTS_DIGITS_KEPT) return n;
    is_number = class_at(s, n, &len) == CTS_CHAR_NUMBER;
    if (is_number && p->digits == CTS_DIGITS_EACH) return len;
    return run_end(s, n, len, CTS_CHAR_NUMBER, !is_number, &last);
}

/* Length of a contraction at s, 0 where there is none. */
static size_t contraction(const uint8_t *s, size_t n)
{
    static const char *const ENDS[] = { "s", "t", "re", "ve", "m", "ll", "d" };

    if (s[0] != '\'') return 0;
    for (size_t i = 0; i < sizeof(ENDS) / sizeof(ENDS[0]); i++) {
        size_t len = strlen(ENDS[i]);
        if (n > len && memcmp(s + 1, ENDS[i], len) == 0) return 1 + len;
    }
    return 0;
}

size_t cts_pretok_word(const struct cts_pretok *p, const uint8_t *s, size_t n)
{
    enum cts_char_class cls;
    size_t              len, at = 0, last = 0, end;

    if (!p->use_regex) return n;
    len = contraction(s, n);
    if (len > 0) return len;
    cls = class_at(s, n, &len);
    if (s[0] == ' ' && n > 1) { /* " ?": the space goes with what follows, which may be more space */
        cls = class_at(s + 1, n - 1, &len);
        at = 1;
    }
    end = run_end(s, n, at, cls, 0, &last);
    /* \s+(?!\S): a run of space leaves its last character to the word after it,
     * unless the piece ends here or there is only one. */
    return cls == CTS_CHAR_SPACE && end < n && last > 0 ? last : end;
}
