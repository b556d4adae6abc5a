#include "tests/golden_rows.h"

#include "common/json.h"
#include "tests/check.h"

#include <math.h>
#include <string.h>

#define TOLERANCE 1e-3f /* of log-probabilities */

static int32_t *ids_of(const json_t *row, const char *key, uint32_t *n)
{
    const json_t *a = json_object_get(row, key);
    int32_t      *ids;

    *n = (uint32_t)json_array_size(a);
    ids = calloc(*n + 1u, sizeof(*ids));
    CHECK(ids != NULL);
    for (uint32_t i = 0; i < *n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(a, i));
    return ids;
}

static void take_name(char *dst, size_t cap, const json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));

    if (s == NULL) return;
    CHECK(strlen(s) < cap);
    strcpy(dst, s);
}

static void parse_row(struct golden_row *r, const json_t *row)
{
    const json_t *lp = json_object_get(row, "logprobs"), *top = json_object_get(row, "top5");

    take_name(r->collection, sizeof(r->collection), row, "collection");
    take_name(r->adapter, sizeof(r->adapter), row, "adapter");
    r->user = strdup(json_string_value(json_object_get(row, "user")));
    r->text = strdup(json_string_value(json_object_get(row, "text")));
    r->prompt = ids_of(row, "prompt_ids", &r->n_prompt);
    r->tokens = ids_of(row, "tokens", &r->n_tokens);
    r->logprobs = calloc(r->n_tokens, sizeof(*r->logprobs));
    r->top = calloc(r->n_tokens, sizeof(*r->top));
    CHECK(r->n_prompt > 0 && r->n_tokens > 0 && json_array_size(lp) == r->n_tokens);
    for (uint32_t i = 0; i < r->n_tokens; i++) {
        const json_t *five = json_array_get(top, i);

        r->logprobs[i] = (float)json_number_value(json_array_get(lp, i));
        CHECK(json_array_size(five) == GOLDEN_TOP);
        for (uint32_t k = 0; k < GOLDEN_TOP; k++) {
            r->top[i][k].id = (int32_t)json_integer_value(json_array_get(json_array_get(five, k), 0));
            r->top[i][k].logprob = (float)json_number_value(json_array_get(json_array_get(five, k), 1));
        }
    }
}

void golden_load(struct golden *g)
{
    char   path[512], *line = NULL;
    size_t cap = 0;
    FILE  *f = fopen(src_path(path, sizeof(path), "tests/golden/golden.jsonl"), "r");

    CHECK_MSG(f != NULL, "%s is missing\n", path);
    *g = (struct golden){ 0 };
    g->rows = calloc(2048, sizeof(*g->rows));
    CHECK(getline(&line, &cap, f) > 0); /* the versions that made them */
    while (getline(&line, &cap, f) > 0) {
        json_t *row = NULL;

        CHECK(g->n < 2048);
        CHECK(cts_json_parse(line, strlen(line), "golden.jsonl", &row, NULL) == 0);
        parse_row(&g->rows[g->n++], row);
        json_decref(row);
    }
    free(line);
    fclose(f);
    CHECK(g->n > 1000);
}

void golden_free(struct golden *g)
{
    for (uint32_t i = 0; i < g->n; i++) {
        struct golden_row *r = &g->rows[i];

        free(r->user);
        free(r->text);
        free(r->prompt);
        free(r->tokens);
        free(r->logprobs);
        free(r->top);
    }
    free(g->rows);
    *g = (struct golden){ 0 };
}

/* Whether the five of the row hold id, or its log-probability is so near the
 * fifth's that float32 may have ranked the two the other way round. */
static int is_among(const struct golden_row *r, uint32_t i, int32_t id, float logprob)
{
    for (uint32_t k = 0; k < GOLDEN_TOP; k++)
        if (r->top[i][k].id == id) return fabsf(r->top[i][k].logprob - logprob) < TOLERANCE;
    return fabsf(r->top[i][GOLDEN_TOP - 1].logprob - logprob) < TOLERANCE;
}

const char *golden_compare(const struct golden_row *r, uint32_t i, int32_t token, float logprob,
                           const int32_t *top_ids, const float *top_logprobs, uint32_t n_top)
{
    static char what[256];

    if (i >= r->n_tokens || token != r->tokens[i]) {
        snprintf(what, sizeof(what), "token %u is %d, wanted %d of %u", i, token, i < r->n_tokens ? r->tokens[i] : -1,
                 r->n_tokens);
        return what;
    }
    if (!(fabsf(logprob - r->logprobs[i]) < TOLERANCE)) {
        snprintf(what, sizeof(what), "token %u has %f, wanted %f", i, (double)logprob, (double)r->logprobs[i]);
        return what;
    }
    for (uint32_t k = 0; k < n_top && k < GOLDEN_TOP; k++)
        if (!is_among(r, i, top_ids[k], top_logprobs[k])) {
            snprintf(what, sizeof(what), "token %u: rank %u is %d with %f", i, k, top_ids[k],
                     (double)top_logprobs[k]);
            return what;
        }
    return NULL;
}
