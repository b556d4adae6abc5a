/* The shared-memory door of the real ctsd, by a client that may break the rules. */

#include "common/clock.h"
#include "common/err.h"
#include "shm/record.h"
#include "tests/check.h"
#include "tests/system/ctsd.h"
#include "tests/system/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ctsd     d;
static struct raw      c;
static struct raw_ring r;
static struct cts_buf  payload = CTS_BUF(1 << 16);

static int start(void **state)
{
    static const char *const SETTINGS[] = { "limits.client_stall_s=1", "limits.live_per_client=64", NULL };

    (void)state;
    ctsd_start(&d, SETTINGS);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    cts_buf_deinit(&payload);
    ctsd_stop(&d);
    return 0;
}

static int open_ring(void **state)
{
    (void)state;
    raw_open(&c, d.socket);
    raw_ring_open(&r, &c, 16, CTS_ARENA_BYTES_MIN, CTS_OUT_BYTES_MIN);
    return 0;
}

static int close_ring(void **state)
{
    (void)state;
    raw_ring_close(&r);
    raw_close(&c);
    return 0;
}

/* {"prompt": "a large", "max_tokens": n, ...}: runs to its length. */
static void make_payload(uint32_t max_tokens, uint32_t n_logprobs)
{
    struct cts_mpw w = { &payload, 0 };

    payload.len = 0;
    cts_mpw_map(&w, 5);
    cts_mpw_str(&w, "prompt"), cts_mpw_str(&w, "a large");
    cts_mpw_str(&w, "max_tokens"), cts_mpw_u64(&w, max_tokens);
    cts_mpw_str(&w, "temperature"), cts_mpw_int(&w, 1);
    cts_mpw_str(&w, "seed"), cts_mpw_u64(&w, 1);
    cts_mpw_str(&w, "logprobs"), cts_mpw_u64(&w, n_logprobs);
    CHECK(w.rc == 0);
}

static void submit(uint64_t req_id)
{
    raw_ring_put(&r, (struct cts_sub_record){ .op = CTS_OP_GENERATE, .req_id = req_id }, payload.ptr,
                 payload.len);
}

static struct cts_out_view take(void)
{
    struct cts_out_view v = { .type = 0 };

    CHECK(raw_ring_take(&r) == 1);
    CHECK(cts_out_decode(r.rec, &v) == 0);
    return v;
}

/* Everything up to the last record of req_id, which is the only live request. */
static struct cts_out_view finish(uint64_t req_id, uint32_t *n_tokens)
{
    struct cts_out_view v = { .type = 0 };

    for (*n_tokens = 0;; *n_tokens += v.n_tokens) {
        v = take();
        CHECK(v.req_id == req_id);
        if (v.flags & CTS_OUTF_LAST) return v;
        CHECK(v.type == CTS_OUT_ACCEPTED || (v.type == CTS_OUT_TOKENS && v.first == *n_tokens));
    }
}

static void a_ping_and_a_request_are_answered(void **state)
{
    struct cts_out_view v = { .type = 0 };
    uint32_t            n;

    (void)state;
    raw_ring_put(&r, (struct cts_sub_record){ .op = CTS_OP_PING, .req_id = 77 }, NULL, 0);
    v = take();
    CHECK(v.type == CTS_OUT_PONG && v.req_id == 77 && v.flags == 0);
    make_payload(20, 3);
    submit(5);
    v = take();
    CHECK(v.type == CTS_OUT_ACCEPTED && v.req_id == 5 && v.n_prompt > 0);
    v = finish(5, &n);
    CHECK(v.type == CTS_OUT_DONE && v.status == CTS_FINISH_LENGTH && v.n_tokens == 20 && n == 20);
}

