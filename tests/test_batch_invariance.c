/* For each of 64 requests the bytes of the logits at every position are the same
 * alone and in company, in whatever chunks its prompt is read, by however many
 * threads, and when neighbours leave in the middle. Base, compressed and exact
 * rows mixed. */

#include "tests/engine_rig.h"
#include "tests/lossless.h"

#include "kernels/ctsk.h"

#include <stdatomic.h>
#include <string.h>

#define FOLDER       "contrib/demo/adapters/own-start"
#define N_REQUESTS   (RIG_IS_SANITIZED ? 22 : 64)
#define N_TOKENS     6
#define N_POS_MAX    256
#define N_VOCAB      2048
#define N_NEIGHBOURS 16

static struct golden G;
static char          TOP[256], COLLECTION[300];

struct request {
    uint32_t      row;
    uint32_t      adapter_idx;
    float        *logits; /* of the first run: [n_pos, N_VOCAB] */
    uint32_t      n_pos;  /* positions that it has */
    uint32_t      n_seen; /* positions of this run; engine thread until all is over */
    struct answer answer;
};

struct company {
    struct request requests[N_REQUESTS];
    struct answer  neighbours[N_NEIGHBOURS];
    int            is_first; /* logits are noted, not compared */
    uint32_t       n_wrong;  /* engine thread, as n_seen */
    char           what[200];
};

/* The tag of a neighbour is no request's. */
static struct request *request_of(struct company *c, uint64_t tag)
{
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        if (tag == (uint64_t)(uintptr_t)&c->requests[i].answer) return &c->requests[i];
    return NULL;
}

static void on_logits(void *arg, uint64_t tag, uint32_t pos, const float *logits)
{
    struct company *c = arg;
    struct request *r = request_of(c, tag);

    if (r == NULL) return;
    if (pos != r->n_seen || pos >= N_POS_MAX) {
        c->n_wrong++;
        return;
    }
    r->n_seen++;
    if (c->is_first) {
        memcpy(r->logits + (size_t)pos * N_VOCAB, logits, N_VOCAB * sizeof(*logits));
        r->n_pos = r->n_seen;
    } else if (pos >= r->n_pos || memcmp(r->logits + (size_t)pos * N_VOCAB, logits, N_VOCAB * sizeof(*logits)) != 0) {
        if (c->n_wrong++ == 0) snprintf(c->what, sizeof(c->what), "row %u, position %u", r->row, pos);
    }
}

struct run_opts {
    const char *level;
    uint32_t    n_threads, chunk;
    int         is_alone, has_neighbours;
};

static struct cts_engine_request *prepare(struct rig *rig, struct request *r)
{
    struct cts_engine_request *req = rig_request(rig, &r->answer, &G.rows[r->row]);

    req->max_tokens = N_TOKENS;
    req->n_parts = r->adapter_idx != CTS_ADAPTER_BASE;
    req->parts[0] = (struct cts_request_part){ r->adapter_idx, 1 };
    r->n_seen = 0;
    return req;
}

/* Others that come first, run long, and are cancelled one after the other while
 * the batch goes on, each after a few more events. */
static void admit_neighbours(struct rig *rig, struct company *c)
{
    for (uint32_t i = 0; i < N_NEIGHBOURS; i++) {
        struct cts_engine_request *req = rig_request(rig, &c->neighbours[i], &G.rows[i * 61 + 30]);

        req->max_tokens = RIG_TOKENS_MAX - 1;
        req->n_parts = i % 3 != 0;
        req->parts[0] = (struct cts_request_part){ i % 3 == 1 ? i : 64 + i, 1 };
        rig_admit(rig, req);
    }
}

static void cancel_neighbours(struct rig *rig, struct company *c)
{
    for (uint32_t i = 0; i < N_NEIGHBOURS; i++) {
        uint32_t ticket = cts_bell_ticket(&rig->bell);

        if (c->neighbours[i].req != NULL) CHECK(cts_engine_cancel(rig->e, c->neighbours[i].req) == 0);
        cts_engine_kick(rig->e);
        if (rig->n_live > 0 && rig_take(rig) == 0) cts_bell_sleep(&rig->bell, ticket, UINT64_MAX);
    }
}

