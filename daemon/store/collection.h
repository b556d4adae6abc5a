#ifndef CTS_DAEMON_STORE_COLLECTION_H
#define CTS_DAEMON_STORE_COLLECTION_H

/* A collection on disk, as cts-collection(5) fixes it: collection.json,
 * basis.safetensors, sigma.<class>.slots. The reader trusts nothing: every
 * length, shape, index and checksum is checked before it is used. The writer
 * makes a whole new folder or none. Knows shapes and indices, not models. */

#include "common/dtype.h"
#include "common/err.h"
#include "common/hash.h"
#include "daemon/store/slot_file.h"

#include <stdint.h>

/* Of an adapter's name, without the zero: [A-Za-z0-9._/-]+, the first a letter
 * or a digit, no component empty, "." or "..". */
#define CTS_NAME_BYTES_MAX         128
#define CTS_COLLECTION_CLASSES_MAX 8

/* Basis of one cluster for one module. */
struct cts_basis {
    uint32_t cluster, layer, linear; /* linear as enum cts_linear */
    uint32_t n_out, n_in, rank_u, rank_v;
    float   *u;  /* [n_out, rank_u] */
    float   *vt; /* [rank_v, n_in]: V transposed, as the kernels read it; the file holds V [n_in, rank_v] */
};

struct cts_collection_adapter {
    char     name[CTS_NAME_BYTES_MAX + 1];
    uint8_t  digest[CTS_DIGEST_BYTES];
    uint32_t cluster;    /* CTS_CLUSTER_NONE for one without a sigma */
    uint32_t class_idx;  /* private: which file */
    uint64_t class_bytes;
    uint32_t slot_idx;
    uint8_t  checksum[CTS_SLOT_CHECKSUM_BYTES]; /* of its slot */
    double   error_mean, error_energy;
};

struct cts_collection {
    char                           *dir;
    uint8_t                         base_digest[CTS_DIGEST_BYTES];
    uint8_t                         digest[CTS_DIGEST_BYTES]; /* the collection's, over its record */
    uint64_t                        generation;
    uint32_t                        n_layers, n_clusters, n_bases, n_adapters;
    uint32_t                        rank_max; /* of any basis */
    double                          error_mean, error_energy;
    struct cts_basis               *bases;    /* sorted by cluster, layer, linear */
    struct cts_collection_adapter  *adapters; /* in catalog order: by name, as bytes */
    void                           *files;    /* private */
};

/* Open and check everything but the slots, which are checked when read. 0;
 * -errno, CTS_EFORMAT, CTS_EUNSUP, CTS_EDIGEST, CTS_EVERSION with the file, the
 * fault and what to do in err, and *c closed. Blocks. */
int  cts_collection_open(struct cts_collection *c, const char *dir, struct cts_err *err);
void cts_collection_close(struct cts_collection *c); /* half-open and closed are fine */

/* Index of an adapter by name; -1 when there is none. Any thread. */
int64_t cts_collection_find(const struct cts_collection *c, const char *name);

/* The basis of one cluster for one module; NULL when there is none. Any thread. */
const struct cts_basis *cts_collection_basis(const struct cts_collection *c, uint32_t cluster, uint32_t layer,
                                             uint32_t linear);

/* Read and check one adapter's slot: checksum, slot number, generation, the
 * adapter's digest, and each sigma's shape against its basis. CTS_EDIGEST,
 * CTS_EFORMAT, CTS_EUNSUP, CTS_EVERSION, -EIO for a file that ends too early,
 * -errno; *out is untouched then. Free with cts_slot_free. Blocks; any thread. */
int cts_collection_read(const struct cts_collection *c, uint32_t adapter_idx, struct cts_slot *out,
                        struct cts_err *err);

/* 0, or CTS_EARG when name is no adapter's name. */
int cts_collection_check_name(const char *name, struct cts_err *err);

/* One adapter of a collection that is to be written. */
struct cts_collection_entry {
    const char     *name;
    struct cts_slot slot; /* generation is set by the writer */
    double          error_mean, error_energy;
    uint64_t        class_bytes; /* of its slot: set by the writer */
};

/* A collection that is to be written. All memory is the caller's. */
struct cts_collection_new {
    const char    *tool, *method, *assignment; /* as cts-collection(5) lists them */
    uint8_t        base_digest[CTS_DIGEST_BYTES];
    uint64_t       generation, seed;
    uint32_t       n_layers, rank, n_clusters;
    enum cts_dtype sigma_format, basis_format;
    double         error_mean, error_energy;
    uint32_t       n_bases, n_adapters;
    const struct cts_basis      *bases;    /* sorted by cluster, layer, linear */
    struct cts_collection_entry *adapters; /* sorted by name, as bytes */
};

/* Where the bytes of a collection went. */
struct cts_collection_bytes {
    uint64_t basis, values, scales;
    uint64_t headers; /* slot headers, tables of parts, padding, the header of basis.safetensors */
};

struct cts_collection_writer {
    char *dir, *tmp; /* the collection, and the folder beside it that becomes it */
    int   lock_fd, old_lock_fd, is_made, is_replacing;
};

/* Begin to write the collection dir: makes the folder beside it and takes its
 * lock, held until close. is_replacing allows dir to be a collection already.
 * CTS_EBUSY when another writer is at it, -EEXIST, -errno. */
int cts_collection_writer_open(struct cts_collection_writer *w, const char *dir, int is_replacing, struct cts_err *err);

/* Write everything and rename it into place; digest receives the collection's.
 * On failure what was in dir before is there still. CTS_EUNSUP for a slot or a
 * shape that the format has not. Blocks. */
int cts_collection_writer_commit(struct cts_collection_writer *w, const struct cts_collection_new *n,
                                 struct cts_collection_bytes *bytes, uint8_t digest[CTS_DIGEST_BYTES],
                                 struct cts_err *err);

/* Removes what was not committed; half-open is fine. */
void cts_collection_writer_close(struct cts_collection_writer *w);

#endif
