#include "daemon/model/tokenizer.h"

#include "common/assert.h"
#include "common/utf8.h"
#include "daemon/model/tokenizer_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)64 << 20)

struct cts_encoder {
    const struct cts_tokenizer *t;
    size_t                      text_bytes_max;
    struct cts_bpe_scratch      scratch; /* for text_bytes_max and the spare bytes, as joined */
    uint8_t                    *joined;  /* the parts of cts_encode_parts one after another */
};

/* ---- tables ---- */

int64_t cts_tokenizer_unmap(const uint8_t *spelling, size_t n, uint8_t *out)
{
    size_t   n_out = 0, len;
    uint32_t cp = 0;

    for (size_t i = 0; i < n; i += len) {
        len = cts_utf8_next(spelling + i, n - i, &cp);
        if (len == 0) return -1;
        /* The printable bytes stand for themselves, the 68 others in ascending order from U+0100 on. */
        if ((cp >= 0x21 && cp <= 0x7e) || (cp >= 0xa1 && cp <= 0xac) || (cp >= 0xae && cp <= 0xff))
            out[n_out++] = (uint8_t)cp;
        else if (cp >= 0x100 && cp <= 0x120) out[n_out++] = (uint8_t)(cp - 0x100);
        else if (cp >= 0x121 && cp <= 0x142) out[n_out++] = (uint8_t)(cp - 0x121 + 0x7f);
        else if (cp == 0x143) out[n_out++] = 0xad;
        else return -1;
    }
    return (int64_t)n_out;
}

int32_t *cts_tokenizer_slot(const struct cts_tokenizer *t, const uint8_t *bytes, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a: the words are short, and the table is the operator's */
    uint32_t i;

    for (size_t k = 0; k < n; k++) h = (h ^ bytes[k]) * 0x100000001b3u;
    i = (uint32_t)(h ^ h >> 32) & t->by_bytes_mask;
    for (; t->by_bytes[i] >= 0; i = (i + 1) & t->by_bytes_mask) {
        const struct cts_token *tok = &t->tokens[t->by_bytes[i]];
        if (tok->len == n && memcmp(t->pool + tok->off, bytes, n) == 0) break;
    }
    return &t->by_bytes[i];
}

/* The longest added token that the n bytes at s begin with; its id, or -1. The
 * tokens are sorted, so those that begin alike lie together: narrow by one byte at a time. */
static int32_t match_added(const struct cts_tokenizer *t, const uint8_t *s, size_t n, size_t *len)
{
    uint32_t lo = 0, hi = t->n_added;
    int32_t  found = -1;

    for (size_t d = 0; d < n && lo < hi; d++) {
        uint32_t a = lo, b = hi;
        /* Tokens that end before byte d sort first, and count as smaller. */
        for (uint32_t end = hi; a < end;) {
            uint32_t mid = (a + end) / 2;
            if (t->added[mid].len <= d || t->pool[t->added[mid].off + d] < s[d]) a = mid + 1;
            else end = mid;
        }
        for (uint32_t from = a; from < b;) {
            uint32_t mid = (from + b) / 2;
            if (t->pool[t->added[mid].off + d] <= s[d]) from = mid + 1;
            else b = mid;
        }
        lo = a;
        hi = b;
        if (lo < hi && t->added[lo].len == d + 1) {
            found = t->added[lo].id;
            *len = d + 1;
        }
    }
    return found;
}

/* ---- the public tokenizer ---- */

