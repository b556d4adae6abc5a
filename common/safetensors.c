/* Reading and writing safetensors. All of the header is checked before the
 * first tensor is handed out; of the header's JSON only the names are kept. */
#include "common/safetensors.h"

#include "common/assert.h"
#include "common/file.h"
#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The reference reads headers up to 100 MB. A header of 16 MiB names 100,000
 * tensors; what is larger only serves to fill memory with parsed JSON. */
#define HEADER_BYTES_MAX ((size_t)16 << 20)
#define N_TENSORS_MAX    ((size_t)1 << 18)
#define NAME_BYTES_MAX   1024
#define CHUNK_VALUES     8192 /* widened or narrowed at a time, on the stack */

/* Every dtype that the format has, with its bits: a header may describe tensors
 * that we cannot compute with, as long as nobody asks for their values. */
static const struct {
    const char    *name;
    unsigned       bits;
    enum cts_dtype dtype; /* 0: never read */
} DTYPES[] = {
    { "F32", 32, CTS_F32 }, { "F16", 16, CTS_F16 },  { "BF16", 16, CTS_BF16 }, { "BOOL", 8, 0 },
    { "U8", 8, 0 },         { "I8", 8, 0 },          { "I16", 16, 0 },         { "U16", 16, 0 },
    { "I32", 32, 0 },       { "U32", 32, 0 },        { "I64", 64, 0 },         { "U64", 64, 0 },
    { "F64", 64, 0 },       { "C64", 64, 0 },        { "F8_E5M2", 8, 0 },      { "F8_E4M3", 8, 0 },
    { "F8_E8M0", 8, 0 },    { "F8_E4M3FNUZ", 8, 0 }, { "F8_E5M2FNUZ", 8, 0 },  { "F6_E2M3", 6, 0 },
    { "F6_E3M2", 6, 0 },    { "F4", 4, 0 },
};
#define N_DTYPES (sizeof(DTYPES) / sizeof(DTYPES[0]))

/* One entry of the header on its way in. */
struct entry {
    const char *path, *name; /* for messages */
    uint64_t    data_off;    /* from the start of the file */
};

static int refuse(const struct entry *e, int code, struct cts_err *err, const char *why)
{
    return cts_err_set(err, code, "'%s': tensor '%s': %s", e->path, e->name, why);
}

/* value = json as an unsigned integer; 0 when it is none. */
static int to_u64(const json_t *json, uint64_t *value)
{
    if (!json_is_integer(json) || json_integer_value(json) < 0) return 0;
    *value = (uint64_t)json_integer_value(json);
    return 1;
}

static int parse_dtype(struct cts_tensor *t, const json_t *v, unsigned *bits, const struct entry *e,
                       struct cts_err *err)
{
    if (!json_is_string(v)) return refuse(e, CTS_EFORMAT, err, "'dtype' is missing or not a string");
    for (size_t i = 0; i < N_DTYPES; i++) {
        if (strcmp(json_string_value(v), DTYPES[i].name) != 0) continue;
        t->dtype_name = DTYPES[i].name;
        t->dtype = DTYPES[i].dtype;
        *bits = DTYPES[i].bits;
        return 0;
    }
    return cts_err_set(err, CTS_EFORMAT, "'%s': tensor '%s': safetensors has no dtype '%.32s'", e->path, e->name,
                       json_string_value(v));
}

static int parse_shape(struct cts_tensor *t, const json_t *v, const struct entry *e, struct cts_err *err)
{
    if (!json_is_array(v)) return refuse(e, CTS_EFORMAT, err, "'shape' is missing or not an array");
    if (json_array_size(v) > CTS_TENSOR_DIMS_MAX)
        return cts_err_set(err, CTS_EUNSUP, "'%s': tensor '%s' has %zu dimensions, at most %d are read", e->path,
                           e->name, json_array_size(v), CTS_TENSOR_DIMS_MAX);
    t->n_dims = (uint32_t)json_array_size(v);
    t->n_values = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (!to_u64(json_array_get(v, i), &t->dim[i]))
            return refuse(e, CTS_EFORMAT, err, "'shape' holds something that is not a count");
        if (__builtin_mul_overflow(t->n_values, t->dim[i], &t->n_values))
            return refuse(e, CTS_EFORMAT, err, "the product of its shape passes 64 bits");
    }
    return 0;
}

static int parse_offsets(struct cts_tensor *t, const json_t *v, unsigned bits, const struct entry *e,
                         struct cts_err *err)
{
    uint64_t begin, end, want;

