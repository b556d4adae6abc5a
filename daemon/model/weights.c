/* model.safetensors onto a device. A list of the tensors that a Llama of this
 * shape has says where each goes in one buffer; a walk over the file in name
 * order fills them, hashes them, and refuses whatever is not on the list. */

#include "daemon/model/weights.h"

#include "common/assert.h"
#include "common/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALIGN_BYTES       64 /* of tensors in the buffer: a cache line, and the widest vector */
#define TENSORS_PER_LAYER 9
#define TENSOR_NAME_BYTES 80
#define UPLOAD_VALUES_MAX (1u << 20) /* widened and copied at a time */

struct place {
    char     name[TENSOR_NAME_BYTES];
    uint32_t n_dims;
    uint64_t dim[2];
    uint64_t off; /* bytes in the buffer */
    int      is_seen;
};

struct places {
    struct place *at; /* [n], sorted by name once complete */
    uint32_t      n;
    uint64_t      rope_off, bytes;
};

/* Where tensors go while they are read: nowhere (buf NULL) or to a device. */
struct sink {
    struct ctsk_stream *stream;
    struct ctsk_buf    *buf;
    uint8_t            *raw;  /* a tensor's bytes as they lie in the file */
    float              *wide; /* [UPLOAD_VALUES_MAX] */
};

static uint64_t n_values(const struct place *p)
{
    return p->dim[0] * (p->n_dims == 2 ? p->dim[1] : 1);
}

static void align_end(struct places *ps)
{
    ps->bytes = (ps->bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

static struct place *add(struct places *ps, uint64_t rows, uint64_t cols)
{
    struct place *p = &ps->at[ps->n++];

    *p = (struct place){ .n_dims = cols == 0 ? 1 : 2, .dim = { rows, cols }, .off = ps->bytes };
    ps->bytes += n_values(p) * sizeof(float);
    return p;
}

static void name_linear(char name[TENSOR_NAME_BYTES], uint32_t layer, enum cts_linear l)
{
    snprintf(name, TENSOR_NAME_BYTES, "model.layers.%u.%s.%s.weight", layer, l <= CTS_O ? "self_attn" : "mlp",
             cts_linear_name(l));
}

static void add_linear(struct places *ps, const struct cts_model_config *c, uint32_t layer, enum cts_linear l)
{
    uint32_t n_out, n_in;

    cts_linear_shape(c, l, &n_out, &n_in);
    name_linear(add(ps, n_out, n_in)->name, layer, l);
}

static void add_layer(struct places *ps, const struct cts_model_config *c, uint32_t layer)
{
    struct place *p;

    p = add(ps, c->hidden, 0);
    snprintf(p->name, sizeof(p->name), "model.layers.%u.input_layernorm.weight", layer);
    align_end(ps);
    p = add(ps, c->hidden, 0);
    snprintf(p->name, sizeof(p->name), "model.layers.%u.post_attention_layernorm.weight", layer);
    align_end(ps);
    for (int l = 0; l < CTS_N_LINEARS; l++) {
        add_linear(ps, c, layer, (enum cts_linear)l);
        if (l >= CTS_V) align_end(ps); /* q, k and v are one matrix to the forward pass */
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct place *)a)->name, ((const struct place *)b)->name);
}

static uint64_t rope_values(const struct cts_model_config *c)
{
    return (uint64_t)c->max_positions * (c->head_dim / 2);
}

/* The list in buffer order: embedding, head, norm, then layer by layer. 0 or -ENOMEM. */
static int list_places(struct places *ps, const struct cts_model_config *c)
{
    *ps = (struct places){ 0 };
    ps->at = calloc(3 + (size_t)c->n_layers * TENSORS_PER_LAYER, sizeof(*ps->at));
    if (ps->at == NULL) return -ENOMEM;

    strcpy(add(ps, c->vocab_size, c->hidden)->name, "model.embed_tokens.weight");
    align_end(ps);
    if (!c->is_tied) strcpy(add(ps, c->vocab_size, c->hidden)->name, "lm_head.weight");
    align_end(ps);
    strcpy(add(ps, c->hidden, 0)->name, "model.norm.weight");
    align_end(ps);
    for (uint32_t i = 0; i < c->n_layers; i++) add_layer(ps, c, i);

    ps->rope_off = ps->bytes;
    ps->bytes += 2 * rope_values(c) * sizeof(float);
    align_end(ps);
    qsort(ps->at, ps->n, sizeof(*ps->at), by_name);
    return 0;
}

