#ifndef CTS_DAEMON_COMPRESS_CLUSTER_H
#define CTS_DAEMON_COMPRESS_CLUSTER_H

#include "daemon/compress/compress.h"

/* Find o->n_clusters clusters of one size (give or take one) for the adapters
 * of set: k-means on a random sketch of the normalised adapters, then each
 * adapter to the cluster whose other members' bases keep most of it, and the
 * bases fitted again, until that finds nothing better; the best of two starts.
 * cluster [set->n] is set. The same for any number of threads. 0; -ENOMEM,
 * -EDOM. Blocks. */
int cts_cluster_find(uint32_t *cluster, const struct cts_adapter_set *set, const struct cts_compress_opts *o,
                     struct cts_err *err);

#endif
