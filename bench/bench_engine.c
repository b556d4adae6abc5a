/* Tokens per second of the whole engine in steady decode: 64 rows a step, every
 * row its own adapter, base only, compressed and exact.
 *
 *   bench_engine [--demo DIR] [--collection DIR] [--threads N] [--tokens N]
 *
 * Run in the build directory. Without --collection, ./cts-compress makes one of
 * rank 16 from DIR/adapters/shared-start first. Before anything is timed every
 * answer of the batch is compared with the same request's alone, and the exact
 * ones with the right answers of tasks.jsonl. The three cases take turns; the best
 * of five runs each is printed, the base alone being the peer of the other two. */
#include "common/clock.h"
#include "common/json.h"
#include "common/wait.h"
#include "daemon/engine/engine.h"
#include "daemon/store/collection.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_ROWS       64u
#define N_RUNS       5
#define TOKENS_MAX   512
#define N_WARM       4  /* tokens of every row before the clock starts: prompts are over */
#define CHECK_TOKENS 24 /* enough for every answer of the demo */

enum lane { BASE, COMPRESSED, EXACT, N_LANES };
static const char *const LANE_NAMES[N_LANES] = { "base only", "compressed", "exact" };

struct task {
    char     name[64];
    char     output[256];
    int32_t  prompt[256];
    uint32_t n_prompt;
    uint32_t adapter_idx[N_LANES];
};

struct row {
    uint32_t n;
    int32_t  tokens[TOKENS_MAX];
    char     text[1024];
    uint32_t text_bytes;
};

struct bench {
    const char        *demo, *collection;
    char               top[64], base[128]; /* temporary: a base that never stops, a collection */
    uint32_t           n_threads, n_tokens;
    struct task        tasks[N_ROWS];
    struct row         rows[N_ROWS];
    struct cts_engine *e;
    struct cts_bell    bell;
    uint32_t           n_live, n_warm; /* rows that have N_WARM tokens */
};

static struct bench B;

extern char **environ;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_engine: %s: %s\n", what, why);
    exit(1);
}

/* Its words go nowhere: stdout is for figures. */
static void run_program(char *const argv[])
{
    posix_spawn_file_actions_t quiet;
    pid_t                      pid;
    int                        status, rc;

    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    rc = posix_spawn(&pid, argv[0], &quiet, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&quiet);
    if (rc != 0) die(argv[0], strerror(rc));
    if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) die(argv[0], "failed");
}

static void remove_top(void)
{
    char *const argv[] = { "/bin/rm", "-rf", B.top, NULL };

    run_program(argv);
}

/* The demo's base without end tokens, so that every row runs for ever. */
static void make_base(void)
{
    char           path[4352], target[4352];
    json_t        *config;
    struct cts_err err = { 0 };
    const char    *files[] = { "model.safetensors", "tokenizer.json", "tokenizer_config.json" };

    snprintf(B.top, sizeof(B.top), "/tmp/bench_engine.XXXXXX");
    if (mkdtemp(B.top) == NULL) die(B.top, strerror(errno));
    atexit(remove_top);
    snprintf(B.base, sizeof(B.base), "%s/base", B.top);
    if (mkdir(B.base, 0700) != 0) die(B.base, strerror(errno));
    snprintf(path, sizeof(path), "%s/base/config.json", B.demo);
    if (cts_json_load(path, 1 << 20, &config, &err) != 0) die("config.json", err.text);
    json_object_set_new(config, "eos_token_id", json_null()); /* absent would mean the default, 2 */
    snprintf(path, sizeof(path), "%s/config.json", B.base);
    if (cts_json_save(config, path, &err) != 0) die("config.json", err.text);
    json_decref(config);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char *dir = realpath(B.demo, NULL);

        if (dir == NULL) die(B.demo, strerror(errno));
        snprintf(target, sizeof(target), "%s/base/%s", dir, files[i]);
        snprintf(path, sizeof(path), "%s/%s", B.base, files[i]);
        if (symlink(target, path) != 0) die(path, strerror(errno));
        free(dir);
    }
}

