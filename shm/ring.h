#ifndef CTS_SHM_RING_H
#define CTS_SHM_RING_H

/* Both ends of both rings, as code over mapped memory: no system calls, no
 * allocation. Each end keeps its own cursor and all geometry in private memory;
 * what the peer writes is input from outside, loaded once through an atomic,
 * copied, and judged on the copy. An end belongs to one thread at a time.
 *
 *            daemon              client
 *   SUB      cts_sub (takes)     cts_subw (puts)
 *   OUT      cts_out (puts)      cts_outr (takes) */

#include "shm/layout.h"

#include <stddef.h>
#include <stdint.h>

/* Sizes of the segments, whole pages. */
size_t cts_sub_bytes(uint32_t n_records, uint32_t arena_bytes);
size_t cts_out_bytes(uint32_t out_bytes);

/* 1 when the geometry is within the limits of layout.h: powers of two in range. */
int cts_sub_is_geometry(uint32_t n_records, uint32_t arena_bytes);
int cts_out_is_geometry(uint32_t out_bytes);

/* ---- SUB, the daemon's end ---- */

struct cts_sub {
    struct cts_sub_hdr *hdr; /* shared; borrowed until the owner unmaps it */
    uint8_t            *base;
    uint32_t            n_records, arena_off, arena_bytes;
    uint32_t            head; /* records taken since creation */
};

/* Write the header of a new segment at map (zeroes) and start at 0. */
void cts_sub_init(struct cts_sub *s, void *map, uint32_t n_records, uint32_t arena_bytes, uint64_t ring_id);

/* 1 when the client has written something that was not taken (seq_cst load:
 * pairs with the client's fence between tail and flags). */
int cts_sub_has_more(const struct cts_sub *s);

/* Copy the next record and its payload out of shared memory: 1 with *rec filled
 * and the payload in buf; 0 when there is none; CTS_EPROTO when the client wrote
 * nonsense (close the ring). cap >= arena_bytes. The record's op may be one that
 * nobody knows. The client sees the room only after cts_out_publish_head. */
int cts_sub_take(struct cts_sub *s, struct cts_sub_record *rec, void *buf, size_t cap);

/* ---- OUT, the daemon's end ---- */

struct cts_out {
    struct cts_out_hdr       *hdr;
    const struct cts_sub_hdr *sub; /* the client's out_head, out_wait and out_want */
    uint8_t                  *ring;
    uint32_t                  out_bytes;
    uint64_t                  tail;      /* written; published up to hdr->tail */
    uint64_t                  head_seen; /* the client's out_head when we last looked and believed it */
    uint64_t                  reserved_bytes; /* of the free ones, for last records of live requests */
    uint32_t                  flags;
    uint64_t                  n_records; /* put, PADs apart */
    int                       has_last; /* a record with LAST was put since the last publish */
};

void cts_out_init(struct cts_out *o, void *map, const struct cts_sub_hdr *sub, uint32_t out_bytes, uint64_t ring_id);

/* Look how far the client is: 0, or CTS_EPROTO when its out_head is past what
 * was written, went back or is odd (close the ring). */
int cts_out_look(struct cts_out *o);

/* 1 when the client's out_head moved since the last look (seq_cst: pairs with
 * the client's fence between out_head and flags). */
int cts_out_has_moved(const struct cts_out *o);

/* Free bytes that nobody has reserved, as of the last look. */
uint64_t cts_out_room(const struct cts_out *o);

/* Keep n more bytes for a last record, or give them back (negative). The caller
 * made sure of the room. */
void cts_out_reserve(struct cts_out *o, int64_t n);

/* Append a record of whole 32 bytes, at most CTS_OUT_RECORD_MAX, with a PAD in
 * front where it would wrap. 0, or -EAGAIN when it does not fit in what is free
 * and not reserved. It looks at the client's head by itself only through
 * cts_out_look. A record of 32 bytes never needs a PAD. */
