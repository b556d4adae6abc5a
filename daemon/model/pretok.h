#ifndef CTS_DAEMON_MODEL_PRETOK_H
#define CTS_DAEMON_MODEL_PRETOK_H

/* Cutting a text into words before byte-pair encoding: Digits cuts it into
 * pieces, then ByteLevel with GPT-2's pattern cuts each piece into words, as if
 * it were a text of its own. The pattern, in order of its alternatives:
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * The classes are those of Unicode 16, as in the pattern's engine in tokenizers
 * 0.23. Its Digits knows 13 numbers of Unicode 17 more, which stay uncut here. */

#include "daemon/model/unicode_table.h"

#include <stddef.h>
#include <stdint.h>

enum cts_digits { CTS_DIGITS_KEPT, CTS_DIGITS_RUNS, CTS_DIGITS_EACH };

struct cts_pretok {
    enum cts_digits digits;    /* whether numbers are cut out: as runs, or each digit */
    int             use_regex; /* 0: a piece is a word */
};

enum cts_char_class cts_char_class(uint32_t cp);

/* Length of the first piece of the n >= 1 bytes at s, which are UTF-8. */
size_t cts_pretok_piece(const struct cts_pretok *p, const uint8_t *s, size_t n);

/* Length of the first word of a piece, or of what is left of one. */
size_t cts_pretok_word(const struct cts_pretok *p, const uint8_t *s, size_t n);

#endif
