#include "daemon/model/weights.h"
#include "tests/check.h"

#include "common/json.h"
#include "common/safetensors.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

static char                    DIR_[256], BASE[512];
static struct cts_model_config C;

/* The demo's base in memory, for a case to change. */
static struct cts_tensor_out T[64];
static uint32_t              N;

static void load_good(void)
{
    struct cts_safetensors f;
    char                   path[600];

    snprintf(path, sizeof(path), "%s/model.safetensors", BASE);
    CHECK(cts_safetensors_open(&f, path, NULL) == 0);
    for (N = 0; N < f.n_tensors; N++) {
        const struct cts_tensor *t = &f.tensors[N];
        float                   *v = malloc(t->n_values * sizeof(*v));

        CHECK(N < 60 && v != NULL && cts_safetensors_read_f32(&f, t, v, NULL) == 0);
        T[N] = (struct cts_tensor_out){ strdup(t->name), t->dtype, t->n_dims, { t->dim[0], t->dim[1] }, v };
    }
    cts_safetensors_close(&f);
}

static void free_good(void)
{
    for (uint32_t i = 0; i < N; i++) {
        free((char *)T[i].name);
        free((float *)T[i].values);
    }
    N = 0;
}

static struct cts_tensor_out *tensor(const char *name)
{
    for (uint32_t i = 0; i < N; i++)
        if (strcmp(T[i].name, name) == 0) return &T[i];
    CHECK_MSG(0, "no tensor %s\n", name);
    return NULL;
}

static void rename_tensor(struct cts_tensor_out *t, const char *name)
{
    free((char *)t->name);
    t->name = strdup(name);
}

static void write_model(void)
{
    char path[600];

    snprintf(path, sizeof(path), "%s/model.safetensors", DIR_);
    CHECK(cts_safetensors_write(path, T, N, NULL) == 0);
}

static int digest(uint8_t out[CTS_DIGEST_BYTES], struct cts_err *err)
{
    return cts_base_digest(DIR_, &C, out, err);
}

/* Loading and the digest alone are refused alike, with words in the message, and
 * nothing is left. */
static void check_refused(int code, const char *words)
{
    struct ctsk_opts   ko = { .backend = "ref" };
    struct ctsk_dev   *dev;
    struct cts_weights w;
    struct cts_err     err = { 0 };
    uint8_t            d[CTS_DIGEST_BYTES] = { 0 }, zero[CTS_DIGEST_BYTES] = { 0 };

    write_model();
    CHECK(ctsk_open(&dev, &ko, NULL) == 0);
    CHECK_MSG(cts_weights_load(&w, dev, &C, DIR_, &err) == code, "%s\n", err.text);
    CHECK_MSG(strstr(err.text, words) != NULL, "'%s' does not say '%s'\n", err.text, words);
    CHECK(w.buf == NULL && w.layers == NULL);
    ctsk_close(dev);
    CHECK(digest(d, &err) == code);
    CHECK(memcmp(d, zero, sizeof(d)) == 0);
}

static void tensors_that_a_llama_has_not_are_refused_by_name(void **state)
{
    (void)state;
    load_good();
    T[N++] = (struct cts_tensor_out){
        strdup("model.layers.0.self_attn.q_proj.bias"), CTS_F32, 1, { 256 }, calloc(256, sizeof(float))
    };
    check_refused(CTS_EUNSUP, "model.layers.0.self_attn.q_proj.bias");
    rename_tensor(&T[N - 1], "model.layers.4.input_layernorm.weight"); /* of four layers */
    check_refused(CTS_EUNSUP, "model.layers.4.input_layernorm.weight");
    free_good();
}

static void missing_and_misshaped_tensors_are_refused_by_name(void **state)
{
    struct cts_tensor_out *t;

    (void)state;
    load_good();
    rename_tensor(tensor("model.layers.2.mlp.up_proj.weight"), "model.layers.2.rotary_emb.inv_freq");
    check_refused(CTS_EFORMAT, "model.layers.2.mlp.up_proj.weight is missing");
    free_good();

    load_good();
    t = tensor("model.layers.1.self_attn.k_proj.weight");
    t->dim[0] = 256;
    t->dim[1] = 128; /* transposed */
    check_refused(CTS_EFORMAT, "model.layers.1.self_attn.k_proj.weight");
    free_good();

    load_good();
    t = tensor("model.norm.weight");
    t->n_dims = 2;
    t->dim[1] = 1;
    check_refused(CTS_EFORMAT, "model.norm.weight");
    free_good();
}

