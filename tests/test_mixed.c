/* Adapters of any rank on any of the seven linears, alone, blended and summed, in
 * one step with base rows: the logits must be those of a base whose weights have
 * s B A added in. Adapters and merged bases are made here, by a seed. */

#include "tests/engine_rig.h"
#include "tests/lossless.h"

#include "common/safetensors.h"
#include "daemon/model/weights.h"

#include <math.h>
#include <string.h>

#define N_POS_MAX 64
#define N_VOCAB   2048
#define N_TOKENS  8
#define ALL       ((1u << CTS_N_LINEARS) - 1)

static struct golden           G;
static struct cts_model_config C;
static char                    TOP[256], BASE[512];

/* ---- adapters ---- */

struct adapter {
    const char *name;
    uint32_t    rank, linears; /* bits */
    int         odd_layers_only;
    float       scale; /* lora_alpha / rank */
};

static const struct adapter ADAPTERS[] = {
    { "one", 1, 1u << CTS_O | 1u << CTS_DOWN, 0, 2.0f },
    { "four", 4, ALL, 0, 0.5f },
    { "sixteen", 16, 1u << CTS_GATE | 1u << CTS_UP, 0, 1.0f },
    { "odd", 3, 1u << CTS_K | 1u << CTS_GATE | 1u << CTS_DOWN, 1, 1.0f },
};
#define N_ADAPTERS (sizeof(ADAPTERS) / sizeof(ADAPTERS[0]))

static uint32_t SEED;

static float next_value(float size)
{
    SEED = SEED * 1664525u + 1013904223u;
    return ((float)(SEED >> 8) / (float)(1 << 24) - 0.5f) * 2 * size;
}

static float *values(uint64_t n, float size)
{
    float *v = malloc(n * sizeof(*v));

    CHECK(v != NULL);
    for (uint64_t i = 0; i < n; i++) v[i] = next_value(size);
    return v;
}

static void write_config(const struct adapter *a, const char *dir)
{
    char  path[600];
    FILE *f;
    int   n = 0;

    snprintf(path, sizeof(path), "%s/adapter_config.json", dir);
    f = fopen(path, "w");
    CHECK(f != NULL);
    fprintf(f, "{\"peft_type\": \"LORA\", \"r\": %u, \"lora_alpha\": %g, \"bias\": \"none\", \"target_modules\": [",
            a->rank, (double)(a->scale * (float)a->rank));
    for (int l = 0; l < CTS_N_LINEARS; l++)
        if (a->linears >> l & 1) fprintf(f, "%s\"%s\"", n++ > 0 ? ", " : "", cts_linear_name((enum cts_linear)l));
    fprintf(f, "], \"task_type\": \"CAUSAL_LM\"}\n");
    CHECK(fclose(f) == 0);
}

/* A PEFT folder of plausible size: A of about 1 / sqrt(in), B such that the logits move. */
static void write_adapter(const struct adapter *a, const char *dir)
{
    struct cts_tensor_out t[2 * 4 * CTS_N_LINEARS];
    static char           names[2 * 4 * CTS_N_LINEARS][128];
    char                  path[600];
    uint32_t              n = 0, n_out, n_in;

    snprintf(path, sizeof(path), "mkdir -p '%s'", dir);
    CHECK(system(path) == 0);
    write_config(a, dir);
    for (uint32_t layer = 0; layer < C.n_layers; layer++)
        for (int l = 0; l < CTS_N_LINEARS; l++) {
            if (!(a->linears >> l & 1) || (a->odd_layers_only && layer % 2 == 0)) continue;
            cts_linear_shape(&C, (enum cts_linear)l, &n_out, &n_in);
            for (int ab = 0; ab < 2; ab++, n++) {
                snprintf(names[n], sizeof(names[n]), "base_model.model.model.layers.%u.%s.%s.lora_%c.weight", layer,
                         l <= CTS_O ? "self_attn" : "mlp", cts_linear_name((enum cts_linear)l), "AB"[ab]);
                t[n] = (struct cts_tensor_out){ names[n],
                                                CTS_F32,
                                                2,
                                                { ab == 0 ? a->rank : n_out, ab == 0 ? n_in : a->rank },
                                                values((uint64_t)a->rank * (ab == 0 ? n_in : n_out),
                                                       ab == 0 ? 0.06f : 0.05f) };
            }
        }
    snprintf(path, sizeof(path), "%s/adapter_model.safetensors", dir);
    CHECK(cts_safetensors_write(path, t, n, NULL) == 0);
    for (uint32_t i = 0; i < n; i++) free((float *)t[i].values);
}

static const char *adapter_dir(size_t i)
{
    static char dir[400];

    snprintf(dir, sizeof(dir), "%s/%s", TOP, ADAPTERS[i].name);
    return dir;
}

/* ---- merged bases ---- */

