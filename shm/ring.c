/* R1 to R9 are the rules for memory that a peer can write:
 *   R1 load a shared word once, into a local
 *   R2 copy, then validate the copy, then use it
 *   R3 counters that run wild close the ring; nothing is clamped in silence
 *   R4 geometry only from private copies
 *   R5 mask every offset, after the bounds check
 *   R6 bounded work per turn, R7 payload errors answer, layout errors close,
 *   R8 a dead client's requests end first, R9 seals: those are the callers'. */

#include "shm/ring.h"

#include "common/assert.h"
#include "common/err.h"

#include <errno.h>
#include <string.h>

#define PAGE 4096u

static int is_pow2_in(uint32_t v, uint32_t lo, uint32_t hi)
{
    return v >= lo && v <= hi && (v & (v - 1)) == 0;
}

int cts_sub_is_geometry(uint32_t n_records, uint32_t arena_bytes)
{
    return is_pow2_in(n_records, CTS_SUB_RECORDS_MIN, CTS_SUB_RECORDS_MAX) &&
           is_pow2_in(arena_bytes, CTS_ARENA_BYTES_MIN, CTS_ARENA_BYTES_MAX);
}

int cts_out_is_geometry(uint32_t out_bytes)
{
    return is_pow2_in(out_bytes, CTS_OUT_BYTES_MIN, CTS_OUT_BYTES_MAX);
}

/* The arena begins on a page behind the records. */
static uint32_t arena_off(uint32_t n_records)
{
    return (CTS_SHM_HEADER_BYTES + n_records * CTS_SUB_RECORD_BYTES + PAGE - 1) / PAGE * PAGE;
}

size_t cts_sub_bytes(uint32_t n_records, uint32_t arena_bytes)
{
    return (size_t)arena_off(n_records) + arena_bytes;
}

size_t cts_out_bytes(uint32_t out_bytes)
{
    return (size_t)CTS_SHM_HEADER_BYTES + out_bytes;
}

/* Copy n bytes out of memory that a peer may be writing: whole words by relaxed
 * loads, since memcpy from there is a data race the compiler may exploit (it may
 * load twice). src is 8-byte aligned and readable up to the next multiple of 8. */
static void copy_words(void *dst, const void *src, size_t n)
{
    const _Atomic uint64_t *s = src;
    uint8_t                *d = dst;
    uint64_t                word;
    size_t                  n_words = n / 8;

    for (size_t i = 0; i < n_words; i++) {
        word = atomic_load_explicit(&s[i], memory_order_relaxed);
        memcpy(d + 8 * i, &word, 8);
    }
    if (n % 8 != 0) {
        word = atomic_load_explicit(&s[n_words], memory_order_relaxed);
        memcpy(d + 8 * n_words, &word, n % 8);
    }
}

/* The same in the other direction; the last word is filled with zeroes. */
static void store_words(void *dst, const void *src, size_t n)
{
    _Atomic uint64_t *d = dst;
    const uint8_t    *s = src;
    uint64_t          word;

    for (size_t i = 0; i < n / 8; i++) {
        memcpy(&word, s + 8 * i, 8);
        atomic_store_explicit(&d[i], word, memory_order_relaxed);
    }
    if (n % 8 != 0) {
        word = 0;
        memcpy(&word, s + n / 8 * 8, n % 8);
        atomic_store_explicit(&d[n / 8], word, memory_order_relaxed);
    }
}

/* ---- SUB, the daemon's end ---- */

void cts_sub_init(struct cts_sub *s, void *map, uint32_t n_records, uint32_t arena_bytes, uint64_t ring_id)
{
    struct cts_sub_hdr *h = map;

    CTS_ASSERT(cts_sub_is_geometry(n_records, arena_bytes));
    *s = (struct cts_sub){ .hdr = h,
                           .base = map,
                           .n_records = n_records,
                           .arena_off = arena_off(n_records),
                           .arena_bytes = arena_bytes };
    h->magic = CTS_SHM_MAGIC_SUB;
    h->ver_major = CTS_SHM_MAJOR;
    h->ver_minor = CTS_SHM_MINOR;
    h->n_records = n_records;
    h->record_bytes = CTS_SUB_RECORD_BYTES;
    h->arena_off = s->arena_off;
    h->arena_bytes = arena_bytes;
    h->ring_id = ring_id;
    h->features = 0;
}