static struct place *find(const struct places *ps, const char *name)
{
    struct place key;

    if (strlen(name) >= sizeof(key.name)) return NULL;
    strcpy(key.name, name);
    return bsearch(&key, ps->at, ps->n, sizeof(*ps->at), by_name);
}

/* Tensors that some exporters add and that say nothing new. */
static int is_redundant(const struct cts_model_config *c, const char *name)
{
    const char *end = strstr(name, "rotary_emb.inv_freq");

    return (end != NULL && strcmp(end, "rotary_emb.inv_freq") == 0) ||
           (c->is_tied && strcmp(name, "lm_head.weight") == 0);
}

static int check_tensor(const struct cts_safetensors *f, const struct place *p, const struct cts_tensor *t,
                        struct cts_err *err)
{
    if (cts_dtype_bytes(t->dtype) == 0)
        return cts_err_set(err, CTS_EUNSUP, "%s: tensor %s is %s, wanted F32, F16 or BF16: convert the checkpoint",
                           f->path, t->name, t->dtype_name);
    for (uint32_t i = 0; i < p->n_dims; i++)
        if (t->n_dims != p->n_dims || t->dim[i] != p->dim[i])
            return cts_err_set(err, CTS_EFORMAT,
                               "%s: tensor %s has %u dimensions, %" PRIu64 " x %" PRIu64
                               ", config.json makes it %u, %" PRIu64 " x %" PRIu64,
                               f->path, t->name, t->n_dims, t->dim[0], t->n_dims > 1 ? t->dim[1] : 0, p->n_dims,
                               p->dim[0], p->dim[1]);
    return 0;
}

static void hash_tensor(struct cts_blake2b *h, const struct cts_tensor *t, const uint8_t *raw)
{
    cts_blake2b_add_field(h, t->name, strlen(t->name));
    cts_blake2b_add_int(h, (uint64_t)t->dtype, 1);
    cts_blake2b_add_int(h, t->n_dims, 4);
    for (uint32_t i = 0; i < t->n_dims; i++) cts_blake2b_add_int(h, t->dim[i], 8);
    cts_blake2b_add(h, raw, t->bytes);
}

static void hash_config(struct cts_blake2b *h, const struct cts_model_config *c)
{
    uint32_t eps;
    uint64_t theta;

    memcpy(&eps, &c->rms_eps, sizeof(eps));
    memcpy(&theta, &c->rope_theta, sizeof(theta));
    cts_blake2b_add_int(h, c->n_heads, 4);
    cts_blake2b_add_int(h, c->n_kv_heads, 4);
    cts_blake2b_add_int(h, c->head_dim, 4);
    cts_blake2b_add_int(h, eps, 4);
    cts_blake2b_add_int(h, theta, 8);
}

static int upload_tensor(struct sink *s, const struct place *p, enum cts_dtype dtype, struct cts_err *err)
{
    uint64_t n = n_values(p), n_now;

    for (uint64_t i = 0; i < n; i += n_now) {
        n_now = n - i < UPLOAD_VALUES_MAX ? n - i : UPLOAD_VALUES_MAX;
        cts_dtype_widen(s->wide, s->raw + i * cts_dtype_bytes(dtype), n_now, dtype);
        int rc = ctsk_upload(s->stream, s->buf, p->off + i * sizeof(float), s->wide, n_now * sizeof(float));
        if (rc == 0) rc = ctsk_sync(s->stream); /* wide is filled again */
        if (rc != 0) return cts_err_set(err, rc, "copy tensor %s to the device", p->name);
    }
    return 0;
}

