/* The tensors of a PEFT folder. First every name is placed, then every shape is
 * checked against the base, then the bytes are read once: the same bytes are
 * hashed and widened, so the digest is of what is served. */
#include "daemon/model/peft.h"

#include "common/assert.h"
#include "common/safetensors.h"
#include "daemon/model/peft_config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALIGN_BYTES 64

/* The tensors of one module, by cts_module_idx. */
struct pair {
    const struct cts_tensor *a, *b;
};

struct reader {
    const struct cts_model_config *c;
    struct cts_peft_config         config;
    struct cts_safetensors         file;
    struct pair                   *pairs; /* [n_layers * CTS_N_LINEARS] */
    uint8_t                       *raw;   /* the largest tensor as it lies in the file */
    struct cts_blake2b             hash;
};

/* ---- names ---- */

/* Drop prefix from *s; 0 when it does not begin with it. */
static int take(const char **s, const char *prefix)
{
    size_t n = strlen(prefix);

    if (strncmp(*s, prefix, n) != 0) return 0;
    *s += n;
    return 1;
}

/* A decimal number as Python writes one, below limit. */
static int take_number(const char **s, uint32_t limit, uint32_t *out)
{
    const char *p = *s;
    uint32_t    v = 0;

    if (*p < '0' || *p > '9' || (p[0] == '0' && p[1] >= '0' && p[1] <= '9')) return 0;
    for (; *p >= '0' && *p <= '9'; p++) {
        v = v * 10 + (uint32_t)(*p - '0');
        if (v >= limit) return 0; /* limit is small: no overflow */
    }
    *s = p;
    *out = v;
    return 1;
}

/* Place a tensor by its name. PEFT writes "base_model.model." in front, some
 * exporters strip it; OpenDelta leaves ".weight" off. 0 when it is no A or B of
 * the seven linears of one of the base's layers. */
static int parse_name(const char *name, uint32_t n_layers, uint32_t *layer, int *linear, char *which)
{
    const char *s = name, *dot;
    int         is_mlp;

    (void)take(&s, "base_model.model.");
    if (!take(&s, "model.layers.") || !take_number(&s, n_layers, layer)) return 0;
    is_mlp = take(&s, ".mlp.");
    if (!is_mlp && !take(&s, ".self_attn.")) return 0;
    dot = strchr(s, '.');
    if (dot == NULL) return 0;
    *linear = cts_linear_from_name(s, (size_t)(dot - s));
    if (*linear < 0 || is_mlp != (*linear >= CTS_GATE)) return 0;
    s = dot;
    if (take(&s, ".lora_A")) *which = 'A';
    else if (take(&s, ".lora_B")) *which = 'B';
    else return 0;
    return *s == '\0' || strcmp(s, ".weight") == 0;
}

/* Why a tensor has no place. */
static const char *why_unknown(const char *name)
{
    size_t n = strlen(name);

    if (strstr(name, "lora_magnitude_vector") != NULL) return "DoRA is not supported";
    if (strstr(name, "lora_B.bias") != NULL) return "a bias of the adapter's own is not supported";
    if (strstr(name, "lora_embedding_") != NULL) return "adapters of the embedding are not supported";
    if (strstr(name, ".base_layer.") != NULL) return "weights of the base cannot come with an adapter";
    if (strstr(name, ".lora_A") != NULL || strstr(name, ".lora_B") != NULL)
        return "no such linear layer in the base, or not as PEFT's save_pretrained names it";
    if (n > 5 && strcmp(name + n - 5, ".bias") == 0) return "biases of the base cannot come with an adapter";
    return "full weights (modules_to_save) are not supported, and other tensors are not known";
}

static int place(struct reader *r, const struct cts_tensor *t, struct cts_err *err)
{
    const struct cts_tensor **to;
    uint32_t                  layer;
    int                       linear;
    char                      which;

    if (!parse_name(t->name, r->c->n_layers, &layer, &linear, &which))
        return cts_err_set(err, CTS_EUNSUP, "'%s': tensor '%s': %s", r->file.path, t->name, why_unknown(t->name));
    to = which == 'A' ? &r->pairs[cts_module_idx(layer, (enum cts_linear)linear)].a
                      : &r->pairs[cts_module_idx(layer, (enum cts_linear)linear)].b;
    if (*to != NULL)
        return cts_err_set(err, CTS_EFORMAT, "'%s': tensors '%s' and '%s' are the same one", r->file.path,
                           (*to)->name, t->name);
    *to = t;
    return 0;
}

/* ---- shapes ---- */

