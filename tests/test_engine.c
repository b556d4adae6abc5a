/* The engine's promises to the loop thread: admission, ends of every kind, full
 * queues, cancellation, the exact lane's places. */

#include "tests/engine_rig.h"

#include "common/clock.h"
#include "common/utf8.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

static struct golden G;

static struct cts_engine_stats stats_of(struct rig *rig)
{
    struct cts_engine_stats s;

    cts_engine_stats(rig->e, &s);
    return s;
}

/* Every page and every request object is back. The engine publishes its numbers
 * at the end of a turn, after the last event: look until they have settled. */
static void check_all_free(struct rig *rig)
{
    struct cts_engine_stats s = stats_of(rig);

    for (int i = 0; i < 1000000 && (s.n_live > 0 || s.n_pages_free != s.n_pages); i++) s = stats_of(rig);
    CHECK(s.n_pages_free == s.n_pages);
    CHECK(s.n_live == 0 && s.n_waiting == 0);
}

static struct cts_engine_opts small_opts(void)
{
    struct cts_engine_opts o = rig_opts();

    o.n_requests_max = 8;
    o.n_exact_max = 2;
    return o;
}

/* ---- admission ---- */

static void check_refused(struct rig *rig, struct cts_engine_request *req, int code, const char *words)
{
    struct cts_err err = { 0 };
    int            rc = cts_engine_admit(rig->e, req, &err);

    CHECK_MSG(rc == code, "%d instead of %d: %s\n", rc, code, err.text);
    CHECK_MSG(strstr(err.text, words) != NULL, "'%s' does not say '%s'\n", err.text, words);
    CHECK(cts_engine_admit(rig->e, req, NULL) == code);
}

static void a_request_past_the_context_is_refused_with_both_numbers(void **state)
{
    struct cts_engine_opts     o = small_opts();
    struct rig                 rig;
    struct answer              a;
    struct cts_engine_request *req;

    (void)state;
    rig_open(&rig, &o);
    CHECK(cts_engine_context(rig.e) == 1024);
    req = rig_request(&rig, &a, &G.rows[0]);
    req->max_tokens = 1024 - req->n_prompt + 1;
    check_refused(&rig, req, CTS_ETOOLONG, "1025, the context has 1024");
    req->max_tokens = UINT32_MAX;
    check_refused(&rig, req, CTS_ETOOLONG, "the context has 1024");
    cts_request_free(rig.e, req);
    rig_close(&rig);

    o.n_pages = 4;
    rig_open(&rig, &o);
    req = rig_request(&rig, &a, &G.rows[0]);
    req->max_tokens = 64 - req->n_prompt + 1;
    check_refused(&rig, req, CTS_ETOOLONG, "65, the KV cache has 64");
    req->max_tokens--;
    req->stop_tokens[req->n_stop_tokens++] = G.rows[0].tokens[1];
    rig_admit(&rig, req); /* exactly all pages */
    rig_wait(&rig, 0);
    CHECK(a.finish == CTS_ENGINE_STOP && a.n_tokens == 2);
    check_all_free(&rig);
    rig_close(&rig);
}

static void a_field_out_of_range_is_refused_by_name(void **state)
{
    struct cts_engine_opts o = small_opts();
    struct rig             rig;
    struct answer          a;

    (void)state;
    rig_open(&rig, &o);
#define REFUSED(words, ...)                                                                                          \
    do {                                                                                                             \
        struct cts_engine_request *req = rig_request(&rig, &a, &G.rows[0]);                                          \
        __VA_ARGS__;                                                                                                 \
        check_refused(&rig, req, CTS_EARG, words);                                                                   \
        cts_request_free(rig.e, req);                                                                                \
    } while (0)
    REFUSED("prompt is empty", req->n_prompt = 0);
    REFUSED("max_tokens", req->max_tokens = 0);
    REFUSED("token 2 is 2048", req->prompt[2] = 2048);
    REFUSED("token 0 is -1", req->prompt[0] = -1);
    REFUSED("temperature", req->temperature = -1);
    REFUSED("temperature", req->temperature = NAN);
    REFUSED("temperature", req->temperature = INFINITY);
    REFUSED("top_p", req->top_p = 0);
    REFUSED("top_p", req->top_p = 1.5f);
    REFUSED("top_p", req->top_p = NAN);
    REFUSED("21 top", req->n_logprobs = 21);
    REFUSED("-2 top", req->n_logprobs = -2);
    REFUSED("9 stop strings", req->n_stop = 9);
    REFUSED("17 stop tokens", req->n_stop_tokens = 17);
    REFUSED("stop string 0 has 0", req->n_stop = 1);
    REFUSED("stop string 0 has 65", req->n_stop = 1; req->stop_bytes[0] = 65);
    REFUSED("not UTF-8", req->n_stop = 1; req->stop_bytes[0] = 1; req->stop[0][0] = (char)0xff);
    REFUSED("5 adapters", req->n_parts = 5);
    REFUSED("adapter 2 of 2", req->n_parts = 1; req->parts[0] = (struct cts_request_part){ 2, 1 });
    REFUSED("weight", req->n_parts = 1; req->parts[0] = (struct cts_request_part){ 0, NAN });
#undef REFUSED
    rig_close(&rig);
}

