#include "daemon/store/collection.h"

#include "common/assert.h"
#include "common/json.h"
#include "common/safetensors.h"
#include "daemon/store/collection_format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JSON_BYTES_MAX  ((size_t)1 << 30)
#define ADAPTERS_MAX    (1u << 24)
#define CLUSTERS_MAX    (1u << 20)
#define FILES_MAX       (CTS_COLLECTION_CLASSES_MAX + 1)

/* An open file of slots. */
struct slot_file {
    int      fd;
    uint64_t class_bytes, n_slots;
};

/* cts_collection.files */
struct files {
    uint32_t                   n_files, n_slot_files;
    struct cts_collection_file file[FILES_MAX]; /* as collection.json lists them */
    struct slot_file           slots[CTS_COLLECTION_CLASSES_MAX];
    int                        has_basis;
};

static int need_str(const json_t *o, const char *key, const char **out, struct cts_err *err)
{
    int rc = cts_json_str(o, key, out, err);

    return rc == 0 ? cts_err_set(err, CTS_EFORMAT, "'%s' is missing", key) : rc;
}

static int need_int(const json_t *o, const char *key, int64_t hi, int64_t *out, struct cts_err *err)
{
    int rc = cts_json_int(o, key, 0, hi, out, err);

    return rc == 0 ? cts_err_set(err, CTS_EFORMAT, "'%s' is missing", key) : rc;
}

static int need_error(const json_t *o, const char *key, double *out, struct cts_err *err)
{
    int rc = cts_json_real(o, key, 0, 1e300, out, err);

    return rc == 0 ? cts_err_set(err, CTS_EFORMAT, "'%s' is missing", key) : rc;
}

static int need_digest(const json_t *o, const char *key, uint8_t out[CTS_DIGEST_BYTES], struct cts_err *err)
{
    const char *s;
    int         rc = need_str(o, key, &s, err);

    if (rc < 0) return rc;
    return cts_digest_from_hex(s, out) == 0
               ? 0
               : cts_err_set(err, CTS_EFORMAT, "'%s' is not 64 hexadecimal digits", key);
}

static int need_checksum(const json_t *o, uint8_t out[CTS_SLOT_CHECKSUM_BYTES], struct cts_err *err)
{
    static const char digits[] = "0123456789abcdef";
    const char       *s;
    int               rc = need_str(o, "checksum", &s, err);

    if (rc < 0) return rc;
    if (strlen(s) != 2 * CTS_SLOT_CHECKSUM_BYTES || strspn(s, digits) != strlen(s))
        return cts_err_set(err, CTS_EFORMAT, "'checksum' is not 32 hexadecimal digits");
    for (int i = 0; i < CTS_SLOT_CHECKSUM_BYTES; i++)
        out[i] = (uint8_t)((strchr(digits, s[2 * i]) - digits) << 4 | (strchr(digits, s[2 * i + 1]) - digits));
    return 0;
}

/* What collection.json says of the whole collection; *version first, since
 * another version may have other keys. */
static int read_head(struct cts_collection *c, const json_t *j, struct cts_err *err)
{
    const char *format;
    int64_t     version = 0, generation = 0, n_layers = 0, n_clusters = 0;
    int         rc;

    if ((rc = need_str(j, "format", &format, err)) < 0) return rc;
    if (strcmp(format, "cts-collection") != 0)
        return cts_err_set(err, CTS_EFORMAT, "'format' is not \"cts-collection\"");
    if ((rc = need_int(j, "version", INT64_MAX, &version, err)) < 0) return rc;
    if (version != CTS_COLLECTION_VERSION)
        return cts_err_set(err, CTS_EVERSION, "'version' is %" PRId64 ", this program reads %d", version,
                           CTS_COLLECTION_VERSION);
    if ((rc = need_int(j, "generation", INT64_MAX, &generation, err)) < 0 ||
        (rc = need_int(j, "n_layers", CTS_SLOT_LAYERS_MAX, &n_layers, err)) < 0 ||
        (rc = need_int(j, "clusters", CLUSTERS_MAX, &n_clusters, err)) < 0 ||
        (rc = need_error(j, "error_mean", &c->error_mean, err)) < 0 ||
        (rc = need_error(j, "error_energy", &c->error_energy, err)) < 0 ||
        (rc = need_digest(j, "base_digest", c->base_digest, err)) < 0 ||
        (rc = need_digest(j, "digest", c->digest, err)) < 0)
        return rc;
    c->generation = (uint64_t)generation;
    c->n_layers = (uint32_t)n_layers;
    c->n_clusters = (uint32_t)n_clusters;
    return 0;
}

