#ifndef CTS_DAEMON_COMPRESS_COMPRESS_H
#define CTS_DAEMON_COMPRESS_COMPRESS_H

/* The whole way from loaded adapters to a collection in memory, and onto the disk. */

#include "common/dtype.h"
#include "common/err.h"
#include "daemon/compress/adapter_set.h"
#include "daemon/compress/code.h"
#include "daemon/store/collection.h"

#include <stdint.h>

enum cts_method { CTS_METHOD_JD_FULL, CTS_METHOD_SVD };

struct cts_compress_opts {
    enum cts_method method;
    uint32_t        rank;       /* of bases and sigmas, or of pairs */
    uint32_t        n_clusters; /* of jd-full: to be found; 1: one for all */
    const uint32_t *cluster;    /* [n], or NULL: given clusters, n_clusters of them */
    uint64_t        seed, generation;
    enum cts_dtype  format, basis_format;
    uint32_t        n_threads;
    /* Called from time to time by the calling thread; may be NULL. */
    void          (*on_progress)(void *arg, const char *what, uint32_t n_done, uint32_t n_total);
    void           *on_progress_arg;
};

/* What became of one adapter. */
struct cts_compress_adapter {
    uint32_t cluster; /* CTS_CLUSTER_NONE with svd */
    double   error_mean, error_energy;
    uint64_t value_bytes, scale_bytes;
    uint64_t basis_bytes;  /* its share of the cluster's bases */
    uint64_t header_bytes; /* of its slot, padding included; set by cts_compressed_write */
};

struct cts_compressed {
    const struct cts_adapter_set *set; /* borrowed */
    struct cts_compress_opts      o;   /* with pointers that are not used any more */
    const char                   *assignment; /* "one", "given", "fitted" */
    uint32_t                      n_clusters; /* 0 with svd */
    uint32_t                      n_bases;
    struct cts_basis             *bases; /* [n_bases], by cluster, layer, linear */
    struct cts_coded             *coded; /* [n, n_modules]; without values where an adapter has no part */
    struct cts_compress_adapter  *adapters; /* [n] */
    double                        error_mean, error_energy;
};

/* Compress the adapters of set, which has at least one and stays as it is until
 * cts_compressed_free. The same bytes for any number of threads. 0; -ENOMEM,
 * -EDOM (an eigenproblem that does not converge) with the module in err, and *c
 * empty. Blocks. */
int  cts_compress(struct cts_compressed *c, const struct cts_adapter_set *set, const struct cts_compress_opts *o,
                  struct cts_err *err);
void cts_compressed_free(struct cts_compressed *c); /* empty is fine */

/* Write it through w. Errors as cts_collection_writer_commit. Blocks. */
int cts_compressed_write(struct cts_compressed *c, struct cts_collection_writer *w, struct cts_collection_bytes *bytes,
                         uint8_t digest[CTS_DIGEST_BYTES], struct cts_err *err);

#endif
