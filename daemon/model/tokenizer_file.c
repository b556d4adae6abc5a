/* tokenizer.json to tables. Every key that could change a token is known here
 * or refused: a tokenizer that is nearly right is wrong without a sign of it. */
#include "daemon/model/tokenizer_impl.h"

#include "common/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define N_MERGES_MAX     ((size_t)1 << 22)
#define N_ADDED_MAX      ((size_t)1 << 16)
#define CTS_SPELLING_MAX 4096

/* ---- which keys there are ---- */

/* Refuse keys of obj that are neither in the list nor null. */
static int check_keys(json_t *obj, const char *const *known, const char *where, const char *name,
                      struct cts_err *err)
{
    const char *key;
    json_t     *v;

    json_object_foreach(obj, key, v)
    {
        const char *const *k = known;
        while (*k != NULL && strcmp(*k, key) != 0) k++;
        if (*k == NULL && !json_is_null(v))
            return cts_err_set(err, CTS_EUNSUP, "'%s': %s has the key '%.64s', which is not known here", name,
                               where, key);
    }
    return 0;
}

static int is_unset(const json_t *v)
{
    return v == NULL || json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0);
}

/* obj[key] must be absent, null, false, 0 or "". */
static int check_unset(const json_t *obj, const char *key, const char *where, const char *name, struct cts_err *err)
{
    if (is_unset(json_object_get(obj, key))) return 0;
    return cts_err_set(err, CTS_EUNSUP, "'%s': '%s' of %s is set, which is not supported", name, key, where);
}

static const char *type_of(const json_t *obj)
{
    const char *type = json_string_value(json_object_get(obj, "type"));

    return type != NULL ? type : "(none)";
}

/* ---- the stages around the model ---- */

static int read_byte_level(struct cts_pretok *p, json_t *obj, const char *name, struct cts_err *err)
{
    static const char *const KEYS[] = { "type", "add_prefix_space", "trim_offsets", "use_regex", NULL };
    int                      adds_space = 1, rc = check_keys(obj, KEYS, "the pre-tokenizer ByteLevel", name, err);

    if (rc < 0) return rc;
    p->use_regex = 1;
    rc = cts_json_bool(obj, "use_regex", &p->use_regex, err);
    if (rc >= 0) rc = cts_json_bool(obj, "add_prefix_space", &adds_space, err);
    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", name);
    if (!adds_space) return 0;
    return cts_err_set(err, CTS_EUNSUP,
                       "'%s': 'add_prefix_space' of the pre-tokenizer ByteLevel is true, which is not "
                       "supported",
                       name);
}

static int read_digits(struct cts_pretok *p, json_t *obj, const char *name, struct cts_err *err)
{
    static const char *const KEYS[] = { "type", "individual_digits", NULL };
    int                      is_each = 0, rc = check_keys(obj, KEYS, "the pre-tokenizer Digits", name, err);

    if (rc < 0) return rc;
    rc = cts_json_bool(obj, "individual_digits", &is_each, err);
    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", name);
    p->digits = is_each ? CTS_DIGITS_EACH : CTS_DIGITS_RUNS;
    return 0;
}

/* One pre-tokenizer; is_last says whether it is the last of its sequence. The
 * other order, ByteLevel and then Digits, would look for digits among the
 * characters that bytes are mapped to. */
static int read_pre_tokenizer(struct cts_pretok *p, json_t *obj, int is_last, const char *name, struct cts_err *err)
{
    if (is_last && strcmp(type_of(obj), "ByteLevel") == 0) return read_byte_level(p, obj, name, err);
    if (!is_last && strcmp(type_of(obj), "Digits") == 0 && p->digits == CTS_DIGITS_KEPT)
        return read_digits(p, obj, name, err);
    return cts_err_set(err, CTS_EUNSUP,
                       "'%s': the pre-tokenizer '%.64s' %s is not supported: ByteLevel is, alone or after "
                       "Digits",
                       name, type_of(obj), is_last ? "as the last" : "before another");
}

