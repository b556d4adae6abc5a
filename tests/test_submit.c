#include "tests/client_peer.h"

#include "common/err.h"
#include "proto/ctl_msg.h"
#include "tests/check.h"
#include "tests/fault.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

static struct cts_request ask(const char *adapter, const char *prompt)
{
    struct cts_request r = CTS_REQUEST_INIT;

    r.adapter = adapter;
    r.prompt = prompt;
    return r;
}

static int submit(const char *adapter, const char *prompt, uint64_t *id)
{
    struct cts_request r = ask(adapter, prompt);

    return cts_submit(c, &r, id);
}

/* The prompt in p->payload equals text. */
static int prompt_is(uint32_t n, const char *text)
{
    struct cts_mp      cur = { p->payload, p->payload + n };
    struct cts_gen_msg m;
    char               param[CTS_PARAM_BYTES];

    CHECK(cts_mp_check(p->payload, n, CTS_MP_OBJECTS_MAX) == 0);
    CHECK(cts_gen_decode(&cur, &m, param, NULL) == 0);
    return m.prompt.len == strlen(text) && memcmp(m.prompt.ptr, text, m.prompt.len) == 0;
}

static void submit_writes_a_record_that_the_daemon_takes(void **state)
{
    struct cts_request    r = ask("some", "hello");
    struct cts_sub_record rec;
    uint64_t              id;

    (void)state;
    r.timeout_ns = 1000000000;
    CHECK(cts_submit(c, &r, &id) == 0);
    CHECK(peer_take(p, &rec) == 1);
    CHECK(rec.op == CTS_OP_GENERATE && rec.req_id == id);
    CHECK(rec.adapter == 3 && rec.generation == 1 && rec.deadline_ns != 0);
    CHECK(prompt_is(rec.pay_len, "hello"));
    CHECK(submit(NULL, "base", &id) == 0);
    CHECK(peer_take(p, &rec) == 1);
    CHECK(rec.adapter == 0 && rec.generation == 0 && rec.deadline_ns == 0);
    CHECK(peer_take(p, &rec) == 0);
}

static void submit_asks_for_a_name_once(void **state)
{
    uint64_t id[3];

    (void)state;
    CHECK(submit("a", "x", &id[0]) == 0 && submit("a", "x", &id[1]) == 0 && submit("", "x", &id[2]) == 0);
    CHECK(p->n_resolved == 1);
    CHECK(id[0] != id[1] && id[1] != id[2] && id[0] != 0);
}

static void submit_kicks_only_a_daemon_that_sleeps(void **state)
{
    uint64_t n, id;

    (void)state;
    CHECK(submit(NULL, "x", &id) == 0);
    CHECK(read(p->kick_fd, &n, sizeof(n)) < 0 && errno == EAGAIN);
    cts_out_flag(&p->out, CTS_OUT_NEED_KICK, 0);
    CHECK(submit(NULL, "x", &id) == 0);
    CHECK(read(p->kick_fd, &n, sizeof(n)) == sizeof(n) && n == 1);
}

static void submit_answers_eagain_when_the_ring_is_full_and_goes_on_after(void **state)
{
    struct cts_sub_record rec;
    struct cts_event      ev;
    uint64_t              id, first = 0;

    (void)state;
    cts_close(c);
    p->n_live_max = 64;
    c = peer_open(p, 0);
    for (uint32_t i = 0; i < CTS_SUB_RECORDS_MIN; i++) CHECK(submit(NULL, "x", i == 0 ? &first : &id) == 0);
    CHECK(submit(NULL, "x", &id) == -EAGAIN);
    CHECK(strstr(cts_last_message(c), "ring is full") != NULL);
    CHECK(cts_cancel(c, first) == -EAGAIN);
    CHECK(peer_take(p, &rec) == 1);
    CHECK(submit(NULL, "x", &id) == 0);
    peer_done(p, rec.req_id, 0);
    CHECK(cts_next(c, &ev, 0) == 1);
}

static void submit_answers_eagain_at_the_daemons_limit_of_live_requests(void **state)
{
    struct cts_sub_record rec;
    struct cts_event      ev;
    uint64_t              id, first = 0;

    (void)state;
    for (uint32_t i = 0; i < p->n_live_max; i++) CHECK(submit(NULL, "x", i == 0 ? &first : &id) == 0);
    CHECK(submit(NULL, "x", &id) == -EAGAIN);
    CHECK(strstr(cts_last_message(c), "8 requests are live") != NULL);
    while (peer_take(p, &rec)) continue;
    peer_done(p, first, 0);
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(submit(NULL, "x", &id) == 0);
    CHECK(id != first); /* the entry is the same, the turn is not */
}

