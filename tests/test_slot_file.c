#include "daemon/store/slot_file.h"

#include "tests/check.h"
#include "tests/fault.h"
#include "tests/tiny_collection.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>

#define SLOT_BYTES 4096

static uint8_t              slot[SLOT_BYTES];
static struct cts_slot      made;
static struct cts_slot_part parts[3];
static float                values[3][64];

/* A sigma, a pair in the same module and a sigma in another: 4096 bytes, payload at 128. */
static void make_slot(uint64_t slot_idx)
{
    struct cts_slot_layout l;
    uint8_t                sum[CTS_SLOT_CHECKSUM_BYTES];

    for (int p = 0; p < 3; p++)
        for (int k = 0; k < 64; k++) values[p][k] = (float)(p + 1) * 0.5f + (float)k * 0.125f;
    parts[0] = (struct cts_slot_part){ CTS_PART_SIGMA, 2, 1, 5, 3, 4, 0, CTS_F32, 0.75f, values[0] };
    parts[1] = (struct cts_slot_part){ CTS_PART_LOWRANK, 2, 1, CTS_CLUSTER_NONE, 7, 5, 2, CTS_BF16, 0.5f, values[1] };
    parts[2] = (struct cts_slot_part){ CTS_PART_SIGMA, 2, 6, 5, 2, 2, 0, CTS_F16, 0.0f, values[2] };
    made = (struct cts_slot){ .generation = 9, .n_parts = 3, .parts = parts };
    memset(made.digest, 0xd1, sizeof(made.digest));
    CHECK(cts_slot_layout(&l, parts, 3, NULL) == 0);
    CHECK(l.class_bytes == SLOT_BYTES && l.payload_off == CTS_SLOT_HEADER_BYTES);
    cts_slot_pack(slot, &l, slot_idx, &made, sum);
}

/* Give the slot a right checksum again, as the page says, after a test changed it. */
static void seal(uint64_t slot_idx)
{
    uint64_t payload_bytes, end;
    uint32_t payload_off;
    uint8_t  copy[SLOT_BYTES];

    memcpy(&payload_bytes, slot + 64, 8);
    memcpy(&payload_off, slot + 72, 4);
    end = payload_off + payload_bytes;
    memcpy(copy, slot, sizeof(copy));
    memset(copy + 96, 0, 16);
    memcpy(copy + 16, &slot_idx, 8);
    cts_xxh128(copy, end, NULL, 0, slot + 96);
}

static int unpack(uint64_t slot_idx, struct cts_err *err)
{
    struct cts_slot s;
    uint8_t         sum[CTS_SLOT_CHECKSUM_BYTES];
    int             rc = cts_slot_unpack(&s, slot, SLOT_BYTES, slot_idx, sum, err);

    if (rc == 0) cts_slot_free(&s);
    return rc;
}

static void check_refused(int code, const char *want)
{
    struct cts_err err = { 0 };
    int            rc = unpack(11, &err);

    CHECK_MSG(rc == code && strstr(err.text, want) != NULL, "want %d '%s', got %d '%s'\n", code, want, rc, err.text);
}

static void slot_classes_are_the_powers_and_three_times_the_powers(void **state)
{
    static const uint64_t first[] = { 4096, 8192, 12288, 16384, 24576, 32768, 49152, 65536, 98304 };
    uint64_t              c = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
        c = cts_slot_class(c + 1);
        CHECK(c == first[i]);
        CHECK(cts_slot_class(c) == c && cts_slot_is_class(c) && !cts_slot_is_class(c - 1));
    }
    CHECK(cts_slot_class((uint64_t)3 << 30) == (uint64_t)3 << 30);
    CHECK(cts_slot_class(((uint64_t)3 << 30) + 1) == 0);
    CHECK(!cts_slot_is_class(0));
}

static void slot_comes_back_as_it_was_packed(void **state)
{
    struct cts_slot s;
    uint8_t         sum[CTS_SLOT_CHECKSUM_BYTES];

    (void)state;
    make_slot(11);
    CHECK(cts_slot_unpack(&s, slot, SLOT_BYTES, 11, sum, NULL) == 0);
    CHECK(s.generation == 9 && s.n_parts == 3 && memcmp(s.digest, made.digest, CTS_DIGEST_BYTES) == 0);
    CHECK(memcmp(sum, slot + 96, sizeof(sum)) == 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct cts_slot_part a = parts[i], b = s.parts[i];

        /* The values are exact in every format. */
        CHECK(memcmp(a.values, b.values, cts_slot_part_values(&a) * sizeof(float)) == 0);
        CHECK(a.kind == b.kind && a.layer == b.layer && a.linear == b.linear && a.cluster == b.cluster);
        CHECK(a.n_rows == b.n_rows && a.n_cols == b.n_cols && a.rank == b.rank && a.dtype == b.dtype &&
              a.scale == b.scale);
    }
    cts_slot_free(&s);
}

