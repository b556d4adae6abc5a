#ifndef CTS_SHM_SEGMENT_H
#define CTS_SHM_SEGMENT_H

/* Shared-memory segments: memfds that the daemon makes, maps, seals and passes,
 * and descriptors over a Unix socket. The seals are what makes it safe to map
 * what a stranger holds: a segment can neither shrink (no SIGBUS) nor grow, and
 * nobody but the daemon can ever map OUT writable. */

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

enum cts_segment_kind {
    CTS_SEGMENT_SUB, /* the client writes: seals SHRINK, GROW, SEAL */
    CTS_SEGMENT_OUT, /* the daemon writes: FUTURE_WRITE too, after its own mapping */
};

struct cts_segment {
    int    fd; /* -1: closed; the mapping lives on */
    void  *map;
    size_t bytes;
};
#define CTS_SEGMENT_NONE ((struct cts_segment){ .fd = -1 })

/* Make a segment of zeroes, map it read-write, seal it and look that the seals
 * hold. bytes is whole pages. 0, -errno. */
int cts_segment_create(struct cts_segment *s, enum cts_segment_kind kind, size_t bytes, struct cts_err *err);

/* Take the daemon's own right to write away, once the header is written. */
int cts_segment_protect(struct cts_segment *s);

/* The client's side: map a received descriptor (owned by s from here on, also on
 * failure), SUB read-write and OUT read-only. Its size and seals are checked
 * first: CTS_EPROTO when they are other than they should be. */
int cts_segment_map(struct cts_segment *s, int fd, enum cts_segment_kind kind, size_t bytes, struct cts_err *err);

/* Close the descriptor only, after it was passed. */
void cts_segment_close_fd(struct cts_segment *s);

/* Unmap and close. Safe on CTS_SEGMENT_NONE and half-open segments. */
void cts_segment_close(struct cts_segment *s);

#define CTS_FDS_MAX 4

/* sendmsg without blocking and without SIGPIPE: bytes sent (at least 1, with
 * all descriptors beside the first), or -errno (-EAGAIN). n_fds may be 0. */
int64_t cts_fds_send(int sock, const void *p, size_t n, const int *fds, uint32_t n_fds);

/* recvmsg with room for CTS_FDS_MAX descriptors, close-on-exec: bytes received,
 * 0 at the end of the stream, -errno. fds [CTS_FDS_MAX] and *n_fds take what
 * came (0 on failure); -EMSGSIZE with everything closed when more came. */
int64_t cts_fds_recv(int sock, void *p, size_t n, int *fds, uint32_t *n_fds);

#endif