static void a_full_pool_gives_no_request_until_one_is_freed(void **state)
{
    struct cts_engine_opts     o = small_opts();
    struct rig                 rig;
    struct answer              a[8];
    struct cts_engine_request *req;

    (void)state;
    rig_open(&rig, &o);
    for (int i = 0; i < 8; i++) rig_request(&rig, &a[i], &G.rows[i]);
    CHECK(cts_request_new(rig.e) == NULL);
    cts_request_free(rig.e, a[3].req);
    req = cts_request_new(rig.e);
    CHECK(req == cts_request_at(rig.e, req->idx) && req == a[3].req);
    CHECK(req->n_prompt == 0 && req->max_tokens == 0 && req->top_p == 1 &&
          req->n_logprobs == -1); /* nothing of the old */
    rig_close(&rig);
}

/* A thread that stops the engine in the middle of a turn. */
struct gate {
    _Atomic int is_shut, n_inside;
};

static void wait_at_gate(void *arg, uint64_t tag, uint32_t pos, const float *logits)
{
    struct gate *g = arg;

    (void)tag, (void)pos, (void)logits;
    atomic_fetch_add(&g->n_inside, 1);
    while (atomic_load(&g->is_shut)) sched_yield();
}

static void a_full_queue_of_orders_is_busy_and_loses_nothing(void **state)
{
    struct cts_engine_opts o = small_opts();
    struct rig             rig;
    struct answer          a[2];
    struct gate            gate = { 1, 0 };
    uint32_t               n_parks = 0;

    (void)state;
    rig_open(&rig, &o);
    cts_engine_tap(rig.e, wait_at_gate, &gate);
    rig_admit(&rig, rig_request(&rig, &a[0], &G.rows[0]));
    cts_engine_kick(rig.e);
    while (atomic_load(&gate.n_inside) == 0) sched_yield(); /* the engine is in a step and takes no orders */
    while (cts_engine_park(rig.e, a[0].req, n_parks % 2 == 0) == 0) {
        n_parks++;
        CHECK(n_parks <= 1024);
    }
    CHECK(cts_engine_cancel(rig.e, a[0].req) == CTS_EBUSY);
    check_refused(&rig, rig_request(&rig, &a[1], &G.rows[1]), CTS_EBUSY, "full");
    if (n_parks % 2 != 0) n_parks = 0; /* the last word was: park */
    atomic_store(&gate.is_shut, 0);
    rig_admit(&rig, a[1].req);
    rig_wait(&rig, n_parks == 0 ? 1 : 0);
    if (n_parks == 0) {
        CHECK(cts_engine_park(rig.e, a[0].req, 0) == 0);
        rig_wait(&rig, 0);
    }
    CHECK(answer_differs(&a[0], &G.rows[0]) == NULL);
    CHECK(answer_differs(&a[1], &G.rows[1]) == NULL);
    rig_close(&rig);
}

/* ---- the KV cache ---- */