static int read_pre_tokenizers(struct cts_pretok *p, json_t *obj, const char *name, struct cts_err *err)
{
    static const char *const KEYS[] = { "type", "pretokenizers", NULL };
    json_t                  *list;
    int                      rc;

    if (strcmp(type_of(obj), "Sequence") != 0) return read_pre_tokenizer(p, obj, 1, name, err);
    list = json_object_get(obj, "pretokenizers");
    if (json_array_size(list) == 0)
        return cts_err_set(err, CTS_EFORMAT, "'%s': the pre-tokenizer Sequence has no list 'pretokenizers'", name);
    rc = check_keys(obj, KEYS, "the pre-tokenizer Sequence", name, err);
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++)
        rc = read_pre_tokenizer(p, json_array_get(list, i), i + 1 == json_array_size(list), name, err);
    return rc;
}

/* A stage that must be of the type ByteLevel, or, where may_be_null, absent. Its
 * keys say nothing about ids: the decoder ignores them, the post-processor trims offsets. */
static int check_byte_level(const json_t *doc, const char *key, int may_be_null, const char *name,
                            struct cts_err *err)
{
    const json_t *v = json_object_get(doc, key);

    if (v == NULL || json_is_null(v)) {
        if (may_be_null) return 0;
        return cts_err_set(err, CTS_EUNSUP, "'%s': '%s' is null, ByteLevel is wanted", name, key);
    }
    if (strcmp(type_of(v), "ByteLevel") == 0) return 0;
    return cts_err_set(err, CTS_EUNSUP, "'%s': '%s' is '%.64s', only ByteLevel is supported", name, key,
                       type_of(v));
}

static int read_stages(struct cts_tokenizer *t, json_t *doc, const char *name, struct cts_err *err)
{
    static const char *const KEYS[] = { "version",       "truncation",     "padding", "added_tokens", "normalizer",
                                        "pre_tokenizer", "post_processor", "decoder", "model",        NULL };
    static const char *const UNSET[] = { "truncation", "padding", "normalizer" };
    const char              *version = "";
    int                      rc = check_keys(doc, KEYS, "the file", name, err);

    if (rc < 0) return rc;
    rc = cts_json_str(doc, "version", &version, err);
    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", name);
    if (strcmp(version, "1.0") != 0)
        return cts_err_set(err, CTS_EUNSUP, "'%s': 'version' is '%.32s', only '1.0' is read", name, version);
    for (size_t i = 0; i < sizeof(UNSET) / sizeof(UNSET[0]) && rc >= 0; i++)
        rc = check_unset(doc, UNSET[i], "the file", name, err);
    if (rc == 0) rc = check_byte_level(doc, "post_processor", 1, name, err);
    if (rc == 0) rc = check_byte_level(doc, "decoder", 0, name, err);
    if (rc == 0) rc = read_pre_tokenizers(&t->pretok, json_object_get(doc, "pre_tokenizer"), name, err);
    return rc;
}

/* ---- the vocabulary ---- */

static int bad_id(const json_t *v)
{
    return !json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= CTS_VOCAB_MAX;
}

/* Count a token's spelling and id. */
static int survey_token(struct cts_tokenizer *t, const char *spelling, const json_t *id, size_t *pool_bytes,
                        const char *name, struct cts_err *err)
{
    size_t n = strlen(spelling);

    if (n == 0 || n > CTS_SPELLING_MAX)
        return cts_err_set(err, CTS_EFORMAT, "'%s': a token has %zu bytes, wanted are 1 to %d", name, n,
                           CTS_SPELLING_MAX);
    if (bad_id(id))
        return cts_err_set(err, CTS_EFORMAT, "'%s': the id of the token '%.64s' is not from 0 to %d", name,
                           spelling, CTS_VOCAB_MAX - 1);
    if ((uint32_t)json_integer_value(id) >= t->n_vocab) t->n_vocab = (uint32_t)json_integer_value(id) + 1;
    *pool_bytes += n;
    return 0;
}

/* Memory for both kinds of tokens, and the highest id. */
static int reserve_tokens(struct cts_tokenizer *t, json_t *vocab, json_t *added, const char *name,
                          struct cts_err *err)
{
    size_t      pool_bytes = 1, n_added = json_array_size(added), n_slots = 16;
    const char *key;
    json_t     *v;
    size_t      i;
    int         rc = 0;

