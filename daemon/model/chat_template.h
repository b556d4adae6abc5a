#ifndef CTS_DAEMON_MODEL_CHAT_TEMPLATE_H
#define CTS_DAEMON_MODEL_CHAT_TEMPLATE_H

/* Chat templates by recognition: the template's text in chat_template.jinja, or
 * else in tokenizer_config.json, is compared with those known here, and rendered
 * by code of ours. An unknown template is no error at load: chat is refused with
 * unknown_why, raw prompts go on. */

#include "common/err.h"
#include "common/span.h"
#include "daemon/model/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

enum cts_chat_kind { CTS_CHAT_UNKNOWN, CTS_CHAT_CHATML };

struct cts_chat_template {
    enum cts_chat_kind kind;
    int32_t            im_start, im_end;    /* ChatML's control tokens */
    char               default_system[512]; /* said where the first message is not the system's; may be empty */
    int                has_default_system;
    char               unknown_why[256]; /* for CTS_CHAT_UNKNOWN */
};

struct cts_chat_message {
    struct cts_span role, content; /* UTF-8; role is one of system, user, assistant, tool */
};

/* Recognise the template of the base in dir. 0 or -errno, CTS_EFORMAT. Blocks. */
int cts_chat_template_load(struct cts_chat_template *c, const char *dir, const struct cts_tokenizer *t,
                           struct cts_err *err);

/* The same for a template's text. Any thread. 0 or -ENOMEM. */
int cts_chat_template_recognise(struct cts_chat_template *c, const char *text, const struct cts_tokenizer *t);

/* Token ids of the conversation with the opening of the assistant's turn at the
 * end. The text of role and content never becomes a control token. Returns the
 * count; CTS_EUNSUP for an unknown template, CTS_EARG for a role that the
 * template does not have, -EILSEQ, -EMSGSIZE as cts_encode. Allocates nothing. */
int64_t cts_chat_render(const struct cts_chat_template *c, struct cts_encoder *e, const struct cts_chat_message *m,
                        size_t n_messages, int32_t *ids, size_t cap);

#endif
