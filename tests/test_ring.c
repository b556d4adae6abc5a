#include "shm/ring.h"

#include "common/err.h"
#include "tests/check.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define N_RECORDS   16u
#define ARENA_BYTES CTS_ARENA_BYTES_MIN
#define OUT_BYTES   CTS_OUT_BYTES_MIN

/* Both segments and all four ends over one mapping. */
struct rig {
    void           *sub_map, *out_map;
    struct cts_sub  sub;
    struct cts_out  out;
    struct cts_subw subw;
    struct cts_outr outr;
    uint8_t         payload[CTS_ARENA_BYTES_MIN];
    _Alignas(8) uint8_t rec[CTS_OUT_RECORD_MAX];
    int kick;
};

static void *map_zeroes(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

static int rig_setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));

    CHECK(r != NULL);
    r->sub_map = map_zeroes(cts_sub_bytes(N_RECORDS, ARENA_BYTES));
    r->out_map = map_zeroes(cts_out_bytes(OUT_BYTES));
    cts_sub_init(&r->sub, r->sub_map, N_RECORDS, ARENA_BYTES, 7);
    cts_out_init(&r->out, r->out_map, r->sub_map, OUT_BYTES, 7);
    CHECK(cts_subw_init(&r->subw, r->sub_map, r->out_map, N_RECORDS, ARENA_BYTES) == 0);
    CHECK(cts_outr_init(&r->outr, r->out_map, r->sub_map, OUT_BYTES) == 0);
    *state = r;
    return 0;
}

static int rig_teardown(void **state)
{
    struct rig *r = *state;

    munmap(r->sub_map, cts_sub_bytes(N_RECORDS, ARENA_BYTES));
    munmap(r->out_map, cts_out_bytes(OUT_BYTES));
    free(r);
    return 0;
}

static int submit(struct rig *r, uint64_t req_id, const void *payload, uint32_t n)
{
    struct cts_sub_record rec = { .op = CTS_OP_GENERATE, .req_id = req_id };
    int                   rc = cts_subw_put(&r->subw, &rec, payload, n);

    if (rc == 0) (void)cts_subw_publish(&r->subw);
    return rc;
}

static int take(struct rig *r, struct cts_sub_record *rec)
{
    return cts_sub_take(&r->sub, rec, r->payload, sizeof(r->payload));
}

/* A record of n bytes that carries an index and can be checked. */
static int produce(struct rig *r, uint32_t index, uint32_t bytes)
{
    uint32_t              buf[CTS_OUT_RECORD_MAX / 4];
    struct cts_out_record head = { .len = bytes, .type = CTS_OUT_TOKENS, .req_id = index };

    for (uint32_t i = 0; i < bytes / 4; i++) buf[i] = index * 31 + i;
    memcpy(buf, &head, sizeof(head));
    return cts_out_put(&r->out, buf, bytes);
}

static void check_produced(struct rig *r, uint32_t index, uint32_t bytes)
{
    struct cts_out_record head;
    uint32_t              word;

    memcpy(&head, r->rec, sizeof(head));
    CHECK(head.req_id == index);
    CHECK(head.len == bytes);
    for (uint32_t i = sizeof(head) / 4; i < bytes / 4; i++) {
        memcpy(&word, r->rec + 4 * i, 4);
        CHECK(word == index * 31 + i);
    }
}

/* A record written behind the writer's back, as a hostile client would. */
static struct cts_sub_record *raw_record(struct rig *r, uint32_t idx)
{
    return (struct cts_sub_record *)((uint8_t *)r->sub_map + CTS_SHM_HEADER_BYTES) + idx;
}

static void forge(struct rig *r, struct cts_sub_record rec)
{
    uint32_t tail = r->sub.hdr->tail;

    *raw_record(r, tail % N_RECORDS) = rec;
    atomic_store(&r->sub.hdr->tail, tail + 1);
}

/* ---- SUB ---- */

static void sub_take_returns_what_was_put_in_order_over_many_wraps(void **state)
{
    struct rig           *r = *state;
    struct cts_sub_record rec;
    uint8_t               payload[3000];

    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t n = i * 37 % sizeof(payload);

        memset(payload, (int)(i & 255), sizeof(payload));
        CHECK(take(r, &rec) == 0);
        CHECK(submit(r, i, payload, n) == 0);
        CHECK(take(r, &rec) == 1);
        CHECK(rec.req_id == i);
        CHECK(rec.pay_len == n);
        CHECK(memcmp(r->payload, payload, n) == 0);
        cts_out_publish_head(&r->out, r->sub.head);
    }
}

