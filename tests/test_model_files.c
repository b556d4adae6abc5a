/* All readers of files, with memory that runs out at every single allocation
 * and with files that are damaged at random. */
#include "common/json.h"
#include "common/safetensors.h"
#include "daemon/model/chat_template.h"
#include "daemon/model/model_config.h"
#include "daemon/model/peft.h"
#include "daemon/model/peft_config.h"
#include "daemon/model/tokenizer.h"
#include "tests/check.h"
#include "tests/fault.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define ADAPTER "contrib/demo/adapters/shared-start/case-sentence"

static struct cts_model_config config;
static struct cts_tokenizer   *demo;           /* the demo's */
static char                   *tokenizer_text; /* the demo's with a few merges, to be quick */
static char                    base[512], model_path[600], adapter[512], adapter_model[600], adapter_config[600];
static char                    dir[256], out_path[300];
static const uint8_t           base_digest[CTS_DIGEST_BYTES];

/* ---- memory runs out ---- */

static int read_safetensors(struct cts_err *err)
{
    struct cts_safetensors f;
    int                    rc = cts_safetensors_open(&f, model_path, err);

    if (rc == 0) cts_safetensors_close(&f);
    return rc;
}

static int write_safetensors(struct cts_err *err)
{
    static const float    X[4] = { 1, 2, 3, 4 };
    struct cts_tensor_out t[] = { { "a", CTS_F32, 2, { 2, 2 }, X }, { "b", CTS_BF16, 1, { 4 }, X } };

    return cts_safetensors_write(out_path, t, 2, err);
}

static int read_config(struct cts_err *err)
{
    struct cts_model_config c;

    return cts_model_config_load(&c, base, err);
}

static int read_peft(struct cts_err *err)
{
    struct cts_peft p;
    int             rc = cts_peft_read(&p, adapter, &config, base_digest, err);

    CHECK(rc == 0 || p.memory == NULL);
    cts_peft_free(&p);
    return rc;
}

static int read_peft_config(struct cts_err *err)
{
    static const char TEXT[] =
        "{\"peft_type\":\"LORA\",\"rank_pattern\":{\"a\":1},\"alpha_pattern\":{\"b\":1,\"c\":2}}";
    struct cts_peft_config c;
    int                    rc = cts_peft_config_parse(&c, TEXT, sizeof(TEXT) - 1, "t", err);

    cts_peft_config_free(&c);
    return rc;
}

static int read_tokenizer(struct cts_err *err)
{
    struct cts_tokenizer *t = NULL;
    int                   rc = cts_tokenizer_parse(&t, tokenizer_text, strlen(tokenizer_text), "t", err);

    CHECK((rc == 0) == (t != NULL));
    cts_tokenizer_close(t);
    return rc;
}

static int make_encoder(struct cts_err *err)
{
    struct cts_encoder *e = NULL;
    int                 rc = cts_encoder_new(&e, demo, 100);

    CHECK((rc == 0) == (e != NULL));
    cts_encoder_free(e);
    if (rc < 0) cts_err_set(err, rc, "encoder");
    return rc;
}

static int read_template(struct cts_err *err)
{
    struct cts_chat_template c;

    return cts_chat_template_load(&c, base, demo, err);
}

static void readers_survive_the_failure_of_every_allocation(void **state)
{
    static int (*const READERS[])(struct cts_err *) = { read_safetensors, write_safetensors, read_config,
                                                        read_peft,        read_peft_config,  read_tokenizer,
                                                        make_encoder,     read_template };

    (void)state;
    for (size_t k = 0; k < sizeof(READERS) / sizeof(READERS[0]); k++) {
        int64_t n_live = fault_n_live(), i;
        int     n_enomem = 0;
        for (i = 0; i < 20000; i++) {
            struct cts_err err = { 0 };
            int            rc;
            fault_after(i);
            rc = READERS[k](&err);
            fault_after(-1);
            CHECK_MSG(fault_n_live() == n_live, "reader %zu, allocation %lld: %lld left\n", k, (long long)i,
                      (long long)(fault_n_live() - n_live));
            if (rc == 0) break;
            /* jansson calls some of its own failures a syntax error. */
            CHECK_MSG(rc == -ENOMEM || rc == CTS_EFORMAT, "reader %zu, allocation %lld: %d\n", k, (long long)i, rc);
            CHECK(err.code == rc && err.text[0] != '\0');
            n_enomem += rc == -ENOMEM;
        }
        CHECK_MSG(i > 0 && i < 20000 && n_enomem > 0, "reader %zu: %lld allocations\n", k, (long long)i);
    }
}

