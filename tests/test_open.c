#include "tests/client_peer.h"

#include "common/err.h"
#include "tests/check.h"
#include "tests/fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int n_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int  n = 0;

    CHECK(d != NULL);
    while (readdir(d) != NULL) n++;
    closedir(d);
    return n;
}

static int open_at(struct peer *p, cts **c, char message[512])
{
    struct cts_options o = CTS_OPTIONS_INIT;

    o.socket = p->path;
    return cts_open(c, &o, message, 512);
}

static void open_gives_a_handle_and_close_gives_everything_back(void **state)
{
    struct peer *p = peer_start(LIE_NONE);
    int          was_open[64];
    cts         *c;

    (void)state;
    for (int fd = 0; fd < 64; fd++) was_open[fd] = fcntl(fd, F_GETFD) >= 0;
    c = peer_open(p, 0);
    CHECK(cts_fd(c) >= 0);
    for (int fd = 0; fd < 64; fd++) {
        int flags = fcntl(fd, F_GETFD);

        CHECK(was_open[fd] || flags < 0 || (flags & FD_CLOEXEC));
    }
    cts_close(c);
    cts_close(NULL);
    peer_stop(p);
}

/* What each lie ends in. */
static const int CODES[LIE_COUNT] = {
    [LIE_MAJOR] = CTS_ERROR_VERSION,
    [LIE_HELLO_GARBAGE] = CTS_ERROR_PROTOCOL,
    [LIE_HELLO_HUGE] = CTS_ERROR_PROTOCOL,
    [LIE_HELLO_HANG_UP] = -ECONNRESET,
    [LIE_OLD_ANSWER] = 0,
    [LIE_REFUSE] = CTS_ERROR_BUSY,
    [LIE_UNKNOWN_CODE] = -EREMOTEIO,
    [LIE_NO_GEOMETRY] = CTS_ERROR_PROTOCOL,
    [LIE_ODD_GEOMETRY] = CTS_ERROR_PROTOCOL,
    [LIE_LARGER] = CTS_ERROR_PROTOCOL,
    [LIE_UNSEALED] = CTS_ERROR_PROTOCOL,
    [LIE_WRITABLE_OUT] = CTS_ERROR_PROTOCOL,
    [LIE_FEW_FDS] = CTS_ERROR_PROTOCOL,
    [LIE_MANY_FDS] = CTS_ERROR_PROTOCOL,
    [LIE_MAGIC] = CTS_ERROR_PROTOCOL,
    [LIE_SHM_MAJOR] = CTS_ERROR_VERSION,
    [LIE_RING_ID] = CTS_ERROR_PROTOCOL,
    [LIE_HEADER_RECORDS] = CTS_ERROR_PROTOCOL,
    [LIE_LIVE_HUGE] = CTS_ERROR_PROTOCOL,
};

static void open_refuses_each_lie_by_its_code_and_leaks_no_descriptor(void **state)
{
    int n_before = n_fds();

    (void)state;
    for (int lie = LIE_NONE + 1; lie < LIE_COUNT; lie++) {
        struct peer *p = peer_start((enum peer_lie)lie);
        char         message[512] = "untouched";
        cts         *c = (cts *)p;
        int          rc = open_at(p, &c, message);

        CHECK_MSG(rc == CODES[lie], "lie %d: %d, not %d: %s\n", lie, rc, CODES[lie], message);
        CHECK((c == NULL) == (rc != 0));
        CHECK((message[0] != '\0') == (rc != 0));
        cts_close(c);
        peer_stop(p);
        CHECK_MSG(n_fds() == n_before, "lie %d: %d descriptors, before %d\n", lie, n_fds(), n_before);
    }
}

static void open_survives_failure_of_every_allocation(void **state)
{
    int          n_before = n_fds(), rc, i;
    struct peer *p = peer_start(LIE_NONE);
    int64_t      n_live = fault_n_live();
    char         message[512];
    cts         *c;

    (void)state;
    for (i = 0; i < 64; i++) {
        fault_after(i);
        rc = open_at(p, &c, message);
        if (rc == 0) break; /* no allocation was left to fail */
        fault_after(-1);
        CHECK_MSG(rc == -ENOMEM, "%d: %s\n", rc, message);
        CHECK(c == NULL);
    }
    fault_after(-1);
    CHECK(i > 3 && i < 64);
    cts_close(c);
    CHECK(fault_n_live() == n_live);
    peer_stop(p);
    CHECK_MSG(n_fds() == n_before, "%d descriptors, before %d\n", n_fds(), n_before);
}

