#include "daemon/model/peft.h"
#include "common/json.h"
#include "common/safetensors.h"
#include "tests/check.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#define ADAPTER "contrib/demo/adapters/own-start/case-sentence"
#define PFX     "base_model.model.model.layers."

static struct cts_model_config config;
static uint8_t                 base_digest[CTS_DIGEST_BYTES];
static char                    dir[256], config_path[300], model_path[300], bin_path[300];

/* The good adapter in memory, for a case to change: values, names, shapes. */
static json_t               *good_config;
static struct cts_tensor_out good[64];
static uint32_t              n_good;

static void load_good(void)
{
    struct cts_safetensors f;
    struct cts_err         err = { 0 };
    char                   path[512];

    CHECK(cts_json_load(src_path(path, sizeof(path), ADAPTER "/adapter_config.json"), 1 << 20, &good_config,
                        &err) == 0);
    CHECK(cts_safetensors_open(&f, src_path(path, sizeof(path), ADAPTER "/adapter_model.safetensors"), &err) == 0);
    for (uint32_t i = 0; i < f.n_tensors; i++) {
        const struct cts_tensor *t = &f.tensors[i];
        float                   *v = malloc(t->n_values * sizeof(float));
        CHECK(v != NULL && cts_safetensors_read_f32(&f, t, v, &err) == 0);
        good[n_good] = (struct cts_tensor_out){ strdup(t->name), t->dtype, t->n_dims, { 0 }, v };
        memcpy(good[n_good++].dim, t->dim, sizeof(t->dim));
    }
    cts_safetensors_close(&f);
}

static void free_good(void)
{
    for (uint32_t i = 0; i < n_good; i++) {
        free((void *)good[i].name);
        free((void *)good[i].values);
    }
    json_decref(good_config);
}

/* Write the folder: the good configuration with the keys of changes (a JSON object) set, and these tensors.
 */
static void write_folder(const char *changes, const struct cts_tensor_out *t, uint32_t n)
{
    json_t        *doc = json_deep_copy(good_config), *chg = json_loads(changes, JSON_DECODE_ANY, NULL);
    struct cts_err err = { 0 };

    CHECK(doc != NULL && chg != NULL);
    CHECK(json_object_update(doc, chg) == 0);
    CHECK(json_dump_file(doc, config_path, 0) == 0);
    json_decref(chg);
    json_decref(doc);
    CHECK_MSG(cts_safetensors_write(model_path, t, n, &err) == 0, "%s\n", err.text);
}

static void check_refused(const char *label, int code, const char *want, const char *file)
{
    struct cts_peft p;
    struct cts_err  err = { 0 };
    int             rc = cts_peft_read(&p, dir, &config, base_digest, &err);

    CHECK_MSG(rc == code && strstr(err.text, want) != NULL, "%s: want %d '%s', got %d '%s'\n", label, code, want,
              rc, err.text);
    CHECK_MSG(strstr(err.text, file) != NULL, "no '%s' in '%s'\n", file, err.text);
    CHECK(p.modules == NULL && p.memory == NULL && p.n_modules == 0 && p.tensor_bytes == 0);
}