static void encoding_and_rendering_allocate_nothing(void **state)
{
    static const char        TEXT[] = "Some text, with 123 and <|im_end|> in it.";
    struct cts_chat_template c;
    struct cts_encoder      *e;
    struct cts_chat_message  m = { { (const uint8_t *)"user", 4 }, { (const uint8_t *)TEXT, sizeof(TEXT) - 1 } };
    int32_t                  ids[100];
    int64_t                  n_live;

    (void)state;
    CHECK(cts_encoder_new(&e, demo, 100) == 0 && cts_chat_template_load(&c, base, demo, NULL) == 0);
    n_live = fault_n_live();
    fault_after(0);
    CHECK(cts_encode(e, TEXT, sizeof(TEXT) - 1, 1, ids, 100) > 0);
    CHECK(cts_encode(e, TEXT, sizeof(TEXT) - 1, 0, ids, 100) > 0);
    CHECK(cts_chat_render(&c, e, &m, 1, ids, 100) > 0);
    CHECK(cts_tokenizer_piece(demo, ids[3]).len > 0 && cts_tokenizer_id(demo, "<|im_end|>") == 2);
    CHECK(fault_n_live() == n_live);
    fault_after(-1);
    cts_encoder_free(e);
}

/* ---- damaged files ---- */

static uint64_t seed = 3;

static uint32_t next_random(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

/* Change a few bytes of the n at s: most often to what JSON is made of. */
static void damage(char *s, size_t n)
{
    static const char BYTES[] = "{}[]\",:0123456789-.e\\ntf\xc3\x80\xff/ ";

    for (uint32_t k = 0; k <= next_random(3); k++) {
        size_t at = next_random((uint32_t)n), from = next_random((uint32_t)n);
        size_t len = next_random(12) + 1;
        if (at + len > n || from + len > n) continue;
        if (next_random(3) == 0) memmove(s + at, s + from, len);
        else s[at] = BYTES[next_random(sizeof(BYTES) - 1)];
    }
}

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *s = malloc(1 << 20);

    CHECK(f != NULL && s != NULL);
    *n = fread(s, 1, 1 << 20, f);
    CHECK(*n > 0 && *n < 1 << 20);
    fclose(f);
    return s;
}

/* Whatever is accepted must hold what the header of this library promises. */
static void check_tensors(const struct cts_safetensors *f, uint64_t file_bytes)
{
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        const struct cts_tensor *t = &f->tensors[i];
        CHECK(t->off <= file_bytes && t->bytes <= file_bytes - t->off && t->n_dims <= CTS_TENSOR_DIMS_MAX);
        CHECK(t->dtype == 0 || t->bytes == t->n_values * cts_dtype_bytes(t->dtype));
        CHECK(cts_safetensors_find(f, t->name) == t);
    }
}

static void damaged_tensor_headers_are_refused_or_consistent(void **state)
{
    size_t   n;
    char    *file = slurp(adapter_model, &n), *s = malloc(n);
    uint64_t header_bytes;
    uint32_t n_good = 0;

    (void)state;
    memcpy(&header_bytes, file, 8);
    CHECK(s != NULL && header_bytes < n - 8);
    for (int round = 0; round < 4000; round++) {
        struct cts_safetensors f = { .fd = -1, .path = (char *)"damaged" };
        struct cts_err         err = { 0 };
        memcpy(s, file + 8, header_bytes);
        if (round > 0) damage(s, header_bytes);
        if (cts_safetensors_parse(&f, s, header_bytes, n, &err) == 0) {
            check_tensors(&f, n);
            n_good++;
        } else {
            CHECK(strstr(err.text, "damaged") != NULL);
        }
        f.path = NULL; /* not the heap's */
        cts_safetensors_close(&f);
    }
    CHECK(n_good > 0 && n_good < 4000);
    free(s);
    free(file);
}

static void damaged_configurations_are_refused_or_in_bounds(void **state)
{
    size_t n, n_peft;
    char   path[600], *text, *peft, s[4096];

    (void)state;
    snprintf(path, sizeof(path), "%s/config.json", base);
    text = slurp(path, &n);
    peft = slurp(adapter_config, &n_peft);
    CHECK(n < sizeof(s) && n_peft < sizeof(s));
    for (int round = 0; round < 4000; round++) {
        struct cts_model_config c;
        struct cts_peft_config  p;
        struct cts_err          err = { 0 };
        memcpy(s, text, n);
        damage(s, n);
        if (cts_model_config_parse(&c, (struct cts_span){ (uint8_t *)s, n }, (struct cts_span){ 0 }, &err) == 0) {
            CHECK(c.n_layers >= 1 && c.n_layers <= CTS_LAYERS_MAX && c.n_heads % c.n_kv_heads == 0);
            CHECK(c.head_dim % 2 == 0 && c.n_stop_tokens <= CTS_STOP_TOKENS_MAX && c.rms_eps > 0);
        }
        memcpy(s, peft, n_peft);
        damage(s, n_peft);
        if (cts_peft_config_parse(&p, s, n_peft, "damaged", &err) == 0) {
            CHECK(p.rank >= 1 && p.rank <= CTS_LORA_RANK_MAX && strlen(p.base_name) < sizeof(p.base_name));
        }
        cts_peft_config_free(&p);
    }
    free(text);
    free(peft);
}

