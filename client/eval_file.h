#ifndef CTS_CLIENT_EVAL_FILE_H
#define CTS_CLIENT_EVAL_FILE_H

/* The questions of ctsctl eval: a file of JSON lines, each of one of two forms,
 *
 *   {"adapter": NAME, "held_out": [{"input": TEXT, "output": TEXT}, ...]}
 *   {"input": TEXT, "outputs": {NAME: TEXT, ...}}
 *
 * other keys are passed over. */

#include "common/err.h"
#include "common/json.h"

#include <stdint.h>

struct cts_question {
    uint32_t    adapter_idx, round; /* round: how many of this adapter came before */
    const char *input, *output;     /* borrowed from the documents */
};

struct cts_questions {
    struct cts_question *list; /* [n], by round, then by adapter: neighbours name different adapters */
    char               **adapters; /* [n_adapters], names */
    json_t             **docs; /* [n_docs], one per line */
    uint32_t             n, n_adapters, n_docs;
    uint32_t             cap, adapters_cap, docs_cap;
};

struct cts_questions_opts {
    const char *adapters; /* names separated by commas, in the order of the report; NULL: all, in the file's */
    uint32_t    n_per_adapter_max, n_prompts_max; /* 0: no limit */
};

/* Read and order them. Errors name file, line and key; -errno, CTS_EFORMAT,
 * CTS_ENOTFOUND (a name of opts->adapters that the file does not have), -ENOMEM.
 * q is closed on failure. */
int  cts_questions_open(struct cts_questions *q, const char *path, const struct cts_questions_opts *opts,
                        struct cts_err *err);
void cts_questions_close(struct cts_questions *q);

#endif