static void peft_refuses_by_key_what_is_not_plain_lora(void **state)
{
    static const struct {
        const char *changes;
        int         code;
        const char *want;
    } CASES[] = {
        { "{\"peft_type\":\"IA3\"}", CTS_EUNSUP, "'peft_type' is 'IA3'" },
        { "{\"peft_type\":3}", CTS_EFORMAT, "'peft_type' is an integer" },
        { "{\"task_type\":\"SEQ_CLS\"}", CTS_EUNSUP, "'task_type' is 'SEQ_CLS'" },
        { "{\"use_dora\":true}", CTS_EUNSUP, "'use_dora' is set: DoRA" },
        { "{\"lora_bias\":true}", CTS_EUNSUP, "'lora_bias' is set" },
        { "{\"bias\":\"all\"}", CTS_EUNSUP, "'bias' is 'all'" },
        { "{\"bias\":\"lora_only\"}", CTS_EUNSUP, "'bias' is 'lora_only'" },
        { "{\"fan_in_fan_out\":true}", CTS_EUNSUP, "'fan_in_fan_out'" },
        { "{\"modules_to_save\":[\"lm_head\"]}", CTS_EUNSUP, "'modules_to_save'" },
        { "{\"trainable_token_indices\":[5]}", CTS_EUNSUP, "'trainable_token_indices'" },
        { "{\"layer_replication\":[[0,4],[2,4]]}", CTS_EUNSUP, "'layer_replication'" },
        { "{\"target_parameters\":[\"experts\"]}", CTS_EUNSUP, "'target_parameters'" },
        { "{\"alora_invocation_tokens\":[7,8]}", CTS_EUNSUP, "'alora_invocation_tokens'" },
        { "{\"arrow_config\":{\"top_k\":2}}", CTS_EUNSUP, "'arrow_config'" },
        { "{\"kasa_config\":{\"beta\":1}}", CTS_EUNSUP, "'kasa_config'" },
        { "{\"use_bdlora\":true}", CTS_EUNSUP, "'use_bdlora'" },
        { "{\"use_qalora\":true}", CTS_EUNSUP, "'use_qalora'" },
        { "{\"monteclora_config\":{\"n\":1}}", CTS_EUNSUP, "'monteclora_config'" },
        { "{\"velora_config\":{\"n\":1}}", CTS_EUNSUP, "'velora_config'" },
        { "{\"megatron_config\":{\"n\":1}}", CTS_EUNSUP, "'megatron_config'" },
        { "{\"init_lora_weights\":\"pissa_niter_16\"}", CTS_EUNSUP, "'init_lora_weights' is 'pissa_niter_16'" },
        { "{\"init_lora_weights\":\"olora\"}", CTS_EUNSUP, "path_initial_model_for_weight_conversion" },
        { "{\"init_lora_weights\":\"loftq\"}", CTS_EUNSUP, "'loftq'" },
        { "{\"init_lora_weights\":2}", CTS_EFORMAT, "'init_lora_weights'" },
        { "{\"something_new\":1}", CTS_EUNSUP, "'something_new' is set and not known here" },
        { "{\"something_new\":{\"x\":null}}", CTS_EUNSUP, "'something_new'" },
        { "{\"r\":8}", CTS_EFORMAT, "is [16, 256], expected [8, 256]: rank 8 by the configuration" },
        { "{\"r\":0}", CTS_EFORMAT, "'r' is 0" },
        { "{\"r\":4097}", CTS_EFORMAT, "'r' is 4097" },
        { "{\"r\":\"16\"}", CTS_EFORMAT, "'r' is a string" },
        { "{\"lora_alpha\":\"32\"}", CTS_EFORMAT, "'lora_alpha' is a string" },
        { "{\"rank_pattern\":{\"v_proj\":8}}", CTS_EFORMAT, "expected [8, 256]" },
        { "{\"rank_pattern\":{\"v_proj\":0}}", CTS_EFORMAT, "'rank_pattern': the value of 'v_proj'" },
        { "{\"rank_pattern\":{\"v_proj\":16.0}}", CTS_EFORMAT, "'rank_pattern': the value of 'v_proj'" },
        { "{\"rank_pattern\":[]}", CTS_EFORMAT, "'rank_pattern' is not an object" },
        { "{\"alpha_pattern\":{\"v_proj\":\"x\"}}", CTS_EFORMAT, "'alpha_pattern': the value of 'v_proj'" },
        { "{\"alpha_pattern\":{\"(?=v)v_proj\":1}}", CTS_EUNSUP, "'alpha_pattern' has the pattern '(?=v)v_proj'" },
        { "{\"alpha_pattern\":{\".*?v_proj\":1}}", CTS_EUNSUP, "the pattern '.*?v_proj'" },
        { "{\"alpha_pattern\":{\".+?v_proj\":1}}", CTS_EUNSUP, "the pattern '.+?v_proj'" },
        { "{\"alpha_pattern\":{\"*v_proj\":1}}", CTS_EUNSUP, "the pattern '*v_proj'" },
        { "{\"alpha_pattern\":{\"\\\\wv_proj\":1}}", CTS_EUNSUP, "the pattern '\\wv_proj'" },
        { "{\"alpha_pattern\":{\"v{1}_proj\":1}}", CTS_EUNSUP, "the pattern 'v{1}_proj'" },
        { "{\"alpha_pattern\":{\"v[]]_proj\":1}}", CTS_EUNSUP, "the pattern 'v[]]_proj'" },
        { "{\"alpha_pattern\":{\"v[[:alpha:]]\":1}}", CTS_EUNSUP, "the pattern 'v[[:alpha:]]'" },
        { "{\"alpha_pattern\":{\"(v_proj\":1}}", CTS_EFORMAT, "malformed" },
        { "{\"alpha_pattern\":{\"v_proj \":1}}", CTS_EUNSUP, "the pattern 'v_proj '" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        write_folder(CASES[i].changes, good, n_good);
        check_refused(CASES[i].changes, CASES[i].code, CASES[i].want, dir);
    }
}

static void peft_accepts_keys_that_change_nothing(void **state)
{
    static const char *const CASES[] = {
        "{}",
        "{\"auto_mapping\":{\"a\":1},\"peft_version\":\"0.21.2\",\"revision\":\"main\",\"lora_dropout\":0.1}",
        "{\"megatron_core\":\"megatron.core\",\"qalora_group_size\":16,\"loftq_config\":{\"bits\":4}}",
        "{\"new_null\":null,\"new_false\":false,\"new_list\":[],\"new_object\":{},\"new_text\":\"\"}",
        "{\"modules_to_save\":[],\"use_dora\":false,\"target_parameters\":null,\"task_type\":null}",
        "{\"bias\":null,\"layer_replication\":[]}",
        "{\"init_lora_weights\":\"gaussian\"}",
        "{\"init_lora_weights\":\"Orthogonal\"}",
        "{\"init_lora_weights\":false,\"target_modules\":\"all-linear\",\"layers_to_transform\":[0,1]}",
        "{\"r\":8,\"rank_pattern\":{\"q_proj\":16,\"[kv]_proj\":16}}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct cts_peft p;
        struct cts_err  err = { 0 };
        write_folder(CASES[i], good, n_good);
        CHECK_MSG(cts_peft_read(&p, dir, &config, base_digest, &err) == 0, "%s: %s\n", CASES[i], err.text);
        CHECK(p.n_modules == 12 && p.rank_max == 16 && p.modules[0].scale == 2.0f);
        cts_peft_free(&p);
    }
}

/* What a case does to one tensor, found by the beginning of its name after PFX. */
enum change { DROP, ADD, SHAPE, POKE };

struct tensor_case {
    enum change op;
    const char *tensor; /* the whole name where one is added */
    uint32_t    n_dims;
    uint64_t    dim[3];
    float       value; /* at index 5 */
    int         code;
    const char *want;
};

/* clang-format off: one case a line */
#define L0 PFX "0.self_attn."
static const struct tensor_case TENSOR_CASES[] = {
    { DROP, "0.self_attn.q_proj.lora_A", 0, { 0 }, 0, CTS_EFORMAT, "q_proj.lora_B.weight' has no lora_A" },
    { DROP, "3.self_attn.v_proj.lora_B", 0, { 0 }, 0, CTS_EFORMAT, "v_proj.lora_A.weight' has no lora_B" },
    { POKE, "1.self_attn.k_proj.lora_A", 0, { 0 }, NAN, CTS_EFORMAT, "k_proj.lora_A.weight' holds NaN at [0, 5]" },
    { POKE, "1.self_attn.k_proj.lora_B", 0, { 0 }, -INFINITY, CTS_EFORMAT, "holds infinity at [0, 5]" },
    { SHAPE, "0.self_attn.q_proj.lora_A", 2, { 16, 255 }, 0, CTS_EFORMAT, "is [16, 255], expected [16, 256]" },
    { SHAPE, "0.self_attn.q_proj.lora_A", 2, { 15, 256 }, 0, CTS_EFORMAT, "is [15, 256], expected [16, 256]" },
    { SHAPE, "0.self_attn.q_proj.lora_A", 1, { 4096 }, 0, CTS_EFORMAT, "is [4096], expected" },
    { SHAPE, "0.self_attn.q_proj.lora_A", 3, { 1, 16, 256 }, 0, CTS_EFORMAT, "is [1, 16, 256], expected" },
    { SHAPE, "0.self_attn.q_proj.lora_A", 0, { 0 }, 0, CTS_EFORMAT, "is [], expected" },
    { SHAPE, "0.self_attn.q_proj.lora_B", 2, { 256, 8 }, 0, CTS_EFORMAT, "is [256, 8], expected [256, 16]" },
    { SHAPE, "2.self_attn.k_proj.lora_B", 2, { 127, 16 }, 0, CTS_EFORMAT, "is [127, 16], expected [128, 16]" },
    { ADD, L0 "q_proj.lora_magnitude_vector", 1, { 256 }, 0, CTS_EUNSUP, "DoRA" },
    { ADD, L0 "q_proj.lora_B.bias", 1, { 256 }, 0, CTS_EUNSUP, "bias of the adapter's own" },
    { ADD, L0 "q_proj.bias", 1, { 256 }, 0, CTS_EUNSUP, "biases of the base" },
    { ADD, "base_model.model.model.embed_tokens.lora_embedding_A", 2, { 16, 64 }, 0, CTS_EUNSUP, "embedding" },
    { ADD,
      "base_model.model.model.embed_tokens.base_layer.weight",
      1,
      { 64 },
      0,
      CTS_EUNSUP,
      "weights of the base" },
    { ADD, "base_model.model.lm_head.weight", 1, { 64 }, 0, CTS_EUNSUP, "modules_to_save" },
    { ADD, "base_model.model.lm_head.lora_A.weight", 2, { 16, 256 }, 0, CTS_EUNSUP, "no such linear layer" },
    { ADD, PFX "4.self_attn.q_proj.lora_A.weight", 2, { 16, 256 }, 0, CTS_EUNSUP, "no such linear layer" },
    { ADD, PFX "00.self_attn.q_proj.lora_A.weight", 2, { 16, 256 }, 0, CTS_EUNSUP, "no such linear layer" },
    { ADD, PFX "4294967296.mlp.up_proj.lora_A.weight", 2, { 16, 256 }, 0, CTS_EUNSUP, "no such linear layer" },
    { ADD, PFX "0.mlp.q_proj.lora_A.weight", 2, { 16, 256 }, 0, CTS_EUNSUP, "no such linear layer" },
    { ADD, L0 "up_proj.lora_A.weight", 2, { 16, 256 }, 0, CTS_EUNSUP, "no such linear layer" },
    { ADD, L0 "qkv_proj.lora_A.weight", 2, { 16, 256 }, 0, CTS_EUNSUP, "no such linear layer" },
    { ADD, L0 "q_proj.lora_A.default.weight", 2, { 16, 256 }, 0, CTS_EUNSUP, "save_pretrained" },
    { ADD, PFX "0.mlp.up_proj.lora_A.weight", 2, { 16, 256 }, 0, CTS_EFORMAT, "has no lora_B" },
    { ADD, "model.layers.0.self_attn.q_proj.lora_A.weight", 2, { 16, 256 }, 0, CTS_EFORMAT, "are the same one" },
    { ADD, L0 "q_proj.lora_A", 2, { 16, 256 }, 0, CTS_EFORMAT, "are the same one" },
};
/* clang-format on */

/* The good tensors with c's change, in t; returns their count. */
static uint32_t change_one(const struct tensor_case *c, const float *values, struct cts_tensor_out *t)
{
    uint32_t n = 0, n_found = 0;

    for (uint32_t k = 0; k < n_good; k++) {
        t[n] = good[k];
        if (c->op != ADD && strncmp(good[k].name + sizeof(PFX) - 1, c->tensor, strlen(c->tensor)) == 0) {
            n_found++;
            if (c->op == DROP) continue;
            t[n].values = values;
            if (c->op == SHAPE) t[n].n_dims = c->n_dims;
            if (c->op == SHAPE) memcpy(t[n].dim, c->dim, sizeof(c->dim));
        }
        n++;
    }
    CHECK(n_found == (c->op != ADD));
    if (c->op == ADD) {
        t[n] = (struct cts_tensor_out){ c->tensor, CTS_F32, c->n_dims, { 0 }, values };
        memcpy(t[n++].dim, c->dim, sizeof(c->dim));
    }
    return n;
}

static void peft_refuses_by_name_what_is_wrong_with_a_tensor(void **state)
{
    static float          values[16 * 256 + 1];
    struct cts_tensor_out t[65];

    (void)state;
    for (size_t i = 0; i < sizeof(TENSOR_CASES) / sizeof(TENSOR_CASES[0]); i++) {
        const struct tensor_case *c = &TENSOR_CASES[i];
        values[5] = c->value;
        write_folder("{}", t, change_one(c, values, t));
        check_refused(c->tensor, c->code, c->want, model_path);
    }
    write_folder("{}", good, 0);
    check_refused("no tensors", CTS_EFORMAT, "has no LoRA tensors", model_path);
}

static void peft_refuses_folders_that_lack_a_file_and_pickles(void **state)
{
    FILE *f;

    (void)state;
    write_folder("{}", good, n_good);
    CHECK(unlink(model_path) == 0);
    check_refused("no model", -ENOENT, "open", model_path);
    f = fopen(bin_path, "w");
    CHECK(f != NULL && fclose(f) == 0);
    check_refused("a pickle", CTS_EUNSUP, "pickle", bin_path);
    CHECK(unlink(bin_path) == 0);
    CHECK(unlink(config_path) == 0);
    check_refused("no config", -ENOENT, "open", config_path);
    f = fopen(config_path, "w");
    CHECK(f != NULL && fputs("{\"r\":16}", f) >= 0 && fclose(f) == 0);
    check_refused("not peft", CTS_EFORMAT, "'peft_type' is missing", config_path);
    f = fopen(config_path, "w");
    CHECK(f != NULL && fputs("{\"r\":16,\"r\":8}", f) >= 0 && fclose(f) == 0);
    check_refused("key twice", CTS_EFORMAT, "uplicate", config_path);
}

static void peft_scales_each_module_as_the_patterns_say(void **state)
{
    static const struct {
        const char *changes;
        float       q0, v1, k3; /* scales of layer 0's q, layer 1's v, layer 3's k */
    } CASES[] = {
        { "{}", 2, 2, 2 },
        { "{\"use_rslora\":true}", 8, 8, 8 },
        { "{\"lora_alpha\":24.5}", 1.53125f, 1.53125f, 1.53125f },
        { "{\"lora_alpha\":0}", 0, 0, 0 },
        { "{\"alpha_pattern\":{\"q_proj\":8}}", 0.5f, 2, 2 },
        { "{\"alpha_pattern\":{\"q_proj\":8},\"use_rslora\":true}", 2, 8, 8 },
        { "{\"alpha_pattern\":{\"proj\":8}}", 2, 2, 2 }, /* whole name parts only */
        { "{\"alpha_pattern\":{\"q_pro\":8}}", 2, 2, 2 },
        { "{\"alpha_pattern\":{\"self_attn.q_proj\":8,\"q_proj\":64,\"v_proj\":16}}", 0.5f, 1,
          2 }, /* the first counts */
        { "{\"alpha_pattern\":{\"q_proj\":64,\"self_attn.q_proj\":8,\"v_proj\":16}}", 4, 1, 2 },
        { "{\"alpha_pattern\":{\"model.layers.1.self_attn.v_proj\":48}}", 2, 3, 2 },
        { "{\"alpha_pattern\":{\"^model\\\\.layers\\\\.[0-1]\\\\..*\":4}}", 0.25f, 0.25f, 2 },
        { "{\"alpha_pattern\":{\"layers\\\\.\\\\d+\\\\.self_attn\\\\.(q|k)_proj\":4}}", 0.25f, 2, 0.25f },
        { "{\"alpha_pattern\":{\"^q_proj\":4,\"k_proj$\":8,\"[^qk]_proj\":16}}", 2, 1,
          0.5f }, /* ^: the whole path */
        { "{\"alpha_pattern\":{\"v_proj|q_proj\":4}}", 0.25f, 0.25f, 2 },
        { "{\"alpha_pattern\":{\"layers.(1|3).*\":4}}", 2, 0.25f, 0.25f },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct cts_peft p;
        struct cts_err  err = { 0 };
        write_folder(CASES[i].changes, good, n_good);
        CHECK_MSG(cts_peft_read(&p, dir, &config, base_digest, &err) == 0, "%s: %s\n", CASES[i].changes, err.text);
        CHECK_MSG(p.modules[0].scale == CASES[i].q0 && p.modules[5].scale == CASES[i].v1 &&
                      p.modules[10].scale == CASES[i].k3,
                  "%s: %g %g %g\n", CASES[i].changes, p.modules[0].scale, p.modules[5].scale, p.modules[10].scale);
        cts_peft_free(&p);
    }
}

static void peft_hands_out_the_values_of_the_file(void **state)
{
    struct cts_peft p;
    struct cts_err  err = { 0 };
    char            path[512];

    (void)state;
    CHECK_MSG(cts_peft_read(&p, src_path(path, sizeof(path), ADAPTER), &config, base_digest, &err) == 0, "%s\n",
              err.text);
    CHECK(p.n_modules == 12 && p.rank_max == 16 && strcmp(p.base_name, "cts-demo-base") == 0);
    CHECK(p.tensor_bytes == 2 * 4 * (4096 + 4096 + 2 * (4096 + 2048)));
    for (uint32_t i = 0; i < p.n_modules; i++) {
        const struct cts_peft_module *m = &p.modules[i];
        uint32_t                      found = 0;
        CHECK(m->layer == i / 3 && (uint32_t)m->linear == i % 3 && m->rank == 16 && m->n_in == 256);
        CHECK(m->n_out == (m->linear == CTS_Q ? 256 : 128));
        CHECK((uintptr_t)m->a % 64 == 0 && (uintptr_t)m->b % 64 == 0);
        for (uint32_t k = 0; k < n_good; k++) {
            snprintf(path, sizeof(path), PFX "%u.self_attn.%s.lora_", m->layer, cts_linear_name(m->linear));
            if (strncmp(good[k].name, path, strlen(path)) != 0) continue;
            found++;
            CHECK(memcmp(good[k].name[strlen(path)] == 'A' ? m->a : m->b, good[k].values,
                         good[k].dim[0] * good[k].dim[1] * sizeof(float)) == 0);
        }
        CHECK(found == 2);
    }
    cts_peft_free(&p);
    cts_peft_free(&p);
    cts_peft_free(NULL);
}

static void read_digest(const char *path, uint8_t out[CTS_DIGEST_BYTES])
{
    struct cts_peft p;
    struct cts_err  err = { 0 };

    CHECK_MSG(cts_peft_read(&p, path, &config, base_digest, &err) == 0, "%s\n", err.text);
    memcpy(out, p.digest, CTS_DIGEST_BYTES);
    cts_peft_free(&p);
}

static void peft_digest_is_of_values_scale_and_base_and_of_nothing_else(void **state)
{
    /* Computed with Python's hashlib from the header comment. */
    static const char     WANT[] = "0d6b81547121a502c2acf2156eb3b3e74ebe78ddbb57ef71bb792100bbd24db3";
    struct cts_tensor_out t[64];
    uint8_t               want[CTS_DIGEST_BYTES], got[CTS_DIGEST_BYTES];
    float                *v;
    char                  path[512];

    (void)state;
    CHECK(cts_digest_from_hex(WANT, want) == 0);
    read_digest(src_path(path, sizeof(path), ADAPTER), got);
    CHECK(memcmp(got, want, sizeof(got)) == 0);

    for (uint32_t i = 0; i < n_good; i++) { /* another order, without the prefix */
        t[i] = good[n_good - 1 - i];
        t[i].name += sizeof("base_model.model.") - 1;
    }
    write_folder("{\"base_model_name_or_path\":\"another\",\"r\":16,\"rank_pattern\":{\"q_proj\":16}}", t, n_good);
    read_digest(dir, got);
    CHECK(memcmp(got, want, sizeof(got)) == 0);

    write_folder("{\"lora_alpha\":33}", good, n_good);
    read_digest(dir, got);
    CHECK(memcmp(got, want, sizeof(got)) != 0);

    memcpy(t, good, sizeof(good));
    t[3].dtype = CTS_F32; /* the same values in another format */
    write_folder("{}", t, n_good);
    read_digest(dir, got);
    CHECK(memcmp(got, want, sizeof(got)) != 0);

    v = malloc(16 * 256 * sizeof(float));
    CHECK(v != NULL);
    memcpy(v, good[0].values, 16 * 256 * sizeof(float));
    v[4095] = v[4095] == 1 ? 2 : 1;
    t[3].dtype = good[3].dtype;
    t[0].values = v;
    write_folder("{}", t, n_good);
    free(v);
    read_digest(dir, got);
    CHECK(memcmp(got, want, sizeof(got)) != 0);

    base_digest[7]++;
    read_digest(src_path(path, sizeof(path), ADAPTER), got);
    base_digest[7]--;
    CHECK(memcmp(got, want, sizeof(got)) != 0);
}

static void peft_reads_all_seven_linears_and_ragged_ranks(void **state)
{
    static float          zeros[640 * 16];
    struct cts_tensor_out t[4] = {
        { "model.layers.3.mlp.down_proj.lora_B.weight", CTS_F32, 2, { 256, 3 }, zeros },
        { "model.layers.3.mlp.down_proj.lora_A.weight", CTS_F16, 2, { 3, 640 }, zeros },
        { "model.layers.1.self_attn.o_proj.lora_A", CTS_BF16, 2, { 1, 256 }, zeros },
        { "model.layers.1.self_attn.o_proj.lora_B", CTS_F32, 2, { 256, 1 }, zeros },
    };
    struct cts_peft p;
    struct cts_err  err = { 0 };

    (void)state;
    write_folder("{\"rank_pattern\":{\"down_proj\":3,\"o_proj\":1}}", t, 4);
    CHECK_MSG(cts_peft_read(&p, dir, &config, base_digest, &err) == 0, "%s\n", err.text);
    CHECK(p.n_modules == 2 && p.rank_max == 3);
    CHECK(p.modules[0].layer == 1 && p.modules[0].linear == CTS_O && p.modules[0].rank == 1 &&
          p.modules[0].scale == 32);
    CHECK(p.modules[1].layer == 3 && p.modules[1].linear == CTS_DOWN && p.modules[1].n_in == 640 &&
          p.modules[1].n_out == 256);
    cts_peft_free(&p);
}

static void peft_cuts_a_long_base_name_at_a_character(void **state)
{
    struct cts_peft p;
    struct cts_err  err = { 0 };
    char            changes[600] = "{\"base_model_name_or_path\":\"";

    (void)state;
    for (int i = 0; i < 200; i++) strcat(changes, "\xc3\xa4");
    strcat(changes, "\"}");
    write_folder(changes, good, n_good);
    CHECK_MSG(cts_peft_read(&p, dir, &config, base_digest, &err) == 0, "%s\n", err.text);
    CHECK(strlen(p.base_name) == 254);
    cts_peft_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peft_refuses_by_key_what_is_not_plain_lora),
        cmocka_unit_test(peft_accepts_keys_that_change_nothing),
        cmocka_unit_test(peft_refuses_by_name_what_is_wrong_with_a_tensor),
        cmocka_unit_test(peft_refuses_folders_that_lack_a_file_and_pickles),
        cmocka_unit_test(peft_scales_each_module_as_the_patterns_say),
        cmocka_unit_test(peft_hands_out_the_values_of_the_file),
        cmocka_unit_test(peft_digest_is_of_values_scale_and_base_and_of_nothing_else),
        cmocka_unit_test(peft_reads_all_seven_linears_and_ragged_ranks),
        cmocka_unit_test(peft_cuts_a_long_base_name_at_a_character),
    };
    char path[512];
    int  rc;

    if (cts_model_config_load(&config, src_path(path, sizeof(path), "contrib/demo/base"), NULL) < 0) return 1;
    for (int i = 0; i < CTS_DIGEST_BYTES; i++) base_digest[i] = (uint8_t)i;
    temp_dir(dir, sizeof(dir));
    snprintf(config_path, sizeof(config_path), "%s/adapter_config.json", dir);
    snprintf(model_path, sizeof(model_path), "%s/adapter_model.safetensors", dir);
    snprintf(bin_path, sizeof(bin_path), "%s/adapter_model.bin", dir);
    load_good();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    free_good();
    unlink(config_path);
    unlink(model_path);
    rmdir(dir);
    return rc;
}