static void submit_fills_the_arena_round_after_round(void **state)
{
    static char           prompt[30000];
    struct cts_sub_record rec;
    struct cts_event      ev;
    uint64_t              id;

    (void)state;
    for (int i = 0; i < 200; i++) {
        memset(prompt, 'a' + i % 26, sizeof(prompt));
        prompt[sizeof(prompt) - 1 - (size_t)(i % 7)] = '\0';
        CHECK(submit(NULL, prompt, &id) == 0);
        CHECK(peer_take(p, &rec) == 1);
        CHECK(prompt_is(rec.pay_len, prompt));
        peer_done(p, id, 0);
        CHECK(cts_next(c, &ev, 0) == 1);
    }
}

static void submit_refuses_what_passes_the_arena(void **state)
{
    static char prompt[CTS_ARENA_BYTES_MIN + 1];
    uint64_t    id;

    (void)state;
    memset(prompt, 'a', sizeof(prompt) - 1);
    CHECK(submit(NULL, prompt, &id) == -EMSGSIZE);
    CHECK(cts_last_message(c)[0] != '\0');
    CHECK(submit(NULL, "x", &id) == 0);
}

static void submit_of_an_unknown_name_fails_and_frees_its_entry(void **state)
{
    uint64_t id;

    (void)state;
    p->resolve_code = CTS_ENOTFOUND;
    for (uint32_t i = 0; i < 3 * p->n_live_max; i++) CHECK(submit("who", "x", &id) == CTS_ERROR_NOT_FOUND);
    CHECK(submit(NULL, "x", &id) == 0);
}

static void stale_name_is_asked_for_again_and_submitted_again_unseen(void **state)
{
    struct cts_sub_record rec;
    struct cts_event      ev;
    uint64_t              id;

    (void)state;
    CHECK(submit("some", "hello", &id) == 0);
    CHECK(peer_take(p, &rec) == 1);
    p->number = 9;
    p->generation = 2;
    peer_error(p, id, CTS_ENOTFOUND, "stale");
    CHECK(cts_next(c, &ev, 0) == 0);
    CHECK(p->n_resolved == 2);
    CHECK(peer_take(p, &rec) == 1);
    CHECK(rec.req_id == id && rec.adapter == 9 && rec.generation == 2);
    CHECK(prompt_is(rec.pay_len, "hello"));
    peer_accept(p, id);
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.type == CTS_EVENT_ACCEPTED && ev.request == id);
    CHECK(submit("some", "x", &id) == 0); /* and the new number is remembered */
    CHECK(peer_take(p, &rec) == 1);
    CHECK(rec.adapter == 9 && p->n_resolved == 2);
}

static void stale_name_is_asked_for_again_only_once(void **state)
{
    struct cts_sub_record rec;
    struct cts_event      ev;
    uint64_t              id;

    (void)state;
    CHECK(submit("some", "hello", &id) == 0);
    CHECK(peer_take(p, &rec) == 1);
    p->generation = 2;
    peer_error(p, id, CTS_ENOTFOUND, "stale");
    CHECK(cts_next(c, &ev, 0) == 0);
    p->generation = 3;
    CHECK(peer_take(p, &rec) == 1);
    peer_error(p, id, CTS_ENOTFOUND, "stale again");
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.type == CTS_EVENT_ERROR && ev.code == CTS_ERROR_NOT_FOUND && ev.is_last);
    CHECK(strcmp(ev.message, "stale again") == 0);
    CHECK(peer_take(p, &rec) == 0);
}

static void refusal_stands_when_the_name_means_the_same_or_is_gone(void **state)
{
    struct cts_event ev;
    uint64_t         id;

    (void)state;
    CHECK(submit("some", "hello", &id) == 0);
    peer_error(p, id, CTS_ENOTFOUND, "not here");
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.code == CTS_ERROR_NOT_FOUND && strcmp(ev.message, "not here") == 0);
    CHECK(submit("some", "hello", &id) == 0);
    p->resolve_code = CTS_ENOTFOUND;
    peer_error(p, id, CTS_ENOTFOUND, "not here");
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.code == CTS_ERROR_NOT_FOUND && strcmp(ev.message, "the peer says no") == 0);
}

