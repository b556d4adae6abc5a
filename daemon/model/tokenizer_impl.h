#ifndef CTS_DAEMON_MODEL_TOKENIZER_IMPL_H
#define CTS_DAEMON_MODEL_TOKENIZER_IMPL_H

/* What tokenizer_file.c builds and tokenizer.c uses. */

#include "common/err.h"
#include "common/json.h"
#include "daemon/model/bpe.h"
#include "daemon/model/pretok.h"
#include "daemon/model/tokenizer.h"

#define CTS_VOCAB_MAX    (1 << 21) /* ids are below */
#define CTS_SPELLING_MAX 4096      /* bytes of a token's spelling */

struct cts_token {
    uint32_t off, len;    /* its bytes in the pool */
    uint8_t  is_known;    /* there is a token of this id */
    uint8_t  is_in_vocab; /* of the model; others are added tokens only */
    uint8_t  is_special;
    uint8_t  is_raw; /* spelled with characters that stand for no byte: the bytes are its spelling */
};

/* An added token by its spelling, which is how texts and templates name it. */
struct cts_added {
    uint32_t off, len; /* in the pool */
    int32_t  id;
};

struct cts_tokenizer {
    struct cts_bpe    bpe;
    struct cts_pretok pretok;
    int               ignore_merges; /* a word that is a token whole is that token */
    struct cts_token *tokens;        /* [n_vocab] */
    uint32_t          n_vocab;
    struct cts_added *added; /* [n_added], sorted by spelling */
    uint32_t          n_added;
    uint8_t           begins_added[256]; /* 1: some added token begins with this byte */
    int32_t *by_bytes; /* ids by the hash of their bytes, -1: empty; of the vocabulary, neither special nor raw */
    uint32_t by_bytes_mask;
    uint8_t *pool;
    size_t   pool_bytes;
};

/* Fill the zeroed *t from a parsed tokenizer.json. On failure the caller closes t. */
int cts_tokenizer_read(struct cts_tokenizer *t, json_t *doc, const char *name, struct cts_err *err);

/* The bytes that a token's spelling of n bytes stands for, into out [n]: every
 * character stands for one byte (GPT-2's table). Returns the count, or -1 when
 * some character stands for none. */
int64_t cts_tokenizer_unmap(const uint8_t *spelling, size_t n, uint8_t *out);

/* Where the id of the token with these bytes lies in by_bytes, or the empty place for it. */
int32_t *cts_tokenizer_slot(const struct cts_tokenizer *t, const uint8_t *bytes, size_t n);

#endif