int cts_sub_has_more(const struct cts_sub *s)
{
    return atomic_load_explicit(&s->hdr->tail, memory_order_seq_cst) != s->head;
}

/* What in a record is layout, not content: wrong means that the client's writer
 * is broken or lies. A zeroed record (a punched hole) fails at abi. */
static int is_layout_ok(const struct cts_sub *s, const struct cts_sub_record *rec)
{
    if (rec->seq != s->head || rec->abi != 1 || rec->flags != 0) return 0;
    if ((rec->reserved[0] | rec->reserved[1] | rec->reserved[2]) != 0) return 0;
    if (rec->pay_off % 8 != 0) return 0;
    return (uint64_t)rec->pay_off + rec->pay_len <= s->arena_bytes;
}

int cts_sub_take(struct cts_sub *s, struct cts_sub_record *rec, void *buf, size_t cap)
{
    struct cts_sub_record copy;
    uint32_t              tail, record_off, pay_off;

    CTS_ASSERT(cap >= s->arena_bytes);
    tail = atomic_load_explicit(&s->hdr->tail, memory_order_acquire); /* R1; pairs with cts_subw_publish */
    if (tail == s->head) return 0;
    if (tail - s->head > s->n_records) return CTS_EPROTO; /* R3: it jumped, or ran back */
    record_off = CTS_SHM_HEADER_BYTES + (s->head & (s->n_records - 1)) * CTS_SUB_RECORD_BYTES; /* R4, R5 */
    copy_words(&copy, s->base + record_off, sizeof(copy));                                     /* R2 */
    if (!is_layout_ok(s, &copy)) return CTS_EPROTO;
    pay_off = copy.pay_off & (s->arena_bytes - 1); /* R5: in bounds already, also for a speculative load */
    copy_words(buf, s->base + s->arena_off + pay_off, copy.pay_len); /* R2 */
    *rec = copy;
    s->head++;
    return 1;
}

/* ---- OUT, the daemon's end ---- */

void cts_out_init(struct cts_out *o, void *map, const struct cts_sub_hdr *sub, uint32_t out_bytes,
                  uint64_t ring_id)
{
    struct cts_out_hdr *h = map;

    CTS_ASSERT(cts_out_is_geometry(out_bytes));
    *o = (struct cts_out){
        .hdr = h, .sub = sub, .ring = (uint8_t *)map + CTS_SHM_HEADER_BYTES, .out_bytes = out_bytes
    };
    h->magic = CTS_SHM_MAGIC_OUT;
    h->ver_major = CTS_SHM_MAJOR;
    h->ver_minor = CTS_SHM_MINOR;
    h->out_bytes = out_bytes;
    h->record_align = CTS_OUT_RECORD_ALIGN;
    h->ring_id = ring_id;
    h->features = 0;
}

int cts_out_look(struct cts_out *o)
{
    /* R1. Acquire: the client's reads of the freed bytes are over before we write there. */
    uint64_t head = atomic_load_explicit(&o->sub->out_head, memory_order_acquire);
    uint64_t published = atomic_load_explicit(&o->hdr->tail, memory_order_relaxed);

    /* R3: ahead of what was published, back, or off a record's border. */
    if (head > published || head < o->head_seen || head % CTS_OUT_RECORD_ALIGN != 0) return CTS_EPROTO;
    o->head_seen = head;
    return 0;
}

int cts_out_has_moved(const struct cts_out *o)
{
    return atomic_load_explicit(&o->sub->out_head, memory_order_seq_cst) != o->head_seen;
}