static void slot_payload_moves_into_the_header_block_only_where_that_saves_a_class(void **state)
{
    struct cts_slot_part   p = { CTS_PART_SIGMA, 0, 0, 0, 1, 1, 0, CTS_F32, 1, NULL };
    struct cts_slot_layout l;

    (void)state;
    p.n_rows = (4096 - 128 - 64) / 4; /* fills the block to the last byte */
    CHECK(cts_slot_layout(&l, &p, 1, NULL) == 0);
    CHECK(l.class_bytes == 4096 && l.payload_off == 128 && l.payload_off + l.payload_bytes == 4096);
    p.n_rows++; /* 8192 either way */
    CHECK(cts_slot_layout(&l, &p, 1, NULL) == 0);
    CHECK(l.class_bytes == 8192 && l.payload_off == 4096);
}

static void slot_refuses_every_flipped_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < SLOT_BYTES; i++) {
        make_slot(11);
        slot[i] ^= 0x10;
        CHECK_MSG(unpack(11, NULL) < 0, "byte %zu was flipped and nobody saw it\n", i);
    }
}

static void slot_is_refused_where_it_was_not_written(void **state)
{
    uint64_t other = 12;

    (void)state;
    make_slot(12);
    check_refused(CTS_EDIGEST, "slot number: it was written as slot 12, it lies here as slot 11");
    other = 11;
    memcpy(slot + 16, &other, 8); /* even with its number rewritten */
    check_refused(CTS_EDIGEST, "checksum");
}

static void put(size_t off, uint64_t v, size_t n)
{
    memcpy(slot + off, &v, n); /* the test runs where the format's byte order is the machine's */
}

