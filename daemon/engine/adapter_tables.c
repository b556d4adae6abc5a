#include "daemon/engine/adapter_tables.h"

#include "common/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_BYTES 64

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

static uint64_t matrix_bytes(uint64_t n_rows, uint64_t n_cols)
{
    return aligned(n_rows * n_cols * sizeof(float));
}

static uint64_t basis_bytes(const struct cts_basis *b)
{
    return matrix_bytes(b->n_out, b->rank_u) + matrix_bytes(b->rank_v, b->n_in);
}

static uint64_t part_bytes(const struct cts_slot_part *p)
{
    if (p->kind == CTS_PART_SIGMA) return matrix_bytes(p->n_rows, p->n_cols);
    return matrix_bytes(p->n_rows, p->rank) + matrix_bytes(p->rank, p->n_cols);
}

/* The exact lane's place for an adapter of rank_max on all modules. */
static uint64_t place_bytes(const struct cts_model_config *c, uint32_t rank_max)
{
    uint64_t sum = 0;

    for (int l = 0; l < CTS_N_LINEARS; l++) {
        uint32_t n_out, n_in;

        cts_linear_shape(c, (enum cts_linear)l, &n_out, &n_in);
        sum += matrix_bytes(rank_max, n_in) + matrix_bytes(n_out, rank_max);
    }
    return sum * c->n_layers;
}

static const struct cts_basis *find_basis(const struct cts_collection *c, const struct cts_slot_part *p)
{
    return cts_collection_basis(c, p->cluster, p->layer, p->linear);
}

static int is_module(const struct cts_model_config *m, uint32_t layer, uint32_t linear, uint32_t n_out, uint32_t n_in)
{
    uint32_t want_out, want_in;

    if (layer >= m->n_layers || linear >= CTS_N_LINEARS) return 0;
    cts_linear_shape(m, (enum cts_linear)linear, &want_out, &want_in);
    return n_out == want_out && n_in == want_in;
}

static int check_bases(const struct cts_adapter_tables_opts *o, struct cts_err *err)
{
    const struct cts_collection *c = o->collection;

    for (uint32_t i = 0; i < c->n_bases; i++) {
        const struct cts_basis *b = &c->bases[i];

        if (!is_module(o->model, b->layer, b->linear, b->n_out, b->n_in) || b->rank_u == 0 || b->rank_v == 0)
            return cts_err_set(err, CTS_EFORMAT,
                               "collection '%s': basis of cluster %u, layer %u, linear %u is %u x %u, which the base "
                               "does not have",
                               c->dir, b->cluster, b->layer, b->linear, b->n_out, b->n_in);
    }
    return 0;
}

static int check_slot(const struct cts_adapter_tables_opts *o, const struct cts_slot *s, const char *name,
                      struct cts_err *err)
{
    for (uint32_t i = 0; i < s->n_parts; i++) {
        const struct cts_slot_part *p = &s->parts[i];
        const struct cts_basis     *b = p->kind == CTS_PART_SIGMA ? find_basis(o->collection, p) : NULL;
        int                         is_right;

        if (p->kind == CTS_PART_SIGMA) is_right = b != NULL && p->n_rows == b->rank_u && p->n_cols == b->rank_v;
        else is_right = p->rank > 0 && is_module(o->model, p->layer, p->linear, p->n_rows, p->n_cols);
        if (!is_right)
            return cts_err_set(err, CTS_EFORMAT, "collection '%s': adapter %s, layer %u, linear %u: %u x %u fits %s",
                               o->collection->dir, name, p->layer, p->linear, p->n_rows, p->n_cols,
                               p->kind == CTS_PART_SIGMA ? "no basis" : "no module of the base");
    }
    return 0;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t part_rank(const struct cts_slot_part *p)
{
    return p->kind == CTS_PART_SIGMA ? max_u32(p->n_rows, p->n_cols) : p->rank;
}

/* Tables that a slot needs: the most parts that it has for one module. */
static uint32_t slot_tables(const struct cts_slot *s)
{
    uint32_t n_max = 1;

    for (uint32_t i = 0; i < s->n_parts; i++) {
        uint32_t n = 1;

        for (uint32_t j = 0; j < i; j++)
            n += s->parts[j].layer == s->parts[i].layer && s->parts[j].linear == s->parts[i].linear;
        n_max = max_u32(n_max, n);
    }
    return n_max;
}

static uint32_t slot_linears(const struct cts_slot *s)
{
    uint32_t bits = 0;

    for (uint32_t i = 0; i < s->n_parts; i++) bits |= 1u << s->parts[i].linear;
    return bits;
}

static void measure_slot(const struct cts_slot *s, struct cts_adapter_tables_size *size)
{
    uint32_t n = slot_tables(s);

    size->n_tables += n;
    size->n_tables_max = max_u32(size->n_tables_max, n);
    for (uint32_t i = 0; i < s->n_parts; i++) {
        size->sigmas += part_bytes(&s->parts[i]);
        size->rank_max = max_u32(size->rank_max, part_rank(&s->parts[i]));
    }
}

static int read_slot(const struct cts_adapter_tables_opts *o, uint32_t i, struct cts_slot *s, struct cts_err *err)
{
    int rc = cts_collection_read(o->collection, i, s, err);

    if (rc != 0) return rc;
    rc = check_slot(o, s, o->collection->adapters[i].name, err);
    if (rc != 0) cts_slot_free(s);
    return rc;
}

/* The slots are not kept: a whole collection in host memory would be the larger evil. */
static int measure_collection(const struct cts_adapter_tables_opts *o, struct cts_adapter_tables_size *size,
                              struct cts_err *err)
{
    int rc = check_bases(o, err);