static void subw_put_returns_eagain_when_records_are_full_and_goes_on_after(void **state)
{
    struct rig           *r = *state;
    struct cts_sub_record rec;

    for (uint32_t i = 0; i < N_RECORDS; i++) CHECK(submit(r, i, "x", 1) == 0);
    CHECK(submit(r, 99, "x", 1) == -EAGAIN);
    CHECK(take(r, &rec) == 1);
    CHECK(submit(r, 99, "x", 1) == -EAGAIN); /* taken, but not yet given back */
    cts_out_publish_head(&r->out, r->sub.head);
    CHECK(submit(r, 99, "x", 1) == 0);
}

static void subw_put_never_overwrites_a_payload_that_was_not_taken(void **state)
{
    struct rig           *r = *state;
    struct cts_sub_record rec;
    uint8_t               big[CTS_ARENA_BYTES_MIN];
    uint32_t              n = ARENA_BYTES / 2 + 8;

    memset(big, 1, sizeof(big));
    CHECK(submit(r, 1, big, n) == 0);
    CHECK(submit(r, 2, big, n) == -EAGAIN); /* would wrap onto the first */
    CHECK(submit(r, 2, big, ARENA_BYTES) == -EAGAIN);
    CHECK(take(r, &rec) == 1);
    cts_out_publish_head(&r->out, r->sub.head);
    memset(big, 2, sizeof(big));
    CHECK(submit(r, 2, big, ARENA_BYTES) == 0); /* the whole arena at once */
    CHECK(take(r, &rec) == 1);
    CHECK(rec.pay_off == 0);
    CHECK(memcmp(r->payload, big, ARENA_BYTES) == 0);
    CHECK(submit(r, 3, big, ARENA_BYTES + 1) == -EMSGSIZE);
}

static void sub_take_refuses_a_tail_that_jumps_or_runs_back(void **state)
{
    struct rig           *r = *state;
    struct cts_sub_record rec;
    static const uint32_t TAILS[] = { N_RECORDS + 2, 1u << 31, UINT32_MAX, 0 };

    CHECK(submit(r, 1, "x", 1) == 0);
    CHECK(take(r, &rec) == 1); /* head is 1 now; 0 is behind it */
    forge(r, (struct cts_sub_record){
                 .op = CTS_OP_PING, .abi = 1, .seq = 1 }); /* a record that is fine in itself */
    for (int i = 0; i < 4; i++) {
        atomic_store(&r->sub.hdr->tail, TAILS[i]);
        CHECK(take(r, &rec) == CTS_EPROTO);
    }
    atomic_store(&r->sub.hdr->tail, 1u);
    CHECK(take(r, &rec) == 0);
}

static void sub_take_refuses_each_field_that_lies(void **state)
{
    struct rig           *r = *state;
    struct cts_sub_record good = { .op = CTS_OP_GENERATE, .abi = 1, .pay_off = 8, .pay_len = 16 }, bad[10], rec;

    for (int i = 0; i < 10; i++) bad[i] = good;
    bad[0] = (struct cts_sub_record){ .op = 0 }; /* a punched hole reads as zeroes */
    bad[1].seq = 1;
    bad[2].abi = 2;
    bad[3].flags = 1;
    bad[4].reserved[0] = 1;
    bad[5].reserved[2] = UINT64_C(1) << 63;
    bad[6].pay_off = 4;
    bad[7].pay_off = ARENA_BYTES;
    bad[8].pay_off = ARENA_BYTES - 8;
    bad[9].pay_off = 0xfffffff8u; /* off + len wraps 32 bits */
    bad[9].pay_len = 0x10;
    for (int i = 0; i < 10; i++) {
        atomic_store(&r->sub.hdr->tail, 0u);
        forge(r, bad[i]);
        CHECK_MSG(take(r, &rec) == CTS_EPROTO, "case %d\n", i);
        CHECK(r->sub.head == 0);
    }
    atomic_store(&r->sub.hdr->tail, 0u);
    forge(r, good);
    CHECK(take(r, &rec) == 1);
}