/* One entry of "files": the name tells what it is, and decides where it stands. */
static int read_file_entry(struct files *f, const json_t *o, struct cts_err *err)
{
    struct cts_collection_file *e = &f->file[f->n_files];
    const char                 *name;
    int64_t                     bytes = 0;
    uint64_t                    class_bytes;
    int                         rc;

    if (!json_is_object(o)) return cts_err_set(err, CTS_EFORMAT, "not an object");
    if ((rc = need_str(o, "name", &name, err)) < 0) return rc;
    class_bytes = cts_collection_slots_class(name);
    if (class_bytes == 0 && strcmp(name, CTS_COLLECTION_BASIS) != 0)
        return cts_err_set(err, CTS_EFORMAT, "'name' is neither %s nor sigma.<class>.slots", CTS_COLLECTION_BASIS);
    if (f->n_files > 0 && strcmp(f->file[f->n_files - 1].name, name) >= 0)
        return cts_err_set(err, CTS_EFORMAT, "'%s' is not after the file before it", name);
    if ((rc = need_int(o, "bytes", INT64_MAX, &bytes, err)) < 0 || (rc = need_digest(o, "digest", e->digest, err)) < 0)
        return rc;
    if (class_bytes != 0) {
        if (f->n_slot_files == CTS_COLLECTION_CLASSES_MAX)
            return cts_err_set(err, CTS_EFORMAT, "more than %d size classes", CTS_COLLECTION_CLASSES_MAX);
        if ((uint64_t)bytes % class_bytes != 0 || (uint64_t)bytes / class_bytes > ADAPTERS_MAX)
            return cts_err_set(err, CTS_EFORMAT, "'bytes' of %s is %" PRId64 ", not a number of slots", name, bytes);
        f->slots[f->n_slot_files++] = (struct slot_file){ -1, class_bytes, (uint64_t)bytes / class_bytes };
    } else {
        f->has_basis = 1;
    }
    snprintf(e->name, sizeof(e->name), "%s", name);
    e->bytes = (uint64_t)bytes;
    f->n_files++;
    return 0;
}

static int read_files(struct cts_collection *c, const json_t *j, struct cts_err *err)
{
    const json_t *list = json_object_get(j, "files"), *o;
    size_t        i;
    int           rc;

    if (!json_is_array(list)) return cts_err_set(err, CTS_EFORMAT, "'files' is not an array");
    if (json_array_size(list) > FILES_MAX)
        return cts_err_set(err, CTS_EFORMAT, "'files' has %zu entries, at most %d", json_array_size(list), FILES_MAX);
    json_array_foreach(list, i, o)
    {
        rc = read_file_entry(c->files, o, err);
        if (rc < 0) return cts_err_prefix(err, rc, "'files' entry %zu", i);
    }
    return 0;
}

/* The cluster and the slot of an adapter: inside what the head and the files have. */
static int read_place(const struct cts_collection *c, struct cts_collection_adapter *a, const json_t *o,
                      struct cts_err *err)
{
    const struct files *f = c->files;
    int64_t             cluster = 0, class_bytes = 0, slot_idx = 0;
    int                 rc = cts_json_int(o, "cluster", 0, (int64_t)c->n_clusters - 1, &cluster, err);

