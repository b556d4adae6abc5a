/* config.json of Llama, in the spelling of transformers 4 (rope_theta,
 * rope_scaling, torch_dtype) and of 5 (rope_parameters, dtype). A key that is
 * absent has Llama's default; a key that would change the forward pass in a way
 * that ours does not have is refused. */
#include "daemon/model/model_config.h"

#include "common/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_BYTES_MAX ((size_t)1 << 20)
#define POSITIONS_MAX    ((int64_t)1 << 22) /* the rotation table has a row for each */

/* One of the two files, for messages. */
struct source {
    const json_t *doc;
    const char   *name;
};

/* The layers that an adapter may change, in the order of enum cts_linear. */
static const char *const LINEAR_NAMES[CTS_N_LINEARS] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
};

const char *cts_linear_name(enum cts_linear l)
{
    return LINEAR_NAMES[l];
}

int cts_linear_from_name(const char *name, size_t n)
{
    for (int l = 0; l < CTS_N_LINEARS; l++)
        if (strlen(LINEAR_NAMES[l]) == n && memcmp(LINEAR_NAMES[l], name, n) == 0) return l;
    return -1;
}

void cts_linear_shape(const struct cts_model_config *c, enum cts_linear l, uint32_t *n_out, uint32_t *n_in)
{
    uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;

    *n_in = l == CTS_O ? q : l == CTS_DOWN ? c->intermediate : c->hidden;
    *n_out = l == CTS_Q                     ? q
             : l == CTS_K || l == CTS_V     ? kv
             : l == CTS_GATE || l == CTS_UP ? c->intermediate
                                            : c->hidden;
}

/* ---- what must be as Llama has it ---- */

static int check_architecture(const struct source *s, struct cts_err *err)
{
    const char   *type = "(none)", *arch = "LlamaForCausalLM";
    const json_t *list = json_object_get(s->doc, "architectures");
    int           rc = cts_json_str(s->doc, "model_type", &type, err);

    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", s->name);
    if (strcmp(type, "llama") != 0)
        return cts_err_set(err, CTS_EUNSUP, "'%s': 'model_type' is '%.64s', only 'llama' is read", s->name, type);
    if (list == NULL || json_is_null(list)) return 0;
    if (!json_is_array(list) || json_array_size(list) != 1 || !json_is_string(json_array_get(list, 0)))
        return cts_err_set(err, CTS_EUNSUP, "'%s': 'architectures' is not a list of one name", s->name);
    arch = json_string_value(json_array_get(list, 0));
    if (strcmp(arch, "LlamaForCausalLM") != 0)
        return cts_err_set(err, CTS_EUNSUP, "'%s': 'architectures' has '%.64s', only 'LlamaForCausalLM' is read",
                           s->name, arch);
    return 0;
}

static int check_off(const struct source *s, const char *key, struct cts_err *err)
{
    int is_on = 0, rc = cts_json_bool(s->doc, key, &is_on, err);

    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", s->name);
    if (!is_on) return 0;
    return cts_err_set(err, CTS_EUNSUP, "'%s': '%s' is true: biases are not supported", s->name, key);
}

/* Keys that Llama has no use for, and whose presence says that the weights want another forward pass. */
static int check_absent(const struct source *s, struct cts_err *err)
{
    static const char *const KEYS[] = { "quantization_config", "sliding_window", "layer_types", "text_config" };

    for (size_t i = 0; i < sizeof(KEYS) / sizeof(KEYS[0]); i++) {
        const json_t *v = json_object_get(s->doc, KEYS[i]);
        if (v != NULL && !json_is_null(v))
            return cts_err_set(err, CTS_EUNSUP, "'%s': '%s' is set, which is not supported", s->name, KEYS[i]);
    }
    return 0;
}

static int check_dtypes(const struct source *s, struct cts_err *err)
{
    const char *older = NULL, *newer = NULL;
    int         rc = cts_json_str(s->doc, "torch_dtype", &older, err);

    if (rc >= 0) rc = cts_json_str(s->doc, "dtype", &newer, err);
    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", s->name);
    if (older == NULL || newer == NULL || strcmp(older, newer) == 0) return 0;
    return cts_err_set(err, CTS_EFORMAT, "'%s': 'torch_dtype' is '%.32s' and 'dtype' is '%.32s': they must agree",
                       s->name, older, newer);
}

