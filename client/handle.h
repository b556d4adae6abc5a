#ifndef CTS_CLIENT_HANDLE_H
#define CTS_CLIENT_HANDLE_H

/* What is behind a cts: private to libcts. */

#include "client/conn.h"
#include "client/cts.h"
#include "client/names.h"
#include "shm/ring.h"
#include "shm/segment.h"

#include <stdalign.h>

#define CTS_LIVE_NONE UINT32_MAX

/* A request from its submission to its last event. Its id is this entry's index
 * below and its turn above, so that an id of an earlier turn is seen as old. */
struct cts_live {
    uint32_t       turn, next_free_idx;
    uint32_t       number, generation; /* of the adapter, as submitted */
    uint32_t       n_tokens;           /* received so far */
    uint64_t       deadline_ns;
    struct cts_buf kept; /* the adapter's name with its zero, then the payload: to submit it again */
    uint8_t        is_live, is_accepted, is_again, is_cancelled;
};

struct cts {
    struct cts_conn    conn;
    struct cts_segment sub, out;
    struct cts_subw    subw;
    struct cts_outr    outr;
    int                kick_fd, wake_fd;
    int                rc;       /* the failure that ended the handle; 0 while it lives */
    int                is_armed; /* out_wait says that the socket is polled */
    int                is_hung_up; /* the daemon's end of the wake socket is closed */
    uint64_t           spin_ns, looked_ns; /* looked: when we last saw the daemon alive */
    struct cts_names   names;
    struct cts_live   *live; /* [n_live_max] */
    uint32_t           n_live_max, n_live, free_idx;
    struct cts_err     err;  /* of the last failure */
    char               message[CTS_OUT_RECORD_MAX]; /* of the last error event */
    alignas(8) uint8_t rec[CTS_OUT_RECORD_MAX];     /* the last event's record */
};

/* Leave a sentence as the last message; returns code. Unlike cts_err_set it adds
 * no system's words: these sentences say it themselves. */
int cts_handle_say(cts *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same, and it ends the handle: the first such code stays. */
int cts_handle_fail(cts *c, int code, const char *text);

/* Put one record and show it; kicks the daemon where it sleeps. As cts_subw_put. */
int cts_handle_put(cts *c, struct cts_sub_record *rec, const void *payload, size_t n);

/* After a refusal: when the name has gone stale, submit l again under its new
 * number, once: 1. Else 0, and the refusal stands, or *ev has the new failure. */
int cts_handle_again(cts *c, struct cts_live *l, struct cts_event *ev);

/* Wake the daemon. */
void cts_handle_kick(const cts *c);

/* The entry of a request, or NULL when it is not live; the daemon took it, so
 * that a large payload is let go; and its end. */
struct cts_live *cts_handle_find(cts *c, uint64_t request);
void             cts_handle_accept(struct cts_live *l);
void             cts_handle_release(cts *c, struct cts_live *l);

#endif
