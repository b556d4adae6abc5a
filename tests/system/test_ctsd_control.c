/* The control socket of the real ctsd, spoken to in bytes. */

#include "tests/check.h"
#include "tests/system/ctsd.h"
#include "tests/system/raw.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct ctsd d;

static int start(void **state)
{
    static const char *const SETTINGS[] = { "limits.clients=8", "limits.setup_s=1", "limits.client_stall_s=1",
                                            NULL };

    (void)state;
    ctsd_start(&d, SETTINGS);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    ctsd_stop(&d);
    return 0;
}

/* What the daemon answers to bytes of which it makes nothing: an error, and the end. */
static void check_thrown_out(const void *bytes, size_t n, const char *code)
{
    struct raw           c;
    struct cts_ctl_reply reply;

    raw_connect(&c, d.socket);
    raw_send(&c, bytes, n);
    CHECK(raw_recv(&c, &reply) == 1);
    raw_check_error(&reply, code, NULL);
    CHECK(raw_recv(&c, &reply) == 0);
    raw_close(&c);
}

static void check_alive(void)
{
    struct raw           c;
    struct cts_ctl_reply reply;
    struct cts_span      s;
    struct cts_mp        v;

    raw_open(&c, d.socket);
    raw_call(&c, "health", &reply);
    CHECK(cts_mp_find(reply.body, "status", &v) && cts_mp_str(&v, &s) == 0 && cts_span_is(s, "ok"));
    raw_close(&c);
}

static void frames_that_lie_about_sizes_leave_peak_memory_where_it_was(void **state)
{
    static char deep[5000];
    uint64_t    before_kib;
    uint32_t    n_fds = raw_n_fds(d.pid);

    (void)state;
    memset(deep, '\x91', sizeof(deep));
    memcpy(deep, "\0\0\x13\x84", 4);                       /* 4996 arrays of one */
    check_thrown_out("\0\0\0\5\335\4\0\0", 9, "protocol"); /* warm up, so that the first error is in the peak */
    before_kib = raw_proc_kib(d.pid, "VmHWM");
    check_thrown_out("\0\0\0\5\335\4\0\0\0", 9, "protocol");
    check_thrown_out("\0\0\0\5\337\377\377\377\377", 9, "protocol");
    check_thrown_out("\0\0\0\5\333\377\377\377\377", 9, "protocol");
    check_thrown_out("\377\377\377\377", 4, "protocol");
    check_thrown_out("\0\0\0\0", 4, "protocol");
    check_thrown_out(deep, sizeof(deep), "protocol");
    CHECK_MSG(raw_proc_kib(d.pid, "VmHWM") <= before_kib + 256, "%llu KiB, before %llu\n",
              (unsigned long long)raw_proc_kib(d.pid, "VmHWM"), (unsigned long long)before_kib);
    check_alive();
    CHECK(raw_n_fds(d.pid) <= n_fds + 1); /* the last one's end may not have been seen yet */
}

static void a_message_may_come_in_pieces_and_end_in_the_middle(void **state)
{
    struct raw           c;
    struct cts_ctl_reply reply;

    (void)state;
    raw_open(&c, d.socket);
    (void)raw_begin(&c, "health", 0);
    CHECK(cts_frame_end(&c.w, c.begin) == 0);
    for (size_t i = 0; i < c.tx.len; i++) raw_send(&c, c.tx.ptr + i, 1);
    CHECK(raw_recv(&c, &reply) == 1 && reply.kind == CTS_CTL_RESULT);
    raw_send(&c, c.tx.ptr, c.tx.len / 2);
    raw_close(&c);
    check_alive();
}