static void run(struct company *c, const struct run_opts *ro)
{
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    char                   names[64][64];
    uint32_t               idx[64];

    o.collection_dir = COLLECTION;
    o.cpu_level = ro->level;
    o.n_threads = ro->n_threads;
    o.prefill_chunk_rows = ro->chunk;
    o.n_rows_max = o.n_logits_max = 256;
    o.n_seqs_max = N_REQUESTS + N_NEIGHBOURS;
    rig_open(&rig, &o);
    rig_load_all(&rig, FOLDER, names, idx, 64);
    cts_engine_tap(rig.e, on_logits, c);
    if (ro->has_neighbours) admit_neighbours(&rig, c);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        rig_admit(&rig, prepare(&rig, &c->requests[i]));
        if (ro->is_alone) rig_wait(&rig, 0);
    }
    if (ro->has_neighbours) cancel_neighbours(&rig, c);
    rig_wait(&rig, 0);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        CHECK(c->requests[i].answer.is_over && c->requests[i].answer.code == 0);
        CHECK(c->requests[i].n_seen == c->requests[i].n_pos);
    }
    CHECK_MSG(c->n_wrong == 0, "%s: %u differ with %u threads, chunks of %u, %s\n", c->what, c->n_wrong,
              ro->n_threads, ro->chunk, ro->is_alone ? "alone" : "in company");
    rig_close(&rig);
}

/* Rows of golden.jsonl: every third base, compressed, exact; the first is the longest. */
static struct company *gather(void)
{
    struct company *c = calloc(1, sizeof(*c));
    uint32_t        base_row = 22;

    CHECK(c != NULL);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        struct request *r = &c->requests[i];

        r->row = i % 3 == 0 ? --base_row : 23 + i * 13;
        CHECK((G.rows[r->row].adapter[0] == 0) == (i % 3 == 0));
        r->adapter_idx = i % 3 == 0 ? CTS_ADAPTER_BASE : i % 3 == 1 ? i : 64 + i;
        r->logits = malloc((size_t)N_POS_MAX * N_VOCAB * sizeof(*r->logits));
        CHECK(r->logits != NULL);
    }
    return c;
}

static void scatter(struct company *c)
{
    for (uint32_t i = 0; i < N_REQUESTS; i++) free(c->requests[i].logits);
    free(c);
}

static void logits_do_not_depend_on_company_chunks_or_threads(void **state)
{
    static const struct run_opts RUNS[] = {
        { NULL, 1, 256, 1, 0 }, { NULL, 1, 1, 1, 0 },  { NULL, 2, 7, 1, 0 },   { NULL, 1, 64, 1, 0 },
        { NULL, 1, 1, 0, 0 },   { NULL, 1, 7, 0, 0 },  { NULL, 1, 64, 0, 0 },  { NULL, 1, 256, 0, 0 },
        { NULL, 2, 1, 0, 0 },   { NULL, 2, 7, 0, 0 },  { NULL, 2, 64, 0, 0 },  { NULL, 2, 256, 0, 0 },
        { NULL, 1, 7, 0, 1 },   { NULL, 2, 64, 0, 1 }, { NULL, 2, 256, 1, 0 },
    };
    struct company *c = gather();

    (void)state;
    for (size_t i = 0; i < sizeof(RUNS) / sizeof(RUNS[0]); i++) {
        c->is_first = i == 0;
        run(c, &RUNS[i]);
    }
    CHECK(c->requests[0].n_pos > 3 * 64); /* the longest prompt is several of the largest chunks */
    scatter(c);
}

static void the_same_holds_on_every_cpu_level(void **state)
{
    const char *levels[8];
    uint32_t    n = ctsk_cpu_levels(levels, 8);

    (void)state;
    for (uint32_t i = 0; i + 1 < n; i++) { /* the last is what the test above ran */
        struct company *c = gather();

        c->is_first = 1;
        run(c, &(struct run_opts){ levels[i], 1, 256, 1, 0 });
        c->is_first = 0;
        run(c, &(struct run_opts){ levels[i], 2, 7, 0, 1 });
        scatter(c);
    }
}

static int setup(void **state)
{
    (void)state;
    golden_load(&G);
    temp_dir(TOP, sizeof(TOP));
    snprintf(COLLECTION, sizeof(COLLECTION), "%s/collection", TOP);
    lossless_write(COLLECTION, FOLDER, NULL);
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
        cmocka_unit_test(logits_do_not_depend_on_company_chunks_or_threads),
        cmocka_unit_test(the_same_holds_on_every_cpu_level),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
