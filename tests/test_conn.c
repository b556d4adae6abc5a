/* The answers lie in the socket before the calls, which works since a call's id
 * is known: one more than the last one's. */
#include "client/conn.h"

#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct cts_conn c;
static int             peer;

static int setup(void **state)
{
    int pair[2];

    (void)state;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    c = (struct cts_conn){ .fd = pair[0], .rx = CTS_BUF(CTS_CTL_MESSAGE_MAX), .tx = CTS_BUF(CTS_CTL_MESSAGE_MAX) };
    peer = pair[1];
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cts_conn_close(&c);
    if (peer >= 0) close(peer);
    return 0;
}

/* A frame {"id": id, kind: {"v": v}} to the client; n_bytes of it only, where not 0. */
static void answer(uint64_t id, const char *kind, uint64_t v, size_t n_bytes, int fd)
{
    struct cts_buf b = CTS_BUF(4096);
    struct cts_mpw w = { .out = &b };
    size_t         begin = cts_frame_begin(&w);

    cts_mpw_map(&w, 2);
    cts_mpw_str(&w, "id");
    cts_mpw_u64(&w, id);
    cts_mpw_str(&w, kind);
    cts_mpw_map(&w, 1);
    cts_mpw_str(&w, "v");
    cts_mpw_u64(&w, v);
    CHECK(cts_frame_end(&w, begin) == 0);
    if (n_bytes == 0) n_bytes = b.len;
    CHECK(cts_fds_send(peer, b.ptr, n_bytes, &fd, fd >= 0) == (int64_t)n_bytes);
    cts_buf_deinit(&b);
}

/* Call; the result's v in *v. */
static int call(uint64_t timeout_ns, uint64_t *v, struct cts_err *err)
{
    struct cts_mp result, at;
    int           rc;

    cts_conn_begin(&c, "method", 0);
    rc = cts_conn_call(&c, timeout_ns, &result, err);
    if (rc != 0) return rc;
    CHECK(cts_mp_find(result, "v", &at) && cts_mp_u64(&at, v) == 0);
    return 0;
}

static void call_sends_a_frame_and_returns_its_result(void **state)
{
    struct cts_ctl_request q;
    uint8_t                frame[256];
    uint64_t               v = 0;
    ssize_t                n;

    (void)state;
    answer(1, "result", 42, 0, -1);
    CHECK(call(UINT64_MAX, &v, NULL) == 0);
    CHECK(v == 42);
    n = recv(peer, frame, sizeof(frame), 0);
    CHECK(n > 4 && cts_frame_bytes(frame, (size_t)n) == n);
    CHECK(cts_ctl_request_decode(frame + 4, (size_t)n - 4, &q) == 0);
    CHECK(q.id == 1 && cts_span_is(q.method, "method"));
}

static void call_passes_over_old_answers_and_events_with_their_descriptors(void **state)
{
    int      fds[2];
    uint64_t v = 0;

    (void)state;
    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    answer(7, "result", 1, 0, fds[1]);
    answer(1, "event", 2, 0, -1);
    answer(1, "result", 3, 0, -1);
    close(fds[1]);
    CHECK(call(UINT64_MAX, &v, NULL) == 0);
    CHECK(v == 3 && c.n_fds == 0);
    CHECK(read(fds[0], &v, 1) == 0); /* the end: nobody holds the other end */
    close(fds[0]);
}

static void call_takes_descriptors_with_its_answer(void **state)
{
    uint64_t v = 0;

    (void)state;
    answer(1, "result", 1, 0, peer);
    CHECK(call(UINT64_MAX, &v, NULL) == 0);
    CHECK(c.n_fds == 1 && fcntl(c.fds[0], F_GETFD) == FD_CLOEXEC);
    answer(2, "result", 1, 0, -1);
    CHECK(call(UINT64_MAX, &v, NULL) == 0);
    CHECK(c.n_fds == 0); /* and what nobody took is closed */
}

static void call_hands_back_a_refusal_and_goes_on(void **state)
{
    struct cts_buf b = CTS_BUF(4096);
    struct cts_err err = { 0 };
    uint64_t       v = 0;

    (void)state;
    CHECK(cts_ctl_error_put(&b, 1, CTS_EBUSY, "come back", "name", 5) == 0);
    CHECK(send(peer, b.ptr, b.len, 0) == (ssize_t)b.len);
    CHECK(call(UINT64_MAX, &v, &err) == CTS_EBUSY);
    CHECK(err.code == CTS_EBUSY && strcmp(err.text, "come back") == 0);
    answer(2, "result", 1, 0, -1);
    CHECK(call(UINT64_MAX, &v, &err) == 0);
    cts_buf_deinit(&b);
}

static void call_hands_back_what_a_closing_daemon_said(void **state)
{
    struct cts_buf b = CTS_BUF(4096);
    struct cts_err err = { 0 };
    uint64_t       v = 0;

    (void)state;
    CHECK(cts_ctl_error_put(&b, 0, CTS_EDENIED, "not you", NULL, 0) == 0);
    CHECK(send(peer, b.ptr, b.len, 0) == (ssize_t)b.len);
    close(peer);
    peer = -1;
    CHECK(call(UINT64_MAX, &v, &err) == CTS_EDENIED);
    CHECK(strcmp(err.text, "not you") == 0);
    cts_buf_deinit(&b);
}