static void hello_comes_first_once_and_in_time(void **state)
{
    struct raw           c;
    struct cts_ctl_reply reply;
    struct cts_mpw      *w;
    struct cts_span      s;
    struct cts_mp        v;

    (void)state;
    raw_connect(&c, d.socket);
    (void)raw_begin(&c, "status", 0);
    raw_end(&c);
    CHECK(raw_recv(&c, &reply) == 1);
    raw_check_error(&reply, "protocol", NULL);
    CHECK(raw_recv(&c, &reply) == 0);
    raw_close(&c);

    raw_connect(&c, d.socket);
    w = raw_begin(&c, "hello", 3);
    cts_mpw_str(w, "major"), cts_mpw_u64(w, 2);
    cts_mpw_str(w, "minor"), cts_mpw_u64(w, 5);
    cts_mpw_str(w, "client"), cts_mpw_str(w, "raw");
    raw_end(&c);
    CHECK(raw_recv(&c, &reply) == 1);
    raw_check_error(&reply, "version", "major");
    CHECK(cts_mp_find(reply.body, "message", &v) && cts_mp_str(&v, &s) == 0);
    CHECK(memmem(s.ptr, s.len, "1.0", 3) != NULL && memmem(s.ptr, s.len, "2.5", 3) != NULL); /* both numbers */
    CHECK(raw_recv(&c, &reply) == 0);
    raw_close(&c);

    raw_connect(&c, d.socket); /* says nothing: closed after limits.setup_s */
    CHECK(raw_recv(&c, &reply) == 0);
    raw_close(&c);
}

static void methods_and_params_that_are_not_there_are_refused_by_name(void **state)
{
    struct raw           c;
    struct cts_ctl_reply reply;
    struct cts_mpw      *w;

    (void)state;
    raw_open(&c, d.socket);
    (void)raw_begin(&c, "lss", 0);
    raw_end(&c);
    CHECK(raw_recv(&c, &reply) == 1 && reply.id == c.id);
    raw_check_error(&reply, "not-found", NULL);
    w = raw_begin(&c, "show", 2);
    cts_mpw_str(w, "name"), cts_mpw_str(w, "x");
    cts_mpw_str(w, "nome"), cts_mpw_str(w, "x");
    raw_end(&c);
    CHECK(raw_recv(&c, &reply) == 1);
    raw_check_error(&reply, "argument", "nome");
    w = raw_begin(&c, "generate", 2);
    cts_mpw_str(w, "prompt"), cts_mpw_str(w, "x");
    cts_mpw_str(w, "top_p"), cts_mpw_real(w, 1.5);
    raw_end(&c);
    CHECK(raw_recv(&c, &reply) == 1);
    raw_check_error(&reply, "argument", "top_p");
    w = raw_begin(&c, "generate", 2);
    cts_mpw_str(w, "prompt"), cts_mpw_str(w, "x");
    cts_mpw_str(w, "adapter"), cts_mpw_str(w, "nobody");
    raw_end(&c);
    CHECK(raw_recv(&c, &reply) == 1);
    raw_check_error(&reply, "not-found", "adapter");
    (void)raw_begin(&c, "generate", 0);
    raw_end(&c);
    CHECK(raw_recv(&c, &reply) == 1);
    raw_check_error(&reply, "argument", "prompt");
    raw_close(&c);
}

static void descriptors_that_a_client_sends_are_dropped(void **state)
{
    struct raw           c;
    struct cts_ctl_reply reply;
    int                  fds[CTS_FDS_MAX];
    uint32_t             n_fds;

    (void)state;
    raw_open(&c, d.socket);
    n_fds = raw_n_fds(d.pid);
    for (int i = 0; i < CTS_FDS_MAX; i++) fds[i] = STDIN_FILENO;
    for (int i = 0; i < 20; i++) {
        (void)raw_begin(&c, "health", 0);
        CHECK(cts_frame_end(&c.w, c.begin) == 0);
        CHECK(cts_fds_send(c.fd, c.tx.ptr, c.tx.len, fds, CTS_FDS_MAX) == (int64_t)c.tx.len);
        CHECK(raw_recv(&c, &reply) == 1 && reply.kind == CTS_CTL_RESULT);
    }
    CHECK(raw_n_fds(d.pid) == n_fds);
    raw_close(&c);
}

static void one_connection_too_many_is_turned_away_with_words(void **state)
{
    struct raw           c[8], extra;
    struct cts_ctl_reply reply;

    (void)state;
    for (int i = 0; i < 8; i++) raw_open(&c[i], d.socket);
    raw_connect(&extra, d.socket);
    CHECK(raw_recv(&extra, &reply) == 1);
    raw_check_error(&reply, "busy", NULL);
    CHECK(raw_recv(&extra, &reply) == 0);
    raw_close(&extra);
    for (int i = 1; i < 8; i++) raw_close(&c[i]);
    while (raw_status(&c[0], "clients", "connections") > 1) continue; /* room for the next test */
    raw_close(&c[0]);
}

