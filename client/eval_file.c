#include "client/eval_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES_MAX (64u << 20)

/* Room for one more entry of size bytes behind n; 0 or -ENOMEM. */
static int grow(void *list, uint32_t n, uint32_t *cap, size_t size)
{
    void   **at = list, *bigger;
    uint32_t n_new = *cap == 0 ? 64 : 2 * *cap;

    if (n < *cap) return 0;
    bigger = n_new > n ? realloc(*at, (size_t)n_new * size) : NULL;
    if (bigger == NULL) return -ENOMEM;
    *at = bigger;
    *cap = n_new;
    return 0;
}

/* The place of name among the adapters, or n_adapters. */
static uint32_t find_adapter(const struct cts_questions *q, const char *name)
{
    uint32_t i = 0;

    while (i < q->n_adapters && strcmp(q->adapters[i], name) != 0) i++;
    return i;
}

static int add_adapter(struct cts_questions *q, const char *name)
{
    if (grow(&q->adapters, q->n_adapters, &q->adapters_cap, sizeof(*q->adapters)) != 0) return -ENOMEM;
    q->adapters[q->n_adapters] = strdup(name);
    if (q->adapters[q->n_adapters] == NULL) return -ENOMEM;
    q->n_adapters++;
    return 0;
}

static int add_wanted(struct cts_questions *q, const char *list, struct cts_err *err)
{
    char *copy = strdup(list), *at = copy, *name;
    int   rc = copy != NULL ? 0 : -ENOMEM;

    while (rc == 0 && (name = strsep(&at, ",")) != NULL)
        if (name[0] != '\0' && find_adapter(q, name) == q->n_adapters) rc = add_adapter(q, name);
    free(copy);
    if (rc == 0 && q->n_adapters == 0) return cts_err_set(err, CTS_EARG, "the list of adapters is empty");
    return rc == 0 ? 0 : cts_err_set(err, rc, "list the adapters");
}

/* One question, unless its adapter is not wanted or has enough. n_of [n_adapters]
 * follows from the list itself: the last round of this adapter. */
static int add_question(struct cts_questions *q, const struct cts_questions_opts *o, const char *name,
                        const char *input, const char *output)
{
    uint32_t idx = find_adapter(q, name), n_before = 0;

    if (idx == q->n_adapters) {
        if (o->adapters != NULL) return 0;
        if (add_adapter(q, name) != 0) return -ENOMEM;
    }
    for (uint32_t i = q->n; i > 0 && n_before == 0; i--)
        if (q->list[i - 1].adapter_idx == idx) n_before = q->list[i - 1].round + 1;
    if (o->n_per_adapter_max != 0 && n_before >= o->n_per_adapter_max) return 0;
    if (grow(&q->list, q->n, &q->cap, sizeof(*q->list)) != 0) return -ENOMEM;
    q->list[q->n++] = (struct cts_question){ idx, n_before, input, output };
    return 0;
}

static const char *string_of(const json_t *doc, const char *key)
{
    return json_string_value(json_object_get(doc, key));
}

static int add_held_out(struct cts_questions *q, const struct cts_questions_opts *o, const json_t *doc,
                        const char *where, struct cts_err *err)
{
    const char   *name = string_of(doc, "adapter");
    const json_t *list = json_object_get(doc, "held_out");

    if (name == NULL || !json_is_array(list))
        return cts_err_set(err, CTS_EFORMAT, "%s: \"adapter\" is no string or \"held_out\" no array", where);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *row = json_array_get(list, i);
        const char   *input = string_of(row, "input"), *output = string_of(row, "output");

        if (input == NULL || output == NULL)
            return cts_err_set(err, CTS_EFORMAT, "%s: held_out[%zu] lacks the string \"input\" or \"output\"",
                               where, i);
        if (add_question(q, o, name, input, output) != 0) return cts_err_set(err, -ENOMEM, "%s", where);
    }
    return 0;
}

static int add_shared(struct cts_questions *q, const struct cts_questions_opts *o, json_t *doc, const char *where,
                      struct cts_err *err)
{
    const char *input = string_of(doc, "input"), *name;
    json_t     *outputs = json_object_get(doc, "outputs"), *output;