uint64_t cts_out_room(const struct cts_out *o)
{
    uint64_t used = o->tail - o->head_seen;

    CTS_DASSERT(used + o->reserved_bytes <= o->out_bytes);
    return o->out_bytes - used - o->reserved_bytes;
}

void cts_out_reserve(struct cts_out *o, int64_t n)
{
    CTS_ASSERT(n >= 0 ? (uint64_t)n <= cts_out_room(o) : (uint64_t)-n <= o->reserved_bytes);
    o->reserved_bytes += (uint64_t)n;
}

/* A head alone, to the end of the ring: the ring and each record are multiples
 * of 32, so there is always room for it. */
static void put_pad(struct cts_out *o, uint32_t off, uint32_t bytes)
{
    struct cts_out_record pad = { .len = bytes, .type = CTS_OUT_PAD };

    store_words(o->ring + off, &pad, sizeof(pad));
    o->tail += bytes;
}

int cts_out_put(struct cts_out *o, const void *rec, uint32_t bytes)
{
    uint32_t off = (uint32_t)o->tail & (o->out_bytes - 1);
    uint32_t pad = bytes > o->out_bytes - off ? o->out_bytes - off : 0;

    CTS_ASSERT(bytes >= CTS_OUT_RECORD_ALIGN && bytes <= CTS_OUT_RECORD_MAX);
    CTS_ASSERT(bytes % CTS_OUT_RECORD_ALIGN == 0);
    if ((uint64_t)pad + bytes > cts_out_room(o)) return -EAGAIN;
    if (pad > 0) put_pad(o, off, pad);
    off = (uint32_t)o->tail & (o->out_bytes - 1);
    store_words(o->ring + off, rec, bytes);
    o->tail += bytes;
    o->n_records++;
    if (((const struct cts_out_record *)rec)->flags & CTS_OUTF_LAST) o->has_last = 1;
    return 0;
}

uint32_t cts_out_publish(struct cts_out *o)
{
    uint32_t how, want;
    int      has_last = o->has_last;

    if (atomic_load_explicit(&o->hdr->tail, memory_order_relaxed) == o->tail) return 0;
    /* seq_cst, then out_wait: pairs with cts_outr_sleep_begin's store of out_wait
     * and load of tail. One of the two sees the other. */
    atomic_store_explicit(&o->hdr->n_records, o->n_records, memory_order_relaxed);
    atomic_store_explicit(&o->hdr->tail, o->tail, memory_order_seq_cst);
    o->has_last = 0;
    how = atomic_load_explicit(&o->sub->out_wait, memory_order_seq_cst) & (CTS_WAIT_FUTEX | CTS_WAIT_SOCKET);
    if (how == 0) return 0;
    want = atomic_load_explicit(&o->sub->out_want, memory_order_relaxed);
    /* head_seen may be old, and then this wakes too early, never too late. */
    if (!has_last && o->tail - o->head_seen < want) return 0;
    atomic_fetch_add_explicit(&o->hdr->wake_seq, 1, memory_order_seq_cst);
    return how;
}

void cts_out_publish_head(struct cts_out *o, uint32_t sub_head)
{
    atomic_store_explicit(&o->hdr->sub_head, sub_head, memory_order_release); /* pairs with cts_subw_put */
}

void cts_out_flag(struct cts_out *o, uint32_t set, uint32_t clear)
{
    uint32_t flags = (o->flags & ~clear) | set;

    if (flags == o->flags) return;
    o->flags = flags;
    atomic_store_explicit(&o->hdr->flags, flags, memory_order_seq_cst);
}

void cts_out_count(struct cts_out *o, enum cts_out_counter which, uint64_t n)
{
    _Atomic uint64_t *const counters[] = { &o->hdr->n_stalls, &o->hdr->n_cancels, &o->hdr->n_proto_errors };

    atomic_store_explicit(counters[which], n, memory_order_relaxed);
}