static void a_client_that_only_asks_is_not_read_any_more(void **state)
{
    struct raw           c;
    struct cts_ctl_reply reply;
    uint32_t             n_sent = 0, n_got = 0;
    uint64_t             peak_kib = raw_proc_kib(d.pid, "VmHWM");

    (void)state;
    raw_open(&c, d.socket);
    (void)raw_begin(&c, "status", 0);
    CHECK(cts_frame_end(&c.w, c.begin) == 0);
    while (n_sent < 100000) {
        struct pollfd p = { .fd = c.fd, .events = POLLOUT };

        if (send(c.fd, c.tx.ptr, c.tx.len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)c.tx.len) n_sent++;
        else if (poll(&p, 1, 300) == 0) break; /* the daemon takes no more */
    }
    CHECK(n_sent < 100000);
    CHECK(raw_proc_kib(d.pid, "VmHWM") < peak_kib + 16384);
    check_alive();
    for (; n_got < n_sent; n_got++)
        CHECK(raw_recv(&c, &reply) == 1 && reply.kind == CTS_CTL_RESULT); /* but it forgets nothing */
    raw_close(&c);
}

/* ---- generate ---- */

static void ask(struct raw *c, const char *text, uint32_t max_tokens, uint64_t seed)
{
    struct cts_mpw *w = raw_begin(c, "generate", 4);

    cts_mpw_str(w, "prompt"), cts_mpw_str(w, text);
    cts_mpw_str(w, "max_tokens"), cts_mpw_u64(w, max_tokens);
    cts_mpw_str(w, "temperature"), cts_mpw_int(w, 1);
    cts_mpw_str(w, "seed"), cts_mpw_u64(w, seed);
    raw_end(c);
}

/* What one generate has said so far. */
struct heard {
    uint64_t        id;
    uint32_t        n_tokens, is_accepted, is_over;
    struct cts_span finish;
    char            finish_text[32];
};

static void hear(struct raw *c, struct heard *h, uint32_t n)
{
    struct cts_ctl_reply reply;
    struct cts_mp        v;
    struct heard        *of = NULL;
    uint32_t             n_ids = 0;

    CHECK(raw_recv(c, &reply) == 1);
    for (uint32_t i = 0; i < n; i++)
        if (h[i].id == reply.id) of = &h[i];
    CHECK(of != NULL && !of->is_over);
    if (cts_mp_find(reply.body, "accepted", &v)) {
        CHECK(!of->is_accepted);
        of->is_accepted = 1;
    } else if (reply.kind == CTS_CTL_EVENT) {
        CHECK(of->is_accepted && cts_mp_find(reply.body, "tokens", &v) && cts_mp_array(&v, &n_ids) == 0);
        of->n_tokens += n_ids;
    } else {
        of->is_over = 1;
        CHECK(reply.kind == CTS_CTL_RESULT);
        CHECK(cts_mp_find(reply.body, "finish", &v) && cts_mp_str(&v, &of->finish) == 0);
        snprintf(of->finish_text, sizeof(of->finish_text), "%.*s", (int)of->finish.len,
                 (const char *)of->finish.ptr);
        CHECK(raw_u64(reply.body, "n_tokens") == of->n_tokens);
    }
}

