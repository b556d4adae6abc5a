#ifndef CTS_DAEMON_COMPRESS_ASSIGN_H
#define CTS_DAEMON_COMPRESS_ASSIGN_H

#include "daemon/compress/adapter_set.h"

/* Read which adapter goes to which cluster from a JSON object
 * {"adapter": cluster, ...}: every adapter of the set, clusters from 0 without
 * a gap. Entries of refused adapters are passed over. cluster [s->n] and
 * *n_clusters are set. 0; CTS_EFORMAT, CTS_ENOTFOUND, -errno with the key. Blocks. */
int cts_assign_load(const char *path, const struct cts_adapter_set *s, uint32_t *cluster, uint32_t *n_clusters,
                    struct cts_err *err);

#endif