    if (rc < 0) return rc;
    a->cluster = rc == 1 ? (uint32_t)cluster : CTS_CLUSTER_NONE;
    if ((rc = need_int(o, "class", INT64_MAX, &class_bytes, err)) < 0) return rc;
    for (a->class_idx = 0; a->class_idx < f->n_slot_files; a->class_idx++)
        if (f->slots[a->class_idx].class_bytes == (uint64_t)class_bytes) break;
    if (a->class_idx == f->n_slot_files)
        return cts_err_set(err, CTS_EFORMAT, "'class' is %" PRId64 ", 'files' has no such class", class_bytes);
    a->class_bytes = (uint64_t)class_bytes;
    if ((rc = need_int(o, "slot", UINT32_MAX, &slot_idx, err)) < 0) return rc;
    if ((uint64_t)slot_idx >= f->slots[a->class_idx].n_slots)
        return cts_err_set(err, CTS_EFORMAT, "'slot' is %" PRId64 ", the file has %" PRIu64 " slots", slot_idx,
                           f->slots[a->class_idx].n_slots);
    a->slot_idx = (uint32_t)slot_idx;
    return 0;
}

static int read_adapter(const struct cts_collection *c, struct cts_collection_adapter *a, const json_t *o,
                        struct cts_err *err)
{
    const char *name;
    int         rc;

    if (!json_is_object(o)) return cts_err_set(err, CTS_EFORMAT, "not an object");
    if ((rc = need_str(o, "name", &name, err)) < 0) return rc;
    if (cts_collection_check_name(name, NULL) < 0) return cts_err_set(err, CTS_EFORMAT, "'name' is no adapter's name");
    snprintf(a->name, sizeof(a->name), "%s", name);
    if ((rc = need_digest(o, "digest", a->digest, err)) < 0 || (rc = need_checksum(o, a->checksum, err)) < 0 ||
        (rc = need_error(o, "error_mean", &a->error_mean, err)) < 0 ||
        (rc = need_error(o, "error_energy", &a->error_energy, err)) < 0)
        return rc;
    return read_place(c, a, o, err);
}

static int compare_place(const void *a, const void *b)
{
    const struct cts_collection_adapter *x = *(const struct cts_collection_adapter *const *)a;
    const struct cts_collection_adapter *y = *(const struct cts_collection_adapter *const *)b;

    if (x->class_idx != y->class_idx) return x->class_idx < y->class_idx ? -1 : 1;
    return (x->slot_idx > y->slot_idx) - (x->slot_idx < y->slot_idx);
}

/* No two adapters in one slot. */
static int check_places(const struct cts_collection *c, struct cts_err *err)
{
    const struct cts_collection_adapter **by_place = calloc(c->n_adapters + 1u, sizeof(*by_place));
    int                                   rc = 0;

    if (by_place == NULL) return cts_err_set(err, -ENOMEM, "%u adapters", c->n_adapters);
    for (uint32_t i = 0; i < c->n_adapters; i++) by_place[i] = &c->adapters[i];
    qsort(by_place, c->n_adapters, sizeof(*by_place), compare_place);
    for (uint32_t i = 1; i < c->n_adapters && rc == 0; i++)
        if (compare_place(&by_place[i - 1], &by_place[i]) == 0)
            rc = cts_err_set(err, CTS_EFORMAT, "adapters '%s' and '%s' have the same slot", by_place[i - 1]->name,
                             by_place[i]->name);
    free(by_place);
    return rc;
}