void cts_out_close(struct cts_out *o, int reason)
{
    CTS_ASSERT(reason < 0);
    atomic_store_explicit(&o->hdr->close_reason, (uint32_t)-reason, memory_order_relaxed);
    cts_out_flag(o, CTS_OUT_CLOSED, CTS_OUT_NEED_KICK | CTS_OUT_NEED_ROOM);
    atomic_fetch_add_explicit(&o->hdr->wake_seq, 1, memory_order_seq_cst);
}

/* ---- SUB, the client's end ---- */

int cts_subw_init(struct cts_subw *w, void *sub, const void *out, uint32_t n_records, uint32_t arena_bytes)
{
    struct cts_sub_hdr       *h = sub;
    const struct cts_out_hdr *oh = out;

    if (!cts_sub_is_geometry(n_records, arena_bytes)) return CTS_EPROTO;
    if (h->magic != CTS_SHM_MAGIC_SUB || oh->magic != CTS_SHM_MAGIC_OUT) return CTS_EPROTO;
    if (h->ver_major != CTS_SHM_MAJOR || oh->ver_major != CTS_SHM_MAJOR) return CTS_EVERSION;
    if (h->n_records != n_records || h->record_bytes != CTS_SUB_RECORD_BYTES || h->arena_bytes != arena_bytes ||
        h->arena_off != arena_off(n_records))
        return CTS_EPROTO;
    *w = (struct cts_subw){ .hdr = h,
                            .out = oh,
                            .base = sub,
                            .n_records = n_records,
                            .arena_off = arena_off(n_records),
                            .arena_bytes = arena_bytes };
    return 0;
}

/* Free what the daemon has taken. */
static int subw_reclaim(struct cts_subw *w)
{
    uint32_t head =
        atomic_load_explicit(&w->out->sub_head, memory_order_acquire); /* pairs with cts_out_publish_head */

    if (w->tail - head > w->n_records || head - w->freed > w->n_records) return CTS_EPROTO;
    if (head != w->freed) w->arena_head = w->arena_end[(head - 1) & (w->n_records - 1)];
    w->freed = head;
    return 0;
}

int cts_subw_put(struct cts_subw *w, struct cts_sub_record *rec, const void *payload, uint32_t n)
{
    uint64_t room = ((uint64_t)n + 7) & ~UINT64_C(7), at = w->arena_tail;
    uint32_t off = (uint32_t)at & (w->arena_bytes - 1);
    int      rc;

    if (room > w->arena_bytes) return -EMSGSIZE;
    rc = subw_reclaim(w);
    if (rc < 0) return rc;
    if (w->tail - w->freed == w->n_records) return -EAGAIN;
    if (room > w->arena_bytes - off) at += w->arena_bytes - off; /* a payload does not wrap */
    if (w->freed == w->tail) w->arena_head = at;                 /* nothing is in flight */
    if (at + room - w->arena_head > w->arena_bytes) return -EAGAIN;

    off = (uint32_t)at & (w->arena_bytes - 1);
    rec->abi = 1;
    rec->seq = w->tail;
    rec->pay_off = off;
    rec->pay_len = n;
    store_words(w->base + w->arena_off + off, payload, n);
    store_words(w->base + CTS_SHM_HEADER_BYTES + (w->tail & (w->n_records - 1)) * CTS_SUB_RECORD_BYTES, rec,
                sizeof(*rec));
    w->arena_tail = at + room;
    w->arena_end[w->tail & (w->n_records - 1)] = w->arena_tail;
    w->tail++;
    return 0;
}

int cts_subw_publish(struct cts_subw *w)
{
    /* seq_cst, then flags: pairs with the daemon's store of NEED_KICK and load of
     * tail before it sleeps. */
    atomic_store_explicit(&w->hdr->tail, w->tail, memory_order_seq_cst);
    return (atomic_load_explicit(&w->out->flags, memory_order_seq_cst) & CTS_OUT_NEED_KICK) != 0;
}