static void sub_take_hands_an_unknown_op_on(void **state)
{
    struct rig           *r = *state;
    struct cts_sub_record rec;

    forge(r, (struct cts_sub_record){ .op = 77, .abi = 1, .req_id = 5 });
    CHECK(take(r, &rec) == 1);
    CHECK(rec.op == 77 && rec.req_id == 5);
}

static void subw_put_refuses_a_head_that_runs_wild(void **state)
{
    struct rig *r = *state;

    CHECK(submit(r, 1, "x", 1) == 0);
    cts_out_publish_head(&r->out, 2);
    CHECK(submit(r, 2, "x", 1) == CTS_EPROTO);
    cts_out_publish_head(&r->out, 1);
    CHECK(submit(r, 2, "x", 1) == 0);
    cts_out_publish_head(&r->out, 0);
    CHECK(submit(r, 3, "x", 1) == CTS_EPROTO);
}

/* ---- OUT ---- */

static void out_put_and_take_agree_over_many_wraps_with_pads(void **state)
{
    struct rig *r = *state;
    uint32_t    produced = 0, consumed = 0, n_pads = 0;
    uint64_t    before;

    while (consumed < 3000) {
        uint32_t bytes = 32 * (1 + produced * 7 % 120);

        before = r->out.tail;
        if (produced < 3000 && produce(r, produced, bytes) == 0) {
            n_pads += r->out.tail - before != bytes;
            produced++;
            continue;
        }
        (void)cts_out_publish(&r->out);
        CHECK(produced > consumed);
        for (int i = 0; i < 5 && consumed < produced; i++, consumed++) {
            CHECK(cts_outr_take(&r->outr, r->rec, &r->kick) == 1);
            check_produced(r, consumed, 32 * (1 + consumed * 7 % 120));
        }
        CHECK(cts_out_look(&r->out) == 0);
    }
    CHECK(n_pads > 10);
    CHECK(cts_outr_take(&r->outr, r->rec, &r->kick) == 0);
}

static void out_put_leaves_what_is_reserved(void **state)
{
    struct rig *r = *state;
    uint32_t    n = 0;

    cts_out_reserve(&r->out, 64);
    while (produce(r, n, 4096) == 0) n++;
    while (produce(r, n, 32) == 0) n++;
    CHECK(cts_out_room(&r->out) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(produce(r, n, 32) == -EAGAIN);
        cts_out_reserve(&r->out, -32);
        CHECK(produce(r, n, 32) == 0); /* a last record always fits */
    }
    CHECK(r->out.tail == OUT_BYTES);
}

static void out_look_refuses_an_out_head_that_lies(void **state)
{
    struct rig *r = *state;

    CHECK(produce(r, 0, 64) == 0);
    (void)cts_out_publish(&r->out);
    CHECK(produce(r, 1, 64) == 0); /* not published: the client can't have it */
    atomic_store(&r->sub.hdr->out_head, (uint64_t)96);
    CHECK(cts_out_look(&r->out) == CTS_EPROTO);
    atomic_store(&r->sub.hdr->out_head, UINT64_MAX);
    CHECK(cts_out_look(&r->out) == CTS_EPROTO);
    atomic_store(&r->sub.hdr->out_head, (uint64_t)33);
    CHECK(cts_out_look(&r->out) == CTS_EPROTO);
    atomic_store(&r->sub.hdr->out_head, (uint64_t)64);
    CHECK(cts_out_look(&r->out) == 0);
    atomic_store(&r->sub.hdr->out_head, (uint64_t)32); /* back */
    CHECK(cts_out_look(&r->out) == CTS_EPROTO);
}