/* Fields that lie, under a checksum that is right: each is refused by its name. */
static void slot_names_the_field_that_lies(void **state)
{
    static const size_t T = 128, P1 = 128 + 32; /* the table of parts, its second entry */
    static const struct {
        size_t      off;
        uint64_t    value;
        size_t      bytes;
        int         code;
        const char *want;
    } CASES[] = {
        { 0, 0, 1, CTS_EFORMAT, "magic" },
        { 8, 2, 4, CTS_EVERSION, "version: 2" },
        { 12, 8192, 4, CTS_EFORMAT, "class: 8192" },
        { 72, 256, 4, CTS_EFORMAT, "payload offset: 256" },
        { 72, 4096, 4, CTS_EFORMAT, "payload length" },
        { 64, 3969, 8, CTS_EFORMAT, "payload length: 3969 bytes leave the slot" },
        { 64, UINT64_MAX - 100, 8, CTS_EFORMAT, "payload length" },
        { 64, 95, 8, CTS_EFORMAT, "number of parts: 3" },
        { 76, 0, 4, CTS_EFORMAT, "number of parts: 0" },
        { 76, UINT32_MAX, 4, CTS_EFORMAT, "number of parts" },
        { 80, 1, 1, CTS_EFORMAT, "reserved" },
        { 127, 1, 1, CTS_EFORMAT, "reserved" },
        { T + 0, 3, 2, CTS_EUNSUP, "part 0: kind" },
        { T + 2, 4, 2, CTS_EUNSUP, "part 0: number format 4" },
        { T + 2, 0, 2, CTS_EUNSUP, "part 0: number format 0" },
        { T + 4, 256, 2, CTS_EUNSUP, "part 0: layer" },
        { T + 6, 7, 2, CTS_EUNSUP, "part 0: linear" },
        { T + 6, 6, 2, CTS_EUNSUP, "part 1: not after part 0" },
        { T + 8, UINT32_MAX, 4, CTS_EUNSUP, "part 0: cluster" },
        { P1 + 8, 0, 4, CTS_EUNSUP, "part 1: cluster" },
        { T + 12, 0, 4, CTS_EUNSUP, "part 0: rows" },
        { T + 12, 6, 4, CTS_EFORMAT, "part 1: its values are at" },
        { T + 12, 65536, 4, CTS_EFORMAT, "part 0: its values leave the payload" },
        { T + 16, 65537, 4, CTS_EUNSUP, "part 0: columns" },
        { T + 20, 1, 4, CTS_EUNSUP, "part 0: rank" },
        { P1 + 20, 0, 4, CTS_EUNSUP, "part 1: rank" },
        { P1 + 12, 1 << 24, 4, CTS_EFORMAT, "part 1: its values leave the payload" },
        { T + 24, 0x7fc00000, 4, CTS_EUNSUP, "part 0: scale" },
        { T + 24, 0xbf800000, 4, CTS_EUNSUP, "part 0: scale" },
        { T + 28, 64, 4, CTS_EFORMAT, "part 0: its values are at 64" },
        { T + 28, UINT32_MAX, 4, CTS_EFORMAT, "part 0: its values are at" },
        { T + 96, 1, 1, CTS_EFORMAT, "bytes before part 0 are not zero" },
        { T + 128, 0x7f800000, 4, CTS_EFORMAT, "part 0: value 0 is not finite" },
        { 4095, 1, 1, CTS_EFORMAT, "bytes after the payload are not zero" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        make_slot(11);
        put(CASES[i].off, CASES[i].value, CASES[i].bytes);
        if (CASES[i].code != CTS_EFORMAT || CASES[i].off >= T) seal(11);
        check_refused(CASES[i].code, CASES[i].want);
    }
    make_slot(11);
    seal(11);
    CHECK(unpack(11, NULL) == 0); /* seal itself is right */
}

static void slot_payload_must_end_with_its_last_value(void **state)
{
    uint64_t n;

    (void)state;
    make_slot(11);
    memcpy(&n, slot + 64, 8);
    put(64, n + 1, 8);
    seal(11);
    check_refused(CTS_EFORMAT, "payload length");
}

static void slot_unpack_survives_failure_of_every_allocation(void **state)
{
    int i;

    (void)state;
    make_slot(11);
    for (i = 0; i < 8; i++) {
        fault_after(i);
        int rc = unpack(11, NULL);
        if (rc == 0) break;
        CHECK(rc == -ENOMEM);
    }
    fault_after(-1);
    CHECK(i == 2); /* the parts and their values */
}

/* One line "00000040  48 00 ...  |H...|" of the page: offset and up to 16 bytes. Returns the count, 0 for another
 * line. */
static int parse_dump_line(const char *line, unsigned long *off, uint8_t bytes[16])
{
    char *end;
    int   n = 0;

    for (int i = 0; i < 8; i++)
        if (!isxdigit((unsigned char)line[i])) return 0;
    *off = strtoul(line, &end, 16);
    while (n < 16) {
        unsigned v;
        int      used = 0;

        if (sscanf(end, " %2x%n", &v, &used) != 1) break;
        bytes[n++] = (uint8_t)v;
        end += used;
    }
    return n;
}

static void slot_is_as_the_page_shows_it(void **state)
{
    struct cts_slot_layout l;
    struct cts_slot        s;
    struct cts_slot_part   part;
    float                  v[4];
    uint8_t                sum[CTS_SLOT_CHECKSUM_BYTES], shown[SLOT_BYTES] = { 0 }, bytes[16];
    char                   path[512], line[256];
    unsigned long          off, n_shown = 0;
    FILE                  *f = fopen(src_path(path, sizeof(path), "man/cts-collection.5"), "r");

    (void)state;
    tiny_example_slot(&s, &part, v);
    CHECK(cts_slot_layout(&l, &part, 1, NULL) == 0 && l.class_bytes == SLOT_BYTES);
    cts_slot_pack(slot, &l, 0, &s, sum);
    CHECK(f != NULL);
    while (fgets(line, sizeof(line), f) != NULL) {
        int n = parse_dump_line(line, &off, bytes);

        if (n == 0) continue;
        CHECK(off + (unsigned long)n <= SLOT_BYTES);
        memcpy(shown + off, bytes, (size_t)n); /* what hexdump folds into a star is zero */
        n_shown += (unsigned long)n;
    }
    CHECK(fclose(f) == 0);
    CHECK_MSG(n_shown >= 160, "the page shows %lu bytes\n", n_shown);
    for (int i = 0; i < SLOT_BYTES; i++)
        CHECK_MSG(shown[i] == slot[i], "byte %d: the page shows %02x, the slot has %02x\n", i, shown[i], slot[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slot_classes_are_the_powers_and_three_times_the_powers),
        cmocka_unit_test(slot_comes_back_as_it_was_packed),
        cmocka_unit_test(slot_payload_moves_into_the_header_block_only_where_that_saves_a_class),
        cmocka_unit_test(slot_refuses_every_flipped_byte),
        cmocka_unit_test(slot_is_refused_where_it_was_not_written),
        cmocka_unit_test(slot_names_the_field_that_lies),
        cmocka_unit_test(slot_payload_must_end_with_its_last_value),
        cmocka_unit_test(slot_unpack_survives_failure_of_every_allocation),
        cmocka_unit_test(slot_is_as_the_page_shows_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
