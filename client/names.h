#ifndef CTS_CLIENT_NAMES_H
#define CTS_CLIENT_NAMES_H

/* What the daemon said about adapters' names, so that each is asked for once. A
 * cache: an entry may be stale, which the daemon's refusal shows, and forgetting
 * costs one question. One thread at a time. */

#include <stddef.h>
#include <stdint.h>

#define CTS_NAMES_MAX 65536

struct cts_name {
    char    *name; /* owned, zero-terminated; NULL: a free place */
    uint32_t number, generation;
};

struct cts_names {
    struct cts_name *slots; /* [n_slots], linear probing, at most half full */
    uint32_t         n_slots, n_names;
};
#define CTS_NAMES_INIT { NULL, 0, 0 }

/* The entry of name, or NULL. Valid until the next put. */
const struct cts_name *cts_names_find(const struct cts_names *t, const char *name);

/* Enter or replace; name is copied. With CTS_NAMES_MAX names inside, all are
 * forgotten first. 0 or -ENOMEM (nothing is entered, which does no harm). */
int cts_names_put(struct cts_names *t, const char *name, uint32_t number, uint32_t generation);

/* Free everything; t is empty and usable again. */
void cts_names_clear(struct cts_names *t);

#endif
