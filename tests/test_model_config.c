#include "daemon/model/model_config.h"
#include "common/json.h"
#include "tests/check.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

/* A small good config.json; a case sets keys of it (a JSON object), null removes one. */
static const char GOOD[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":2048,\"hidden_size\":"
    "256,"
    "\"intermediate_size\":640,\"num_hidden_layers\":4,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"head_dim\":64,"
    "\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-05,\"max_position_embeddings\":1024,\"tie_word_embeddings\":"
    "true,"
    "\"attention_bias\":false,\"mlp_bias\":false,\"bos_token_id\":1,\"eos_token_id\":2}";

static int parse(const char *changes, const char *gen, struct cts_model_config *c, struct cts_err *err)
{
    json_t     *doc = json_loads(GOOD, 0, NULL), *chg = json_loads(changes, JSON_DECODE_ANY, NULL), *v;
    const char *key;
    char       *text;
    int         rc;

    CHECK(doc != NULL && chg != NULL);
    json_object_foreach(chg, key, v)
    {
        if (json_is_null(v)) json_object_del(doc, key);
        else CHECK(json_object_set(doc, key, v) == 0);
    }
    text = json_dumps(doc, 0);
    CHECK(text != NULL);
    rc = cts_model_config_parse(c, (struct cts_span){ (const uint8_t *)text, strlen(text) },
                                (struct cts_span){ (const uint8_t *)gen, gen != NULL ? strlen(gen) : 0 }, err);
    free(text);
    json_decref(chg);
    json_decref(doc);
    return rc;
}

static void config_refuses_by_file_and_key_what_forward_does_not_have(void **state)
{
    static const struct {
        const char *changes;
        int         code;
        const char *want;
    } CASES[] = {
        { "{\"model_type\":\"mistral\"}", CTS_EUNSUP, "'model_type' is 'mistral'" },
        { "{\"model_type\":null}", CTS_EUNSUP, "'model_type' is '(none)'" },
        { "{\"model_type\":7}", CTS_EFORMAT, "'model_type' is an integer" },
        { "{\"architectures\":[\"LlamaForSequenceClassification\"]}", CTS_EUNSUP,
          "LlamaForSequenceClassification" },
        { "{\"architectures\":[\"LlamaForCausalLM\",\"X\"]}", CTS_EUNSUP, "'architectures'" },
        { "{\"architectures\":\"LlamaForCausalLM\"}", CTS_EUNSUP, "'architectures'" },
        { "{\"hidden_act\":\"gelu\"}", CTS_EUNSUP, "'hidden_act' is 'gelu', only 'silu'" },
        { "{\"attention_bias\":true}", CTS_EUNSUP, "'attention_bias' is true" },
        { "{\"mlp_bias\":true}", CTS_EUNSUP, "'mlp_bias' is true" },
        { "{\"mlp_bias\":1}", CTS_EFORMAT, "'mlp_bias' is an integer" },
        { "{\"quantization_config\":{}}", CTS_EUNSUP, "'quantization_config'" },
        { "{\"sliding_window\":4096}", CTS_EUNSUP, "'sliding_window'" },
        { "{\"layer_types\":[]}", CTS_EUNSUP, "'layer_types'" },
        { "{\"torch_dtype\":\"float16\",\"dtype\":\"bfloat16\"}", CTS_EFORMAT,
          "'torch_dtype' is 'float16' and 'dtype' is" },
        { "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}}", CTS_EUNSUP,
          "'type' is 'linear', only 'default'" },
        { "{\"rope_scaling\":{\"rope_type\":\"llama3\"}}", CTS_EUNSUP, "'rope_type' is 'llama3'" },
        { "{\"rope_parameters\":{\"rope_type\":\"yarn\"}}", CTS_EUNSUP, "'rope_type' is 'yarn'" },
        { "{\"rope_parameters\":{\"rope_type\":\"default\",\"type\":\"linear\"}}", CTS_EUNSUP,
          "'type' is 'linear'" },
        { "{\"rope_parameters\":{\"full_attention\":{}}}", CTS_EUNSUP, "'rope_parameters' has 'full_attention'" },
        { "{\"rope_parameters\":{\"factor\":8}}", CTS_EUNSUP, "'rope_parameters' has 'factor'" },
        { "{\"rope_parameters\":[]}", CTS_EFORMAT, "'rope_parameters' is not an object" },
        { "{\"rope_theta\":10000,\"rope_parameters\":{\"rope_theta\":500000}}", CTS_EFORMAT, "10000 and 500000" },
        { "{\"rope_theta\":10000,\"rope_scaling\":{\"rope_theta\":500000}}", CTS_EFORMAT, "must agree" },
        { "{\"rope_theta\":0}", CTS_EFORMAT, "'rope_theta'" },
        { "{\"partial_rotary_factor\":0.5}", CTS_EUNSUP, "'partial_rotary_factor' is 0.5" },
        { "{\"rope_parameters\":{\"partial_rotary_factor\":0.5}}", CTS_EUNSUP, "'partial_rotary_factor' is 0.5" },
        { "{\"num_attention_heads\":3}", CTS_EFORMAT, "no multiple of 'num_key_value_heads' 2" },
        { "{\"head_dim\":null,\"hidden_size\":255}", CTS_EFORMAT, "'hidden_size' 255 is no multiple" },
        { "{\"head_dim\":63}", CTS_EFORMAT, "'head_dim' 63 is odd" },
        { "{\"head_dim\":1024,\"num_attention_heads\":1024}", CTS_EUNSUP, "1024 heads of 1024" },
        { "{\"hidden_size\":0}", CTS_EFORMAT, "'hidden_size' is 0" },
        { "{\"hidden_size\":4294967552}", CTS_EFORMAT, "'hidden_size' is 4294967552" },
        { "{\"hidden_size\":\"256\"}", CTS_EFORMAT, "'hidden_size' is a string" },
        { "{\"num_hidden_layers\":257}", CTS_EFORMAT, "'num_hidden_layers' is 257, wanted is 1 to 256" },
        { "{\"vocab_size\":-1}", CTS_EFORMAT, "'vocab_size' is -1" },
        { "{\"max_position_embeddings\":10000000}", CTS_EFORMAT, "'max_position_embeddings'" },
        { "{\"rms_norm_eps\":0}", CTS_EFORMAT, "'rms_norm_eps'" },
        { "{\"eos_token_id\":2048}", CTS_EFORMAT, "'eos_token_id'" },
        { "{\"eos_token_id\":[1,\"x\"]}", CTS_EFORMAT, "'eos_token_id'" },
        { "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", CTS_EUNSUP, "more than 8 stop tokens" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct cts_model_config c = { .hidden = 77 };
        struct cts_err          err = { 0 };
        int                     rc = parse(CASES[i].changes, NULL, &c, &err);

        CHECK_MSG(rc == CASES[i].code && strstr(err.text, CASES[i].want) != NULL, "%s: want %d '%s', got %d '%s'\n",
                  CASES[i].changes, CASES[i].code, CASES[i].want, rc, err.text);
        CHECK_MSG(strstr(err.text, "config.json") != NULL, "no file name in '%s'\n", err.text);
        CHECK(c.hidden == 77); /* untouched */
    }
}

static void config_reads_both_key_styles_alike(void **state)
{
    static const char *const SAME[] = {
        "{\"rope_theta\":100000.0,\"torch_dtype\":\"bfloat16\"}",
        "{\"rope_theta\":100000,\"rope_scaling\":null}",
        "{\"rope_parameters\":{\"rope_theta\":100000.0,\"rope_type\":\"default\"},\"dtype\":\"bfloat16\"}",
        "{\"rope_parameters\":{\"rope_theta\":100000.0,\"type\":\"default\",\"factor\":null},\"rope_theta\":"
        "100000.0}",
        "{\"rope_theta\":100000.0,\"dtype\":\"float32\",\"torch_dtype\":\"float32\",\"partial_rotary_"
        "factor\":1.0}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(SAME) / sizeof(SAME[0]); i++) {
        struct cts_model_config c;
        struct cts_err          err = { 0 };

        CHECK_MSG(parse(SAME[i], NULL, &c, &err) == 0, "%s: %s\n", SAME[i], err.text);
        CHECK(c.rope_theta == 100000 && c.rms_eps == 1e-5f && c.is_tied && c.head_dim == 64);
        CHECK(c.n_stop_tokens == 1 && c.stop_tokens[0] == 2);
        CHECK(isnan(c.temperature) && isnan(c.top_p) && c.top_k == 0);
    }
}

static void config_fills_absent_keys_with_the_defaults_of_llama(void **state)
{
    static const char       BARE[] = "{\"model_type\":\"llama\"}";
    struct cts_model_config c;
    struct cts_err          err = { 0 };
    struct cts_span         text = { (const uint8_t *)BARE, sizeof(BARE) - 1 };

    (void)state;
    CHECK_MSG(cts_model_config_parse(&c, text, (struct cts_span){ 0 }, &err) == 0, "%s\n", err.text);
    CHECK(c.vocab_size == 32000 && c.hidden == 4096 && c.intermediate == 11008 && c.n_layers == 32);
    CHECK(c.n_heads == 32 && c.n_kv_heads == 32 && c.head_dim == 128 && c.max_positions == 2048);
    CHECK(c.rms_eps == 1e-6f && c.rope_theta == 10000 && !c.is_tied);
    CHECK(c.n_stop_tokens == 1 && c.stop_tokens[0] == 2);
}

static void config_joins_the_stop_tokens_of_both_files(void **state)
{
    static const struct {
        const char *changes, *gen;
        uint32_t    n;
        int32_t     ids[4];
    } CASES[] = {
        { "{\"eos_token_id\":7}", "{\"eos_token_id\":[8,7,9]}", 3, { 7, 8, 9 } },
        { "{\"eos_token_id\":[7,7]}", "{\"eos_token_id\":7}", 1, { 7 } },
        { "{\"eos_token_id\":null}", "{\"eos_token_id\":5}", 1, { 5 } }, /* not Llama's 2 as well */
        { "{\"eos_token_id\":null}", "{}", 1, { 2 } },
        { "{}", "{\"eos_token_id\":null}", 1, { 2 } },
        { "{\"eos_token_id\":[]}", NULL, 0, { 0 } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct cts_model_config c;
        struct cts_err          err = { 0 };

        CHECK_MSG(parse(CASES[i].changes, CASES[i].gen, &c, &err) == 0, "%s: %s\n", CASES[i].changes, err.text);
        CHECK(c.n_stop_tokens == CASES[i].n);
        CHECK(memcmp(c.stop_tokens, CASES[i].ids, c.n_stop_tokens * sizeof(int32_t)) == 0);
    }
}

static void config_takes_the_sampling_defaults_of_generation_config(void **state)
{
    struct cts_model_config c;
    struct cts_err          err = { 0 };

    (void)state;
    CHECK(parse("{}", "{\"temperature\":0.5,\"top_p\":0.75,\"top_k\":40,\"do_sample\":true}", &c, &err) == 0);
    CHECK(c.temperature == 0.5f && c.top_p == 0.75f && c.top_k == 40);
    CHECK(parse("{}", "{\"temperature\":0.5,\"do_sample\":false}", &c, &err) == 0);
    CHECK(c.temperature == 0);
    CHECK(parse("{}", "{\"temperature\":\"hot\"}", &c, &err) == CTS_EFORMAT);
    CHECK(strstr(err.text, "generation_config.json") != NULL && strstr(err.text, "temperature") != NULL);
    CHECK(parse("{}", "{\"top_p\":1.5}", &c, &err) == CTS_EFORMAT);
    CHECK(parse("{}", "[]", &c, &err) == CTS_EFORMAT);
}

static void config_of_the_demo_base_is_read(void **state)
{
    struct cts_model_config c;
    struct cts_err          err = { 0 };
    uint32_t                n_out, n_in;
    char                    dir[512];

    (void)state;
    CHECK_MSG(cts_model_config_load(&c, src_path(dir, sizeof(dir), "contrib/demo/base"), &err) == 0, "%s\n",
              err.text);
    CHECK(c.vocab_size == 2048 && c.hidden == 256 && c.n_kv_heads == 2 && c.max_positions == 1024);
    cts_linear_shape(&c, CTS_K, &n_out, &n_in);
    CHECK(n_out == 128 && n_in == 256);
    cts_linear_shape(&c, CTS_DOWN, &n_out, &n_in);
    CHECK(n_out == 256 && n_in == 640);
    CHECK(cts_model_config_load(&c, src_path(dir, sizeof(dir), "contrib/demo"), &err) == -ENOENT);
    CHECK(strstr(err.text, "config.json") != NULL);
}

static void config_load_does_without_generation_config(void **state)
{
    struct cts_model_config c;
    struct cts_err          err = { 0 };
    char                    dir[256], path[300];
    FILE                   *f;

    (void)state;
    temp_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/config.json", dir);
    f = fopen(path, "w");
    CHECK(f != NULL && fputs(GOOD, f) >= 0 && fclose(f) == 0);
    CHECK_MSG(cts_model_config_load(&c, dir, &err) == 0, "%s\n", err.text);
    CHECK(err.code == 0 && c.hidden == 256);
    unlink(path);
    rmdir(dir);
}

static void linear_names_go_both_ways(void **state)
{
    (void)state;
    for (int l = 0; l < CTS_N_LINEARS; l++)
        CHECK(cts_linear_from_name(cts_linear_name((enum cts_linear)l),
                                   strlen(cts_linear_name((enum cts_linear)l))) == l);
    CHECK(cts_linear_from_name("q_proj", 5) == -1);
    CHECK(cts_linear_from_name("q_proj.", 7) == -1);
    CHECK(cts_linear_from_name("lm_head", 7) == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_refuses_by_file_and_key_what_forward_does_not_have),
        cmocka_unit_test(config_reads_both_key_styles_alike),
        cmocka_unit_test(config_fills_absent_keys_with_the_defaults_of_llama),
        cmocka_unit_test(config_joins_the_stop_tokens_of_both_files),
        cmocka_unit_test(config_takes_the_sampling_defaults_of_generation_config),
        cmocka_unit_test(config_of_the_demo_base_is_read),
        cmocka_unit_test(config_load_does_without_generation_config),
        cmocka_unit_test(linear_names_go_both_ways),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
