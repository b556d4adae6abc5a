/* Taking events, and sleeping until there are some. */
#include "client/event.h"
#include "client/handle.h"

#include "common/clock.h"
#include "common/wait.h"

#include <errno.h>
#include <sys/socket.h>

#define LOOK_NS                                                                                              \
    100000000u /* how often a waiting client looks whether the daemon lives: a futex tells nothing of a      \
                  death */
#define SPINS_PER_CLOCK 64

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- one record ---- */

/* The failure behind a ring that the daemon closed. */
static int fail_closed(cts *c)
{
    int reason = cts_outr_close_reason(&c->outr);

    if (reason == CTS_ESLOW)
        return cts_handle_fail(c, reason, "ctsd closed the rings: events were not taken in time");
    if (reason == CTS_EPROTO)
        return cts_handle_fail(c, reason, "ctsd closed the rings: it found what was submitted malformed");
    return cts_handle_fail(c, -ECONNRESET, "ctsd went away");
}

/* Nothing is there: 0, or the failure when nothing will ever come. */
static int check_end(cts *c)
{
    uint64_t now_ns;

    if (cts_outr_flags(&c->outr) & CTS_OUT_CLOSED) return cts_outr_has_more(&c->outr) ? 0 : fail_closed(c);
    now_ns = cts_clock_ns();
    if (!c->is_hung_up && now_ns - c->looked_ns < LOOK_NS) return 0;
    c->looked_ns = now_ns;
    if ((!c->is_hung_up && cts_conn_is_alive(&c->conn)) || cts_outr_has_more(&c->outr)) return 0;
    return fail_closed(c);
}

/* Hold the event against the request it names: 1 when it is the caller's, 0 when
 * it was only ours. */
static int judge(cts *c, struct cts_event *ev)
{
    struct cts_live *l = cts_handle_find(c, ev->request);

    if (l == NULL) return cts_handle_fail(c, CTS_EPROTO, "ctsd answered a request that is not live");
    switch (ev->type) {
    case CTS_EVENT_ACCEPTED:
        cts_handle_accept(l);
        return 1;
    case CTS_EVENT_TOKENS:
        if (ev->first != l->n_tokens) return cts_handle_fail(c, CTS_EPROTO, "ctsd lost or repeated tokens");
        l->n_tokens += ev->n_tokens;
        return 1;
    case CTS_EVENT_ERROR:
        if (cts_handle_again(c, l, ev)) return 0;
        break;
    case CTS_EVENT_DONE: break;
    }
    cts_handle_release(c, l);
    return 1;
}

/* 1 with *ev; 0 when OUT is empty; a failure. */
static int take(cts *c, struct cts_event *ev)
{
    for (;;) {
        int must_kick, rc = cts_outr_take(&c->outr, c->rec, &must_kick);

        if (must_kick) cts_handle_kick(c);
        if (rc == CTS_EPROTO) return cts_handle_fail(c, rc, "ctsd broke the event ring");
        if (rc == 0) return 0;
        rc = cts_event_parse(c->rec, ev, c->message, sizeof(c->message));
        if (rc == CTS_EPROTO) return cts_handle_fail(c, rc, "ctsd wrote an event that cannot be understood");
        if (rc == 1) rc = judge(c, ev);
        if (rc != 0) return rc;
    }
}

/* ---- waiting ---- */

/* Poll for at most spin_ns; 1 when something came. */
static int spin(cts *c, uint64_t until_ns)
{
    for (;;) {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (cts_outr_has_more(&c->outr)) return 1;
            pause_briefly();
        }
        if (cts_clock_ns() >= until_ns) return 0;
    }
}

/* Sleep until something comes, at most until the deadline and not longer than
 * LOOK_NS. 0, or -EINTR. */
static int doze(cts *c, uint64_t now_ns, uint64_t deadline_ns)
{
    uint64_t left_ns = deadline_ns - now_ns;
    uint32_t seq;
    int      rc;

    if (cts_outr_sleep_begin(&c->outr, CTS_WAIT_FUTEX, 0, &seq)) return 0;
    rc = cts_futex_wait(&c->outr.hdr->wake_seq, seq, left_ns < LOOK_NS ? left_ns : LOOK_NS, 1);
    cts_outr_sleep_end(&c->outr);
    return rc == -EINTR ? cts_handle_say(c, rc, "a signal ended the wait") : 0;
}

static int wait_for_more(cts *c, uint64_t deadline_ns)
{
    uint64_t now_ns = cts_clock_ns(), spun_ns = now_ns + c->spin_ns;

    if (c->spin_ns > 0 && spin(c, spun_ns < deadline_ns ? spun_ns : deadline_ns)) return 1;
    for (;;) {
        int rc;

        now_ns = cts_clock_ns();
        if (cts_outr_has_more(&c->outr)) return 1;
        if (now_ns >= deadline_ns) return 0;
        rc = doze(c, now_ns, deadline_ns);
        if (rc == 0 && !cts_outr_has_more(&c->outr)) rc = check_end(c);
        if (rc != 0) return rc;
    }
}

static void disarm(cts *c)
{
    if (c->is_armed) cts_outr_sleep_end(&c->outr);
    c->is_armed = 0;
}

int cts_next(cts *c, struct cts_event *ev, uint64_t timeout_ns)
{
    uint64_t now_ns, deadline_ns = 0;
    int      rc;

    disarm(c);
    for (;;) {
        if (c->rc != 0) return c->rc;
        rc = take(c, ev);
        if (rc != 0) return rc;
        rc = check_end(c);
        if (rc != 0 || timeout_ns == 0) return rc;
        if (deadline_ns == 0) {
            now_ns = cts_clock_ns();
            deadline_ns = timeout_ns >= UINT64_MAX - now_ns ? UINT64_MAX : now_ns + timeout_ns;
        }
        rc = wait_for_more(c, deadline_ns);
        if (rc <= 0) return rc;
    }
}

/* ---- for event loops ---- */

int cts_fd(const cts *c)
{
    return c->wake_fd;
}

/* Take the bytes of earlier wakes, so that the socket polls readable again only
 * for the next. 1 when the daemon hung up. Bounded: what comes meanwhile just
 * makes one poll return early. */
static int drain_wakes(const cts *c)
{
    char    bytes[256];
    ssize_t n;

    for (int i = 0; i < 16; i++) {
        n = recv(c->wake_fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return 1;
        if (n < (ssize_t)sizeof(bytes)) return 0;
    }
    return 0;
}

int cts_arm(cts *c)
{
    uint32_t seq;

    if (drain_wakes(c)) c->is_hung_up = 1;
    if (c->is_hung_up || c->rc != 0) return 1; /* cts_next says what happened */
    if (cts_outr_sleep_begin(&c->outr, CTS_WAIT_SOCKET, 0, &seq)) return 1;
    c->is_armed = 1;
    return 0;
}
