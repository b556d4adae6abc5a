#ifndef CTS_TESTS_TINY_COLLECTION_H
#define CTS_TESTS_TINY_COLLECTION_H

/* A collection of a few numbers that are known by heart: two clusters over one
 * layer's q_proj [3, 4] and k_proj [2, 4], rank 2, and four adapters. "a" and
 * "b" have sigmas of cluster 0, "c" has a sigma of cluster 1 and a pair beside
 * it, "d" has a pair alone. */

#include "daemon/store/collection.h"
#include "tests/check.h"

#include <string.h>

#define TINY_N_ADAPTERS 4

struct tiny {
    float                       u[4][6], vt[4][8], values[6][16];
    struct cts_basis            bases[4];
    struct cts_slot_part        parts[6];
    struct cts_collection_entry entries[TINY_N_ADAPTERS];
    struct cts_collection_new   n;
};

/* The slot that cts-collection(5) shows. values is [4]. */
static inline void tiny_example_slot(struct cts_slot *s, struct cts_slot_part *part, float *values)
{
    static const float v[4] = { 1.0f, 0.5f, -0.25f, 3.0f };

    memcpy(values, v, sizeof(v));
    *part = (struct cts_slot_part){ .kind = CTS_PART_SIGMA, .n_rows = 2, .n_cols = 2, .dtype = CTS_BF16, .scale = 2.0f,
                                    .values = values };
    *s = (struct cts_slot){ .generation = 1, .n_parts = 1, .parts = part };
    for (int i = 0; i < CTS_DIGEST_BYTES; i++) s->digest[i] = (uint8_t)i;
}

static inline void tiny_sigma(struct tiny *t, int part, uint32_t cluster, uint32_t linear)
{
    for (int k = 0; k < 4; k++) t->values[part][k] = (float)(part + 1) * 0.5f + (float)k;
    t->parts[part] = (struct cts_slot_part){ .kind = CTS_PART_SIGMA, .linear = linear, .cluster = cluster, .n_rows = 2,
                                             .n_cols = 2, .dtype = CTS_F32, .scale = 1.5f, .values = t->values[part] };
}

static inline void tiny_pair(struct tiny *t, int part, uint32_t linear, uint32_t n_out)
{
    for (int k = 0; k < 16; k++) t->values[part][k] = (float)k * 0.25f - (float)part;
    t->parts[part] = (struct cts_slot_part){ .kind = CTS_PART_LOWRANK, .linear = linear, .cluster = CTS_CLUSTER_NONE,
                                             .n_rows = n_out, .n_cols = 4, .rank = 1, .dtype = CTS_F16, .scale = 0.25f,
                                             .values = t->values[part] };
}

static inline void tiny_fill(struct tiny *t)
{
    static const char *const names[TINY_N_ADAPTERS] = { "a", "b", "c", "d" };
    static const uint32_t    first[TINY_N_ADAPTERS] = { 0, 1, 3, 5 }, count[TINY_N_ADAPTERS] = { 1, 2, 2, 1 };

    memset(t, 0, sizeof(*t));
    for (uint32_t b = 0; b < 4; b++) {
        t->bases[b] = (struct cts_basis){ .cluster = b / 2, .linear = b % 2, .n_out = b % 2 == 0 ? 3 : 2, .n_in = 4,
                                          .rank_u = 2, .rank_v = 2, .u = t->u[b], .vt = t->vt[b] };
        for (int k = 0; k < 6; k++) t->u[b][k] = (float)((int)b * 10 + k);
        for (int k = 0; k < 8; k++) t->vt[b][k] = (float)((int)b * 10 - k);
    }
    tiny_sigma(t, 0, 0, 0);
    tiny_sigma(t, 1, 0, 0);
    tiny_sigma(t, 2, 0, 1);
    tiny_sigma(t, 3, 1, 1);
    tiny_pair(t, 4, 1, 2);
    tiny_pair(t, 5, 0, 3);
    for (int i = 0; i < TINY_N_ADAPTERS; i++) {
        t->entries[i] =
            (struct cts_collection_entry){ .name = names[i],
                                           .error_mean = 0.125 * i,
                                           .error_energy = 0.1 * i,
                                           .slot = { .n_parts = count[i], .parts = &t->parts[first[i]] } };
        memset(t->entries[i].slot.digest, 'A' + i, CTS_DIGEST_BYTES);
    }
    t->n = (struct cts_collection_new){ .tool = "test 1", .method = "jd-full", .assignment = "given", .generation = 7,
                                        .seed = 3, .n_layers = 1, .rank = 2, .n_clusters = 2, .sigma_format = CTS_F32,
                                        .basis_format = CTS_F32, .error_mean = 0.25, .error_energy = 0.2, .n_bases = 4,
                                        .n_adapters = TINY_N_ADAPTERS, .bases = t->bases, .adapters = t->entries };
    memset(t->n.base_digest, 'Z', CTS_DIGEST_BYTES);
}

/* Write the collection to dir, which must not exist or may be replaced. */
static inline int tiny_write(const char *dir, const struct cts_collection_new *n, int is_replacing,
                             struct cts_collection_bytes *bytes, struct cts_err *err)
{
    struct cts_collection_writer w;
    uint8_t                      digest[CTS_DIGEST_BYTES];
    int                          rc = cts_collection_writer_open(&w, dir, is_replacing, err);

    if (rc < 0) return rc;
    rc = cts_collection_writer_commit(&w, n, bytes, digest, err);
    cts_collection_writer_close(&w);
    return rc;
}

#endif
