#include "daemon/engine/text.h"

#include "common/assert.h"
#include "common/utf8.h"

#include <string.h>

#define REPLACEMENT       "\xef\xbf\xbd" /* U+FFFD */
#define REPLACEMENT_BYTES 3u
#define UNFINISHED_MAX    3u /* bytes of a character that are not all there */

uint32_t cts_text_cap(uint32_t piece_bytes_max)
{
    /* What may begin a stop string stays, the new bytes at worst become three each. */
    return CTS_STOP_STRING_BYTES_MAX + REPLACEMENT_BYTES * (UNFINISHED_MAX + piece_bytes_max);
}

void cts_text_start(struct cts_text *t, uint8_t *buf, uint32_t cap)
{
    *t = (struct cts_text){ .buf = buf, .cap = cap };
}

static void put(struct cts_text *t, const void *src, uint32_t n)
{
    CTS_ASSERT(n <= t->cap - t->n);
    memcpy(t->buf + t->n, src, n);
    t->n += n;
}

/* Length of the part of a character that s begins with, malformed or cut off: 1
 * where not even the first byte begins one. */
static uint32_t broken_len(const uint8_t *s, uint32_t n)
{
    uint32_t len = 1;

    for (uint32_t k = 2; k <= UNFINISHED_MAX && k <= n; k++)
        if (cts_utf8_tail(s, k) == k) len = k;
    return len;
}

/* Put what raw and piece make: characters as they are, broken ones replaced, an
 * unfinished one at the end back into raw. */
static void decode(struct cts_text *t, struct cts_span piece)
{
    size_t at = 0;

    /* The unfinished character first, byte by byte until it is whole or broken. */
    while (t->n_raw > 0 && at < piece.len) {
        uint32_t cp, n = t->n_raw;

        t->raw[n] = piece.ptr[at];
        if (cts_utf8_next(t->raw, n + 1, &cp) == n + 1) {
            put(t, t->raw, n + 1);
            t->n_raw = 0;
            at++;
        } else if (cts_utf8_tail(t->raw, n + 1) == n + 1) {
            t->n_raw++;
            at++;
        } else { /* the new byte does not belong to it: it is looked at again below */
            put(t, REPLACEMENT, REPLACEMENT_BYTES);
            t->n_raw = 0;
        }
    }
    while (at < piece.len) {
        const uint8_t *s = piece.ptr + at;
        uint32_t       left = piece.len - at < 4 ? (uint32_t)(piece.len - at) : 4, cp;
        size_t         len = cts_utf8_next(s, left, &cp);

        if (len > 0) {
            put(t, s, (uint32_t)len);
            at += len;
        } else if (left <= UNFINISHED_MAX && cts_utf8_tail(s, left) == left) {
            memcpy(t->raw, s, left);
            t->n_raw = left;
            return;
        } else {
            put(t, REPLACEMENT, REPLACEMENT_BYTES);
            at += broken_len(s, left);
        }
    }
}

/* Offset of the earliest stop string in the text, or -1; of two at one place either will do. */
static int64_t find_stop(const struct cts_text *t, const struct cts_stops *stops)
{
    for (uint32_t at = 0; at < t->n; at++)
        for (uint32_t i = 0; i < stops->n; i++)
            if (stops->bytes[i] <= t->n - at && memcmp(t->buf + at, stops->text[i], stops->bytes[i]) == 0) return at;
    return -1;
}

/* Length of the longest end of the text that a stop string begins with. */
static uint32_t held_len(const struct cts_text *t, const struct cts_stops *stops)
{
    uint32_t held = 0;

    for (uint32_t i = 0; i < stops->n; i++) {
        uint32_t k = stops->bytes[i] - 1u < t->n ? stops->bytes[i] - 1u : t->n;

        for (; k > held; k--)
            if (memcmp(t->buf + t->n - k, stops->text[i], k) == 0) held = k;
    }
    return held;
}

int cts_text_push(struct cts_text *t, struct cts_span piece, const struct cts_stops *stops)
{
    int64_t at;

    decode(t, piece);
    at = find_stop(t, stops);
    if (at >= 0) {
        t->n = t->n_out = (uint32_t)at;
        t->n_raw = 0;
        return 1;
    }
    t->n_out = t->n - held_len(t, stops);
    return 0;
}

void cts_text_end(struct cts_text *t)
{
    if (t->n_raw > 0) put(t, REPLACEMENT, REPLACEMENT_BYTES);
    t->n_raw = 0;
    t->n_out = t->n;
}

static void remove_front(struct cts_text *t, uint32_t n)
{
    memmove(t->buf, t->buf + n, t->n - n);
    t->n -= n;
    t->n_out -= n;
}

void cts_text_drop(struct cts_text *t)
{
    remove_front(t, t->n_out);
}

uint32_t cts_text_take(struct cts_text *t, char *dst, uint32_t cap)
{
    uint32_t n = t->n_out < cap ? t->n_out : cap;

    CTS_DASSERT(cap >= 4);
    while (n > 0 && n < t->n_out && (t->buf[n] & 0xc0) == 0x80) n--; /* not inside a character */
    memcpy(dst, t->buf, n);
    remove_front(t, n);
    return n;
}
