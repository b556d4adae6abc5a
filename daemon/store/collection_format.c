#include "daemon/store/collection_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Part of the format: the names of linears in tensors, in the order of their numbers. */
static const char *const linear_names[CTS_SLOT_LINEARS] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
};

void cts_collection_slots_name(uint64_t class_bytes, char out[CTS_COLLECTION_FILE_BYTES])
{
    snprintf(out, CTS_COLLECTION_FILE_BYTES, "sigma.%" PRIu64 "k.slots", class_bytes / 1024);
}

uint64_t cts_collection_slots_class(const char *name)
{
    char               again[CTS_COLLECTION_FILE_BYTES];
    unsigned long long kib = 0;

    if (sscanf(name, "sigma.%9lluk.slots", &kib) != 1 || !cts_slot_is_class((uint64_t)kib * 1024)) return 0;
    cts_collection_slots_name((uint64_t)kib * 1024, again);
    return strcmp(name, again) == 0 ? (uint64_t)kib * 1024 : 0;
}

void cts_collection_tensor_name(const struct cts_basis *b, char uv, char out[96])
{
    snprintf(out, 96, "cluster.%" PRIu32 ".layer.%" PRIu32 ".%s.%c", b->cluster, b->layer, linear_names[b->linear], uv);
}

int cts_collection_tensor_parse(const char *name, struct cts_basis *b, char *uv)
{
    char             again[96], linear[16], side;
    struct cts_basis got = { .linear = CTS_SLOT_LINEARS };

    if (sscanf(name, "cluster.%9" SCNu32 ".layer.%9" SCNu32 ".%15[a-z_].%c", &got.cluster, &got.layer, linear,
               &side) != 4)
        return -EINVAL;
    for (uint32_t i = 0; i < CTS_SLOT_LINEARS; i++)
        if (strcmp(linear, linear_names[i]) == 0) got.linear = i;
    if (got.linear == CTS_SLOT_LINEARS || got.layer >= CTS_SLOT_LAYERS_MAX || (side != 'U' && side != 'V'))
        return -EINVAL;
    cts_collection_tensor_name(&got, side, again);
    if (strcmp(name, again) != 0) return -EINVAL;
    b->cluster = got.cluster;
    b->layer = got.layer;
    b->linear = got.linear;
    *uv = side;
    return 0;
}

int cts_basis_compare(const void *a, const void *b)
{
    const struct cts_basis *x = a, *y = b;

    if (x->cluster != y->cluster) return x->cluster < y->cluster ? -1 : 1;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return (x->linear > y->linear) - (x->linear < y->linear);
}

static int is_name_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '/' || c == '-';
}

/* 1 when no component between slashes is empty, "." or "..". */
static int has_good_components(const char *s)
{
    for (;;) {
        size_t n = strcspn(s, "/");

        if (n == 0 || (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.')) return 0;
        if (s[n] == 0) return 1;
        s += n + 1;
    }
}

int cts_collection_check_name(const char *name, struct cts_err *err)
{
    size_t n = strlen(name);

    if (n == 0 || n > CTS_NAME_BYTES_MAX)
        return cts_err_set(err, CTS_EARG, "a name of %zu bytes: an adapter's has 1 to %d; rename it", n,
                           CTS_NAME_BYTES_MAX);
    if (!is_name_char(name[0]) || strchr("._/-", name[0]) != NULL)
        return cts_err_set(err, CTS_EARG, "a name begins with a letter or a digit; rename it");
    for (size_t i = 0; i < n; i++)
        if (!is_name_char(name[i]))
            return cts_err_set(err, CTS_EARG, "byte %zu of the name is not one of A-Z a-z 0-9 . _ / -; rename it", i);
    if (!has_good_components(name))
        return cts_err_set(err, CTS_EARG, "a name has no component '', '.' or '..'; rename it");
    return 0;
}

static void add_u32(struct cts_blake2b *h, uint32_t v)
{
    uint8_t b[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

    cts_blake2b_add(h, b, sizeof(b));
}

static void add_u64(struct cts_blake2b *h, uint64_t v)
{
    add_u32(h, (uint32_t)v);
    add_u32(h, (uint32_t)(v >> 32));
}

static void add_f64(struct cts_blake2b *h, double d)
{
    uint64_t v;

    memcpy(&v, &d, sizeof(v));
    add_u64(h, v);
}

void cts_collection_digest(const struct cts_collection *c, const struct cts_collection_file *files, uint32_t n_files,
                           uint8_t out[CTS_DIGEST_BYTES])
{
    struct cts_blake2b h;

    cts_blake2b_init(&h);
    cts_blake2b_add_field(&h, "cts-collection-1", 16);
    cts_blake2b_add(&h, c->base_digest, CTS_DIGEST_BYTES);
    add_u64(&h, c->generation);
    add_u32(&h, c->n_layers);
    add_u32(&h, c->n_clusters);
    add_f64(&h, c->error_mean);
    add_f64(&h, c->error_energy);
    add_u32(&h, n_files);
    for (uint32_t i = 0; i < n_files; i++) {
        cts_blake2b_add_field(&h, files[i].name, strlen(files[i].name));
        add_u64(&h, files[i].bytes);
        cts_blake2b_add(&h, files[i].digest, CTS_DIGEST_BYTES);
    }
    add_u32(&h, c->n_adapters);
    for (uint32_t i = 0; i < c->n_adapters; i++) {
        const struct cts_collection_adapter *a = &c->adapters[i];

        cts_blake2b_add_field(&h, a->name, strlen(a->name));
        cts_blake2b_add(&h, a->digest, CTS_DIGEST_BYTES);
        add_u32(&h, a->cluster);
        add_u64(&h, a->class_bytes);
        add_u32(&h, a->slot_idx);
        cts_blake2b_add(&h, a->checksum, CTS_SLOT_CHECKSUM_BYTES);
        add_f64(&h, a->error_mean);
        add_f64(&h, a->error_energy);
    }
    cts_blake2b_end(&h, out);
}

int cts_collection_file_digest(int fd, uint64_t n, uint8_t out[CTS_DIGEST_BYTES])
{
    struct cts_blake2b h;
    uint8_t            buf[65536];
    uint64_t           off = 0;

    cts_blake2b_init(&h);
    while (off < n) {
        size_t  want = n - off < sizeof(buf) ? (size_t)(n - off) : sizeof(buf);
        ssize_t got = pread(fd, buf, want, (off_t)off);

        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -errno;
        if (got == 0) return -EIO;
        cts_blake2b_add(&h, buf, (size_t)got);
        off += (uint64_t)got;
    }
    cts_blake2b_end(&h, out);
    return 0;
}
