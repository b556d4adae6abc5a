#include "daemon/serve/live.h"

#include "tests/check.h"
#include "tests/serve_rig.h"

#include <errno.h>
#include <string.h>

#define N_IDS_MAX 512

/* A client that takes as many events as it is told to. */
struct sink {
    struct cts_sink s;
    uint32_t        room; /* events that it still takes */
    uint32_t        n_tokens, n_last, n_refused;
    int32_t         ids[N_IDS_MAX];
    int             last_code; /* of the last ERROR; 0: DONE */
    uint32_t        last_finish, last_n_tokens;
};

static int sink_put(struct cts_sink *s, const struct cts_live *l, const struct cts_engine_event *ev)
{
    struct sink *k = (struct sink *)s;

    if (ev->type == CTS_EV_DONE || ev->type == CTS_EV_ERROR) {
        k->n_last++;
        k->last_code = ev->type == CTS_EV_ERROR ? ev->code : 0;
        k->last_finish = ev->finish;
        k->last_n_tokens = ev->n_tokens;
        return 0;
    }
    if (k->room == 0) {
        k->n_refused++;
        return -EAGAIN;
    }
    k->room--;
    if (ev->type != CTS_EV_TOKEN) return 0;
    CHECK(ev->index == l->n_tokens);
    CHECK(k->n_tokens < N_IDS_MAX);
    k->ids[k->n_tokens++] = ev->token;
    return 0;
}

static int sink_has_room(struct cts_sink *s)
{
    return ((struct sink *)s)->room > 0;
}

static const struct cts_sink_ops OPS = { sink_put, sink_has_room };

static struct sink new_sink(uint32_t room)
{
    return (struct sink){ .s = { .ops = &OPS }, .room = room };
}

/* A prompt whose answer runs on. */
static const struct cts_gen_msg MSG = { .prompt = { (const uint8_t *)"a large", 7 },
                                        .max_tokens = 60,
                                        .temperature = 1,
                                        .top_p = -1,
                                        .top_k = -1,
                                        .has_seed = 1,
                                        .seed = 3,
                                        .n_logprobs = -1 };

static int submit(struct serve_rig *r, struct sink *k, uint64_t req_id, struct cts_err *err, uint32_t *retry_ms)
{
    struct cts_submission sub = { .req_id = req_id, .msg = &MSG };
    struct cts_live      *l;
    const char           *param;

    return cts_live_submit(&r->lives, &k->s, &sub, &l, &param, retry_ms, err);
}

static void submit_ok(struct serve_rig *r, struct sink *k, uint64_t req_id)
{
    struct cts_err err = { .code = 0 };
    uint32_t       retry_ms;

    CHECK_MSG(submit(r, k, req_id, &err, &retry_ms) == 0, "%s\n", err.text);
}

static void finish(struct serve_rig *r)
{
    while (r->lives.n_live > 0) serve_rig_turn(r, 1);
}

static struct serve_rig rig;

static int open_rig(void **state)
{
    (void)state;
    serve_rig_open(&rig);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    serve_rig_close(&rig);
    return 0;
}

static void a_request_that_stalls_goes_on_with_the_same_tokens(void **state)
{
    struct sink free_run = new_sink(N_IDS_MAX), k = new_sink(5);

    (void)state;
    submit_ok(&rig, &free_run, 1);
    finish(&rig);
    CHECK(free_run.n_last == 1 && free_run.last_code == 0 && free_run.n_tokens == free_run.last_n_tokens);
    CHECK(free_run.n_tokens > 20);

    submit_ok(&rig, &k, 1);
    while (k.n_last == 0) {
        if (k.s.n_parked > 0) {
            k.room = 3; /* the client takes a little */
            cts_lives_resume(&rig.lives, &k.s, 1);
            serve_rig_flush(&rig);
            if (rig.lives.n_live == 0 || k.s.n_parked > 0) continue;
        }
        serve_rig_turn(&rig, 1);
    }
    CHECK(k.n_refused > 3 && k.s.n_stalls > 3);
    CHECK(k.n_last == 1 && k.last_code == 0);
    CHECK(k.n_tokens == free_run.n_tokens && memcmp(k.ids, free_run.ids, k.n_tokens * sizeof(k.ids[0])) == 0);
    CHECK(k.s.n_live == 0 && k.s.n_parked == 0 && k.s.n_stalled == 0 && rig.lives.n_stalled == 0);
}

