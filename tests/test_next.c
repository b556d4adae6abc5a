#include "tests/client_peer.h"

#include "client/cts.h"
#include "common/clock.h"
#include "common/err.h"
#include "tests/check.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct peer *p;
static cts         *c;
static uint64_t     id; /* a live request */

static int setup(void **state)
{
    struct cts_request    r = CTS_REQUEST_INIT;
    struct cts_sub_record rec;

    (void)state;
    p = peer_start(LIE_NONE);
    c = peer_open(p, 0);
    r.prompt = "x";
    CHECK(cts_submit(c, &r, &id) == 0);
    CHECK(peer_take(p, &rec) == 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cts_close(c);
    peer_stop(p);
    return 0;
}

static void next_gives_events_in_order_and_then_nothing(void **state)
{
    struct cts_event ev;

    (void)state;
    CHECK(cts_next(c, &ev, 0) == 0);
    peer_accept(p, id);
    peer_token(p, id, 0, 11, "a");
    peer_token(p, id, 1, 12, "b");
    peer_done(p, id, 2);
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.type == CTS_EVENT_ACCEPTED && ev.n_prompt == 5);
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.type == CTS_EVENT_TOKENS && ev.ids[0] == 11 && ev.text[0] == 'a' && ev.request == id);
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.first == 1 && ev.ids[0] == 12);
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.type == CTS_EVENT_DONE && ev.is_last && ev.n_generated == 2);
    CHECK(cts_next(c, &ev, 0) == 0);
}

static void next_takes_ten_thousand_tokens_round_the_ring_without_allocating(void **state)
{
    struct mallinfo2 before, after;
    struct cts_event ev;

    (void)state;
    before = mallinfo2();
    for (uint32_t i = 0; i < 10000; i++) {
        peer_token(p, id, i, i, i % 3 == 0 ? "a longer piece of text, so that records differ in their length" : "b");
        CHECK(cts_next(c, &ev, 0) == 1);
        CHECK(ev.first == i && ev.ids[0] == i);
    }
    after = mallinfo2();
    CHECK(after.uordblks == before.uordblks);
}

static void next_kicks_a_daemon_that_waits_for_room(void **state)
{
    struct cts_event ev;
    uint64_t         n;

    (void)state;
    peer_token(p, id, 0, 1, "");
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(read(p->kick_fd, &n, sizeof(n)) < 0 && errno == EAGAIN);
    peer_token(p, id, 1, 1, "");
    cts_out_flag(&p->out, CTS_OUT_NEED_ROOM, 0);
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(read(p->kick_fd, &n, sizeof(n)) == sizeof(n) && n == 1);
}

static void next_returns_at_its_timeout(void **state)
{
    uint64_t         start_ns = cts_clock_ns();
    struct cts_event ev;

    (void)state;
    CHECK(cts_next(c, &ev, 3000000) == 0);
    CHECK(cts_clock_ns() - start_ns >= 3000000);
}

static void write_token(struct peer *peer)
{
    peer_token(peer, id, 0, 77, "woken");
}

static void next_sleeps_and_is_woken_through_the_futex(void **state)
{
    struct peer_act  a;
    struct cts_event ev;

    (void)state;
    peer_when_asleep(p, &a, write_token);
    CHECK(cts_next(c, &ev, UINT64_MAX) == 1);
    peer_act_join(&a);
    CHECK(ev.ids[0] == 77);
    CHECK(atomic_load(&p->sub.hdr->out_wait) == 0);
}

static void next_tells_of_a_daemon_that_dies_while_it_sleeps(void **state)
{
    struct peer_act  a;
    struct cts_event ev;

    (void)state;
    peer_when_asleep(p, &a, peer_die);
    CHECK(cts_next(c, &ev, UINT64_MAX) == -ECONNRESET);
    peer_act_join(&a);
    CHECK(cts_next(c, &ev, 0) == -ECONNRESET);
    CHECK(cts_arm(c) == 1);
    CHECK(strcmp(cts_last_message(c), "ctsd went away") == 0);
}

