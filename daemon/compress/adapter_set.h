#ifndef CTS_DAEMON_COMPRESS_ADAPTER_SET_H
#define CTS_DAEMON_COMPRESS_ADAPTER_SET_H

/* The adapters of a folder, in memory: those that are compressed, in catalog
 * order, and those that are refused, with the reason. */

#include "common/err.h"
#include "common/hash.h"
#include "daemon/compress/delta.h"
#include "daemon/compress/tasks.h"
#include "daemon/model/model_config.h"
#include "daemon/model/peft.h"

#include <stdint.h>

struct cts_adapter {
    char            *name; /* of its folder */
    struct cts_peft  peft;
    double          *norm; /* [peft.n_modules]: |dW| of each, scale included */
};

struct cts_refusal {
    char          *name;
    struct cts_err why;
};

/* A module that at least one adapter changes. */
struct cts_set_module {
    uint32_t        layer;
    enum cts_linear linear;
    uint32_t        n_out, n_in;
};

struct cts_adapter_set {
    struct cts_model_config config;
    uint8_t                 base_digest[CTS_DIGEST_BYTES];
    uint32_t                n, n_refused, n_modules;
    struct cts_adapter     *adapters; /* [n], by name as bytes */
    struct cts_refusal     *refused;  /* [n_refused], by name as bytes */
    struct cts_set_module  *modules;  /* [n_modules], by layer, then linear */
    int32_t                *place;    /* [n, n_modules]: index in peft.modules, -1 for none */
};

struct cts_adapter_set_opts {
    const char *base_dir, *adapters_dir;
    uint32_t    linears;  /* bit l for linear l: an adapter that changes another is refused; 0: all seven */
    uint32_t    n_threads;
    /* Called by the calling thread as adapters are read; may be NULL. */
    void      (*on_progress)(void *arg, uint32_t n_done, uint32_t n_total);
    void       *on_progress_arg;
};

/* Read every folder in adapters_dir whose name does not begin with a dot. An
 * adapter that cannot be read is refused, not an error: look at n_refused. 0;
 * CTS_ENOTFOUND when there is no folder at all; what the readers of the base
 * return, -errno. On failure the set is empty. Blocks. */
int  cts_adapter_set_load(struct cts_adapter_set *s, const struct cts_adapter_set_opts *o, struct cts_err *err);
void cts_adapter_set_free(struct cts_adapter_set *s); /* empty is fine */

/* What adapter adapter_idx adds to module module_idx of the set, into *d and *norm
 * (either may be NULL); 0 when it does not change the module, else 1. */
int cts_adapter_set_delta(const struct cts_adapter_set *s, uint32_t adapter_idx, uint32_t module_idx,
                          struct cts_delta *d, double *norm);

#endif
