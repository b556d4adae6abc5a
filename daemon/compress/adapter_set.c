#include "daemon/compress/adapter_set.h"

#include "common/assert.h"
#include "daemon/model/weights.h"
#include "daemon/store/collection.h"

#include <dirent.h>
#include <errno.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A folder on its way into the set. */
struct entry {
    struct cts_adapter adapter;
    struct cts_err     why; /* code 0: it was read */
};

struct loader {
    const struct cts_adapter_set_opts *o;
    struct cts_adapter_set            *set;
    uint32_t                           n;
    struct entry                      *entries;
};

static int compare_entry(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->adapter.name, ((const struct entry *)b)->adapter.name);
}

static int is_folder(const char *dir, const char *name)
{
    struct stat st;
    char        path[4096];

    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path)) return 0;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int add_entry(struct loader *l, const char *name)
{
    struct entry *more = realloc(l->entries, ((size_t)l->n + 1) * sizeof(*more));

    if (more == NULL) return -ENOMEM;
    l->entries = more;
    l->entries[l->n] = (struct entry){ .adapter.name = strdup(name) };
    return l->entries[l->n++].adapter.name != NULL ? 0 : -ENOMEM;
}

/* The names of all folders, in catalog order. */
static int list_folders(struct loader *l, struct cts_err *err)
{
    const char    *dir = l->o->adapters_dir;
    DIR           *d = opendir(dir);
    struct dirent *e;
    int            rc = 0, is_adapter = 0;

    if (d == NULL) return cts_err_set(err, -errno, "open '%s'", dir);
    while (rc == 0 && (errno = 0, e = readdir(d)) != NULL) {
        is_adapter |= strcmp(e->d_name, "adapter_config.json") == 0;
        if (e->d_name[0] != '.' && is_folder(dir, e->d_name)) rc = add_entry(l, e->d_name);
    }
    if (rc == 0 && errno != 0) rc = -errno;
    (void)closedir(d); /* it was only read */
    if (rc < 0) return cts_err_set(err, rc, "list '%s'", dir);
    if (is_adapter)
        return cts_err_set(err, CTS_ENOTFOUND, "'%s' is an adapter itself: give the folder that it lies in", dir);
    if (l->n == 0)
        return cts_err_set(err, CTS_ENOTFOUND, "'%s' has no folder in it: give one with a PEFT folder per adapter",
                           dir);
    qsort(l->entries, l->n, sizeof(*l->entries), compare_entry);
    return 0;
}

/* Only linears that were asked for: leaving a module of an adapter out in silence would serve a damaged one. */
static int check_linears(const struct loader *l, const struct cts_peft *p, struct cts_err *err)
{
    for (uint32_t i = 0; i < p->n_modules; i++)
        if (l->o->linears != 0 && (l->o->linears >> p->modules[i].linear & 1) == 0)
            return cts_err_set(err, CTS_EUNSUP,
                               "it changes %s of layer %u, which --modules leaves out: name it there too",
                               cts_linear_name(p->modules[i].linear), p->modules[i].layer);
    return 0;
}

static void fill_delta(struct cts_delta *d, const struct cts_peft_module *m)
{
    *d = (struct cts_delta){
        .n_out = m->n_out, .n_in = m->n_in, .rank = m->rank, .scale = m->scale, .b = m->b, .a = m->a
    };
}

static int measure(struct cts_adapter *a, struct cts_err *err)
{
    a->norm = calloc(a->peft.n_modules, sizeof(*a->norm));
    if (a->norm == NULL) return cts_err_set(err, -ENOMEM, "%u norms", a->peft.n_modules);
    for (uint32_t i = 0; i < a->peft.n_modules; i++) {
        const struct cts_peft_module *m = &a->peft.modules[i];
        struct cts_delta              d;

        fill_delta(&d, m);
        if (cts_delta_norm(&d, &a->norm[i]) < 0) return cts_err_set(err, -ENOMEM, "norm of a module");
        if (!(a->norm[i] <= (double)FLT_MAX))
            return cts_err_set(err, CTS_EUNSUP,
                               "%s of layer %u: the norm of what it adds is past float32: train it again",
                               cts_linear_name(m->linear), m->layer);
    }
    return 0;
}

static int read_entry(const struct loader *l, struct entry *e, struct cts_err *err)
{
    char path[4096];
    int  rc = cts_collection_check_name(e->adapter.name, err);

    if (rc < 0) return rc;
    if (snprintf(path, sizeof(path), "%s/%s", l->o->adapters_dir, e->adapter.name) >= (int)sizeof(path))
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", l->o->adapters_dir);
    rc = cts_peft_read(&e->adapter.peft, path, &l->set->config, l->set->base_digest, err);
    if (rc < 0 || (rc = check_linears(l, &e->adapter.peft, err)) < 0) return rc;
    return measure(&e->adapter, err);
}

/* A task: one adapter. Memory that runs out is the job's failure, all else the adapter's. */
static int load_task(void *arg, uint32_t task_idx, struct cts_err *err)
{
    struct loader *l = arg;
    struct entry  *e = &l->entries[task_idx];
    int            rc = read_entry(l, e, &e->why);

    if (rc == -ENOMEM) {
        *err = e->why;
        return cts_err_prefix(err, rc, "adapter '%s'", e->adapter.name);
    }
    return 0;
}

static void adapter_free(struct cts_adapter *a)
{
    free(a->norm);
    cts_peft_free(&a->peft);
    free(a->name);
    *a = (struct cts_adapter){ 0 };
}