/* weight [n_out, n_in] += w s B A, summed in float64. */
static void merge_module(float *weight, const struct cts_peft_module *m, double w)
{
    for (uint32_t o = 0; o < m->n_out; o++)
        for (uint32_t i = 0; i < m->n_in; i++) {
            double sum = 0;

            for (uint32_t r = 0; r < m->rank; r++)
                sum += (double)m->b[(size_t)o * m->rank + r] * (double)m->a[(size_t)r * m->n_in + i];
            weight[(size_t)o * m->n_in + i] += (float)(w * (double)m->scale * sum);
        }
}

static void merge_tensor(float *weight, const char *name, const struct cts_request_part *parts, uint32_t n_parts,
                         const struct cts_peft *pefts)
{
    for (uint32_t p = 0; p < n_parts; p++)
        for (uint32_t i = 0; i < pefts[parts[p].adapter_idx].n_modules; i++) {
            const struct cts_peft_module *m = &pefts[parts[p].adapter_idx].modules[i];
            char                          of[128];

            snprintf(of, sizeof(of), "model.layers.%u.%s.%s.weight", m->layer,
                     m->linear <= CTS_O ? "self_attn" : "mlp", cts_linear_name(m->linear));
            if (strcmp(of, name) == 0) merge_module(weight, m, (double)parts[p].weight);
        }
}

/* A base in dir with parts (adapter_idx: of ADAPTERS) merged in, float32. */
static void write_merged(const char *dir, const struct cts_request_part *parts, uint32_t n_parts)
{
    struct cts_safetensors f;
    struct cts_tensor_out  t[64];
    struct cts_peft        pefts[N_ADAPTERS];
    uint8_t                digest[CTS_DIGEST_BYTES];
    char                   path[1200];

    CHECK(cts_base_digest(BASE, &C, digest, NULL) == 0);
    for (size_t i = 0; i < N_ADAPTERS; i++) CHECK(cts_peft_read(&pefts[i], adapter_dir(i), &C, digest, NULL) == 0);
    snprintf(path, sizeof(path), "mkdir -p '%s' && cp '%s'/*.json '%s'", dir, BASE, dir);
    CHECK(system(path) == 0);
    snprintf(path, sizeof(path), "%s/model.safetensors", BASE);
    CHECK(cts_safetensors_open(&f, path, NULL) == 0);
    CHECK(f.n_tensors <= 64);
    for (uint32_t i = 0; i < f.n_tensors; i++) {
        float *v = malloc(f.tensors[i].n_values * sizeof(*v));

        CHECK(v != NULL && cts_safetensors_read_f32(&f, &f.tensors[i], v, NULL) == 0);
        merge_tensor(v, f.tensors[i].name, parts, n_parts, pefts);
        t[i] = (struct cts_tensor_out){
            f.tensors[i].name, CTS_F32, f.tensors[i].n_dims, { f.tensors[i].dim[0], f.tensors[i].dim[1] }, v
        };
    }
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    CHECK(cts_safetensors_write(path, t, f.n_tensors, NULL) == 0);
    for (uint32_t i = 0; i < f.n_tensors; i++) free((float *)t[i].values);
    cts_safetensors_close(&f);
    for (size_t i = 0; i < N_ADAPTERS; i++) cts_peft_free(&pefts[i]);
}

/* ---- runs ---- */

#define N_REQUESTS 7

struct request {
    struct answer           answer;
    uint32_t                n_parts;
    struct cts_request_part parts[CTS_PARTS_PER_REQUEST_MAX]; /* adapter_idx: of ADAPTERS */
    float                  *logits;                           /* [N_POS_MAX, N_VOCAB] */
    uint32_t                n_pos;
};

struct mix {
    struct request requests[N_REQUESTS];
};

static void on_logits(void *arg, uint64_t tag, uint32_t pos, const float *logits)
{
    struct request *r = (struct request *)(uintptr_t)tag; /* the answer stands first */

    (void)arg;
    if (pos >= N_POS_MAX) return;
    memcpy(r->logits + (size_t)pos * N_VOCAB, logits, N_VOCAB * sizeof(*logits));
    r->n_pos = pos + 1;
}

static struct cts_engine_opts mixed_opts(void)
{
    struct cts_engine_opts o = rig_opts();

    o.n_exact_max = N_ADAPTERS;
    o.n_logits_max = o.n_rows_max;
    return o;
}

/* Prompt and forced answer: row 1 of golden.jsonl with its tokens as prompt, so that
 * base and merged base read the same. */
static struct cts_engine_request *prepare(struct rig *rig, struct request *r)
{
    const struct golden_row   *g = &G.rows[1];
    struct cts_engine_request *req = rig_request(rig, &r->answer, g);

    memcpy(req->prompt + g->n_prompt, g->tokens, N_TOKENS * sizeof(*g->tokens));
    req->n_prompt = g->n_prompt + N_TOKENS;
    req->max_tokens = 1;
    r->n_pos = 0;
    return req;
}

