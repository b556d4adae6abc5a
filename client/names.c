#include "client/names.h"

#include "common/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_FIRST 64u

/* FNV-1a; the names are the caller's own, so nobody floods this table. */
static uint32_t hash(const char *s)
{
    uint32_t h = 2166136261u;

    for (; *s != '\0'; s++) h = (h ^ (uint8_t)*s) * 16777619u;
    return h;
}

/* The slot that holds name, or the free one where it belongs. */
static struct cts_name *place(struct cts_name *slots, uint32_t n_slots, const char *name)
{
    uint32_t i = hash(name) & (n_slots - 1);

    while (slots[i].name != NULL && strcmp(slots[i].name, name) != 0) i = (i + 1) & (n_slots - 1);
    return &slots[i];
}

const struct cts_name *cts_names_find(const struct cts_names *t, const char *name)
{
    const struct cts_name *n;

    if (t->n_slots == 0) return NULL;
    n = place(t->slots, t->n_slots, name);
    return n->name != NULL ? n : NULL;
}

static int grow(struct cts_names *t)
{
    uint32_t         n_slots = t->n_slots == 0 ? SLOTS_FIRST : 2 * t->n_slots;
    struct cts_name *slots = calloc(n_slots, sizeof(*slots));

    if (slots == NULL) return -ENOMEM;
    for (uint32_t i = 0; i < t->n_slots; i++)
        if (t->slots[i].name != NULL) *place(slots, n_slots, t->slots[i].name) = t->slots[i];
    free(t->slots);
    t->slots = slots;
    t->n_slots = n_slots;
    return 0;
}

int cts_names_put(struct cts_names *t, const char *name, uint32_t number, uint32_t generation)
{
    struct cts_name *n;
    int              rc;

    if (t->n_names >= CTS_NAMES_MAX && cts_names_find(t, name) == NULL) cts_names_clear(t);
    if (2 * (t->n_names + 1) > t->n_slots) {
        rc = grow(t);
        if (rc != 0) return rc;
    }
    n = place(t->slots, t->n_slots, name);
    if (n->name == NULL) {
        n->name = strdup(name);
        if (n->name == NULL) return -ENOMEM;
        t->n_names++;
    }
    CTS_ASSERT(t->n_names < t->n_slots); /* place ends at a free slot */
    n->number = number;
    n->generation = generation;
    return 0;
}

void cts_names_clear(struct cts_names *t)
{
    for (uint32_t i = 0; i < t->n_slots; i++) free(t->slots[i].name);
    free(t->slots);
    *t = (struct cts_names)CTS_NAMES_INIT;
}
