/* The writer of collections: everything goes into .NAME.new beside NAME, whose
 * lock is held meanwhile, and one rename makes it NAME. */
#include "daemon/store/collection.h"

#include "common/assert.h"
#include "common/file.h"
#include "common/json.h"
#include "common/safetensors.h"
#include "daemon/store/collection_format.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX (CTS_COLLECTION_CLASSES_MAX + 1)

/* Everything that a commit works out, freed as a whole. */
struct commit {
    const struct cts_collection_new *n;
    struct cts_collection            c;       /* head and adapters, for the digest */
    struct cts_slot_layout          *layouts; /* [n_adapters] */
    uint32_t                         n_files;
    struct cts_collection_file       files[FILES_MAX];
    struct cts_collection_bytes      bytes;
};

static int join_path(char *out, size_t cap, const char *dir, const char *name, struct cts_err *err)
{
    if (snprintf(out, cap, "%s/%s", dir, name) < (int)cap) return 0;
    return cts_err_set(err, -ENAMETOOLONG, "'%s/%s'", dir, name);
}

/* <parent>/.<name>.new for dir without its trailing slashes; both are the caller's to free. */
static int name_paths(struct cts_collection_writer *w, const char *dir, struct cts_err *err)
{
    size_t n = strlen(dir), parent;

    while (n > 1 && dir[n - 1] == '/') n--;
    for (parent = n; parent > 0 && dir[parent - 1] != '/'; parent--) {}
    const char *name = dir + parent;
    size_t      name_len = n - parent;

    if (name_len == 0 || (name_len == 1 && name[0] == '.') || (name_len == 2 && name[0] == '.' && name[1] == '.'))
        return cts_err_set(err, CTS_EARG, "'%s' names no folder of its own: give the collection a name", dir);
    if (asprintf(&w->dir, "%.*s", (int)n, dir) < 0) w->dir = NULL;
    if (asprintf(&w->tmp, "%.*s.%.*s.new", (int)parent, dir, (int)name_len, name) < 0) w->tmp = NULL;
    return w->dir != NULL && w->tmp != NULL ? 0 : cts_err_set(err, -ENOMEM, "'%s'", dir);
}

/* The files that a collection may have, whole or half written: all else in a folder is not ours to remove. */
static int is_our_file(const char *name)
{
    char   bare[64];
    size_t n = strlen(name);

    if (n >= sizeof(bare)) return 0;
    memcpy(bare, name, n + 1);
    if (n > 4 && strcmp(bare + n - 4, ".tmp") == 0) bare[n - 4] = 0;
    return strcmp(bare, CTS_COLLECTION_JSON) == 0 || strcmp(bare, CTS_COLLECTION_BASIS) == 0 ||
           cts_collection_slots_class(bare) != 0;
}

/* Remove a collection's files from dir; the lock stays. Other files stay too. */
static int clear_folder(const char *dir, struct cts_err *err)
{
    DIR           *d = opendir(dir);
    struct dirent *e;
    int            rc = 0;

    if (d == NULL) return cts_err_set(err, -errno, "open '%s'", dir);
    while (rc == 0 && (errno = 0, e = readdir(d)) != NULL)
        if (is_our_file(e->d_name) && unlinkat(dirfd(d), e->d_name, 0) < 0)
            rc = cts_err_set(err, -errno, "remove '%s/%s'", dir, e->d_name);
    if (rc == 0 && errno != 0) rc = cts_err_set(err, -errno, "list '%s'", dir);
    (void)closedir(d); /* it was only read */
    return rc;
}

/* Remove dir with the collection in it, its lock last. */
static int remove_folder(const char *dir, struct cts_err *err)
{
    char path[4096];
    int  rc = clear_folder(dir, err);

    if (rc < 0 || (rc = join_path(path, sizeof(path), dir, CTS_COLLECTION_LOCK, err)) < 0) return rc;
    if (unlink(path) < 0 && errno != ENOENT) return cts_err_set(err, -errno, "remove '%s'", path);
    return rmdir(dir) < 0 ? cts_err_set(err, -errno, "remove '%s'", dir) : 0;
}

