#ifndef CTS_TESTS_ENGINE_RIG_H
#define CTS_TESTS_ENGINE_RIG_H

/* An engine on the demo's base, with the test's main thread in the place of the
 * loop thread: requests in, whole answers out. */

#include "common/wait.h"
#include "daemon/engine/engine.h"
#include "tests/check.h"
#include "tests/golden_rows.h"

/* Kernels under a sanitizer are ten times slower: tests then take a part of the
 * rows, by the same paths. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RIG_IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RIG_IS_SANITIZED 1
#endif
#endif
#ifndef RIG_IS_SANITIZED
#define RIG_IS_SANITIZED 0
#endif

#define RIG_TOKENS_MAX 64
#define RIG_TEXT_BYTES 1024

/* What came back for one request. Its address is the request's tag. */
struct answer {
    struct cts_engine_request *req; /* NULL once it is over */
    uint32_t                   n_tokens;
    int32_t                    tokens[RIG_TOKENS_MAX];
    float                      logprobs[RIG_TOKENS_MAX];
    uint32_t                   n_top[RIG_TOKENS_MAX];
    int32_t                    top_ids[RIG_TOKENS_MAX][CTS_TOP_LOGPROBS_MAX];
    float                      top_logprobs[RIG_TOKENS_MAX][CTS_TOP_LOGPROBS_MAX];
    char                       text[RIG_TEXT_BYTES];
    uint32_t                   text_bytes;
    int                        is_over;
    uint32_t                   finish;
    int32_t                    code;
    uint32_t                   done_n_prompt, done_n_tokens;
};

struct rig {
    struct cts_engine *e;
    struct cts_bell    bell; /* rung by on_events */
    uint32_t           n_live;
    uint64_t           adapter_tag; /* of the last ADAPTER event */
    int32_t            adapter_code;
    uint32_t           n_adapter_events;
};

/* Options that suit most tests: the demo's base, cpu, one thread, 64 sequences. */
struct cts_engine_opts rig_opts(void);

/* Open with o (on_events is the rig's). Failure fails the test. */
void rig_open(struct rig *rig, const struct cts_engine_opts *o);
void rig_close(struct rig *rig);

/* A request for r's prompt, greedy, of at most n_tokens of r and top five
 * log-probabilities; the answer is emptied. The caller may change it before rig_admit. */
struct cts_engine_request *rig_request(struct rig *rig, struct answer *a, const struct golden_row *r);
void rig_admit(struct rig *rig, struct cts_engine_request *req); /* waits while the queue is full */

/* Take events until none is there; returns how many. */
uint32_t rig_take(struct rig *rig);

/* Take events, sleeping between, until at most n requests are live. */
void rig_wait(struct rig *rig, uint32_t n);

/* Load an exact adapter from a folder (of the source tree unless absolute). */
uint32_t rig_load(struct rig *rig, const char *dir);
void     rig_unload(struct rig *rig, uint32_t adapter_idx);

/* All 64 adapters of a collection of the demo into the exact lane, and out;
 * idx[] by their order in names. Returns how many there are. */
uint32_t rig_load_all(struct rig *rig, const char *folder, char names[][64], uint32_t *idx, uint32_t cap);

/* Whether an answer is the row's: NULL, or what differs. */
const char *answer_differs(const struct answer *a, const struct golden_row *r);

#endif