    if (!json_is_array(v) || json_array_size(v) != 2 || !to_u64(json_array_get(v, 0), &begin) ||
        !to_u64(json_array_get(v, 1), &end) || end < begin)
        return refuse(e, CTS_EFORMAT, err, "'data_offsets' is not [begin, end] with begin <= end");
    if (__builtin_mul_overflow(t->n_values, (uint64_t)bits, &want))
        return refuse(e, CTS_EFORMAT, err, "its size passes 64 bits");
    if (want % 8 != 0) return refuse(e, CTS_EFORMAT, err, "its values do not fill whole bytes");
    if (end - begin != want / 8)
        return cts_err_set(err, CTS_EFORMAT, "'%s': tensor '%s' has %llu bytes, its shape and dtype want %llu",
                           e->path, e->name, (unsigned long long)(end - begin), (unsigned long long)(want / 8));
    /* end is below 2^63 (a JSON integer) and data_off below 2^25: no overflow. */
    t->off = e->data_off + begin;
    t->bytes = end - begin;
    return 0;
}

static int parse_tensor(struct cts_tensor *t, json_t *info, const struct entry *e, struct cts_err *err)
{
    unsigned    bits = 0;
    const char *key;
    json_t     *v;
    int         rc;

    if (!json_is_object(info)) return refuse(e, CTS_EFORMAT, err, "its entry is not an object");
    json_object_foreach(info, key, v) if (strcmp(key, "dtype") != 0 && strcmp(key, "shape") != 0 &&
                                          strcmp(key, "data_offsets") !=
                                              0) return cts_err_set(err, CTS_EFORMAT,
                                                                    "'%s': tensor '%s': unknown key '%.64s'",
                                                                    e->path, e->name, key);
    rc = parse_dtype(t, json_object_get(info, "dtype"), &bits, e, err);
    if (rc == 0) rc = parse_shape(t, json_object_get(info, "shape"), e, err);
    if (rc == 0) rc = parse_offsets(t, json_object_get(info, "data_offsets"), bits, e, err);
    return rc;
}

static int check_metadata(json_t *meta, const char *path, struct cts_err *err)
{
    const char *key;
    json_t     *v;

    if (!json_is_object(meta)) return cts_err_set(err, CTS_EFORMAT, "'%s': '__metadata__' is not an object", path);
    json_object_foreach(meta, key, v) if (!json_is_string(v)) return cts_err_set(
        err, CTS_EFORMAT, "'%s': '__metadata__': '%.64s' is not a string", path, key);
    return 0;
}

/* All entries of doc into f->tensors, names into the pool at f->header. */
static int parse_entries(struct cts_safetensors *f, json_t *doc, uint64_t data_off, struct cts_err *err)
{
    char       *pool = f->header;
    const char *key;
    json_t     *v;

    json_object_foreach(doc, key, v)
    {
        struct entry e = { f->path, pool, data_off };
        size_t       len = strlen(key);
        int          rc;

        if (strcmp(key, "__metadata__") == 0) {
            rc = check_metadata(v, f->path, err);
        } else {
            memcpy(pool, key, len + 1);
            f->tensors[f->n_tensors].name = pool;
            rc = parse_tensor(&f->tensors[f->n_tensors], v, &e, err);
            f->n_tensors++;
            pool += len + 1;
        }
        if (rc < 0) return rc;
    }
    return 0;
}

/* Memory for as many tensors and name bytes as doc has. */
static int reserve(struct cts_safetensors *f, json_t *doc, struct cts_err *err)
{
    size_t      n = json_object_size(doc), pool_bytes = 1;
    const char *key;
    json_t     *v;

    if (n > N_TENSORS_MAX)
        return cts_err_set(err, CTS_EUNSUP, "'%s' has %zu tensors, at most %zu are read", f->path, n,
                           N_TENSORS_MAX);
    json_object_foreach(doc, key, v)
    {
        size_t len = strlen(key);
        if (len > NAME_BYTES_MAX)
            return cts_err_set(err, CTS_EFORMAT,
                               "'%s': a tensor's name has %zu bytes ('%.32s...'), at most %d are read", f->path,
                               len, key, NAME_BYTES_MAX);
        pool_bytes += len + 1;
    }
    f->tensors = calloc(n + 1, sizeof(*f->tensors));
    f->header = malloc(pool_bytes);
    if (f->tensors == NULL || f->header == NULL) return cts_err_set(err, -ENOMEM, "header of '%s'", f->path);
    return 0;
}