/* Take the lock of the folder dir; returns the descriptor that holds it. The
 * file is looked at again afterwards: its folder may have become a collection,
 * or may have been removed, between open and lock. */
static int lock_folder(const char *dir, struct cts_err *err)
{
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    struct stat  a, b;
    char         path[4096];
    int          fd, rc = join_path(path, sizeof(path), dir, CTS_COLLECTION_LOCK, err);

    if (rc < 0) return rc;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return cts_err_set(err, -errno, "open '%s'", path);
    if (fcntl(fd, F_OFD_SETLK, &fl) < 0) {
        rc = errno == EAGAIN || errno == EACCES
                 ? cts_err_set(err, CTS_EBUSY, "'%s' is held: another writer is at this collection", path)
                 : cts_err_set(err, -errno, "lock '%s'", path);
    } else if (fstat(fd, &a) < 0 || stat(path, &b) < 0 || a.st_dev != b.st_dev || a.st_ino != b.st_ino) {
        rc = cts_err_set(err, CTS_EBUSY, "'%s' changed hands: another writer was at this collection", path);
    }
    if (rc < 0) {
        (void)close(fd); /* nothing was written to it */
        return rc;
    }
    return fd;
}

/* What lies at dir may be replaced: a collection, when that was asked for. */
static int check_target(struct cts_collection_writer *w, int is_replacing, struct cts_err *err)
{
    struct stat st;
    char        path[4096];
    int         rc;

    if (lstat(w->dir, &st) < 0) return errno == ENOENT ? 0 : cts_err_set(err, -errno, "'%s'", w->dir);
    if (!is_replacing)
        return cts_err_set(err, -EEXIST, "'%s': remove it, choose another name, or ask to replace it", w->dir);
    if ((rc = join_path(path, sizeof(path), w->dir, CTS_COLLECTION_JSON, err)) < 0) return rc;
    if (!S_ISDIR(st.st_mode) || lstat(path, &st) < 0)
        return cts_err_set(err, -EEXIST, "'%s' is no collection and is not replaced", w->dir);
    w->old_lock_fd = lock_folder(w->dir, err);
    w->is_replacing = 1;
    return w->old_lock_fd < 0 ? w->old_lock_fd : 0;
}

int cts_collection_writer_open(struct cts_collection_writer *w, const char *dir, int is_replacing, struct cts_err *err)
{
    int rc;

    *w = (struct cts_collection_writer){ .lock_fd = -1, .old_lock_fd = -1 };
    if ((rc = name_paths(w, dir, err)) < 0 || (rc = check_target(w, is_replacing, err)) < 0) goto fail;
    if (mkdir(w->tmp, 0777) < 0 && errno != EEXIST) {
        rc = cts_err_set(err, -errno, "make '%s'", w->tmp);
        goto fail;
    }
    w->lock_fd = rc = lock_folder(w->tmp, err);
    if (rc < 0) goto fail;
    w->is_made = 1; /* by us, or left by a writer that is gone */
    if ((rc = clear_folder(w->tmp, err)) < 0) goto fail;
    return 0;

fail:
    cts_collection_writer_close(w);
    return rc;
}

void cts_collection_writer_close(struct cts_collection_writer *w)
{
    if (w->is_made) (void)remove_folder(w->tmp, NULL); /* best effort: the next writer clears it */
    if (w->lock_fd >= 0) (void)close(w->lock_fd);      /* gives the lock back; it has no contents */
    if (w->old_lock_fd >= 0) (void)close(w->old_lock_fd);
    free(w->tmp);
    free(w->dir);
    *w = (struct cts_collection_writer){ .lock_fd = -1, .old_lock_fd = -1 };
}

/* The class that costs the fewest bytes when its slots move up to the next one
 * in use is merged into it, until at most CTS_COLLECTION_CLASSES_MAX are left. */
