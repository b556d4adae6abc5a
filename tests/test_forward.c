#include "daemon/model/forward.h"
#include "tests/check.h"
#include "tests/golden_rows.h"

#include "daemon/engine/adapter_tables.h"
#include "daemon/model/peft.h"

#include <math.h>
#include <string.h>

#define N_ROWS      256
#define PAGE_TOKENS 16
#define N_PAGES     64
#define N_SEQS      4

struct rig {
    struct cts_model_config   c;
    struct ctsk_dev          *dev;
    struct ctsk_stream       *stream;
    struct cts_weights        w;
    struct cts_forward       *f;
    struct cts_adapter_tables adapters;
};

static const char *base_dir(void)
{
    static char dir[512];

    return src_path(dir, sizeof(dir), "contrib/demo/base");
}

static void rig_open(struct rig *rig, const char *backend)
{
    struct cts_err          err = { 0 };
    struct ctsk_opts        ko = { .backend = backend, .n_threads = 1 };
    struct cts_forward_opts o = { .n_rows_max = N_ROWS,
                                  .n_seqs_max = N_SEQS,
                                  .n_parts_max = 2 * N_ROWS,
                                  .n_logits_max = N_ROWS,
                                  .n_pages = N_PAGES,
                                  .page_tokens = PAGE_TOKENS,
                                  .n_pages_per_seq_max = N_PAGES / 2,
                                  .rank_max = 16 };

    CHECK_MSG(cts_model_config_load(&rig->c, base_dir(), &err) == 0, "%s\n", err.text);
    CHECK(ctsk_open(&rig->dev, &ko, &err) == 0);
    CHECK(ctsk_stream_new(rig->dev, &rig->stream) == 0);
    CHECK_MSG(cts_weights_load(&rig->w, rig->dev, &rig->c, base_dir(), &err) == 0, "%s\n", err.text);
    CHECK_MSG(cts_forward_new(&rig->f, rig->dev, rig->stream, &rig->c, &rig->w, &o, &err) == 0, "%s\n", err.text);
    struct cts_adapter_tables_opts ao = { .model = &rig->c, .n_exact = 2, .rank_max = 16 };
    struct cts_adapter_tables_size size;
    CHECK(cts_adapter_tables_measure(&ao, &size, &err) == 0);
    CHECK(cts_adapter_tables_open(&rig->adapters, rig->dev, rig->stream, &ao, &size, &err) == 0);
}

static void rig_close(struct rig *rig)
{
    cts_adapter_tables_close(&rig->adapters);
    cts_forward_free(rig->f);
    cts_weights_free(&rig->w);
    ctsk_stream_free(rig->stream);
    ctsk_close(rig->dev);
}

/* Rows pos .. pos + n - 1 of one sequence into an empty step. Its pages lie
 * backwards in the cache, so that a page number and its place in the table differ. */
static void put_rows(struct rig *rig, const int32_t *tokens, uint32_t pos, uint32_t n, uint64_t factors)
{
    struct cts_forward_in *in = cts_forward_in(rig->f);

    in->n_rows = in->n_logits = n;
    in->n_seqs = 1;
    in->n_parts = 0;
    for (int32_t p = 0; p < N_PAGES / 2; p++) in->page_table[p] = N_PAGES - 1 - p;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = pos + i;

        in->token[i] = tokens[i];
        in->pos[i] = (int32_t)at;
        in->place[i] = in->page_table[at / PAGE_TOKENS] * PAGE_TOKENS + (int32_t)(at % PAGE_TOKENS);
        in->seq[i] = 0;
        in->logits_row[i] = (int32_t)i;
        if (factors != 0) in->parts[in->n_parts++] = (struct ctsk_row_part){ factors, 1, i };
    }
}

static int32_t best_of(const float *logits, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

static float logprob_of(const float *logits, uint32_t n, int32_t id)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++) sum += exp((double)logits[i]);
    return (float)((double)logits[id] - log(sum));
}