    if (n_added > N_ADDED_MAX)
        return cts_err_set(err, CTS_EUNSUP, "'%s': %zu added tokens, at most %zu", name, n_added, N_ADDED_MAX);
    json_object_foreach(vocab, key, v)
    {
        rc = survey_token(t, key, v, &pool_bytes, name, err);
        if (rc < 0) return rc;
    }
    json_array_foreach(added, i, v)
    {
        const char *content = json_string_value(json_object_get(v, "content"));
        if (content == NULL)
            return cts_err_set(err, CTS_EFORMAT, "'%s': added token %zu has no 'content'", name, i);
        /* Twice: the bytes that it stands for, and its spelling. */
        rc = survey_token(t, content, json_object_get(v, "id"), &pool_bytes, name, err);
        if (rc < 0) return rc;
        pool_bytes += strlen(content);
    }
    while (n_slots < 2 * json_object_size(vocab)) n_slots *= 2;
    t->tokens = calloc((size_t)t->n_vocab + 1, sizeof(*t->tokens));
    t->added = calloc(n_added + 1, sizeof(*t->added));
    t->by_bytes = malloc(n_slots * sizeof(*t->by_bytes));
    t->pool = malloc(pool_bytes);
    if (t->tokens == NULL || t->added == NULL || t->by_bytes == NULL || t->pool == NULL)
        return cts_err_set(err, -ENOMEM, "'%s': %u tokens", name, t->n_vocab);
    t->by_bytes_mask = (uint32_t)(n_slots - 1);
    for (i = 0; i < n_slots; i++) t->by_bytes[i] = -1;
    return 0;
}

/* Set the token's bytes from its spelling. */
static struct cts_token *put_token(struct cts_tokenizer *t, int32_t id, const char *spelling)
{
    struct cts_token *tok = &t->tokens[id];
    size_t            n = strlen(spelling);
    uint8_t          *to = t->pool + t->pool_bytes;
    int64_t           n_bytes = cts_tokenizer_unmap((const uint8_t *)spelling, n, to);

    tok->off = (uint32_t)t->pool_bytes;
    tok->is_known = 1;
    if (n_bytes < 0) {
        memcpy(to, spelling, n);
        n_bytes = (int64_t)n;
        tok->is_raw = 1;
    }
    tok->len = (uint32_t)n_bytes;
    t->pool_bytes += n;
    return tok;
}

static int read_vocab(struct cts_tokenizer *t, json_t *vocab, const char *name, struct cts_err *err)
{
    const char *key;
    json_t     *v;

    json_object_foreach(vocab, key, v)
    {
        int32_t id = (int32_t)json_integer_value(v);
        if (t->tokens[id].is_known)
            return cts_err_set(err, CTS_EFORMAT, "'%s': two tokens have the id %d, one is '%.64s'", name, id, key);
        put_token(t, id, key)->is_in_vocab = 1;
    }
    return 0;
}

/* ---- added tokens ---- */

static int by_spelling(const void *a, const void *b, void *arg)
{
    const struct cts_added *x = a, *y = b;
    const uint8_t          *pool = arg;
    size_t                  n = x->len < y->len ? x->len : y->len;
    int                     c = memcmp(pool + x->off, pool + y->off, n);

    return c != 0 ? c : (x->len > y->len) - (x->len < y->len);
}

static int read_added_token(struct cts_tokenizer *t, json_t *obj, const json_t *vocab, const char *name,
                            struct cts_err *err)
{
    static const char *const KEYS[] = { "id",     "content",    "single_word", "lstrip",
                                        "rstrip", "normalized", "special",     NULL };
    static const char *const UNSET[] = { "single_word", "lstrip", "rstrip", "normalized" };
    const char              *content = json_string_value(json_object_get(obj, "content"));
    const json_t            *in_vocab = json_object_get(vocab, content);
    int32_t                  id = (int32_t)json_integer_value(json_object_get(obj, "id"));
    size_t                   n = strlen(content);
    int                      is_special = 0, rc = check_keys(obj, KEYS, "an added token", name, err);

