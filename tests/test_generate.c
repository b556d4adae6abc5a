#include "tests/client_peer.h"

#include "common/err.h"
#include "tests/check.h"
#include "tests/fault.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

static _Atomic int n_cancels;

/* The peer answers on a thread of its own, since cts_generate blocks. */
static void answer_two_tokens(struct peer *p)
{
    static const uint32_t ids[] = { 4, 5 };
    static const float    logprobs[] = { -0.25f, -0.5f };
    struct cts_sub_record rec;

    for (;;) { /* past CANCELs of the round before */
        if (peer_take(p, &rec) == 0) sched_yield();
        else if (rec.op == CTS_OP_GENERATE) break;
        else n_cancels++;
    }
    peer_accept(p, rec.req_id);
    peer_put(p, &(struct cts_out_view){ .type = CTS_OUT_TOKENS,
                                        .req_id = rec.req_id,
                                        .n_tokens = 2,
                                        .ids = ids,
                                        .logprobs = logprobs,
                                        .text = "two",
                                        .text_len = 3 });
    for (uint32_t i = 0; i < 100; i++) peer_token(p, rec.req_id, 2 + i, 6, "more");
    peer_done(p, rec.req_id, 102);
}

static void answer_nothing(struct peer *p)
{
    struct cts_sub_record rec;

    while (peer_take(p, &rec) == 0) sched_yield();
    peer_done(p, rec.req_id, 0);
}

static void answer_error(struct peer *p)
{
    struct cts_sub_record rec;

    while (peer_take(p, &rec) == 0) sched_yield();
    peer_token(p, rec.req_id, 0, 1, "half an answer");
    peer_error(p, rec.req_id, CTS_ETOOLONG, "600 and 500 tokens, 1024 fit");
}

static struct peer *p;
static cts         *c;

static int setup(void **state)
{
    (void)state;
    p = peer_start(LIE_NONE);
    c = peer_open(p, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cts_close(c);
    peer_stop(p);
    return 0;
}

static int64_t fault_act = -1; /* of cts_generate alone, not of the thread's start */

static int generate(void (*act)(struct peer *), struct cts_answer *answer)
{
    struct cts_request r = CTS_REQUEST_INIT;
    struct peer_act    a;
    int                rc;

    r.prompt = "x";
    peer_when_asleep(p, &a, act);
    fault_after(fault_act);
    rc = cts_generate(c, &r, answer);
    fault_after(-1);
    peer_act_join(&a);
    return rc;
}

static void generate_collects_the_whole_answer(void **state)
{
    struct cts_answer a;

    (void)state;
    CHECK(generate(answer_two_tokens, &a) == 0);
    CHECK(a.n_tokens == 102 && a.n_prompt == 5 && a.finish == CTS_FINISHED_STOP);
    CHECK(a.ids[0] == 4 && a.ids[101] == 6 && a.logprobs[1] == -0.5f);
    CHECK(a.text_bytes == 3 + 400 && strlen(a.text) == a.text_bytes);
    CHECK(strncmp(a.text, "twomoremore", 11) == 0);
    cts_answer_free(&a);
    CHECK(a.text == NULL);
    cts_answer_free(&a);
    cts_answer_free(NULL);
}

static void generate_gives_an_empty_text_for_an_empty_answer(void **state)
{
    struct cts_answer a;

    (void)state;
    CHECK(generate(answer_nothing, &a) == 0);
    CHECK(a.n_tokens == 0 && strcmp(a.text, "") == 0);
    cts_answer_free(&a);
}

static void generate_hands_back_the_daemons_refusal_and_nothing_else(void **state)
{
    struct cts_answer a;

    (void)state;
    CHECK(generate(answer_error, &a) == CTS_ERROR_TOO_LONG);
    CHECK(a.text == NULL && a.ids == NULL && a.n_tokens == 0);
    CHECK(strcmp(cts_last_message(c), "600 and 500 tokens, 1024 fit") == 0);
    CHECK(generate(answer_two_tokens, &a) == 0); /* the handle is as good as before */
    cts_answer_free(&a);
}

static void generate_wants_the_handle_for_itself(void **state)
{
    struct cts_request r = CTS_REQUEST_INIT;
    struct cts_answer  a;
    uint64_t           id;

    (void)state;
    r.prompt = "x";
    CHECK(cts_submit(c, &r, &id) == 0);
    CHECK(cts_generate(c, &r, &a) == -EBUSY);
    CHECK(a.text == NULL);
}

static void generate_ends_when_the_daemon_dies(void **state)
{
    struct cts_answer a;

    (void)state;
    CHECK(generate(peer_die, &a) == -ECONNRESET);
    CHECK(a.text == NULL);
}

static void generate_survives_failure_of_every_allocation(void **state)
{
    struct cts_answer a;
    int64_t           n_before = fault_n_live();
    int               rc = -1, n_failed = 0;

    (void)state;
    for (int i = 0; i < 32; i++) {
        fault_act = i;
        rc = generate(answer_two_tokens, &a);
        CHECK(rc == -ENOMEM || rc == 0);
        CHECK((a.text != NULL) == (rc == 0));
        n_failed += rc != 0;
        cts_answer_free(&a);
    }
    fault_act = -1;
    CHECK(rc == 0 && n_failed > 3 && n_failed < 16);
    CHECK(n_cancels > 0); /* the daemon need not go on for nobody */
    CHECK(fault_n_live() <= n_before + 1); /* the prompt's buffer is kept for the next request */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(generate_collects_the_whole_answer),
        TEST(generate_gives_an_empty_text_for_an_empty_answer),
        TEST(generate_hands_back_the_daemons_refusal_and_nothing_else),
        TEST(generate_wants_the_handle_for_itself),
        TEST(generate_ends_when_the_daemon_dies),
        TEST(generate_survives_failure_of_every_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
