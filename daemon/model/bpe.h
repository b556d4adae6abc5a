#ifndef CTS_DAEMON_MODEL_BPE_H
#define CTS_DAEMON_MODEL_BPE_H

/* Byte-pair encoding of one word: the pair whose merge has the lowest rank is
 * merged first, of equal ones the leftmost, until no pair has a merge. A heap
 * over a linked list: n log n for a word of n bytes, however long. */

#include <stddef.h>
#include <stdint.h>

#define CTS_BPE_WORD_BYTES_MAX ((size_t)1 << 30)

struct cts_bpe_merge {
    int32_t  left, right; /* ids; left < 0: an empty place of the table */
    uint32_t rank;
};

struct cts_bpe {
    int32_t               byte_id[256]; /* -1: a byte that never comes (no UTF-8 text has it) */
    struct cts_bpe_merge *merges;       /* open addressing, mask + 1 places */
    uint32_t              mask;
    int32_t              *new_id; /* [n_merges], by rank */
    uint32_t              n_merges, n_merges_max;
};

/* An empty set of merges that takes n_merges_max. 0 or -ENOMEM. */
int  cts_bpe_init(struct cts_bpe *b, uint32_t n_merges_max);
void cts_bpe_deinit(struct cts_bpe *b); /* zeroed is fine */

/* Add a merge; its rank is the count of those before it. A pair that comes
 * again has its later rank and result, as in the reference. */
void cts_bpe_add(struct cts_bpe *b, int32_t left, int32_t right, int32_t new_id);

/* Scratch memory for words of at most n_bytes_max. */
struct cts_bpe_symbol {
    int32_t  id; /* -1: merged into the one before it */
    uint32_t prev, next;
};
struct cts_bpe_scratch {
    struct cts_bpe_symbol *symbols; /* [n_bytes_max] */
    uint64_t              *heap;    /* [2 * n_bytes_max], rank << 32 | index of the left symbol */
    size_t                 n_heap, n_bytes_max;
};
/* 0, -ENOMEM, or -EINVAL past CTS_BPE_WORD_BYTES_MAX. */
int  cts_bpe_scratch_init(struct cts_bpe_scratch *s, size_t n_bytes_max);
void cts_bpe_scratch_deinit(struct cts_bpe_scratch *s); /* zeroed is fine */

/* The ids of the word's n bytes, n <= n_bytes_max, each with a byte_id, into ids
 * [cap]. Returns their count, or -EMSGSIZE when cap is too small. Allocates nothing. */
int64_t cts_bpe_word(const struct cts_bpe *b, struct cts_bpe_scratch *s, const uint8_t *word, size_t n,
                     int32_t *ids, size_t cap);

#endif
