#include "daemon/model/peft_config.h"

#include "common/json.h"
#include "common/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONFIG_BYTES_MAX  ((size_t)1 << 20)
#define PATTERNS_MAX      1024
#define PATTERN_BYTES_MAX 256

struct cts_peft_pattern {
    regex_t re;
    double  value;
};

/* Keys that are read elsewhere here, or that say nothing about the tensors: how
 * they were trained and which modules were meant. The tensors in the file are
 * the truth about the latter. */
static const char *const PASSED[] = {
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "init_lora_weights",
    "auto_mapping",
    "peft_version",
    "inference_mode",
    "revision",
    "lora_dropout",
    "megatron_core",
    "qalora_group_size",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    /* judged through init_lora_weights: */
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "ensure_weight_tying",
};

/* Keys that change what the tensors mean, with the reason for the message. */
static const struct {
    const char *key, *why;
} REFUSED[] = {
    { "use_dora", "DoRA rescales the columns of the base's weights" },
    { "lora_bias", "a bias of the adapter's own is not supported" },
    { "fan_in_fan_out", "transposed weights belong to Conv1D models" },
    { "modules_to_save", "full copies of modules cannot be shared between adapters" },
    { "trainable_token_indices", "changed embedding rows are not supported" },
    { "layer_replication", "it changes the depth of the model" },
    { "target_parameters", "adapters of expert tensors are not supported" },
    { "alora_invocation_tokens", "adapters that act after certain tokens only are not supported" },
    { "arrow_config", "routing between adapters is not supported" },
    { "kasa_config", "KaSA is not plain LoRA" },
    { "use_bdlora", "block-diagonal LoRA is not supported" },
    { "bdlora_config", "block-diagonal LoRA is not supported" },
    { "use_qalora", "QALoRA pools its inputs" },
    { "monteclora_config", "MonteCLoRA is not plain LoRA" },
    { "velora_config", "VeLoRA is not plain LoRA" },
    { "megatron_config", "Megatron's parallel layers are not supported" },
};

static int is_empty(const json_t *v)
{
    return json_is_null(v) || json_is_false(v) || (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0) || (json_is_string(v) && json_string_length(v) == 0);
}

static int check_key(const char *key, const json_t *v, const char *name, struct cts_err *err)
{
    for (size_t i = 0; i < sizeof(PASSED) / sizeof(PASSED[0]); i++)
        if (strcmp(key, PASSED[i]) == 0) return 0;
    if (is_empty(v)) return 0; /* newer versions of PEFT write many of these */
    for (size_t i = 0; i < sizeof(REFUSED) / sizeof(REFUSED[0]); i++)
        if (strcmp(key, REFUSED[i].key) == 0)
            return cts_err_set(err, CTS_EUNSUP, "'%s': '%s' is set: %s", name, key, REFUSED[i].why);
    return cts_err_set(err, CTS_EUNSUP,
                       "'%s': '%.64s' is set and not known here: it may change what the tensors mean", name, key);
}

/* Starts that leave the base's weights alone. The others subtract from them, so
 * that A and B are right on a changed base only. */
static int check_init(const json_t *doc, const char *name, struct cts_err *err)
{
    static const char *const FINE[] = { "gaussian", "eva", "orthogonal" };
    const json_t            *v = json_object_get(doc, "init_lora_weights");

    if (v == NULL || json_is_null(v) || json_is_boolean(v)) return 0;
    if (!json_is_string(v))
        return cts_err_set(err, CTS_EFORMAT, "'%s': 'init_lora_weights' is neither a boolean nor a string", name);
    for (size_t i = 0; i < sizeof(FINE) / sizeof(FINE[0]); i++)
        if (strcasecmp(json_string_value(v), FINE[i]) == 0) return 0;
    return cts_err_set(err, CTS_EUNSUP,
                       "'%s': 'init_lora_weights' is '%.64s', which changes the base at the start: save the "
                       "adapter again with path_initial_model_for_weight_conversion",
                       name, json_string_value(v));
}

static int check_keys(json_t *doc, const char *name, struct cts_err *err)
{
    const char *key;
    json_t     *v;
    int         rc;

    if (json_object_get(doc, "peft_type") == NULL)
        return cts_err_set(err, CTS_EFORMAT, "'%s': 'peft_type' is missing: not the configuration of an adapter?",
                           name);
    rc = cts_json_want_str(doc, "peft_type", "LORA", name, err);
    if (rc == 0) rc = cts_json_want_str(doc, "task_type", "CAUSAL_LM", name, err);
    if (rc == 0) rc = cts_json_want_str(doc, "bias", "none", name, err);
    if (rc == 0) rc = check_init(doc, name, err);
    if (rc < 0) return rc;
    json_object_foreach(doc, key, v)
    {
        rc = check_key(key, v, name, err);
        if (rc < 0) return rc;
    }
    return 0;
}