/* Read, hash and place every tensor of the file. */
static int walk(const struct cts_safetensors *f, struct places *ps, const struct cts_model_config *c, struct sink *s,
                uint8_t digest[CTS_DIGEST_BYTES], struct cts_err *err)
{
    struct cts_blake2b h;
    int                rc;

    cts_blake2b_init(&h);
    cts_blake2b_add_field(&h, "cts-base-1", strlen("cts-base-1"));
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        const struct cts_tensor *t = &f->tensors[i];
        struct place            *p = find(ps, t->name);

        if (p == NULL && is_redundant(c, t->name)) continue;
        if (p == NULL)
            return cts_err_set(err, CTS_EUNSUP,
                               "%s: tensor %s is none of a Llama's with %u layers: this base is not supported",
                               f->path, t->name, c->n_layers);
        if ((rc = check_tensor(f, p, t, err)) != 0) return rc;
        if ((rc = cts_safetensors_read(f, t, s->raw, err)) != 0) return rc;
        hash_tensor(&h, t, s->raw);
        if (s->buf != NULL && (rc = upload_tensor(s, p, t->dtype, err)) != 0) return rc;
        p->is_seen = 1;
    }
    for (uint32_t i = 0; i < ps->n; i++)
        if (!ps->at[i].is_seen)
            return cts_err_set(err, CTS_EFORMAT, "%s: tensor %s is missing", f->path, ps->at[i].name);
    hash_config(&h, c);
    cts_blake2b_end(&h, digest);
    return 0;
}

static int open_file(struct cts_safetensors *f, const char *dir, struct cts_err *err)
{
    char path[4096];
    int  rc;

    if (snprintf(path, sizeof(path), "%s/model.safetensors.index.json", dir) >= (int)sizeof(path))
        return cts_err_set(err, -ENAMETOOLONG, "base '%.64s...'", dir);
    if (access(path, F_OK) == 0)
        return cts_err_set(err, CTS_EUNSUP, "%s: weights in several files are not supported: save them as one", path);
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    if ((rc = cts_safetensors_open(f, path, err)) != 0) return rc;
    return 0;
}

/* Everything that the walk needs, then the walk. */
static int read_base(const char *dir, const struct cts_model_config *c, struct places *ps, struct sink *s,
                     uint8_t digest[CTS_DIGEST_BYTES], struct cts_err *err)
{
    struct cts_safetensors f = { .fd = -1 };
    uint64_t               raw_bytes = 1;
    int                    rc = open_file(&f, dir, err);

    if (rc != 0) return rc;
    for (uint32_t i = 0; i < f.n_tensors; i++)
        if (f.tensors[i].bytes > raw_bytes) raw_bytes = f.tensors[i].bytes;
    s->raw = malloc(raw_bytes);
    rc = s->raw == NULL ? cts_err_set(err, -ENOMEM, "%s: a tensor of %" PRIu64 " bytes", f.path, raw_bytes)
                        : walk(&f, ps, c, s, digest, err);
    free(s->raw);
    s->raw = NULL;
    cts_safetensors_close(&f);
    return rc;
}

int cts_base_digest(const char *dir, const struct cts_model_config *c, uint8_t out[CTS_DIGEST_BYTES],
                    struct cts_err *err)
{
    struct places ps;
    struct sink   none = { 0 };
    uint8_t       digest[CTS_DIGEST_BYTES];
    int           rc;

    if (list_places(&ps, c) != 0) return cts_err_set(err, -ENOMEM, "base: list of tensors");
    rc = read_base(dir, c, &ps, &none, digest, err);
    if (rc == 0) memcpy(out, digest, sizeof(digest));
    free(ps.at);
    return rc;
}

/* As Hugging Face makes them: the inverse frequency, the angle and its cosine
 * are float32 each, so that a long context rounds the same way. */
static void fill_rope(const struct cts_model_config *c, float *cos_out, float *sin_out)
{
    uint32_t half = c->head_dim / 2;

    for (uint32_t i = 0; i < half; i++) {
        float power = (float)(2 * i) / (float)c->head_dim;
        float inv_freq = 1.0f / (float)pow(c->rope_theta, power);

        for (uint32_t pos = 0; pos < c->max_positions; pos++) {
            float angle = (float)pos * inv_freq;
            cos_out[(size_t)pos * half + i] = (float)cos(angle);
            sin_out[(size_t)pos * half + i] = (float)sin(angle);
        }
    }
}

