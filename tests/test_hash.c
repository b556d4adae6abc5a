#include "common/hash.h"
#include "tests/check.h"

#include <errno.h>
#include <string.h>

static uint8_t data[1000]; /* i * 7 & 255 */

static void check_blake2b(const void *p, size_t n, const char *want)
{
    struct cts_blake2b h;
    uint8_t            got[CTS_DIGEST_BYTES];
    char               hex[CTS_DIGEST_HEX_BYTES];

    cts_blake2b_init(&h);
    cts_blake2b_add(&h, p, n / 3); /* in pieces: only the stream counts */
    cts_blake2b_add(&h, (const uint8_t *)p + n / 3, n - n / 3);
    cts_blake2b_end(&h, got);
    cts_digest_hex(got, hex);
    CHECK_MSG(strcmp(hex, want) == 0, "%s\n", hex);
}

/* The first two are BLAKE2b's published ones; all agree with Python's hashlib. */
static void blake2b_agrees_with_known_digests(void **state)
{
    (void)state;
    check_blake2b("", 0, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    check_blake2b("abc", 3, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    check_blake2b(data, 1000, "6ac4bea923678eb024090384d6e767b5870f849057dc19b172d8d9f2df30bf8e");
}

static void blake2b_fields_have_unambiguous_ends(void **state)
{
    struct cts_blake2b h;
    uint8_t            ab_c[CTS_DIGEST_BYTES], a_bc[CTS_DIGEST_BYTES], by_hand[CTS_DIGEST_BYTES];

    (void)state;
    cts_blake2b_init(&h);
    cts_blake2b_add_field(&h, "ab", 2);
    cts_blake2b_add_field(&h, "c", 1);
    cts_blake2b_end(&h, ab_c);
    cts_blake2b_init(&h);
    cts_blake2b_add_field(&h, "a", 1);
    cts_blake2b_add_field(&h, "bc", 2);
    cts_blake2b_end(&h, a_bc);
    CHECK(memcmp(ab_c, a_bc, sizeof(ab_c)) != 0);
    cts_blake2b_init(&h);
    cts_blake2b_add(&h, "\2\0\0\0\0\0\0\0ab\1\0\0\0\0\0\0\0c", 19);
    cts_blake2b_end(&h, by_hand);
    CHECK(memcmp(ab_c, by_hand, sizeof(ab_c)) == 0);
}

static void xxh128_agrees_with_known_values(void **state)
{
    static const struct {
        size_t  n;
        uint8_t want[16];
    } CASES[] = {
        { 0, { 0x99, 0xaa, 0x06, 0xd3, 0x01, 0x47, 0x98, 0xd8, 0x60, 0x01, 0xc3, 0x24, 0x46, 0x8d, 0x49, 0x7f } },
        { 1000,
          { 0xab, 0xee, 0x22, 0x9c, 0xda, 0xda, 0xd7, 0x6d, 0x10, 0xad, 0x30, 0x26, 0x44, 0x26, 0xc8, 0x30 } },
    };
    uint8_t got[16];

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++)
        for (size_t cut = 0; cut <= CASES[i].n; cut += 125) {
            cts_xxh128(data, cut, data + cut, CASES[i].n - cut, got);
            CHECK(memcmp(got, CASES[i].want, sizeof(got)) == 0);
        }
}

static void digest_hex_goes_both_ways_and_refuses_the_rest(void **state)
{
    static const char *const BAD[] = { "", "00", "zz" };
    uint8_t                  d[CTS_DIGEST_BYTES], back[CTS_DIGEST_BYTES];
    char                     hex[CTS_DIGEST_HEX_BYTES + 1];

    (void)state;
    for (int i = 0; i < CTS_DIGEST_BYTES; i++) d[i] = (uint8_t)(i * 37);
    cts_digest_hex(d, hex);
    CHECK(strlen(hex) == 64 && cts_digest_from_hex(hex, back) == 0 && memcmp(d, back, sizeof(d)) == 0);
    for (size_t i = 0; i < 3; i++) CHECK(cts_digest_from_hex(BAD[i], back) == -EINVAL);
    hex[63] = 'g';
    CHECK(cts_digest_from_hex(hex, back) == -EINVAL);
    hex[63] = '\0';
    CHECK(cts_digest_from_hex(hex, back) == -EINVAL);
    strcat(hex, "00");
    CHECK(cts_digest_from_hex(hex, back) == -EINVAL);
    CHECK(memcmp(d, back, sizeof(d)) == 0); /* untouched */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blake2b_agrees_with_known_digests),
        cmocka_unit_test(blake2b_fields_have_unambiguous_ends),
        cmocka_unit_test(xxh128_agrees_with_known_values),
        cmocka_unit_test(digest_hex_goes_both_ways_and_refuses_the_rest),
    };

    for (size_t i = 0; i < sizeof(data); i++) data[i] = (uint8_t)(i * 7);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
