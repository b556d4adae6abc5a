#ifndef CTS_DAEMON_MODEL_UNICODE_TABLE_H
#define CTS_DAEMON_MODEL_UNICODE_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* What the tokenizers' patterns ask of a character: \p{L}, \p{N}, \s or none of these. */
enum cts_char_class { CTS_CHAR_OTHER, CTS_CHAR_LETTER, CTS_CHAR_NUMBER, CTS_CHAR_SPACE };

/* Characters lo to hi are of class cls; sorted, without overlap. What lies in
 * no range is CTS_CHAR_OTHER. */
struct cts_unicode_range {
    uint32_t lo, hi;
    uint8_t  cls;
};
extern const struct cts_unicode_range CTS_UNICODE_RANGES[];
extern const size_t                   CTS_N_UNICODE_RANGES;

#endif