    if (rc != 0) return rc;
    for (uint32_t i = 0; i < o->collection->n_bases; i++) size->bases += basis_bytes(&o->collection->bases[i]);
    for (uint32_t i = 0; i < o->collection->n_adapters; i++) {
        struct cts_slot s;

        if ((rc = read_slot(o, i, &s, err)) != 0) return rc;
        measure_slot(&s, size);
        cts_slot_free(&s);
    }
    return 0;
}

int cts_adapter_tables_measure(const struct cts_adapter_tables_opts *o, struct cts_adapter_tables_size *size,
                               struct cts_err *err)
{
    struct cts_adapter_tables_size s = { .n_tables = o->n_exact, .n_tables_max = 1, .rank_max = 1 };
    int                            rc = 0;

    if (o->n_exact > 0) s.rank_max = o->rank_max;
    s.exact = o->n_exact * place_bytes(o->model, o->rank_max);
    if (o->collection != NULL) rc = measure_collection(o, &s, err);
    if (rc != 0) return rc;
    s.tables = (uint64_t)s.n_tables * o->model->n_layers * CTS_N_LINEARS * sizeof(struct ctsk_factor);
    *size = s;
    return 0;
}

/* Copy a matrix to *off of buf and move *off behind it; returns its address in *at. */
static int put_matrix(struct cts_adapter_tables *t, struct ctsk_buf *buf, uint64_t *off, const float *m,
                      uint64_t n_rows, uint64_t n_cols, uint64_t *at)
{
    if (*off + matrix_bytes(n_rows, n_cols) > ctsk_buf_bytes(buf)) return CTS_ESHAPE;
    *at = ctsk_at(buf, *off).addr;
    int rc = ctsk_upload(t->stream, buf, *off, m, n_rows * n_cols * sizeof(float));
    *off += matrix_bytes(n_rows, n_cols);
    return rc;
}

static uint64_t table_bytes(const struct cts_adapter_tables *t)
{
    return (uint64_t)t->n_modules * sizeof(struct ctsk_factor);
}

/* Copy host_table to the device and wait: what its entries were made from may go. */
static int put_table(struct cts_adapter_tables *t, uint32_t table_idx)
{
    int rc = ctsk_upload(t->stream, t->tables, table_idx * table_bytes(t), t->host_table, table_bytes(t));
    int rc_sync = ctsk_sync(t->stream);

    return rc != 0 ? rc : rc_sync;
}

/* Where the bases lie: [n_bases] pairs of addresses, in the order of the collection. */
struct basis_place {
    uint64_t u, vt;
};

static int put_bases(struct cts_adapter_tables *t, const struct cts_collection *c, struct basis_place *places)
{
    uint64_t off = 0;
    int      rc = 0;

    for (uint32_t i = 0; i < c->n_bases && rc == 0; i++) {
        const struct cts_basis *b = &c->bases[i];

        rc = put_matrix(t, t->bases, &off, b->u, b->n_out, b->rank_u, &places[i].u);
        if (rc == 0) rc = put_matrix(t, t->bases, &off, b->vt, b->rank_v, b->n_in, &places[i].vt);
    }
    int rc_sync = ctsk_sync(t->stream);
    return rc != 0 ? rc : rc_sync;
}

static int put_part(struct cts_adapter_tables *t, const struct cts_collection *c, const struct basis_place *places,
                    const struct cts_slot_part *p, uint64_t *off)
{
    struct ctsk_factor *f = &t->host_table[cts_module_idx(p->layer, (enum cts_linear)p->linear)];
    int                 rc;

    /* The file was measured a moment ago; kernels rely on what was found then. */
    if (part_rank(p) > t->rank_max) return CTS_ESHAPE;
    *f = (struct ctsk_factor){ .scale = p->scale };
    if (p->kind == CTS_PART_SIGMA) {
        const struct basis_place *b = &places[find_basis(c, p) - c->bases];

        f->right = b->vt;
        f->left = b->u;
        f->rank_in = p->n_cols;
        f->rank_out = p->n_rows;
        return put_matrix(t, t->sigmas, off, p->values, p->n_rows, p->n_cols, &f->sigma);
    }
    f->rank_in = f->rank_out = p->rank;
    rc = put_matrix(t, t->sigmas, off, p->values, p->n_rows, p->rank, &f->left);
    if (rc != 0) return rc;
    return put_matrix(t, t->sigmas, off, p->values + (size_t)p->n_rows * p->rank, p->rank, p->n_cols, &f->right);
}

/* The k-th part of every module goes into the adapter's k-th table. */
static int put_slot(struct cts_adapter_tables *t, const struct cts_collection *c, const struct basis_place *places,
                    const struct cts_slot *s, const struct cts_adapter_view *v, uint64_t *off)
{
    int rc = v->n_tables <= t->n_tables_max ? 0 : CTS_ESHAPE;

    for (uint32_t k = 0; k < v->n_tables && rc == 0; k++) {
        memset(t->host_table, 0, table_bytes(t));
        for (uint32_t i = 0; i < s->n_parts && rc == 0; i++) {
            uint32_t n_before = 0;

            for (uint32_t j = 0; j < i; j++)
                n_before += s->parts[j].layer == s->parts[i].layer && s->parts[j].linear == s->parts[i].linear;
            if (n_before == k) rc = put_part(t, c, places, &s->parts[i], off);
        }
        int rc_table = put_table(t, v->first_table + k);
        if (rc == 0) rc = rc_table;
    }
    return rc;
}

static int put_collection(struct cts_adapter_tables *t, const struct cts_adapter_tables_opts *o, struct cts_err *err)
{
    const struct cts_collection *c = o->collection;
    struct basis_place          *places = calloc(c->n_bases + 1u, sizeof(*places));
    uint32_t                     n_tables = 0;
    uint64_t                     off = 0;
    int                          rc = -ENOMEM;

    if (places != NULL) rc = put_bases(t, c, places);
    if (rc != 0) cts_err_set(err, rc, "collection '%s': copy the bases to the device", c->dir);
    for (uint32_t i = 0; i < c->n_adapters && rc == 0; i++) {
        struct cts_slot s;

        if ((rc = read_slot(o, i, &s, err)) != 0) break;
        t->views[i] = (struct cts_adapter_view){ .first_table = n_tables,
                                                 .n_tables = slot_tables(&s),
                                                 .cluster = c->adapters[i].cluster,
                                                 .linears = slot_linears(&s),
                                                 .is_loaded = 1 };
        n_tables += t->views[i].n_tables;
        rc = put_slot(t, c, places, &s, &t->views[i], &off);
        cts_slot_free(&s);
        if (rc != 0)
            cts_err_set(err, rc, "collection '%s': copy adapter %s to the device", c->dir, c->adapters[i].name);
    }
    free(places);
    return rc;
}

static int make_buffers(struct cts_adapter_tables *t, const struct cts_adapter_tables_size *b)
{
    int rc = 0;

    if (b->bases > 0) rc = ctsk_buf_new(t->dev, b->bases, &t->bases);
    if (rc == 0 && b->sigmas > 0) rc = ctsk_buf_new(t->dev, b->sigmas, &t->sigmas);
    if (rc == 0 && b->tables > 0) rc = ctsk_buf_new(t->dev, b->tables, &t->tables);
    if (rc == 0 && b->exact > 0) rc = ctsk_buf_new(t->dev, b->exact, &t->exact);
    return rc;
}

static int name_exact_places(struct cts_adapter_tables *t, uint32_t first_table)
{
    memset(t->host_table, 0, table_bytes(t));
    for (uint32_t i = t->n_compressed; i < t->n; i++) {
        t->views[i] = (struct cts_adapter_view){ .first_table = first_table + i - t->n_compressed,
                                                 .n_tables = 1,
                                                 .cluster = UINT32_MAX };
        int rc = put_table(t, t->views[i].first_table);
        if (rc != 0) return rc;
    }
    return 0;
}

int cts_adapter_tables_open(struct cts_adapter_tables *t, struct ctsk_dev *d, struct ctsk_stream *s,
                            const struct cts_adapter_tables_opts *o, const struct cts_adapter_tables_size *size,
                            struct cts_err *err)
{
    int rc;