/* ---- rotary embedding ---- */

/* Take theta from obj, where it has one; *is_set says whether one was seen before. */
static int take_theta(const json_t *obj, double *theta, int *is_set, const char *name, struct cts_err *err)
{
    double v = 0;
    int    rc = cts_json_real(obj, "rope_theta", 1e-3, 1e12, &v, err);

    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", name);
    if (rc == 0) return 0;
    if (*is_set && v != *theta)
        return cts_err_set(err, CTS_EFORMAT, "'%s': 'rope_theta' is there twice, %g and %g: they must agree", name,
                           *theta, v);
    *theta = v;
    *is_set = 1;
    return 0;
}

static int check_partial(const json_t *obj, const char *name, struct cts_err *err)
{
    double v = 1;
    int    rc = cts_json_real(obj, "partial_rotary_factor", -1e9, 1e9, &v, err);

    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", name);
    if (v == 1) return 0;
    return cts_err_set(err, CTS_EUNSUP, "'%s': 'partial_rotary_factor' is %g, only 1 is supported", name, v);
}

/* 'rope_parameters' or 'rope_scaling': only the default rotation, in either spelling of its name. */
static int check_rope_object(const struct source *s, const char *where, double *theta, int *is_set,
                             struct cts_err *err)
{
    static const char *const KNOWN[] = { "rope_type", "type", "rope_theta", "partial_rotary_factor" };
    json_t                  *obj = json_object_get(s->doc, where), *v;
    const char              *key;
    size_t                   i;
    int                      rc;

    if (obj == NULL || json_is_null(obj)) return 0;
    if (!json_is_object(obj)) return cts_err_set(err, CTS_EFORMAT, "'%s': '%s' is not an object", s->name, where);
    rc = cts_json_want_str(obj, "rope_type", "default", s->name, err);
    if (rc == 0) rc = cts_json_want_str(obj, "type", "default", s->name, err);
    if (rc == 0) rc = take_theta(obj, theta, is_set, s->name, err);
    if (rc == 0) rc = check_partial(obj, s->name, err);
    if (rc < 0) return rc;
    json_object_foreach(obj, key, v)
    {
        for (i = 0; i < sizeof(KNOWN) / sizeof(KNOWN[0]) && strcmp(key, KNOWN[i]) != 0; i++) continue;
        if (i == sizeof(KNOWN) / sizeof(KNOWN[0]) && !json_is_null(v))
            return cts_err_set(err, CTS_EUNSUP, "'%s': '%s' has '%.64s', only the default rotation is supported",
                               s->name, where, key);
    }
    return 0;
}

static int read_rope(struct cts_model_config *c, const struct source *s, struct cts_err *err)
{
    int is_set = 0, rc;

    c->rope_theta = 10000;
    rc = take_theta(s->doc, &c->rope_theta, &is_set, s->name, err);
    if (rc == 0) rc = check_rope_object(s, "rope_parameters", &c->rope_theta, &is_set, err);
    if (rc == 0) rc = check_rope_object(s, "rope_scaling", &c->rope_theta, &is_set, err);
    if (rc == 0) rc = check_partial(s->doc, s->name, err);
    return rc;
}

/* ---- sizes ---- */