static void a_quarter_of_the_pages_serves_256_requests_right(void **state)
{
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    struct answer         *a = calloc(256, sizeof(*a));
    char                   names[64][64];
    uint32_t               idx[64], n_pages = 0, n = 0;

    (void)state;
    CHECK(a != NULL);
    for (uint32_t i = 0; i < 256; i++) n_pages += (G.rows[i].n_prompt + G.rows[i].n_tokens + 15) / 16;
    o.n_pages = n_pages / 4;
    rig_open(&rig, &o);
    rig_load_all(&rig, "contrib/demo/adapters/shared-start", names, idx, 64);
    for (uint32_t i = 0; i < 256; i++) {
        struct cts_engine_request *req = rig_request(&rig, &a[i], &G.rows[i]);

        for (uint32_t k = 0; k < 64 && G.rows[i].adapter[0] != 0; k++)
            if (strcmp(names[k], G.rows[i].adapter) == 0) {
                req->n_parts = 1;
                req->parts[0] = (struct cts_request_part){ idx[k], 1 };
            }
        req->client = i % 5;
        rig_admit(&rig, req);
    }
    rig_wait(&rig, 0);
    for (uint32_t i = 0; i < 256; i++) {
        const char *differs = answer_differs(&a[i], &G.rows[i]);

        CHECK_MSG(differs == NULL, "row %u: %s\n", i, differs);
        n++;
    }
    CHECK(n == 256);
    check_all_free(&rig);
    rig_close(&rig);
    free(a);
}

/* ---- ends ---- */

static void stop_strings_end_the_text_before_them(void **state)
{
    struct cts_engine_opts o = small_opts();
    struct rig             rig;
    struct answer          a;
    /* Row 1 answers "repeat: name wendy, city oslo, age 47, color white". */
    static const struct {
        const char *stop, *want;
    } CASES[] = {
        { " city", "repeat: name wendy," },
        { "y, ci", "repeat: name wend" },
        { "repeat", "" },
        { "4", "repeat: name wendy, city oslo, age " },
    };

    (void)state;
    rig_open(&rig, &o);
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct cts_engine_request *req = rig_request(&rig, &a, &G.rows[1]);

        req->n_stop = 2;
        req->stop_bytes[0] = 12;
        memcpy(req->stop[0], "never comes!", 12);
        req->stop_bytes[1] = (uint8_t)strlen(CASES[i].stop);
        memcpy(req->stop[1], CASES[i].stop, strlen(CASES[i].stop));
        rig_admit(&rig, req);
        rig_wait(&rig, 0);
        CHECK_MSG(strcmp(a.text, CASES[i].want) == 0, "'%s'\n", a.text);
        CHECK(a.finish == CTS_ENGINE_STOP_STRING && a.n_tokens < G.rows[1].n_tokens && a.done_n_tokens == a.n_tokens);
    }
    rig_close(&rig);
}

/* The bytes of all tokens as one string, decoded at once: a broken part of a
 * character becomes one U+FFFD. */
static void decode_whole(const struct cts_tokenizer *t, const struct answer *a, char *out)
{
    uint8_t  raw[RIG_TEXT_BYTES];
    size_t   n = 0, len;
    uint32_t cp;

    for (uint32_t i = 0; i < a->n_tokens; i++) {
        struct cts_span s = cts_tokenizer_piece(t, a->tokens[i]);

        CHECK(n + s.len < sizeof(raw));
        if (s.len > 0) memcpy(raw + n, s.ptr, s.len);
        n += s.len;
    }
    for (size_t i = 0; i < n; i += len) {
        len = cts_utf8_next(raw + i, n - i, &cp);
        if (len > 0) {
            memcpy(out, raw + i, len);
            out += len;
            continue;
        }
        for (len = 3; len > 1 && (i + len > n || cts_utf8_tail(raw + i, len) != len);) len--;
        out += cts_utf8_put(0xfffd, (uint8_t *)out);
    }
    *out = 0;
}

/* At a temperature at which any token may follow any other, most characters of
 * several bytes are broken somewhere. */
static void streamed_text_is_what_decoding_all_tokens_at_once_gives(void **state)
{
    enum { N = 32 };
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    struct answer         *a = calloc(N, sizeof(*a));
    char                   whole[3 * RIG_TEXT_BYTES];
    uint32_t               n_broken = 0;

    (void)state;
    CHECK(a != NULL);
    rig_open(&rig, &o);
    for (uint32_t i = 0; i < N; i++) {
        struct cts_engine_request *req = rig_request(&rig, &a[i], &G.rows[0]);

        req->temperature = 100;
        req->seed = i;
        req->max_tokens = RIG_TOKENS_MAX - 1;
        req->n_logprobs = -1;
        rig_admit(&rig, req);
    }
    rig_wait(&rig, 0);
    for (uint32_t i = 0; i < N; i++) {
        decode_whole(cts_engine_tokenizer(rig.e), &a[i], whole);
        CHECK_MSG(strcmp(a[i].text, whole) == 0, "'%s'\n'%s'\n", a[i].text, whole);
        n_broken += strstr(whole, "\xef\xbf\xbd") != NULL;
    }
    CHECK(n_broken > N / 2);
    rig_close(&rig);
    free(a);
}