static int by_off(const void *a, const void *b)
{
    const struct cts_tensor *x = a, *y = b;

    if (x->off != y->off) return x->off < y->off ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* an empty tensor before the one at its place */
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct cts_tensor *)a)->name, ((const struct cts_tensor *)b)->name);
}

/* The tensors fill the file from the header's end to its last byte, each once. */
static int check_cover(struct cts_safetensors *f, uint64_t data_off, uint64_t file_bytes, struct cts_err *err)
{
    uint64_t at = data_off;

    qsort(f->tensors, f->n_tensors, sizeof(*f->tensors), by_off);
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        const struct cts_tensor *t = &f->tensors[i];
        if (t->off != at)
            return cts_err_set(err, CTS_EFORMAT,
                               "'%s': tensor '%s' begins at byte %llu of the data, expected %llu (%s)", f->path,
                               t->name, (unsigned long long)(t->off - data_off),
                               (unsigned long long)(at - data_off), t->off < at ? "an overlap" : "a hole");
        at += t->bytes;
    }
    if (at != file_bytes)
        return cts_err_set(err, CTS_EFORMAT, "'%s' has %llu bytes, its header describes %llu: %s", f->path,
                           (unsigned long long)file_bytes, (unsigned long long)at,
                           at > file_bytes ? "the file was cut off, fetch it again" : "trailing bytes");
    return 0;
}

int cts_safetensors_parse(struct cts_safetensors *f, const void *header, size_t header_bytes, uint64_t file_bytes,
                          struct cts_err *err)
{
    json_t  *doc = NULL;
    uint64_t data_off = 8 + (uint64_t)header_bytes;
    int      rc;

    CTS_ASSERT(f->tensors == NULL);
    CTS_ASSERT(header_bytes <= HEADER_BYTES_MAX);
    if (header_bytes < 2 || *(const char *)header != '{')
        return cts_err_set(err, CTS_EFORMAT, "'%s': the header does not begin with '{'", f->path);
    rc = cts_json_parse(header, header_bytes, f->path, &doc, err);
    if (rc < 0) return rc;
    rc = reserve(f, doc, err);
    if (rc == 0) rc = parse_entries(f, doc, data_off, err);
    if (rc == 0) rc = check_cover(f, data_off, file_bytes, err);
    json_decref(doc);
    if (rc < 0) return rc;
    qsort(f->tensors, f->n_tensors, sizeof(*f->tensors), by_name);
    return 0;
}

