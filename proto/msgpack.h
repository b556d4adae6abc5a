#ifndef CTS_PROTO_MSGPACK_H
#define CTS_PROTO_MSGPACK_H

/* msgpack without trust and without allocation. A frame is walked and checked
 * whole first (msgpack-c alone reserves 2 GB for a 5-byte array header); then a
 * cursor reads it. Writing goes through msgpack-c's packer into a bounded
 * buffer. No I/O, any thread. */

#include "common/buf.h"
#include "common/span.h"

#include <stddef.h>
#include <stdint.h>

#define CTS_MP_DEPTH_MAX     16
#define CTS_MP_OBJECTS_MAX   (256u << 10) /* a prompt of 128 Ki token ids fits; the walk stays under 2 ms */
#define CTS_MP_PAIRS_MAX     256          /* of one map: bounds the search for equal keys */
#define CTS_MP_KEY_BYTES_MAX 128

/* Check that the n bytes are exactly one object: every length fits in what is
 * left, at most CTS_MP_DEPTH_MAX deep and objects_max objects in all, strings
 * are UTF-8, map keys are strings and differ within a map, no ext types. 0 or
 * CTS_EPROTO. Time is bounded by n and objects_max. */
int cts_mp_check(const void *p, size_t n, uint32_t objects_max);

/* A cursor over checked bytes; every read checks type and range again. */
struct cts_mp {
    const uint8_t *ptr, *end;
};

enum cts_mp_type {
    CTS_MP_END,
    CTS_MP_NIL,
    CTS_MP_BOOL,
    CTS_MP_INT,
    CTS_MP_REAL,
    CTS_MP_STR,
    CTS_MP_BIN,
    CTS_MP_ARRAY,
    CTS_MP_MAP,
};
enum cts_mp_type cts_mp_type(const struct cts_mp *c);

/* Each takes one object and moves past it (map and array: past the head only);
 * 0, or CTS_EARG with the cursor unmoved when it is of another type or does not
 * fit. An integer is accepted as a real, never the other way round. */
int cts_mp_nil(struct cts_mp *c);
int cts_mp_bool(struct cts_mp *c, int *out);
int cts_mp_int(struct cts_mp *c, int64_t lo, int64_t hi, int64_t *out);
int cts_mp_u64(struct cts_mp *c, uint64_t *out);
int cts_mp_real(struct cts_mp *c, double *out);
int cts_mp_str(struct cts_mp *c, struct cts_span *out);
int cts_mp_array(struct cts_mp *c, uint32_t *n);
int cts_mp_map(struct cts_mp *c, uint32_t *n_pairs);
int cts_mp_skip(struct cts_mp *c); /* one object with all that is in it */

/* Find key in the map at the cursor (checked bytes): 1 with *value at it, 0 when
 * it is absent or the cursor is at no map. */
int cts_mp_find(struct cts_mp map, const char *key, struct cts_mp *value);

/* 1 when the string equals the zero-terminated name. */
int cts_span_is(struct cts_span s, const char *name);

/* Writer: appends to out up to its limit. The first failure sticks in rc
 * (-EMSGSIZE, -ENOMEM) and later calls do nothing, so that a caller checks once. */
struct cts_mpw {
    struct cts_buf *out;
    int             rc;
};
void cts_mpw_nil(struct cts_mpw *w);
void cts_mpw_bool(struct cts_mpw *w, int v);
void cts_mpw_int(struct cts_mpw *w, int64_t v);
void cts_mpw_u64(struct cts_mpw *w, uint64_t v);
void cts_mpw_real(struct cts_mpw *w, double v); /* 5 bytes where a float32 holds the same value, else 9 */
void cts_mpw_str(struct cts_mpw *w, const char *s);
void cts_mpw_strn(struct cts_mpw *w, const void *s, size_t n); /* UTF-8, or the reader's check refuses the frame */
void cts_mpw_text(struct cts_mpw *w, const char *s); /* any bytes (a path, a message): what is not UTF-8 becomes '?' */
void cts_mpw_array(struct cts_mpw *w, uint32_t n);
void cts_mpw_map(struct cts_mpw *w, uint32_t n_pairs);

#endif