static int check_tensor(const struct reader *r, const struct cts_tensor *t, uint32_t rows, uint32_t cols,
                        uint32_t rank, struct cts_err *err)
{
    char   found[96] = "";
    size_t n = 0;

    if (t->dtype == 0)
        return cts_err_set(err, CTS_EUNSUP, "'%s': tensor '%s' is %s, F32, F16 and BF16 are read", r->file.path,
                           t->name, t->dtype_name);
    if (t->n_dims == 2 && t->dim[0] == rows && t->dim[1] == cols) return 0;
    for (uint32_t i = 0; i < t->n_dims; i++)
        n += (size_t)snprintf(found + n, sizeof(found) - n, "%s%llu", i > 0 ? ", " : "",
                              (unsigned long long)t->dim[i]);
    return cts_err_set(err, CTS_EFORMAT,
                       "'%s': tensor '%s' is [%s], expected [%u, %u]: rank %u by the configuration, the "
                       "rest by the base",
                       r->file.path, t->name, found, rows, cols, rank);
}

/* One module of the adapter: everything but the values. */
static int check_pair(const struct reader *r, uint32_t layer, enum cts_linear l, struct cts_peft_module *m,
                      struct cts_err *err)
{
    const struct pair *p = &r->pairs[cts_module_idx(layer, l)];
    char               module[64];
    int                rc;

    if (p->a == NULL || p->b == NULL)
        return cts_err_set(err, CTS_EFORMAT, "'%s': tensor '%s' has no lora_%c beside it", r->file.path,
                           p->a != NULL ? p->a->name : p->b->name, p->a != NULL ? 'B' : 'A');
    snprintf(module, sizeof(module), "model.layers.%u.%s.%s", layer, l >= CTS_GATE ? "mlp" : "self_attn",
             cts_linear_name(l));
    *m = (struct cts_peft_module){ .layer = layer, .linear = l };
    cts_peft_config_module(&r->config, module, &m->rank, &m->scale);
    cts_linear_shape(r->c, l, &m->n_out, &m->n_in);
    rc = check_tensor(r, p->a, m->rank, m->n_in, m->rank, err);
    if (rc == 0) rc = check_tensor(r, p->b, m->n_out, m->rank, m->rank, err);
    return rc;
}

/* ---- memory and values ---- */