static void make_collection(void)
{
    static char base[4352], adapters[4352], out[128];
    char *const argv[] = { "./cts-compress", base, adapters, "-o", out, "--rank", "16", NULL };

    if (B.collection != NULL) return;
    snprintf(base, sizeof(base), "%s/base", B.demo);
    snprintf(adapters, sizeof(adapters), "%s/adapters/shared-start", B.demo);
    snprintf(out, sizeof(out), "%s/collection", B.top);
    run_program(argv);
    B.collection = out;
}

static void on_events(void *arg)
{
    (void)arg;
    cts_bell_ring(&B.bell);
}

static void open_engine(void)
{
    struct cts_engine_opts o = { .base_dir = B.base,
                                 .collection_dir = B.collection,
                                 .n_threads = B.n_threads,
                                 .spin_ns = 200000,
                                 .n_requests_max = N_ROWS,
                                 .n_rows_max = 256,
                                 .n_seqs_max = N_ROWS,
                                 .prefill_chunk_rows = 32,
                                 .page_tokens = 16,
                                 .n_pages = N_ROWS * 1024 / 16,
                                 .n_exact_max = N_ROWS,
                                 .rank_max = 16,
                                 .on_events = on_events };
    struct cts_err         err = { 0 };

    if (cts_engine_open(&B.e, &o, &err) != 0) die("engine", err.text);
}

static void take_events(void)
{
    struct cts_engine_event ev;

    while (cts_engine_next(B.e, &ev)) {
        struct row *r = &B.rows[ev.tag < N_ROWS ? ev.tag : 0];

        if (ev.type == CTS_EV_ERROR || (ev.type == CTS_EV_ADAPTER && ev.code != 0))
            die("engine", cts_strerror(ev.code));
        if (ev.type == CTS_EV_TOKEN) {
            r->tokens[r->n++] = ev.token;
            B.n_warm += r->n == N_WARM;
        }
        if (ev.type == CTS_EV_TOKEN || ev.type == CTS_EV_TEXT) {
            if (r->text_bytes + ev.text_bytes >= sizeof(r->text)) die("engine", "too much text");
            memcpy(r->text + r->text_bytes, ev.text, ev.text_bytes);
            r->text_bytes += ev.text_bytes;
        }
        if (ev.type == CTS_EV_DONE) cts_request_free(B.e, cts_request_at(B.e, ev.req_idx));
        if (ev.type == CTS_EV_DONE || ev.type == CTS_EV_ADAPTER) B.n_live--;
    }
}

static void wait_until(const uint32_t *count, uint32_t want)
{
    cts_engine_kick(B.e);
    for (;;) {
        uint32_t ticket = cts_bell_ticket(&B.bell);

        take_events();
        if (*count == want) return;
        cts_bell_sleep(&B.bell, ticket, UINT64_MAX);
    }
}

static void load_exact(struct task *t)
{
    struct cts_peft peft;
    struct cts_err  err = { 0 };
    char            dir[4480];

    snprintf(dir, sizeof(dir), "%s/adapters/shared-start/%s", B.demo, t->name);
    if (cts_peft_read(&peft, dir, cts_engine_model(B.e), cts_engine_base_digest(B.e), &err) != 0) die(dir, err.text);
    if (cts_engine_exact_idx(B.e, &t->adapter_idx[EXACT]) != 0) die(dir, "no place");
    if (cts_engine_load(B.e, t->adapter_idx[EXACT], &peft, N_ROWS) != 0) die(dir, "load");
    B.n_live = 1;
    wait_until(&B.n_live, 0);
    cts_peft_free(&peft);
}