static void outr_take_refuses_lengths_that_leave_the_ring(void **state)
{
    struct rig            *r = *state;
    struct cts_out_record *head = (struct cts_out_record *)r->out.ring;
    static const uint32_t  LENS[] = { 0, 24, 40, 96, OUT_BYTES, 0xffffffe0u };

    CHECK(produce(r, 0, 64) == 0);
    (void)cts_out_publish(&r->out);
    for (int i = 0; i < 6; i++) {
        head->len = LENS[i];
        CHECK(cts_outr_take(&r->outr, r->rec, &r->kick) == CTS_EPROTO);
    }
    head->len = 64;
    atomic_store(&r->out.hdr->tail, (uint64_t)OUT_BYTES + 32);
    CHECK(cts_outr_take(&r->outr, r->rec, &r->kick) == CTS_EPROTO);
    r->outr.head = OUT_BYTES - 32; /* a record that would wrap */
    atomic_store(&r->out.hdr->tail, (uint64_t)OUT_BYTES + 32);
    ((struct cts_out_record *)(r->out.ring + OUT_BYTES - 32))->len = 64;
    CHECK(cts_outr_take(&r->outr, r->rec, &r->kick) == CTS_EPROTO);
    r->outr.head = 0;
    atomic_store(&r->out.hdr->tail, (uint64_t)64);
    CHECK(cts_outr_take(&r->outr, r->rec, &r->kick) == 1);
}

static void out_publish_wakes_only_a_sleeper_that_has_enough(void **state)
{
    struct rig *r = *state;
    uint32_t    seq, seq2;

    CHECK(produce(r, 0, 32) == 0);
    CHECK(cts_out_publish(&r->out) == 0);                                /* awake */
    CHECK(cts_outr_sleep_begin(&r->outr, CTS_WAIT_FUTEX, 0, &seq) == 1); /* something is there */
    CHECK(cts_outr_take(&r->outr, r->rec, &r->kick) == 1);
    CHECK(cts_outr_sleep_begin(&r->outr, CTS_WAIT_FUTEX, 96, &seq) == 0);
    CHECK(cts_out_look(&r->out) == 0);
    CHECK(produce(r, 1, 32) == 0);
    CHECK(cts_out_publish(&r->out) == 0); /* 32 < 96 */
    CHECK(produce(r, 2, 64) == 0);
    CHECK(cts_out_publish(&r->out) == CTS_WAIT_FUTEX);
    CHECK(cts_out_publish(&r->out) == 0); /* nothing new */
    cts_outr_sleep_end(&r->outr);
    while (cts_outr_take(&r->outr, r->rec, &r->kick) == 1) continue;
    CHECK(cts_outr_sleep_begin(&r->outr, CTS_WAIT_SOCKET, 4096, &seq2) == 0);
    CHECK(seq2 == seq + 1);
    ((struct cts_out_record *)r->rec)->flags = CTS_OUTF_LAST;
    CHECK(cts_out_put(&r->out, r->rec, 64) == 0);
    CHECK(cts_out_publish(&r->out) == CTS_WAIT_SOCKET); /* a last record wakes whatever is wanted */
    CHECK(produce(r, 3, 64) == 0);
    CHECK(cts_out_publish(&r->out) == 0); /* but only once */
}

static void the_flags_tell_the_client_when_to_kick(void **state)
{
    struct rig           *r = *state;
    struct cts_sub_record rec = { .op = CTS_OP_PING };

    CHECK(cts_subw_put(&r->subw, &rec, NULL, 0) == 0);
    CHECK(cts_subw_publish(&r->subw) == 0);
    cts_out_flag(&r->out, CTS_OUT_NEED_KICK, 0);
    CHECK(cts_subw_publish(&r->subw) == 1);
    CHECK(produce(r, 0, 32) == 0 && produce(r, 1, 32) == 0);
    (void)cts_out_publish(&r->out);
    CHECK(cts_outr_take(&r->outr, r->rec, &r->kick) == 1);
    CHECK(r->kick == 0);
    cts_out_flag(&r->out, CTS_OUT_NEED_ROOM, CTS_OUT_NEED_KICK);
    CHECK(cts_subw_publish(&r->subw) == 0);
    CHECK(cts_outr_take(&r->outr, r->rec, &r->kick) == 1);
    CHECK(r->kick == 1);
}

static void out_close_tells_the_reason_and_stops_sleepers(void **state)
{
    struct rig *r = *state;
    uint32_t    seq;

    CHECK(cts_outr_sleep_begin(&r->outr, CTS_WAIT_FUTEX, 0, &seq) == 0);
    cts_out_close(&r->out, CTS_EPROTO);
    CHECK(r->out.hdr->wake_seq == seq + 1);
    CHECK(cts_outr_flags(&r->outr) == CTS_OUT_CLOSED);
    CHECK(cts_outr_close_reason(&r->outr) == CTS_EPROTO);
    CHECK(cts_outr_sleep_begin(&r->outr, CTS_WAIT_FUTEX, 0, &seq) == 1);
}

