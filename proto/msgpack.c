/* The reading half knows the format's heads itself, since the check must not
 * allocate and must bound everything before anything is believed. The writing
 * half is msgpack-c's packer. */

#include "proto/msgpack.h"

#include "common/assert.h"
#include "common/err.h"
#include "common/utf8.h"

#include <errno.h>
#include <msgpack.h>
#include <string.h>

/* One object's head: its type, what lies behind it, and a scalar's value. */
struct head {
    enum cts_mp_type type;
    uint32_t         head_bytes;
    uint32_t         body_bytes; /* of str and bin */
    uint32_t         n_objects;  /* that follow in an array or a map (two a pair) */
    int              is_negative;
    uint64_t         u; /* bool, int (two's complement) */
    double           real;
};

static uint64_t load_be(const uint8_t *p, uint32_t n)
{
    uint64_t v = 0;

    for (uint32_t i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

static int put_container(struct head *h, enum cts_mp_type type, uint64_t n)
{
    uint64_t n_objects = type == CTS_MP_MAP ? 2 * n : n;

    if (n_objects > UINT32_MAX) return CTS_EPROTO;
    h->type = type;
    h->n_objects = (uint32_t)n_objects;
    return 0;
}

static void put_blob(struct head *h, enum cts_mp_type type, uint64_t n)
{
    h->type = type;
    h->body_bytes = (uint32_t)n; /* the widest length field has 32 bits */
}

static void put_signed(struct head *h, const uint8_t *p, uint32_t n)
{
    uint64_t sign = UINT64_C(1) << (8 * n - 1), v = load_be(p, n);

    h->type = CTS_MP_INT;
    h->u = (v ^ sign) - sign;
    h->is_negative = (v & sign) != 0;
}

static void put_real(struct head *h, const uint8_t *p, uint32_t n)
{
    uint64_t v = load_be(p, n);

    h->type = CTS_MP_REAL;
    if (n == 4) {
        uint32_t v32 = (uint32_t)v;
        float    f;

        memcpy(&f, &v32, sizeof(f));
        h->real = (double)f;
    } else {
        memcpy(&h->real, &v, sizeof(h->real));
    }
}

/* Bytes of the number behind a head byte of 0xc0..0xdf; 255 marks what we refuse:
 * 0xc1, which the format never uses, and the ext types. */
static const uint8_t NUMBER_BYTES[32] = { 0, 255, 0, 0, 1,   2,   4,   255, 255, 255, 4, 8, 1, 2, 4, 8,
                                          1, 2,   4, 8, 255, 255, 255, 255, 255, 1,   2, 4, 2, 4, 2, 4 };

/* Heads of one byte: numbers, short strings and containers. */
static int read_fix(struct head *h, uint8_t b)
{
    h->head_bytes = 1;
    if (b <= 0x7f) {
        h->type = CTS_MP_INT;
        h->u = b;
        return 0;
    }
    if (b >= 0xe0) {
        h->type = CTS_MP_INT;
        h->u = (uint64_t)(int64_t)(int8_t)b;
        h->is_negative = 1;
        return 0;
    }
    if (b <= 0x8f) return put_container(h, CTS_MP_MAP, b & 0x0f);
    if (b <= 0x9f) return put_container(h, CTS_MP_ARRAY, b & 0x0f);
    put_blob(h, CTS_MP_STR, b & 0x1f);
    return 0;
}

/* Heads with a number of m bytes behind them; those are there. */
static int read_numbered(struct head *h, const uint8_t *p, uint32_t m)
{
    uint64_t v = load_be(p + 1, m);

    h->head_bytes = 1 + m;
    /* clang-format off */
    switch (p[0]) {
    case 0xc0: h->type = CTS_MP_NIL; return 0;
    case 0xc2: case 0xc3: h->type = CTS_MP_BOOL; h->u = p[0] == 0xc3; return 0;
    case 0xc4: case 0xc5: case 0xc6: put_blob(h, CTS_MP_BIN, v); return 0;
    case 0xca: case 0xcb: put_real(h, p + 1, m); return 0;
    case 0xcc: case 0xcd: case 0xce: case 0xcf: h->type = CTS_MP_INT; h->u = v; return 0;
    case 0xd0: case 0xd1: case 0xd2: case 0xd3: put_signed(h, p + 1, m); return 0;
    case 0xd9: case 0xda: case 0xdb: put_blob(h, CTS_MP_STR, v); return 0;
    case 0xdc: case 0xdd: return put_container(h, CTS_MP_ARRAY, v);
    default: return put_container(h, CTS_MP_MAP, v); /* 0xde, 0xdf */
    }
    /* clang-format on */
}

/* Read the head at p, n bytes left. 0 or CTS_EPROTO; a blob's body is in n too. */
static int read_head(const uint8_t *p, size_t n, struct head *h)
{
    uint32_t m;
    int      rc;

    *h = (struct head){ .type = CTS_MP_END };
    if (n == 0) return CTS_EPROTO;
    if (p[0] < 0xc0 || p[0] >= 0xe0) {
        rc = read_fix(h, p[0]);
    } else {
        m = NUMBER_BYTES[p[0] - 0xc0];
        if (m == 255 || n - 1 < m) return CTS_EPROTO;
        rc = read_numbered(h, p, m);
    }
    if (rc < 0) return rc;
    return n - h->head_bytes < h->body_bytes ? CTS_EPROTO : 0;
}

/* ---- the check ---- */

struct key {
    uint32_t hash, bytes;
    size_t   off; /* from the start of the frame */
};

/* What is open around the place where the walk is. */
struct level {
    uint32_t n_left; /* objects of this container still to come */
    uint32_t n_keys;
    int      is_map;
};

struct walk {
    const uint8_t *base, *ptr, *end;
    uint32_t       n_objects_left;
    uint32_t       depth;
    struct level   level[CTS_MP_DEPTH_MAX];
    struct key     keys[CTS_MP_DEPTH_MAX][CTS_MP_PAIRS_MAX];
};

static uint32_t fnv1a(const uint8_t *p, uint32_t n)
{
    uint32_t h = 2166136261u;

    for (uint32_t i = 0; i < n; i++) h = (h ^ p[i]) * 16777619u;
    return h;
}

/* A map's key at p: it must differ from the keys before it. */
static int note_key(struct walk *w, const uint8_t *p, uint32_t bytes)
{
    struct level *l = &w->level[w->depth - 1];
    struct key   *k = w->keys[w->depth - 1], this = { fnv1a(p, bytes), bytes, (size_t)(p - w->base) };

    for (uint32_t i = 0; i < l->n_keys; i++)
        if (k[i].hash == this.hash && k[i].bytes == bytes && memcmp(w->base + k[i].off, p, bytes) == 0)
            return CTS_EPROTO;
    k[l->n_keys++] = this; /* n_keys < CTS_MP_PAIRS_MAX: open_container bounded the pairs */
    return 0;
}

static int open_container(struct walk *w, const struct head *h)
{
    int is_map = h->type == CTS_MP_MAP;

    if (w->depth == CTS_MP_DEPTH_MAX) return CTS_EPROTO;
    if (is_map && h->n_objects / 2 > CTS_MP_PAIRS_MAX) return CTS_EPROTO;
    /* Each object takes a byte at least, so a count past what is left is a lie;
     * finding it here keeps the walk from running to the end first. */
    if (h->n_objects > (size_t)(w->end - w->ptr)) return CTS_EPROTO;
    w->level[w->depth++] = (struct level){ .n_left = h->n_objects, .is_map = is_map };
    return 0;
}

static int walk_one(struct walk *w)
{
    struct head    h;
    const uint8_t *body;
    int            is_key;

    if (w->n_objects_left-- == 0) return CTS_EPROTO;
    if (read_head(w->ptr, (size_t)(w->end - w->ptr), &h) < 0) return CTS_EPROTO;
    is_key = w->depth > 0 && w->level[w->depth - 1].is_map && w->level[w->depth - 1].n_left % 2 == 0;
    if (w->depth > 0) w->level[w->depth - 1].n_left--;
    body = w->ptr + h.head_bytes;
    w->ptr = body + h.body_bytes;
    if (h.type == CTS_MP_STR && !cts_utf8_is_valid(body, h.body_bytes)) return CTS_EPROTO;
    if (is_key) {
        if (h.type != CTS_MP_STR || h.body_bytes > CTS_MP_KEY_BYTES_MAX) return CTS_EPROTO;
        return note_key(w, body, h.body_bytes);
    }
    return h.type == CTS_MP_ARRAY || h.type == CTS_MP_MAP ? open_container(w, &h) : 0;
}

int cts_mp_check(const void *p, size_t n, uint32_t objects_max)
{
    struct walk w; /* not cleared: 64 KiB of keys, each written before it is read */

    w.base = w.ptr = p;
    w.end = w.base + n;
    w.n_objects_left = objects_max;
    w.depth = 0;
    do {
        if (walk_one(&w) < 0) return CTS_EPROTO;
        while (w.depth > 0 && w.level[w.depth - 1].n_left == 0) w.depth--;
    } while (w.depth > 0);
    return w.ptr == w.end ? 0 : CTS_EPROTO;
}

/* ---- the cursor ---- */

static int peek(const struct cts_mp *c, struct head *h)
{
    return read_head(c->ptr, (size_t)(c->end - c->ptr), h);
}

static int take(struct cts_mp *c, enum cts_mp_type type, struct head *h)
{
    if (peek(c, h) < 0 || h->type != type) return CTS_EARG;
    c->ptr += h->head_bytes + h->body_bytes;
    return 0;
}

enum cts_mp_type cts_mp_type(const struct cts_mp *c)
{
    struct head h;

    return peek(c, &h) < 0 ? CTS_MP_END : h.type;
}

int cts_mp_nil(struct cts_mp *c)
{
    struct head h;

    return take(c, CTS_MP_NIL, &h);
}

int cts_mp_bool(struct cts_mp *c, int *out)
{
    struct head h;

    if (take(c, CTS_MP_BOOL, &h) < 0) return CTS_EARG;
    *out = (int)h.u;
    return 0;
}

int cts_mp_int(struct cts_mp *c, int64_t lo, int64_t hi, int64_t *out)
{
    struct cts_mp at = *c;
    struct head   h;
    int64_t       v;

    if (take(&at, CTS_MP_INT, &h) < 0) return CTS_EARG;
    if (!h.is_negative && h.u > INT64_MAX) return CTS_EARG;
    v = (int64_t)h.u;
    if (v < lo || v > hi) return CTS_EARG;
    *out = v;
    *c = at;
    return 0;
}

int cts_mp_u64(struct cts_mp *c, uint64_t *out)
{
    struct cts_mp at = *c;
    struct head   h;

    if (take(&at, CTS_MP_INT, &h) < 0 || h.is_negative) return CTS_EARG;
    *out = h.u;
    *c = at;
    return 0;
}

int cts_mp_real(struct cts_mp *c, double *out)
{
    struct head h;

    if (peek(c, &h) < 0 || (h.type != CTS_MP_REAL && h.type != CTS_MP_INT)) return CTS_EARG;
    c->ptr += h.head_bytes;
    *out = h.type == CTS_MP_REAL ? h.real : h.is_negative ? (double)(int64_t)h.u : (double)h.u;
    return 0;
}

int cts_mp_str(struct cts_mp *c, struct cts_span *out)
{
    struct head h;

    if (take(c, CTS_MP_STR, &h) < 0) return CTS_EARG;
    *out = (struct cts_span){ c->ptr - h.body_bytes, h.body_bytes };
    return 0;
}

int cts_mp_array(struct cts_mp *c, uint32_t *n)
{
    struct head h;

    if (take(c, CTS_MP_ARRAY, &h) < 0) return CTS_EARG;
    *n = h.n_objects;
    return 0;
}

int cts_mp_map(struct cts_mp *c, uint32_t *n_pairs)
{
    struct head h;

    if (take(c, CTS_MP_MAP, &h) < 0) return CTS_EARG;
    *n_pairs = h.n_objects / 2;
    return 0;
}

int cts_mp_skip(struct cts_mp *c)
{
    struct cts_mp at = *c;
    struct head   h;

    for (uint64_t n_left = 1; n_left > 0; n_left--) {
        if (peek(&at, &h) < 0) return CTS_EARG;
        at.ptr += h.head_bytes + h.body_bytes;
        n_left += h.n_objects;
    }
    *c = at;
    return 0;
}

int cts_mp_find(struct cts_mp map, const char *key, struct cts_mp *value)
{
    struct cts_span k;
    uint32_t        n;

    if (cts_mp_map(&map, &n) < 0) return 0;
    for (; n > 0; n--) {
        if (cts_mp_str(&map, &k) < 0) return 0;
        if (cts_span_is(k, key)) {
            *value = map;
            return 1;
        }
        if (cts_mp_skip(&map) < 0) return 0;
    }
    return 0;
}

int cts_span_is(struct cts_span s, const char *name)
{
    size_t n = strlen(name);

    return s.ptr != NULL && s.len == n && memcmp(s.ptr, name, n) == 0;
}

/* ---- the writer ---- */

static int put_bytes(void *data, const char *p, size_t n)
{
    struct cts_mpw *w = data;

    if (w->rc < 0) return -1;
    w->rc = cts_buf_put(w->out, p, n);
    return w->rc < 0 ? -1 : 0;
}

static msgpack_packer packer(struct cts_mpw *w)
{
    msgpack_packer pk;

    msgpack_packer_init(&pk, w, put_bytes);
    return pk;
}

void cts_mpw_nil(struct cts_mpw *w)
{
    msgpack_packer pk = packer(w);

    (void)msgpack_pack_nil(&pk); /* each failure is in w->rc */
}

void cts_mpw_bool(struct cts_mpw *w, int v)
{
    msgpack_packer pk = packer(w);

    (void)(v ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk));
}

void cts_mpw_int(struct cts_mpw *w, int64_t v)
{
    msgpack_packer pk = packer(w);

    (void)msgpack_pack_int64(&pk, v);
}

void cts_mpw_u64(struct cts_mpw *w, uint64_t v)
{
    msgpack_packer pk = packer(w);

    (void)msgpack_pack_uint64(&pk, v);
}

void cts_mpw_real(struct cts_mpw *w, double v)
{
    msgpack_packer pk = packer(w);

    (void)((double)(float)v == v ? msgpack_pack_float(&pk, (float)v) : msgpack_pack_double(&pk, v));
}

void cts_mpw_strn(struct cts_mpw *w, const void *s, size_t n)
{
    msgpack_packer pk = packer(w);

    if (n > UINT32_MAX && w->rc == 0) w->rc = -EMSGSIZE;
    if (w->rc < 0) return;
    (void)msgpack_pack_str(&pk, n);
    if (n > 0) (void)msgpack_pack_str_body(&pk, s, n);
}

void cts_mpw_str(struct cts_mpw *w, const char *s)
{
    cts_mpw_strn(w, s, strlen(s));
}

void cts_mpw_text(struct cts_mpw *w, const char *s)
{
    size_t   n = strlen(s), start = w->out->len, len;
    uint8_t *p, *end;
    uint32_t cp;

    cts_mpw_strn(w, s, n);
    if (w->rc < 0 || cts_utf8_is_valid(s, n)) return;
    CTS_ASSERT(w->out->len >= start + n);
    end = w->out->ptr + w->out->len;
    for (p = end - n; p < end; p += len) {
        len = cts_utf8_next(p, (size_t)(end - p), &cp);
        if (len == 0) {
            *p = '?';
            len = 1;
        }
    }
}

void cts_mpw_array(struct cts_mpw *w, uint32_t n)
{
    msgpack_packer pk = packer(w);

    (void)msgpack_pack_array(&pk, n);
}

void cts_mpw_map(struct cts_mpw *w, uint32_t n_pairs)
{
    msgpack_packer pk = packer(w);

    (void)msgpack_pack_map(&pk, n_pairs);
}