static void every_way_to_end_says_its_reason(void **state)
{
    struct cts_engine_opts     o = small_opts();
    struct rig                 rig;
    struct answer              a;
    struct cts_engine_request *req;

    (void)state;
    rig_open(&rig, &o);
    req = rig_request(&rig, &a, &G.rows[1]);
    rig_admit(&rig, req);
    rig_wait(&rig, 0);
    CHECK(a.finish == CTS_ENGINE_STOP); /* the base's own stop token */

    req = rig_request(&rig, &a, &G.rows[1]);
    req->max_tokens = 3;
    rig_admit(&rig, req);
    rig_wait(&rig, 0);
    CHECK(a.finish == CTS_ENGINE_LENGTH && a.n_tokens == 3);
    CHECK(memcmp(a.tokens, G.rows[1].tokens, 3 * sizeof(*a.tokens)) == 0);

    req = rig_request(&rig, &a, &G.rows[1]);
    req->max_tokens = 1;
    req->want_text = 0;
    req->n_logprobs = -1;
    rig_admit(&rig, req);
    rig_wait(&rig, 0);
    CHECK(a.finish == CTS_ENGINE_LENGTH && a.n_tokens == 1 && a.text_bytes == 0 && a.n_top[0] == 0 &&
          a.logprobs[0] == 0);

    req = rig_request(&rig, &a, &G.rows[1]);
    req->n_stop_tokens = 1;
    req->stop_tokens[0] = G.rows[1].tokens[4];
    rig_admit(&rig, req);
    rig_wait(&rig, 0);
    CHECK(a.finish == CTS_ENGINE_STOP && a.n_tokens == 5 && a.tokens[4] == G.rows[1].tokens[4]);
    check_all_free(&rig);
    rig_close(&rig);
}

static void a_request_past_its_deadline_ends_with_an_error(void **state)
{
    struct cts_engine_opts     o = small_opts();
    struct rig                 rig;
    struct answer              a, b;
    struct cts_engine_request *req;

    (void)state;
    o.n_pages = 8;
    cts_clock_mock(1000);
    rig_open(&rig, &o);
    req = rig_request(&rig, &a, &G.rows[1]);
    req->deadline_ns = 2000;
    rig_admit(&rig, req);
    CHECK(cts_engine_park(rig.e, req, 1) == 0); /* it makes no rows, so it cannot end by itself */
    req = rig_request(&rig, &b, &G.rows[1]);
    req->deadline_ns = 3000;
    rig_admit(&rig, req);
    rig_wait(&rig, 1);
    CHECK(b.is_over && answer_differs(&b, &G.rows[1]) == NULL);
    CHECK(!a.is_over);
    cts_clock_mock(2000);
    rig_wait(&rig, 0);
    CHECK(a.code == -ETIMEDOUT && a.n_tokens < G.rows[1].n_tokens);
    check_all_free(&rig);
    rig_close(&rig);
    cts_clock_mock(UINT64_MAX);
}

/* With the real clock and nobody to ring the bell: the sleep itself must end. */
static void a_deadline_wakes_an_idle_engine(void **state)
{
    struct cts_engine_opts     o = small_opts();
    struct rig                 rig;
    struct answer              a;
    struct cts_engine_request *req;

    (void)state;
    rig_open(&rig, &o);
    req = rig_request(&rig, &a, &G.rows[1]);
    req->deadline_ns = cts_clock_ns() + 30000000;
    rig_admit(&rig, req);
    CHECK(cts_engine_park(rig.e, req, 1) == 0);
    rig_wait(&rig, 0);
    CHECK(a.code == -ETIMEDOUT);
    CHECK(cts_clock_ns() >= req->deadline_ns);
    rig_close(&rig);
}