/* Prompt and answer in one step: the logits at each place must give the next token. */
static void check_row(struct rig *rig, const struct golden_row *r, uint64_t factors)
{
    int32_t tokens[N_ROWS];

    memcpy(tokens, r->prompt, r->n_prompt * sizeof(*tokens));
    memcpy(tokens + r->n_prompt, r->tokens, (r->n_tokens - 1) * sizeof(*tokens));
    put_rows(rig, tokens, 0, r->n_prompt + r->n_tokens - 1, factors);
    CHECK(cts_forward_step(rig->f) == 0);
    CHECK(cts_forward_wait(rig->f) == 0);
    for (uint32_t i = 0; i < r->n_tokens; i++) {
        const float *logits = cts_forward_logits(rig->f) + (size_t)(r->n_prompt - 1 + i) * rig->c.vocab_size;
        int32_t      token = best_of(logits, rig->c.vocab_size);
        const char  *what = golden_compare(r, i, token, logprob_of(logits, rig->c.vocab_size, token), NULL, NULL, 0);

        CHECK_MSG(what == NULL, "'%s' adapter '%s': %s\n", r->user, r->adapter, what);
    }
}

static void the_base_answers_as_transformers_does(void **state)
{
    static const char *const BACKENDS[] = { "cpu", "ref", "async" };
    struct golden            g;

    (void)state;
    golden_load(&g);
    for (int b = 0; b < 3; b++) {
        struct rig rig;
        uint32_t   n = 0;

        rig_open(&rig, BACKENDS[b]);
        for (uint32_t i = 0; i < g.n && n < (b == 0 ? 100 : 2); i++)
            if (g.rows[i].adapter[0] == 0) {
                check_row(&rig, &g.rows[i], 0);
                n++;
            }
        rig_close(&rig);
    }
    golden_free(&g);
}

static void an_exact_adapter_answers_as_peft_does(void **state)
{
    struct rig      rig;
    struct golden   g;
    struct cts_peft peft = { 0 };
    char            loaded[128] = "", name[256], path[512];
    struct cts_err  err = { 0 };

    (void)state;
    golden_load(&g);
    rig_open(&rig, "cpu");
    for (uint32_t i = 0; i < g.n; i += 61) {
        const struct golden_row *r = &g.rows[i];

        if (r->adapter[0] == 0) continue;
        snprintf(name, sizeof(name), "contrib/demo/adapters/%s/%s", r->collection, r->adapter);
        if (strcmp(name, loaded) != 0) {
            cts_peft_free(&peft);
            src_path(path, sizeof(path), name);
            CHECK_MSG(cts_peft_read(&peft, path, &rig.c, rig.w.digest, &err) == 0, "%s\n", err.text);
            CHECK(cts_adapter_tables_load(&rig.adapters, 0, &peft) == 0);
        }
        check_row(&rig, r, cts_adapter_tables_at(&rig.adapters, rig.adapters.views[0].first_table));
    }
    cts_peft_free(&peft);
    rig_close(&rig);
    golden_free(&g);
}