static void a_request_that_stalls_too_long_ends_slow_and_harms_nobody(void **state)
{
    struct sink k = new_sink(2), other = new_sink(N_IDS_MAX);

    (void)state;
    submit_ok(&rig, &k, 1);
    submit_ok(&rig, &other, 1);
    while (k.s.n_stalled == 0) serve_rig_turn(&rig, 1000);
    cts_lives_tick(&rig.lives, 1000 + RIG_STALL_NS - 1);
    CHECK(k.n_last == 0);
    cts_lives_tick(&rig.lives, 1000 + RIG_STALL_NS);
    CHECK(k.n_last == 1 && k.last_code == CTS_ESLOW && k.n_tokens == 2);
    CHECK(k.s.n_live == 0 && k.s.n_stalled == 0 && k.s.n_parked == 0);
    finish(&rig);
    CHECK(k.n_last == 1); /* the engine's own end is not told twice */
    CHECK(other.n_last == 1 && other.last_code == 0 && other.n_tokens == other.last_n_tokens);
}

static void taking_output_starts_the_stall_anew(void **state)
{
    struct sink k = new_sink(2);

    (void)state;
    submit_ok(&rig, &k, 1);
    while (k.s.n_stalled == 0) serve_rig_turn(&rig, 1000);
    k.room = k.s.first->n_held;
    cts_lives_resume(&rig.lives, &k.s, 2000);
    CHECK(k.s.n_stalled == 0 && k.s.n_parked == 1); /* all was taken, but there is no room to go on */
    k.room = 1;
    cts_lives_resume(&rig.lives, &k.s, 2000);
    CHECK(k.s.n_parked == 0);
    while (k.s.n_stalled == 0) serve_rig_turn(&rig, 2000);
    cts_lives_tick(&rig.lives, 2000 + RIG_STALL_NS - 1);
    CHECK(k.n_last == 0);
    cts_lives_tick(&rig.lives, 2000 + RIG_STALL_NS);
    CHECK(k.n_last == 1 && k.last_code == CTS_ESLOW);
    finish(&rig);
}

static void the_pool_for_held_events_is_bounded_and_its_end_is_the_requests(void **state)
{
    struct sink k[RIG_REQUESTS], ended = new_sink(0);
    uint32_t    n_slow = 0, n_done = 0, pool = rig.lives.held_free;

    (void)state;
    submit_ok(&rig, &ended, 1);
    while (ended.s.n_stalled == 0) serve_rig_turn(&rig, 1);
    pool = rig.lives.held_free;
    rig.lives.held_free = UINT32_MAX; /* as if others held everything */
    CHECK(cts_live_cancel(&rig.lives, &ended.s, 1) == 0);
    finish(&rig); /* what does not fit now is the engine's last event */
    CHECK(ended.n_last == 1 && ended.last_code == CTS_ESLOW && ended.s.n_live == 0);
    rig.lives.held_free = pool;
    for (uint32_t i = 0; i < RIG_REQUESTS; i++) {
        k[i] = new_sink(0);
        submit_ok(&rig, &k[i], i);
    }
    rig.lives.held_free = UINT32_MAX; /* as if others held everything */
    while (rig.lives.n_live > 0) serve_rig_turn(&rig, 1);
    for (uint32_t i = 0; i < RIG_REQUESTS; i++) {
        CHECK(k[i].n_last == 1);
        n_slow += k[i].last_code == CTS_ESLOW;
        n_done += k[i].last_code == 0;
    }
    CHECK(n_slow == RIG_REQUESTS && n_done == 0);
    CHECK(rig.lives.stats.n_slow >= RIG_REQUESTS);
}