static void parked_requests_keep_their_place_and_go_on_where_they_were(void **state)
{
    struct cts_engine_opts  o = small_opts();
    struct rig              rig;
    struct answer           a[4];
    struct cts_engine_stats s;

    (void)state;
    rig_open(&rig, &o);
    for (int i = 0; i < 4; i++) {
        rig_admit(&rig, rig_request(&rig, &a[i], &G.rows[i]));
        if (i % 2 == 0) CHECK(cts_engine_park(rig.e, a[i].req, 1) == 0);
    }
    rig_wait(&rig, 2);
    CHECK(a[1].is_over && a[3].is_over);
    s = stats_of(&rig);
    CHECK(s.n_live >= 2 && s.n_pages_free < s.n_pages);
    for (int i = 0; i < 4; i += 2) CHECK(cts_engine_park(rig.e, a[i].req, 0) == 0);
    rig_wait(&rig, 0);
    for (int i = 0; i < 4; i++) CHECK(answer_differs(&a[i], &G.rows[i]) == NULL);
    check_all_free(&rig);
    rig_close(&rig);
}

static void a_running_request_is_parked_until_it_is_wanted_again(void **state)
{
    struct cts_engine_opts o = small_opts();
    struct rig             rig;
    struct answer          a, b;
    struct gate            gate = { 1, 0 };

    (void)state;
    rig_open(&rig, &o);
    cts_engine_tap(rig.e, wait_at_gate, &gate);
    rig_admit(&rig, rig_request(&rig, &a, &G.rows[1]));
    cts_engine_kick(rig.e);
    while (atomic_load(&gate.n_inside) == 0)
        sched_yield(); /* a's prompt is in the step, whose end gives it a token */
    CHECK(cts_engine_park(rig.e, a.req, 1) == 0);
    rig_admit(&rig, rig_request(&rig, &b, &G.rows[1]));
    atomic_store(&gate.is_shut, 0);
    rig_wait(&rig, 1);
    CHECK(b.is_over && answer_differs(&b, &G.rows[1]) == NULL);
    CHECK(!a.is_over && a.n_tokens == 1);
    CHECK(cts_engine_park(rig.e, a.req, 0) == 0);
    rig_wait(&rig, 0);
    CHECK(answer_differs(&a, &G.rows[1]) == NULL);
    rig_close(&rig);
}

/* ---- cancellation and full output ---- */

/* Numbers for the test's choices: xorshift, one seed. */
static uint32_t next_random(uint32_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 17;
    *x ^= *x << 5;
    return *x;
}

static void cancelling_at_any_point_frees_everything(void **state)
{
    enum { N = 400, LIVE = 48 };
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    struct answer         *a = calloc(N, sizeof(*a));
    uint32_t               x = 2463534242, n_cancelled = 0;

    (void)state;
    CHECK(a != NULL);
    o.n_requests_max = LIVE;
    o.n_pages = 64; /* so that some wait */
    o.n_seqs_max = 16;
    rig_open(&rig, &o);
    for (uint32_t i = 0; i < N; i++) {
        struct cts_engine_request *req;

        while (rig.n_live == LIVE) rig_wait(&rig, LIVE - 1);
        req = rig_request(&rig, &a[i], &G.rows[i % 23]);
        req->client = next_random(&x) % 3;
        rig_admit(&rig, req);
        for (int k = 0; k < 2; k++) { /* twice: cancelling what is over or cancelled already does nothing */
            uint32_t j = i - next_random(&x) % (i < LIVE ? i + 1 : LIVE);

            if (a[j].req != NULL && next_random(&x) % 2 == 0) CHECK(cts_engine_cancel(rig.e, a[j].req) == 0);
        }
        cts_engine_kick(rig.e);
        if (next_random(&x) % 4 == 0) rig_take(&rig);
    }
    rig_wait(&rig, 0);
    for (uint32_t i = 0; i < N; i++) {
        CHECK(a[i].is_over && a[i].code == 0);
        if (a[i].finish == CTS_ENGINE_CANCELLED) {
            n_cancelled++;
            CHECK(memcmp(a[i].tokens, G.rows[i % 23].tokens, a[i].n_tokens * sizeof(int32_t)) == 0);
            CHECK(strncmp(a[i].text, G.rows[i % 23].text, a[i].text_bytes) == 0);
        } else {
            CHECK(answer_differs(&a[i], &G.rows[i % 23]) == NULL);
        }
    }
    CHECK(n_cancelled > 20 && n_cancelled < N - 20);
    check_all_free(&rig);
    CHECK(stats_of(&rig).n_cancelled == n_cancelled);
    rig_close(&rig);
    free(a);
}

/* Nobody takes events until the engine has no room left; the step must go on with
 * whatever fits and nothing may be lost. */
