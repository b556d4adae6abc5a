#ifndef CTS_H
#define CTS_H

/* libcts: prompts to ctsd through shared memory, tokens back, without a system
 * call while either side is awake. libcts(3) has an entry for each function.
 *
 * A handle and its requests belong to one thread at a time; two handles are
 * independent. Descriptors are close-on-exec; after fork() the child must not
 * use a handle and may only cts_close it. Functions return 0 or a negative
 * code: -errno, or one of enum cts_error, which cts_strerror puts into words. */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CTS_VERSION_MAJOR 0
#define CTS_VERSION_MINOR 1

typedef struct cts cts; /* a connection */

/* Codes beside -errno: what the daemon answers, by what the caller can do. */
enum cts_error {
    CTS_ERROR_PROTOCOL    = -1000, /* the daemon broke the protocol: the handle is dead */
    CTS_ERROR_DEVICE      = -1002, /* the device failed this request: try again */
    CTS_ERROR_DEVICE_LOST = -1003, /* the daemon must restart */
    CTS_ERROR_FORMAT      = -1004, /* a file is damaged */
    CTS_ERROR_UNSUPPORTED = -1005, /* understood, and not supported */
    CTS_ERROR_DIGEST      = -1006, /* an adapter's bytes differ from what was recorded */
    CTS_ERROR_BUSY        = -1007, /* a queue is full: again after retry_ms */
    CTS_ERROR_NOT_FOUND   = -1008, /* no such adapter */
    CTS_ERROR_ARGUMENT    = -1009, /* a field is wrong: the message says which */
    CTS_ERROR_DENIED      = -1010, /* the daemon does not serve this user */
    CTS_ERROR_VERSION     = -1011, /* other major version: the message has both */
    CTS_ERROR_SLOW        = -1013, /* events were not taken in time */
    CTS_ERROR_CANCELLED   = -1014, /* by the daemon, e.g. at its end */
    CTS_ERROR_TOO_LONG    = -1015  /* prompt and max_tokens pass the context length */
};

struct cts_options {
    const char *socket;    /* NULL: $CTS_SOCKET, else the built-in path */
    uint64_t    spin_ns;   /* how long cts_next polls before it sleeps; UINT64_MAX: 50000, none on one CPU */
    uint32_t    n_records; /* submissions that the daemon has not taken yet; 0: 256 */
    uint32_t    arena_bytes, out_bytes; /* memory for their payloads, and for events; 0: 1 MiB each */
};
#define CTS_OPTIONS_INIT { NULL, UINT64_MAX, 0, 0, 0 }

struct cts_message {
    const char *role, *content; /* UTF-8, zero-terminated */
};

/* What to generate. Initialise with CTS_REQUEST_INIT, then set one of prompt,
 * tokens and messages. Everything is borrowed for the call only. */
struct cts_request {
    const char               *adapter; /* name; NULL: the base */
    const char               *prompt;  /* UTF-8 */
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
    const char *const        *stop;        /* [n_stop], the answer ends before one of them */
    size_t                    n_stop;
    const int32_t            *stop_tokens; /* [n_stop_tokens] */
    size_t                    n_stop_tokens;
    int                       logprobs;    /* -1: none; 0: of the chosen tokens; n: of the n best too */
    int                       no_text;     /* 1: token ids only */
    int                       no_special;  /* 1: control tokens in prompt are plain text */
    uint64_t                  timeout_ns;  /* from now until the daemon ends it; 0: none */
};
#define CTS_REQUEST_INIT { .temperature = -1, .top_p = -1, .top_k = -1, .logprobs = -1 }

enum cts_event_type {
    CTS_EVENT_ACCEPTED = 1, /* the daemon took it: n_prompt */
    CTS_EVENT_TOKENS,       /* ids, logprobs, text; n_tokens may be 0, text may be empty */
    CTS_EVENT_DONE,         /* last: finish, n_prompt, n_generated */
    CTS_EVENT_ERROR         /* last: code, message, retry_ms */
};

enum cts_finish_reason {
    CTS_FINISHED_STOP = 1,
    CTS_FINISHED_LENGTH = 2,
    CTS_FINISHED_STOP_STRING = 3,
    CTS_FINISHED_CANCELLED = 4
};

struct cts_top {
    uint32_t id;
    float    logprob;
};