    *t = (struct cts_adapter_tables){ .dev = d, .stream = s, .model = o->model };
    t->n_compressed = o->collection != NULL ? o->collection->n_adapters : 0;
    t->n = t->n_compressed + o->n_exact;
    t->n_modules = o->model->n_layers * CTS_N_LINEARS;
    t->n_tables_max = size->n_tables_max;
    t->rank_max = size->rank_max;
    t->exact_rank_max = o->rank_max;
    t->exact_place_bytes = place_bytes(o->model, o->rank_max);

    t->views = calloc(t->n + 1u, sizeof(*t->views));
    t->host_table = ctsk_host_new(d, table_bytes(t));
    rc = t->views == NULL || t->host_table == NULL ? -ENOMEM : make_buffers(t, size);
    if (rc != 0) {
        cts_err_set(err, rc, "adapters: %" PRIu64 " bytes on the device",
                    size->bases + size->sigmas + size->tables + size->exact);
        goto fail;
    }
    if (o->collection != NULL && (rc = put_collection(t, o, err)) != 0) goto fail;
    rc = name_exact_places(t, size->n_tables - o->n_exact);
    if (rc != 0) {
        cts_err_set(err, rc, "adapters: empty the exact lane");
        goto fail;
    }
    return 0;

fail:
    cts_adapter_tables_close(t);
    return rc;
}

void cts_adapter_tables_close(struct cts_adapter_tables *t)
{
    ctsk_buf_free(t->exact);
    ctsk_buf_free(t->tables);
    ctsk_buf_free(t->sigmas);
    ctsk_buf_free(t->bases);
    if (t->host_table != NULL) ctsk_host_free(t->dev, t->host_table);
    free(t->views);
    *t = (struct cts_adapter_tables){ 0 };
}

uint64_t cts_adapter_tables_at(const struct cts_adapter_tables *t, uint32_t table_idx)
{
    return ctsk_at(t->tables, table_idx * table_bytes(t)).addr;
}

static int put_exact(struct cts_adapter_tables *t, uint64_t *off, uint64_t end, const struct cts_peft_module *m)
{
    struct ctsk_factor *f;
    int                 rc;

    if (!is_module(t->model, m->layer, m->linear, m->n_out, m->n_in)) return CTS_ESHAPE;
    if (m->rank == 0 || m->rank > t->exact_rank_max) return CTS_ESHAPE;
    if (*off + matrix_bytes(m->rank, m->n_in) + matrix_bytes(m->n_out, m->rank) > end) return CTS_ESHAPE;
    f = &t->host_table[cts_module_idx(m->layer, m->linear)];
    *f = (struct ctsk_factor){ .rank_in = m->rank, .rank_out = m->rank, .scale = m->scale };
    rc = put_matrix(t, t->exact, off, m->a, m->rank, m->n_in, &f->right);
    return rc != 0 ? rc : put_matrix(t, t->exact, off, m->b, m->n_out, m->rank, &f->left);
}

int cts_adapter_tables_load(struct cts_adapter_tables *t, uint32_t adapter_idx, const struct cts_peft *p)
{
    CTS_ASSERT(adapter_idx >= t->n_compressed && adapter_idx < t->n);
    struct cts_adapter_view *v = &t->views[adapter_idx];
    uint64_t                 off = (adapter_idx - t->n_compressed) * t->exact_place_bytes;
    uint64_t                 end = off + t->exact_place_bytes;
    int                      rc = 0, rc_table;

    CTS_ASSERT(v->n_users == 0);
    memset(t->host_table, 0, table_bytes(t));
    v->linears = 0;
    for (uint32_t i = 0; i < p->n_modules && rc == 0; i++) {
        rc = put_exact(t, &off, end, &p->modules[i]);
        if (rc == 0) v->linears |= 1u << p->modules[i].linear;
    }
    if (rc != 0) memset(t->host_table, 0, table_bytes(t));
    rc_table = put_table(t, v->first_table);
    if (rc == 0) rc = rc_table;
    v->is_loaded = rc == 0;
    return rc;
}

int cts_adapter_tables_unload(struct cts_adapter_tables *t, uint32_t adapter_idx)
{
    CTS_ASSERT(adapter_idx >= t->n_compressed && adapter_idx < t->n);
    CTS_ASSERT(t->views[adapter_idx].n_users == 0);
    t->views[adapter_idx].is_loaded = 0;
    memset(t->host_table, 0, table_bytes(t));
    return put_table(t, t->views[adapter_idx].first_table);
}