static void cancel_ends_a_request_once_whether_it_stalls_or_not(void **state)
{
    struct sink k = new_sink(N_IDS_MAX), stalled = new_sink(1);

    (void)state;
    submit_ok(&rig, &k, 7);
    submit_ok(&rig, &stalled, 7);
    while (k.n_tokens == 0 || stalled.s.n_stalled == 0) serve_rig_turn(&rig, 1);
    CHECK(cts_live_cancel(&rig.lives, &k.s, 8) == CTS_ENOTFOUND);
    CHECK(cts_live_cancel(&rig.lives, &k.s, 7) == 0);
    CHECK(cts_live_cancel(&rig.lives, &k.s, 7) == 0); /* again is fine */
    CHECK(cts_live_cancel(&rig.lives, &stalled.s, 7) == 0);
    while (k.n_last == 0) serve_rig_turn(&rig, 1);
    CHECK(k.last_code == 0 && k.last_finish == CTS_ENGINE_CANCELLED);
    stalled.room = N_IDS_MAX; /* what was held comes before the end */
    while (stalled.n_last == 0) {
        cts_lives_resume(&rig.lives, &stalled.s, 1);
        if (stalled.n_last == 0) serve_rig_turn(&rig, 1);
    }
    CHECK(stalled.last_finish == CTS_ENGINE_CANCELLED && stalled.n_tokens == stalled.last_n_tokens);
    CHECK(cts_live_cancel(&rig.lives, &k.s, 7) == CTS_ENOTFOUND);
    finish(&rig);
}

static void a_sink_that_goes_away_hears_nothing_more_and_frees_everything(void **state)
{
    struct sink k = new_sink(3);
    uint32_t    n_tokens;

    (void)state;
    for (uint64_t i = 0; i < RIG_PER_CLIENT; i++) submit_ok(&rig, &k, i);
    while (k.s.n_stalled == 0) serve_rig_turn(&rig, 1);
    cts_live_detach(&rig.lives, &k.s);
    CHECK(k.s.n_live == 0 && k.s.first == NULL && k.s.n_stalled == 0 && k.s.n_parked == 0);
    n_tokens = k.n_tokens;
    finish(&rig);
    CHECK(k.n_tokens == n_tokens && k.n_last == 0);
    CHECK(rig.lives.n_stalled == 0 && rig.lives.n_orders == 0);
}

static void submissions_are_bounded_and_refused_with_a_time_to_retry(void **state)
{
    struct sink    a = new_sink(N_IDS_MAX), b = new_sink(N_IDS_MAX), c = new_sink(N_IDS_MAX);
    struct cts_err err = { .code = 0 };
    uint32_t       retry_ms;

    (void)state;
    for (uint64_t i = 0; i < RIG_PER_CLIENT; i++) submit_ok(&rig, &a, i);
    CHECK(submit(&rig, &a, 99, &err, &retry_ms) == CTS_EBUSY && retry_ms > 0);
    CHECK(strstr(err.text, "live_per_client") != NULL);
    for (uint64_t i = 0; i < RIG_REQUESTS - RIG_PER_CLIENT; i++) submit_ok(&rig, &b, i);
    CHECK(submit(&rig, &c, 1, &err, &retry_ms) == CTS_EBUSY && retry_ms > 0);
    CHECK(strstr(err.text, "engine.requests") != NULL);
    cts_live_detach(&rig.lives, &b.s);
    finish(&rig);
    CHECK(a.n_last == RIG_PER_CLIENT);

    submit_ok(&rig, &c, 1);
    CHECK(submit(&rig, &c, 1, &err, &retry_ms) == CTS_EARG); /* the id is live */
    rig.lives.is_draining = 1;
    CHECK(submit(&rig, &c, 2, &err, &retry_ms) == CTS_EBUSY && strstr(err.text, "draining") != NULL);
    rig.lives.is_draining = 0;
    finish(&rig);
    CHECK(c.n_last == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_stalls_goes_on_with_the_same_tokens),
        cmocka_unit_test(a_request_that_stalls_too_long_ends_slow_and_harms_nobody),
        cmocka_unit_test(taking_output_starts_the_stall_anew),
        cmocka_unit_test(cancel_ends_a_request_once_whether_it_stalls_or_not),
        cmocka_unit_test(a_sink_that_goes_away_hears_nothing_more_and_frees_everything),
        cmocka_unit_test(submissions_are_bounded_and_refused_with_a_time_to_retry),
        cmocka_unit_test(
            the_pool_for_held_events_is_bounded_and_its_end_is_the_requests), /* last: it uses the pool up */
    };

    return cmocka_run_group_tests_name("live", tests, open_rig, close_rig);
}
