#include "common/dtype.h"
#include "tests/check.h"

#include <math.h>
#include <string.h>

static float widen(uint16_t h, enum cts_dtype t)
{
    float f;

    cts_dtype_widen(&f, &h, 1, t);
    return f;
}

static uint16_t narrow(float f, enum cts_dtype t)
{
    uint16_t h;

    cts_dtype_narrow(&h, &f, 1, t);
    return h;
}

/* The value of a half by its definition. */
static float f16_by_the_book(uint16_t h)
{
    int   expo = h >> 10 & 31;
    float mant = (float)(h & 1023), v;

    if (expo == 31) v = mant != 0 ? NAN : INFINITY;
    else v = expo == 0 ? ldexpf(mant, -24) : ldexpf(1024 + mant, expo - 25);
    return h & 0x8000 ? -v : v;
}

static void f16_widens_exactly(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float got = widen((uint16_t)h, CTS_F16), want = f16_by_the_book((uint16_t)h);
        CHECK(isnan(want) ? isnan(got) : got == want && signbit(got) == signbit(want));
    }
}

static void every_16_bit_value_survives_the_round_trip(void **state)
{
    static const enum cts_dtype TYPES[] = { CTS_F16, CTS_BF16 };

    (void)state;
    for (int k = 0; k < 2; k++)
        for (uint32_t h = 0; h < 65536; h++) {
            float f = widen((uint16_t)h, TYPES[k]);
            if (isnan(f)) CHECK(isnan(widen(narrow(f, TYPES[k]), TYPES[k])));
            else CHECK(narrow(f, TYPES[k]) == h);
        }
}

/* Between two neighbours: the middle goes to the even one, what is beside it to the nearer. */
static void check_between(uint16_t lo, enum cts_dtype t, float middle)
{
    uint16_t hi = (uint16_t)(lo + 1);

    CHECK(narrow(middle, t) == (lo & 1 ? hi : lo));
    CHECK(narrow(nextafterf(middle, 0), t) == lo);
    CHECK(narrow(nextafterf(middle, INFINITY), t) == hi);
    CHECK(narrow(-middle, t) == (0x8000 | (lo & 1 ? hi : lo)));
    CHECK(narrow(-nextafterf(middle, 0), t) == (0x8000 | lo));
    CHECK(narrow(-nextafterf(middle, INFINITY), t) == (0x8000 | hi));
}

static void narrowing_rounds_to_nearest_and_ties_to_even(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7bff; h++)
        check_between(h, CTS_F16, (widen(h, CTS_F16) + widen((uint16_t)(h + 1), CTS_F16)) / 2);
    check_between(0x7bff, CTS_F16, 65520); /* half way to what would be 65536: infinity */
    for (uint32_t h = 0; h < 0x7f80; h++) {
        uint32_t bits = h << 16 | 0x8000;
        float    middle;
        memcpy(&middle, &bits, sizeof(middle));
        check_between((uint16_t)h, CTS_BF16, middle);
    }
}

static void special_values_keep_their_meaning(void **state)
{
    uint32_t bits = 0x7f800001; /* a NaN whose upper bits alone would be an infinity */
    float    nan_low;

    (void)state;
    memcpy(&nan_low, &bits, sizeof(nan_low));
    CHECK(narrow(INFINITY, CTS_F16) == 0x7c00 && narrow(-INFINITY, CTS_F16) == 0xfc00);
    CHECK(narrow(INFINITY, CTS_BF16) == 0x7f80 && narrow(-INFINITY, CTS_BF16) == 0xff80);
    CHECK(narrow(3e38f, CTS_F16) == 0x7c00 && narrow(0x1p-149f, CTS_F16) == 0 && narrow(-0.0f, CTS_F16) == 0x8000);
    CHECK(isnan(widen(narrow(nan_low, CTS_F16), CTS_F16)) && isnan(widen(narrow(nan_low, CTS_BF16), CTS_BF16)));
}

static void f32_passes_through_and_any_alignment_will_do(void **state)
{
    float   x[5] = { 1.5f, -0.0f, 3e-39f, INFINITY, 7 }, y[5];
    uint8_t raw[21];

    (void)state;
    cts_dtype_narrow(raw + 1, x, 5, CTS_F32);
    cts_dtype_widen(y, raw + 1, 5, CTS_F32);
    CHECK(memcmp(x, y, sizeof(x)) == 0);
    cts_dtype_narrow(raw + 1, x, 2, CTS_F16);
    CHECK(memcmp(raw + 1, "\x00\x3e\x00\x80", 4) == 0); /* little endian */
    cts_dtype_widen(y, raw + 1, 2, CTS_F16);
    CHECK(memcmp(x, y, 8) == 0);
}

static void names_and_sizes_are_those_of_safetensors(void **state)
{
    (void)state;
    CHECK(cts_dtype_bytes(CTS_F32) == 4 && cts_dtype_bytes(CTS_F16) == 2 && cts_dtype_bytes(CTS_BF16) == 2);
    CHECK(cts_dtype_bytes((enum cts_dtype)0) == 0 && cts_dtype_bytes((enum cts_dtype)4) == 0);
    CHECK(strcmp(cts_dtype_name(CTS_BF16), "BF16") == 0 && cts_dtype_name((enum cts_dtype)9) == NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_widens_exactly),
        cmocka_unit_test(every_16_bit_value_survives_the_round_trip),
        cmocka_unit_test(narrowing_rounds_to_nearest_and_ties_to_even),
        cmocka_unit_test(special_values_keep_their_meaning),
        cmocka_unit_test(f32_passes_through_and_any_alignment_will_do),
        cmocka_unit_test(names_and_sizes_are_those_of_safetensors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
