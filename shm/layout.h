#ifndef CTS_SHM_LAYOUT_H
#define CTS_SHM_LAYOUT_H

/* The shared-memory ABI, version 1.0: cts-shm(7) is its contract in words.
 * Everything is little endian and naturally aligned. Two segments, one writer
 * each:
 *
 *   SUB   the client writes, the daemon reads as input from outside, for ever
 *     offset 0     header, written once by the daemon before the descriptor is sent
 *     offset 128   u32 tail    client: records written since creation (release)
 *     offset 256   u64 out_head, u32 out_wait, u32 out_want    client's end of OUT
 *     offset 4096  records[n_records], 64 bytes each, then the payload arena
 *
 *   OUT   the daemon writes, the client maps read-only
 *     offset 0     header, as SUB's
 *     offset 128   u32 sub_head, u32 flags, u32 close_reason
 *     offset 256   u64 tail (bytes written since creation), u32 wake_seq (futex word)
 *     offset 384   u64 counters[4]
 *     offset 4096  ring of out_bytes bytes
 *
 * Counters since creation never wrap in 64 bits and wrap freely in 32; the
 * index is the counter & (n - 1).
 *
 * Submit: write the payload and the record, store tail (release), full fence,
 * and write 8 bytes to the kick eventfd only when OUT's flags have NEED_KICK.
 *
 * Take: read records up to OUT's tail (acquire), store out_head (release), full
 * fence, and kick only when flags have NEED_ROOM: the daemon holds output back
 * that did not fit.
 *
 * Sleep: load wake_seq; store out_wait (seq_cst) with how the client is going
 * to sleep; load OUT's tail (seq_cst): if something came, don't sleep; else
 * FUTEX_WAIT on wake_seq (WAIT_FUTEX) or poll the wake socket (WAIT_SOCKET:
 * the daemon then sends one byte; read and drop what is there with
 * MSG_DONTWAIT); store 0 into out_wait. The daemon's death is a hang-up of the
 * wake socket and of the control socket; its closing of this ring is CLOSED. */

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define CTS_SHM_MAGIC_SUB 0x53535443u /* "CTSS" */
#define CTS_SHM_MAGIC_OUT 0x4f535443u /* "CTSO" */
#define CTS_SHM_MAJOR 1
#define CTS_SHM_MINOR 0

#define CTS_SHM_HEADER_BYTES   4096
#define CTS_SUB_RECORD_BYTES   64
#define CTS_OUT_RECORD_ALIGN   32
#define CTS_SUB_RECORDS_MIN    16
#define CTS_SUB_RECORDS_MAX    1024
#define CTS_ARENA_BYTES_MIN    (64u << 10)
#define CTS_ARENA_BYTES_MAX    (16u << 20)
#define CTS_OUT_BYTES_MIN      (64u << 10)
#define CTS_OUT_BYTES_MAX      (16u << 20)
#define CTS_OUT_RECORD_MAX     4096 /* bytes; the largest record the daemon writes */

struct cts_sub_hdr {
    uint32_t magic;
    uint16_t ver_major, ver_minor;
    uint32_t n_records;              /* power of two */
    uint32_t record_bytes;           /* 64 */
    uint32_t arena_off, arena_bytes; /* bytes from the start; arena a power of two */
    uint64_t ring_id, features;
    alignas(128) _Atomic uint32_t tail;     /* client stores (release) */
    alignas(128) _Atomic uint64_t out_head; /* client stores (release): bytes consumed from OUT */
    _Atomic uint32_t out_wait;              /* CTS_WAIT_*: about to sleep (seq_cst, then OUT's tail again) */
    _Atomic uint32_t out_want;              /* wake only when tail - out_head >= this; 0: any */
};
_Static_assert(offsetof(struct cts_sub_hdr, tail) == 128, "shm ABI");
_Static_assert(offsetof(struct cts_sub_hdr, out_head) == 256, "shm ABI");
_Static_assert(offsetof(struct cts_sub_hdr, out_wait) == 264, "shm ABI");
_Static_assert(offsetof(struct cts_sub_hdr, out_want) == 268, "shm ABI");
_Static_assert(sizeof(struct cts_sub_hdr) <= CTS_SHM_HEADER_BYTES, "shm ABI");

enum { CTS_WAIT_FUTEX = 1, CTS_WAIT_SOCKET = 2 }; /* out_wait, may be both */

enum {
    CTS_OUT_NEED_KICK = 1, /* the daemon is about to sleep: kick after a submission */
    CTS_OUT_DRAINING  = 2, /* new requests are refused */
    CTS_OUT_CLOSED    = 4, /* nothing more comes; close_reason says why */
    CTS_OUT_NEED_ROOM = 8, /* output waits for room: kick after taking records */
};

