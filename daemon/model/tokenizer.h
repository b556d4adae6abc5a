#ifndef CTS_DAEMON_MODEL_TOKENIZER_H
#define CTS_DAEMON_MODEL_TOKENIZER_H

/* Hugging Face's tokenizer.json: byte-level BPE with the pre-tokenizers
 * ByteLevel (GPT-2's pattern) and Digits, alone or in a Sequence. Anything else
 * in the file that would change a token is refused by name. */

#include "common/err.h"
#include "common/span.h"

#include <stddef.h>
#include <stdint.h>

struct cts_tokenizer; /* read-only after open: any number of threads */
struct cts_encoder;   /* scratch memory of one thread: encoding allocates nothing */

/* Read path (a tokenizer.json). 0 or -errno, CTS_EFORMAT, CTS_EUNSUP. Blocks. */
int cts_tokenizer_open(struct cts_tokenizer **out, const char *path, struct cts_err *err);
/* The same from n bytes of JSON; name is the file for messages. Any thread. */
int  cts_tokenizer_parse(struct cts_tokenizer **out, const void *text, size_t n, const char *name,
                         struct cts_err *err);
void cts_tokenizer_close(struct cts_tokenizer *t); /* NULL is fine */

uint32_t cts_tokenizer_n_vocab(const struct cts_tokenizer *t); /* highest id + 1 */

/* Id of a token by its content as the vocabulary or the added tokens spell it
 * ("<|im_end|>"); -1 when there is none. */
int32_t cts_tokenizer_id(const struct cts_tokenizer *t, const char *content);

/* The bytes that a token stands for (not always whole characters), borrowed
 * from t. Empty for special tokens and for ids without a token. Any id is fine.
 * Allocates nothing. */
struct cts_span cts_tokenizer_piece(const struct cts_tokenizer *t, int32_t id);
int             cts_tokenizer_is_special(const struct cts_tokenizer *t, int32_t id);

/* An encoder for texts of at most text_bytes_max (29 bytes of memory each). 0,
 * -ENOMEM, or -EINVAL past 2^30. t must outlive it. */
int  cts_encoder_new(struct cts_encoder **out, const struct cts_tokenizer *t, size_t text_bytes_max);
void cts_encoder_free(struct cts_encoder *e);

/* Encode n bytes of UTF-8 into ids [cap]; returns their count. With
 * parse_special, added tokens in the text become their ids (a raw prompt);
 * without, they are plain text (a chat message). Adds no BOS.
 * -EILSEQ: not UTF-8; -EMSGSIZE: more than text_bytes_max bytes or cap ids. */
int64_t cts_encode(struct cts_encoder *e, const char *text, size_t n, int parse_special, int32_t *ids, size_t cap);

/* The same for a text that lies in parts, as plain text: what a template puts
 * together is cut into words as one. The parts may have CTS_ENCODER_SPARE_BYTES
 * more than text_bytes_max in all. */
#define CTS_ENCODER_SPARE_BYTES 64
int64_t cts_encode_parts(struct cts_encoder *e, const struct cts_span *parts, size_t n_parts, int32_t *ids,
                         size_t cap);

#endif
