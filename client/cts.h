#ifndef CTS_H
#define CTS_H

/* libcts: prompts to ctsd through shared memory, tokens back, without a system
 * call while either side is awake. libcts(3) has an entry for each function.
 *
 * A handle and its requests belong to one thread at a time; two handles are
 * independent. Descriptors are close-on-exec; after fork() the child must not
 * use a handle and may only cts_close it. Functions return 0 or a negative
 * code: -errno, or one of libcts's own, which cts_strerror puts into words. */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CTS_VERSION_MAJOR 0
#define CTS_VERSION_MINOR 1

typedef struct cts cts; /* a connection */

struct cts_options {
    const char *socket;    /* NULL: $CTS_SOCKET, else the built-in path */
    uint64_t    spin_ns;   /* how long cts_next polls before it sleeps; UINT64_MAX: 50000, none on one CPU */
    uint32_t    n_records; /* submissions in flight to the daemon; 0: 256 */
    uint32_t    arena_bytes, out_bytes; /* 0: 1 MiB each */
};
#define CTS_OPTIONS_INIT { NULL, UINT64_MAX, 0, 0, 0 }

struct cts_message {
    const char *role, *content; /* UTF-8, zero-terminated */
};

/* What to generate. Zero-initialise with CTS_REQUEST_INIT, then set one of
 * prompt, tokens and messages. Everything is borrowed for the call only. */
struct cts_request {
    const char               *adapter; /* name; NULL: the base */
    const char               *prompt;
    size_t                    prompt_bytes; /* 0: up to the zero */
    const int32_t            *tokens;
    size_t                    n_tokens;
    const struct cts_message *messages;
    size_t                    n_messages;
    uint32_t                  max_tokens;  /* 0: the daemon's default */
    double                    temperature; /* negative: the base's default; 0: greedy */
    double                    top_p;       /* negative: the base's default; 1: off */
    int64_t                   top_k;       /* negative: the base's default; 0: off */
    uint64_t                  seed;
    int                       has_seed;    /* 0: the daemon draws one */
    const char *const        *stop;        /* stop strings */
    size_t                    n_stop;
    const int32_t            *stop_tokens;
    size_t                    n_stop_tokens;
    int                       logprobs;    /* -1: none; 0: of the chosen tokens; n: of the n best too */
    int                       no_text;     /* 1: token ids only */
    int                       no_special;  /* 1: control tokens in prompt are plain text */
    uint64_t                  timeout_ns;  /* 0: none */
};
#define CTS_REQUEST_INIT { .temperature = -1, .top_p = -1, .top_k = -1, .logprobs = -1 }

enum cts_event_type {
    CTS_EVENT_ACCEPTED = 1, /* the daemon took it: n_prompt */
    CTS_EVENT_TOKENS,       /* ids, logprobs, text */
    CTS_EVENT_DONE,         /* last: finish, n_prompt, n_generated */
    CTS_EVENT_ERROR         /* last: code, message, retry_ms */
};

enum cts_finish_reason { CTS_FINISHED_STOP = 1, CTS_FINISHED_LENGTH = 2, CTS_FINISHED_STOP_STRING = 3, CTS_FINISHED_CANCELLED = 4 };

struct cts_top {
    uint32_t id;
    float    logprob;
};

/* Pointers lie in the handle and live until the next call with it. */
struct cts_event {
    enum cts_event_type    type;
    uint64_t               request; /* as cts_submit gave it */
    int                    is_last;
    uint32_t               first;    /* index of the first token in the stream */
    uint32_t               n_tokens; /* in this event */
    const uint32_t        *ids;      /* [n_tokens] */
    const float           *logprobs; /* [n_tokens], or NULL */
    uint32_t               n_top;    /* per token */
    const struct cts_top  *top;      /* [n_tokens * n_top], or NULL */
    const char            *text;     /* UTF-8, whole characters, not zero-terminated */
    size_t                 text_bytes;
    enum cts_finish_reason finish;
    uint32_t               n_prompt, n_generated;
    int                    code;     /* of an error */
    const char            *message;  /* of an error, zero-terminated */
    uint32_t               retry_ms;
};

/* Connect, agree on the version, map the rings. opts may be NULL. -ENOENT and
 * -ECONNREFUSED: no daemon; the version error names both numbers in message,
 * [message_bytes], which may be NULL. */
int  cts_open(cts **out, const struct cts_options *opts, char *message, size_t message_bytes);
void cts_close(cts *c); /* NULL is fine; cancels what is live */

/* Hand a request to the daemon; *request names it until its last event. -EAGAIN:
 * the ring or its arena is full, take events and try again; -ENOENT: no such
 * adapter; -EINVAL: cts_last_message says which field. A name is resolved once
 * over the socket and remembered; the daemon's refusal of a stale one makes
 * libcts resolve it again, unseen. */
int cts_submit(cts *c, const struct cts_request *r, uint64_t *request);

/* Take the next event: 1 with *ev filled; 0 after timeout_ns (0: don't wait,
 * UINT64_MAX: for ever); -ECONNRESET when the daemon went away. */
int cts_next(cts *c, struct cts_event *ev, uint64_t timeout_ns);

/* A descriptor that polls readable when cts_next may have something; call
 * cts_arm before each poll: 1 means that events are there already. */
int cts_fd(const cts *c);
int cts_arm(cts *c);

/* Ask the daemon to stop a request. Its last event comes all the same. */
int cts_cancel(cts *c, uint64_t request);

/* One request, start to end. answer owns its memory until cts_answer_free. */
struct cts_answer {
    char                  *text; /* zero-terminated UTF-8 */
    size_t                 text_bytes;
    uint32_t              *ids;      /* [n_tokens] */
    float                 *logprobs; /* [n_tokens], or NULL */
    uint32_t               n_tokens, n_prompt;
    enum cts_finish_reason finish;
};
int  cts_generate(cts *c, const struct cts_request *r, struct cts_answer *answer);
void cts_answer_free(struct cts_answer *answer);

/* Who an adapter is: number, generation and digest (64 hex digits) at the daemon. */
struct cts_adapter_info {
    uint32_t number, generation;
    char     digest[65];
    char     kind[16]; /* "compressed", "exact", "base" */
};
int cts_resolve(cts *c, const char *name, struct cts_adapter_info *out);

/* The sentence behind the last failure of this handle; never NULL. */
const char *cts_last_message(const cts *c);
const char *cts_strerror(int code);

#ifdef __cplusplus
}
#endif

#endif