    if (input == NULL || !json_is_object(outputs))
        return cts_err_set(err, CTS_EFORMAT,
                           "%s: neither \"adapter\" with \"held_out\" nor \"input\" with \"outputs\"", where);
    json_object_foreach(outputs, name, output) {
        if (!json_is_string(output))
            return cts_err_set(err, CTS_EFORMAT, "%s: output of '%s' is no string", where, name);
        if (add_question(q, o, name, input, json_string_value(output)) != 0)
            return cts_err_set(err, -ENOMEM, "%s", where);
    }
    return 0;
}

static int read_line(struct cts_questions *q, const struct cts_questions_opts *o, const char *text, size_t n,
                     const char *where, uint32_t *n_prompts, struct cts_err *err)
{
    json_t *doc;
    int     rc;

    if (strspn(text, " \t\r\n") == n) return 0;
    if (grow(&q->docs, q->n_docs, &q->docs_cap, sizeof(*q->docs)) != 0) return cts_err_set(err, -ENOMEM, "%s", where);
    rc = cts_json_parse(text, n, where, &doc, err);
    if (rc != 0) return rc;
    q->docs[q->n_docs++] = doc;
    if (json_object_get(doc, "adapter") != NULL) return add_held_out(q, o, doc, where, err);
    if (o->n_prompts_max != 0 && *n_prompts >= o->n_prompts_max) return 0;
    (*n_prompts)++;
    return add_shared(q, o, doc, where, err);
}

static int read_file(struct cts_questions *q, const char *path, const struct cts_questions_opts *o,
                     struct cts_err *err)
{
    FILE    *f = fopen(path, "re");
    char    *line = NULL, where[256];
    size_t   cap = 0;
    ssize_t  n;
    uint32_t line_number = 0, n_prompts = 0;
    int      rc = 0;

    if (f == NULL) return cts_err_set(err, -errno, "open '%s'", path);
    while (rc == 0 && (n = getline(&line, &cap, f)) >= 0) {
        snprintf(where, sizeof(where), "%s:%u", path, ++line_number);
        rc = n <= LINE_BYTES_MAX ? read_line(q, o, line, (size_t)n, where, &n_prompts, err)
                                 : cts_err_set(err, -EFBIG, "%s", where);
    }
    if (rc == 0 && ferror(f)) rc = cts_err_set(err, -EIO, "read '%s'", path);
    free(line);
    fclose(f);
    return rc;
}

static int by_round(const void *a, const void *b)
{
    const struct cts_question *x = a, *y = b;

    if (x->round != y->round) return x->round < y->round ? -1 : 1;
    return (x->adapter_idx > y->adapter_idx) - (x->adapter_idx < y->adapter_idx);
}

/* Round 0 comes first for every adapter that has questions at all. */
static int check_all_asked(const struct cts_questions *q, const char *path, struct cts_err *err)
{
    if (q->n == 0) return cts_err_set(err, CTS_EFORMAT, "'%s' has no question", path);
    for (uint32_t i = 0; i < q->n_adapters; i++)
        if (i >= q->n || q->list[i].round != 0 || q->list[i].adapter_idx != i)
            return cts_err_set(err, CTS_ENOTFOUND, "'%s' has no question for adapter '%s'", path, q->adapters[i]);
    return 0;
}

int cts_questions_open(struct cts_questions *q, const char *path, const struct cts_questions_opts *opts,
                       struct cts_err *err)
{
    int rc = 0;

    *q = (struct cts_questions){ .n = 0 };
    if (opts->adapters != NULL) rc = add_wanted(q, opts->adapters, err);
    if (rc == 0) rc = read_file(q, path, opts, err);
    if (rc == 0) {
        if (q->n > 0) qsort(q->list, q->n, sizeof(*q->list), by_round);
        rc = check_all_asked(q, path, err);
    }
    if (rc != 0) cts_questions_close(q);
    return rc;
}

void cts_questions_close(struct cts_questions *q)
{
    for (uint32_t i = 0; i < q->n_adapters; i++) free(q->adapters[i]);
    for (uint32_t i = 0; i < q->n_docs; i++) json_decref(q->docs[i]);
    free(q->adapters);
    free(q->docs);
    free(q->list);
    *q = (struct cts_questions){ .n = 0 };
}
