#ifndef CTS_COMMON_SPAN_H
#define CTS_COMMON_SPAN_H

#include <stddef.h>
#include <stdint.h>

/* Borrowed bytes: whoever made the span says how long they live. */
struct cts_span {
    const uint8_t *ptr;
    size_t         len; /* bytes */
};

#endif