static int read_adapters(struct cts_collection *c, const json_t *j, struct cts_err *err)
{
    const json_t *list = json_object_get(j, "adapters"), *o;
    size_t        i;
    int           rc;

    if (!json_is_array(list)) return cts_err_set(err, CTS_EFORMAT, "'adapters' is not an array");
    if (json_array_size(list) > ADAPTERS_MAX)
        return cts_err_set(err, CTS_EFORMAT, "more than %u adapters", ADAPTERS_MAX);
    c->adapters = calloc(json_array_size(list) + 1, sizeof(*c->adapters));
    if (c->adapters == NULL) return cts_err_set(err, -ENOMEM, "%zu adapters", json_array_size(list));
    json_array_foreach(list, i, o)
    {
        rc = read_adapter(c, &c->adapters[i], o, err);
        if (rc < 0) return cts_err_prefix(err, rc, "'adapters' entry %zu", i);
        if (i > 0 && strcmp(c->adapters[i - 1].name, c->adapters[i].name) >= 0)
            return cts_err_set(err, CTS_EFORMAT, "adapter '%s' is not after '%s'", c->adapters[i].name,
                               c->adapters[i - 1].name);
        c->n_adapters++;
    }
    return check_places(c, err);
}

static int read_json(struct cts_collection *c, struct cts_err *err)
{
    const struct files *f = c->files;
    uint8_t             digest[CTS_DIGEST_BYTES];
    char                path[4096];
    json_t             *j = NULL;
    int                 rc;

    if (snprintf(path, sizeof(path), "%s/%s", c->dir, CTS_COLLECTION_JSON) >= (int)sizeof(path))
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", c->dir);
    if ((rc = cts_json_load(path, JSON_BYTES_MAX, &j, err)) < 0) return rc;
    if ((rc = read_head(c, j, err)) == 0 && (rc = read_files(c, j, err)) == 0) rc = read_adapters(c, j, err);
    if (rc == 0) {
        cts_collection_digest(c, f->file, f->n_files, digest);
        if (memcmp(digest, c->digest, sizeof(digest)) != 0)
            rc = cts_err_set(err, CTS_EDIGEST, "'digest' is not that of its contents");
    }
    json_decref(j);
    return rc < 0 ? cts_err_prefix(err, rc, "%s", CTS_COLLECTION_JSON) : 0;
}

/* Open <dir>/name, a regular file of at least bytes; returns the descriptor. */
static int open_file(const struct cts_collection *c, const char *name, uint64_t bytes, struct cts_err *err)
{
    struct stat st;
    char        path[4096];
    int         fd;

    if (snprintf(path, sizeof(path), "%s/%s", c->dir, name) >= (int)sizeof(path))
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", c->dir);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return cts_err_set(err, -errno, "open '%s'", path);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < bytes) {
        (void)close(fd); /* nothing was written to it */
        return cts_err_set(err, CTS_EFORMAT, "%s: shorter than the %" PRIu64 " bytes that %s records, or no file",
                           name, bytes, CTS_COLLECTION_JSON);
    }
    return fd;
}

static int open_slots(struct cts_collection *c, struct cts_err *err)
{
    struct files *f = c->files;
    char          name[CTS_COLLECTION_FILE_BYTES];

    for (uint32_t i = 0; i < f->n_slot_files; i++) {
        struct slot_file *s = &f->slots[i];

        cts_collection_slots_name(s->class_bytes, name);
        s->fd = open_file(c, name, s->n_slots * s->class_bytes, err);
        if (s->fd < 0) return s->fd;
    }
    return 0;
}

/* The record of basis.safetensors against the file. */
static int check_basis_file(const struct cts_collection *c, struct cts_err *err)
{
    const struct files               *f = c->files;
    const struct cts_collection_file *e = f->file; /* sorts before sigma.* */
    uint8_t                           digest[CTS_DIGEST_BYTES];
    int                               fd, rc;

    CTS_ASSERT(strcmp(e->name, CTS_COLLECTION_BASIS) == 0);
    fd = open_file(c, e->name, e->bytes, err);
    if (fd < 0) return fd;
    rc = cts_collection_file_digest(fd, e->bytes, digest);
    (void)close(fd); /* nothing was written to it */
    if (rc < 0) return cts_err_set(err, rc, "read '%s/%s'", c->dir, e->name);
    if (memcmp(digest, e->digest, sizeof(digest)) != 0)
        return cts_err_set(err, CTS_EDIGEST, "%s: its bytes are damaged", e->name);
    return 0;
}