static size_t padded(size_t bytes)
{
    return (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

/* Place every tensor, count the modules, and find the memory that all takes. */
static int survey(struct reader *r, struct cts_peft *p, size_t *bytes, size_t *raw_bytes, struct cts_err *err)
{
    struct cts_peft_module m;

    for (uint32_t i = 0; i < r->file.n_tensors; i++) {
        int rc = place(r, &r->file.tensors[i], err);
        if (rc < 0) return rc;
    }
    for (uint32_t i = 0; i < r->c->n_layers * CTS_N_LINEARS; i++) {
        const struct pair *q = &r->pairs[i];
        int                rc;
        if (q->a == NULL && q->b == NULL) continue;
        rc = check_pair(r, i / CTS_N_LINEARS, (enum cts_linear)(i % CTS_N_LINEARS), &m, err);
        if (rc < 0) return rc;
        /* Each tensor lies in a file whole: the sum is far below 2^63. */
        *bytes += padded(q->a->n_values * sizeof(float)) + padded(q->b->n_values * sizeof(float));
        if (q->a->bytes > *raw_bytes) *raw_bytes = q->a->bytes;
        if (q->b->bytes > *raw_bytes) *raw_bytes = q->b->bytes;
        p->tensor_bytes += q->a->bytes + q->b->bytes;
        p->n_modules++;
    }
    if (p->n_modules == 0) return cts_err_set(err, CTS_EFORMAT, "'%s' has no LoRA tensors", r->file.path);
    return 0;
}

/* Read, hash and widen one tensor into dst; refuse values that are not finite. */
static int read_tensor(struct reader *r, const struct cts_peft_module *m, const struct cts_tensor *t, char which,
                       float *dst, struct cts_err *err)
{
    int rc = cts_safetensors_read(&r->file, t, r->raw, err);

    if (rc < 0) return rc;
    cts_blake2b_add_int(&r->hash, m->layer, 4);
    cts_blake2b_add_int(&r->hash, (uint32_t)m->linear, 4);
    cts_blake2b_add_int(&r->hash, (uint8_t)which, 1);
    cts_blake2b_add_int(&r->hash, (uint8_t)t->dtype, 1);
    cts_blake2b_add_int(&r->hash, t->dim[0], 8);
    cts_blake2b_add_int(&r->hash, t->dim[1], 8);
    cts_blake2b_add(&r->hash, r->raw, t->bytes);
    cts_dtype_widen(dst, r->raw, t->n_values, t->dtype);
    for (uint64_t i = 0; i < t->n_values; i++)
        if (!isfinite(dst[i]))
            return cts_err_set(err, CTS_EFORMAT, "'%s': tensor '%s' holds %s at [%llu, %llu]", r->file.path,
                               t->name, isnan(dst[i]) ? "NaN" : "infinity", (unsigned long long)(i / t->dim[1]),
                               (unsigned long long)(i % t->dim[1]));
    return 0;
}

static int read_module(struct reader *r, struct cts_peft_module *m, uint8_t **at, struct cts_err *err)
{
    const struct pair *q = &r->pairs[cts_module_idx(m->layer, m->linear)];
    float   *a = (float *)(void *)*at, *b = (float *)(void *)(*at + padded(q->a->n_values * sizeof(float)));
    uint32_t scale_bits;
    int      rc = read_tensor(r, m, q->a, 'A', a, err);

    if (rc == 0) rc = read_tensor(r, m, q->b, 'B', b, err);
    if (rc < 0) return rc;
    memcpy(&scale_bits, &m->scale, sizeof(scale_bits));
    cts_blake2b_add_int(&r->hash, scale_bits, 4);
    *at = (uint8_t *)b + padded(q->b->n_values * sizeof(float));
    m->a = a;
    m->b = b;
    return 0;
}

/* One block: the modules, then A and B of each. */
static int read_values(struct reader *r, struct cts_peft *p, size_t bytes, size_t raw_bytes, struct cts_err *err)
{
    size_t   head = padded(p->n_modules * sizeof(*p->modules));
    uint8_t *at;
    uint32_t n = 0;

    p->memory = aligned_alloc(ALIGN_BYTES, head + bytes);
    r->raw = malloc(raw_bytes + 1);
    if (p->memory == NULL || r->raw == NULL)
        return cts_err_set(err, -ENOMEM, "'%s': %zu bytes", r->file.path, head + bytes + raw_bytes);
    p->modules = p->memory;
    at = (uint8_t *)p->memory + head;
    for (uint32_t i = 0; i < r->c->n_layers * CTS_N_LINEARS; i++) {
        struct cts_peft_module *m = &p->modules[n];
        int                     rc;
        if (r->pairs[i].a == NULL) continue;
        rc = check_pair(r, i / CTS_N_LINEARS, (enum cts_linear)(i % CTS_N_LINEARS), m, err);
        if (rc == 0) rc = read_module(r, m, &at, err);
        if (rc < 0) return rc;
        if (m->rank > p->rank_max) p->rank_max = m->rank;
        n++;
    }
    CTS_ASSERT(n == p->n_modules);
    CTS_ASSERT(at == (uint8_t *)p->memory + head + bytes);
    return 0;
}

/* ---- the folder ---- */

static int open_files(struct reader *r, const char *dir, struct cts_err *err)
{
    char path[4096];
    int  rc;

    if (snprintf(path, sizeof(path), "%s/adapter_model.safetensors", dir) >= (int)sizeof(path))
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", dir);
    snprintf(path, sizeof(path), "%s/adapter_config.json", dir);
    rc = cts_peft_config_load(&r->config, path, err);
    if (rc < 0) return rc;
    snprintf(path, sizeof(path), "%s/adapter_model.safetensors", dir);
    rc = cts_safetensors_open(&r->file, path, err);
    if (rc != -ENOENT) return rc;
    snprintf(path, sizeof(path), "%s/adapter_model.bin", dir);
    if (access(path, F_OK) != 0) return rc;
    return cts_err_set(err, CTS_EUNSUP,
                       "'%s' is a pickle, which can run code: save the adapter again as safetensors "
                       "(save_pretrained does so unless safe_serialization is off)",
                       path);
}

static int read_all(struct reader *r, struct cts_peft *p, const char *dir, const uint8_t *base_digest,
                    struct cts_err *err)
{
    size_t bytes = 0, raw_bytes = 0;
    int    rc = open_files(r, dir, err);

    if (rc < 0) return rc;
    r->pairs = calloc((size_t)r->c->n_layers * CTS_N_LINEARS, sizeof(*r->pairs));
    if (r->pairs == NULL) return cts_err_set(err, -ENOMEM, "'%s'", dir);
    cts_blake2b_init(&r->hash);
    cts_blake2b_add_field(&r->hash, "cts-adapter-1", 13);
    cts_blake2b_add(&r->hash, base_digest, CTS_DIGEST_BYTES);
    rc = survey(r, p, &bytes, &raw_bytes, err);
    if (rc == 0) rc = read_values(r, p, bytes, raw_bytes, err);
    if (rc < 0) return rc;
    cts_blake2b_end(&r->hash, p->digest);
    memcpy(p->base_name, r->config.base_name, sizeof(p->base_name));
    return 0;
}

int cts_peft_read(struct cts_peft *p, const char *dir, const struct cts_model_config *c,
                  const uint8_t base_digest[CTS_DIGEST_BYTES], struct cts_err *err)
{
    struct reader r = { .c = c, .file.fd = -1 };
    int           rc;

    CTS_ASSERT(c->n_layers >= 1 && c->n_layers <= CTS_LAYERS_MAX);
    *p = (struct cts_peft){ 0 };
    rc = read_all(&r, p, dir, base_digest, err);
    free(r.raw);
    free(r.pairs);
    cts_safetensors_close(&r.file);
    cts_peft_config_free(&r.config);
    if (rc < 0) cts_peft_free(p);
    return rc;
}

void cts_peft_free(struct cts_peft *p)
{
    if (p == NULL) return;
    free(p->memory);
    *p = (struct cts_peft){ 0 };
}