static void weights_in_several_files_are_refused_with_what_to_do(void **state)
{
    char  path[600];
    FILE *f;

    (void)state;
    load_good();
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", DIR_);
    f = fopen(path, "w");
    CHECK(f != NULL && fclose(f) == 0);
    check_refused(CTS_EUNSUP, "index.json");
    CHECK(unlink(path) == 0);
    free_good();
    snprintf(path, sizeof(path), "%s/model.safetensors", DIR_);
    CHECK(unlink(path) == 0);
    CHECK(digest((uint8_t[CTS_DIGEST_BYTES]){ 0 }, NULL) == -ENOENT);
}

static void what_says_nothing_new_is_ignored_and_changes_no_digest(void **state)
{
    uint8_t plain[CTS_DIGEST_BYTES], more[CTS_DIGEST_BYTES];

    (void)state;
    load_good();
    write_model();
    CHECK(digest(plain, NULL) == 0);
    T[N++] = (struct cts_tensor_out){ strdup("lm_head.weight"), CTS_F32, 2, { 1, 2 }, calloc(2, sizeof(float)) };
    T[N++] = (struct cts_tensor_out){
        strdup("model.layers.0.self_attn.rotary_emb.inv_freq"), CTS_F32, 1, { 32 }, calloc(32, sizeof(float))
    };
    write_model();
    CHECK(digest(more, NULL) == 0);
    CHECK(memcmp(plain, more, sizeof(plain)) == 0);
    free_good();
}

static void the_digest_sees_every_change_that_the_forward_pass_would(void **state)
{
    uint8_t                 seen[8][CTS_DIGEST_BYTES];
    struct cts_model_config good = C;
    int                     n = 0;

    (void)state;
    load_good();
    write_model();
    CHECK(digest(seen[n++], NULL) == 0);
    ((float *)tensor("model.layers.3.mlp.down_proj.weight")->values)[256 * 640 - 1] += 1;
    write_model();
    CHECK(digest(seen[n++], NULL) == 0);
    free_good();

    load_good();
    tensor("model.norm.weight")->dtype = CTS_F32; /* the same values in another format are another file */
    write_model();
    CHECK(digest(seen[n++], NULL) == 0);
    free_good();

    load_good();
    write_model();
    C.rms_eps *= 2;
    CHECK(digest(seen[n++], NULL) == 0);
    C = good;
    C.rope_theta = 500000;
    CHECK(digest(seen[n++], NULL) == 0);
    C = good;
    free_good();
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) CHECK(memcmp(seen[i], seen[j], CTS_DIGEST_BYTES) != 0);
}

/* What lies at p on the device. */
static void read_back(struct ctsk_dev *dev, const struct cts_weights *w, struct ctsk_ptr p, float *dst, size_t n)
{
    struct ctsk_stream *s;
    uint64_t            off = p.addr - ctsk_at(w->buf, 0).addr;

    CHECK(ctsk_stream_new(dev, &s) == 0);
    CHECK(ctsk_download(s, dst, w->buf, off, n * sizeof(*dst)) == 0);
    CHECK(ctsk_sync(s) == 0);
    ctsk_stream_free(s);
}