const struct cts_basis *cts_collection_basis(const struct cts_collection *c, uint32_t cluster, uint32_t layer,
                                             uint32_t linear)
{
    struct cts_basis key = { .cluster = cluster, .layer = layer, .linear = linear };

    if (c->n_bases == 0) return NULL;
    return bsearch(&key, c->bases, c->n_bases, sizeof(*c->bases), cts_basis_compare);
}

/* Which basis a tensor of the file belongs to, and on which side; its shape. */
static int check_tensor(const struct cts_collection *c, const struct cts_tensor *t, struct cts_basis *b, char *side,
                        struct cts_err *err)
{
    if (cts_collection_tensor_parse(t->name, b, side) < 0)
        return cts_err_set(err, CTS_EFORMAT, "tensor '%s': no basis has that name", t->name);
    if (b->cluster >= c->n_clusters || b->layer >= c->n_layers)
        return cts_err_set(err, CTS_EFORMAT, "tensor '%s': %s has %u clusters and %u layers", t->name,
                           CTS_COLLECTION_JSON, c->n_clusters, c->n_layers);
    if (t->n_dims != 2 || t->dim[0] == 0 || t->dim[0] > CTS_SLOT_DIM_MAX || t->dim[1] == 0 ||
        t->dim[1] > CTS_SLOT_RANK_MAX)
        return cts_err_set(err, CTS_EFORMAT, "tensor '%s': its shape is out of range", t->name);
    return 0;
}

/* Every pair of tensors as one basis without values. The file sorts by name, so
 * that V follows its U. */
static int list_bases(struct cts_collection *c, const struct cts_safetensors *f, struct cts_err *err)
{
    struct cts_basis v = { 0 };
    char             side;
    int              rc;

    c->bases = calloc(f->n_tensors / 2 + 1, sizeof(*c->bases));
    if (c->bases == NULL) return cts_err_set(err, -ENOMEM, "%u bases", f->n_tensors / 2);
    for (uint32_t i = 0; i < f->n_tensors; i += 2) {
        struct cts_basis        *b = &c->bases[c->n_bases];
        const struct cts_tensor *tu = &f->tensors[i], *tv = tu + 1;

        if ((rc = check_tensor(c, tu, b, &side, err)) < 0) return rc;
        if (side != 'U' || i + 1 == f->n_tensors)
            return cts_err_set(err, CTS_EFORMAT, "tensor '%s': U or V is missing", tu->name);
        if ((rc = check_tensor(c, tv, &v, &side, err)) < 0) return rc;
        if (side != 'V' || cts_basis_compare(b, &v) != 0)
            return cts_err_set(err, CTS_EFORMAT, "tensor '%s': its V is missing", tu->name);
        b->n_out = (uint32_t)tu->dim[0];
        b->rank_u = (uint32_t)tu->dim[1];
        b->n_in = (uint32_t)tv->dim[0];
        b->rank_v = (uint32_t)tv->dim[1];
        if (b->rank_u > c->rank_max) c->rank_max = b->rank_u;
        if (b->rank_v > c->rank_max) c->rank_max = b->rank_v;
        c->n_bases++;
    }
    qsort(c->bases, c->n_bases, sizeof(*c->bases), cts_basis_compare);
    return 0;
}

/* Read one tensor of n values; refuse what is not finite. *out is the caller's to free. */
static int read_values(const struct cts_safetensors *f, const struct cts_basis *b, char side, float **out,
                       struct cts_err *err)
{
    char                     name[96];
    const struct cts_tensor *t;
    int                      rc;

    cts_collection_tensor_name(b, side, name);
    t = cts_safetensors_find(f, name);
    CTS_ASSERT(t != NULL); /* it was listed */
    *out = malloc(t->n_values * sizeof(**out));
    if (*out == NULL) return cts_err_set(err, -ENOMEM, "tensor '%s'", name);
    if ((rc = cts_safetensors_read_f32(f, t, *out, err)) < 0) return rc;
    for (uint64_t i = 0; i < t->n_values; i++)
        if (!isfinite((*out)[i])) return cts_err_set(err, CTS_EFORMAT, "tensor '%s': a value is not finite", name);
    return 0;
}