/* ---- patterns: Python's re on the way in, POSIX extended on the way out ---- */

/* Copy the bracket expression at *in; 0 when it holds more than letters, digits, '_', '-' and a leading '^'.
 */
static int put_bracket(const char **in, char **out)
{
    const char *p = *in;
    size_t      n;

    *(*out)++ = *p++;
    if (*p == '^') *(*out)++ = *p++;
    for (n = 0; isalnum((unsigned char)*p) || *p == '_' || *p == '-'; n++) *(*out)++ = *p++;
    if (n == 0 || *p != ']') return 0;
    *(*out)++ = *p++;
    *in = p;
    return 1;
}

/* Translate key, where it uses nothing but what both dialects match alike:
 * letters, digits, _ - . \. \d [] () | ^ $ and single * + ?. Laziness does not
 * matter for whether a whole name matches, but "x+?" reads as "(x+)?" in
 * POSIX; a quantifier after a quantifier is therefore refused. */
static int translate(const char *key, char *out)
{
    int can_repeat = 0; /* a quantifier may follow */

    for (const char *p = key; *p != '\0';) {
        if (isalnum((unsigned char)*p) || strchr("_-.", *p) != NULL) {
            *out++ = *p++;
            can_repeat = 1;
        } else if (p[0] == '\\' && p[1] == '.') {
            *out++ = *p++;
            *out++ = *p++;
            can_repeat = 1;
        } else if (p[0] == '\\' && p[1] == 'd') {
            memcpy(out, "[0-9]", 5);
            out += 5;
            p += 2;
            can_repeat = 1;
        } else if (*p == '[') {
            if (!put_bracket(&p, &out)) return 0;
            can_repeat = 1;
        } else if (strchr("*+?", *p) != NULL) {
            if (!can_repeat) return 0;
            *out++ = *p++;
            can_repeat = 0;
        } else if (strchr("()|^$", *p) != NULL) {
            can_repeat = *p == ')';
            *out++ = *p++;
        } else {
            return 0;
        }
    }
    *out = '\0';
    return 1;
}

/* PEFT matches re.match(r"(.*\.)?(" + key + r")$", module). */
static int compile(struct cts_peft_pattern *pat, const char *key, const char *where, const char *name,
                   struct cts_err *err)
{
    char middle[3 * PATTERN_BYTES_MAX + 1], whole[3 * PATTERN_BYTES_MAX + 16];
    int  rc;

    if (strlen(key) > PATTERN_BYTES_MAX || !translate(key, middle))
        return cts_err_set(err, CTS_EUNSUP,
                           "'%s': '%s' has the pattern '%.96s': understood are letters, digits, _ - . \\. \\d "
                           "[] () | ^ $ * + ? up to %d bytes",
                           name, where, key, PATTERN_BYTES_MAX);
    snprintf(whole, sizeof(whole), "^(.*\\.)?(%s)$", middle);
    rc = regcomp(&pat->re, whole, REG_EXTENDED | REG_NOSUB);
    if (rc == 0) return 0;
    return cts_err_set(err, rc == REG_ESPACE ? -ENOMEM : CTS_EFORMAT, "'%s': '%s': the pattern '%.96s'%s", name,
                       where, key, rc == REG_ESPACE ? "" : " is malformed");
}

/* doc[where], an object of pattern: number, into new memory. */
static int read_patterns(json_t *doc, const char *where, double lo, double hi, int is_integer,
                         struct cts_peft_pattern **out, uint32_t *n_out, const char *name, struct cts_err *err)
{
    json_t     *obj = json_object_get(doc, where), *v;
    const char *key;

