#ifndef CTS_DAEMON_ENGINE_ADAPTER_TABLES_H
#define CTS_DAEMON_ENGINE_ADAPTER_TABLES_H

/* Adapters on the device. A table has one struct ctsk_factor for each module of
 * the base and is what a row's list of parts points at; an adapter with two parts
 * for a module (a sigma and a residual) has two tables.
 *
 *   adapter_idx 0 .. n_compressed - 1      the collection's, in catalog order
 *               n_compressed .. n - 1      places of the exact lane, one table each
 *
 * Whoever opens may be another thread; afterwards the engine thread only. */

#include "common/err.h"
#include "daemon/model/model_config.h"
#include "daemon/model/peft.h"
#include "daemon/store/collection.h"
#include "kernels/ctsk.h"

#include <stdint.h>

struct cts_adapter_view {
    uint32_t first_table, n_tables;
    uint32_t cluster; /* of the exact lane: UINT32_MAX */
    uint32_t linears; /* bits of enum cts_linear that it changes in some layer */
    uint32_t n_users; /* live requests that name it: the engine's count */
    int      is_loaded;
};

struct cts_adapter_tables_opts {
    const struct cts_model_config *model;
    const struct cts_collection   *collection;        /* NULL: none */
    uint32_t                       n_exact, rank_max; /* places of the exact lane, and their rank */
};

/* What a collection and an exact lane take. */
struct cts_adapter_tables_size {
    uint64_t bases, sigmas, tables, exact; /* device bytes by what they hold */
    uint32_t n_tables;
    uint32_t n_tables_max; /* of one adapter */
    uint32_t rank_max;     /* of any part */
};

struct cts_adapter_tables {
    struct ctsk_dev               *dev;
    struct ctsk_stream            *stream;
    const struct cts_model_config *model;
    uint32_t                       n, n_compressed, n_modules;
    uint32_t                       n_tables_max; /* of one adapter */
    uint32_t                       rank_max;     /* of any part */
    uint32_t                       exact_rank_max;
    uint64_t                       exact_place_bytes;
    struct ctsk_buf               *bases, *sigmas, *tables, *exact;
    struct cts_adapter_view       *views;      /* [n] */
    struct ctsk_factor            *host_table; /* [n_modules], what is copied to the device */
};

/* Read and check every slot of the collection and add up. A collection of other
 * shapes than the base's is CTS_EFORMAT. 0; as cts_collection_read. No device. Blocks. */
int cts_adapter_tables_measure(const struct cts_adapter_tables_opts *o, struct cts_adapter_tables_size *size,
                               struct cts_err *err);

/* Put bases and sigmas on the device, as float32, and make room for the exact
 * lane. size is what cts_adapter_tables_measure found a moment ago: slots are read
 * again, and one that passes it now is CTS_ESHAPE. 0; as measure; -ENOMEM,
 * CTS_EGPU. On failure t is closed. Blocks. */
int  cts_adapter_tables_open(struct cts_adapter_tables *t, struct ctsk_dev *d, struct ctsk_stream *s,
                             const struct cts_adapter_tables_opts *o, const struct cts_adapter_tables_size *size,
                             struct cts_err *err);
void cts_adapter_tables_close(struct cts_adapter_tables *t); /* zeroed is fine */

/* Device address of a table. */
uint64_t cts_adapter_tables_at(const struct cts_adapter_tables *t, uint32_t table_idx);

/* Fill a place of the exact lane. 0; CTS_ESHAPE: a module that the base does not
 * have, a rank of 0 or past rank_max; CTS_EGPU. The place is empty on failure. */
int cts_adapter_tables_load(struct cts_adapter_tables *t, uint32_t adapter_idx, const struct cts_peft *p);

/* Empty a place: its table adds nothing from now on. */
int cts_adapter_tables_unload(struct cts_adapter_tables *t, uint32_t adapter_idx);

#endif