static void every_tensor_lies_where_the_forward_pass_looks(void **state)
{
    struct ctsk_opts   ko = { .backend = "async" };
    struct ctsk_dev   *dev;
    struct cts_weights w;
    static float       got[2048 * 256];
    uint8_t            d[CTS_DIGEST_BYTES];

    (void)state;
    load_good();
    T[N++] = (struct cts_tensor_out){
        strdup("lm_head.weight"), CTS_F16, 2, { 2048, 256 }, calloc(2048 * 256, sizeof(float))
    };
    for (int i = 0; i < 2048 * 256; i++) ((float *)T[N - 1].values)[i] = (float)(i % 1000);
    C.is_tied = 0;
    write_model();
    CHECK(ctsk_open(&dev, &ko, NULL) == 0);
    CHECK(cts_weights_load(&w, dev, &C, DIR_, NULL) == 0);
    CHECK(w.bytes == cts_weights_bytes(&C) && w.bytes == ctsk_buf_bytes(w.buf));
    CHECK(digest(d, NULL) == 0 && memcmp(d, w.digest, sizeof(d)) == 0);

    read_back(dev, &w, w.head, got, 2048 * 256);
    CHECK(memcmp(got, tensor("lm_head.weight")->values, sizeof(got)) == 0);
    read_back(dev, &w, w.embed, got, 2048 * 256);
    CHECK(memcmp(got, tensor("model.embed_tokens.weight")->values, sizeof(got)) == 0);
    read_back(dev, &w, w.layers[2].linear[CTS_DOWN], got, 256 * 640);
    CHECK(memcmp(got, tensor("model.layers.2.mlp.down_proj.weight")->values, 256 * 640 * sizeof(float)) == 0);
    read_back(dev, &w, w.layers[3].mlp_norm, got, 256);
    CHECK(memcmp(got, tensor("model.layers.3.post_attention_layernorm.weight")->values, 256 * sizeof(float)) == 0);
    /* q, k and v without a gap: one product makes the three. */
    read_back(dev, &w, w.layers[1].linear[CTS_Q], got, 512 * 256);
    CHECK(memcmp(got, tensor("model.layers.1.self_attn.q_proj.weight")->values, 256 * 256 * sizeof(float)) == 0);
    CHECK(memcmp(got + 256 * 256, tensor("model.layers.1.self_attn.k_proj.weight")->values, 128 * 256 * 4) == 0);
    CHECK(memcmp(got + 384 * 256, tensor("model.layers.1.self_attn.v_proj.weight")->values, 128 * 256 * 4) == 0);
    cts_weights_free(&w);
    ctsk_close(dev);
    C.is_tied = 1;
    free_good();
}

static void the_rotations_are_those_of_float32_angles(void **state)
{
    struct ctsk_opts   ko = { .backend = "cpu" };
    struct ctsk_dev   *dev;
    struct cts_weights w;
    static float       c[1024 * 32], s[1024 * 32];

    (void)state;
    CHECK(ctsk_open(&dev, &ko, NULL) == 0);
    CHECK(cts_weights_load(&w, dev, &C, BASE, NULL) == 0);
    read_back(dev, &w, w.rope_cos, c, 1024 * 32);
    read_back(dev, &w, w.rope_sin, s, 1024 * 32);
    for (int pos = 0; pos < 1024; pos += 31)
        for (int i = 0; i < 32; i++) {
            float  angle = (float)pos * (1.0f / (float)pow(10000, 2.0 * i / 64));
            double exact = pos * pow(10000, -2.0 * i / 64);

            CHECK(c[pos * 32 + i] == (float)cos((double)angle) && s[pos * 32 + i] == (float)sin((double)angle));
            CHECK(fabs((double)c[pos * 32 + i] - cos(exact)) < 1e-4 &&
                  fabs((double)s[pos * 32 + i] - sin(exact)) < 1e-4);
        }
    cts_weights_free(&w);
    ctsk_close(dev);
}

static int setup(void **state)
{
    (void)state;
    temp_dir(DIR_, sizeof(DIR_));
    src_path(BASE, sizeof(BASE), "contrib/demo/base");
    CHECK(cts_model_config_load(&C, BASE, NULL) == 0);
    return 0;
}

static int teardown(void **state)
{
    char cmd[400];

    (void)state;
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", DIR_);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_that_a_llama_has_not_are_refused_by_name),
        cmocka_unit_test(missing_and_misshaped_tensors_are_refused_by_name),
        cmocka_unit_test(weights_in_several_files_are_refused_with_what_to_do),
        cmocka_unit_test(what_says_nothing_new_is_ignored_and_changes_no_digest),
        cmocka_unit_test(the_digest_sees_every_change_that_the_forward_pass_would),
        cmocka_unit_test(every_tensor_lies_where_the_forward_pass_looks),
        cmocka_unit_test(the_rotations_are_those_of_float32_angles),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