static int merge_one_class(struct cts_slot_layout *l, uint32_t n)
{
    uint64_t cls[64] = { 0 }, count[64] = { 0 }, best = UINT64_MAX;
    uint32_t n_cls = 0, k, at = 0;

    for (uint64_t c = 4096; c != 0; c = cts_slot_class(c + 1)) {
        for (uint32_t i = 0; i < n; i++) count[n_cls] += l[i].class_bytes == c;
        cls[n_cls] = c;
        n_cls += count[n_cls] > 0;
    }
    if (n_cls <= CTS_COLLECTION_CLASSES_MAX) return 0;
    for (k = 0; k + 1 < n_cls; k++) {
        uint64_t cost = count[k] * (cls[k + 1] - cls[k]);

        if (cost < best) best = cost, at = k;
    }
    for (uint32_t i = 0; i < n; i++)
        if (l[i].class_bytes == cls[at]) l[i].class_bytes = cls[at + 1];
    return 1;
}

/* Layout and class of every adapter's slot, and the checks on what is given. */
static int lay_out(struct commit *k, struct cts_err *err)
{
    const struct cts_collection_new *n = k->n;
    int                              rc;

    for (uint32_t i = 0; i < n->n_adapters; i++) {
        const struct cts_collection_entry *e = &n->adapters[i];

        if ((rc = cts_collection_check_name(e->name, err)) < 0) return cts_err_prefix(err, rc, "adapter '%s'", e->name);
        CTS_ASSERT(i == 0 || strcmp(n->adapters[i - 1].name, e->name) < 0); /* catalog order */
        rc = cts_slot_layout(&k->layouts[i], e->slot.parts, e->slot.n_parts, err);
        if (rc < 0) return cts_err_prefix(err, rc, "adapter '%s'", e->name);
    }
    while (merge_one_class(k->layouts, n->n_adapters)) {}
    return 0;
}

/* What the catalog says of adapter i, and its slot packed into buf. */
static void pack_adapter(struct commit *k, uint32_t i, uint32_t slot_idx, void *buf)
{
    const struct cts_slot_layout  *l = &k->layouts[i];
    struct cts_collection_entry   *e = &k->n->adapters[i];
    struct cts_collection_adapter *a = &k->c.adapters[i];

    e->slot.generation = k->n->generation;
    snprintf(a->name, sizeof(a->name), "%s", e->name);
    memcpy(a->digest, e->slot.digest, CTS_DIGEST_BYTES);
    a->cluster = CTS_CLUSTER_NONE;
    for (uint32_t p = 0; p < e->slot.n_parts; p++)
        if (e->slot.parts[p].kind == CTS_PART_SIGMA) a->cluster = e->slot.parts[p].cluster;
    a->class_bytes = e->class_bytes = l->class_bytes;
    a->slot_idx = slot_idx;
    a->error_mean = e->error_mean;
    a->error_energy = e->error_energy;
    cts_slot_pack(buf, l, slot_idx, &e->slot, a->checksum);
    k->bytes.values += l->value_bytes;
    k->bytes.scales += 4 * (uint64_t)e->slot.n_parts;
    k->bytes.headers += l->class_bytes - l->value_bytes - 4 * (uint64_t)e->slot.n_parts;
}

/* All slots of one class into the file fd. */
static int write_class(struct commit *k, uint64_t class_bytes, int fd, struct cts_collection_file *f)
{
    struct cts_blake2b h;
    void              *buf = malloc(class_bytes);
    uint32_t           slot_idx = 0;
    int                rc = buf == NULL ? -ENOMEM : 0;

    cts_blake2b_init(&h);
    for (uint32_t i = 0; i < k->n->n_adapters && rc == 0; i++) {
        if (k->layouts[i].class_bytes != class_bytes) continue;
        pack_adapter(k, i, slot_idx++, buf);
        cts_blake2b_add(&h, buf, class_bytes);
        rc = cts_file_write(fd, buf, class_bytes);
    }
    free(buf);
    cts_blake2b_end(&h, f->digest);
    f->bytes = slot_idx * class_bytes;
    return rc;
}

