#include "daemon/model/bpe.h"
#include "tests/check.h"

#include <errno.h>
#include <string.h>

#define TOKENS_MAX 128
#define WORD_MAX   48

/* A vocabulary of texts over "abc", so that merges are consistent: a token is its text. */
static char     text_of[TOKENS_MAX][16];
static int32_t  n_tokens;
static int32_t  merge_left[TOKENS_MAX], merge_right[TOKENS_MAX], merge_new[TOKENS_MAX];
static uint32_t n_merges;

static uint64_t seed = 5;

static uint32_t next_random(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

static int32_t token(const char *text)
{
    for (int32_t i = 0; i < n_tokens; i++)
        if (strcmp(text_of[i], text) == 0) return i;
    strcpy(text_of[n_tokens], text);
    return n_tokens++;
}

static void add_merge(struct cts_bpe *b, const char *left, const char *right)
{
    char joined[32];

    snprintf(joined, sizeof(joined), "%s%s", left, right);
    merge_left[n_merges] = token(left);
    merge_right[n_merges] = token(right);
    merge_new[n_merges] = token(joined);
    cts_bpe_add(b, merge_left[n_merges], merge_right[n_merges], merge_new[n_merges]);
    n_merges++;
}

static void start_vocab(struct cts_bpe *b)
{
    n_tokens = 0;
    n_merges = 0;
    CHECK(cts_bpe_init(b, TOKENS_MAX) == 0);
    b->byte_id['a'] = token("a");
    b->byte_id['b'] = token("b");
    b->byte_id['c'] = token("c");
    b->byte_id['d'] = token("d");
}

/* The definition: merge the pair of the lowest rank, of equal ones the leftmost, until none is left. */
static int64_t merge_by_the_book(const struct cts_bpe *b, const char *word, int32_t *ids)
{
    int64_t n = 0;

    for (const char *p = word; *p != '\0'; p++) ids[n++] = b->byte_id[(uint8_t)*p];
    for (;;) {
        uint32_t best = n_merges;
        int64_t  at = 0;
        for (int64_t i = 0; i + 1 < n; i++)
            for (uint32_t m = 0; m < best; m++)
                if (merge_left[m] == ids[i] && merge_right[m] == ids[i + 1]) {
                    best = m;
                    at = i;
                }
        if (best == n_merges) return n;
        ids[at] = merge_new[best];
        memmove(ids + at + 1, ids + at + 2, (size_t)(n - at - 2) * sizeof(*ids));
        n--;
    }
}

static void check_word(const struct cts_bpe *b, struct cts_bpe_scratch *s, const char *word)
{
    int32_t want[WORD_MAX], got[WORD_MAX];
    int64_t n = merge_by_the_book(b, word, want);

    CHECK_MSG(cts_bpe_word(b, s, (const uint8_t *)word, strlen(word), got, WORD_MAX) == n, "%s\n", word);
    CHECK_MSG(memcmp(want, got, (size_t)n * sizeof(*got)) == 0, "%s\n", word);
    if (n > 0) CHECK(cts_bpe_word(b, s, (const uint8_t *)word, strlen(word), got, (size_t)n - 1) == -EMSGSIZE);
}

static void bpe_equals_its_definition_on_random_merges(void **state)
{
    struct cts_bpe_scratch s;

    (void)state;
    CHECK(cts_bpe_scratch_init(&s, WORD_MAX) == 0);
    for (int round = 0; round < 100; round++) {
        struct cts_bpe b;
        char           word[WORD_MAX + 1];
        start_vocab(&b);
        for (int i = 0; i < 60; i++) {
            int32_t  l = (int32_t)next_random((uint32_t)n_tokens), r = (int32_t)next_random((uint32_t)n_tokens);
            uint32_t m = 0;
            while (m < n_merges && (merge_left[m] != l || merge_right[m] != r)) m++;
            if (m == n_merges && strlen(text_of[l]) + strlen(text_of[r]) < 9) add_merge(&b, text_of[l], text_of[r]);
        }
        for (int i = 0; i < 100; i++) {
            size_t n = next_random(WORD_MAX);
            for (size_t k = 0; k < n; k++) word[k] = (char)('a' + next_random(round % 3 + 2));
            word[n] = '\0';
            check_word(&b, &s, word);
        }
        cts_bpe_deinit(&b);
    }
    cts_bpe_scratch_deinit(&s);
}

/* "a bc" has a merge, but of a later rank than the "a b" that was queued: the
 * queued one is stale, and "d a" comes first. */
static void bpe_drops_a_queued_merge_whose_symbols_have_changed(void **state)
{
    struct cts_bpe         b;
    struct cts_bpe_scratch s;
    int32_t                ids[4];

    (void)state;
    start_vocab(&b);
    add_merge(&b, "b", "c");
    add_merge(&b, "a", "b");
    add_merge(&b, "d", "a");
    add_merge(&b, "a", "bc");
    CHECK(cts_bpe_scratch_init(&s, 4) == 0);
    CHECK(cts_bpe_word(&b, &s, (const uint8_t *)"dabc", 4, ids, 4) == 2);
    CHECK(ids[0] == token("da") && ids[1] == token("bc"));
    cts_bpe_scratch_deinit(&s);
    cts_bpe_deinit(&b);
}

static void bpe_takes_the_later_of_two_merges_of_one_pair(void **state)
{
    struct cts_bpe         b;
    struct cts_bpe_scratch s;
    int32_t                ids[4];

    (void)state;
    start_vocab(&b);
    add_merge(&b, "a", "b");
    add_merge(&b, "b", "c");
    add_merge(&b, "a", "b");
    CHECK(cts_bpe_scratch_init(&s, 3) == 0);
    CHECK(cts_bpe_word(&b, &s, (const uint8_t *)"abc", 3, ids, 4) == 2 && ids[0] == token("a"));
    cts_bpe_scratch_deinit(&s);
    CHECK(cts_bpe_scratch_init(&s, CTS_BPE_WORD_BYTES_MAX + 1) == -EINVAL);
    cts_bpe_scratch_deinit(&s);
    cts_bpe_deinit(&b);
    cts_bpe_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bpe_equals_its_definition_on_random_merges),
        cmocka_unit_test(bpe_drops_a_queued_merge_whose_symbols_have_changed),
        cmocka_unit_test(bpe_takes_the_later_of_two_merges_of_one_pair),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