static void two_generates_stream_side_by_side_and_one_is_cancelled(void **state)
{
    struct raw           c, killer;
    struct heard         h[2] = { { 0 }, { 0 } };
    struct cts_ctl_reply reply;
    struct cts_mpw      *w;

    (void)state;
    raw_open(&c, d.socket);
    ask(&c, "a large", 600, 1);
    h[0].id = c.id;
    ask(&c, "a large", 30, 2);
    h[1].id = c.id;
    while (!h[1].is_over) hear(&c, h, 2);
    CHECK(strcmp(h[1].finish_text, "length") == 0 && h[1].n_tokens == 30);
    CHECK(!h[0].is_over && h[0].n_tokens > 0);

    raw_open(&killer, d.socket); /* another connection's id is another's */
    w = raw_begin(&killer, "cancel", 1);
    cts_mpw_str(w, "id"), cts_mpw_u64(w, h[0].id);
    raw_end(&killer);
    CHECK(raw_recv(&killer, &reply) == 1);
    raw_check_error(&reply, "not-found", NULL);
    raw_close(&killer);

    w = raw_begin(&c, "cancel", 1);
    cts_mpw_str(w, "id"), cts_mpw_u64(w, h[0].id);
    raw_end(&c);
    h[1] = (struct heard){ .id = c.id, .is_accepted = 1 };
    for (;;) { /* the cancel's own answer is an empty result among the events */
        CHECK(raw_recv(&c, &reply) == 1);
        if (reply.id == c.id) break;
        CHECK(reply.id == h[0].id);
        if (reply.kind == CTS_CTL_EVENT) h[0].n_tokens++;
        else break;
    }
    if (reply.id == c.id)
        while (!h[0].is_over) hear(&c, h, 1);
    CHECK(h[0].n_tokens < 600);
    raw_close(&c);
}

static void an_id_that_is_live_is_refused(void **state)
{
    struct raw           c;
    struct cts_ctl_reply reply;

    (void)state;
    raw_open(&c, d.socket);
    ask(&c, "a large", 600, 1);
    c.id--;
    ask(&c, "a large", 30, 2);
    do CHECK(raw_recv(&c, &reply) == 1);
    while (reply.kind != CTS_CTL_ERROR);
    raw_check_error(&reply, "argument", NULL);
    raw_close(&c);
}

static void a_connection_that_ends_takes_its_requests_along(void **state)
{
    struct raw c, observer;

    (void)state;
    raw_open(&observer, d.socket);
    raw_open(&c, d.socket);
    for (int i = 0; i < 20; i++) ask(&c, "a large", 900, 1);
    while (raw_status(&observer, "requests", "live") == 0) continue;
    raw_close(&c);
    while (raw_status(&observer, "requests", "live") > 0)
        continue; /* long before 900 tokens: they were cancelled */
    CHECK(raw_status(&observer, "engine", "n_cancelled") >= 20);
    raw_close(&observer);
}

static void one_user_a_socket(void **state)
{
    struct cts_ctl_reply reply;
    struct raw           c;
    uid_t                nobody = 65534;
    char                 out[64];
    int                  rc;

    (void)state;
    if (geteuid() != 0) {
        print_message("SKIP: only root can become another user\n");
        return;
    }
    /* The socket's mode keeps others out; let them in to see that the daemon does, too. */
    rc = run_command(NULL, out, sizeof(out), "chmod 755 %s; chmod 666 %s", d.dir, d.socket);
    CHECK(rc == 0);
    CHECK(seteuid(nobody) == 0);
    raw_connect(&c, d.socket);
    rc = raw_recv(&c, &reply);
    CHECK(seteuid(0) == 0);
    CHECK(rc == 1);
    raw_check_error(&reply, "denied", NULL);
    CHECK(raw_recv(&c, &reply) == 0);
    raw_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_that_lie_about_sizes_leave_peak_memory_where_it_was),
        cmocka_unit_test(a_message_may_come_in_pieces_and_end_in_the_middle),
        cmocka_unit_test(hello_comes_first_once_and_in_time),
        cmocka_unit_test(methods_and_params_that_are_not_there_are_refused_by_name),
        cmocka_unit_test(descriptors_that_a_client_sends_are_dropped),
        cmocka_unit_test(one_connection_too_many_is_turned_away_with_words),
        cmocka_unit_test(a_client_that_only_asks_is_not_read_any_more),
        cmocka_unit_test(two_generates_stream_side_by_side_and_one_is_cancelled),
        cmocka_unit_test(an_id_that_is_live_is_refused),
        cmocka_unit_test(a_connection_that_ends_takes_its_requests_along),
        cmocka_unit_test(one_user_a_socket),
    };

    return cmocka_run_group_tests_name("ctsd control socket", tests, start, stop);
}