static void a_loop_that_takes_nothing_parks_rows_and_loses_none(void **state)
{
    enum { N = 200 };
    struct cts_engine_opts  o = rig_opts();
    struct rig              rig;
    struct answer          *a = calloc(N, sizeof(*a));
    struct cts_engine_stats s = { 0 }, before;

    (void)state;
    CHECK(a != NULL);
    o.n_seqs_max = 8; /* a small queue of events */
    rig_open(&rig, &o);
    for (uint32_t i = 0; i < N; i++) {
        struct cts_engine_request *req = rig_request(&rig, &a[i], &G.rows[i % 23]);
        struct cts_err             err = { 0 };

        CHECK(cts_engine_admit(rig.e, req, &err) == 0);
        rig.n_live++;
    }
    cts_engine_kick(rig.e);
    do { /* until it comes to rest: nothing moved while we looked 200 times */
        before = s;
        for (int i = 0; i < 200; i++) {
            sched_yield();
            s = stats_of(&rig);
        }
    } while (s.n_steps != before.n_steps || s.n_parked == 0);
    CHECK(s.n_tokens < 9 * N);
    while (rig.n_live > 0) { /* nobody kicks: taking an event must be enough to wake it, again and again */
        uint32_t ticket = cts_bell_ticket(&rig.bell);

        if (rig_take(&rig) == 0) cts_bell_sleep(&rig.bell, ticket, UINT64_MAX);
    }
    for (uint32_t i = 0; i < N; i++) CHECK(answer_differs(&a[i], &G.rows[i % 23]) == NULL);
    check_all_free(&rig);
    rig_close(&rig);
    free(a);
}

static void closing_with_live_requests_ends_them_without_events(void **state)
{
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    struct answer          a[32];

    (void)state;
    rig_open(&rig, &o);
    for (uint32_t i = 0; i < 32; i++) rig_admit(&rig, rig_request(&rig, &a[i], &G.rows[i % 23]));
    cts_engine_kick(rig.e);
    rig_close(&rig);
}

/* ---- sampling ---- */

static void a_seed_gives_the_same_tokens_in_any_company(void **state)
{
    enum { N = 40 };
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    struct answer          alone[N], crowd[N];
    uint32_t               n_same = 0;

    (void)state;
    for (int run = 0; run < 2; run++) {
        struct answer *a = run == 0 ? alone : crowd;

        o.n_threads = run + 1u;
        o.prefill_chunk_rows = run == 0 ? 256 : 5;
        rig_open(&rig, &o);
        for (uint32_t i = 0; i < N; i++) {
            struct cts_engine_request *req = rig_request(&rig, &a[i], &G.rows[i % 4]);

            req->temperature = 1.3f;
            req->top_k = i % 2 == 0 ? 0 : 40;
            req->top_p = i % 3 == 0 ? 1 : 0.95f;
            req->seed = i / 4;
            req->max_tokens = 12;
            rig_admit(&rig, req);
            if (run == 0) rig_wait(&rig, 0);
        }
        rig_wait(&rig, 0);
        rig_close(&rig);
    }
    for (uint32_t i = 0; i < N; i++) {
        CHECK(alone[i].n_tokens == crowd[i].n_tokens);
        CHECK(memcmp(alone[i].tokens, crowd[i].tokens, alone[i].n_tokens * sizeof(int32_t)) == 0);
        CHECK(memcmp(alone[i].logprobs, crowd[i].logprobs, alone[i].n_tokens * sizeof(float)) == 0);
        n_same += i >= 4 && alone[i].n_tokens == alone[i - 4].n_tokens &&
                  memcmp(alone[i].tokens, alone[i - 4].tokens, alone[i].n_tokens * sizeof(int32_t)) == 0;
    }
    CHECK(n_same < N / 4); /* another seed is another answer */
}

/* ---- the exact lane's places ---- */

static int32_t order_and_wait(struct rig *rig, int rc)
{
    uint32_t n = rig->n_adapter_events;

    CHECK(rc == 0);
    cts_engine_kick(rig->e);
    while (rig->n_adapter_events == n) {
        uint32_t ticket = cts_bell_ticket(&rig->bell);

        if (rig_take(rig) == 0) cts_bell_sleep(&rig->bell, ticket, UINT64_MAX);
    }
    return rig->adapter_code;
}