static void what_is_wrong_in_a_payload_is_answered_and_the_ring_lives(void **state)
{
    static const struct {
        const char *bytes;
        size_t      n;
    } BAD[] = { { "", 0 },
                { "\xdd\x04\x00\x00\x00", 5 },
                { "\x81\xa6prompt\x01", 9 },
                { "\x81\xa4"
                  "foo!\x01",
                  7 },
                { "\x82\xa6prompt\xa1x\xa7"
                  "adapter\xa0",
                  19 } };
    struct cts_out_view v = { .type = 0 };
    uint32_t            n;

    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        raw_ring_put(&r, (struct cts_sub_record){ .op = CTS_OP_GENERATE, .req_id = i }, BAD[i].bytes, BAD[i].n);
        v = take();
        CHECK(v.type == CTS_OUT_ERROR && v.req_id == i && v.status == -CTS_EARG && v.text_len > 0);
    }
    raw_ring_put(&r, (struct cts_sub_record){ .op = 99, .req_id = 8 }, NULL, 0);
    v = take();
    CHECK(v.type == CTS_OUT_ERROR && v.req_id == 8 && v.status == -CTS_EUNSUP);
    make_payload(3, 0);
    raw_ring_put(&r,
                 (struct cts_sub_record){ .op = CTS_OP_GENERATE, .req_id = 9, .adapter = 4, .generation = 1 },
                 payload.ptr, payload.len);
    v = take();
    CHECK(v.type == CTS_OUT_ERROR && v.req_id == 9 && v.status == -CTS_ENOTFOUND);
    raw_ring_put(&r, (struct cts_sub_record){ .op = CTS_OP_GENERATE, .req_id = 9, .generation = 1 },
                 payload.ptr, payload.len);
    CHECK(take().status == -CTS_ENOTFOUND);
    raw_ring_put(&r, (struct cts_sub_record){ .op = CTS_OP_GENERATE, .req_id = 9, .deadline_ns = 1 },
                 payload.ptr, payload.len);
    CHECK(finish(9, &n).status == ETIMEDOUT);
    raw_ring_put(&r, (struct cts_sub_record){ .op = CTS_OP_CANCEL, .req_id = 1234 }, NULL,
                 0); /* no such: no answer */
    submit(10);
    CHECK(finish(10, &n).type == CTS_OUT_DONE);
}

/* Each breaks the layout in one way, behind the writer's back. */
static void break_tail(void)
{
    atomic_store(&r.subw.hdr->tail, r.subw.tail + 17);
}
static void break_tail_far(void)
{
    atomic_store(&r.subw.hdr->tail, r.subw.tail + (1u << 31));
}
static void break_out_head(void)
{
    atomic_store(&r.subw.hdr->out_head, UINT64_MAX - 31);
}
static void break_out_head_odd(void)
{
    atomic_store(&r.subw.hdr->out_head, r.outr.head - 1);
}
static void break_out_head_back(void)
{
    atomic_store(&r.subw.hdr->out_head, (uint64_t)0);
}
static void break_seq(void)
{
    atomic_store(&r.subw.hdr->tail, r.subw.tail + 1);
} /* an old record under a new number */

static void break_reserved(void)
{
    struct cts_sub_record rec = { .op = CTS_OP_PING, .reserved = { 0, 1, 0 } };

    CHECK(cts_subw_put(&r.subw, &rec, NULL, 0) == 0);
    (void)cts_subw_publish(&r.subw);
}

static void kick(void)
{
    CHECK(write(r.kick_fd, &(uint64_t){ 1 }, 8) == 8);
}

static void wait_closed(const struct cts_out_hdr *out)
{
    uint64_t until_ns = cts_clock_ns() + UINT64_C(60000000000);

    while (!(atomic_load(&out->flags) & CTS_OUT_CLOSED))
        CHECK_MSG(cts_clock_ns() < until_ns, "the rings are still open\n");
}

static void breaking_the_layout_closes_these_rings_only(void **state)
{
    static void (*const BREAKS[])(void) = { break_tail,         break_tail_far,      break_out_head,
                                            break_out_head_odd, break_out_head_back, break_seq,
                                            break_reserved };
    struct cts_ctl_reply reply;
    uint32_t             n;

    (void)state;
    for (size_t i = 0; i < sizeof(BREAKS) / sizeof(BREAKS[0]); i++) {
        for (uint64_t k = 0; k < 17; k++) { /* once around, so that old records lie everywhere */
            raw_ring_put(&r, (struct cts_sub_record){ .op = CTS_OP_PING, .req_id = k }, NULL, 0);
            CHECK(take().type == CTS_OUT_PONG);
        }
        make_payload(500, 0);
        submit(1);
        CHECK(take().type == CTS_OUT_ACCEPTED);
        BREAKS[i]();
        kick();
        wait_closed(r.outr.hdr); /* taking would put out_head right again */
        CHECK_MSG(cts_outr_close_reason(&r.outr) == CTS_EPROTO, "break %zu\n", i);
        raw_call(&c, "health", &reply);                          /* the connection is another matter */
        while (raw_status(&c, "requests", "live") > 0) continue; /* and its request was cancelled */
        (void)raw_begin(&c, "ring.open", 0);
        raw_end(&c);
        CHECK(raw_recv(&c, &reply) == 1);
        raw_check_error(&reply, "EEXIST", NULL);
        (void)close_ring(NULL);
        (void)open_ring(NULL);
    }
    make_payload(3, 0);
    submit(1);
    CHECK(finish(1, &n).type == CTS_OUT_DONE);
}

