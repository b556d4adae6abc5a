#ifndef CTS_TESTS_GOLDEN_ROWS_H
#define CTS_TESTS_GOLDEN_ROWS_H

/* golden.jsonl: greedy answers that transformers and peft computed in float32
 * (contrib/demo/make/golden.py), one row per prompt. */

#include <stdint.h>

#define GOLDEN_TOP 5

struct golden_row {
    char     collection[32], adapter[64]; /* empty: the base */
    char    *user, *text;
    uint32_t n_prompt, n_tokens;
    int32_t *prompt, *tokens;
    float   *logprobs; /* [n_tokens] */
    struct {
        int32_t id;
        float   logprob;
    } (*top)[GOLDEN_TOP]; /* [n_tokens], descending */
};

struct golden {
    uint32_t           n;
    struct golden_row *rows;
};

/* Reads tests/golden/golden.jsonl; a failure fails the running test. */
void golden_load(struct golden *g);
void golden_free(struct golden *g);

/* One token of an answer as a row has it: the token, its log-probability within
 * 1e-3, and the same five largest but where the row itself has gaps under 1e-3.
 * NULL, or what differs (static storage). n_top may be 0: not compared. */
const char *golden_compare(const struct golden_row *r, uint32_t i, int32_t token, float logprob,
                           const int32_t *top_ids, const float *top_logprobs, uint32_t n_top);

#endif