static void init_refuses_a_header_that_differs_from_the_reply(void **state)
{
    struct rig *r = *state;

    CHECK(cts_subw_init(&r->subw, r->sub_map, r->out_map, 2 * N_RECORDS, ARENA_BYTES) == CTS_EPROTO);
    CHECK(cts_subw_init(&r->subw, r->sub_map, r->out_map, 17, ARENA_BYTES) == CTS_EPROTO);
    CHECK(cts_outr_init(&r->outr, r->out_map, r->sub_map, 2 * OUT_BYTES) == CTS_EPROTO);
    r->sub.hdr->ver_major = 2;
    CHECK(cts_subw_init(&r->subw, r->sub_map, r->out_map, N_RECORDS, ARENA_BYTES) == CTS_EVERSION);
    r->out.hdr->ver_major = 2;
    CHECK(cts_outr_init(&r->outr, r->out_map, r->sub_map, OUT_BYTES) == CTS_EVERSION);
}

/* ---- two threads ---- */

#define N_ROUNDS 20000u

/* The daemon's part: take each submission and answer it with two records. Hands
 * back the number of the first failed step, 0 when all is well. */
static void *run_daemon(void *arg)
{
    struct rig           *r = arg;
    struct cts_sub_record rec;
    uint64_t              sum;

    for (uint32_t i = 0; i < N_ROUNDS; i++) {
        int rc;

        while ((rc = take(r, &rec)) == 0) continue;
        if (rc < 0) return (void *)(uintptr_t)(2 * i + 1);
        memcpy(&sum, r->payload, 8);
        if (rec.req_id != i || sum != i * 3u || rec.pay_len != 8 + i % 50)
            return (void *)(uintptr_t)(2 * i + 2);
        cts_out_publish_head(&r->out, r->sub.head);
        while (produce(r, 2 * i, 64 + i % 8 * 32) < 0 || produce(r, 2 * i + 1, 32) < 0)
            if (cts_out_look(&r->out) < 0) return (void *)(uintptr_t)(2 * i + 1);
        (void)cts_out_publish(&r->out);
    }
    return NULL;
}

/* produce() of the first record may succeed and the second fail, so an index may
 * come twice: the client checks contents, not counts. */
static void two_threads_exchange_records_without_loss(void **state)
{
    struct rig           *r = *state;
    pthread_t             t;
    void                 *failed;
    uint32_t              sent = 0, got = 0;
    uint8_t               payload[64] = { 0 };
    struct cts_out_record head;

    CHECK(pthread_create(&t, NULL, run_daemon, r) == 0);
    while (got < N_ROUNDS) {
        uint64_t sum = sent * 3u;

        memcpy(payload, &sum, 8);
        if (sent < N_ROUNDS && submit(r, sent, payload, 8 + sent % 50) == 0) sent++;
        while (cts_outr_take(&r->outr, r->rec, &r->kick) == 1) {
            memcpy(&head, r->rec, sizeof(head));
            check_produced(r, (uint32_t)head.req_id, head.len);
            if (head.req_id % 2 == 0) continue;
            CHECK(head.req_id == 2 * got + 1);
            got++;
        }
    }
    CHECK(pthread_join(t, &failed) == 0);
    CHECK_MSG(failed == NULL, "daemon failed at step %zu\n", (size_t)failed);
}

/* ---- cts-shm(7) ---- */

#define SUB(f, name)                                                                                           \
    {                                                                                                          \
        offsetof(struct cts_sub_hdr, f), sizeof(((struct cts_sub_hdr *)0)->f), name                            \
    }
#define REC(f, name)                                                                                           \
    {                                                                                                          \
        offsetof(struct cts_sub_record, f), sizeof(((struct cts_sub_record *)0)->f), name                      \
    }
#define OUT(f, name)                                                                                           \
    {                                                                                                          \
        offsetof(struct cts_out_hdr, f), sizeof(((struct cts_out_hdr *)0)->f), name                            \
    }
#define HEAD(f, name)                                                                                          \
    {                                                                                                          \
        offsetof(struct cts_out_record, f), sizeof(((struct cts_out_record *)0)->f), name                      \
    }