static int read_sizes(struct cts_model_config *c, const struct source *s, struct cts_err *err)
{
    /* 0: computed from the others below. */
    const struct {
        const char *key;
        int64_t     hi, dflt;
        uint32_t   *to;
    } SIZES[] = {
        { "vocab_size", 1 << 21, 32000, &c->vocab_size },
        { "hidden_size", 1 << 16, 4096, &c->hidden },
        { "intermediate_size", 1 << 18, 11008, &c->intermediate },
        { "num_hidden_layers", CTS_LAYERS_MAX, 32, &c->n_layers },
        { "num_attention_heads", 1 << 10, 32, &c->n_heads },
        { "num_key_value_heads", 1 << 10, 0, &c->n_kv_heads },
        { "head_dim", 1 << 10, 0, &c->head_dim },
        { "max_position_embeddings", POSITIONS_MAX, 2048, &c->max_positions },
    };

    for (size_t i = 0; i < sizeof(SIZES) / sizeof(SIZES[0]); i++) {
        int64_t v = SIZES[i].dflt;
        int     rc = cts_json_int(s->doc, SIZES[i].key, 1, SIZES[i].hi, &v, err);
        if (rc < 0) return cts_err_prefix(err, rc, "'%s'", s->name);
        *SIZES[i].to = (uint32_t)v;
    }
    return 0;
}

/* Fill what follows from other sizes, and check that the parts divide. */
static int check_shapes(struct cts_model_config *c, const struct source *s, struct cts_err *err)
{
    if (c->n_kv_heads == 0) c->n_kv_heads = c->n_heads;
    if (c->head_dim == 0) {
        if (c->hidden % c->n_heads != 0)
            return cts_err_set(err, CTS_EFORMAT,
                               "'%s': 'hidden_size' %u is no multiple of 'num_attention_heads' %u, and "
                               "'head_dim' is not given",
                               s->name, c->hidden, c->n_heads);
        c->head_dim = c->hidden / c->n_heads;
    }
    if (c->n_heads % c->n_kv_heads != 0)
        return cts_err_set(err, CTS_EFORMAT,
                           "'%s': 'num_attention_heads' %u is no multiple of 'num_key_value_heads' %u", s->name,
                           c->n_heads, c->n_kv_heads);
    if (c->head_dim % 2 != 0)
        return cts_err_set(err, CTS_EFORMAT, "'%s': 'head_dim' %u is odd, the rotation wants pairs", s->name,
                           c->head_dim);
    if (c->n_heads * c->head_dim > 1u << 17) /* both at most 2^10 and 2^16: no overflow */
        return cts_err_set(err, CTS_EUNSUP, "'%s': %u heads of %u are wider than %u", s->name, c->n_heads,
                           c->head_dim, 1u << 17);
    return 0;
}

/* ---- stop tokens and sampling ---- */

static int add_stop(struct cts_model_config *c, const json_t *v, const char *name, struct cts_err *err)
{
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;

    if (id < 0 || id >= (json_int_t)c->vocab_size)
        return cts_err_set(err, CTS_EFORMAT,
                           "'%s': 'eos_token_id' holds something that is no token of a vocabulary of %u", name,
                           c->vocab_size);
    for (uint32_t i = 0; i < c->n_stop_tokens; i++)
        if (c->stop_tokens[i] == id) return 0;
    if (c->n_stop_tokens == CTS_STOP_TOKENS_MAX)
        return cts_err_set(err, CTS_EUNSUP, "'%s': more than %d stop tokens", name, CTS_STOP_TOKENS_MAX);
    c->stop_tokens[c->n_stop_tokens++] = (int32_t)id;
    return 0;
}

/* An integer, a list, null (none), or absent (*is_given stays). */
static int read_stops(struct cts_model_config *c, const struct source *s, int *is_given, struct cts_err *err)
{
    const json_t *v = json_object_get(s->doc, "eos_token_id");
    int           rc = 0;

    if (v == NULL) return 0;
    *is_given = 1;
    if (json_is_null(v)) return 0;
    if (!json_is_array(v)) return add_stop(c, v, s->name, err);
    for (size_t i = 0; i < json_array_size(v) && rc == 0; i++) rc = add_stop(c, json_array_get(v, i), s->name, err);
    return rc;
}

static int read_sampling(struct cts_model_config *c, const struct source *s, struct cts_err *err)
{
    double  temperature = NAN, top_p = NAN;
    int64_t top_k = 0;
    int     is_sampled = 1, rc;

    rc = cts_json_bool(s->doc, "do_sample", &is_sampled, err);
    if (rc >= 0) rc = cts_json_real(s->doc, "temperature", 0, 100, &temperature, err);
    if (rc >= 0) rc = cts_json_real(s->doc, "top_p", 0, 1, &top_p, err);
    if (rc >= 0) rc = cts_json_int(s->doc, "top_k", 0, INT32_MAX, &top_k, err);
    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", s->name);
    c->temperature = is_sampled ? (float)temperature : 0; /* do_sample false is greedy, whatever else is there */
    c->top_p = (float)top_p;
    c->top_k = (uint32_t)top_k;
    return 0;
}

