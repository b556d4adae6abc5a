#ifndef CTS_DAEMON_STORE_SLOT_FILE_H
#define CTS_DAEMON_STORE_SLOT_FILE_H

/* One slot in memory: what one adapter has of its own, packed and checked as
 * cts-collection(5) fixes it byte by byte. Bytes in, bytes out, no file is
 * touched here. Nothing that lies in a slot is used before it was checked. */

#include "common/dtype.h"
#include "common/err.h"
#include "common/hash.h"

#include <stdint.h>

#define CTS_SLOT_VERSION        1
#define CTS_SLOT_HEADER_BYTES   128  /* of fields */
#define CTS_SLOT_BLOCK_BYTES                                                                                      \
    4096 /* the header's block; the payload follows it or, where that saves a class, the fields */
#define CTS_SLOT_PART_BYTES     32   /* of one entry of the table of parts */
#define CTS_SLOT_ALIGN_BYTES    64   /* of the values of each part */
#define CTS_SLOT_CHECKSUM_BYTES 16
#define CTS_SLOT_PARTS_MAX      4096
#define CTS_SLOT_LAYERS_MAX     256
#define CTS_SLOT_LINEARS        7
#define CTS_SLOT_DIM_MAX        (1u << 24) /* rows or columns of a part */
#define CTS_SLOT_RANK_MAX       (1u << 16)
#define CTS_CLUSTER_NONE        UINT32_MAX

enum cts_part_kind { CTS_PART_SIGMA = 1, CTS_PART_LOWRANK = 2 };

/* One part of a slot: what one adapter has for one module. */
struct cts_slot_part {
    enum cts_part_kind kind;
    uint32_t       layer, linear;      /* linear as enum cts_linear */
    uint32_t       cluster;            /* of a sigma; CTS_CLUSTER_NONE for a pair */
    uint32_t n_rows, n_cols; /* sigma [rank_u, rank_v]; pair: P [n_out, rank], Q^T [rank, n_in]: n_rows = n_out,
                                n_cols = n_in */
    uint32_t       rank;               /* of a pair; 0 for a sigma */
    enum cts_dtype dtype;              /* as stored */
    float          scale;              /* the module's norm: multiplies the part */
    float         *values;             /* sigma [n_rows, n_cols], or P then Q^T */
};

struct cts_slot {
    uint8_t               digest[CTS_DIGEST_BYTES]; /* of the adapter */
    uint64_t              generation;
    uint32_t              n_parts;
    struct cts_slot_part *parts;  /* in the order of layer, linear, kind */
    void                 *memory; /* private to the reader */
};

/* Where the parts of a slot lie. */
struct cts_slot_layout {
    uint64_t payload_bytes, class_bytes;
    uint32_t payload_off; /* CTS_SLOT_BLOCK_BYTES or CTS_SLOT_HEADER_BYTES */
    uint64_t value_bytes; /* of all parts, without tables and padding */
};

/* The smallest size class of at least n bytes: 4096 * 2^k or 3 * 4096 * 2^k; 0 when there is none. */
uint64_t cts_slot_class(uint64_t n);
int      cts_slot_is_class(uint64_t class_bytes);

/* Number of values of a part whose shape is within the limits. */
uint64_t cts_slot_part_values(const struct cts_slot_part *p);

/* Layout of a slot with these parts (their values are not looked at). 0;
 * CTS_EUNSUP when a part is out of order, has a shape or number format that
 * version 1 has not, or when the slot would pass the largest class. */
int cts_slot_layout(struct cts_slot_layout *out, const struct cts_slot_part *parts, uint32_t n_parts,
                    struct cts_err *err);

/* Pack s as slot number slot_idx into dst [l->class_bytes], l from
 * cts_slot_layout (class_bytes may have been raised to a larger class since,
 * payload_off stays). Values are narrowed to each part's dtype. checksum
 * receives the slot's checksum. */
void cts_slot_pack(void *dst, const struct cts_slot_layout *l, uint64_t slot_idx, const struct cts_slot *s,
                   uint8_t checksum[CTS_SLOT_CHECKSUM_BYTES]);

/* Check the class_bytes at src, read as slot number slot_idx, and widen its
 * values to float32. 0 with *out filled (free with cts_slot_free; nothing in it
 * points into src); CTS_EDIGEST when the checksum is wrong, CTS_EVERSION,
 * CTS_EFORMAT, CTS_EUNSUP, -ENOMEM with the field and what to do in err and
 * *out untouched. checksum receives the slot's own. Any thread. */
int cts_slot_unpack(struct cts_slot *out, const void *src, uint64_t class_bytes, uint64_t slot_idx,
                    uint8_t checksum[CTS_SLOT_CHECKSUM_BYTES], struct cts_err *err);
void cts_slot_free(struct cts_slot *s); /* NULL and empty are fine */

#endif