static void damaged_tokenizers_are_refused_or_decode_what_they_encode(void **state)
{
    static const char TEXT[] = "Hello, w\xc3\xb6rld 12 <|im_end|>\n  \xf0\x9f\x99\x82";
    size_t            n = strlen(tokenizer_text);
    char             *s = malloc(n), back[256];
    uint32_t          n_good = 0;

    (void)state;
    CHECK(s != NULL);
    for (int round = 0; round < 1500; round++) {
        struct cts_tokenizer *t = NULL;
        struct cts_encoder   *e = NULL;
        struct cts_err        err = { 0 };
        int32_t               ids[100];
        size_t                len = 0;
        memcpy(s, tokenizer_text, n);
        damage(s, n);
        if (cts_tokenizer_parse(&t, s, n, "damaged", &err) < 0) continue;
        CHECK(cts_encoder_new(&e, t, 100) == 0);
        int64_t n_ids = cts_encode(e, TEXT, sizeof(TEXT) - 1, 0, ids, 100);
        CHECK(n_ids > 0);
        for (int64_t i = 0; i < n_ids; i++) {
            struct cts_span p = cts_tokenizer_piece(t, ids[i]);
            CHECK(!cts_tokenizer_is_special(t, ids[i]) && len + p.len <= sizeof(back));
            memcpy(back + len, p.ptr, p.len);
            len += p.len;
        }
        CHECK(len == sizeof(TEXT) - 1 && memcmp(back, TEXT, len) == 0);
        cts_encoder_free(e);
        cts_tokenizer_close(t);
        n_good++;
    }
    CHECK(n_good > 0);
    free(s);
}

/* The demo's tokenizer.json without most of its vocabulary. */
static void shrink_tokenizer(const char *path)
{
    json_t     *doc = NULL, *vocab, *merges, *v;
    const char *key;
    void       *tmp;

    if (cts_json_load(path, 1 << 24, &doc, NULL) < 0) return;
    vocab = json_object_get(json_object_get(doc, "model"), "vocab");
    merges = json_object_get(json_object_get(doc, "model"), "merges");
    json_object_foreach_safe(vocab, tmp, key, v) if (json_integer_value(v) >= 280) json_object_del(vocab, key);
    while (json_array_size(merges) > 10) json_array_remove(merges, json_array_size(merges) - 1);
    tokenizer_text = json_dumps(doc, JSON_COMPACT);
    json_decref(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_survive_the_failure_of_every_allocation),
        cmocka_unit_test(encoding_and_rendering_allocate_nothing),
        cmocka_unit_test(damaged_tensor_headers_are_refused_or_consistent),
        cmocka_unit_test(damaged_configurations_are_refused_or_in_bounds),
        cmocka_unit_test(damaged_tokenizers_are_refused_or_decode_what_they_encode),
    };
    char path[600];
    int  rc;

    json_set_alloc_funcs(malloc, free); /* the failing ones: jansson's memory runs out too */
    src_path(base, sizeof(base), "contrib/demo/base");
    src_path(adapter, sizeof(adapter), ADAPTER);
    snprintf(model_path, sizeof(model_path), "%s/model.safetensors", base);
    snprintf(adapter_model, sizeof(adapter_model), "%s/adapter_model.safetensors", adapter);
    snprintf(adapter_config, sizeof(adapter_config), "%s/adapter_config.json", adapter);
    snprintf(path, sizeof(path), "%s/tokenizer.json", base);
    shrink_tokenizer(path);
    if (tokenizer_text == NULL || cts_tokenizer_open(&demo, path, NULL) < 0 ||
        cts_model_config_load(&config, base, NULL) < 0)
        return 1;
    temp_dir(dir, sizeof(dir));
    snprintf(out_path, sizeof(out_path), "%s/out", dir);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(out_path);
    rmdir(dir);
    cts_tokenizer_close(demo);
    free(tokenizer_text);
    return rc;
}