static int read_basis(const struct cts_safetensors *f, struct cts_basis *b, struct cts_err *err)
{
    float *v = NULL;
    int    rc;

    if ((rc = read_values(f, b, 'U', &b->u, err)) < 0) return rc;
    rc = read_values(f, b, 'V', &v, err);
    if (rc == 0 && (b->vt = malloc((size_t)b->n_in * b->rank_v * sizeof(*b->vt))) == NULL)
        rc = cts_err_set(err, -ENOMEM, "a basis of %u x %u", b->n_in, b->rank_v);
    for (size_t i = 0; rc == 0 && i < b->n_in; i++)
        for (size_t k = 0; k < b->rank_v; k++) b->vt[k * b->n_in + i] = v[i * b->rank_v + k];
    free(v);
    return rc;
}

static int open_bases(struct cts_collection *c, struct cts_err *err)
{
    const struct files    *fs = c->files;
    struct cts_safetensors f;
    char                   path[4096];
    int                    rc;

    if (!fs->has_basis) return 0;
    if ((rc = check_basis_file(c, err)) < 0) return rc;
    if (snprintf(path, sizeof(path), "%s/%s", c->dir, CTS_COLLECTION_BASIS) >= (int)sizeof(path))
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", c->dir);
    if ((rc = cts_safetensors_open(&f, path, err)) < 0) return rc;
    rc = list_bases(c, &f, err);
    for (uint32_t i = 0; rc == 0 && i < c->n_bases; i++) rc = read_basis(&f, &c->bases[i], err);
    cts_safetensors_close(&f);
    return rc < 0 ? cts_err_prefix(err, rc, "%s", CTS_COLLECTION_BASIS) : 0;
}

/* Whose fault and what to do, in front of a refusal. */
static int refuse(const struct cts_collection *c, int rc, struct cts_err *err)
{
    int is_damaged = rc == CTS_EFORMAT || rc == CTS_EDIGEST || rc == CTS_EUNSUP || rc == CTS_EVERSION || rc == -EIO;

    return cts_err_prefix(err, rc, "collection '%s'%s", c->dir,
                          is_damaged ? " is refused (restore it or run cts-compress again)" : "");
}

int cts_collection_open(struct cts_collection *c, const char *dir, struct cts_err *err)
{
    struct files *f;
    int           rc;

    *c = (struct cts_collection){ .dir = strdup(dir), .files = calloc(1, sizeof(*f)) };
    f = c->files;
    if (c->dir == NULL || f == NULL) {
        rc = cts_err_set(err, -ENOMEM, "collection '%s'", dir);
        goto fail;
    }
    if ((rc = read_json(c, err)) < 0 || (rc = open_slots(c, err)) < 0 || (rc = open_bases(c, err)) < 0) {
        rc = refuse(c, rc, err);
        goto fail;
    }
    return 0;

fail:
    cts_collection_close(c);
    return rc;
}

void cts_collection_close(struct cts_collection *c)
{
    struct files *f = c->files;

    for (uint32_t i = 0; i < c->n_bases; i++) {
        free(c->bases[i].u);
        free(c->bases[i].vt);
    }
    for (uint32_t i = 0; f != NULL && i < f->n_slot_files; i++)
        if (f->slots[i].fd >= 0) (void)close(f->slots[i].fd); /* nothing was written to it */
    free(c->bases);
    free(c->adapters);
    free(f);
    free(c->dir);
    *c = (struct cts_collection){ 0 };
}

static int compare_name(const void *key, const void *elem)
{
    return strcmp(key, ((const struct cts_collection_adapter *)elem)->name);
}

int64_t cts_collection_find(const struct cts_collection *c, const char *name)
{
    const struct cts_collection_adapter *a = NULL;

    if (c->n_adapters > 0) a = bsearch(name, c->adapters, c->n_adapters, sizeof(*a), compare_name);
    return a == NULL ? -1 : a - c->adapters;
}

