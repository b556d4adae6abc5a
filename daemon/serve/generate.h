#ifndef CTS_DAEMON_SERVE_GENERATE_H
#define CTS_DAEMON_SERVE_GENERATE_H

/* From a decoded generate message to the engine's request: the prompt becomes
 * token ids in the request's own memory, defaults are filled in. */

#include "common/err.h"
#include "daemon/engine/engine.h"
#include "proto/ctl_msg.h"

#include <stdint.h>

struct cts_gen {
    struct cts_engine       *engine;
    struct cts_encoder      *encoder;
    struct cts_chat_message *messages; /* [CTS_GEN_MESSAGES_MAX] */
    uint32_t                 prompt_bytes_max, max_tokens; /* max_tokens: for a request that has none */
    uint64_t                 seed;     /* of the sequence that gives seeds to requests without one */
};

/* prompt_bytes_max bounds the text of a prompt; max_tokens is for requests that
 * say none. 0 or -errno. */
int  cts_gen_open(struct cts_gen *g, struct cts_engine *engine, uint32_t prompt_bytes_max, uint32_t max_tokens,
                  struct cts_err *err);
void cts_gen_close(struct cts_gen *g); /* half-open and zeroed are fine */

/* Fill r (from cts_request_new) from m. now_ns is CLOCK_MONOTONIC, deadline_ns
 * the submission's own (0: none). Parts, tag and client are the caller's. 0, or
 * CTS_EARG, CTS_ETOOLONG, CTS_EUNSUP with the parameter at fault in *param and a
 * sentence in err. Allocates nothing. Loop thread. */
int cts_gen_fill(struct cts_gen *g, const struct cts_gen_msg *m, uint64_t now_ns, uint64_t deadline_ns,
                 struct cts_engine_request *r, const char **param, struct cts_err *err);

#endif