/* ---- the whole ---- */

static int read_config(struct cts_model_config *c, const struct source *s, struct cts_err *err)
{
    double eps = 1e-6;
    int    rc = check_architecture(s, err);

    if (rc == 0) rc = check_absent(s, err);
    if (rc == 0) rc = cts_json_want_str(s->doc, "hidden_act", "silu", s->name, err);
    if (rc == 0) rc = check_off(s, "attention_bias", err);
    if (rc == 0) rc = check_off(s, "mlp_bias", err);
    if (rc == 0) rc = check_dtypes(s, err);
    if (rc == 0) rc = read_rope(c, s, err);
    if (rc == 0) rc = read_sizes(c, s, err);
    if (rc == 0) rc = check_shapes(c, s, err);
    if (rc < 0) return rc;
    rc = cts_json_real(s->doc, "rms_norm_eps", 1e-12, 1, &eps, err);
    if (rc >= 0) rc = cts_json_bool(s->doc, "tie_word_embeddings", &c->is_tied, err);
    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", s->name);
    c->rms_eps = (float)eps;
    return 0;
}

/* Both documents; gen->doc is NULL where there is no generation_config.json. */
static int from_docs(struct cts_model_config *out, const struct source *config, const struct source *gen,
                     struct cts_err *err)
{
    struct cts_model_config c = { .temperature = NAN, .top_p = NAN };
    int                     is_given = 0, rc = read_config(&c, config, err);

    if (rc == 0) rc = read_stops(&c, config, &is_given, err);
    if (rc == 0 && gen->doc != NULL) rc = read_stops(&c, gen, &is_given, err);
    if (rc == 0 && gen->doc != NULL) rc = read_sampling(&c, gen, err);
    if (rc < 0) return rc;
    if (!is_given && c.vocab_size > 2)
        c.stop_tokens[c.n_stop_tokens++] = 2; /* Llama's default, where neither file says */
    *out = c;
    return 0;
}

int cts_model_config_parse(struct cts_model_config *c, struct cts_span config, struct cts_span gen,
                           struct cts_err *err)
{
    json_t *doc = NULL, *gen_doc = NULL;
    int     rc = cts_json_parse(config.ptr, config.len, "config.json", &doc, err);

    if (rc == 0 && gen.ptr != NULL) rc = cts_json_parse(gen.ptr, gen.len, "generation_config.json", &gen_doc, err);
    if (rc == 0)
        rc = from_docs(c, &(struct source){ doc, "config.json" },
                       &(struct source){ gen_doc, "generation_config.json" }, err);
    json_decref(gen_doc);
    json_decref(doc);
    return rc;
}

int cts_model_config_load(struct cts_model_config *c, const char *dir, struct cts_err *err)
{
    char    path[4096], gen_path[4096];
    json_t *doc = NULL, *gen_doc = NULL;
    int     rc;

    if (snprintf(path, sizeof(path), "%s/config.json", dir) >= (int)sizeof(path) ||
        snprintf(gen_path, sizeof(gen_path), "%s/generation_config.json", dir) >= (int)sizeof(gen_path))
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", dir);
    rc = cts_json_load(path, CONFIG_BYTES_MAX, &doc, err);
    if (rc == 0) rc = cts_json_load(gen_path, CONFIG_BYTES_MAX, &gen_doc, err);
    if (rc == -ENOENT && doc != NULL) { /* many a base has no generation_config.json */
        if (err != NULL) *err = (struct cts_err){ 0 };
        rc = 0;
    }
    if (rc == 0) rc = from_docs(c, &(struct source){ doc, path }, &(struct source){ gen_doc, gen_path }, err);
    json_decref(gen_doc);
    json_decref(doc);
    return rc;
}
