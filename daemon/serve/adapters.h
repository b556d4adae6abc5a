#ifndef CTS_DAEMON_SERVE_ADAPTERS_H
#define CTS_DAEMON_SERVE_ADAPTERS_H

/* Who the adapters are: name -> number and generation, and from there to what
 * the engine knows. The collection's adapters are there from the start under
 * the numbers 1..n; places of the exact lane follow, and each load into a place
 * gives it a new generation, so that an old (number, generation) finds nothing
 * instead of the wrong adapter. All memory is taken at open. Loop thread only. */

#include "common/span.h"
#include "daemon/engine/engine.h"
#include "daemon/store/collection.h"

#include <uv.h>

enum cts_adapter_kind { CTS_ADAPTER_COMPRESSED = 1, CTS_ADAPTER_EXACT };
enum cts_adapter_state { CTS_ADAPTER_FREE, CTS_ADAPTER_LOADING, CTS_ADAPTER_READY, CTS_ADAPTER_UNLOADING };

struct cts_adapter {
    char                   name[CTS_NAME_BYTES_MAX + 1];
    uint32_t               number, generation;
    enum cts_adapter_kind  kind;
    enum cts_adapter_state state;
    uint32_t               adapter_idx; /* the engine's */
    uint32_t               n_live;      /* requests that name it */
    uint8_t                digest[CTS_DIGEST_BYTES];
    uint64_t               bytes;       /* of its slot, or of its A and B in the file */
    uint32_t               n_modules, rank_max; /* exact only */
    uint32_t               next_idx;    /* in the table by name */
};

/* Who waits for a load or an unload. fn is called once: a is the adapter after a
 * load, NULL after an unload and on failure, where err says why. */
typedef void (*cts_adapter_done_fn)(void *owner, uint64_t conn_serial, uint64_t frame_id, const struct cts_adapter *a,
                                    const struct cts_err *err);
struct cts_adapter_waiter {
    cts_adapter_done_fn fn;
    void               *owner;
    uint64_t            conn_serial, frame_id; /* passed through */
};

struct cts_adapters;

/* engine and loop are borrowed. 0 or -ENOMEM. */
int cts_adapters_open(struct cts_adapters **out, struct cts_engine *engine, uv_loop_t *loop, uint32_t n_exact_max,
                      struct cts_err *err);

/* 1 while a folder is being read: its thread uses this memory, run the loop on. */
int cts_adapters_is_loading(const struct cts_adapters *t);

/* NULL is fine. Whoever waits is not called any more. */
void cts_adapters_close(struct cts_adapters *t);

uint32_t cts_adapters_n(const struct cts_adapters *t); /* highest number + 1 */

/* By number, whatever its state; NULL when it is free or out of range. */
const struct cts_adapter *cts_adapters_at(const struct cts_adapters *t, uint32_t number);

/* What a request may use: READY and, for the second, of that very generation.
 * CTS_ENOTFOUND with the reason in err. */
int cts_adapters_find(struct cts_adapters *t, struct cts_span name, struct cts_adapter **out, struct cts_err *err);
int cts_adapters_get(struct cts_adapters *t, uint32_t number, uint32_t generation, struct cts_adapter **out,
                     struct cts_err *err);

/* A live request names a; the last release lets a waiting unload go on. */
void cts_adapters_hold(struct cts_adapters *t, struct cts_adapter *a);
void cts_adapters_release(struct cts_adapters *t, uint32_t number);

/* Read the PEFT folder dir (an absolute path) and put it into the exact lane as
 * name. 0: w is called later; else nothing happens later: CTS_EARG (with param
 * "dir" or "name"), -EEXIST, CTS_EBUSY, -ENOMEM. */
int cts_adapters_load(struct cts_adapters *t, struct cts_span dir, struct cts_span name,
                      const struct cts_adapter_waiter *w, const char **param, struct cts_err *err);

/* Take an exact adapter away once no live request names it; from now on it is
 * not found. 0: w is called later; CTS_ENOTFOUND, CTS_EARG (a compressed one). */
int cts_adapters_unload(struct cts_adapters *t, struct cts_span name, const struct cts_adapter_waiter *w,
                        struct cts_err *err);

/* An ADAPTER event of the engine. */
void cts_adapters_on_event(struct cts_adapters *t, const struct cts_engine_event *ev);

/* Give orders that the engine's queue had no room for: once per turn. 1 when it
 * gave one (kick the engine). */
int cts_adapters_turn(struct cts_adapters *t);

/* "compressed", "exact". */
const char *cts_adapter_kind_name(enum cts_adapter_kind k);

#endif