static void places_of_the_exact_lane_are_given_out_and_taken_back(void **state)
{
    struct cts_engine_opts o = small_opts();
    struct rig             rig;
    uint32_t               a, b, c;

    (void)state;
    rig_open(&rig, &o);
    a = rig_load(&rig, "contrib/demo/adapters/own-start/has-city");
    CHECK(cts_engine_exact_idx(rig.e, &b) == 0 && b != a);
    CHECK(cts_engine_exact_idx(rig.e, &c) == CTS_EBUSY);
    CHECK(cts_engine_unload(rig.e, b, 1) == CTS_EARG); /* set aside, not loaded */
    cts_engine_exact_put_back(rig.e, b);
    b = rig_load(&rig, "contrib/demo/adapters/own-start/has-name");
    CHECK(cts_engine_load(rig.e, a, NULL, 1) == CTS_EARG); /* taken */
    CHECK(cts_engine_unload(rig.e, 99, 1) == CTS_EARG);
    rig_unload(&rig, a);
    CHECK(cts_engine_unload(rig.e, a, 1) == CTS_EARG);
    CHECK(cts_engine_exact_idx(rig.e, &c) == 0 && c == a);
    rig_close(&rig);
}

static void an_adapter_that_does_not_fit_is_refused_and_its_place_free(void **state)
{
    struct cts_engine_opts o = small_opts();
    struct rig             rig;
    struct cts_peft        peft = { 0 };
    char                   path[512];
    uint32_t               idx;

    (void)state;
    o.rank_max = 8; /* the demo's have 16 */
    rig_open(&rig, &o);
    src_path(path, sizeof(path), "contrib/demo/adapters/own-start/has-city");
    CHECK(cts_peft_read(&peft, path, cts_engine_model(rig.e), cts_engine_base_digest(rig.e), NULL) == 0);
    for (int i = 0; i < 3; i++) { /* more often than there are places */
        CHECK(cts_engine_exact_idx(rig.e, &idx) == 0);
        CHECK(order_and_wait(&rig, cts_engine_load(rig.e, idx, &peft, 5)) == CTS_ESHAPE);
    }
    peft.modules[0].rank = 8;
    peft.modules[1].layer = 4; /* of four */
    CHECK(cts_engine_exact_idx(rig.e, &idx) == 0);
    CHECK(order_and_wait(&rig, cts_engine_load(rig.e, idx, &peft, 5)) == CTS_ESHAPE);
    cts_peft_free(&peft);
    rig_close(&rig);
}

static void an_adapter_in_use_cannot_be_unloaded_and_one_that_is_not_there_is_an_error(void **state)
{
    struct cts_engine_opts     o = small_opts();
    struct rig                 rig;
    struct answer              a;
    struct cts_engine_request *req;
    uint32_t                   idx;

    (void)state;
    rig_open(&rig, &o);
    idx = rig_load(&rig, "contrib/demo/adapters/own-start/has-city");
    req = rig_request(&rig, &a, &G.rows[0]);
    req->n_parts = 1;
    req->parts[0] = (struct cts_request_part){ idx, 1 };
    rig_admit(&rig, req);
    CHECK(cts_engine_park(rig.e, req, 1) == 0);
    CHECK(order_and_wait(&rig, cts_engine_unload(rig.e, idx, 6)) == CTS_EBUSY);
    CHECK(cts_engine_cancel(rig.e, req) == 0);
    rig_wait(&rig, 0);
    CHECK(a.finish == CTS_ENGINE_CANCELLED);
    rig_unload(&rig, idx);

    req = rig_request(&rig, &a, &G.rows[0]);
    req->n_parts = 1;
    req->parts[0] = (struct cts_request_part){ idx, 1 };
    rig_admit(&rig, req);
    rig_wait(&rig, 0);
    CHECK(a.code == CTS_ENOTFOUND && a.n_tokens == 0);
    check_all_free(&rig);
    rig_close(&rig);
}

/* ---- opening ---- */

