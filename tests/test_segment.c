#include "shm/segment.h"

#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BYTES (64u << 10)

static void *try_map(int fd, int prot)
{
    return mmap(NULL, BYTES, prot, MAP_SHARED, fd, 0);
}

/* The same memory through a descriptor of its own, as a peer may open it. */
static int reopen(int fd)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

static void out_can_be_written_by_the_daemons_first_mapping_only(void **state)
{
    struct cts_segment s;
    int                fds[2];
    char              *p;

    (void)state;
    CHECK(cts_segment_create(&s, CTS_SEGMENT_OUT, BYTES, NULL) == 0);
    fds[0] = s.fd;
    fds[1] = reopen(s.fd); /* -1 where /proc is not there: then each try fails all the more */
    for (int i = 0; i < 2; i++) {
        CHECK(try_map(fds[i], PROT_READ | PROT_WRITE) == MAP_FAILED);
        CHECK(i == 1 || errno == EPERM);
        CHECK(write(fds[i], "x", 1) == -1);
        CHECK(i == 1 || errno == EPERM);
        CHECK(ftruncate(fds[i], BYTES / 2) == -1);
        CHECK(i == 1 || errno == EPERM);
        CHECK(ftruncate(fds[i], 2 * BYTES) == -1);
        CHECK(fallocate(fds[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == -1);
        CHECK(fcntl(fds[i], F_ADD_SEALS, F_SEAL_WRITE) == -1);
    }
    p = try_map(s.fd, PROT_READ);
    CHECK(p != MAP_FAILED);
    CHECK(mprotect(p, BYTES, PROT_READ | PROT_WRITE) == -1);
    ((char *)s.map)[100] = 'y'; /* the daemon still writes, and the peer sees it */
    CHECK(p[100] == 'y');
    munmap(p, BYTES);
    if (fds[1] >= 0) close(fds[1]);
    cts_segment_close(&s);
}

static void sub_keeps_its_size_and_its_seals_and_can_be_written(void **state)
{
    struct cts_segment s;
    char              *p;

    (void)state;
    CHECK(cts_segment_create(&s, CTS_SEGMENT_SUB, BYTES, NULL) == 0);
    CHECK(ftruncate(s.fd, BYTES / 2) == -1 && errno == EPERM);
    CHECK(ftruncate(s.fd, 2 * BYTES) == -1 && errno == EPERM);
    CHECK(fcntl(s.fd, F_ADD_SEALS, F_SEAL_WRITE) == -1 && errno == EPERM);
    p = try_map(s.fd, PROT_READ | PROT_WRITE);
    CHECK(p != MAP_FAILED);
    p[BYTES - 1] = 'z';
    CHECK(cts_segment_protect(&s) == 0);
    CHECK(((char *)s.map)[BYTES - 1] == 'z');
    /* A punched hole reads as zeroes, without SIGBUS. */
    CHECK(fallocate(s.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES) == 0);
    CHECK(((char *)s.map)[BYTES - 1] == 0);
    munmap(p, BYTES);
    cts_segment_close(&s);
}

static void map_refuses_another_size_and_missing_seals(void **state)
{
    struct cts_segment s, c;
    struct cts_err     err = { 0 };
    int                fd;

    (void)state;
    CHECK(cts_segment_create(&s, CTS_SEGMENT_SUB, BYTES, NULL) == 0);
    CHECK(cts_segment_map(&c, dup(s.fd), CTS_SEGMENT_SUB, 2 * BYTES, &err) == CTS_EPROTO);
    CHECK(cts_segment_map(&c, dup(s.fd), CTS_SEGMENT_OUT, BYTES, &err) == CTS_EPROTO); /* no FUTURE_WRITE */
    CHECK(cts_segment_map(&c, dup(s.fd), CTS_SEGMENT_SUB, BYTES, &err) == 0);
    cts_segment_close(&c);
    fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, BYTES) == 0);
    CHECK(cts_segment_map(&c, fd, CTS_SEGMENT_SUB, BYTES, &err) == CTS_EPROTO);
    CHECK(c.fd == -1 && fcntl(fd, F_GETFD) == -1); /* the descriptor was ours to close */
    cts_segment_close(&s);
    cts_segment_close(&s); /* twice is fine */
}

static void four_descriptors_travel_beside_the_first_byte(void **state)
{
    int      sv[2], fds[CTS_FDS_MAX], got[CTS_FDS_MAX];
    uint32_t n;
    char     buf[8];

    (void)state;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
    for (int i = 0; i < CTS_FDS_MAX; i++) {
        fds[i] = memfd_create("test", MFD_CLOEXEC);
        CHECK(ftruncate(fds[i], 100 + i) == 0);
    }
    CHECK(cts_fds_send(sv[0], "abc", 3, fds, CTS_FDS_MAX) == 3);
    CHECK(cts_fds_recv(sv[1], buf, sizeof(buf), got, &n) == 3);
    CHECK(n == CTS_FDS_MAX);
    for (int i = 0; i < CTS_FDS_MAX; i++) {
        CHECK(lseek(got[i], 0, SEEK_END) == 100 + i);
        CHECK(fcntl(got[i], F_GETFD) == FD_CLOEXEC);
        close(got[i]);
        close(fds[i]);
    }
    CHECK(cts_fds_send(sv[0], "abc", 3, NULL, 0) == 3);
    CHECK(cts_fds_recv(sv[1], buf, sizeof(buf), got, &n) == 3 && n == 0);
    close(sv[0]);
    CHECK(cts_fds_recv(sv[1], buf, sizeof(buf), got, &n) == 0);
    CHECK(cts_fds_send(sv[1], "abc", 3, NULL, 0) == -EPIPE); /* and no SIGPIPE */
    close(sv[1]);
}

static void send_n(int sock, int fd, int n)
{
    union {
        struct cmsghdr head;
        char           bytes[CMSG_SPACE(8 * sizeof(int))];
    } control = { .bytes = { 0 } };
    struct iovec    iov = { (char[]){ 'x' }, 1 };
    struct msghdr   msg = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = CMSG_SPACE((size_t)n * sizeof(int)) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    *c = (struct cmsghdr){ .cmsg_len = CMSG_LEN((size_t)n * sizeof(int)),
                           .cmsg_level = SOL_SOCKET,
                           .cmsg_type = SCM_RIGHTS };
    for (int i = 0; i < n; i++) memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &fd, sizeof(int));
    CHECK(sendmsg(sock, &msg, 0) == 1);
}

static void too_many_descriptors_are_refused_and_none_is_kept(void **state)
{
    int      sv[2], got[CTS_FDS_MAX], low, high;
    uint32_t n;
    char     buf[8];

    (void)state;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
    low = dup(sv[0]);
    close(low);
    for (int k = 5; k <= 8; k++) {
        send_n(sv[0], sv[1], k);
        CHECK(cts_fds_recv(sv[1], buf, sizeof(buf), got, &n) == -EMSGSIZE);
        CHECK(n == 0);
    }
    high = dup(sv[0]);
    CHECK(high == low); /* nothing leaked */
    close(high);
    close(sv[0]);
    close(sv[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(out_can_be_written_by_the_daemons_first_mapping_only),
        cmocka_unit_test(sub_keeps_its_size_and_its_seals_and_can_be_written),
        cmocka_unit_test(map_refuses_another_size_and_missing_seals),
        cmocka_unit_test(four_descriptors_travel_beside_the_first_byte),
        cmocka_unit_test(too_many_descriptors_are_refused_and_none_is_kept),
    };

    return cmocka_run_group_tests_name("segment", tests, NULL, NULL);
}
