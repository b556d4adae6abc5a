#ifndef CTS_DAEMON_SERVE_SHM_SERVER_H
#define CTS_DAEMON_SERVE_SHM_SERVER_H

/* The shared-memory door: a pair of rings per client, as cts-shm(7) says. What a
 * client writes is input from outside; a client that dies, stalls or lies harms
 * only itself. Loop thread only; all memory but a client's segments is taken at
 * open. */

#include "daemon/serve/adapters.h"
#include "daemon/serve/live.h"
#include "shm/segment.h"

#include <uv.h>

struct cts_ring; /* one client's pair */
struct cts_shm;

struct cts_shm_opts {
    uv_loop_t           *loop;
    struct cts_lives    *lives;
    struct cts_adapters *adapters;
    uint32_t             n_rings_max;
    uint32_t             arena_bytes_max, out_bytes_max, live_per_client;
};

/* 0 or -errno; on failure *out is NULL or is to be stopped and freed all the same. */
int  cts_shm_open(struct cts_shm **out, const struct cts_shm_opts *o, struct cts_err *err);
void cts_shm_stop(struct cts_shm *s); /* closes its handles; the loop then runs until they are gone */
void cts_shm_free(struct cts_shm *s); /* after that; NULL is fine */

/* What a client asks for, and what it gets. */
struct cts_shm_sizes {
    uint32_t n_records, arena_bytes, out_bytes;
    uint32_t live_max;
    uint64_t ring_id;
};

/* Make a pair of rings. Sizes are clamped to the limits; 0 is the default. fds
 * [4] are to be sent and then closed by the caller: SUB, OUT, kick eventfd, wake
 * socket. client numbers it, for the fair queue and the log. CTS_EBUSY when there
 * are n_rings_max, -errno. When the client breaks the layout, the rings close by
 * themselves; the object stays until cts_ring_close. */
int cts_ring_open(struct cts_shm *s, uint32_t client, struct cts_shm_sizes *sizes, struct cts_ring **out,
                  int fds[CTS_FDS_MAX], struct cts_err *err);

/* The client is gone, or reason (a negative code) sends it away: cancel its
 * requests, unmap. NULL is fine. */
void cts_ring_close(struct cts_ring *r, int reason);

/* Once per turn: take submissions, bounded per client. 1 when something is left
 * that needs no kick (don't sleep). */
int cts_shm_take(struct cts_shm *s, uint64_t now_ns);

/* Once per turn: show what was written, wake who sleeps. */
void cts_shm_publish(struct cts_shm *s);

/* Before the loop sleeps: ask for kicks. 1 when something came meanwhile, and
 * then don't sleep. After: take it back. */
int  cts_shm_arm(struct cts_shm *s);
void cts_shm_disarm(struct cts_shm *s);

/* 1 when a client has written something: a look at shared memory only. */
int cts_shm_has_more(const struct cts_shm *s);

/* New requests are refused from now on: tell the clients. */
void cts_shm_set_draining(struct cts_shm *s);

uint32_t cts_shm_n_rings(const struct cts_shm *s);

#endif