static int write_slot_file(struct commit *k, const char *tmp, uint64_t class_bytes, struct cts_err *err)
{
    struct cts_collection_file *f = &k->files[k->n_files];
    char                        path[4096];
    int                         fd, rc;

    cts_collection_slots_name(class_bytes, f->name);
    if ((rc = join_path(path, sizeof(path), tmp, f->name, err)) < 0) return rc;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return cts_err_set(err, -errno, "create '%s'", path);
    rc = write_class(k, class_bytes, fd, f);
    if (rc == 0 && fsync(fd) < 0) rc = -errno;
    if (close(fd) < 0 && rc == 0) rc = -errno;
    if (rc < 0) return cts_err_set(err, rc, "write '%s'", path);
    k->n_files++;
    return 0;
}

static int compare_file(const void *a, const void *b)
{
    return strcmp(((const struct cts_collection_file *)a)->name, ((const struct cts_collection_file *)b)->name);
}

static int write_slots(struct commit *k, const char *tmp, struct cts_err *err)
{
    int rc;

    for (uint64_t c = 4096; c != 0; c = cts_slot_class(c + 1)) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < k->n->n_adapters; i++) n += k->layouts[i].class_bytes == c;
        if (n > 0 && (rc = write_slot_file(k, tmp, c, err)) < 0) return rc;
    }
    return 0;
}

/* The two tensors of one basis; V is turned from vt into new memory, *v, the caller's to free. */
static int list_tensors(const struct cts_basis *b, enum cts_dtype t, char name[2][96], struct cts_tensor_out out[2],
                        float **v)
{
    *v = malloc((size_t)b->n_in * b->rank_v * sizeof(**v));
    if (*v == NULL) return -ENOMEM;
    for (size_t i = 0; i < b->n_in; i++)
        for (size_t r = 0; r < b->rank_v; r++) (*v)[i * b->rank_v + r] = b->vt[r * b->n_in + i];
    cts_collection_tensor_name(b, 'U', name[0]);
    cts_collection_tensor_name(b, 'V', name[1]);
    out[0] = (struct cts_tensor_out){ name[0], t, 2, { b->n_out, b->rank_u }, b->u };
    out[1] = (struct cts_tensor_out){ name[1], t, 2, { b->n_in, b->rank_v }, *v };
    return 0;
}

static int write_tensors(const struct cts_collection_new *n, const char *path, struct cts_err *err)
{
    struct cts_tensor_out *t = calloc(2 * (size_t)n->n_bases, sizeof(*t));
    char(*names)[2][96] = calloc(n->n_bases, sizeof(*names));
    float **v = calloc(n->n_bases, sizeof(*v));
    int     rc = t == NULL || names == NULL || v == NULL ? -ENOMEM : 0;

    for (uint32_t i = 0; i < n->n_bases && rc == 0; i++)
        rc = list_tensors(&n->bases[i], n->basis_format, names[i], t + 2 * i, &v[i]);
    rc = rc < 0 ? cts_err_set(err, rc, "%u bases", n->n_bases) : cts_safetensors_write(path, t, 2 * n->n_bases, err);
    for (uint32_t i = 0; v != NULL && i < n->n_bases; i++) free(v[i]);
    free(v);
    free(names);
    free(t);
    return rc;
}

static int write_basis(struct commit *k, const char *tmp, struct cts_err *err)
{
    struct cts_collection_file *f = &k->files[k->n_files];
    struct stat                 st;
    char                        path[4096];
    int                         fd, rc;

    if (k->n->n_bases == 0) return 0;
    for (uint32_t i = 0; i < k->n->n_bases; i++) {
        const struct cts_basis *b = &k->n->bases[i];

        k->bytes.basis += ((uint64_t)b->n_out * b->rank_u + (uint64_t)b->n_in * b->rank_v) *
                          cts_dtype_bytes(k->n->basis_format);
    }
    snprintf(f->name, sizeof(f->name), "%s", CTS_COLLECTION_BASIS);
    if ((rc = join_path(path, sizeof(path), tmp, f->name, err)) < 0 || (rc = write_tensors(k->n, path, err)) < 0)
        return rc;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return cts_err_set(err, -errno, "open '%s'", path);
    rc = fstat(fd, &st) < 0 ? -errno : cts_collection_file_digest(fd, (uint64_t)st.st_size, f->digest);
    (void)close(fd); /* nothing was written to it */
    if (rc < 0) return cts_err_set(err, rc, "read '%s'", path);
    f->bytes = (uint64_t)st.st_size;
    k->bytes.headers += f->bytes - k->bytes.basis;
    k->n_files++;
    return 0;
}

