#include "daemon/serve/adapters.h"

#include "common/assert.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_IDX UINT32_MAX

/* One place of the exact lane: what is on its way there or away. */
struct place {
    struct cts_adapters      *owner;
    struct cts_adapter       *a;
    struct cts_adapter_waiter waiter;
    uv_work_t                 work;
    char                     *dir;
    struct cts_peft           peft;
    struct cts_err            err;
    int                       is_reading, has_peft, wants_order; /* order: load or unload, as a->state says */
};

struct cts_adapters {
    struct cts_engine  *engine;
    uv_loop_t          *loop;
    uint32_t            n_compressed, n_exact_max;
    struct cts_adapter *at;      /* [n_compressed + n_exact_max], number - 1 */
    struct place       *places;  /* [n_exact_max] */
    uint32_t           *buckets; /* [n_buckets] first of each chain, NO_IDX: none */
    uint32_t            n_buckets;
    uint32_t            n_reading, n_orders; /* places with is_reading, with wants_order */
};

/* ---- by name ---- */

static uint32_t bucket_of(const struct cts_adapters *t, const void *name, size_t n)
{
    const uint8_t *p = name;
    uint32_t       h = 2166136261u; /* FNV-1a: only the daemon's own user chooses names */

    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 16777619u;
    return h & (t->n_buckets - 1);
}

static void link_name(struct cts_adapters *t, struct cts_adapter *a)
{
    uint32_t *first = &t->buckets[bucket_of(t, a->name, strlen(a->name))];

    a->next_idx = *first;
    *first = a->number - 1;
}

static void unlink_name(struct cts_adapters *t, struct cts_adapter *a)
{
    uint32_t *at = &t->buckets[bucket_of(t, a->name, strlen(a->name))];

    while (*at != a->number - 1) {
        CTS_ASSERT(*at != NO_IDX); /* it was linked */
        at = &t->at[*at].next_idx;
    }
    *at = a->next_idx;
}

static struct cts_adapter *look_up(struct cts_adapters *t, struct cts_span name)
{
    uint32_t idx = t->buckets[bucket_of(t, name.ptr, name.len)];

    for (; idx != NO_IDX; idx = t->at[idx].next_idx)
        if (strlen(t->at[idx].name) == name.len && memcmp(t->at[idx].name, name.ptr, name.len) == 0)
            return &t->at[idx];
    return NULL;
}

/* ---- open and close ---- */

static void add_compressed(struct cts_adapters *t, const struct cts_collection *c)
{
    for (uint32_t i = 0; i < t->n_compressed; i++) {
        struct cts_adapter *a = &t->at[i];

        memcpy(a->name, c->adapters[i].name, sizeof(a->name));
        memcpy(a->digest, c->adapters[i].digest, sizeof(a->digest));
        a->number = i + 1;
        a->generation = 1;
        a->kind = CTS_ADAPTER_COMPRESSED;
        a->state = CTS_ADAPTER_READY;
        a->adapter_idx = i;
        a->bytes = c->adapters[i].class_bytes;
        link_name(t, a);
    }
}

static void add_places(struct cts_adapters *t)
{
    for (uint32_t i = 0; i < t->n_exact_max; i++) {
        struct cts_adapter *a = &t->at[t->n_compressed + i];

        a->number = t->n_compressed + i + 1;
        a->kind = CTS_ADAPTER_EXACT;
        t->places[i] = (struct place){ .owner = t, .a = a };
    }
}

