#include "daemon/compress/compress.h"

#include "common/assert.h"
#include "config.h"
#include "daemon/compress/cluster.h"
#include "daemon/compress/joint.h"
#include "daemon/compress/linalg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const struct cts_adapter_set   *set;
    const struct cts_compress_opts *o;
    const uint32_t                 *cluster; /* [n] */
    struct cts_compressed          *c;
    const char                     *what;    /* for on_progress */
    uint32_t                        n_total;
};

static void on_done(void *arg, uint32_t n_done)
{
    struct job *j = arg;

    if (j->o->on_progress != NULL) j->o->on_progress(j->o->on_progress_arg, j->what, n_done, j->n_total);
}

static int run_tasks(struct job *j, const char *what, uint32_t n_tasks, cts_task_fn run, struct cts_err *err)
{
    struct cts_tasks t = { .n_tasks = n_tasks, .run = run, .arg = j, .on_done = on_done, .on_done_arg = j };

    j->what = what;
    j->n_total = n_tasks;
    return cts_tasks_run(&t, j->o->n_threads, err);
}

static struct cts_coded *coded_at(const struct job *j, uint32_t adapter_idx, uint32_t module_idx)
{
    return &j->c->coded[(size_t)adapter_idx * j->set->n_modules + module_idx];
}

static int fail_module(const struct job *j, uint32_t module_idx, int rc, struct cts_err *err)
{
    const struct cts_set_module *m = &j->set->modules[module_idx];

    return cts_err_set(err, rc, "compress %s of layer %u", cts_linear_name(m->linear), m->layer);
}

/* The members of a cluster that change the module, and those of them whose
 * change is not zero, which come first in delta and norm. */
struct members {
    uint32_t          n, n_nonzero;
    uint32_t         *adapter; /* [n] in catalog order */
    struct cts_delta *delta;   /* [n_nonzero] */
    double           *norm;    /* [n_nonzero] */
};

static void members_free(struct members *m)
{
    free(m->norm);
    free(m->delta);
    free(m->adapter);
}

static int members_find(struct members *m, const struct job *j, uint32_t module_idx, uint32_t cluster)
{
    uint32_t n = j->set->n;

    *m = (struct members){ .adapter = calloc(n, sizeof(*m->adapter)), .delta = calloc(n, sizeof(*m->delta)),
                           .norm = calloc(n, sizeof(*m->norm)) };
    if (m->adapter == NULL || m->delta == NULL || m->norm == NULL) return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        struct cts_delta *d = &m->delta[m->n_nonzero];
        double           *norm = &m->norm[m->n_nonzero];

        if (j->cluster[i] != cluster || !cts_adapter_set_delta(j->set, i, module_idx, d, norm)) continue;
        m->adapter[m->n++] = i;
        m->n_nonzero += *norm > 0;
    }
    return 0;
}

/* A basis for adapters that change nothing: their sigmas are zero in any. */
static int fit_nothing(struct cts_joint *out, uint32_t n_out, uint32_t n_in)
{
    *out = (struct cts_joint){ .n_out = n_out, .n_in = n_in, .rank = 1 };
    out->ut = calloc(n_out, sizeof(*out->ut));
    out->vt = calloc(n_in, sizeof(*out->vt));
    if (out->ut == NULL || out->vt == NULL) {
        cts_joint_free(out);
        return -ENOMEM;
    }
    out->ut[0] = out->vt[0] = 1;
    return 0;
}

static int fit(const struct job *j, uint32_t module_idx, const struct members *m, struct cts_joint *out)
{
    const struct cts_set_module *mod = &j->set->modules[module_idx];
    struct cts_joint_opts        o = { .rank = j->o->rank, .n_sweeps_max = CTS_JOINT_SWEEPS_MAX,
                                       .tolerance = CTS_JOINT_TOLERANCE,
                                       .seed = cts_random_stream(j->o->seed, module_idx) };
    struct cts_stack             s;
    int                          rc;

    if (m->n_nonzero == 0) return fit_nothing(out, mod->n_out, mod->n_in);
    if ((rc = cts_stack_build(&s, m->delta, m->norm, m->n_nonzero)) < 0) return rc;
    rc = cts_joint_fit(out, &s, &o);
    cts_stack_free(&s);
    return rc;
}