struct cts_out_hdr {
    uint32_t magic;
    uint16_t ver_major, ver_minor;
    uint32_t out_bytes;              /* power of two */
    uint32_t record_align;           /* 32 */
    uint32_t reserved[2];
    uint64_t ring_id, features;
    alignas(128) _Atomic uint32_t sub_head; /* records taken; a record and its payload are free once passed (release) */
    _Atomic uint32_t flags;
    _Atomic uint32_t close_reason;          /* negated error code, 0 while open */
    alignas(128) _Atomic uint64_t tail;     /* release */
    _Atomic uint32_t wake_seq;              /* futex word; FUTEX_WAIT works on the read-only mapping */
    alignas(128) _Atomic uint64_t n_records; /* alignas would hold for each name of one declaration */
    _Atomic uint64_t n_stalls, n_cancels, n_proto_errors;
};
_Static_assert(offsetof(struct cts_out_hdr, sub_head) == 128, "shm ABI");
_Static_assert(offsetof(struct cts_out_hdr, tail) == 256, "shm ABI");
_Static_assert(offsetof(struct cts_out_hdr, wake_seq) == 264, "shm ABI");
_Static_assert(offsetof(struct cts_out_hdr, n_records) == 384, "shm ABI");
_Static_assert(offsetof(struct cts_out_hdr, n_proto_errors) == 408, "shm ABI");
_Static_assert(sizeof(struct cts_out_hdr) <= CTS_SHM_HEADER_BYTES, "shm ABI");

enum { CTS_OP_GENERATE = 1, CTS_OP_CANCEL = 2, CTS_OP_PING = 3 };

/* One submission. Whoever reads it copies it whole by relaxed atomic loads,
 * judges the copy, and only then uses it. */
struct cts_sub_record {
    union {
        struct {
            uint8_t  op;
            uint8_t  flags;       /* 0 */
            uint16_t abi;         /* 1 */
            uint32_t seq;         /* low 32 bits of this record's index: another is torn or stale */
            uint64_t req_id;      /* client's, unique among its live requests */
            uint32_t adapter;     /* number from `resolve`; 0: the base */
            uint32_t generation;  /* from `resolve`; 0 with adapter 0 */
            uint32_t pay_off;     /* in the arena, a multiple of 8; the payload does not wrap */
            uint32_t pay_len;     /* bytes; 0 but for GENERATE */
            uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none. The payload's timeout_ms may bring it forward */
            uint64_t reserved[3]; /* 0, else the ring is closed */
        };
        uint64_t word[8];
    };
};
_Static_assert(sizeof(struct cts_sub_record) == CTS_SUB_RECORD_BYTES, "shm ABI");
_Static_assert(offsetof(struct cts_sub_record, req_id) == 8, "shm ABI");
_Static_assert(offsetof(struct cts_sub_record, adapter) == 16, "shm ABI");
_Static_assert(offsetof(struct cts_sub_record, pay_off) == 24, "shm ABI");
_Static_assert(offsetof(struct cts_sub_record, deadline_ns) == 32, "shm ABI");

enum {
    CTS_OUT_TOKENS   = 1,
    CTS_OUT_DONE     = 3,
    CTS_OUT_ERROR    = 4,
    CTS_OUT_ACCEPTED = 5,
    CTS_OUT_PONG     = 6,
    CTS_OUT_PAD      = 255,
};
enum { CTS_OUTF_LAST = 1, CTS_OUTF_LOGPROBS = 2, CTS_OUTF_TEXT = 4, CTS_OUTF_TOP = 8 };

/* Why a request ended well: DONE's status. */
enum cts_finish { CTS_FINISH_STOP = 1, CTS_FINISH_LENGTH = 2, CTS_FINISH_STOP_STRING = 3, CTS_FINISH_CANCELLED = 4 };

/* Head of an OUT record; len is a multiple of 32, a record never wraps (PAD to
 * the end of the ring). Behind the head, in this order and without gaps:
 *   TOKENS    u32 ids[count]; f32 logprob[count] with LOGPROBS; with TOP u32
 *             n_top, then n_top pairs (u32 id, f32 logprob) for each token;
 *             text_len bytes of UTF-8 (whole characters) with TEXT
 *   DONE      u32 n_prompt, u32 n_tokens; status is enum cts_finish
 *   ERROR     u32 retry_ms; text_len bytes: a sentence, left out where the ring
 *             is full; status is the negated code
 *   ACCEPTED  u32 n_prompt
 *   PONG      nothing; req_id is the PING's
 * Each GENERATE is answered by exactly one record with LAST: DONE, or ERROR
 * (which comes without an ACCEPTED when the request was refused). CANCEL has no
 * answer of its own. Bytes behind these are 0. */
struct cts_out_record {
    uint32_t len; /* bytes, whole record */
    uint8_t  type, flags;
    uint16_t count;
    uint64_t req_id;
    uint32_t first;    /* index in the stream of the first token here: no loss, no repeat */
    uint16_t text_len; /* bytes */
    uint16_t status;
};
_Static_assert(sizeof(struct cts_out_record) == 24, "shm ABI");

#endif