/* The read ones and the refused ones, each in catalog order. */
static int sort_out(struct loader *l, struct cts_err *err)
{
    struct cts_adapter_set *s = l->set;

    s->adapters = calloc(l->n, sizeof(*s->adapters));
    s->refused = calloc(l->n, sizeof(*s->refused));
    if (s->adapters == NULL || s->refused == NULL) return cts_err_set(err, -ENOMEM, "%u adapters", l->n);
    for (uint32_t i = 0; i < l->n; i++) {
        struct entry *e = &l->entries[i];

        if (e->why.code == 0) {
            s->adapters[s->n++] = e->adapter;
            e->adapter = (struct cts_adapter){ 0 };
        } else {
            s->refused[s->n_refused++] = (struct cts_refusal){ e->adapter.name, e->why };
            e->adapter.name = NULL;
        }
    }
    return 0;
}

/* The modules that any adapter changes, and where each adapter has them. */
static int index_modules(struct cts_adapter_set *s, struct cts_err *err)
{
    uint32_t n_all = s->config.n_layers * CTS_N_LINEARS, *of = calloc((size_t)n_all + 1, sizeof(*of));

    if (of == NULL) return cts_err_set(err, -ENOMEM, "%u modules", n_all);
    for (uint32_t i = 0; i < s->n; i++)
        for (uint32_t m = 0; m < s->adapters[i].peft.n_modules; m++)
            of[cts_module_idx(s->adapters[i].peft.modules[m].layer, s->adapters[i].peft.modules[m].linear)] = 1;
    s->modules = calloc((size_t)n_all + 1, sizeof(*s->modules));
    for (uint32_t m = 0; m < n_all && s->modules != NULL; m++) {
        struct cts_set_module *o = &s->modules[s->n_modules];

        if (of[m] == 0) continue;
        *o = (struct cts_set_module){ .layer = m / CTS_N_LINEARS, .linear = (enum cts_linear)(m % CTS_N_LINEARS) };
        cts_linear_shape(&s->config, o->linear, &o->n_out, &o->n_in);
        of[m] = s->n_modules++;
    }
    s->place = calloc((size_t)s->n * s->n_modules + 1, sizeof(*s->place));
    for (size_t i = 0; i < (size_t)s->n * s->n_modules && s->place != NULL; i++) s->place[i] = -1;
    for (uint32_t i = 0; i < s->n && s->place != NULL; i++)
        for (uint32_t m = 0; m < s->adapters[i].peft.n_modules; m++) {
            const struct cts_peft_module *p = &s->adapters[i].peft.modules[m];

            s->place[(size_t)i * s->n_modules + of[cts_module_idx(p->layer, p->linear)]] = (int32_t)m;
        }
    free(of);
    return s->modules != NULL && s->place != NULL ? 0 : cts_err_set(err, -ENOMEM, "%u modules", n_all);
}

static void on_done(void *arg, uint32_t n_done)
{
    const struct loader *l = arg;

    if (l->o->on_progress != NULL) l->o->on_progress(l->o->on_progress_arg, n_done, l->n);
}

static int load(struct loader *l, struct cts_err *err)
{
    struct cts_adapter_set *s = l->set;
    struct cts_tasks        t = { .run = load_task, .arg = l, .on_done = on_done, .on_done_arg = l };
    int                     rc;

    if ((rc = cts_model_config_load(&s->config, l->o->base_dir, err)) < 0) return rc;
    if ((rc = list_folders(l, err)) < 0) return rc;
    if ((rc = cts_base_digest(l->o->base_dir, &s->config, s->base_digest, err)) < 0) return rc;
    t.n_tasks = l->n;
    if ((rc = cts_tasks_run(&t, l->o->n_threads, err)) < 0 || (rc = sort_out(l, err)) < 0) return rc;
    return index_modules(s, err);
}

int cts_adapter_set_load(struct cts_adapter_set *s, const struct cts_adapter_set_opts *o, struct cts_err *err)
{
    struct loader l = { .o = o, .set = s };
    int           rc;

    *s = (struct cts_adapter_set){ 0 };
    rc = load(&l, err);
    for (uint32_t i = 0; i < l.n; i++) adapter_free(&l.entries[i].adapter);
    free(l.entries);
    if (rc < 0) cts_adapter_set_free(s);
    return rc;
}

void cts_adapter_set_free(struct cts_adapter_set *s)
{
    for (uint32_t i = 0; i < s->n; i++) adapter_free(&s->adapters[i]);
    for (uint32_t i = 0; i < s->n_refused; i++) free(s->refused[i].name);
    free(s->place);
    free(s->modules);
    free(s->refused);
    free(s->adapters);
    *s = (struct cts_adapter_set){ 0 };
}

int cts_adapter_set_delta(const struct cts_adapter_set *s, uint32_t adapter_idx, uint32_t module_idx,
                          struct cts_delta *d, double *norm)
{
    int32_t at;

    CTS_ASSERT(adapter_idx < s->n);
    CTS_ASSERT(module_idx < s->n_modules);
    at = s->place[(size_t)adapter_idx * s->n_modules + module_idx];
    if (at < 0) return 0;
    if (d != NULL) fill_delta(d, &s->adapters[adapter_idx].peft.modules[at]);
    if (norm != NULL) *norm = s->adapters[adapter_idx].norm[at];
    return 1;
}