/* Submit until the output ring has no room left, and wait until requests stall. */
static uint32_t fill_out(void)
{
    struct raw observer;
    uint32_t   n_live = 8;

    make_payload(400, 20); /* 20 log-probabilities a token: 224 bytes each */
    for (uint32_t i = 0; i < n_live; i++) submit(i);
    raw_open(&observer, d.socket);
    while (raw_status(&observer, "requests", "n_stalls") == 0 || atomic_load(&r.outr.hdr->n_stalls) == 0)
        continue;
    raw_close(&observer);
    return n_live;
}

static void output_that_is_taken_late_is_all_there_and_in_order(void **state)
{
    uint32_t            n_live = fill_out(), n_over = 0, n_tokens[8] = { 0 };
    struct cts_out_view v = { .type = 0 };

    (void)state;
    while (n_over < n_live) {
        v = take();
        CHECK(v.req_id < n_live);
        if (v.type == CTS_OUT_TOKENS) CHECK(v.first == n_tokens[v.req_id]);
        if (v.type == CTS_OUT_TOKENS) n_tokens[v.req_id] += v.n_tokens;
        if (!(v.flags & CTS_OUTF_LAST)) continue;
        CHECK(v.type == CTS_OUT_DONE && v.n_tokens == 400 && n_tokens[v.req_id] == 400);
        n_over++;
    }
    CHECK(r.n_kicks > 1); /* it was told that room was wanted */
}

static void output_that_is_never_taken_ends_every_request_slow(void **state)
{
    uint32_t            n_live = fill_out(), n_over = 0;
    struct raw          observer;
    struct cts_out_view v = { .type = 0 };

    (void)state;
    raw_open(&observer, d.socket);
    while (raw_status(&observer, "requests", "live") > 0) continue; /* after limits.client_stall_s */
    raw_close(&observer);
    while (n_over < n_live) {
        v = take();
        if (!(v.flags & CTS_OUTF_LAST)) continue;
        CHECK(v.type == CTS_OUT_ERROR && v.status == -CTS_ESLOW);
        n_over++;
    }
}

#define N_PINGS 5000u /* more than fit into OUT at 32 bytes each */

static void submissions_wait_while_their_answers_have_no_room(void **state)
{
    struct cts_out_view v = { .type = 0 };
    uint32_t            n_put = 0, n_got = 0;

    (void)state;
    while (n_got < N_PINGS) {
        struct cts_sub_record rec = { .op = CTS_OP_PING, .req_id = n_put };
        int                   rc = n_put < N_PINGS ? cts_subw_put(&r.subw, &rec, NULL, 0) : -EAGAIN;

        CHECK(rc == 0 || rc == -EAGAIN);
        if (rc == 0) {
            n_put++;
            if (cts_subw_publish(&r.subw)) kick();
        } else if (n_put == N_PINGS || (cts_outr_flags(&r.outr) & CTS_OUT_NEED_ROOM)) {
            v = take(); /* it takes no more before we do */
            CHECK(v.type == CTS_OUT_PONG && v.req_id == n_got);
            n_got++;
        }
    }
    CHECK(r.n_kicks > 0); /* kicks for room: those of submissions are not counted here */
}

static void a_client_that_polls_is_woken_by_the_socket(void **state)
{
    struct pollfd p = { .events = POLLIN };
    uint32_t      seq, n_wakes = 0;
    int           must_kick, is_over = 0;
    char          bytes[64];

    (void)state;
    make_payload(30, 0);
    submit(1);
    p.fd = r.wake_fd;
    while (!is_over) {
        if (cts_outr_sleep_begin(&r.outr, CTS_WAIT_SOCKET, 0, &seq) == 0) {
            CHECK(poll(&p, 1, 60000) == 1 && p.revents == POLLIN);
            CHECK(recv(r.wake_fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0);
            cts_outr_sleep_end(&r.outr);
            n_wakes++;
        }
        while (cts_outr_take(&r.outr, r.rec, &must_kick) == 1) is_over |= r.rec[5] & CTS_OUTF_LAST;
    }
    CHECK(n_wakes > 0 && n_wakes <= 32); /* one a step at most */
}

static void the_memory_that_the_daemon_writes_cannot_be_written_or_cut(void **state)
{
    struct raw           other;
    struct cts_ctl_reply reply;

    (void)state;
    raw_open(&other, d.socket);
    (void)raw_begin(&other, "ring.open", 0);
    raw_end(&other);
    CHECK(raw_recv(&other, &reply) == 1 && other.n_fds == 4);
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, other.fds[1], 0) == MAP_FAILED &&
          errno == EPERM);
    CHECK(ftruncate(other.fds[0], 4096) < 0 && errno == EPERM);
    CHECK(ftruncate(other.fds[1], 4096) < 0 && errno == EPERM);
    raw_close(&other);
}