static int from_doc(struct cts_tokenizer **out, json_t *doc, const char *name, struct cts_err *err)
{
    struct cts_tokenizer *t = calloc(1, sizeof(*t));
    int                   rc;

    if (t == NULL) return cts_err_set(err, -ENOMEM, "'%s'", name);
    rc = cts_tokenizer_read(t, doc, name, err);
    if (rc < 0) {
        cts_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

int cts_tokenizer_parse(struct cts_tokenizer **out, const void *text, size_t n, const char *name,
                        struct cts_err *err)
{
    json_t *doc = NULL;
    int     rc = cts_json_parse(text, n, name, &doc, err);

    if (rc == 0) rc = from_doc(out, doc, name, err);
    json_decref(doc);
    return rc;
}

int cts_tokenizer_open(struct cts_tokenizer **out, const char *path, struct cts_err *err)
{
    json_t *doc = NULL;
    int     rc = cts_json_load(path, FILE_BYTES_MAX, &doc, err);

    if (rc == 0) rc = from_doc(out, doc, path, err);
    json_decref(doc);
    return rc;
}

void cts_tokenizer_close(struct cts_tokenizer *t)
{
    if (t == NULL) return;
    cts_bpe_deinit(&t->bpe);
    free(t->tokens);
    free(t->added);
    free(t->by_bytes);
    free(t->pool);
    free(t);
}

uint32_t cts_tokenizer_n_vocab(const struct cts_tokenizer *t)
{
    return t->n_vocab;
}

int32_t cts_tokenizer_id(const struct cts_tokenizer *t, const char *content)
{
    size_t  n = strlen(content), len = 0;
    uint8_t bytes[CTS_SPELLING_MAX];
    int64_t n_bytes;
    int32_t id = match_added(t, (const uint8_t *)content, n, &len);

    if (id >= 0 && len == n) return id;
    if (n == 0 || n > sizeof(bytes)) return -1;
    n_bytes = cts_tokenizer_unmap((const uint8_t *)content, n, bytes);
    if (n_bytes >= 0) return *cts_tokenizer_slot(t, bytes, (size_t)n_bytes);
    for (uint32_t i = 0; i < t->n_vocab; i++) { /* rare: a token that stands for no bytes */
        const struct cts_token *tok = &t->tokens[i];
        if (tok->is_raw && tok->len == n && memcmp(t->pool + tok->off, content, n) == 0) return (int32_t)i;
    }
    return -1;
}

static const struct cts_token *token_of(const struct cts_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->n_vocab && t->tokens[id].is_known ? &t->tokens[id] : NULL;
}

struct cts_span cts_tokenizer_piece(const struct cts_tokenizer *t, int32_t id)
{
    const struct cts_token *tok = token_of(t, id);

    if (tok == NULL || tok->is_special) return (struct cts_span){ t->pool, 0 };
    return (struct cts_span){ t->pool + tok->off, tok->len };
}

int cts_tokenizer_is_special(const struct cts_tokenizer *t, int32_t id)
{
    const struct cts_token *tok = token_of(t, id);

    return tok != NULL && tok->is_special;
}

/* ---- encoding ---- */

int cts_encoder_new(struct cts_encoder **out, const struct cts_tokenizer *t, size_t text_bytes_max)
{
    struct cts_encoder *e;
    int                 rc;

    if (text_bytes_max > CTS_BPE_WORD_BYTES_MAX - CTS_ENCODER_SPARE_BYTES) return -EINVAL;
    e = calloc(1, sizeof(*e));
    if (e == NULL) return -ENOMEM;
    e->t = t;
    e->text_bytes_max = text_bytes_max;
    e->joined = malloc(text_bytes_max + CTS_ENCODER_SPARE_BYTES);
    rc = e->joined != NULL ? cts_bpe_scratch_init(&e->scratch, text_bytes_max + CTS_ENCODER_SPARE_BYTES) : -ENOMEM;
    if (rc < 0) {
        cts_encoder_free(e);
        return rc;
    }
    *out = e;
    return 0;
}

void cts_encoder_free(struct cts_encoder *e)
{
    if (e == NULL) return;
    cts_bpe_scratch_deinit(&e->scratch);
    free(e->joined);
    free(e);
}

static int64_t encode_word(struct cts_encoder *e, const uint8_t *s, size_t n, int32_t *ids, size_t cap)
{
    if (e->t->ignore_merges) {
        int32_t id = *cts_tokenizer_slot(e->t, s, n);
        if (id >= 0 && cap == 0) return -EMSGSIZE;
        if (id >= 0) {
            ids[0] = id;
            return 1;
        }
    }
    return cts_bpe_word(&e->t->bpe, &e->scratch, s, n, ids, cap);
}

/* A stretch of text without added tokens. */
static int64_t encode_plain(struct cts_encoder *e, const uint8_t *s, size_t n, int32_t *ids, size_t cap)
{
    size_t n_ids = 0;

    for (size_t at = 0, end = 0; at < n;) {
        if (at == end) end += cts_pretok_piece(&e->t->pretok, s + at, n - at);
        size_t  len = cts_pretok_word(&e->t->pretok, s + at, end - at);
        int64_t got = encode_word(e, s + at, len, ids + n_ids, cap - n_ids);
        if (got < 0) return got;
        n_ids += (size_t)got;
        at += len;
    }
    return (int64_t)n_ids;
}

int64_t cts_encode(struct cts_encoder *e, const char *text, size_t n, int parse_special, int32_t *ids, size_t cap)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t         from = 0, n_ids = 0, len = 0;
    int64_t        got;

    if (n > e->text_bytes_max) return -EMSGSIZE;
    if (!cts_utf8_is_valid(s, n)) return -EILSEQ;
    for (size_t at = 0; parse_special && at < n;) {
        int32_t id = e->t->begins_added[s[at]] ? match_added(e->t, s + at, n - at, &len) : -1;
        if (id < 0) {
            at++;
            continue;
        }
        got = encode_plain(e, s + from, at - from, ids + n_ids, cap - n_ids);
        if (got < 0) return got;
        n_ids += (size_t)got;
        if (n_ids == cap) return -EMSGSIZE;
        ids[n_ids++] = id;
        at += len;
        from = at;
    }
    got = encode_plain(e, s + from, n - from, ids + n_ids, cap - n_ids);
    return got < 0 ? got : (int64_t)n_ids + got;
}

int64_t cts_encode_parts(struct cts_encoder *e, const struct cts_span *parts, size_t n_parts, int32_t *ids,
                         size_t cap)
{
    size_t n = 0;

    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].len > e->text_bytes_max + CTS_ENCODER_SPARE_BYTES - n) return -EMSGSIZE;
        if (parts[i].len > 0) memcpy(e->joined + n, parts[i].ptr, parts[i].len);
        n += parts[i].len;
    }
    if (!cts_utf8_is_valid(e->joined, n)) return -EILSEQ;
    return encode_plain(e, e->joined, n, ids, cap);
}