/* ---- OUT, the client's end ---- */

int cts_outr_init(struct cts_outr *r, const void *out, void *sub, uint32_t out_bytes)
{
    const struct cts_out_hdr *h = out;

    if (!cts_out_is_geometry(out_bytes) || h->magic != CTS_SHM_MAGIC_OUT) return CTS_EPROTO;
    if (h->ver_major != CTS_SHM_MAJOR) return CTS_EVERSION;
    if (h->out_bytes != out_bytes || h->record_align != CTS_OUT_RECORD_ALIGN) return CTS_EPROTO;
    *r = (struct cts_outr){
        .hdr = h, .sub = sub, .ring = (const uint8_t *)out + CTS_SHM_HEADER_BYTES, .out_bytes = out_bytes
    };
    return 0;
}

int cts_outr_has_more(const struct cts_outr *r)
{
    return atomic_load_explicit(&r->hdr->tail, memory_order_acquire) != r->head;
}

/* Give the bytes before head back; 1 when the daemon waits for them. */
static int outr_release(struct cts_outr *r, uint32_t bytes)
{
    r->head += bytes;
    /* seq_cst, then flags: pairs with the daemon's store of NEED_ROOM and load of out_head. */
    atomic_store_explicit(&r->sub->out_head, r->head, memory_order_seq_cst);
    return (atomic_load_explicit(&r->hdr->flags, memory_order_seq_cst) & CTS_OUT_NEED_ROOM) != 0;
}

int cts_outr_take(struct cts_outr *r, void *buf, int *kick)
{
    struct cts_out_record head;
    uint64_t              tail = atomic_load_explicit(&r->hdr->tail, memory_order_acquire), n;
    uint32_t              off;

    *kick = 0;
    for (;;) {
        n = tail - r->head;
        if (n == 0) return 0;
        if (n > r->out_bytes || n % CTS_OUT_RECORD_ALIGN != 0) return CTS_EPROTO;
        off = (uint32_t)r->head & (r->out_bytes - 1);
        copy_words(&head, r->ring + off, sizeof(head));
        if (head.len < CTS_OUT_RECORD_ALIGN || head.len % CTS_OUT_RECORD_ALIGN != 0 || head.len > n ||
            head.len > r->out_bytes - off)
            return CTS_EPROTO;
        if (head.type != CTS_OUT_PAD) break;
        *kick |= outr_release(r, head.len);
    }
    if (head.len > CTS_OUT_RECORD_MAX) return CTS_EPROTO;
    copy_words(buf, r->ring + off, head.len);
    memcpy(buf, &head, sizeof(head)); /* the head that was judged, whatever lies there now */
    *kick |= outr_release(r, head.len);
    return 1;
}

int cts_outr_sleep_begin(struct cts_outr *r, uint32_t how, uint32_t want_bytes, uint32_t *seq)
{
    *seq = atomic_load_explicit(&r->hdr->wake_seq, memory_order_seq_cst);
    atomic_store_explicit(&r->sub->out_want, want_bytes, memory_order_relaxed);
    atomic_store_explicit(&r->sub->out_wait, how, memory_order_seq_cst);
    /* Pairs with cts_out_publish; CLOSED is looked at for the same reason. */
    if (atomic_load_explicit(&r->hdr->tail, memory_order_seq_cst) == r->head &&
        !(cts_outr_flags(r) & CTS_OUT_CLOSED))
        return 0;
    cts_outr_sleep_end(r);
    return 1;
}

void cts_outr_sleep_end(struct cts_outr *r)
{
    atomic_store_explicit(&r->sub->out_wait, 0, memory_order_relaxed);
}

uint32_t cts_outr_flags(const struct cts_outr *r)
{
    return atomic_load_explicit(&r->hdr->flags, memory_order_seq_cst);
}

int cts_outr_close_reason(const struct cts_outr *r)
{
    return -(int)atomic_load_explicit(&r->hdr->close_reason, memory_order_relaxed);
}