/* Everything in one batch, exact rows beside base rows. */
static void run_mixed(struct mix *mix, const char *backend)
{
    struct cts_engine_opts     o = mixed_opts();
    struct rig                 rig;
    struct cts_engine_request *reqs[N_REQUESTS];
    uint32_t                   idx[N_ADAPTERS];

    o.backend = backend;
    rig_open(&rig, &o);
    for (size_t i = 0; i < N_ADAPTERS; i++) idx[i] = rig_load(&rig, adapter_dir(i));
    cts_engine_tap(rig.e, on_logits, NULL);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        struct request *r = &mix->requests[i];

        reqs[i] = prepare(&rig, r);
        reqs[i]->n_parts = r->n_parts;
        for (uint32_t p = 0; p < r->n_parts; p++)
            reqs[i]->parts[p] = (struct cts_request_part){ idx[r->parts[p].adapter_idx], r->parts[p].weight };
        rig_admit(&rig, reqs[i]);
    }
    rig_wait(&rig, 0);
    rig_close(&rig);
}

static void run_merged(struct request *r, const char *dir)
{
    struct cts_engine_opts o = mixed_opts();
    struct rig             rig;

    o.base_dir = dir;
    rig_open(&rig, &o);
    cts_engine_tap(rig.e, on_logits, NULL);
    rig_admit(&rig, prepare(&rig, r));
    rig_wait(&rig, 0);
    rig_close(&rig);
}

/* Largest difference over all positions and the whole vocabulary. */
static float difference(const struct request *a, const struct request *b)
{
    float max = 0;

    CHECK(a->n_pos == b->n_pos && a->n_pos == G.rows[1].n_prompt + N_TOKENS);
    for (size_t i = 0; i < (size_t)a->n_pos * N_VOCAB; i++) {
        float d = fabsf(a->logits[i] - b->logits[i]);
        if (!(d <= max)) max = d;
    }
    return max;
}

static struct mix *new_mix(void)
{
    static const struct request R[N_REQUESTS] = {
        { .n_parts = 0 },
        { .n_parts = 1, .parts = { { 0, 1 } } },
        { .n_parts = 1, .parts = { { 1, 1 } } },
        { .n_parts = 1, .parts = { { 2, 1 } } },
        { .n_parts = 1, .parts = { { 3, 1 } } },
        { .n_parts = 2, .parts = { { 1, 1 }, { 2, 1 } } },                                /* PEFT's "cat" */
        { .n_parts = 4, .parts = { { 0, 0.5f }, { 1, -0.25f }, { 2, 1.5f }, { 3, 1 } } }, /* a blend of all */
    };
    struct mix *m = calloc(1, sizeof(*m));

    CHECK(m != NULL);
    for (int i = 0; i < N_REQUESTS; i++) {
        m->requests[i] = R[i];
        m->requests[i].logits = malloc((size_t)N_POS_MAX * N_VOCAB * sizeof(float));
        CHECK(m->requests[i].logits != NULL);
    }
    return m;
}

static void free_mix(struct mix *m)
{
    for (int i = 0; i < N_REQUESTS; i++) free(m->requests[i].logits);
    free(m);
}

static void rows_of_any_rank_and_module_equal_the_merged_base(void **state)
{
    static const char *const BACKENDS[] = { "cpu", "ref", "async" };
    struct mix              *want = new_mix(), *got = new_mix();
    char                     dir[400];

    (void)state;
    for (int i = 0; i < N_REQUESTS; i++) {
        snprintf(dir, sizeof(dir), "%s/merged-%d", TOP, i);
        write_merged(dir, want->requests[i].parts, want->requests[i].n_parts);
        run_merged(&want->requests[i], dir);
        /* The adapter matters: rounding could not hide that it is missing. */
        if (i > 0) CHECK(difference(&want->requests[i], &want->requests[0]) > 0.3f);
    }
    for (int b = 0; b < (RIG_IS_SANITIZED ? 1 : 3); b++) {
        run_mixed(got, BACKENDS[b]);
        for (int i = 0; i < N_REQUESTS; i++) {
            float d = difference(&got->requests[i], &want->requests[i]);
            CHECK_MSG(d < 1e-3f, "%s: request %d differs by %g\n", BACKENDS[b], i, (double)d);
        }
    }
    free_mix(want);
    free_mix(got);
}

static int setup(void **state)
{
    (void)state;
    golden_load(&G);
    temp_dir(TOP, sizeof(TOP));
    src_path(BASE, sizeof(BASE), "contrib/demo/base");
    CHECK(cts_model_config_load(&C, BASE, NULL) == 0);
    SEED = 20240711;
    for (size_t i = 0; i < N_ADAPTERS; i++) write_adapter(&ADAPTERS[i], adapter_dir(i));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    golden_free(&G);
    remove_tree(TOP);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_any_rank_and_module_equal_the_merged_base),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