    for (size_t i = 0; i < sizeof(UNSET) / sizeof(UNSET[0]) && rc == 0; i++)
        if (!is_unset(json_object_get(obj, UNSET[i])))
            rc =
                cts_err_set(err, CTS_EUNSUP, "'%s': '%s' of the added token '%.64s' is set, which is not supported",
                            name, UNSET[i], content);
    if (rc < 0) return rc;
    rc = cts_json_bool(obj, "special", &is_special, err);
    if (rc < 0) return cts_err_prefix(err, rc, "'%s': added token '%.64s'", name, content);
    if (in_vocab != NULL ? json_integer_value(in_vocab) != id : t->tokens[id].is_known)
        return cts_err_set(err, CTS_EFORMAT,
                           "'%s': the added token '%.64s' has the id %d, the vocabulary says otherwise", name,
                           content, id);
    put_token(t, id, content)->is_special = is_special != 0;
    t->added[t->n_added++] = (struct cts_added){ (uint32_t)t->pool_bytes, (uint32_t)n, id };
    memcpy(t->pool + t->pool_bytes, content, n);
    t->pool_bytes += n;
    t->begins_added[(uint8_t)content[0]] = 1;
    return 0;
}

static int read_added(struct cts_tokenizer *t, json_t *added, const json_t *vocab, const char *name,
                      struct cts_err *err)
{
    json_t *v;
    size_t  i;

    json_array_foreach(added, i, v)
    {
        int rc = read_added_token(t, v, vocab, name, err);
        if (rc < 0) return rc;
    }
    qsort_r(t->added, t->n_added, sizeof(*t->added), by_spelling, t->pool);
    for (i = 1; i < t->n_added; i++)
        if (by_spelling(&t->added[i - 1], &t->added[i], t->pool) == 0)
            return cts_err_set(err, CTS_EFORMAT, "'%s': the added token '%.*s' is there twice", name,
                               (int)t->added[i].len, t->pool + t->added[i].off);
    return 0;
}

/* ---- the model ---- */

/* The vocabulary by bytes. Control tokens are left out, so that no text can
 * become one; so are those whose spelling stands for no bytes. */
static void index_tokens(struct cts_tokenizer *t)
{
    for (uint32_t i = 0; i < t->n_vocab; i++) {
        const struct cts_token *tok = &t->tokens[i];
        if (tok->is_in_vocab && !tok->is_special && !tok->is_raw)
            *cts_tokenizer_slot(t, t->pool + tok->off, tok->len) = (int32_t)i;
    }
}

/* Every byte that UTF-8 has needs a token, or texts would silently lose it. */
static int read_bytes(struct cts_tokenizer *t, const char *name, struct cts_err *err)
{
    for (int b = 0; b < 256; b++) {
        uint8_t byte = (uint8_t)b;
        t->bpe.byte_id[b] = *cts_tokenizer_slot(t, &byte, 1);
        if (t->bpe.byte_id[b] < 0 && b != 0xc0 && b != 0xc1 && b < 0xf5)
            return cts_err_set(err, CTS_EUNSUP, "'%s': the byte 0x%02x has no token: not a byte-level vocabulary?",
                               name, b);
    }
    return 0;
}

/* The two spellings of a merge: "a b" and ["a", "b"]; *buf holds the first's halves. */
static int split_merge(const json_t *v, char *buf, const char **left, const char **right)
{
    const char *s = json_string_value(v);
    char       *space;

    if (s == NULL) {
        *left = json_string_value(json_array_get(v, 0));
        *right = json_string_value(json_array_get(v, 1));
        return json_array_size(v) == 2 && *left != NULL && *right != NULL &&
               strlen(*left) + strlen(*right) <= CTS_SPELLING_MAX;
    }
    if (json_string_length(v) > CTS_SPELLING_MAX) return 0;
    strcpy(buf, s);
    space = strchr(buf, ' ');
    if (space == NULL || strchr(space + 1, ' ') != NULL) return 0;
    *space = '\0';
    *left = buf;
    *right = space + 1;
    return 1;
}

/* Id of a spelling in the vocabulary, -1 where there is none. */
static int32_t vocab_id(const json_t *vocab, const char *spelling)
{
    const json_t *v = json_object_get(vocab, spelling);

    return v != NULL ? (int32_t)json_integer_value(v) : -1;
}

static int read_merge(struct cts_tokenizer *t, const json_t *v, size_t i, const json_t *vocab, const char *name,
                      struct cts_err *err)
{
    char        buf[CTS_SPELLING_MAX + 1], joined[CTS_SPELLING_MAX + 1];
    const char *left = "", *right = "";
    int32_t     l, r, id;