    if (obj == NULL || json_is_null(obj)) return 0;
    if (!json_is_object(obj)) return cts_err_set(err, CTS_EFORMAT, "'%s': '%s' is not an object", name, where);
    if (json_object_size(obj) > PATTERNS_MAX)
        return cts_err_set(err, CTS_EUNSUP, "'%s': '%s' has %zu patterns, at most %d are read", name, where,
                           json_object_size(obj), PATTERNS_MAX);
    *out = calloc(json_object_size(obj) + 1, sizeof(**out));
    if (*out == NULL) return cts_err_set(err, -ENOMEM, "'%s': '%s'", name, where);
    json_object_foreach(obj, key, v)
    {
        struct cts_peft_pattern *pat = &(*out)[*n_out];
        int                      rc;

        if (!(is_integer ? json_is_integer(v) : json_is_number(v)) ||
            !(json_number_value(v) >= lo && json_number_value(v) <= hi))
            return cts_err_set(err, CTS_EFORMAT, "'%s': '%s': the value of '%.96s' is no %s from %g to %g", name,
                               where, key, is_integer ? "integer" : "number", lo, hi);
        rc = compile(pat, key, where, name, err);
        if (rc < 0) return rc;
        pat->value = json_number_value(v);
        (*n_out)++;
    }
    return 0;
}

static void free_patterns(struct cts_peft_pattern *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) regfree(&p[i].re);
    free(p);
}

/* The first pattern that matches, as PEFT looks them up; NULL when none does. */
static const struct cts_peft_pattern *find(const struct cts_peft_pattern *p, uint32_t n, const char *module)
{
    for (uint32_t i = 0; i < n; i++)
        if (regexec(&p[i].re, module, 0, NULL, 0) == 0) return &p[i];
    return NULL;
}

/* ---- the whole ---- */

static void copy_base_name(char *dst, size_t cap, const char *src)
{
    size_t n = strnlen(src, cap - 1);

    memcpy(dst, src, n);
    dst[n - cts_utf8_tail(dst, n)] = '\0';
}

static int from_doc(struct cts_peft_config *c, json_t *doc, const char *name, struct cts_err *err)
{
    const char *base = "";
    int         rc;

    *c = (struct cts_peft_config){ .rank = 8, .alpha = 8 }; /* PEFT's defaults */
    rc = check_keys(doc, name, err);
    if (rc < 0) return rc;
    rc = cts_json_int(doc, "r", 1, CTS_LORA_RANK_MAX, &c->rank, err);
    if (rc >= 0) rc = cts_json_real(doc, "lora_alpha", -1e6, 1e6, &c->alpha, err);
    if (rc >= 0) rc = cts_json_bool(doc, "use_rslora", &c->is_rslora, err);
    if (rc >= 0) rc = cts_json_str(doc, "base_model_name_or_path", &base, err);
    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", name);
    copy_base_name(c->base_name, sizeof(c->base_name), base);
    rc = read_patterns(doc, "rank_pattern", 1, CTS_LORA_RANK_MAX, 1, &c->rank_patterns, &c->n_rank_patterns, name,
                       err);
    if (rc == 0)
        rc = read_patterns(doc, "alpha_pattern", -1e6, 1e6, 0, &c->alpha_patterns, &c->n_alpha_patterns, name, err);
    return rc;
}

int cts_peft_config_parse(struct cts_peft_config *c, const void *text, size_t n, const char *name,
                          struct cts_err *err)
{
    json_t *doc = NULL;
    int     rc;

    *c = (struct cts_peft_config){ 0 };
    rc = cts_json_parse(text, n, name, &doc, err);
    if (rc == 0) rc = from_doc(c, doc, name, err);
    if (rc < 0) cts_peft_config_free(c);
    json_decref(doc);
    return rc;
}

int cts_peft_config_load(struct cts_peft_config *c, const char *path, struct cts_err *err)
{
    json_t *doc = NULL;
    int     rc;

    *c = (struct cts_peft_config){ 0 };
    rc = cts_json_load(path, CONFIG_BYTES_MAX, &doc, err);
    if (rc == 0) rc = from_doc(c, doc, path, err);
    if (rc < 0) cts_peft_config_free(c);
    json_decref(doc);
    return rc;
}

void cts_peft_config_free(struct cts_peft_config *c)
{
    if (c == NULL) return;
    free_patterns(c->rank_patterns, c->n_rank_patterns);
    free_patterns(c->alpha_patterns, c->n_alpha_patterns);
    *c = (struct cts_peft_config){ 0 };
}

void cts_peft_config_module(const struct cts_peft_config *c, const char *module, uint32_t *rank, float *scale)
{
    const struct cts_peft_pattern *r = find(c->rank_patterns, c->n_rank_patterns, module);
    const struct cts_peft_pattern *a = find(c->alpha_patterns, c->n_alpha_patterns, module);
    double rr = r != NULL ? r->value : (double)c->rank, aa = a != NULL ? a->value : c->alpha;

    *rank = (uint32_t)rr;
    *scale = (float)(c->is_rslora ? aa / sqrt(rr) : aa / rr);
}