static void read_task(struct task *t, const json_t *line, struct cts_encoder *enc)
{
    const json_t *first = json_array_get(json_object_get(line, "held_out"), 0);
    const char   *name = json_string_value(json_object_get(line, "adapter"));
    const char   *input = json_string_value(json_object_get(first, "input"));
    const char   *output = json_string_value(json_object_get(first, "output"));
    int64_t       found, n;

    if (name == NULL || input == NULL || output == NULL || strlen(name) >= sizeof(t->name) ||
        strlen(output) >= sizeof(t->output))
        die("tasks.jsonl", "not as expected");
    strcpy(t->name, name);
    strcpy(t->output, output);
    n = cts_chat_render(
        cts_engine_chat(B.e), enc,
        &(struct cts_chat_message){ { (const uint8_t *)"user", 4 }, { (const uint8_t *)input, strlen(input) } }, 1,
        t->prompt, sizeof(t->prompt) / sizeof(t->prompt[0]));
    found = cts_collection_find(cts_engine_collection(B.e), name);
    if (n <= 0 || found < 0) die(name, "no prompt, or not in the collection");
    t->n_prompt = (uint32_t)n;
    t->adapter_idx[BASE] = CTS_ADAPTER_BASE;
    t->adapter_idx[COMPRESSED] = (uint32_t)found;
    load_exact(t);
}

static void read_tasks(void)
{
    char                path[4352], *line = NULL;
    size_t              cap = 0;
    struct cts_encoder *enc;
    FILE               *f;

    snprintf(path, sizeof(path), "%s/tasks.jsonl", B.demo);
    f = fopen(path, "r");
    if (f == NULL) die(path, strerror(errno));
    if (cts_encoder_new(&enc, cts_engine_tokenizer(B.e), 4096) != 0) die("encoder", strerror(ENOMEM));
    for (uint32_t i = 0; i < N_ROWS; i++) {
        json_t        *doc;
        struct cts_err err = { 0 };

        if (getline(&line, &cap, f) <= 0) die(path, "fewer than 64 tasks");
        if (cts_json_parse(line, strlen(line), path, &doc, &err) != 0) die(path, err.text);
        read_task(&B.tasks[i], doc, enc);
        json_decref(doc);
    }
    cts_encoder_free(enc);
    free(line);
    fclose(f);
}

static void submit(uint32_t i, enum lane lane, uint32_t n_tokens, int want_text)
{
    struct cts_engine_request *r = cts_request_new(B.e);
    const struct task         *t = &B.tasks[i];
    struct cts_err             err = { 0 };

    if (r == NULL) die("engine", "no request");
    r->tag = i;
    r->n_prompt = t->n_prompt;
    memcpy(r->prompt, t->prompt, t->n_prompt * sizeof(*t->prompt));
    r->max_tokens = n_tokens;
    r->want_text = want_text;
    r->n_parts = 1;
    r->parts[0] = (struct cts_request_part){ t->adapter_idx[lane], 1 };
    if (want_text) { /* the end token of the demo's base, which this one has not */
        r->n_stop_tokens = 1;
        r->stop_tokens[0] = cts_tokenizer_id(cts_engine_tokenizer(B.e), "<|im_end|>");
    }
    B.rows[i] = (struct row){ 0 };
    if (cts_engine_admit(B.e, r, &err) != 0) die("engine", err.text);
    B.n_live++;
}

/* The answers alone, then in one batch: equal, and for the exact lane right. */
static void check(enum lane lane)
{
    static struct row alone[N_ROWS];
    uint32_t          n_right = 0;

    for (uint32_t i = 0; i < N_ROWS; i++) {
        submit(i, lane, CHECK_TOKENS, 1);
        wait_until(&B.n_live, 0);
        alone[i] = B.rows[i];
    }
    for (uint32_t i = 0; i < N_ROWS; i++) submit(i, lane, CHECK_TOKENS, 1);
    wait_until(&B.n_live, 0);
    for (uint32_t i = 0; i < N_ROWS; i++) {
        if (memcmp(&alone[i], &B.rows[i], sizeof(alone[i])) != 0)
            die(B.tasks[i].name, "another answer in a batch than alone");
        n_right += strcmp(B.rows[i].text, B.tasks[i].output) == 0;
    }
    fprintf(stderr, "%s: %u of %u right\n", LANE_NAMES[lane], n_right, N_ROWS);
    if (lane == EXACT && n_right < N_ROWS - 2) die("exact lane", "wrong answers");
}

