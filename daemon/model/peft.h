#ifndef CTS_DAEMON_MODEL_PEFT_H
#define CTS_DAEMON_MODEL_PEFT_H

/* A PEFT folder (adapter_config.json and adapter_model.safetensors) in host
 * memory. The tensors in the file are the truth, the config scales and checks.
 * What is not plain LoRA on the seven linears is refused by name: file, tensor
 * or key, what is wrong, what to do. */

#include "common/dtype.h"
#include "common/err.h"
#include "common/hash.h"
#include "daemon/model/model_config.h"

#include <stdint.h>

struct cts_peft_module {
    uint32_t        layer;
    enum cts_linear linear;
    uint32_t        rank, n_out, n_in;
    float           scale; /* alpha / r, or alpha / sqrt(r) */
    const float    *a;     /* [rank, n_in] */
    const float    *b;     /* [n_out, rank], scale not folded in */
};

struct cts_peft {
    uint32_t                n_modules; /* >= 1 */
    struct cts_peft_module *modules;   /* sorted by layer, then linear */
    uint32_t                rank_max;
    uint64_t                tensor_bytes; /* of A and B as they lie in the file */
    uint8_t                 digest[CTS_DIGEST_BYTES];
    char                    base_name[256]; /* base_model_name_or_path: noted, never trusted */
    void                   *memory;         /* private */
};

/* Read dir for a base of shape c and identity base_digest. Nothing half loaded:
 * on failure *p is empty. 0; -errno, CTS_EFORMAT, CTS_EUNSUP. Blocks; any thread.
 *
 * The digest is BLAKE2b-256 over the field "cts-adapter-1", the base digest,
 * then per module (ascending by layer, then linear): for A and then for B u32
 * layer, u32 linear, u8 'A' or 'B', u8 dtype, u64 shape[2] and the bytes as they
 * lie in the file; after both the module's scale as float32. Integers little
 * endian. So neither the order of the tensors in the file nor the spelling of
 * their names counts, and alpha counts through the scale only. */
int  cts_peft_read(struct cts_peft *p, const char *dir, const struct cts_model_config *c,
                   const uint8_t base_digest[CTS_DIGEST_BYTES], struct cts_err *err);
void cts_peft_free(struct cts_peft *p); /* NULL and empty are fine */

#endif