static void open_names_both_versions(void **state)
{
    struct peer *p = peer_start(LIE_MAJOR);
    char         message[512];
    cts         *c;

    (void)state;
    CHECK(open_at(p, &c, message) == CTS_ERROR_VERSION);
    CHECK_MSG(strstr(message, "version 2") != NULL && strstr(message, "client 1") != NULL, "%s\n", message);
    peer_stop(p);
}

static void open_without_a_daemon_names_the_socket(void **state)
{
    struct cts_options o = CTS_OPTIONS_INIT;
    char               message[512], longer[200];
    cts               *c;

    (void)state;
    o.socket = "/nonexistent/socket";
    CHECK(cts_open(&c, &o, message, sizeof(message)) == -ENOENT);
    CHECK(strstr(message, "/nonexistent/socket") != NULL);
    CHECK(cts_open(&c, &o, NULL, 0) == -ENOENT);
    memset(longer, 'x', sizeof(longer));
    longer[199] = '\0';
    o.socket = longer;
    CHECK(cts_open(&c, &o, message, sizeof(message)) == -ENAMETOOLONG);
}

static void open_takes_the_socket_from_the_environment(void **state)
{
    struct peer *p = peer_start(LIE_NONE);
    cts         *c;

    (void)state;
    setenv("CTS_SOCKET", p->path, 1);
    CHECK(cts_open(&c, NULL, NULL, 0) == 0);
    cts_close(c);
    unsetenv("CTS_SOCKET");
    peer_stop(p);
}

static void close_in_a_forked_child_leaves_the_parent_its_handle(void **state)
{
    struct peer          *p = peer_start(LIE_NONE);
    cts                  *c = peer_open(p, 0);
    struct cts_request    r = CTS_REQUEST_INIT;
    struct cts_sub_record rec;
    struct cts_event      ev;
    uint64_t              id;
    int                   status;
    pid_t                 pid = fork();

    (void)state;
    if (pid == 0) {
        cts_close(c);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
    r.prompt = "x";
    CHECK(cts_submit(c, &r, &id) == 0);
    CHECK(peer_take(p, &rec) == 1);
    peer_done(p, id, 0);
    CHECK(cts_next(c, &ev, UINT64_MAX) == 1);
    CHECK(ev.type == CTS_EVENT_DONE);
    cts_close(c);
    peer_stop(p);
}

static void resolve_tells_who_an_adapter_is(void **state)
{
    struct peer            *p = peer_start(LIE_NONE);
    cts                    *c = peer_open(p, 0);
    struct cts_adapter_info info;

    (void)state;
    CHECK(cts_resolve(c, "some", &info) == 0);
    CHECK(info.number == 3 && info.generation == 1);
    CHECK(strcmp(info.digest, "ab") == 0 && strcmp(info.kind, "exact") == 0);
    p->resolve_code = CTS_ENOTFOUND;
    CHECK(cts_resolve(c, "some", &info) == CTS_ERROR_NOT_FOUND);
    CHECK(strcmp(cts_last_message(c), "the peer says no") == 0);
    CHECK(cts_resolve(c, NULL, &info) == CTS_ERROR_NOT_FOUND); /* the handle lives on */
    peer_die(p);
    CHECK(cts_resolve(c, "some", &info) == -ECONNRESET);
    CHECK(cts_resolve(c, "some", &info) == -ECONNRESET);
    cts_close(c);
    peer_stop(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_gives_a_handle_and_close_gives_everything_back),
        cmocka_unit_test(open_refuses_each_lie_by_its_code_and_leaks_no_descriptor),
        cmocka_unit_test(open_survives_failure_of_every_allocation),
        cmocka_unit_test(open_names_both_versions),
        cmocka_unit_test(open_without_a_daemon_names_the_socket),
        cmocka_unit_test(open_takes_the_socket_from_the_environment),
        cmocka_unit_test(close_in_a_forked_child_leaves_the_parent_its_handle),
        cmocka_unit_test(resolve_tells_who_an_adapter_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
