#ifndef CTS_DAEMON_SERVE_LISTEN_H
#define CTS_DAEMON_SERVE_LISTEN_H

/* The control socket's place in the file system. One daemon per path, by a lock
 * on PATH.lock that is held for the daemon's life: so a socket file that is there
 * while nobody holds the lock is stale and may be replaced. */

#include "common/err.h"

struct cts_listen {
    int   fd, lock_fd; /* -1: closed */
    char *path;
};
#define CTS_LISTEN_NONE ((struct cts_listen){ .fd = -1, .lock_fd = -1 })

/* Bind and listen at path, mode 0600. CTS_EBUSY names the pid of a daemon that
 * lives there; -EEXIST when something else than a socket is there; -ENAMETOOLONG,
 * -errno. Blocks. */
int cts_listen_open(struct cts_listen *l, const char *path, struct cts_err *err);

/* Take the files away and close. Safe on CTS_LISTEN_NONE and half-open. */
void cts_listen_close(struct cts_listen *l);

#endif