/* What the loop over rows of a step must see of each input, before a kernel does. */
static void a_step_with_an_input_out_of_range_is_refused(void **state)
{
    struct rig             rig;
    struct cts_forward_in *in;
    int32_t                tokens[40] = { 0 };

    (void)state;
    rig_open(&rig, "cpu");
    in = cts_forward_in(rig.f);
#define REFUSED(change)                                                                                              \
    do {                                                                                                             \
        put_rows(&rig, tokens, 0, 40, 0);                                                                            \
        in->n_parts = 1;                                                                                             \
        in->parts[0] = (struct ctsk_row_part){ 64, 1, 3 };                                                           \
        change;                                                                                                      \
        CHECK(cts_forward_step(rig.f) == CTS_ESHAPE);                                                                \
    } while (0)
    REFUSED(in->n_rows = N_ROWS + 1);
    REFUSED(in->n_seqs = N_SEQS + 1);
    REFUSED(in->n_parts = 2 * N_ROWS + 1);
    REFUSED(in->n_logits = N_ROWS + 1);
    REFUSED(in->token[39] = (int32_t)rig.c.vocab_size);
    REFUSED(in->token[0] = -1);
    REFUSED(in->pos[0] = -1);
    REFUSED(in->pos[39] = (int32_t)rig.c.max_positions);
    REFUSED(in->pos[39] = N_PAGES / 2 * PAGE_TOKENS);
    REFUSED(in->pos[20] = 19);
    REFUSED(in->place[5] += 1);
    REFUSED(in->place[5] = -1);
    REFUSED(in->seq[7] = 1);
    REFUSED(in->seq[7] = -1);
    REFUSED(in->page_table[1] = N_PAGES);
    REFUSED(in->page_table[1] = -1);
    REFUSED(in->page_table[2] = INT32_MAX);
    REFUSED(in->parts[0].row = 40);
    REFUSED(in->parts[0].factors = 0);
    REFUSED(in->parts[1] = in->parts[0]; in->parts[1].row = 2; in->n_parts = 2);
    REFUSED(in->logits_row[39] = 40);
    REFUSED(in->logits_row[1] = 0);
    REFUSED(in->logits_row[0] = -1);
#undef REFUSED
    put_rows(&rig, tokens, 0, 40, 0);
    CHECK(cts_forward_step(rig.f) == 0);
    in->n_rows = in->n_seqs = in->n_logits = 0; /* an empty step is nothing to do */
    CHECK(cts_forward_step(rig.f) == 0);
    CHECK(cts_forward_wait(rig.f) == 0);
    rig_close(&rig);
}

struct seen {
    uint32_t n;
    int      is_wrong;
    uint64_t addr[4 * CTS_N_LINEARS];
};

static void note(void *arg, uint32_t layer, enum cts_linear l, struct ctsk_ptr x, uint32_t n_rows, uint32_t n_in,
                 struct ctsk_stream *s)
{
    struct seen *seen = arg;

    seen->is_wrong |= seen->n != cts_module_idx(layer, l) || n_rows != 3 || s == NULL;
    seen->is_wrong |= n_in != (l == CTS_DOWN ? 640u : 256u);
    seen->addr[seen->n++] = x.addr;
}

static void the_tap_sees_what_feeds_every_module_in_order(void **state)
{
    struct rig  rig;
    struct seen seen = { 0 };
    int32_t     tokens[3] = { 1, 2, 3 };

    (void)state;
    rig_open(&rig, "cpu");
    cts_forward_tap(rig.f, note, &seen);
    put_rows(&rig, tokens, 0, 3, 0);
    CHECK(cts_forward_step(rig.f) == 0);
    CHECK(cts_forward_wait(rig.f) == 0);
    CHECK(seen.n == 4 * CTS_N_LINEARS && !seen.is_wrong);
    CHECK(seen.addr[CTS_Q] == seen.addr[CTS_V] && seen.addr[CTS_GATE] == seen.addr[CTS_UP]);
    CHECK(seen.addr[CTS_O] != seen.addr[CTS_Q] && seen.addr[CTS_DOWN] != seen.addr[CTS_UP]);
    rig_close(&rig);
}

static void the_plan_is_what_is_taken(void **state)
{
    struct cts_model_config c;
    struct cts_forward_opts o = { 8, 2, 8, 2, 10, 16, 5, 4 };
    uint64_t                kv, work;

    (void)state;
    CHECK(cts_model_config_load(&c, base_dir(), NULL) == 0);
    cts_forward_bytes(&c, &o, &kv, &work);
    CHECK(kv == 2ull * c.n_layers * 10 * 16 * c.n_kv_heads * c.head_dim * sizeof(float));
    CHECK(work > 8ull * sizeof(float) * (2 * c.hidden + 2 * c.intermediate));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_base_answers_as_transformers_does),
        cmocka_unit_test(an_exact_adapter_answers_as_peft_does),
        cmocka_unit_test(a_step_with_an_input_out_of_range_is_refused),
        cmocka_unit_test(the_tap_sees_what_feeds_every_module_in_order),
        cmocka_unit_test(the_plan_is_what_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