int cts_adapters_open(struct cts_adapters **out, struct cts_engine *engine, uv_loop_t *loop,
                      uint32_t n_exact_max, struct cts_err *err)
{
    const struct cts_collection *c = cts_engine_collection(engine);
    struct cts_adapters         *t = calloc(1, sizeof(*t));
    size_t                       n;

    if (t == NULL) return cts_err_set(err, -ENOMEM, "table of adapters");
    *t = (struct cts_adapters){ .engine = engine, .loop = loop, .n_exact_max = n_exact_max, .n_buckets = 16 };
    t->n_compressed = c != NULL ? c->n_adapters : 0;
    n = (size_t)t->n_compressed + n_exact_max;
    while (t->n_buckets < n && t->n_buckets < 1u << 30) t->n_buckets *= 2;
    t->at = calloc(n + 1, sizeof(*t->at));
    t->places = calloc((size_t)n_exact_max + 1, sizeof(*t->places));
    t->buckets = malloc(t->n_buckets * sizeof(*t->buckets));
    if (t->at == NULL || t->places == NULL || t->buckets == NULL) {
        cts_adapters_close(t);
        return cts_err_set(err, -ENOMEM, "table of %zu adapters", n);
    }
    memset(t->buckets, 0xff, t->n_buckets * sizeof(*t->buckets));
    if (c != NULL) add_compressed(t, c);
    add_places(t);
    *out = t;
    return 0;
}

int cts_adapters_is_loading(const struct cts_adapters *t)
{
    return t->n_reading > 0;
}

void cts_adapters_close(struct cts_adapters *t)
{
    if (t == NULL) return;
    CTS_ASSERT(t->n_reading == 0); /* a worker thread still writes into its place */
    for (uint32_t i = 0; t->places != NULL && i < t->n_exact_max; i++) {
        if (t->places[i].has_peft) cts_peft_free(&t->places[i].peft);
        free(t->places[i].dir);
    }
    free(t->buckets);
    free(t->places);
    free(t->at);
    free(t);
}

/* ---- looking ---- */

uint32_t cts_adapters_n(const struct cts_adapters *t)
{
    return t->n_compressed + t->n_exact_max + 1;
}

const struct cts_adapter *cts_adapters_at(const struct cts_adapters *t, uint32_t number)
{
    if (number == 0 || number >= cts_adapters_n(t)) return NULL;
    return t->at[number - 1].state == CTS_ADAPTER_FREE ? NULL : &t->at[number - 1];
}

int cts_adapters_find(struct cts_adapters *t, struct cts_span name, struct cts_adapter **out,
                      struct cts_err *err)
{
    int                 n = name.len > CTS_NAME_BYTES_MAX ? CTS_NAME_BYTES_MAX : (int)name.len;
    struct cts_adapter *a = look_up(t, name);

    if (a == NULL)
        return cts_err_set(err, CTS_ENOTFOUND, "there is no adapter '%.*s'; ls names those that there are", n, (const char *)name.ptr);
    if (a->state != CTS_ADAPTER_READY)
        return cts_err_set(err, CTS_ENOTFOUND, "the adapter '%s' is being %s", a->name,
                           a->state == CTS_ADAPTER_LOADING ? "loaded" : "unloaded");
    *out = a;
    return 0;
}

int cts_adapters_get(struct cts_adapters *t, uint32_t number, uint32_t generation, struct cts_adapter **out,
                     struct cts_err *err)
{
    struct cts_adapter *a = number > 0 && number < cts_adapters_n(t) ? &t->at[number - 1] : NULL;

    if (a == NULL || a->state != CTS_ADAPTER_READY || a->generation != generation)
        return cts_err_set(err, CTS_ENOTFOUND,
                           "there is no adapter with number %u and generation %u; resolve its name again",
                           number, generation);
    *out = a;
    return 0;
}

const char *cts_adapter_kind_name(enum cts_adapter_kind k)
{
    return k == CTS_ADAPTER_COMPRESSED ? "compressed" : "exact";
}

/* ---- loading and unloading ---- */

static void want_order(struct place *p)
{
    CTS_ASSERT(!p->wants_order);
    p->wants_order = 1;
    p->owner->n_orders++;
}

static void set_free(struct place *p)
{
    unlink_name(p->owner, p->a);
    p->a->state = CTS_ADAPTER_FREE;
    if (p->has_peft) cts_peft_free(&p->peft);
    p->has_peft = 0;
    free(p->dir);
    p->dir = NULL;
}

