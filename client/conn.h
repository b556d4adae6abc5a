#ifndef CTS_CLIENT_CONN_H
#define CTS_CLIENT_CONN_H

/* The client's end of the control socket: one call at a time, its answer waited
 * for. cts-control(7) is the protocol. What the daemon sends is checked whole
 * before a byte of it is used. One thread at a time. */

#include "common/buf.h"
#include "common/err.h"
#include "proto/ctl_msg.h"
#include "shm/segment.h"

#include <stdint.h>

struct cts_conn {
    int            fd;
    uint64_t       id; /* of the last request */
    uint32_t       server_pid;
    char           server[64]; /* as the daemon calls itself, printable */
    struct cts_buf rx, tx;
    struct cts_mpw w; /* onto tx */
    size_t         begin;
    int            fds[CTS_FDS_MAX]; /* that came with the last answer; whoever takes one puts -1 here */
    uint32_t       n_fds;
};

/* Connect to the socket at path and say hello. Errors: -errno of the connect with
 * the path in err (-ENOENT, -ECONNREFUSED: no daemon), -ENAMETOOLONG,
 * CTS_EVERSION with both numbers, CTS_EDENIED, CTS_ECLOSED, -ETIMEDOUT, CTS_EPROTO. */
int cts_conn_open(struct cts_conn *c, const char *path, struct cts_err *err);

/* Safe on a half-open or zeroed-by-open object; closes descriptors nobody took. */
void cts_conn_close(struct cts_conn *c);

/* Begin a request: the caller writes n_params pairs to the writer, then calls
 * cts_conn_call. */
struct cts_mpw *cts_conn_begin(struct cts_conn *c, const char *method, uint32_t n_params);

/* Send it and wait at most timeout_ns (UINT64_MAX: for ever) for its result,
 * which points into the connection until the next call. The daemon's refusal
 * comes back as its code with its sentence in err; CTS_ECLOSED when the daemon
 * went away, -ETIMEDOUT, CTS_EPROTO, -EMSGSIZE. A failure in the middle of a frame
 * closes the connection: later calls return CTS_ECLOSED. */
int cts_conn_call(struct cts_conn *c, uint64_t timeout_ns, struct cts_mp *result, struct cts_err *err);

/* 1 while the daemon holds its end; costs one system call. */
int cts_conn_is_alive(const struct cts_conn *c);

/* The code behind a name from the wire, as cts_err_name gave it; -EREMOTEIO for
 * a name that this client does not know. */
int cts_conn_code(struct cts_span name);

/* The socket to use: path, else $CTS_SOCKET, else the built-in one. */
const char *cts_conn_path(const char *path);

#endif