/* json_object_set_new that remembers a failure. */
static void set(json_t *o, const char *key, json_t *v, int *rc)
{
    if (o == NULL || v == NULL || json_object_set_new(o, key, v) < 0) *rc = -ENOMEM;
}

static void set_digest(json_t *o, const char *key, const uint8_t d[CTS_DIGEST_BYTES], int *rc)
{
    char hex[CTS_DIGEST_HEX_BYTES];

    cts_digest_hex(d, hex);
    set(o, key, json_string(hex), rc);
}

static json_t *files_to_json(const struct commit *k, int *rc)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < k->n_files; i++) {
        json_t *o = json_object();

        set(o, "name", json_string(k->files[i].name), rc);
        set(o, "bytes", json_integer((json_int_t)k->files[i].bytes), rc);
        set_digest(o, "digest", k->files[i].digest, rc);
        if (json_array_append_new(list, o) < 0) *rc = -ENOMEM;
    }
    return list;
}

static json_t *adapter_to_json(const struct cts_collection_adapter *a, int *rc)
{
    json_t *o = json_object();
    char    hex[2 * CTS_SLOT_CHECKSUM_BYTES + 1];

    for (int i = 0; i < CTS_SLOT_CHECKSUM_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", a->checksum[i]);
    set(o, "name", json_string(a->name), rc);
    set_digest(o, "digest", a->digest, rc);
    if (a->cluster != CTS_CLUSTER_NONE) set(o, "cluster", json_integer(a->cluster), rc);
    set(o, "class", json_integer((json_int_t)a->class_bytes), rc);
    set(o, "slot", json_integer(a->slot_idx), rc);
    set(o, "checksum", json_string(hex), rc);
    set(o, "error_mean", json_real(a->error_mean), rc);
    set(o, "error_energy", json_real(a->error_energy), rc);
    return o;
}

static json_t *bytes_to_json(const struct cts_collection_bytes *b, int *rc)
{
    json_t *o = json_object();

    set(o, "basis", json_integer((json_int_t)b->basis), rc);
    set(o, "values", json_integer((json_int_t)b->values), rc);
    set(o, "scales", json_integer((json_int_t)b->scales), rc);
    set(o, "headers", json_integer((json_int_t)b->headers), rc);
    return o;
}

/* The record of how it was made. */
static void head_to_json(const struct commit *k, json_t *j, int *rc)
{
    const struct cts_collection_new *n = k->n;

    set(j, "format", json_string("cts-collection"), rc);
    set(j, "version", json_integer(CTS_COLLECTION_VERSION), rc);
    set(j, "tool", json_string(n->tool), rc);
    set_digest(j, "digest", k->c.digest, rc);
    set(j, "generation", json_integer((json_int_t)n->generation), rc);
    set_digest(j, "base_digest", n->base_digest, rc);
    set(j, "n_layers", json_integer(n->n_layers), rc);
    set(j, "method", json_string(n->method), rc);
    set(j, "rank", json_integer(n->rank), rc);
    set(j, "clusters", json_integer(n->n_clusters), rc);
    set(j, "assignment", json_string(n->assignment), rc);
    set(j, "seed", json_integer((json_int_t)n->seed), rc);
    set(j, "sigma_format", json_string(cts_dtype_name(n->sigma_format)), rc);
    set(j, "basis_format", json_string(cts_dtype_name(n->basis_format)), rc);
    set(j, "error_mean", json_real(n->error_mean), rc);
    set(j, "error_energy", json_real(n->error_energy), rc);
    set(j, "bytes", bytes_to_json(&k->bytes, rc), rc);
}

static int write_json(const struct commit *k, const char *tmp, struct cts_err *err)
{
    json_t *j = json_object(), *list = json_array();
    char    path[4096];
    int     rc = 0;

    head_to_json(k, j, &rc);
    set(j, "files", files_to_json(k, &rc), &rc);
    for (uint32_t i = 0; i < k->n->n_adapters; i++)
        if (json_array_append_new(list, adapter_to_json(&k->c.adapters[i], &rc)) < 0) rc = -ENOMEM;
    set(j, "adapters", list, &rc);
    if (rc < 0) rc = cts_err_set(err, rc, "%s", CTS_COLLECTION_JSON);
    else if ((rc = join_path(path, sizeof(path), tmp, CTS_COLLECTION_JSON, err)) == 0) rc = cts_json_save(j, path, err);
    json_decref(j);
    return rc;
}

static int sync_folder(const char *dir, struct cts_err *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

    if (fd < 0 || fsync(fd) < 0) rc = cts_err_set(err, -errno, "sync '%s'", dir);
    if (fd >= 0) (void)close(fd); /* nothing was written through it */
    return rc;
}

/* The folder that dir lies in. */
static int sync_parent(const char *dir, struct cts_err *err)
{
    char  path[4096];
    char *slash;

    if (snprintf(path, sizeof(path), "%s", dir) >= (int)sizeof(path))
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", dir);
    slash = strrchr(path, '/');
    if (slash == NULL) return sync_folder(".", err);
    slash[slash == path] = 0; /* "/x" lies in "/" */
    return sync_folder(path, err);
}

/* tmp becomes dir in one step; what was dir before is removed after it. */
static int put_in_place(struct cts_collection_writer *w, struct cts_err *err)
{
    unsigned flags = w->is_replacing ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    int      rc = sync_folder(w->tmp, err);

    if (rc < 0) return rc;
    rc = renameat2(AT_FDCWD, w->tmp, AT_FDCWD, w->dir, flags);
    /* A file system without these flags: a plain rename still replaces no folder that has something in it. */
    if (rc < 0 && errno == EINVAL && !w->is_replacing) rc = rename(w->tmp, w->dir);
    if (rc < 0)
        return cts_err_set(err, -errno, "rename '%s' to '%s'", w->tmp, w->dir);
    w->is_made = 0;
    if (w->is_replacing) (void)remove_folder(w->tmp, NULL); /* best effort: the next writer clears it */
    return sync_parent(w->dir, err);
}

static int write_everything(struct commit *k, const char *tmp, struct cts_err *err)
{
    const struct cts_collection_new *n = k->n;
    int                              rc;

    k->c = (struct cts_collection){ .generation = n->generation,
                                    .n_layers = n->n_layers,
                                    .n_clusters = n->n_clusters,
                                    .n_adapters = n->n_adapters,
                                    .error_mean = n->error_mean,
                                    .error_energy = n->error_energy };
    memcpy(k->c.base_digest, n->base_digest, CTS_DIGEST_BYTES);
    k->c.adapters = calloc(n->n_adapters, sizeof(*k->c.adapters));
    k->layouts = calloc(n->n_adapters, sizeof(*k->layouts));
    if (k->c.adapters == NULL || k->layouts == NULL) return cts_err_set(err, -ENOMEM, "%u adapters", n->n_adapters);
    if ((rc = lay_out(k, err)) < 0 || (rc = write_basis(k, tmp, err)) < 0 || (rc = write_slots(k, tmp, err)) < 0)
        return rc;
    qsort(k->files, k->n_files, sizeof(k->files[0]), compare_file);
    cts_collection_digest(&k->c, k->files, k->n_files, k->c.digest);
    return write_json(k, tmp, err);
}

int cts_collection_writer_commit(struct cts_collection_writer *w, const struct cts_collection_new *n,
                                 struct cts_collection_bytes *bytes, uint8_t digest[CTS_DIGEST_BYTES],
                                 struct cts_err *err)
{
    struct commit k = { .n = n };
    int           rc;

    CTS_ASSERT(w->is_made); /* open, and not committed yet */
    CTS_ASSERT(n->n_adapters > 0);
    rc = write_everything(&k, w->tmp, err);
    if (rc == 0) rc = put_in_place(w, err);
    if (rc == 0) {
        *bytes = k.bytes;
        memcpy(digest, k.c.digest, CTS_DIGEST_BYTES);
    }
    free(k.c.adapters);
    free(k.layouts);
    return rc;
}