/* The basis into its place, and the sigma of every member. */
static int code_members(const struct job *j, uint32_t module_idx, uint32_t cluster, const struct members *m,
                        const struct cts_joint *fitted)
{
    const struct cts_set_module *mod = &j->set->modules[module_idx];
    struct cts_basis            *b = &j->c->bases[(size_t)cluster * j->set->n_modules + module_idx];
    struct cts_coder             coder;
    int                          rc = cts_coder_init(&coder, fitted, j->o->basis_format);

    if (rc < 0) return rc;
    *b = (struct cts_basis){ .cluster = cluster,
                             .layer = mod->layer,
                             .linear = (uint32_t)mod->linear,
                             .n_out = mod->n_out,
                             .n_in = mod->n_in,
                             .rank_u = coder.rank,
                             .rank_v = coder.rank };
    rc = cts_coder_basis(&coder, &b->u, &b->vt);
    for (uint32_t i = 0; i < m->n && rc == 0; i++) {
        struct cts_delta d;
        double           norm = 0;

        (void)cts_adapter_set_delta(j->set, m->adapter[i], module_idx, &d, &norm); /* it is a member */
        rc = cts_coder_sigma(&coder, &d, norm, j->o->format, coded_at(j, m->adapter[i], module_idx));
    }
    cts_coder_free(&coder);
    return rc;
}

/* A task of jd-full: one module of one cluster. */
static int joint_task(void *arg, uint32_t task_idx, struct cts_err *err)
{
    struct job      *j = arg;
    uint32_t         module_idx = task_idx / j->c->n_clusters, cluster = task_idx % j->c->n_clusters;
    struct members   m;
    struct cts_joint fitted = { 0 };
    int              rc = members_find(&m, j, module_idx, cluster);

    if (rc == 0 && m.n > 0) {
        rc = fit(j, module_idx, &m, &fitted);
        if (rc == 0) rc = code_members(j, module_idx, cluster, &m, &fitted);
        cts_joint_free(&fitted);
    }
    members_free(&m);
    return rc < 0 ? fail_module(j, module_idx, rc, err) : 0;
}

/* A task of svd: one adapter. */
static int svd_task(void *arg, uint32_t task_idx, struct cts_err *err)
{
    struct job *j = arg;

    for (uint32_t m = 0; m < j->set->n_modules; m++) {
        struct cts_delta d;
        double           norm = 0;
        int              rc;

        if (!cts_adapter_set_delta(j->set, task_idx, m, &d, &norm)) continue;
        rc = cts_code_pair(&d, norm, j->o->rank, j->o->format, coded_at(j, task_idx, m));
        if (rc < 0) return fail_module(j, m, rc, err);
    }
    return 0;
}

/* Squeeze out the places of modules that no member of a cluster changes. */
static void compact_bases(struct cts_compressed *c, uint32_t n_places)
{
    for (uint32_t i = 0; i < n_places; i++)
        if (c->bases[i].u != NULL) c->bases[c->n_bases++] = c->bases[i];
}

static int run_joint(struct job *j, struct cts_err *err)
{
    struct cts_compressed *c = j->c;
    uint32_t               n_places = c->n_clusters * j->set->n_modules;
    int                    rc;

    c->bases = calloc((size_t)n_places + 1, sizeof(*c->bases));
    if (c->bases == NULL) return cts_err_set(err, -ENOMEM, "%u bases", n_places);
    rc = run_tasks(j, "fitting", n_places, joint_task, err);
    compact_bases(c, n_places);
    return rc;
}

