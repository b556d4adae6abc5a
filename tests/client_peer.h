#ifndef CTS_TESTS_CLIENT_PEER_H
#define CTS_TESTS_CLIENT_PEER_H

/* A ctsd that can lie: the control socket is answered by a thread, the daemon's
 * end of the rings lies open to the test. Only for what the real daemon never
 * does; everything else is tested against that. */

#include "client/cts.h"
#include "shm/record.h"
#include "shm/ring.h"
#include "shm/segment.h"

#include <pthread.h>
#include <stdatomic.h>

enum peer_lie {
    LIE_NONE,
    LIE_MAJOR,          /* another version in hello */
    LIE_HELLO_GARBAGE,  /* bytes that are no msgpack */
    LIE_HELLO_HUGE,     /* a frame above the limit */
    LIE_HELLO_HANG_UP,
    LIE_OLD_ANSWER,     /* an answer to another request goes before each */
    LIE_REFUSE,         /* ring.open: error busy */
    LIE_UNKNOWN_CODE,   /* ring.open: an error by a name that nobody knows */
    LIE_NO_GEOMETRY,    /* ring.open without out_bytes */
    LIE_ODD_GEOMETRY,   /* records that are no power of two */
    LIE_LARGER,         /* says a larger OUT than it sends */
    LIE_UNSEALED,       /* SUB could be cut short under the client */
    LIE_WRITABLE_OUT,   /* OUT without the seal that only the daemon writes it */
    LIE_FEW_FDS,
    LIE_MANY_FDS,
    LIE_MAGIC,
    LIE_SHM_MAJOR,
    LIE_RING_ID,
    LIE_HEADER_RECORDS, /* the header in shared memory tells other sizes */
    LIE_LIVE_HUGE,
    LIE_COUNT
};

struct peer {
    char               dir[64], path[128];
    _Atomic int        conn_fd; /* the thread sets it, peer_stop shuts it down */
    int                listen_fd, wake_fd, kick_fd;
    pthread_t          thread;
    enum peer_lie      lie;
    uint32_t           n_live_max; /* told to the client */
    uint32_t           number, generation; /* the answer to resolve */
    int                resolve_code; /* 0, or the error that resolve gives */
    _Atomic uint32_t   n_resolved;
    _Atomic int        is_over; /* an act that waits for the client waits no longer */
    struct cts_segment sub_segment, out_segment;
    struct cts_sub     sub;
    struct cts_out     out;
    uint8_t            payload[CTS_ARENA_BYTES_MAX];
};

/* Listen in a new temporary directory; the thread serves one client at a time. */
struct peer *peer_start(enum peer_lie lie);
void         peer_stop(struct peer *p);

/* Open a handle to it; CHECKs that it works. n_records 0: the least. */
cts *peer_open(struct peer *p, uint32_t n_records);

/* The next record that the client submitted, its payload in p->payload; 0: none. */
int peer_take(struct peer *p, struct cts_sub_record *rec);

/* Write a record into OUT and show it, waking the client as the daemon does. */
void peer_put(struct peer *p, const struct cts_out_view *v);
void peer_accept(struct peer *p, uint64_t req_id);
void peer_token(struct peer *p, uint64_t req_id, uint32_t first, uint32_t id, const char *text);
void peer_done(struct peer *p, uint64_t req_id, uint32_t n_tokens);
void peer_error(struct peer *p, uint64_t req_id, int code, const char *text);
void peer_show(struct peer *p);

/* Hang up: control socket and wake socket, as at a daemon's death. */
void peer_die(struct peer *p);

/* Run act(p) in a thread as soon as the client says that it goes to sleep. Join
 * ends the wait where it never did. */
struct peer_act {
    struct peer *peer;
    void       (*act)(struct peer *p);
    pthread_t    thread;
};
void peer_when_asleep(struct peer *p, struct peer_act *a, void (*act)(struct peer *p));
void peer_act_join(struct peer_act *a);

#endif
