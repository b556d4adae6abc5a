#include "shm/segment.h"

#include "common/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* since 6.3 */
#endif

static int seals_of(enum cts_segment_kind kind)
{
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

    return kind == CTS_SEGMENT_OUT ? seals | F_SEAL_FUTURE_WRITE : seals;
}

static int new_memfd(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING); /* kernels before 6.3 */
    return fd;
}

static int has_seals(int fd, enum cts_segment_kind kind)
{
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & seals_of(kind)) == seals_of(kind);
}

int cts_segment_create(struct cts_segment *s, enum cts_segment_kind kind, size_t bytes, struct cts_err *err)
{
    const char *name = kind == CTS_SEGMENT_OUT ? "cts-out" : "cts-sub";
    int         rc;

    *s = CTS_SEGMENT_NONE;
    s->fd = new_memfd(name);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)bytes) < 0) {
        rc = cts_err_set(err, -errno, "shared memory %s of %zu bytes", name, bytes);
        goto fail;
    }
    /* Map before FUTURE_WRITE: that seal spares the mappings which are there. */
    s->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        rc = cts_err_set(err, -errno, "map %s of %zu bytes", name, bytes);
        goto fail;
    }
    s->bytes = bytes;
    if (fcntl(s->fd, F_ADD_SEALS, seals_of(kind)) < 0) {
        rc = cts_err_set(err, -errno, "seal %s", name);
        goto fail;
    }
    CTS_ASSERT(has_seals(s->fd, kind)); /* R9: what keeps SIGBUS away */
    return 0;

fail:
    cts_segment_close(s);
    return rc;
}

int cts_segment_protect(struct cts_segment *s)
{
    return mprotect(s->map, s->bytes, PROT_READ) < 0 ? -errno : 0;
}

int cts_segment_map(struct cts_segment *s, int fd, enum cts_segment_kind kind, size_t bytes,
                    struct cts_err *err)
{
    struct stat st;
    int         rc, prot = kind == CTS_SEGMENT_SUB ? PROT_READ | PROT_WRITE : PROT_READ;

    *s = (struct cts_segment){ .fd = fd };
    if (fstat(fd, &st) < 0 || st.st_size < 0 || (uint64_t)st.st_size != bytes || !has_seals(fd, kind)) {
        rc = cts_err_set(err, CTS_EPROTO,
                         "the daemon's shared memory has another size or other seals than it should");
        goto fail;
    }
    s->map = mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        rc = cts_err_set(err, -errno, "map %zu bytes of shared memory", bytes);
        goto fail;
    }
    s->bytes = bytes;
    return 0;

fail:
    cts_segment_close(s);
    return rc;
}

void cts_segment_close_fd(struct cts_segment *s)
{
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

void cts_segment_close(struct cts_segment *s)
{
    if (s->map != NULL) munmap(s->map, s->bytes);
    cts_segment_close_fd(s);
    *s = CTS_SEGMENT_NONE;
}

/* Room for one more descriptor than we take, so that a fifth is seen, not lost. */
union control {
    struct cmsghdr head;
    char           bytes[CMSG_SPACE((CTS_FDS_MAX + 1) * sizeof(int))];
};

int64_t cts_fds_send(int sock, const void *p, size_t n, const int *fds, uint32_t n_fds)
{
    union control   control;
    struct iovec    iov = { (void *)(uintptr_t)p, n };
    struct msghdr   msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    struct cmsghdr *c;
    ssize_t         sent;

    CTS_ASSERT(n_fds <= CTS_FDS_MAX);
    if (n_fds > 0) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    sent = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? -errno : sent;
}

/* Copy the descriptors of one control message; those past the limit are closed. */
static void take_fds(const struct cmsghdr *c, int *fds, uint32_t *n_fds, int *is_over)
{
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    int    fd;

    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) return;
    for (size_t i = 0; i < n; i++) {
        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        if (*n_fds < CTS_FDS_MAX) {
            fds[(*n_fds)++] = fd;
        } else {
            close(fd);
            *is_over = 1;
        }
    }
}

int64_t cts_fds_recv(int sock, void *p, size_t n, int *fds, uint32_t *n_fds)
{
    union control control;
    struct iovec  iov = { p, n };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    ssize_t got;
    int     is_over = 0;

    *n_fds = 0;
    got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    if (got < 0) return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c))
        take_fds(c, fds, n_fds, &is_over);
    if (!is_over && !(msg.msg_flags & MSG_CTRUNC)) return got;
    for (uint32_t i = 0; i < *n_fds; i++) close(fds[i]);
    *n_fds = 0;
    return -EMSGSIZE;
}