/* What the slot says against what collection.json and the bases say. */
static int check_slot(const struct cts_collection *c, const struct cts_collection_adapter *a, const struct cts_slot *s,
                      const uint8_t checksum[CTS_SLOT_CHECKSUM_BYTES], struct cts_err *err)
{
    if (memcmp(s->digest, a->digest, CTS_DIGEST_BYTES) != 0)
        return cts_err_set(err, CTS_EDIGEST, "adapter digest: it is another adapter's slot");
    if (s->generation != c->generation)
        return cts_err_set(err, CTS_EDIGEST, "generation: the slot's is %" PRIu64 ", the collection's %" PRIu64,
                           s->generation, c->generation);
    if (memcmp(checksum, a->checksum, CTS_SLOT_CHECKSUM_BYTES) != 0)
        return cts_err_set(err, CTS_EDIGEST, "checksum: it is not the one that %s records", CTS_COLLECTION_JSON);
    for (uint32_t i = 0; i < s->n_parts; i++) {
        const struct cts_slot_part *p = &s->parts[i];
        const struct cts_basis     *b = cts_collection_basis(c, a->cluster, p->layer, p->linear);

        if (p->layer >= c->n_layers)
            return cts_err_set(err, CTS_EFORMAT, "part %u: layer %u of %u", i, p->layer, c->n_layers);
        if (p->kind != CTS_PART_SIGMA) continue;
        if (p->cluster != a->cluster)
            return cts_err_set(err, CTS_EFORMAT, "part %u: cluster %u, the adapter is in another", i, p->cluster);
        if (b == NULL || b->rank_u != p->n_rows || b->rank_v != p->n_cols)
            return cts_err_set(err, CTS_EFORMAT, "part %u: a sigma of %u x %u without a basis for it", i,
                               p->n_rows, p->n_cols);
    }
    return 0;
}

/* The whole slot at buf. */
static int read_slot(int fd, void *buf, uint64_t class_bytes, uint32_t slot_idx, struct cts_err *err)
{
    uint64_t off = 0;

    while (off < class_bytes) {
        ssize_t got =
            pread(fd, (uint8_t *)buf + off, class_bytes - off, (off_t)((uint64_t)slot_idx * class_bytes + off));

        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return cts_err_set(err, -errno, "read");
        if (got == 0) return cts_err_set(err, -EIO, "the file ends inside the slot");
        off += (uint64_t)got;
    }
    return 0;
}

int cts_collection_read(const struct cts_collection *c, uint32_t adapter_idx, struct cts_slot *out, struct cts_err *err)
{
    const struct cts_collection_adapter *a = &c->adapters[adapter_idx];
    const struct files                  *f = c->files;
    struct cts_slot                      s = { 0 };
    uint8_t                              checksum[CTS_SLOT_CHECKSUM_BYTES];
    void                                *buf;
    int                                  rc;

    CTS_ASSERT(adapter_idx < c->n_adapters);
    buf = malloc(a->class_bytes);
    if (buf == NULL) return cts_err_set(err, -ENOMEM, "a slot of %" PRIu64 " bytes", a->class_bytes);
    rc = read_slot(f->slots[a->class_idx].fd, buf, a->class_bytes, a->slot_idx, err);
    if (rc == 0) rc = cts_slot_unpack(&s, buf, a->class_bytes, a->slot_idx, checksum, err);
    if (rc == 0) rc = check_slot(c, a, &s, checksum, err);
    free(buf);
    if (rc < 0) {
        char name[CTS_COLLECTION_FILE_BYTES];

        cts_slot_free(&s);
        cts_collection_slots_name(a->class_bytes, name);
        rc = cts_err_prefix(err, rc, "%s: slot %u of adapter '%s'", name, a->slot_idx, a->name);
        return refuse(c, rc, err);
    }
    *out = s;
    return 0;
}
