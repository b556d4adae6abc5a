#ifndef CTS_PROTO_CTL_MSG_H
#define CTS_PROTO_CTL_MSG_H

/* Messages of the control socket, as cts-control(7) fixes them. A frame is a
 * u32 length, big endian, and that many bytes: one msgpack map.
 *
 *   request   {"id": uint, "method": str, "params": map (may be absent)}
 *   result    {"id": uint, "result": map}
 *   stream    {"id": uint, "event": map}       before the result of a streaming method
 *   error     {"id": uint, "error": {"code": str, "message": str, "param": str, "retry_ms": uint}}
 *             param and retry_ms may be absent
 *
 * The first request of a connection is
 *   hello {"major": uint, "minor": uint, "client": str}
 *     -> {"major", "minor", "server": str, "pid": uint}; another major is error "version" with both numbers
 *
 * Methods, in short (daemon/serve/ctl_table.c has them with their parameters):
 *   status {}           -> {"server", "pid", "uptime_s", "state", "backend", "base": {...}, "collection": {...},
 *                          "exact": uint, "engine": {...}, "clients": {...}, "requests": {...}}
 *   health {}           -> {"status": "ok" | "draining"}
 *   ls {"from": uint, "limit": uint}, both optional
 *                       -> {"adapters": [{"name", "kind": "compressed" | "exact", "number", "generation",
 *                          "digest", "live": uint}], "next": uint}: by number; next is absent when that was all
 *   show {"name"}       -> one of those with "bytes" and what is known by kind
 *   resolve {"name"}    -> {"number", "generation", "digest", "kind"}; "" is the base, number and generation 0
 *   load {"dir", "name"} -> as resolve
 *   unload {"name"}     -> {} when the adapter is gone; waits for live requests
 *   stop {}             -> {}; drain, then exit
 *   ring.open {"records", "arena_bytes", "out_bytes"}, all optional
 *                       -> the same and "ring_id", "live_max", with four descriptors beside the frame's first
 *                          byte: SUB, OUT, kick eventfd, wake socket
 *   generate {cts_gen_msg, with "adapter"}
 *                       -> events {"accepted": n_prompt}, {"tokens": [uint], "logprobs": [real],
 *                          "top": [[[id, lp]..]..], "text": str}, then {"finish": str, "n_prompt", "n_tokens"};
 *                          finish is stop | length | stop-string | cancelled
 *   cancel {"id": uint} -> {}; a generate of this connection by its frame id
 *
 * No I/O here; nothing allocates but what goes into a cts_buf. */

#include "common/err.h"
#include "proto/msgpack.h"

#include <stdint.h>

#define CTS_CTL_MAJOR 1
#define CTS_CTL_MINOR 0
#define CTS_CTL_SOCKET CTS_RUNSTATEDIR "/ctsd/control.sock" /* the default; CTS_RUNSTATEDIR comes from the build */
#define CTS_CTL_MESSAGE_MAX (4u << 20) /* bytes of a frame without its length */

#define CTS_GEN_STOP_MAX        8
#define CTS_GEN_STOP_BYTES_MAX  64 /* of one stop string */
#define CTS_GEN_STOP_TOKENS_MAX 16
#define CTS_GEN_LOGPROBS_MAX    20
#define CTS_GEN_MESSAGES_MAX    1024
#define CTS_PARAM_BYTES         32 /* a parameter's name in errors, with the zero; a longer one is cut */

/* What to generate: the params of `generate` and the payload of a SUB record,
 * one schema and one decoder. Spans and cursors point into the decoded bytes.
 * Keys, all optional but one of prompt, tokens, messages:
 *   "adapter" str (control socket only: in a SUB record the number names it)
 *   "prompt" str | "tokens" [0..2^31-1] | "messages" [{"role": str, "content": str}], at least one
 *   "max_tokens" 1..2^31-1 | "temperature" 0..100 | "top_p" (0..1] | "top_k" 0..2^31-1 | "seed" uint
 *   "stop" [str], at most 8 of 1..64 bytes | "stop_tokens" [0..2^31-1], at most 16
 *   "logprobs" 0..20 | "text" bool | "special" bool | "timeout_ms" 1..86400000 */
struct cts_gen_msg {
    struct cts_span adapter;                      /* ptr NULL: absent */
    struct cts_span prompt;                       /* ptr NULL: absent */
    uint32_t        n_tokens, n_messages, n_stop, n_stop_tokens;
    struct cts_mp   tokens, messages, stop, stop_tokens; /* behind the array's head; checked whole */
    uint32_t        max_tokens;                   /* 0: default */
    double          temperature, top_p;           /* negative: default */
    int64_t         top_k;                        /* negative: default */
    uint64_t        seed;
    int             has_seed, n_logprobs;         /* -1: none */
    int             want_text, parse_special;     /* defaults 1, 1 */
    uint64_t        timeout_ms;                   /* 0: none */
};

/* Decode one map. c is behind cts_mp_check. 0 or CTS_EARG, with the key at
 * fault in param (empty when there is none) and a sentence in err. An unknown key is refused by name. */
int cts_gen_decode(struct cts_mp *c, struct cts_gen_msg *out, char param[CTS_PARAM_BYTES], struct cts_err *err);

/* Next role and content of m->messages, already checked by cts_gen_decode. */
void cts_gen_next_message(struct cts_mp *messages, struct cts_span *role, struct cts_span *content);

/* Length of the frame at p: 0 when fewer than 4 bytes are there, CTS_EPROTO when
 * it is 0 or above CTS_CTL_MESSAGE_MAX, else 4 + the message's bytes. */
int64_t cts_frame_bytes(const uint8_t *p, size_t n);

/* Begin a frame in w->out (reserves the length), and end it (fills it in). On a
 * failure in between, end drops the half frame and returns the failure. */
size_t cts_frame_begin(struct cts_mpw *w);
int    cts_frame_end(struct cts_mpw *w, size_t begin);

/* A request's head from the n bytes of a message, which this checks whole first
 * (cts_mp_check): id, method (borrowed from the frame), params cursor at the
 * map's head or empty. CTS_EPROTO when it is not such a map, another key
 * included. */
struct cts_ctl_request {
    uint64_t        id;
    struct cts_span method;
    struct cts_mp   params;
    int             has_params;
};
int cts_ctl_request_decode(const void *p, size_t n, struct cts_ctl_request *out);

/* A reply's head, for clients; checks the message first. Keys that a later
 * minor version may add beside these are skipped. */
enum cts_ctl_reply_kind { CTS_CTL_RESULT = 1, CTS_CTL_EVENT, CTS_CTL_ERROR };
struct cts_ctl_reply {
    uint64_t                id;
    enum cts_ctl_reply_kind kind;
    struct cts_mp           body; /* at the map's head */
};
int cts_ctl_reply_decode(const void *p, size_t n, struct cts_ctl_reply *out);

/* A whole error frame. param may be NULL; retry_ms 0 is left out. Bytes of
 * message and param that are not UTF-8 become '?'. */
int cts_ctl_error_put(struct cts_buf *out, uint64_t id, int code, const char *message, const char *param,
                      uint32_t retry_ms);

#endif
