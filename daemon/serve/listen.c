#include "daemon/serve/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG    64
#define LOCK_TRIES 8

static int lock_name(const char *path, char *out, size_t cap)
{
    return snprintf(out, cap, "%s.lock", path) >= (int)cap ? -ENAMETOOLONG : 0;
}

/* The pid that the holder of the lock wrote into it; 0 when it is not there. */
static long pid_in(int fd)
{
    char    text[32];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return strtol(text, NULL, 10);
}

/* Whether the locked file is still the one at path: its last owner may have
 * unlinked it between our open and our lock. */
static int is_current(int fd, const char *path)
{
    struct stat a, b;

    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int try_lock(int *out, const char *lock, const char *path, struct cts_err *err)
{
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int          fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), rc;

    if (fd < 0)
        return cts_err_set(err, -errno, "open '%s'; its directory must exist and be writable (listen.socket)",
                           lock);
    if (fcntl(fd, F_OFD_SETLK, &fl) < 0) {
        if (errno == EAGAIN || errno == EACCES)
            rc = cts_err_set(err, CTS_EBUSY, "a daemon with pid %ld serves '%s' already", pid_in(fd), path);
        else rc = cts_err_set(err, -errno, "lock '%s'", lock);
        close(fd);
        return rc;
    }
    if (!is_current(fd, lock)) {
        close(fd);
        return -EAGAIN;
    }
    *out = fd;
    return 0;
}

static int take_lock(struct cts_listen *l, struct cts_err *err)
{
    char lock[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
    int  rc = lock_name(l->path, lock, sizeof(lock));

    for (int i = 0; rc == 0 && i < LOCK_TRIES; i++) {
        rc = try_lock(&l->lock_fd, lock, l->path, err);
        if (rc != -EAGAIN) break;
        rc = i + 1 == LOCK_TRIES ? cts_err_set(err, CTS_EBUSY, "daemons come and go at '%s'", l->path) : 0;
    }
    if (rc < 0) return rc;
    if (ftruncate(l->lock_fd, 0) < 0 || dprintf(l->lock_fd, "%ld\n", (long)getpid()) < 0)
        return cts_err_set(err, -errno, "write '%s'", lock);
    return 0;
}

/* Pid of a process that listens at the socket, though it does not know our lock; 0: nobody. */
static long listener_of(const char *path)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    struct ucred       peer = { 0 };
    socklen_t          n = sizeof(peer);
    int                fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(at.sun_path, path, strlen(path) + 1);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
        (void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n);
    if (fd >= 0) close(fd);
    return peer.pid;
}

/* With the lock held: a socket that is there is nobody's, or no daemon's of ours. */
static int remove_stale(const char *path, struct cts_err *err)
{
    struct stat st;
    long        pid;

    if (lstat(path, &st) < 0) return errno == ENOENT ? 0 : cts_err_set(err, -errno, "'%s'", path);
    if (!S_ISSOCK(st.st_mode)) return cts_err_set(err, -EEXIST, "'%s' is no socket", path);
    pid = listener_of(path);
    if (pid != 0) return cts_err_set(err, CTS_EBUSY, "a process with pid %ld listens at '%s'", pid, path);
    return unlink(path) < 0 ? cts_err_set(err, -errno, "remove the stale socket '%s'", path) : 0;
}

static int bind_at(struct cts_listen *l, struct cts_err *err)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    mode_t             before;
    int                rc;

    memcpy(at.sun_path, l->path, strlen(l->path) + 1);
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0) return cts_err_set(err, -errno, "make a socket");
    before = umask(0177); /* the file is 0600 from its first moment */
    rc = bind(l->fd, (struct sockaddr *)&at, sizeof(at)) < 0 ? -errno : 0;
    umask(before);
    if (rc < 0) return cts_err_set(err, rc, "bind '%s'", l->path);
    return listen(l->fd, BACKLOG) < 0 ? cts_err_set(err, -errno, "listen at '%s'", l->path) : 0;
}

int cts_listen_open(struct cts_listen *l, const char *path, struct cts_err *err)
{
    int rc;

    *l = CTS_LISTEN_NONE;
    if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return cts_err_set(err, -ENAMETOOLONG, "socket '%s'", path);
    l->path = strdup(path);
    if (l->path == NULL) return cts_err_set(err, -ENOMEM, "socket '%s'", path);
    rc = take_lock(l, err);
    if (rc == 0) rc = remove_stale(path, err);
    if (rc == 0) rc = bind_at(l, err);
    if (rc < 0) cts_listen_close(l);
    return rc;
}

void cts_listen_close(struct cts_listen *l)
{
    char lock[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];

    if (l->fd >= 0) {
        (void)unlink(l->path); /* best effort: the next start replaces it */
        close(l->fd);
    }
    if (l->lock_fd >= 0) {
        /* Before the close that gives the lock up: whoever locks the unlinked
         * file sees that it is no longer at its path. */
        if (lock_name(l->path, lock, sizeof(lock)) == 0) (void)unlink(lock);
        close(l->lock_fd);
    }
    free(l->path);
    *l = CTS_LISTEN_NONE;
}