static void next_gives_what_a_dead_daemon_wrote_before_it_tells(void **state)
{
    struct cts_event ev;
    int              rc;

    (void)state;
    peer_token(p, id, 0, 5, "");
    peer_die(p);
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(ev.ids[0] == 5);
    do rc = cts_next(c, &ev, 0); /* a poller is told too, after a while */
    while (rc == 0);
    CHECK(rc == -ECONNRESET);
}

static void close_ring_slow(struct peer *peer)
{
    cts_out_close(&peer->out, CTS_ESLOW);
}

static void next_tells_why_the_daemon_closed_the_rings(void **state)
{
    struct cts_event ev;

    (void)state;
    peer_token(p, id, 0, 5, "");
    close_ring_slow(p);
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(cts_next(c, &ev, 0) == CTS_ERROR_SLOW);
    CHECK(strstr(cts_last_message(c), "not taken in time") != NULL);
}

static void on_signal(int sig)
{
    (void)sig;
}

static pthread_t sleeper;

static void send_signal(struct peer *peer)
{
    /* The client says that it goes to sleep before it does; a signal in between
     * would be missed, so go on until it is awake again. */
    while (atomic_load(&peer->sub.hdr->out_wait) != 0) pthread_kill(sleeper, SIGUSR1);
}

static void next_returns_eintr_after_a_signal_and_goes_on(void **state)
{
    struct sigaction sa = { .sa_handler = on_signal };
    struct peer_act  a;
    struct cts_event ev;

    (void)state;
    sigaction(SIGUSR1, &sa, NULL);
    sleeper = pthread_self();
    peer_when_asleep(p, &a, send_signal);
    CHECK(cts_next(c, &ev, UINT64_MAX) == -EINTR);
    peer_act_join(&a);
    write_token(p);
    CHECK(cts_next(c, &ev, 0) == 1);
}

/* ---- event loops ---- */

static int polls_readable(int timeout_ms)
{
    struct pollfd f = { .fd = cts_fd(c), .events = POLLIN };

    return poll(&f, 1, timeout_ms) > 0;
}

static void armed_descriptor_polls_readable_after_an_event_and_not_before(void **state)
{
    struct cts_event ev;

    (void)state;
    CHECK(cts_arm(c) == 0);
    CHECK(!polls_readable(0));
    peer_token(p, id, 0, 1, "");
    CHECK(polls_readable(-1));
    CHECK(cts_next(c, &ev, 0) == 1);
    CHECK(cts_next(c, &ev, 0) == 0);
    CHECK(cts_arm(c) == 0); /* takes the byte of that wake */
    CHECK(!polls_readable(0));
    CHECK(cts_next(c, &ev, 0) == 0); /* disarms: no byte for what is polled anyway */
    peer_token(p, id, 1, 1, "");
    CHECK(!polls_readable(0));
    CHECK(cts_arm(c) == 1);
    CHECK(cts_next(c, &ev, 0) == 1);
}

static void armed_descriptor_polls_readable_when_the_daemon_dies(void **state)
{
    struct cts_event ev;

    (void)state;
    CHECK(cts_arm(c) == 0);
    peer_die(p);
    CHECK(polls_readable(-1));
    CHECK(cts_arm(c) == 1);
    CHECK(cts_next(c, &ev, 0) == -ECONNRESET);
}

/* ---- lies ---- */

static void check_dead(void)
{
    struct cts_request r = CTS_REQUEST_INIT;
    struct cts_event   ev;
    uint64_t           other;

    CHECK(cts_next(c, &ev, 0) == CTS_ERROR_PROTOCOL);
    CHECK(cts_next(c, &ev, UINT64_MAX) == CTS_ERROR_PROTOCOL);
    CHECK(cts_last_message(c)[0] != '\0');
    r.prompt = "x";
    CHECK(cts_submit(c, &r, &other) == CTS_ERROR_PROTOCOL);
    CHECK(cts_arm(c) == 1);
}

static void next_ends_at_an_event_of_a_request_that_is_not_live(void **state)
{
    (void)state;
    peer_token(p, id + 1, 0, 1, "");
    check_dead();
}

static void next_ends_at_a_second_last_event(void **state)
{
    struct cts_event ev;

    (void)state;
    peer_done(p, id, 0);
    peer_done(p, id, 0);
    CHECK(cts_next(c, &ev, 0) == 1);
    check_dead();
}