static void cancelled_request_is_not_submitted_again(void **state)
{
    struct cts_sub_record rec;
    struct cts_event      ev;
    uint64_t              id;

    (void)state;
    CHECK(submit("some", "hello", &id) == 0);
    CHECK(cts_cancel(c, id) == 0);
    p->generation = 2;
    while (peer_take(p, &rec)) continue;
    peer_error(p, id, CTS_ENOTFOUND, "stale");
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.type == CTS_EVENT_ERROR);
    CHECK(peer_take(p, &rec) == 0);
}

static void cancel_is_sent_once_and_forgives_old_names(void **state)
{
    struct cts_sub_record rec;
    struct cts_event      ev;
    uint64_t              id;

    (void)state;
    CHECK(submit(NULL, "x", &id) == 0);
    CHECK(cts_cancel(c, id) == 0 && cts_cancel(c, id) == 0);
    CHECK(peer_take(p, &rec) == 1);
    CHECK(peer_take(p, &rec) == 1);
    CHECK(rec.op == CTS_OP_CANCEL && rec.req_id == id && rec.pay_len == 0);
    CHECK(peer_take(p, &rec) == 0);
    peer_put(p, &(struct cts_out_view){ .type = CTS_OUT_DONE, .req_id = id, .status = CTS_FINISH_CANCELLED });
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.finish == CTS_FINISHED_CANCELLED);
    CHECK(cts_cancel(c, id) == 0 && cts_cancel(c, 0) == 0 && cts_cancel(c, UINT64_MAX) == 0);
    CHECK(peer_take(p, &rec) == 0);
}

static void submit_survives_a_daemon_whose_head_runs_wild(void **state)
{
    uint64_t id;

    (void)state;
    CHECK(submit(NULL, "x", &id) == 0);
    cts_out_publish_head(&p->out, 5);
    CHECK(submit(NULL, "x", &id) == CTS_ERROR_PROTOCOL);
    CHECK(submit(NULL, "x", &id) == CTS_ERROR_PROTOCOL);
    CHECK(cts_cancel(c, id) == CTS_ERROR_PROTOCOL);
}

static void submit_survives_failure_of_every_allocation(void **state)
{
    static char           prompt[20000];
    struct cts_sub_record rec;
    struct cts_event      ev;
    char                  name[32];
    uint64_t              id = 0;
    int                   rc, n_failed = 0;

    (void)state;
    memset(prompt, 'p', sizeof(prompt) - 1);
    for (int i = 0; i < 32; i++) {
        snprintf(name, sizeof(name), "n%d", i); /* a new one each time, so that it is asked for and remembered */
        fault_after(i);
        rc = submit(name, prompt, &id);
        fault_after(-1);
        CHECK(rc == 0 || rc == -ENOMEM);
        n_failed += rc != 0;
        if (rc != 0) continue;
        CHECK(peer_take(p, &rec) == 1);
        CHECK(prompt_is(rec.pay_len, prompt));
        peer_done(p, id, 0);
        CHECK(cts_next(c, &ev, 0) == 1);
    }
    CHECK(rc == 0 && n_failed > 1 && n_failed < 16);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(submit_writes_a_record_that_the_daemon_takes),
        TEST(submit_asks_for_a_name_once),
        TEST(submit_kicks_only_a_daemon_that_sleeps),
        TEST(submit_answers_eagain_when_the_ring_is_full_and_goes_on_after),
        TEST(submit_answers_eagain_at_the_daemons_limit_of_live_requests),
        TEST(submit_fills_the_arena_round_after_round),
        TEST(submit_refuses_what_passes_the_arena),
        TEST(submit_of_an_unknown_name_fails_and_frees_its_entry),
        TEST(stale_name_is_asked_for_again_and_submitted_again_unseen),
        TEST(stale_name_is_asked_for_again_only_once),
        TEST(refusal_stands_when_the_name_means_the_same_or_is_gone),
        TEST(cancelled_request_is_not_submitted_again),
        TEST(cancel_is_sent_once_and_forgives_old_names),
        TEST(submit_survives_a_daemon_whose_head_runs_wild),
        TEST(submit_survives_failure_of_every_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