static void an_eventfd_that_would_block_its_reader_blocks_nobody(void **state)
{
    struct cts_ctl_reply  reply;
    struct cts_sub_record rec = { .op = CTS_OP_PING, .req_id = 1 };

    (void)state;
    /* Nobody ever reads it, so its counter is the sum of our kicks. */
    CHECK(write(r.kick_fd, &(uint64_t){ UINT64_MAX - 1 - r.n_kicks }, 8) == 8); /* full: a write would block */
    CHECK(fcntl(r.kick_fd, F_SETFL, 0) == 0);                                   /* for both ends of it */
    CHECK(cts_subw_put(&r.subw, &rec, NULL, 0) == 0);
    (void)cts_subw_publish(&r.subw);
    raw_call(&c, "health", &reply); /* it turns */
    CHECK(take().type == CTS_OUT_PONG);
}

static void a_hole_punched_into_the_submissions_closes_the_rings(void **state)
{
    struct raw           other;
    struct cts_ctl_reply reply;
    struct cts_sub_hdr  *hdr;
    struct cts_out_hdr  *out;

    (void)state;
    raw_open(&other, d.socket);
    (void)raw_begin(&other, "ring.open", 0);
    raw_end(&other);
    CHECK(raw_recv(&other, &reply) == 1 && other.n_fds == 4);
    hdr = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, other.fds[0], 0);
    out = mmap(NULL, 4096, PROT_READ, MAP_SHARED, other.fds[1], 0);
    CHECK(hdr != MAP_FAILED && out != MAP_FAILED);
    CHECK(fallocate(other.fds[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20) == 0);
    atomic_store(&hdr->tail, 1u); /* a record of zeroes */
    CHECK(write(other.fds[2], &(uint64_t){ 1 }, 8) == 8);
    wait_closed(out);
    CHECK(atomic_load(&out->close_reason) == (uint32_t)-CTS_EPROTO);
    munmap(hdr, 4096);
    munmap(out, 4096);
    raw_close(&other);
}

static void a_client_killed_in_the_middle_frees_everything(void **state)
{
    struct raw observer;
    pid_t      child;
    int        status;

    (void)state;
    raw_open(&observer, d.socket);
    CHECK(raw_status(&observer, "clients", "rings") == 1);
    child = fork();
    if (child == 0) {
        struct raw_ring mine;

        raw_open(&c, d.socket);
        raw_ring_open(&mine, &c, 16, CTS_ARENA_BYTES_MIN, CTS_OUT_BYTES_MIN);
        r = mine;
        make_payload(900, 20);
        for (uint64_t i = 0; i < 10; i++) submit(i);
        CHECK(raw_ring_take(&r) == 1);
        raise(SIGKILL);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (raw_status(&observer, "clients", "rings") > 1 || raw_status(&observer, "requests", "live") > 0)
        continue;
    CHECK(raw_status(&observer, "engine", "n_pages_free") == raw_status(&observer, "engine", "n_pages"));
    raw_close(&observer);
}

static void the_descriptors_travel_with_their_own_frame_among_others(void **state)
{
    static const char *const METHODS[] = { "status", "health", "ring.open", "status", "health" };
    struct cts_buf           all = CTS_BUF(4096);
    struct cts_ctl_reply     reply;
    struct raw               other;

    (void)state;
    raw_open(&other, d.socket);
    for (int i = 0; i < 5; i++) {
        (void)raw_begin(&other, METHODS[i], 0);
        CHECK(cts_frame_end(&other.w, other.begin) == 0);
        CHECK(cts_buf_put(&all, other.tx.ptr, other.tx.len) == 0);
    }
    raw_send(&other, all.ptr, all.len); /* in one go, so that the answers are sent in one go */
    for (int i = 0; i < 5; i++) {
        CHECK(raw_recv(&other, &reply) == 1 && reply.kind == CTS_CTL_RESULT);
        CHECK(other.n_fds == (i < 2 ? 0 : 4));
    }
    raw_close(&other);
    cts_buf_deinit(&all);
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_ring, close_ring)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_ping_and_a_request_are_answered),
        T(what_is_wrong_in_a_payload_is_answered_and_the_ring_lives),
        T(breaking_the_layout_closes_these_rings_only),
        T(output_that_is_taken_late_is_all_there_and_in_order),
        T(output_that_is_never_taken_ends_every_request_slow),
        T(submissions_wait_while_their_answers_have_no_room),
        T(a_client_that_polls_is_woken_by_the_socket),
        T(the_memory_that_the_daemon_writes_cannot_be_written_or_cut),
        T(an_eventfd_that_would_block_its_reader_blocks_nobody),
        T(a_hole_punched_into_the_submissions_closes_the_rings),
        T(a_client_killed_in_the_middle_frees_everything),
        cmocka_unit_test(the_descriptors_travel_with_their_own_frame_among_others),
    };

    return cmocka_run_group_tests_name("ctsd rings", tests, start, stop);
}