/* Tokens per second from the moment when every prompt is over. */
static double time_lane(enum lane lane)
{
    uint64_t start_ns;
    uint32_t n_before = 0;

    B.n_warm = 0;
    for (uint32_t i = 0; i < N_ROWS; i++) submit(i, lane, B.n_tokens, 0);
    wait_until(&B.n_warm, N_ROWS);
    start_ns = cts_clock_ns();
    for (uint32_t i = 0; i < N_ROWS; i++) n_before += B.rows[i].n;
    wait_until(&B.n_live, 0);
    return (double)(N_ROWS * B.n_tokens - n_before) / (double)(cts_clock_ns() - start_ns) * 1e9;
}

static void report(enum lane lane, const double v[N_LANES][N_RUNS], const char *digest)
{
    double best = 0, worst = 1e300, base = 0;

    for (int i = 0; i < N_RUNS; i++) {
        if (v[lane][i] > best) best = v[lane][i];
        if (v[lane][i] < worst) worst = v[lane][i];
        if (v[BASE][i] > base) base = v[BASE][i];
    }
    printf("{\"bench\":\"engine\",\"case\":\"decode, %u rows, %s, %s, collection %.12s\",\"value\":%.1f,"
           "\"unit\":\"tokens/s\",\"peer\":\"%s\",\"peer_value\":%.1f,\"ratio\":%.4f,\"n\":%d,\"spread\":%.4f}\n",
           N_ROWS, LANE_NAMES[lane], cts_engine_describe(B.e), digest, best, LANE_NAMES[BASE], base, best / base,
           N_RUNS, (best - worst) / best);
}

static void parse_args(int argc, char **argv)
{
    static const struct option OPTIONS[] = { { "demo", required_argument, NULL, 'd' },
                                             { "collection", required_argument, NULL, 'c' },
                                             { "threads", required_argument, NULL, 't' },
                                             { "tokens", required_argument, NULL, 'n' },
                                             { 0 } };
    int                        c;
    static char                demo[4096];
    const char                *src = getenv("CTS_SRCDIR");

    snprintf(demo, sizeof(demo), "%s/contrib/demo", src != NULL ? src : ".");
    B.demo = demo;
    B.n_tokens = 128;
    while ((c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        if (c == 'd') B.demo = optarg;
        else if (c == 'c') B.collection = optarg;
        else if (c == 't') B.n_threads = (uint32_t)strtoul(optarg, NULL, 10);
        else if (c == 'n') B.n_tokens = (uint32_t)strtoul(optarg, NULL, 10);
        else exit(2);
    }
    if (B.n_tokens <= N_WARM || B.n_tokens > TOKENS_MAX) die("--tokens", "5 to 512");
}

int main(int argc, char **argv)
{
    double values[N_LANES][N_RUNS];
    char   digest[CTS_DIGEST_HEX_BYTES];

    parse_args(argc, argv);
    make_base();
    make_collection();
    open_engine();
    read_tasks();
    cts_digest_hex(cts_engine_collection(B.e)->digest, digest);
    for (int l = 0; l < N_LANES; l++) check((enum lane)l);
    for (int i = 0; i < N_RUNS; i++)
        for (int l = 0; l < N_LANES; l++) values[l][i] = time_lane((enum lane)l);
    for (int l = 0; l < N_LANES; l++) report((enum lane)l, (const double(*)[N_RUNS])values, digest);
    cts_engine_close(B.e);
    return 0;
}
