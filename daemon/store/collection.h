#ifndef CTS_DAEMON_STORE_COLLECTION_H
#define CTS_DAEMON_STORE_COLLECTION_H

/* A collection on disk, as cts-collection(5) fixes it: collection.json,
 * basis.safetensors, sigma.<class>.slots. The reader trusts nothing: every
 * length, shape, index and checksum is checked before it is used. The writer
 * makes a whole new folder or none. Knows shapes and indices, not models. */

#include "common/dtype.h"
#include "common/err.h"
#include "common/hash.h"

#include <stdint.h>

#define CTS_NAME_BYTES_MAX 128 /* of an adapter's name, without the zero: [A-Za-z0-9._/-]+ after the first, which is a letter or digit */

/* Basis of one cluster for one module. */
struct cts_basis {
    uint32_t cluster, layer, linear; /* linear as enum cts_linear */
    uint32_t n_out, n_in, rank_u, rank_v;
    float   *u; /* [n_out, rank_u] */
    float   *vt;/* [rank_v, n_in]: V transposed, as the kernels read it; the file holds V [n_in, rank_v] */
};

enum cts_part_kind { CTS_PART_SIGMA = 1, CTS_PART_LOWRANK = 2 };

/* One part of a slot: what one adapter has for one module. */
struct cts_slot_part {
    enum cts_part_kind kind;
    uint32_t       layer, linear;
    uint32_t       cluster;            /* of a sigma */
    uint32_t       n_rows, n_cols;     /* sigma [rank_u, rank_v]; low rank: P [n_out, rank], Q^T [rank, n_in]: n_rows = n_out, n_cols = n_in */
    uint32_t       rank;               /* of low-rank factors; 0 for a sigma */
    enum cts_dtype dtype;              /* as stored */
    float          scale;              /* the module's norm: multiplies the part */
    float         *values;             /* sigma [n_rows, n_cols], or P then Q^T */
};

struct cts_slot {
    uint8_t               digest[CTS_DIGEST_BYTES]; /* of the adapter */
    uint64_t              generation;
    uint32_t              n_parts;
    struct cts_slot_part *parts;
    void                 *memory; /* private to the reader */
};

struct cts_collection_adapter {
    char     name[CTS_NAME_BYTES_MAX + 1];
    uint8_t  digest[CTS_DIGEST_BYTES];
    uint32_t cluster, class_idx, slot_idx;
    double   error_mean, error_energy;
};

struct cts_collection {
    char                           *dir;
    uint8_t                         base_digest[CTS_DIGEST_BYTES];
    uint8_t                         digest[CTS_DIGEST_BYTES]; /* of the collection: over collection.json's record of its files */
    uint64_t                        generation;
    uint32_t                        n_layers, n_clusters, n_bases, n_adapters, rank_max;
    struct cts_basis               *bases;    /* sorted by cluster, layer, linear */
    struct cts_collection_adapter  *adapters; /* in catalog order */
    void                           *files;    /* private */
};

/* Open and check everything but the slots, which are checked when read. 0;
 * -errno, CTS_EFORMAT, CTS_EDIGEST, CTS_EVERSION. Blocks. */
int  cts_collection_open(struct cts_collection *c, const char *dir, struct cts_err *err);
void cts_collection_close(struct cts_collection *c);

/* Read and check one adapter's slot. CTS_EDIGEST when the checksum, the slot
 * number or the adapter's digest is another. Free with cts_slot_free. Blocks. */
int  cts_collection_read(const struct cts_collection *c, uint32_t adapter_idx, struct cts_slot *out, struct cts_err *err);
void cts_slot_free(struct cts_slot *s);

#endif