static void options_out_of_range_are_refused_by_name(void **state)
{
    struct cts_engine *e = NULL;

    (void)state;
#define REFUSED(code, words, ...)                                                                                    \
    do {                                                                                                             \
        struct cts_engine_opts o = rig_opts();                                                                       \
        struct cts_err         err = { 0 };                                                                          \
        __VA_ARGS__;                                                                                                 \
        CHECK(cts_engine_open(&e, &o, &err) == (code));                                                              \
        CHECK_MSG(strstr(err.text, words) != NULL, "'%s' without '%s'\n", err.text, words);                          \
        CHECK(e == NULL);                                                                                            \
    } while (0)
    REFUSED(CTS_EARG, "no base", o.base_dir = NULL);
    REFUSED(CTS_EARG, "n_rows_max", o.n_rows_max = 0);
    REFUSED(CTS_EARG, "n_seqs_max", o.n_seqs_max = 1u << 20);
    REFUSED(CTS_EARG, "n_pages", o.n_pages = 0);
    REFUSED(CTS_EARG, "2^31", o.n_pages = 1u << 30; o.page_tokens = 16);
    REFUSED(CTS_EARG, "rank", o.rank_max = 0);
    REFUSED(CTS_EARG, "2048 tokens", o.context_max = 2048);
    REFUSED(CTS_EARG, "abacus", o.backend = "abacus");
    REFUSED(-ENOENT, "no-such-base", o.base_dir = "/no-such-base");
    REFUSED(-ENOENT, "no-such-collection", o.collection_dir = "/no-such-collection");
#undef REFUSED
}

struct plan {
    uint32_t n_lines;
    uint64_t sum, kv, exact;
};

static void add_line(void *arg, const char *what, uint64_t bytes)
{
    struct plan *p = arg;

    p->n_lines++;
    p->sum += bytes;
    if (strcmp(what, "KV cache") == 0) p->kv = bytes;
    if (strcmp(what, "exact lane") == 0) p->exact = bytes;
}

static void the_plan_adds_up_without_a_device(void **state)
{
    struct cts_engine_opts o = rig_opts();
    struct plan            p = { 0 };
    struct cts_err         err = { 0 };

    (void)state;
    o.backend = "abacus"; /* is not opened */
    CHECK_MSG(cts_engine_plan(&o, add_line, &p, &err) == 0, "%s\n", err.text);
    CHECK(p.n_lines == 9);
    CHECK(p.kv == 2ull * 4 * 1024 * 16 * 2 * 64 * 4);
    /* 64 places x 4 layers x rank 16 x (in + out of the seven) x 4 bytes */
    CHECK(p.exact == 64ull * 4 * 16 * (512 + 384 + 384 + 512 + 896 + 896 + 896) * 4);
    CHECK(p.sum > p.kv + p.exact + 13000000);
    o.n_rows_max = 0;
    CHECK(cts_engine_plan(&o, add_line, &p, NULL) == CTS_EARG);
}

static int setup(void **state)
{
    (void)state;
    golden_load(&G);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    golden_free(&G);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_past_the_context_is_refused_with_both_numbers),
        cmocka_unit_test(a_field_out_of_range_is_refused_by_name),
        cmocka_unit_test(a_full_pool_gives_no_request_until_one_is_freed),
        cmocka_unit_test(a_full_queue_of_orders_is_busy_and_loses_nothing),
        cmocka_unit_test(a_quarter_of_the_pages_serves_256_requests_right),
        cmocka_unit_test(stop_strings_end_the_text_before_them),
        cmocka_unit_test(streamed_text_is_what_decoding_all_tokens_at_once_gives),
        cmocka_unit_test(every_way_to_end_says_its_reason),
        cmocka_unit_test(a_request_past_its_deadline_ends_with_an_error),
        cmocka_unit_test(a_deadline_wakes_an_idle_engine),
        cmocka_unit_test(parked_requests_keep_their_place_and_go_on_where_they_were),
        cmocka_unit_test(a_running_request_is_parked_until_it_is_wanted_again),
        cmocka_unit_test(cancelling_at_any_point_frees_everything),
        cmocka_unit_test(a_loop_that_takes_nothing_parks_rows_and_loses_none),
        cmocka_unit_test(closing_with_live_requests_ends_them_without_events),
        cmocka_unit_test(a_seed_gives_the_same_tokens_in_any_company),
        cmocka_unit_test(places_of_the_exact_lane_are_given_out_and_taken_back),
        cmocka_unit_test(an_adapter_that_does_not_fit_is_refused_and_its_place_free),
        cmocka_unit_test(an_adapter_in_use_cannot_be_unloaded_and_one_that_is_not_there_is_an_error),
        cmocka_unit_test(options_out_of_range_are_refused_by_name),
        cmocka_unit_test(the_plan_adds_up_without_a_device),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