/* Each adapter's share of its cluster's bases: all members bear the same. */
static int share_bases(struct job *j)
{
    struct cts_compressed *c = j->c;
    uint64_t              *bytes = calloc((size_t)c->n_clusters + 1, sizeof(*bytes));
    uint64_t              *n = calloc((size_t)c->n_clusters + 1, sizeof(*n));
    int                    rc = bytes == NULL || n == NULL ? -ENOMEM : 0;

    for (uint32_t i = 0; i < c->n_bases && rc == 0; i++) {
        const struct cts_basis *b = &c->bases[i];

        bytes[b->cluster] += ((uint64_t)b->n_out * b->rank_u + (uint64_t)b->n_in * b->rank_v) *
                             cts_dtype_bytes(j->o->basis_format);
    }
    for (uint32_t i = 0; i < j->set->n && rc == 0 && c->n_clusters > 0; i++) n[j->cluster[i]]++;
    for (uint32_t i = 0; i < j->set->n && rc == 0 && c->n_clusters > 0; i++)
        c->adapters[i].basis_bytes = bytes[j->cluster[i]] / n[j->cluster[i]];
    free(n);
    free(bytes);
    return rc;
}

/* The errors and bytes of every adapter and of all, summed in catalog order. */
static void sum_up(struct job *j)
{
    struct cts_compressed *c = j->c;
    double                 all_lost = 0, all_total = 0, all_mean = 0;

    for (uint32_t i = 0; i < j->set->n; i++) {
        struct cts_compress_adapter *a = &c->adapters[i];
        double                       lost = 0, total = 0, mean = 0;
        uint32_t                     n = 0;

        a->cluster = c->n_clusters == 0 ? CTS_CLUSTER_NONE : j->cluster[i];
        for (uint32_t m = 0; m < j->set->n_modules; m++) {
            const struct cts_coded *k = coded_at(j, i, m);

            if (k->values == NULL) continue;
            n++;
            lost += k->lost;
            total += k->total;
            mean += k->total > 0 ? k->lost / k->total : 0; /* a module that is zero has no error */
            a->scale_bytes += 4;
            a->value_bytes +=
                cts_dtype_bytes(j->o->format) *
                (k->rank == 0 ? (uint64_t)k->n_rows * k->n_cols : ((uint64_t)k->n_rows + k->n_cols) * k->rank);
        }
        a->error_mean = mean / n;
        a->error_energy = total > 0 ? lost / total : 0;
        all_lost += lost;
        all_total += total;
        all_mean += a->error_mean;
    }
    c->error_mean = all_mean / j->set->n;
    c->error_energy = all_total > 0 ? all_lost / all_total : 0;
}

/* Which cluster each adapter is in: none, one, given, or found. */
static int choose_clusters(struct job *j, uint32_t *found, struct cts_err *err)
{
    const struct cts_compress_opts *o = j->o;

    j->c->n_clusters = o->method == CTS_METHOD_SVD ? 0 : o->n_clusters;
    j->c->assignment = o->cluster != NULL                                 ? "given"
                       : o->n_clusters > 1 && o->method != CTS_METHOD_SVD ? "fitted"
                                                                          : "one";
    j->cluster = o->cluster != NULL ? o->cluster : found;
    if (strcmp(j->c->assignment, "fitted") != 0) return 0; /* found is all zero */
    return cts_cluster_find(found, j->set, o, err);
}

int cts_compress(struct cts_compressed *c, const struct cts_adapter_set *set, const struct cts_compress_opts *o,
                 struct cts_err *err)
{
    struct job j = { .set = set, .o = o, .c = c };
    uint32_t  *found = calloc(set->n, sizeof(*found));
    int        rc;

    CTS_ASSERT(set->n > 0);
    CTS_ASSERT(o->rank > 0);
    CTS_ASSERT(o->n_clusters > 0 && o->n_clusters <= set->n);
    *c = (struct cts_compressed){ .set = set, .o = *o };
    c->coded = calloc((size_t)set->n * set->n_modules, sizeof(*c->coded));
    c->adapters = calloc(set->n, sizeof(*c->adapters));
    if (c->coded == NULL || c->adapters == NULL || found == NULL) {
        rc = cts_err_set(err, -ENOMEM, "%u adapters", set->n);
        goto fail;
    }
    cts_linalg_init();
    if ((rc = choose_clusters(&j, found, err)) < 0) goto fail;
    rc = o->method == CTS_METHOD_SVD ? run_tasks(&j, "decomposing", set->n, svd_task, err) : run_joint(&j, err);
    if (rc < 0) goto fail;
    sum_up(&j);
    if ((rc = share_bases(&j)) < 0) {
        cts_err_set(err, rc, "%u clusters", c->n_clusters);
        goto fail;
    }
    free(found);
    return 0;

fail:
    free(found);
    cts_compressed_free(c);
    return rc;
}