static void answer(struct place *p, const struct cts_adapter *a, const struct cts_err *err)
{
    struct cts_adapter_waiter w = p->waiter;

    p->waiter = (struct cts_adapter_waiter){ NULL, NULL, 0, 0 };
    if (w.fn != NULL) w.fn(w.owner, w.conn_serial, w.frame_id, a, err);
}

static void fail_load(struct place *p)
{
    struct cts_err err = p->err;

    set_free(p);
    answer(p, NULL, &err);
}

/* On a worker thread: p belongs to it until on_read. */
static void read_folder(uv_work_t *work)
{
    struct place      *p = work->data;
    struct cts_engine *e = p->owner->engine;

    p->has_peft = cts_peft_read(&p->peft, p->dir, cts_engine_model(e), cts_engine_base_digest(e), &p->err) == 0;
}

static void on_read(uv_work_t *work, int status)
{
    struct place *p = work->data;

    p->is_reading = 0;
    p->owner->n_reading--;
    if (status < 0) (void)cts_err_set(&p->err, CTS_ECANCELED, "reading '%s' was cancelled", p->dir);
    if (!p->has_peft) {
        cts_engine_exact_put_back(p->owner->engine, p->a->adapter_idx);
        fail_load(p);
        return;
    }
    memcpy(p->a->digest, p->peft.digest, sizeof(p->a->digest));
    p->a->bytes = p->peft.tensor_bytes;
    p->a->n_modules = p->peft.n_modules;
    p->a->rank_max = p->peft.rank_max;
    want_order(p);
}

static int check_load(struct cts_adapters *t, struct cts_span dir, struct cts_span name,
                      char text[CTS_NAME_BYTES_MAX + 1], const char **param, struct cts_err *err)
{
    *param = "dir";
    if (dir.len == 0 || dir.ptr[0] != '/' || dir.len >= PATH_MAX || memchr(dir.ptr, 0, dir.len) != NULL)
        return cts_err_set(err, CTS_EARG, "dir is not an absolute path of less than %d bytes", PATH_MAX);
    *param = "name";
    if (name.len > CTS_NAME_BYTES_MAX || memchr(name.ptr, 0, name.len) != NULL)
        return cts_err_set(err, CTS_EARG, "the name is longer than %d bytes or has a zero in it",
                           CTS_NAME_BYTES_MAX);
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    if (cts_collection_check_name(text, err) < 0) return CTS_EARG;
    if (look_up(t, name) != NULL) return cts_err_set(err, -EEXIST, "an adapter '%s' is here already", text);
    return 0;
}

static struct place *find_place(struct cts_adapters *t)
{
    for (uint32_t i = 0; i < t->n_exact_max; i++)
        if (t->places[i].a->state == CTS_ADAPTER_FREE) return &t->places[i];
    return NULL;
}

int cts_adapters_load(struct cts_adapters *t, struct cts_span dir, struct cts_span name,
                      const struct cts_adapter_waiter *w, const char **param, struct cts_err *err)
{
    char          text[CTS_NAME_BYTES_MAX + 1];
    struct place *p;
    uint32_t      idx;
    int           rc = check_load(t, dir, name, text, param, err);

    if (rc < 0) return rc;
    *param = NULL;
    p = find_place(t);
    if (p == NULL || cts_engine_exact_idx(t->engine, &idx) < 0)
        return cts_err_set(
            err, CTS_EBUSY,
            "all %u places of the exact lane are taken: unload one, or set engine.exact_adapters higher",
            t->n_exact_max);
    p->dir = strndup((const char *)dir.ptr, dir.len); /* all of p that the worker reads, before it starts */
    p->err = (struct cts_err){ .code = 0 };
    p->work.data = p;
    if (p->dir == NULL || uv_queue_work(t->loop, &p->work, read_folder, on_read) != 0) {
        free(p->dir);
        p->dir = NULL;
        cts_engine_exact_put_back(t->engine, idx);
        return cts_err_set(err, -ENOMEM, "start to load '%s'", text);
    }
    p->waiter = *w;
    p->is_reading = 1;
    t->n_reading++;
    memcpy(p->a->name, text, sizeof(text));
    p->a->generation++;
    p->a->state = CTS_ADAPTER_LOADING;
    p->a->adapter_idx = idx;
    p->a->n_live = 0;
    link_name(t, p->a);
    return 0;
}

