#include "tests/lossless.h"

#include "daemon/model/peft.h"
#include "daemon/model/weights.h"
#include "daemon/store/collection.h"
#include "tests/check.h"

#include <dirent.h>
#include <string.h>

#define N_MAX     64
#define RANK      16 /* of the demo's adapters */
#define MODULES   12 /* q, k and v of four layers */
#define PARTS_MAX (2 * MODULES)

struct source {
    char                 names[N_MAX][64];
    struct cts_peft      peft[N_MAX];
    uint32_t             n;
    struct cts_slot_part parts[N_MAX][PARTS_MAX];
};

void remove_tree(const char *dir)
{
    char cmd[600];

    CHECK(strchr(dir, '\'') == NULL);
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
    CHECK(system(cmd) == 0);
}

static float *floats(size_t n)
{
    float *p = calloc(n, sizeof(*p));

    CHECK(p != NULL);
    return p;
}

static int is_name(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_adapters(struct source *s, const char *folder, const struct cts_model_config *c, const uint8_t *base)
{
    char            path[512], dir[1024];
    struct dirent **list;
    struct cts_err  err = { 0 };
    int             n = scandir(src_path(path, sizeof(path), folder), &list, is_name, by_bytes);

    CHECK(n > 0 && n <= N_MAX);
    for (int i = 0; i < n; i++) {
        CHECK(snprintf(s->names[i], 64, "%s", list[i]->d_name) < 64);
        snprintf(dir, sizeof(dir), "%s/%s", path, list[i]->d_name);
        CHECK_MSG(cts_peft_read(&s->peft[i], dir, c, base, &err) == 0, "%s\n", err.text);
        CHECK(s->peft[i].n_modules == MODULES && s->peft[i].rank_max == RANK);
        free(list[i]);
    }
    free(list);
    s->n = (uint32_t)n;
}

/* The basis of adapters 2k and 2k + 1 (the last may be alone) for module m. */
static void make_basis(struct cts_basis *b, const struct source *s, uint32_t k, uint32_t m)
{
    const struct cts_peft_module *first = &s->peft[2 * k].modules[m];

    *b = (struct cts_basis){ .cluster = k,
                             .layer = first->layer,
                             .linear = first->linear,
                             .n_out = first->n_out,
                             .n_in = first->n_in,
                             .rank_u = 2 * RANK,
                             .rank_v = 2 * RANK };
    b->u = floats((size_t)b->n_out * 2 * RANK);
    b->vt = floats((size_t)b->n_in * 2 * RANK);
    for (uint32_t half = 0; half < 2 && 2 * k + half < s->n; half++) {
        const struct cts_peft_module *p = &s->peft[2 * k + half].modules[m];

        for (uint32_t o = 0; o < b->n_out; o++)
            memcpy(b->u + (size_t)o * 2 * RANK + half * RANK, p->b + (size_t)o * RANK, RANK * sizeof(float));
        memcpy(b->vt + (size_t)half * RANK * b->n_in, p->a, (size_t)RANK * b->n_in * sizeof(float));
    }
}

/* The sigma of adapter i: ranks first .. RANK - 1 of its half of the basis. */
static void make_sigma(struct cts_slot_part *part, const struct cts_peft_module *p, uint32_t i, uint32_t first)
{
    *part = (struct cts_slot_part){ .kind = CTS_PART_SIGMA,
                                    .layer = p->layer,
                                    .linear = p->linear,
                                    .cluster = i / 2,
                                    .n_rows = 2 * RANK,
                                    .n_cols = 2 * RANK,
                                    .dtype = CTS_F32,
                                    .scale = p->scale };
    part->values = floats(4 * RANK * RANK);
    for (uint32_t r = first; r < RANK; r++) {
        uint32_t at = i % 2 * RANK + r;
        part->values[(size_t)at * 2 * RANK + at] = 1;
    }
}

/* A pair of the first n ranks. */
static void make_pair(struct cts_slot_part *part, const struct cts_peft_module *p, uint32_t n)
{
    *part = (struct cts_slot_part){ .kind = CTS_PART_LOWRANK,
                                    .layer = p->layer,
                                    .linear = p->linear,
                                    .cluster = CTS_CLUSTER_NONE,
                                    .n_rows = p->n_out,
                                    .n_cols = p->n_in,
                                    .rank = n,
                                    .dtype = CTS_F32,
                                    .scale = p->scale };
    part->values = floats((size_t)n * (p->n_out + p->n_in));
    for (uint32_t o = 0; o < p->n_out; o++)
        memcpy(part->values + (size_t)o * n, p->b + (size_t)o * RANK, n * sizeof(float));
    memcpy(part->values + (size_t)p->n_out * n, p->a, (size_t)n * p->n_in * sizeof(float));
}

static uint32_t make_parts(struct source *s, uint32_t i)
{
    uint32_t n_pair = i % 4 == 2 ? RANK / 2 : i % 4 == 3 ? RANK : 0, n = 0;

    for (uint32_t m = 0; m < MODULES; m++) {
        const struct cts_peft_module *p = &s->peft[i].modules[m];

        if (n_pair < RANK) make_sigma(&s->parts[i][n++], p, i, n_pair);
        if (n_pair > 0) make_pair(&s->parts[i][n++], p, n_pair);
    }
    return n;
}

static void damage_parts(const struct lossless_damage *d, const char *name, struct cts_slot_part *parts, uint32_t n)
{
    int drops = d->drop_scale != NULL && strcmp(d->drop_scale, name) == 0;
    int zeroes = d->zero != NULL && strcmp(d->zero, name) == 0;

    for (uint32_t i = 0; i < n; i++) {
        if (drops) parts[i].scale = 1;
        if (zeroes && parts[i].layer == d->zero_layer && parts[i].linear == (uint32_t)d->zero_linear)
            memset(parts[i].values, 0, cts_slot_part_values(&parts[i]) * sizeof(float));
    }
}

static uint32_t find_name(const struct source *s, const char *name)
{
    uint32_t i = 0;

    while (i < s->n && strcmp(s->names[i], name) != 0) i++;
    CHECK_MSG(i < s->n, "no adapter %s\n", name);
    return i;
}

static void make_entries(struct source *s, struct cts_collection_entry *entries, const struct lossless_damage *d)
{
    for (uint32_t i = 0; i < s->n; i++) {
        entries[i] = (struct cts_collection_entry){ .name = s->names[i] };
        memcpy(entries[i].slot.digest, s->peft[i].digest, CTS_DIGEST_BYTES);
        entries[i].slot.parts = s->parts[i];
        entries[i].slot.n_parts = make_parts(s, i);
        if (d != NULL) damage_parts(d, s->names[i], s->parts[i], entries[i].slot.n_parts);
    }
    if (d != NULL && d->swap[0] != NULL) {
        struct cts_slot *a = &entries[find_name(s, d->swap[0])].slot, *b = &entries[find_name(s, d->swap[1])].slot;
        struct cts_slot  t = *a;

        a->parts = b->parts;
        a->n_parts = b->n_parts;
        b->parts = t.parts;
        b->n_parts = t.n_parts;
    }
}

static void commit(const char *dir, const struct cts_collection_new *n)
{
    struct cts_collection_writer w = { .lock_fd = -1, .old_lock_fd = -1 };
    struct cts_collection_bytes  bytes;
    uint8_t                      digest[CTS_DIGEST_BYTES];
    struct cts_err               err = { 0 };

    CHECK_MSG(cts_collection_writer_open(&w, dir, 0, &err) == 0, "%s\n", err.text);
    CHECK_MSG(cts_collection_writer_commit(&w, n, &bytes, digest, &err) == 0, "%s\n", err.text);
    cts_collection_writer_close(&w);
}

void lossless_write(const char *dir, const char *adapters_folder, const struct lossless_damage *damage)
{
    struct source              *s = calloc(1, sizeof(*s));
    struct cts_collection_entry entries[N_MAX];
    struct cts_basis           *bases;
    struct cts_model_config     c;
    struct cts_collection_new   n = { .tool = "lossless 1",
                                      .method = "jd-full",
                                      .assignment = "given",
                                      .generation = 1,
                                      .rank = 2 * RANK,
                                      .sigma_format = CTS_F32,
                                      .basis_format = CTS_F32 };
    char                        base[512];

    CHECK(s != NULL);
    src_path(base, sizeof(base), "contrib/demo/base");
    CHECK(cts_model_config_load(&c, base, NULL) == 0);
    CHECK(cts_base_digest(base, &c, n.base_digest, NULL) == 0);
    read_adapters(s, adapters_folder, &c, n.base_digest);
    n.n_layers = c.n_layers;
    n.n_clusters = (s->n + 1) / 2;
    n.n_bases = n.n_clusters * MODULES;
    n.n_adapters = s->n;
    bases = calloc(n.n_bases, sizeof(*bases));
    CHECK(bases != NULL);
    for (uint32_t i = 0; i < n.n_bases; i++) make_basis(&bases[i], s, i / MODULES, i % MODULES);
    make_entries(s, entries, damage);
    n.bases = bases;
    n.adapters = entries;
    commit(dir, &n);

    for (uint32_t i = 0; i < n.n_bases; i++) {
        free(bases[i].u);
        free(bases[i].vt);
    }
    free(bases);
    for (uint32_t i = 0; i < s->n; i++) {
        for (uint32_t k = 0; k < PARTS_MAX; k++) free(s->parts[i][k].values);
        cts_peft_free(&s->peft[i]);
    }
    free(s);
}