void cts_compressed_free(struct cts_compressed *c)
{
    for (uint32_t i = 0; i < c->n_bases; i++) {
        free(c->bases[i].u);
        free(c->bases[i].vt);
    }
    for (size_t i = 0; c->coded != NULL && i < (size_t)c->set->n * c->set->n_modules; i++) cts_coded_free(&c->coded[i]);
    free(c->bases);
    free(c->coded);
    free(c->adapters);
    *c = (struct cts_compressed){ 0 };
}

/* The parts of one adapter's slot, into parts [n_modules]; the values stay c's. */
static uint32_t list_parts(const struct cts_compressed *c, uint32_t adapter_idx, struct cts_slot_part *parts)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < c->set->n_modules; m++) {
        const struct cts_coded      *k = &c->coded[(size_t)adapter_idx * c->set->n_modules + m];
        const struct cts_set_module *mod = &c->set->modules[m];

        if (k->values == NULL) continue;
        parts[n++] = (struct cts_slot_part){
            .kind = k->rank == 0 ? CTS_PART_SIGMA : CTS_PART_LOWRANK,
            .layer = mod->layer,
            .linear = (uint32_t)mod->linear,
            .cluster = c->adapters[adapter_idx].cluster,
            .n_rows = k->n_rows,
            .n_cols = k->n_cols,
            .rank = k->rank,
            .dtype = c->o.format,
            .scale = k->scale,
            .values = k->values,
        };
    }
    return n;
}

int cts_compressed_write(struct cts_compressed *c, struct cts_collection_writer *w, struct cts_collection_bytes *bytes,
                         uint8_t digest[CTS_DIGEST_BYTES], struct cts_err *err)
{
    const struct cts_adapter_set *s = c->set;
    struct cts_slot_part         *parts = calloc((size_t)s->n * s->n_modules, sizeof(*parts));
    struct cts_collection_entry  *entries = calloc(s->n, sizeof(*entries));
    struct cts_collection_new     n = {
            .tool = "cts-compress " PACKAGE_VERSION,
            .method = c->o.method == CTS_METHOD_SVD ? "svd" : "jd-full",
            .assignment = c->assignment,
            .generation = c->o.generation,
            .seed = c->o.seed,
            .n_layers = s->config.n_layers,
            .rank = c->o.rank,
            .n_clusters = c->n_clusters,
            .sigma_format = c->o.format,
            .basis_format = c->o.basis_format,
            .error_mean = c->error_mean,
            .error_energy = c->error_energy,
            .n_bases = c->n_bases,
            .n_adapters = s->n,
            .bases = c->bases,
            .adapters = entries,
    };
    int rc = parts == NULL || entries == NULL ? cts_err_set(err, -ENOMEM, "%u adapters", s->n) : 0;

    memcpy(n.base_digest, s->base_digest, CTS_DIGEST_BYTES);
    for (uint32_t i = 0; i < s->n && rc == 0; i++) {
        struct cts_slot_part *of = parts + (size_t)i * s->n_modules;

        entries[i] = (struct cts_collection_entry){ .name = s->adapters[i].name,
                                                    .error_mean = c->adapters[i].error_mean,
                                                    .error_energy = c->adapters[i].error_energy,
                                                    .slot = { .n_parts = list_parts(c, i, of), .parts = of } };
        memcpy(entries[i].slot.digest, s->adapters[i].peft.digest, CTS_DIGEST_BYTES);
    }
    if (rc == 0) rc = cts_collection_writer_commit(w, &n, bytes, digest, err);
    for (uint32_t i = 0; i < s->n && rc == 0; i++)
        c->adapters[i].header_bytes = entries[i].class_bytes - c->adapters[i].value_bytes - c->adapters[i].scale_bytes;
    free(entries);
    free(parts);
    return rc;
}