/* Pointers lie in the handle and live until the next call with it. */
struct cts_event {
    enum cts_event_type    type;
    uint64_t               request; /* as cts_submit gave it */
    int                    is_last; /* of this request */
    uint32_t               first;    /* index of the first token in the stream */
    uint32_t               n_tokens; /* in this event */
    const uint32_t        *ids;      /* [n_tokens] */
    const float           *logprobs; /* [n_tokens], or NULL */
    uint32_t               n_top;    /* per token */
    const struct cts_top  *top;      /* [n_tokens * n_top], or NULL */
    const char            *text;     /* UTF-8, whole characters, not zero-terminated; never NULL */
    size_t                 text_bytes;
    enum cts_finish_reason finish;
    uint32_t               n_prompt, n_generated;
    int                    code;     /* of an error */
    const char            *message;  /* of an error, zero-terminated */
    uint32_t               retry_ms; /* of CTS_ERROR_BUSY; 0: unknown */
};

/* Connect, agree on the version, map the rings. opts may be NULL. On failure
 * *out is NULL and message [message_bytes], which may be NULL, has the sentence:
 * -ENOENT and -ECONNREFUSED (no daemon), -EACCES and CTS_ERROR_DENIED,
 * CTS_ERROR_VERSION, CTS_ERROR_BUSY (the daemon has no ring left),
 * CTS_ERROR_PROTOCOL, -ENOMEM and other -errno. */
int cts_open(cts **out, const struct cts_options *opts, char *message, size_t message_bytes);

/* Let go of everything; the daemon cancels what is live. NULL is fine. */
void cts_close(cts *c);

/* Hand a request to the daemon; *request names it until its last event. -EAGAIN:
 * ring, arena or the daemon's limit of live requests is full, take events and
 * try again; -EMSGSIZE: larger than the arena; CTS_ERROR_NOT_FOUND: no such
 * adapter; CTS_ERROR_ARGUMENT: cts_last_message says which field; -ECONNRESET.
 * A name is asked for once over the socket and remembered; that the daemon
 * refused a stale answer is not seen: libcts asks again and submits again. */
int cts_submit(cts *c, const struct cts_request *r, uint64_t *request);

/* Take the next event of any request: 1 with *ev filled; 0 after timeout_ns (0:
 * don't wait, UINT64_MAX: for ever); -EINTR when a signal handler ran. Other
 * failures are the handle's end, and no request gets another event: -ECONNRESET
 * when the daemon went away, CTS_ERROR_PROTOCOL, CTS_ERROR_SLOW. */
int cts_next(cts *c, struct cts_event *ev, uint64_t timeout_ns);

/* A descriptor that polls readable when cts_next may have something. It is the
 * handle's: only poll it. Call cts_arm before each poll: 1 means that cts_next
 * has something to say already, 0 that the descriptor will tell. */
int cts_fd(const cts *c);
int cts_arm(cts *c);

/* Ask the daemon to stop a request; its last event comes all the same. 0, also
 * for a request that is over; -EAGAIN as cts_submit. */
int cts_cancel(cts *c, uint64_t request);

/* One request, start to end, on a handle without other live ones (-EBUSY). 0
 * with *answer filled; the code of the request's error event, or as cts_submit
 * and cts_next (signals do not end it). *answer is empty on failure. */
struct cts_answer {
    char                  *text; /* zero-terminated UTF-8 */
    size_t                 text_bytes;
    uint32_t              *ids;      /* [n_tokens] */
    float                 *logprobs; /* [n_tokens], or NULL when none were asked for */
    uint32_t               n_tokens, n_prompt;
    enum cts_finish_reason finish;
};
int  cts_generate(cts *c, const struct cts_request *r, struct cts_answer *answer);
void cts_answer_free(struct cts_answer *answer); /* its memory; NULL is fine */

/* Who an adapter is at the daemon; name NULL or "" is the base. Asks the daemon
 * each time. CTS_ERROR_NOT_FOUND, -ECONNRESET, -ETIMEDOUT. */
struct cts_adapter_info {
    uint32_t number, generation;
    char     digest[65]; /* 64 hex digits */
    char     kind[16];   /* "compressed", "exact", "base" */
};
int cts_resolve(cts *c, const char *name, struct cts_adapter_info *out);

/* The sentence behind the last failure of this handle; never NULL, lives until
 * the next call with it. */
const char *cts_last_message(const cts *c);

/* Words for a code: static storage. */
const char *cts_strerror(int code);

#ifdef __cplusplus
}
#endif

#endif
