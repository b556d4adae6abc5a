#ifndef CTS_TESTS_SYSTEM_RAW_H
#define CTS_TESTS_SYSTEM_RAW_H

/* A client of ctsd that is made of bytes: it can say what libcts never would. */

#include "common/buf.h"
#include "proto/ctl_msg.h"
#include "shm/ring.h"
#include "shm/segment.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct raw {
    int            fd;
    uint64_t       id; /* of the last request */
    struct cts_buf rx, tx;
    struct cts_mpw w;
    size_t         begin;
    int            fds[CTS_FDS_MAX]; /* that came with the last frame */
    uint32_t       n_fds;
};

/* Connect to the socket, and say hello unless it is a test of that. */
void raw_connect(struct raw *c, const char *path);
void raw_open(struct raw *c, const char *path);
void raw_close(struct raw *c);

/* Send bytes as they are. */
void raw_send(struct raw *c, const void *p, size_t n);

/* Begin a request with n_pairs params, which the caller writes to the writer, and
 * send it. */
struct cts_mpw *raw_begin(struct raw *c, const char *method, uint32_t n_pairs);
void            raw_end(struct raw *c);

/* The next frame: 1 with *reply, which points into rx; 0 when the daemon closed. */
int raw_recv(struct raw *c, struct cts_ctl_reply *reply);

/* The reply must be an error of that name; its parameter must be that, if not NULL. */
void raw_check_error(const struct cts_ctl_reply *reply, const char *code, const char *param);

/* A request without params, and its result. */
void raw_call(struct raw *c, const char *method, struct cts_ctl_reply *reply);

uint64_t raw_u64(struct cts_mp map, const char *key);
/* status.map.key */
uint64_t raw_status(struct raw *c, const char *map, const char *key);

/* ---- rings ---- */

struct raw_ring {
    struct cts_segment sub, out;
    struct cts_subw    subw;
    struct cts_outr    outr;
    int                kick_fd, wake_fd;
    uint64_t           n_kicks;
    _Alignas(8) uint8_t rec[CTS_OUT_RECORD_MAX];
};

/* ring.open on c; 0 for a size is the default. */
void raw_ring_open(struct raw_ring *r, struct raw *c, uint32_t n_records, uint32_t arena_bytes, uint32_t out_bytes);
void raw_ring_close(struct raw_ring *r);

/* Put a record, show it, kick where that is asked for. */
void raw_ring_put(struct raw_ring *r, struct cts_sub_record rec, const void *payload, size_t n);

/* Wait for the next record, in r->rec: 1, or 0 when the ring was closed. */
int raw_ring_take(struct raw_ring *r);

/* ---- the daemon from outside ---- */

/* A line of /proc/PID/status in KiB ("VmHWM"), and the number of its descriptors. */
uint64_t raw_proc_kib(pid_t pid, const char *key);
uint32_t raw_n_fds(pid_t pid);

#endif
