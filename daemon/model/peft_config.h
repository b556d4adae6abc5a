#ifndef CTS_DAEMON_MODEL_PEFT_CONFIG_H
#define CTS_DAEMON_MODEL_PEFT_CONFIG_H

/* What adapter_config.json says of a LoRA: rank, scale, and per-module patterns
 * of both. Every key that would make it something else than plain LoRA is
 * refused by name; so is a key that is not known here, unless it is null, false
 * or empty. */

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#define CTS_LORA_RANK_MAX 4096

struct cts_peft_pattern; /* a compiled key of rank_pattern or alpha_pattern */

struct cts_peft_config {
    int64_t rank;
    double  alpha;
    int     is_rslora;
    char    base_name[256]; /* base_model_name_or_path, cut to whole characters */
    /* In the order of the file: the first that matches counts. */
    struct cts_peft_pattern *rank_patterns, *alpha_patterns;
    uint32_t                 n_rank_patterns, n_alpha_patterns;
};

/* Read n bytes of JSON; name is the file for messages. 0, CTS_EFORMAT,
 * CTS_EUNSUP, -ENOMEM; on failure *c is empty. Any thread. */
int cts_peft_config_parse(struct cts_peft_config *c, const void *text, size_t n, const char *name,
                          struct cts_err *err);
/* The same from the file at path. Also -errno. Blocks. */
int  cts_peft_config_load(struct cts_peft_config *c, const char *path, struct cts_err *err);
void cts_peft_config_free(struct cts_peft_config *c); /* NULL and empty are fine */

/* Rank and scale of a module by its path in the model
 * ("model.layers.0.self_attn.q_proj"). Scale is alpha / rank, or alpha /
 * sqrt(rank) with use_rslora. */
void cts_peft_config_module(const struct cts_peft_config *c, const char *module, uint32_t *rank, float *scale);

#endif
