#include "daemon/model/bpe.h"

#include "common/assert.h"

#include <errno.h>
#include <stdlib.h>

#define NONE UINT32_MAX

int cts_bpe_init(struct cts_bpe *b, uint32_t n_merges_max)
{
    size_t n_places = 16;

    CTS_ASSERT(n_merges_max <= 1u << 24);
    *b = (struct cts_bpe){ .n_merges_max = n_merges_max };
    while (n_places < (size_t)n_merges_max * 2) n_places *= 2; /* at most half full: short probes */
    b->mask = (uint32_t)(n_places - 1);
    b->merges = malloc(n_places * sizeof(*b->merges));
    b->new_id = malloc(((size_t)n_merges_max + 1) * sizeof(*b->new_id));
    if (b->merges == NULL || b->new_id == NULL) {
        cts_bpe_deinit(b);
        return -ENOMEM;
    }
    for (size_t i = 0; i < n_places; i++) b->merges[i].left = -1;
    for (int i = 0; i < 256; i++) b->byte_id[i] = -1;
    return 0;
}

void cts_bpe_deinit(struct cts_bpe *b)
{
    free(b->merges);
    free(b->new_id);
    *b = (struct cts_bpe){ 0 };
}

/* The pair's place in the table, or the empty one where it would lie. */
static struct cts_bpe_merge *place_of(const struct cts_bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t i = (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 32) & b->mask;

    while (b->merges[i].left >= 0 && (b->merges[i].left != left || b->merges[i].right != right))
        i = (i + 1) & b->mask;
    return &b->merges[i];
}

void cts_bpe_add(struct cts_bpe *b, int32_t left, int32_t right, int32_t new_id)
{
    CTS_ASSERT(b->n_merges < b->n_merges_max);
    CTS_ASSERT(left >= 0 && right >= 0 && new_id >= 0);
    *place_of(b, left, right) = (struct cts_bpe_merge){ left, right, b->n_merges };
    b->new_id[b->n_merges++] = new_id;
}

/* Rank of the pair's merge, NONE where it has none. */
static uint32_t rank_of(const struct cts_bpe *b, int32_t left, int32_t right)
{
    const struct cts_bpe_merge *m = place_of(b, left, right);

    return m->left < 0 ? NONE : m->rank;
}

/* ---- the heap: smallest rank first, then leftmost ---- */

static void heap_push(struct cts_bpe_scratch *s, uint64_t key)
{
    size_t i = s->n_heap++;

    CTS_DASSERT(s->n_heap <= 2 * s->n_bytes_max);
    while (i > 0 && s->heap[(i - 1) / 2] > key) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = key;
}

static uint64_t heap_pop(struct cts_bpe_scratch *s)
{
    uint64_t top = s->heap[0], last = s->heap[--s->n_heap];
    size_t   i = 0, child;

    while ((child = 2 * i + 1) < s->n_heap) {
        if (child + 1 < s->n_heap && s->heap[child + 1] < s->heap[child]) child++;
        if (s->heap[child] >= last) break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

/* Queue the merge of the symbol at i with its right neighbour, where there is one. */
static void queue_pair(const struct cts_bpe *b, struct cts_bpe_scratch *s, uint32_t i)
{
    uint32_t next = s->symbols[i].next, rank;

    if (next == NONE) return;
    rank = rank_of(b, s->symbols[i].id, s->symbols[next].id);
    if (rank != NONE) heap_push(s, (uint64_t)rank << 32 | i);
}

/* ---- a word ---- */

int cts_bpe_scratch_init(struct cts_bpe_scratch *s, size_t n_bytes_max)
{
    *s = (struct cts_bpe_scratch){ .n_bytes_max = n_bytes_max };
    if (n_bytes_max > CTS_BPE_WORD_BYTES_MAX) return -EINVAL;
    s->symbols = malloc((n_bytes_max + 1) * sizeof(*s->symbols));
    s->heap = malloc((2 * n_bytes_max + 1) * sizeof(*s->heap));
    if (s->symbols != NULL && s->heap != NULL) return 0;
    cts_bpe_scratch_deinit(s);
    return -ENOMEM;
}

void cts_bpe_scratch_deinit(struct cts_bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    *s = (struct cts_bpe_scratch){ 0 };
}

static void start_word(const struct cts_bpe *b, struct cts_bpe_scratch *s, const uint8_t *word, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        CTS_DASSERT(b->byte_id[word[i]] >= 0);
        s->symbols[i] = (struct cts_bpe_symbol){ b->byte_id[word[i]], i - 1, i + 1 }; /* 0 - 1 is NONE */
    }
    s->symbols[n - 1].next = NONE;
    s->n_heap = 0;
    for (uint32_t i = 0; i + 1 < n; i++) queue_pair(b, s, i);
}

/* Do the merge with the lowest rank, unless its symbols have changed since it
 * was queued. Each merge takes one entry and queues at most two, and there are
 * at most n - 1 of either at the start: 2 n entries are enough. */
static void merge_first(const struct cts_bpe *b, struct cts_bpe_scratch *s)
{
    uint64_t               top = heap_pop(s);
    uint32_t               i = (uint32_t)top, next, rank;
    struct cts_bpe_symbol *left = &s->symbols[i];

    if (left->id < 0 || left->next == NONE) return;
    next = left->next;
    rank = rank_of(b, left->id, s->symbols[next].id);
    if (rank == NONE || b->new_id[rank] != b->new_id[top >> 32]) return;
    left->id = b->new_id[rank];
    left->next = s->symbols[next].next;
    s->symbols[next].id = -1;
    if (left->next != NONE) s->symbols[left->next].prev = i;
    if (left->prev != NONE) queue_pair(b, s, left->prev);
    queue_pair(b, s, i);
}

int64_t cts_bpe_word(const struct cts_bpe *b, struct cts_bpe_scratch *s, const uint8_t *word, size_t n,
                     int32_t *ids, size_t cap)
{
    size_t n_ids = 0;

    CTS_ASSERT(n <= s->n_bytes_max);
    if (n == 0) return 0;
    start_word(b, s, word, (uint32_t)n);
    while (s->n_heap > 0) merge_first(b, s);
    for (uint32_t i = 0; i != NONE; i = s->symbols[i].next) {
        if (n_ids == cap) return -EMSGSIZE;
        ids[n_ids++] = s->symbols[i].id;
    }
    return (int64_t)n_ids;
}
