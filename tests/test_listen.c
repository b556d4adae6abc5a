#include "daemon/serve/listen.h"

#include "tests/check.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256], path[300], lock[310];

static struct sockaddr_un address(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    CHECK(strlen(path) < sizeof(a.sun_path));
    memcpy(a.sun_path, path, strlen(path));
    return a;
}

static int make_dir(void **state)
{
    (void)state;
    temp_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    snprintf(lock, sizeof(lock), "%s.lock", path);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir); /* each test leaves it empty */
}

static int bound_socket(void)
{
    struct sockaddr_un a = address();
    int                fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    return fd;
}

static int connects(void)
{
    struct sockaddr_un a = address();
    int                fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

    rc = connect(fd, (struct sockaddr *)&a, sizeof(a));
    close(fd);
    return rc == 0;
}

static void the_socket_is_the_owners_alone_and_leaves_nothing(void **state)
{
    struct cts_listen l;
    struct stat       st;
    mode_t            mask = umask(0);

    (void)state;
    CHECK(cts_listen_open(&l, path, NULL) == 0);
    CHECK(umask(mask) == 0); /* put back as it was */
    CHECK(stat(path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600);
    CHECK(stat(lock, &st) == 0 && (st.st_mode & 0777) == 0600);
    CHECK(connects());
    cts_listen_close(&l);
    CHECK(access(path, F_OK) < 0 && access(lock, F_OK) < 0);
    cts_listen_close(&l); /* twice is fine */
}

static void a_socket_that_a_dead_daemon_left_is_replaced(void **state)
{
    struct cts_listen l;

    (void)state;
    close(bound_socket());
    CHECK(!connects());
    CHECK(cts_listen_open(&l, path, NULL) == 0);
    CHECK(connects());
    cts_listen_close(&l);
}

static void a_live_daemon_is_named_by_its_pid(void **state)
{
    struct cts_listen a, b;
    struct cts_err    err = { .code = 0 };
    char              pid[32];

    (void)state;
    snprintf(pid, sizeof(pid), "pid %ld", (long)getpid());
    CHECK(cts_listen_open(&a, path, NULL) == 0);
    CHECK(cts_listen_open(&b, path, &err) == CTS_EBUSY);
    CHECK_MSG(strstr(err.text, pid) != NULL, "%s\n", err.text);
    CHECK(connects()); /* the first one's is untouched */
    cts_listen_close(&a);
    CHECK(cts_listen_open(&b, path, &err) == 0);
    cts_listen_close(&b);
}

static void a_stranger_that_listens_there_is_not_pushed_aside(void **state)
{
    struct cts_listen l;
    struct cts_err    err = { .code = 0 };
    int               fd = bound_socket();

    (void)state;
    CHECK(listen(fd, 1) == 0);
    CHECK(cts_listen_open(&l, path, &err) == CTS_EBUSY && strstr(err.text, "pid") != NULL);
    CHECK(connects());
    close(fd);
    CHECK(unlink(path) == 0);
    CHECK(access(lock, F_OK) < 0);
}

static void what_is_no_socket_stays(void **state)
{
    struct cts_listen l;
    struct cts_err    err = { .code = 0 };
    char              long_path[200];
    FILE             *f = fopen(path, "w");

    (void)state;
    CHECK(f != NULL && fclose(f) == 0);
    CHECK(cts_listen_open(&l, path, &err) == -EEXIST);
    CHECK(access(path, F_OK) == 0);
    CHECK(unlink(path) == 0);
    memset(long_path, 'x', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = '\0';
    CHECK(cts_listen_open(&l, long_path, &err) == -ENAMETOOLONG);
    CHECK(cts_listen_open(&l, "/nonexistent/dir/s", &err) == -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_socket_is_the_owners_alone_and_leaves_nothing),
        cmocka_unit_test(a_socket_that_a_dead_daemon_left_is_replaced),
        cmocka_unit_test(a_live_daemon_is_named_by_its_pid),
        cmocka_unit_test(a_stranger_that_listens_there_is_not_pushed_aside),
        cmocka_unit_test(what_is_no_socket_stays),
    };

    return cmocka_run_group_tests_name("listen", tests, make_dir, remove_dir);
}