int cts_adapters_unload(struct cts_adapters *t, struct cts_span name, const struct cts_adapter_waiter *w,
                        struct cts_err *err)
{
    struct cts_adapter *a;
    struct place       *p;
    int                 rc = cts_adapters_find(t, name, &a, err);

    if (rc < 0) return rc;
    if (a->kind != CTS_ADAPTER_EXACT)
        return cts_err_set(err, CTS_EARG, "'%s' is in the collection; only what was loaded can be unloaded",
                           a->name);
    p = &t->places[a->number - 1 - t->n_compressed];
    p->waiter = *w;
    a->state = CTS_ADAPTER_UNLOADING;
    if (a->n_live == 0) want_order(p);
    return 0;
}

void cts_adapters_hold(struct cts_adapters *t, struct cts_adapter *a)
{
    (void)t;
    CTS_ASSERT(a->state == CTS_ADAPTER_READY);
    a->n_live++;
}

void cts_adapters_release(struct cts_adapters *t, uint32_t number)
{
    struct cts_adapter *a = &t->at[number - 1];

    CTS_ASSERT(a->n_live > 0);
    if (--a->n_live == 0 && a->state == CTS_ADAPTER_UNLOADING)
        want_order(&t->places[number - 1 - t->n_compressed]);
}

static struct place *place_of_idx(struct cts_adapters *t, uint32_t adapter_idx)
{
    for (uint32_t i = 0; i < t->n_exact_max; i++)
        if (t->places[i].a->state != CTS_ADAPTER_FREE && t->places[i].a->adapter_idx == adapter_idx)
            return &t->places[i];
    return NULL;
}

/* The load or unload is over. */
void cts_adapters_on_event(struct cts_adapters *t, const struct cts_engine_event *ev)
{
    struct place *p = place_of_idx(t, ev->req_idx);

    CTS_ASSERT(p != NULL);
    if (ev->code != 0) (void)cts_err_set(&p->err, ev->code, "'%s' for the device", p->a->name);
    if (ev->code == CTS_ESHAPE) {
        (void)cts_err_set(&p->err, CTS_EUNSUP,
                          "'%s' does not fit into the exact lane: its rank is %u (engine.exact_rank)",
                          p->a->name, p->a->rank_max);
    }
    if (p->a->state == CTS_ADAPTER_LOADING) {
        if (ev->code != 0) {
            fail_load(p);
            return;
        }
        cts_peft_free(&p->peft); /* the engine has copied it */
        p->has_peft = 0;
        p->a->state = CTS_ADAPTER_READY;
        answer(p, p->a, NULL);
        return;
    }
    CTS_ASSERT(p->a->state == CTS_ADAPTER_UNLOADING);
    if (ev->code != 0) {
        p->a->state = CTS_ADAPTER_READY; /* the device did not do it: it is still there */
        answer(p, NULL, &p->err);
        return;
    }
    set_free(p);
    answer(p, NULL, NULL);
}

static int give_order(struct cts_adapters *t, struct place *p)
{
    if (p->a->state == CTS_ADAPTER_LOADING)
        return cts_engine_load(t->engine, p->a->adapter_idx, &p->peft, p->a->number);
    return cts_engine_unload(t->engine, p->a->adapter_idx, p->a->number);
}

int cts_adapters_turn(struct cts_adapters *t)
{
    int n_given = 0;

    for (uint32_t i = 0; t->n_orders > 0 && i < t->n_exact_max; i++) {
        struct place *p = &t->places[i];
        int           rc;

        if (!p->wants_order) continue;
        rc = give_order(t, p);
        if (rc == CTS_EBUSY) break; /* the queue is full: next turn */
        CTS_ASSERT(rc == 0);
        p->wants_order = 0;
        t->n_orders--;
        n_given++;
    }
    return n_given > 0;
}