static void the_page_has_every_field_at_its_offset(void **state)
{
    static const struct {
        size_t      off, bytes;
        const char *name;
    } FIELDS[] = {
        SUB(magic, "magic 0x53535443"),
        SUB(ver_major, "major"),
        SUB(ver_minor, "minor"),
        SUB(n_records, "n_records"),
        SUB(record_bytes, "record_bytes, 64"),
        SUB(arena_off, "arena_off"),
        SUB(arena_bytes, "arena_bytes"),
        SUB(ring_id, "ring_id"),
        SUB(features, "features"),
        SUB(tail, "tail: records"),
        SUB(out_head, "out_head"),
        SUB(out_wait, "out_wait"),
        SUB(out_want, "out_want"),
        REC(op, "op: 1 GENERATE, 2 CANCEL, 3 PING"),
        REC(flags, "flags, 0"),
        REC(abi, "abi, 1"),
        REC(seq, "seq"),
        REC(req_id, "req_id: unique"),
        REC(adapter, "adapter"),
        REC(generation, "generation"),
        REC(pay_off, "pay_off"),
        REC(pay_len, "pay_len"),
        REC(deadline_ns, "deadline"),
        REC(reserved, "reserved, 0"),
        OUT(magic, "magic 0x4f535443"),
        OUT(out_bytes, "out_bytes"),
        OUT(record_align, "record_align, 32"),
        OUT(reserved, "reserved"),
        OUT(ring_id, "ring_id"),
        OUT(features, "features"),
        OUT(sub_head, "sub_head"),
        OUT(flags, "flags: 1 NEED_KICK, 2 DRAINING, 4 CLOSED, 8 NEED_ROOM"),
        OUT(close_reason, "close_reason"),
        OUT(tail, "tail: bytes"),
        OUT(wake_seq, "wake_seq"),
        OUT(n_records, "records written"),
        OUT(n_stalls, "had to wait"),
        OUT(n_cancels, "cancels"),
        OUT(n_proto_errors, "violations"),
        HEAD(len, "len"),
        HEAD(type, "type"),
        HEAD(flags, "flags: 1 LAST, 2 LOGPROBS, 4 TEXT, 8 TOP"),
        HEAD(count, "count"),
        HEAD(req_id, "req_id"),
        HEAD(first, "first"),
        HEAD(text_len, "text_len"),
        HEAD(status, "status"),
    };
    char   path[512], line[256];
    FILE  *page = fopen(src_path(path, sizeof(path), "man/cts-shm.7"), "r");
    size_t off, bytes;

    (void)state;
    CHECK(page != NULL);
    for (size_t i = 0; i < sizeof(FIELDS) / sizeof(FIELDS[0]); i++) {
        int is_found = 0;

        rewind(page);
        while (!is_found && fgets(line, sizeof(line), page) != NULL)
            is_found = sscanf(line, "%zu %zu", &off, &bytes) == 2 && off == FIELDS[i].off &&
                       bytes == FIELDS[i].bytes && strstr(line, FIELDS[i].name) != NULL;
        CHECK_MSG(is_found, "%zu %zu %s\n", FIELDS[i].off, FIELDS[i].bytes, FIELDS[i].name);
    }
    fclose(page);
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(sub_take_returns_what_was_put_in_order_over_many_wraps),
        T(subw_put_returns_eagain_when_records_are_full_and_goes_on_after),
        T(subw_put_never_overwrites_a_payload_that_was_not_taken),
        T(sub_take_refuses_a_tail_that_jumps_or_runs_back),
        T(sub_take_refuses_each_field_that_lies),
        T(sub_take_hands_an_unknown_op_on),
        T(subw_put_refuses_a_head_that_runs_wild),
        T(out_put_and_take_agree_over_many_wraps_with_pads),
        T(out_put_leaves_what_is_reserved),
        T(out_look_refuses_an_out_head_that_lies),
        T(outr_take_refuses_lengths_that_leave_the_ring),
        T(out_publish_wakes_only_a_sleeper_that_has_enough),
        T(the_flags_tell_the_client_when_to_kick),
        T(out_close_tells_the_reason_and_stops_sleepers),
        T(init_refuses_a_header_that_differs_from_the_reply),
        T(two_threads_exchange_records_without_loss),
        cmocka_unit_test(the_page_has_every_field_at_its_offset),
    };

    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
