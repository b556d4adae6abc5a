#ifndef CTS_COMMON_UTF8_H
#define CTS_COMMON_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* 1 when the n bytes are well-formed UTF-8 (no surrogates, no overlong forms,
 * nothing past U+10FFFF), else 0. */
int cts_utf8_is_valid(const void *s, size_t n);

/* Decode one code point at s, n >= 1 bytes left. Returns its length in bytes
 * and sets *cp; 0 when the bytes are malformed or cut off. */
size_t cts_utf8_next(const uint8_t *s, size_t n, uint32_t *cp);

/* Length of a trailing part that may still become a character: 0..3 bytes at
 * the end of s that begin a well-formed sequence and are cut off. */
size_t cts_utf8_tail(const void *s, size_t n);

/* Write cp (a Unicode scalar value) to out, at most 4 bytes; returns the length. */
size_t cts_utf8_put(uint32_t cp, uint8_t *out);

#endif