static void next_ends_at_a_lost_or_repeated_token(void **state)
{
    struct cts_event ev;

    (void)state;
    peer_token(p, id, 0, 1, "");
    peer_token(p, id, 2, 1, "");
    CHECK(cts_next(c, &ev, 0) == 1);
    check_dead();
}

static void next_ends_at_a_tail_that_runs_wild(void **state)
{
    (void)state;
    atomic_store(&p->out.hdr->tail, UINT64_MAX - 31);
    check_dead();
}

static void next_ends_at_a_record_that_leaves_the_ring(void **state)
{
    (void)state;
    peer_token(p, id, 0, 1, "");
    ((struct cts_out_record *)(void *)p->out.ring)->len = CTS_OUT_BYTES_MIN + 32;
    check_dead();
}

static void next_ends_at_a_record_of_zeroes(void **state)
{
    (void)state;
    peer_token(p, id, 0, 1, "");
    memset(p->out.ring, 0, 32);
    check_dead();
}

static void next_ends_at_an_unknown_type(void **state)
{
    (void)state;
    peer_token(p, id, 0, 1, "");
    ((struct cts_out_record *)(void *)p->out.ring)->type = 77;
    check_dead();
}

static uint32_t random_below(uint32_t n)
{
    static uint64_t seed = 1;

    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

/* A whole answer with every kind of part. */
static void write_answer(void)
{
    static const uint32_t            ids[] = { 4, 5 };
    static const float               logprobs[] = { -0.25f, -0.5f };
    static const struct cts_top_pair top[] = { { 4, -0.25f }, { 5, -0.5f } };

    peer_accept(p, id);
    for (uint32_t i = 0; i < 8; i++)
        peer_put(p, &(struct cts_out_view){ .type = CTS_OUT_TOKENS,
                                            .req_id = id,
                                            .first = 2 * i,
                                            .n_tokens = 2,
                                            .ids = ids,
                                            .logprobs = logprobs,
                                            .n_top = 1,
                                            .top = top,
                                            .text = "text",
                                            .text_len = 4 });
    peer_error(p, id, CTS_EBUSY, "a sentence");
}

/* Answers with a few bytes changed: events or an end, never a crash or a hang. */
static void next_survives_damaged_rings(void **state)
{
    struct cts_event ev;
    int              n_ends = 0;

    for (int round = 0; round < 300; round++) {
        int rc, n_events = 0;

        write_answer();
        for (uint32_t i = 0; i <= random_below(3); i++)
            p->out.ring[random_below((uint32_t)p->out.tail)] ^= (uint8_t)(1u << random_below(8));
        do rc = cts_next(c, &ev, 0);
        while (rc == 1 && ++n_events < 20);
        CHECK(n_events < 20);
        CHECK(rc == 0 || rc == CTS_ERROR_PROTOCOL);
        n_ends += rc != 0;
        teardown(state);
        setup(state);
    }
    CHECK(n_ends > 100); /* most damage is seen; what lies in texts and numbers cannot be */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(next_gives_events_in_order_and_then_nothing),
        TEST(next_takes_ten_thousand_tokens_round_the_ring_without_allocating),
        TEST(next_kicks_a_daemon_that_waits_for_room),
        TEST(next_returns_at_its_timeout),
        TEST(next_sleeps_and_is_woken_through_the_futex),
        TEST(next_tells_of_a_daemon_that_dies_while_it_sleeps),
        TEST(next_gives_what_a_dead_daemon_wrote_before_it_tells),
        TEST(next_tells_why_the_daemon_closed_the_rings),
        TEST(next_returns_eintr_after_a_signal_and_goes_on),
        TEST(armed_descriptor_polls_readable_after_an_event_and_not_before),
        TEST(armed_descriptor_polls_readable_when_the_daemon_dies),
        TEST(next_ends_at_an_event_of_a_request_that_is_not_live),
        TEST(next_ends_at_a_second_last_event),
        TEST(next_ends_at_a_lost_or_repeated_token),
        TEST(next_ends_at_a_tail_that_runs_wild),
        TEST(next_ends_at_a_record_that_leaves_the_ring),
        TEST(next_ends_at_a_record_of_zeroes),
        TEST(next_ends_at_an_unknown_type),
        TEST(next_survives_damaged_rings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
