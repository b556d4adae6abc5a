#ifndef CTS_DAEMON_ENGINE_TEXT_H
#define CTS_DAEMON_ENGINE_TEXT_H

/* From the bytes of tokens to text that can be given out: whole characters
 * only, malformed bytes as U+FFFD (one for each maximal part of a character, as
 * Python's "replace" does), nothing of a stop string, and nothing that may yet
 * turn out to begin one. Engine thread only. */

#include "common/span.h"
#include "daemon/engine/engine.h"

#include <stdint.h>

struct cts_text {
    uint8_t *buf; /* [cap], the owner's memory */
    uint32_t cap;
    uint32_t n, n_out; /* bytes in buf; the first n_out of them may be given out */
    uint8_t  raw[4];   /* an unfinished character */
    uint32_t n_raw;
};

struct cts_stops {
    uint32_t       n;
    const uint8_t *bytes;                          /* [n], 1 .. CTS_STOP_STRING_BYTES_MAX */
    const char (*text)[CTS_STOP_STRING_BYTES_MAX]; /* [n] */
};

/* Capacity that pieces of at most piece_bytes_max need, if all that may be given
 * out is taken after each push. */
uint32_t cts_text_cap(uint32_t piece_bytes_max);

/* Empty, in buf [cap]. */
void cts_text_start(struct cts_text *t, uint8_t *buf, uint32_t cap);

/* Add a token's bytes. 1 when a stop string is complete: the text ends before
 * the earliest of them, and nothing more is to be pushed. */
int cts_text_push(struct cts_text *t, struct cts_span piece, const struct cts_stops *stops);

/* The text ends here: an unfinished character becomes U+FFFD, and all may be given out. */
void cts_text_end(struct cts_text *t);

/* Forget what may be given out: for whoever wants stop strings and no text. */
void cts_text_drop(struct cts_text *t);

/* Move up to cap >= 4 bytes, whole characters, to dst; returns their count, 0 when
 * nothing may be given out. */
uint32_t cts_text_take(struct cts_text *t, char *dst, uint32_t cap);

#endif
