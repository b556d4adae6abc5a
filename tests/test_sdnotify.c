#include "daemon/serve/sdnotify.h"

#include "tests/check.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A datagram socket at a path, or at an abstract name when that begins with '@'. */
static int listen_at(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int                fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, path, strlen(path));
    if (path[0] == '@') a.sun_path[0] = '\0';
    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) ==
          0);
    return fd;
}

static void check_arrives(const char *path)
{
    int  fd = listen_at(path);
    char buf[64] = "";

    CHECK(setenv("NOTIFY_SOCKET", path, 1) == 0);
    CHECK(cts_sdnotify("READY=1\nSTATUS=x") == 1);
    CHECK(recv(fd, buf, sizeof(buf), MSG_DONTWAIT) == 16);
    CHECK(memcmp(buf, "READY=1\nSTATUS=x", 16) == 0);
    close(fd);
}

static void the_state_arrives_at_a_path_and_at_an_abstract_name(void **state)
{
    char dir[256], path[300], name[64];

    (void)state;
    snprintf(path, sizeof(path), "%s/n", temp_dir(dir, sizeof(dir)));
    check_arrives(path);
    CHECK(unlink(path) == 0 && rmdir(dir) == 0);
    snprintf(name, sizeof(name), "@cts-test-%ld", (long)getpid());
    check_arrives(name);
}

static void nobody_to_tell_is_no_failure_and_a_bad_address_is(void **state)
{
    char text[300];

    (void)state;
    CHECK(unsetenv("NOTIFY_SOCKET") == 0);
    CHECK(cts_sdnotify("READY=1") == 0);
    CHECK(setenv("NOTIFY_SOCKET", "", 1) == 0);
    CHECK(cts_sdnotify("READY=1") == 0);
    CHECK(setenv("NOTIFY_SOCKET", "relative", 1) == 0);
    CHECK(cts_sdnotify("READY=1") == -EINVAL);
    memset(text, '/', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    CHECK(setenv("NOTIFY_SOCKET", text, 1) == 0);
    CHECK(cts_sdnotify("READY=1") == -EINVAL);
    CHECK(setenv("NOTIFY_SOCKET", "/nonexistent/n", 1) == 0);
    CHECK(cts_sdnotify("READY=1") == -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_state_arrives_at_a_path_and_at_an_abstract_name),
        cmocka_unit_test(nobody_to_tell_is_no_failure_and_a_bad_address_is),
    };

    return cmocka_run_group_tests_name("sdnotify", tests, NULL, NULL);
}