    if (!split_merge(v, buf, &left, &right))
        return cts_err_set(err, CTS_EFORMAT, "'%s': merge %zu is neither \"a b\" nor [\"a\", \"b\"]", name, i);
    l = vocab_id(vocab, left);
    r = vocab_id(vocab, right);
    strcpy(stpcpy(joined, left), right);
    id = vocab_id(vocab, joined);
    if (l < 0 || r < 0 || id < 0)
        return cts_err_set(err, CTS_EFORMAT, "'%s': merge %zu: '%.64s' is not in the vocabulary", name, i,
                           l < 0   ? left
                           : r < 0 ? right
                                   : joined);
    if (t->tokens[id].is_special)
        return cts_err_set(err, CTS_EUNSUP, "'%s': merge %zu makes the control token '%.64s' from text", name, i,
                           joined);
    cts_bpe_add(&t->bpe, l, r, id);
    return 0;
}

static int read_merges(struct cts_tokenizer *t, const json_t *merges, const json_t *vocab, const char *name,
                       struct cts_err *err)
{
    const json_t *v;
    size_t        i;

    if (!json_is_array(merges))
        return cts_err_set(err, CTS_EFORMAT, "'%s': 'merges' is missing or not an array", name);
    if (json_array_size(merges) > N_MERGES_MAX)
        return cts_err_set(err, CTS_EUNSUP, "'%s': %zu merges, at most %zu are read", name, json_array_size(merges),
                           N_MERGES_MAX);
    if (cts_bpe_init(&t->bpe, (uint32_t)json_array_size(merges)) < 0)
        return cts_err_set(err, -ENOMEM, "'%s': merges", name);
    json_array_foreach(merges, i, v)
    {
        int rc = read_merge(t, v, i, vocab, name, err);
        if (rc < 0) return rc;
    }
    return 0;
}

/* Flags that only say what happens to bytes without a token are harmless: there are none. */
static int check_model(struct cts_tokenizer *t, json_t *model, const char *name, struct cts_err *err)
{
    static const char *const KEYS[] = { "type",
                                        "vocab",
                                        "merges",
                                        "dropout",
                                        "unk_token",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "ignore_merges",
                                        NULL };
    static const char *const UNSET[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix" };
    int                      rc;

    if (!json_is_object(model) || strcmp(type_of(model), "BPE") != 0)
        return cts_err_set(err, CTS_EUNSUP, "'%s': the model is '%.64s', only BPE is supported", name,
                           type_of(model));
    rc = check_keys(model, KEYS, "the model", name, err);
    for (size_t i = 0; i < sizeof(UNSET) / sizeof(UNSET[0]) && rc == 0; i++)
        rc = check_unset(model, UNSET[i], "the model", name, err);
    if (rc < 0) return rc;
    rc = cts_json_bool(model, "ignore_merges", &t->ignore_merges, err);
    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", name);
    if (!json_is_object(json_object_get(model, "vocab")))
        return cts_err_set(err, CTS_EFORMAT, "'%s': 'vocab' is missing or not an object", name);
    return 0;
}

int cts_tokenizer_read(struct cts_tokenizer *t, json_t *doc, const char *name, struct cts_err *err)
{
    json_t *model = json_object_get(doc, "model"), *added = json_object_get(doc, "added_tokens"), *vocab;
    int     rc = read_stages(t, doc, name, err);

    if (rc == 0) rc = check_model(t, model, name, err);
    if (rc < 0) return rc;
    if (added != NULL && !json_is_null(added) && !json_is_array(added))
        return cts_err_set(err, CTS_EFORMAT, "'%s': 'added_tokens' is not an array", name);
    vocab = json_object_get(model, "vocab");
    rc = reserve_tokens(t, vocab, added, name, err);
    if (rc == 0) rc = read_vocab(t, vocab, name, err);
    if (rc == 0) rc = read_added(t, added, vocab, name, err);
    if (rc == 0) rc = read_merges(t, json_object_get(model, "merges"), vocab, name, err);
    if (rc < 0) return rc;
    index_tokens(t);
    return read_bytes(t, name, err);
}
