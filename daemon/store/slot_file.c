#include "daemon/store/slot_file.h"

#include "common/assert.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CLASS_SHIFT_MAX 18 /* 4096 * 2^18 and 3 * 4096 * 2^18 still fit the header's 32 bits */

static const char magic[8] = { 'c', 't', 's', '-', 's', 'l', 'o', 't' };

/* Offsets in the header and in an entry of the table of parts. */
enum {
    H_VERSION = 8,
    H_CLASS = 12,
    H_SLOT = 16,
    H_GENERATION = 24,
    H_DIGEST = 32,
    H_PAYLOAD_BYTES = 64,
    H_PAYLOAD_OFF = 72,
    H_PARTS = 76,
    H_ZERO = 80,
    H_CHECKSUM = 96,
    H_ZERO2 = 112,
    P_KIND = 0,
    P_FORMAT = 2,
    P_LAYER = 4,
    P_LINEAR = 6,
    P_CLUSTER = 8,
    P_ROWS = 12,
    P_COLS = 16,
    P_RANK = 20,
    P_SCALE = 24,
    P_OFF = 28,
};

static void put_le(uint8_t *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, int n)
{
    uint64_t v = 0;

    for (int i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static int is_zero(const uint8_t *p, uint64_t n)
{
    uint8_t any = 0;

    for (uint64_t i = 0; i < n; i++) any |= p[i];
    return any == 0;
}

static uint64_t align(uint64_t n)
{
    return (n + CTS_SLOT_ALIGN_BYTES - 1) / CTS_SLOT_ALIGN_BYTES * CTS_SLOT_ALIGN_BYTES;
}

uint64_t cts_slot_class(uint64_t n)
{
    /* In ascending order: 4, 8, 12, 16, 24, 32, 48 KiB ... 1 GiB, then 1.5 and 3 GiB. */
    for (int k = 0; k <= CLASS_SHIFT_MAX; k++) {
        if (n <= (uint64_t)4096 << k) return (uint64_t)4096 << k;
        if (k > 0 && n <= (uint64_t)3 * 4096 << (k - 1)) return (uint64_t)3 * 4096 << (k - 1);
    }
    return n <= (uint64_t)3 * 4096 << CLASS_SHIFT_MAX ? (uint64_t)3 * 4096 << CLASS_SHIFT_MAX : 0;
}

int cts_slot_is_class(uint64_t class_bytes)
{
    return class_bytes > 0 && cts_slot_class(class_bytes) == class_bytes;
}

uint64_t cts_slot_part_values(const struct cts_slot_part *p)
{
    if (p->kind == CTS_PART_SIGMA) return (uint64_t)p->n_rows * p->n_cols;
    return ((uint64_t)p->n_rows + p->n_cols) * p->rank;
}

/* What is wrong with the shape of a part, or NULL. After this the number of
 * its values fits in 64 bits many times over. */
static const char *shape_fault(const struct cts_slot_part *p)
{
    if (p->layer >= CTS_SLOT_LAYERS_MAX) return "layer";
    if (p->linear >= CTS_SLOT_LINEARS) return "linear";
    if (p->kind == CTS_PART_SIGMA) {
        if (p->cluster == CTS_CLUSTER_NONE) return "cluster";
        if (p->n_rows == 0 || p->n_rows > CTS_SLOT_RANK_MAX) return "rows";
        if (p->n_cols == 0 || p->n_cols > CTS_SLOT_RANK_MAX) return "columns";
        if (p->rank != 0) return "rank";
    } else if (p->kind == CTS_PART_LOWRANK) {
        if (p->cluster != CTS_CLUSTER_NONE) return "cluster";
        if (p->n_rows == 0 || p->n_rows > CTS_SLOT_DIM_MAX) return "rows";
        if (p->n_cols == 0 || p->n_cols > CTS_SLOT_DIM_MAX) return "columns";
        if (p->rank == 0 || p->rank > CTS_SLOT_RANK_MAX) return "rank";
    } else {
        return "kind";
    }
    if (!isfinite(p->scale) || p->scale < 0) return "scale";
    return NULL;
}

/* Layer, linear, kind as one number that ascends from part to part. */
static uint64_t order_of(const struct cts_slot_part *p)
{
    return (uint64_t)p->layer << 32 | (uint64_t)p->linear << 16 | (uint64_t)p->kind;
}

/* What part i alone, and its place after the part before it, must be. */
static int check_part(const struct cts_slot_part *parts, uint32_t i, struct cts_err *err)
{
    const char *fault = shape_fault(&parts[i]);

    if (fault != NULL) return cts_err_set(err, CTS_EUNSUP, "part %u: %s is out of range", i, fault);
    if (cts_dtype_bytes(parts[i].dtype) == 0)
        return cts_err_set(err, CTS_EUNSUP,
                           "part %u: number format %d; version 1 has 1 (float32), 2 (float16), 3 (bfloat16)", i,
                           (int)parts[i].dtype);
    if (i > 0 && order_of(&parts[i - 1]) >= order_of(&parts[i]))
        return cts_err_set(err, CTS_EUNSUP, "part %u: not after part %u in the order of layer, linear, kind", i, i - 1);
    return 0;
}

int cts_slot_layout(struct cts_slot_layout *out, const struct cts_slot_part *parts, uint32_t n_parts,
                    struct cts_err *err)
{
    struct cts_slot_layout l = { .payload_off = CTS_SLOT_BLOCK_BYTES };
    int                    rc;

    if (n_parts == 0 || n_parts > CTS_SLOT_PARTS_MAX)
        return cts_err_set(err, CTS_EUNSUP, "%u parts; a slot has 1 to %d", n_parts, CTS_SLOT_PARTS_MAX);
    l.payload_bytes = (uint64_t)n_parts * CTS_SLOT_PART_BYTES;
    for (uint32_t i = 0; i < n_parts; i++) {
        if ((rc = check_part(parts, i, err)) < 0) return rc;
        uint64_t bytes = cts_slot_part_values(&parts[i]) * cts_dtype_bytes(parts[i].dtype);

        l.value_bytes += bytes;
        l.payload_bytes = align(l.payload_bytes) + bytes;
        if (l.payload_bytes > UINT32_MAX) return cts_err_set(err, CTS_EUNSUP, "a slot of more than 3 GiB");
    }
    if (cts_slot_class(CTS_SLOT_HEADER_BYTES + l.payload_bytes) !=
        cts_slot_class(CTS_SLOT_BLOCK_BYTES + l.payload_bytes))
        l.payload_off = CTS_SLOT_HEADER_BYTES;
    l.class_bytes = cts_slot_class(l.payload_off + l.payload_bytes);
    if (l.class_bytes == 0) return cts_err_set(err, CTS_EUNSUP, "a slot of more than 3 GiB");
    *out = l;
    return 0;
}

/* The checksum of the slot at src, were it slot number slot_idx: the fields
 * with that number and without a checksum, then the rest up to the payload's end. */
static void checksum_of(const uint8_t *src, uint64_t slot_idx, uint64_t end, uint8_t out[CTS_SLOT_CHECKSUM_BYTES])
{
    uint8_t head[CTS_SLOT_HEADER_BYTES];

    CTS_ASSERT(end >= CTS_SLOT_HEADER_BYTES);
    memcpy(head, src, sizeof(head));
    memset(head + H_CHECKSUM, 0, CTS_SLOT_CHECKSUM_BYTES);
    put_le(head + H_SLOT, slot_idx, 8);
    cts_xxh128(head, sizeof(head), src + sizeof(head), end - sizeof(head), out);
}

static void put_part(uint8_t *p, const struct cts_slot_part *part, uint64_t off)
{
    uint32_t scale;

    memcpy(&scale, &part->scale, sizeof(scale));
    put_le(p + P_KIND, (uint64_t)part->kind, 2);
    put_le(p + P_FORMAT, (uint64_t)part->dtype, 2);
    put_le(p + P_LAYER, part->layer, 2);
    put_le(p + P_LINEAR, part->linear, 2);
    put_le(p + P_CLUSTER, part->cluster, 4);
    put_le(p + P_ROWS, part->n_rows, 4);
    put_le(p + P_COLS, part->n_cols, 4);
    put_le(p + P_RANK, part->rank, 4);
    put_le(p + P_SCALE, scale, 4);
    put_le(p + P_OFF, off, 4);
}

void cts_slot_pack(void *dst, const struct cts_slot_layout *l, uint64_t slot_idx, const struct cts_slot *s,
                   uint8_t checksum[CTS_SLOT_CHECKSUM_BYTES])
{
    uint8_t *h = dst, *payload = h + l->payload_off;
    uint64_t end = (uint64_t)s->n_parts * CTS_SLOT_PART_BYTES;

    CTS_ASSERT(cts_slot_is_class(l->class_bytes));
    CTS_ASSERT(l->payload_off + l->payload_bytes <= l->class_bytes);
    memset(dst, 0, l->class_bytes);
    memcpy(h, magic, sizeof(magic));
    put_le(h + H_VERSION, CTS_SLOT_VERSION, 4);
    put_le(h + H_CLASS, l->class_bytes, 4);
    put_le(h + H_SLOT, slot_idx, 8);
    put_le(h + H_GENERATION, s->generation, 8);
    memcpy(h + H_DIGEST, s->digest, CTS_DIGEST_BYTES);
    put_le(h + H_PAYLOAD_BYTES, l->payload_bytes, 8);
    put_le(h + H_PAYLOAD_OFF, l->payload_off, 4);
    put_le(h + H_PARTS, s->n_parts, 4);
    for (uint32_t i = 0; i < s->n_parts; i++) {
        uint64_t n = cts_slot_part_values(&s->parts[i]), off = align(end);

        end = off + n * cts_dtype_bytes(s->parts[i].dtype);
        CTS_ASSERT(end <= l->payload_bytes);
        put_part(payload + (uint64_t)i * CTS_SLOT_PART_BYTES, &s->parts[i], off);
        cts_dtype_narrow(payload + off, s->parts[i].values, n, s->parts[i].dtype);
    }
    CTS_ASSERT(end == l->payload_bytes);
    checksum_of(h, slot_idx, l->payload_off + l->payload_bytes, h + H_CHECKSUM);
    memcpy(checksum, h + H_CHECKSUM, CTS_SLOT_CHECKSUM_BYTES);
}

/* The fixed fields of the header, before the checksum can be computed. */
static int check_header(const uint8_t *h, uint64_t class_bytes, uint64_t slot_idx, struct cts_err *err)
{
    uint64_t payload_bytes = get_le(h + H_PAYLOAD_BYTES, 8), payload_off = get_le(h + H_PAYLOAD_OFF, 4);
    uint64_t n_parts = get_le(h + H_PARTS, 4);

    if (memcmp(h, magic, sizeof(magic)) != 0)
        return cts_err_set(err, CTS_EFORMAT, "magic: not a slot; compress the collection again");
    if (get_le(h + H_VERSION, 4) != CTS_SLOT_VERSION)
        return cts_err_set(err, CTS_EVERSION, "version: %llu, this program reads version %d",
                           (unsigned long long)get_le(h + H_VERSION, 4), CTS_SLOT_VERSION);
    if (get_le(h + H_CLASS, 4) != class_bytes)
        return cts_err_set(err, CTS_EFORMAT, "class: %llu bytes in a file of class %llu",
                           (unsigned long long)get_le(h + H_CLASS, 4), (unsigned long long)class_bytes);
    if (get_le(h + H_SLOT, 8) != slot_idx)
        return cts_err_set(err, CTS_EDIGEST, "slot number: it was written as slot %llu, it lies here as slot %llu",
                           (unsigned long long)get_le(h + H_SLOT, 8), (unsigned long long)slot_idx);
    if (payload_off != CTS_SLOT_HEADER_BYTES && payload_off != CTS_SLOT_BLOCK_BYTES)
        return cts_err_set(err, CTS_EFORMAT, "payload offset: %llu", (unsigned long long)payload_off);
    if (payload_off > class_bytes || payload_bytes > class_bytes - payload_off)
        return cts_err_set(err, CTS_EFORMAT, "payload length: %llu bytes leave the slot",
                           (unsigned long long)payload_bytes);
    if (n_parts == 0 || n_parts > CTS_SLOT_PARTS_MAX || n_parts * CTS_SLOT_PART_BYTES > payload_bytes)
        return cts_err_set(err, CTS_EFORMAT, "number of parts: %llu", (unsigned long long)n_parts);
    if (!is_zero(h + H_ZERO, H_CHECKSUM - H_ZERO) || !is_zero(h + H_ZERO2, CTS_SLOT_HEADER_BYTES - H_ZERO2))
        return cts_err_set(err, CTS_EFORMAT, "reserved bytes of the header are not zero");
    return 0;
}

static void get_part(struct cts_slot_part *out, const uint8_t *p)
{
    uint32_t scale = (uint32_t)get_le(p + P_SCALE, 4);

    *out = (struct cts_slot_part){
        .kind = (enum cts_part_kind)get_le(p + P_KIND, 2), .dtype = (enum cts_dtype)get_le(p + P_FORMAT, 2),
        .layer = (uint32_t)get_le(p + P_LAYER, 2), .linear = (uint32_t)get_le(p + P_LINEAR, 2),
        .cluster = (uint32_t)get_le(p + P_CLUSTER, 4), .n_rows = (uint32_t)get_le(p + P_ROWS, 4),
        .n_cols = (uint32_t)get_le(p + P_COLS, 4), .rank = (uint32_t)get_le(p + P_RANK, 4),
    };
    memcpy(&out->scale, &scale, sizeof(scale));
}

/* Check the table of parts against the payload: each part's values lie exactly
 * where the layout puts them. Returns the number of all values in *n_values. */
static int check_table(struct cts_slot_part *parts, uint32_t n_parts, const uint8_t *payload, uint64_t payload_bytes,
                       uint64_t *n_values, struct cts_err *err)
{
    uint64_t end = (uint64_t)n_parts * CTS_SLOT_PART_BYTES;
    int      rc;

    *n_values = 0;
    for (uint32_t i = 0; i < n_parts; i++) {
        const uint8_t *p = payload + (uint64_t)i * CTS_SLOT_PART_BYTES;

        get_part(&parts[i], p);
        if ((rc = check_part(parts, i, err)) < 0) return rc;
        if (get_le(p + P_OFF, 4) != align(end))
            return cts_err_set(err, CTS_EFORMAT, "part %u: its values are at %llu, they should be at %llu", i,
                               (unsigned long long)get_le(p + P_OFF, 4), (unsigned long long)align(end));
        uint64_t n = cts_slot_part_values(&parts[i]), off = align(end);

        if (off > payload_bytes || n > (payload_bytes - off) / cts_dtype_bytes(parts[i].dtype))
            return cts_err_set(err, CTS_EFORMAT, "part %u: its values leave the payload", i);
        if (!is_zero(payload + end, off - end))
            return cts_err_set(err, CTS_EFORMAT, "bytes before part %u are not zero", i);
        end = off + n * cts_dtype_bytes(parts[i].dtype);
        *n_values += n;
    }
    if (end != payload_bytes)
        return cts_err_set(err, CTS_EFORMAT, "payload length: %llu, the parts have %llu",
                           (unsigned long long)payload_bytes, (unsigned long long)end);
    return 0;
}

/* Widen all values into the n_values floats at dst and point the parts there. */
static int widen_parts(struct cts_slot_part *parts, uint32_t n_parts, const uint8_t *payload, float *dst,
                       struct cts_err *err)
{
    for (uint32_t i = 0; i < n_parts; i++) {
        uint64_t n = cts_slot_part_values(&parts[i]);
        uint64_t off = get_le(payload + (uint64_t)i * CTS_SLOT_PART_BYTES + P_OFF, 4);

        cts_dtype_widen(dst, payload + off, n, parts[i].dtype);
        for (uint64_t k = 0; k < n; k++)
            if (!isfinite(dst[k]))
                return cts_err_set(err, CTS_EFORMAT, "part %u: value %llu is not finite", i,
                                   (unsigned long long)k);
        parts[i].values = dst;
        dst += n;
    }
    return 0;
}

/* Parts and values in one piece of memory: the table first, then the floats. */
static int unpack_payload(struct cts_slot *s, const uint8_t *payload, uint64_t payload_bytes, struct cts_err *err)
{
    uint64_t n_values = 0;
    float   *values;
    int      rc;

    s->parts = calloc(s->n_parts, sizeof(*s->parts));
    if (s->parts == NULL) return cts_err_set(err, -ENOMEM, "%u parts", s->n_parts);
    if ((rc = check_table(s->parts, s->n_parts, payload, payload_bytes, &n_values, err)) < 0) return rc;
    values = s->memory = malloc(n_values * sizeof(*values));
    if (values == NULL) return cts_err_set(err, -ENOMEM, "%llu values", (unsigned long long)n_values);
    return widen_parts(s->parts, s->n_parts, payload, values, err);
}

int cts_slot_unpack(struct cts_slot *out, const void *src, uint64_t class_bytes, uint64_t slot_idx,
                    uint8_t checksum[CTS_SLOT_CHECKSUM_BYTES], struct cts_err *err)
{
    const uint8_t  *h = src;
    struct cts_slot s = { 0 };
    uint8_t         sum[CTS_SLOT_CHECKSUM_BYTES];
    uint64_t        end;
    int             rc;

    CTS_ASSERT(cts_slot_is_class(class_bytes));
    if ((rc = check_header(h, class_bytes, slot_idx, err)) < 0) return rc;
    end = get_le(h + H_PAYLOAD_OFF, 4) + get_le(h + H_PAYLOAD_BYTES, 8);
    checksum_of(h, slot_idx, end, sum);
    if (memcmp(sum, h + H_CHECKSUM, sizeof(sum)) != 0)
        return cts_err_set(err, CTS_EDIGEST, "checksum: the bytes of the slot are damaged");
    if (!is_zero(h + CTS_SLOT_HEADER_BYTES, get_le(h + H_PAYLOAD_OFF, 4) - CTS_SLOT_HEADER_BYTES))
        return cts_err_set(err, CTS_EFORMAT, "bytes between the header and the payload are not zero");
    if (!is_zero(h + end, class_bytes - end))
        return cts_err_set(err, CTS_EFORMAT, "bytes after the payload are not zero");

    memcpy(s.digest, h + H_DIGEST, CTS_DIGEST_BYTES);
    s.generation = get_le(h + H_GENERATION, 8);
    s.n_parts = (uint32_t)get_le(h + H_PARTS, 4);
    rc = unpack_payload(&s, h + get_le(h + H_PAYLOAD_OFF, 4), get_le(h + H_PAYLOAD_BYTES, 8), err);
    if (rc < 0) {
        cts_slot_free(&s);
        return rc;
    }
    memcpy(checksum, sum, sizeof(sum));
    *out = s;
    return 0;
}

void cts_slot_free(struct cts_slot *s)
{
    if (s == NULL) return;
    free(s->memory);
    free(s->parts);
    *s = (struct cts_slot){ 0 };
}