static int upload_rope(struct sink *s, const struct places *ps, const struct cts_model_config *c, struct cts_err *err)
{
    uint64_t n = rope_values(c);
    float   *host = malloc(2 * n * sizeof(float));
    int      rc;

    if (host == NULL) return cts_err_set(err, -ENOMEM, "rotary table of %u positions", c->max_positions);
    fill_rope(c, host, host + n);
    rc = ctsk_upload(s->stream, s->buf, ps->rope_off, host, 2 * n * sizeof(float));
    if (rc == 0) rc = ctsk_sync(s->stream);
    free(host);
    return rc == 0 ? 0 : cts_err_set(err, rc, "copy the rotary table to the device");
}

static struct ctsk_ptr place_of(const struct cts_weights *w, const struct places *ps, const char *name)
{
    const struct place *p = find(ps, name);

    CTS_ASSERT(p != NULL);
    return ctsk_at(w->buf, p->off);
}

static void name_places(struct cts_weights *w, const struct places *ps, const struct cts_model_config *c)
{
    char name[TENSOR_NAME_BYTES];

    w->embed = place_of(w, ps, "model.embed_tokens.weight");
    w->head = c->is_tied ? w->embed : place_of(w, ps, "lm_head.weight");
    w->final_norm = place_of(w, ps, "model.norm.weight");
    w->rope_cos = ctsk_at(w->buf, ps->rope_off);
    w->rope_sin = ctsk_at(w->buf, ps->rope_off + rope_values(c) * sizeof(float));
    for (uint32_t i = 0; i < c->n_layers; i++) {
        struct cts_layer_weights *lw = &w->layers[i];

        snprintf(name, sizeof(name), "model.layers.%u.input_layernorm.weight", i);
        lw->attn_norm = place_of(w, ps, name);
        snprintf(name, sizeof(name), "model.layers.%u.post_attention_layernorm.weight", i);
        lw->mlp_norm = place_of(w, ps, name);
        for (int l = 0; l < CTS_N_LINEARS; l++) {
            name_linear(name, i, (enum cts_linear)l);
            lw->linear[l] = place_of(w, ps, name);
        }
    }
}

int cts_weights_load(struct cts_weights *w, struct ctsk_dev *d, const struct cts_model_config *c, const char *dir,
                     struct cts_err *err)
{
    struct places ps = { 0 };
    struct sink   s = { 0 };
    int           rc = -ENOMEM;

    *w = (struct cts_weights){ 0 };
    if (list_places(&ps, c) != 0 || (w->layers = calloc(c->n_layers, sizeof(*w->layers))) == NULL ||
        (s.wide = ctsk_host_new(d, UPLOAD_VALUES_MAX * sizeof(float))) == NULL ||
        (rc = ctsk_buf_new(d, ps.bytes, &w->buf)) != 0 || (rc = ctsk_stream_new(d, &s.stream)) != 0) {
        cts_err_set(err, rc, "base: %" PRIu64 " bytes on the device", ps.bytes);
        goto out;
    }
    s.buf = w->buf;
    w->bytes = ps.bytes;
    if ((rc = read_base(dir, c, &ps, &s, w->digest, err)) != 0) goto out;
    if ((rc = upload_rope(&s, &ps, c, err)) != 0) goto out;
    name_places(w, &ps, c);

out:
    ctsk_stream_free(s.stream);
    if (s.wide != NULL) ctsk_host_free(d, s.wide);
    free(ps.at);
    if (rc != 0) cts_weights_free(w);
    return rc;
}

void cts_weights_free(struct cts_weights *w)
{
    if (w == NULL) return;
    ctsk_buf_free(w->buf);
    free(w->layers);
    *w = (struct cts_weights){ 0 };
}

uint64_t cts_weights_bytes(const struct cts_model_config *c)
{
    struct places ps;
    uint64_t      bytes;

    if (list_places(&ps, c) != 0) return UINT64_MAX;
    bytes = ps.bytes;
    free(ps.at);
    return bytes;
}