static void call_that_times_out_between_frames_may_be_repeated(void **state)
{
    struct cts_err err = { 0 };
    uint64_t       v = 0;

    (void)state;
    CHECK(call(1000000, &v, &err) == -ETIMEDOUT);
    CHECK(cts_conn_is_alive(&c));
    answer(1, "result", 1, 0, -1); /* late */
    answer(2, "result", 2, 0, -1);
    CHECK(call(UINT64_MAX, &v, &err) == 0);
    CHECK(v == 2);
}

static void call_that_times_out_within_a_frame_ends_the_connection(void **state)
{
    struct cts_err err = { 0 };
    uint64_t       v = 0;

    for (size_t n = 3; n < 8; n += 2) {
        answer(1, "result", 1, n, -1);
        CHECK(call(1000000, &v, &err) == -ETIMEDOUT);
        CHECK(call(1000000, &v, &err) == CTS_ECLOSED);
        CHECK(!cts_conn_is_alive(&c));
        teardown(state);
        setup(state);
    }
}

static void call_ends_the_connection_at_nonsense(void **state)
{
    static const struct {
        const char *bytes;
        size_t      n;
    } NONSENSE[] = {
        { "\0\0\0\0", 4 },             /* no message */
        { "\0\100\0\1", 4 },           /* above the limit */
        { "\0\0\0\5\335\4\0\0\0", 9 }, /* an array of 2^26 entries in five bytes */
        { "\0\0\0\1\300", 5 },         /* nil */
        { "\0\0\0\1\200", 5 },         /* an empty map */
    };
    struct cts_err err = { 0 };
    uint64_t       v = 0;

    for (size_t i = 0; i < sizeof(NONSENSE) / sizeof(NONSENSE[0]); i++) {
        CHECK(send(peer, NONSENSE[i].bytes, NONSENSE[i].n, 0) == (ssize_t)NONSENSE[i].n);
        CHECK(call(UINT64_MAX, &v, &err) == CTS_EPROTO);
        CHECK(call(UINT64_MAX, &v, &err) == CTS_ECLOSED);
        teardown(state);
        setup(state);
    }
}

static void call_tells_that_the_daemon_went_away(void **state)
{
    struct cts_err err = { 0 };
    uint64_t       v = 0;

    (void)state;
    CHECK(cts_conn_is_alive(&c));
    close(peer);
    peer = -1;
    CHECK(!cts_conn_is_alive(&c));
    CHECK(call(UINT64_MAX, &v, &err) == CTS_ECLOSED);
    CHECK(strstr(err.text, "closed the connection") != NULL);
}

static void call_larger_than_a_message_is_refused_before_it_is_sent(void **state)
{
    char          *large = calloc(1, CTS_CTL_MESSAGE_MAX + 1);
    struct cts_mpw *w;
    struct cts_mp   result;
    uint64_t        v = 0;

    (void)state;
    CHECK(large != NULL);
    memset(large, 'x', CTS_CTL_MESSAGE_MAX);
    w = cts_conn_begin(&c, "method", 1);
    cts_mpw_str(w, "name");
    cts_mpw_str(w, large);
    CHECK(cts_conn_call(&c, UINT64_MAX, &result, NULL) == -EMSGSIZE);
    answer(2, "result", 1, 0, -1);
    CHECK(call(UINT64_MAX, &v, NULL) == 0);
    free(large);
}

static void code_of_a_name_is_the_code_that_has_it(void **state)
{
    static const int CODES[] = { CTS_EPROTO, CTS_EBUSY, CTS_ETOOLONG, -ENOENT, -EEXIST, -ENOMEM };

    (void)state;
    for (size_t i = 0; i < sizeof(CODES) / sizeof(CODES[0]); i++) {
        const char *name = cts_err_name(CODES[i]);

        CHECK(cts_conn_code((struct cts_span){ (const uint8_t *)name, strlen(name) }) == CODES[i]);
    }
    CHECK(cts_conn_code((struct cts_span){ (const uint8_t *)"no-such", 7 }) == -EREMOTEIO);
    CHECK(cts_conn_code((struct cts_span){ (const uint8_t *)"unknown", 7 }) == -EREMOTEIO);
    CHECK(cts_conn_code((struct cts_span){ (const uint8_t *)"", 0 }) == -EREMOTEIO);
}

static void path_is_the_callers_else_the_environments_else_the_built_in_one(void **state)
{
    (void)state;
    setenv("CTS_SOCKET", "/from/env", 1);
    CHECK(strcmp(cts_conn_path("/given"), "/given") == 0);
    CHECK(strcmp(cts_conn_path(NULL), "/from/env") == 0);
    CHECK(strcmp(cts_conn_path(""), "/from/env") == 0);
    setenv("CTS_SOCKET", "", 1);
    CHECK(strcmp(cts_conn_path(NULL), CTS_CTL_SOCKET) == 0);
    unsetenv("CTS_SOCKET");
    CHECK(strcmp(cts_conn_path(NULL), CTS_CTL_SOCKET) == 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(call_sends_a_frame_and_returns_its_result),
        TEST(call_passes_over_old_answers_and_events_with_their_descriptors),
        TEST(call_takes_descriptors_with_its_answer),
        TEST(call_hands_back_a_refusal_and_goes_on),
        TEST(call_hands_back_what_a_closing_daemon_said),
        TEST(call_that_times_out_between_frames_may_be_repeated),
        TEST(call_that_times_out_within_a_frame_ends_the_connection),
        TEST(call_ends_the_connection_at_nonsense),
        TEST(call_tells_that_the_daemon_went_away),
        TEST(call_larger_than_a_message_is_refused_before_it_is_sent),
        TEST(code_of_a_name_is_the_code_that_has_it),
        TEST(path_is_the_callers_else_the_environments_else_the_built_in_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