int cts_out_put(struct cts_out *o, const void *rec, uint32_t bytes);

/* Show what was put: tail (release), then how the client sleeps: 0 when it needs
 * no waking, else its CTS_WAIT_* bits with wake_seq moved on; the caller wakes
 * the futex or sends the byte. Once per turn. */
uint32_t cts_out_publish(struct cts_out *o);

/* Give the records before head back to the client. */
void cts_out_publish_head(struct cts_out *o, uint32_t sub_head);

/* Set or clear bits of flags; with seq_cst, so that NEED_KICK and a following
 * cts_sub_has_more pair with the client's fence. */
void cts_out_flag(struct cts_out *o, uint32_t set, uint32_t clear);

/* Set one of the header's counters, for the client's own monitoring. */
enum cts_out_counter { CTS_OUT_N_STALLS, CTS_OUT_N_CANCELS, CTS_OUT_N_PROTO_ERRORS };
void cts_out_count(struct cts_out *o, enum cts_out_counter which, uint64_t n);

/* Nothing more comes: reason is a negative code. */
void cts_out_close(struct cts_out *o, int reason);

/* ---- SUB, the client's end ---- */

struct cts_subw {
    struct cts_sub_hdr       *hdr;
    const struct cts_out_hdr *out; /* the daemon's sub_head and flags */
    uint8_t                  *base;
    uint32_t                  n_records, arena_off, arena_bytes;
    uint32_t                  tail, freed;        /* records written; records known to be taken */
    uint64_t                  arena_tail, arena_head; /* bytes since creation, never wrap */
    uint64_t                  arena_end[CTS_SUB_RECORDS_MAX]; /* arena position behind record i's payload */
};

/* sub and out are the mapped segments. Geometry as the control reply said it;
 * CTS_EPROTO when the headers say otherwise, CTS_EVERSION for another major. */
int cts_subw_init(struct cts_subw *w, void *sub, const void *out, uint32_t n_records, uint32_t arena_bytes);

/* Write one record: abi, seq, pay_off and pay_len of *rec are set here. payload
 * [n] is copied into the arena. 0; -EAGAIN when records or arena are full (take
 * events first); -EMSGSIZE when n can never fit; CTS_EPROTO when the daemon's
 * head is nonsense. */
int cts_subw_put(struct cts_subw *w, struct cts_sub_record *rec, const void *payload, uint32_t n);

/* Show what was put: 1 when the daemon must be kicked. */
int cts_subw_publish(struct cts_subw *w);

/* ---- OUT, the client's end ---- */

struct cts_outr {
    const struct cts_out_hdr *hdr;
    struct cts_sub_hdr       *sub;
    const uint8_t            *ring;
    uint32_t                  out_bytes;
    uint64_t                  head; /* consumed */
};
int cts_outr_init(struct cts_outr *r, const void *out, void *sub, uint32_t out_bytes);

/* Copy the next record (PADs are skipped) into buf [CTS_OUT_RECORD_MAX], 8-byte
 * aligned, and free its place: 1, 0 when there is none, CTS_EPROTO when the
 * daemon wrote nonsense. *kick is 1 when the daemon waits for the room: write
 * to the kick eventfd. */
int cts_outr_take(struct cts_outr *r, void *buf, int *kick);

/* 1 when cts_outr_take has something (acquire load). */
int cts_outr_has_more(const struct cts_outr *r);

/* About to sleep, as layout.h says: 1 when something came meanwhile (don't
 * sleep), else 0 with *seq to sleep on. how is CTS_WAIT_* bits. */
int  cts_outr_sleep_begin(struct cts_outr *r, uint32_t how, uint32_t want_bytes, uint32_t *seq);
void cts_outr_sleep_end(struct cts_outr *r);

uint32_t cts_outr_flags(const struct cts_outr *r);        /* CTS_OUT_* */
int      cts_outr_close_reason(const struct cts_outr *r); /* 0 or a negative code */

#endif
