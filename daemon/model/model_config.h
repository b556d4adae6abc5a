#ifndef CTS_DAEMON_MODEL_MODEL_CONFIG_H
#define CTS_DAEMON_MODEL_MODEL_CONFIG_H

/* What config.json and generation_config.json say of a base. Refused, with
 * file, key and reason: another architecture than Llama's, a rope scaling, an
 * activation, a bias that forward() does not have; shapes that do not divide. */

#include "common/err.h"
#include "common/span.h"

#include <stddef.h>
#include <stdint.h>

/* The seven linear layers that an adapter may change, in the order of slots. */
enum cts_linear { CTS_Q, CTS_K, CTS_V, CTS_O, CTS_GATE, CTS_UP, CTS_DOWN, CTS_N_LINEARS };

#define CTS_STOP_TOKENS_MAX 8
#define CTS_LAYERS_MAX      256

struct cts_model_config {
    uint32_t vocab_size, hidden, intermediate, n_layers, n_heads, n_kv_heads, head_dim;
    uint32_t max_positions; /* context length, tokens */
    float    rms_eps;
    double   rope_theta;
    int      is_tied;       /* the head is the embedding */
    uint32_t n_stop_tokens; /* union of eos_token_id of both files; Llama's 2 where neither has the key */
    int32_t  stop_tokens[CTS_STOP_TOKENS_MAX];
    /* Sampling defaults of generation_config.json; NaN and 0 where it has none.
     * The temperature is 0 where it says do_sample false. */
    float    temperature, top_p;
    uint32_t top_k;
};

/* Read <dir>/config.json and, where there is one, <dir>/generation_config.json.
 * Both key styles are read: rope_theta and torch_dtype, or rope_parameters and
 * dtype. 0 or -errno, CTS_EFORMAT, CTS_EUNSUP, *c untouched. Blocks. */
int cts_model_config_load(struct cts_model_config *c, const char *dir, struct cts_err *err);

/* The same from the bytes of both files; gen.ptr is NULL where there is no
 * generation_config.json. CTS_EFORMAT, CTS_EUNSUP, -ENOMEM, *c untouched. Any thread. */
int cts_model_config_parse(struct cts_model_config *c, struct cts_span config, struct cts_span gen,
                           struct cts_err *err);

/* "q_proj" .. "down_proj". */
const char *cts_linear_name(enum cts_linear l);

/* The linear whose name is the n bytes at name; -1 when none is. */
int cts_linear_from_name(const char *name, size_t n);

/* Shape [n_out, n_in] of a linear's weight. */
void cts_linear_shape(const struct cts_model_config *c, enum cts_linear l, uint32_t *n_out, uint32_t *n_in);

/* Index of a module in tables over all modules: layer * CTS_N_LINEARS + linear. */
static inline uint32_t cts_module_idx(uint32_t layer, enum cts_linear l)
{
    return layer * CTS_N_LINEARS + (uint32_t)l;
}

#endif
