#ifndef CTS_DAEMON_SERVE_CTL_SERVER_H
#define CTS_DAEMON_SERVE_CTL_SERVER_H

/* The control socket, as cts-control(7) says: connections, credentials, frames.
 * What the methods do stands in ctl_methods.c, their list in ctl_table.c. */

#include "daemon/serve/adapters.h"
#include "daemon/serve/live.h"
#include "daemon/serve/shm_server.h"

#include <uv.h>

struct cts_ctl;

struct cts_ctl_opts {
    uv_loop_t           *loop;
    struct cts_engine   *engine;
    struct cts_adapters *adapters;
    struct cts_lives    *lives;
    struct cts_shm      *shm;
    int                  listen_fd;      /* borrowed */
    const char          *base_dir, *version;
    uint32_t             n_conns_max, live_per_client;
    uint64_t             setup_ns;       /* from connect to hello */
    void               (*on_stop)(void *arg); /* a client asked for the daemon's end */
    void                *on_stop_arg;
};

int  cts_ctl_open(struct cts_ctl **out, const struct cts_ctl_opts *o, struct cts_err *err); /* 0 or -errno */
void cts_ctl_stop(struct cts_ctl *t); /* closes its handles; the loop then runs until they are gone */
void cts_ctl_free(struct cts_ctl *t); /* after that; NULL is fine */

/* Once per turn: send what was written, one system call per connection that has
 * something; let requests go on whose output was sent. */
void cts_ctl_flush(struct cts_ctl *t, uint64_t now_ns);

/* Now and then: close who has not said hello in time. */
void cts_ctl_tick(struct cts_ctl *t, uint64_t now_ns);
int  cts_ctl_needs_tick(const struct cts_ctl *t);

#endif
