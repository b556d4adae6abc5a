#ifndef CTS_DAEMON_MODEL_WEIGHTS_H
#define CTS_DAEMON_MODEL_WEIGHTS_H

/* The base's weights on a device, float32, and its identity. */

#include "common/err.h"
#include "common/hash.h"
#include "daemon/model/model_config.h"
#include "kernels/ctsk.h"

struct cts_layer_weights {
    struct ctsk_ptr attn_norm, mlp_norm;   /* [hidden] */
    struct ctsk_ptr linear[CTS_N_LINEARS]; /* [n_out, n_in]; q, k and v lie one after the other without a gap */
};

struct cts_weights {
    struct ctsk_buf          *buf;         /* everything below lies in it */
    struct ctsk_ptr           embed, head; /* [vocab, hidden]; the same when tied */
    struct ctsk_ptr           final_norm;
    struct ctsk_ptr           rope_cos, rope_sin; /* [max_positions, head_dim / 2] */
    struct cts_layer_weights *layers;             /* [n_layers] */
    uint64_t                  bytes;              /* of buf */
    uint8_t                   digest[CTS_DIGEST_BYTES];
};

/* Digest of the base in dir: BLAKE2b-256 over the field "cts-base-1", then per
 * tensor that the forward pass uses, in name order: its name as a field, u8
 * dtype, u32 n_dims, u64 shape[], the bytes as they lie in the file; then u32
 * n_heads, u32 n_kv_heads, u32 head_dim, rms_eps as float32 and rope_theta as
 * float64; integers little endian. What cts_weights_load puts into digest; for
 * programs that need no device. Errors as cts_weights_load. Blocks. */
int cts_base_digest(const char *dir, const struct cts_model_config *c, uint8_t out[CTS_DIGEST_BYTES],
                    struct cts_err *err);

/* Read <dir>/model.safetensors onto d. Missing, doubled or misshaped tensors are
 * refused by name; tensors that Llama does not have are refused, but for
 * rotary_emb.inv_freq and, when tied, lm_head.weight. 0; -errno, CTS_EFORMAT,
 * CTS_EUNSUP, -ENOMEM. On failure w is empty. Blocks. */
int  cts_weights_load(struct cts_weights *w, struct ctsk_dev *d, const struct cts_model_config *c, const char *dir,
                      struct cts_err *err);
void cts_weights_free(struct cts_weights *w); /* NULL and empty are fine */

/* Device bytes that cts_weights_load takes; UINT64_MAX: no host memory to tell. No device needed. */
uint64_t cts_weights_bytes(const struct cts_model_config *c);

#endif