/* All n bytes at off. */
static int pread_all(int fd, void *dst, size_t n, uint64_t off)
{
    uint8_t *p = dst;

    while (n > 0) {
        ssize_t got = pread(fd, p, n, (off_t)off);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -errno;
        if (got == 0) return -EIO; /* shorter than it was when it was opened */
        p += got;
        off += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

/* Say what a file is that is no safetensors file; 0 when nothing is known of it. */
static int recognise(const char *path, const uint8_t *head, size_t n, struct cts_err *err)
{
    if (n >= 8 && memcmp(head, "version ", 8) == 0)
        return cts_err_set(err, CTS_EFORMAT, "'%s' is a Git LFS pointer, not the file: run 'git lfs pull'", path);
    if (n >= 4 && memcmp(head, "PK\3\4", 4) == 0)
        return cts_err_set(err, CTS_EUNSUP,
                           "'%s' is a zip archive, as torch.save writes (a pickle inside, which can "
                           "run code): convert it to safetensors",
                           path);
    if (n >= 4 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5 &&
        (head[2] == '}' || head[2] == 0x8a || head[2] == 0x95 || head[2] == 'c'))
        return cts_err_set(err, CTS_EUNSUP, "'%s' is a pickle, which can run code: convert it to safetensors",
                           path);
    if (n >= 4 && memcmp(head, "GGUF", 4) == 0)
        return cts_err_set(err, CTS_EUNSUP, "'%s' is a GGUF file, safetensors is wanted", path);
    return 0;
}

/* The first 8 bytes: the header's length, or words for what the file is instead. */
static int read_length(struct cts_safetensors *f, uint64_t file_bytes, uint64_t *n, struct cts_err *err)
{
    uint8_t head[8];
    size_t  have = file_bytes < sizeof(head) ? (size_t)file_bytes : sizeof(head);
    int     rc;

    if (file_bytes == 0) return cts_err_set(err, CTS_EFORMAT, "'%s' is empty", f->path);
    rc = pread_all(f->fd, head, have, 0);
    if (rc < 0) return cts_err_set(err, rc, "read '%s'", f->path);
    rc = recognise(f->path, head, have, err);
    if (rc < 0) return rc;
    if (have < sizeof(head))
        return cts_err_set(err, CTS_EFORMAT, "'%s' has %zu bytes, too few for a header", f->path, have);
    *n = 0;
    for (int i = 7; i >= 0; i--) *n = *n << 8 | head[i];
    if (*n > HEADER_BYTES_MAX)
        return cts_err_set(err, CTS_EFORMAT,
                           "'%s': a header of %llu bytes, at most %zu are read: not a safetensors file?", f->path,
                           (unsigned long long)*n, HEADER_BYTES_MAX);
    if (*n > file_bytes - 8)
        return cts_err_set(err, CTS_EFORMAT,
                           "'%s': a header of %llu bytes in a file of %llu: the file was cut off, fetch "
                           "it again",
                           f->path, (unsigned long long)*n, (unsigned long long)file_bytes);
    return 0;
}

static int read_header(struct cts_safetensors *f, uint64_t file_bytes, struct cts_err *err)
{
    uint64_t n = 0;
    void    *header;
    int      rc = read_length(f, file_bytes, &n, err);

    if (rc < 0) return rc;
    header = malloc((size_t)n + 1);
    if (header == NULL) return cts_err_set(err, -ENOMEM, "header of '%s'", f->path);
    rc = pread_all(f->fd, header, (size_t)n, 8);
    if (rc < 0) cts_err_set(err, rc, "read '%s'", f->path);
    else rc = cts_safetensors_parse(f, header, (size_t)n, file_bytes, err);
    free(header);
    return rc;
}

int cts_safetensors_open(struct cts_safetensors *f, const char *path, struct cts_err *err)
{
    struct stat st;
    int         rc;

    *f = (struct cts_safetensors){ .fd = -1 };
    f->path = strdup(path);
    if (f->path == NULL) {
        rc = cts_err_set(err, -ENOMEM, "open '%s'", path);
        goto fail;
    }
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO is refused below, not waited for */
    if (f->fd < 0) {
        rc = cts_err_set(err, -errno, "open '%s'", path);
        goto fail;
    }
    if (fstat(f->fd, &st) < 0) rc = cts_err_set(err, -errno, "stat '%s'", path);
    else if (!S_ISREG(st.st_mode)) rc = cts_err_set(err, CTS_EFORMAT, "'%s' is not a regular file", path);
    else rc = read_header(f, (uint64_t)st.st_size, err);
    if (rc < 0) goto fail;
    return 0;

fail:
    cts_safetensors_close(f);
    return rc;
}

void cts_safetensors_close(struct cts_safetensors *f)
{
    if (f == NULL) return;
    if (f->fd >= 0) close(f->fd);
    free(f->header);
    free(f->tensors);
    free(f->path);
    *f = (struct cts_safetensors){ .fd = -1 };
}

const struct cts_tensor *cts_safetensors_find(const struct cts_safetensors *f, const char *name)
{
    struct cts_tensor key = { .name = name };

    if (f->n_tensors == 0) return NULL;
    return bsearch(&key, f->tensors, f->n_tensors, sizeof(*f->tensors), by_name);
}

int cts_safetensors_read(const struct cts_safetensors *f, const struct cts_tensor *t, void *dst,
                         struct cts_err *err)
{
    int rc = pread_all(f->fd, dst, t->bytes, t->off);

    if (rc < 0) return cts_err_set(err, rc, "'%s': read tensor '%s'", f->path, t->name);
    return 0;
}

int cts_safetensors_read_f32(const struct cts_safetensors *f, const struct cts_tensor *t, float *dst,
                             struct cts_err *err)
{
    uint8_t raw[CHUNK_VALUES * 4];
    size_t  width = cts_dtype_bytes(t->dtype);

    if (width == 0)
        return cts_err_set(err, CTS_EUNSUP, "'%s': tensor '%s' is %s, F32, F16 and BF16 are read", f->path, t->name,
                           t->dtype_name);
    if (t->dtype == CTS_F32) return cts_safetensors_read(f, t, dst, err);
    for (uint64_t i = 0; i < t->n_values; i += CHUNK_VALUES) {
        size_t n = t->n_values - i < CHUNK_VALUES ? (size_t)(t->n_values - i) : CHUNK_VALUES;
        int    rc = pread_all(f->fd, raw, n * width, t->off + i * width);
        if (rc < 0) return cts_err_set(err, rc, "'%s': read tensor '%s'", f->path, t->name);
        cts_dtype_widen(dst + i, raw, n, t->dtype);
    }
    return 0;
}

/* ---- writing ---- */

static uint64_t n_values_of(const struct cts_tensor_out *t)
{
    uint64_t n = 1;

    CTS_ASSERT(t->n_dims <= CTS_TENSOR_DIMS_MAX);
    for (uint32_t i = 0; i < t->n_dims; i++) CTS_ASSERT(!__builtin_mul_overflow(n, t->dim[i], &n));
    CTS_ASSERT(n < UINT64_MAX / 8);
    return n;
}

/* The JSON text of the header; NULL without memory. The caller frees it. */
static char *header_text(const struct cts_tensor_out *t, uint32_t n_tensors)
{
    json_t  *doc = json_object();
    uint64_t at = 0;
    char    *text = NULL;

    for (uint32_t i = 0; i < n_tensors; i++) {
        uint64_t end = at + n_values_of(&t[i]) * cts_dtype_bytes(t[i].dtype);
        json_t  *shape = json_array();

        CTS_ASSERT(cts_dtype_bytes(t[i].dtype) > 0);
        CTS_ASSERT(json_object_get(doc, t[i].name) == NULL);
        for (uint32_t d = 0; d < t[i].n_dims; d++)
            (void)json_array_append_new(shape, json_integer((json_int_t)t[i].dim[d])); /* counted below */
        if (json_array_size(shape) != t[i].n_dims) {
            json_decref(shape);
            goto out;
        }
        /* pack and set_new pass a NULL on as a failure, and release what they were given. */
        if (json_object_set_new(doc, t[i].name,
                                json_pack("{s:s, s:o, s:[II]}", "dtype", cts_dtype_name(t[i].dtype), "shape", shape,
                                          "data_offsets", (json_int_t)at, (json_int_t)end)) < 0)
            goto out;
        at = end;
    }
    text = json_dumps(doc, JSON_COMPACT);
out:
    json_decref(doc);
    return text;
}

static int write_header(int fd, const char *text)
{
    static const char PAD[64] = "                                                               ";
    size_t            len = strlen(text), pad = (64 - (8 + len) % 64) % 64;
    uint64_t          n = len + pad;
    uint8_t           head[8];
    int               rc;

    for (int i = 0; i < 8; i++) head[i] = (uint8_t)(n >> (8 * i));
    rc = cts_file_write(fd, head, sizeof(head));
    if (rc == 0) rc = cts_file_write(fd, text, len);
    if (rc == 0) rc = cts_file_write(fd, PAD, pad);
    return rc;
}

static int write_values(int fd, const struct cts_tensor_out *t)
{
    uint8_t  raw[CHUNK_VALUES * 4];
    uint64_t n_values = n_values_of(t);

    for (uint64_t i = 0; i < n_values; i += CHUNK_VALUES) {
        size_t n = n_values - i < CHUNK_VALUES ? (size_t)(n_values - i) : CHUNK_VALUES;
        int    rc;
        cts_dtype_narrow(raw, t->values + i, n, t->dtype);
        rc = cts_file_write(fd, raw, n * cts_dtype_bytes(t->dtype));
        if (rc < 0) return rc;
    }
    return 0;
}

int cts_safetensors_write(const char *path, const struct cts_tensor_out *t, uint32_t n_tensors, struct cts_err *err)
{
    char  tmp[4096];
    char *text = header_text(t, n_tensors);
    int   fd = -1, rc = 0;

    if (text == NULL) return cts_err_set(err, -ENOMEM, "header of '%s'", path);
    if (snprintf(tmp, sizeof(tmp), "%s.tmp", path) >= (int)sizeof(tmp)) {
        free(text);
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", path);
    }
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = cts_err_set(err, -errno, "create '%s'", tmp);
        goto out;
    }
    rc = write_header(fd, text);
    for (uint32_t i = 0; i < n_tensors && rc == 0; i++) rc = write_values(fd, &t[i]);
    if (rc == 0 && fsync(fd) < 0) rc = -errno;
    if (close(fd) < 0 && rc == 0) rc = -errno;
    if (rc < 0) cts_err_set(err, rc, "write '%s'", tmp);
    else if (rename(tmp, path) < 0) rc = cts_err_set(err, -errno, "rename '%s' to '%s'", tmp, path);
    if (rc < 0) (void)unlink(tmp); /* best effort: the failure is already told */
out:
    free(text);
    return rc;
}
