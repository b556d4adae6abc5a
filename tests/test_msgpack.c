#include "proto/msgpack.h"

#include "common/err.h"
#include "tests/check.h"

#include <errno.h>
#include <math.h>
#include <msgpack.h>
#include <string.h>

static int check(const char *bytes, size_t n)
{
    return cts_mp_check(bytes, n, CTS_MP_OBJECTS_MAX);
}
#define BYTES(s) (s), sizeof(s) - 1

/* One frame with every type in it. */
static void put_sample(struct cts_buf *b)
{
    struct cts_mpw w = { b, 0 };
    static char    long_text[70000];

    memset(long_text, 'y', sizeof(long_text));
    cts_mpw_map(&w, 8);
    cts_mpw_str(&w, "nil");
    cts_mpw_nil(&w);
    cts_mpw_str(&w, "bool");
    cts_mpw_bool(&w, 1);
    cts_mpw_str(&w, "ints");
    cts_mpw_array(&w, 20);
    for (int i = 0; i < 10; i++) {
        cts_mpw_int(&w, (int64_t)-(UINT64_C(1) << (i * 7)));
        cts_mpw_u64(&w, UINT64_C(1) << (i * 7));
    }
    cts_mpw_str(&w, "reals");
    cts_mpw_array(&w, 3);
    cts_mpw_real(&w, 0.5);
    cts_mpw_real(&w, 0.1);
    cts_mpw_real(&w, -INFINITY);
    cts_mpw_str(&w, "short");
    cts_mpw_str(&w, "gr\xc3\xbc\xc3\x9f");
    cts_mpw_str(&w, "middle");
    cts_mpw_strn(&w, long_text, 300);
    cts_mpw_str(&w, "long");
    cts_mpw_strn(&w, long_text, sizeof(long_text));
    cts_mpw_str(&w, "empty");
    cts_mpw_map(&w, 0);
    CHECK(w.rc == 0);
}

static void check_takes_what_the_writer_writes_and_nothing_shorter(void **state)
{
    struct cts_buf b = CTS_BUF(1 << 20);

    (void)state;
    put_sample(&b);
    CHECK(check((char *)b.ptr, b.len) == 0);
    for (size_t n = 0; n < b.len; n++) {
        /* An exact copy, so that a sanitizer sees a read past the cut. */
        char *cut = malloc(n + !n);

        memcpy(cut, b.ptr, n);
        CHECK(check(cut, n) == CTS_EPROTO);
        free(cut);
        if (n == 600) n = b.len - 600; /* the middle is one long string */
    }
    CHECK(cts_buf_put(&b, "\xc0", 1) == 0);
    CHECK(check((char *)b.ptr, b.len) == CTS_EPROTO); /* trailing bytes */
    cts_buf_deinit(&b);
}

static void msgpack_c_reads_what_the_writer_writes(void **state)
{
    struct cts_buf        b = CTS_BUF(1 << 20);
    msgpack_unpacked      u;
    const msgpack_object *o;

    (void)state;
    put_sample(&b);
    msgpack_unpacked_init(&u);
    CHECK(msgpack_unpack_next(&u, (char *)b.ptr, b.len, NULL) == MSGPACK_UNPACK_SUCCESS);
    CHECK(u.data.type == MSGPACK_OBJECT_MAP && u.data.via.map.size == 8);
    o = &u.data.via.map.ptr[2].val;
    CHECK(o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size == 20);
    CHECK(o->via.array.ptr[18].via.i64 == INT64_MIN);
    CHECK(o->via.array.ptr[19].via.u64 == UINT64_C(1) << 63);
    CHECK(u.data.via.map.ptr[6].val.via.str.size == 70000);
    msgpack_unpacked_destroy(&u);
    cts_buf_deinit(&b);
}

static void the_cursor_reads_what_msgpack_c_writes(void **state)
{
    msgpack_sbuffer s;
    msgpack_packer  pk;
    struct cts_mp   c;
    int64_t         v;
    uint64_t        u;
    uint32_t        n;
    double          d;

    (void)state;
    msgpack_sbuffer_init(&s);
    msgpack_packer_init(&pk, &s, msgpack_sbuffer_write);
    msgpack_pack_array(&pk, 2 * 64 + 2);
    for (int i = 0; i < 64; i++) {
        msgpack_pack_int64(&pk, (int64_t)(UINT64_C(1) << i));
        msgpack_pack_int64(&pk, -(int64_t)((UINT64_C(1) << i) >> 1));
    }
    msgpack_pack_float(&pk, 1.5f);
    msgpack_pack_double(&pk, 0.1);
    CHECK(check(s.data, s.size) == 0);
    c = (struct cts_mp){ (uint8_t *)s.data, (uint8_t *)s.data + s.size };
    CHECK(cts_mp_array(&c, &n) == 0 && n == 130);
    for (int i = 0; i < 64; i++) {
        CHECK(cts_mp_int(&c, INT64_MIN, INT64_MAX, &v) == 0 && v == (int64_t)(UINT64_C(1) << i));
        CHECK(cts_mp_int(&c, INT64_MIN, INT64_MAX, &v) == 0 && v == -(int64_t)((UINT64_C(1) << i) >> 1));
    }
    CHECK(cts_mp_u64(&c, &u) == CTS_EARG);
    CHECK(cts_mp_real(&c, &d) == 0 && d == 1.5);
    CHECK(cts_mp_real(&c, &d) == 0 && d == 0.1);
    CHECK(cts_mp_type(&c) == CTS_MP_END);
    msgpack_sbuffer_destroy(&s);
}

/* The frame that makes msgpack-c reserve 2 GB, and its kin. */
static void check_refuses_counts_and_lengths_that_lie(void **state)
{
    (void)state;
    CHECK(check(BYTES("\xdd\x04\x00\x00\x00")) == CTS_EPROTO);
    CHECK(check(BYTES("\xdd\xff\xff\xff\xff")) == CTS_EPROTO);
    CHECK(check(BYTES("\xdf\xff\xff\xff\xff")) == CTS_EPROTO);
    CHECK(check(BYTES("\xdf\x80\x00\x00\x00")) == CTS_EPROTO);
    CHECK(check(BYTES("\xdb\xff\xff\xff\xff")) == CTS_EPROTO);
    CHECK(check(BYTES("\xc6\xff\xff\xff\xffx")) == CTS_EPROTO);
    CHECK(check(BYTES("\xd9\x05" "abcd")) == CTS_EPROTO);
    CHECK(check(BYTES("\xdc\x00\x02\xc0")) == CTS_EPROTO);
    CHECK(check(BYTES("")) == CTS_EPROTO);
    CHECK(check(BYTES("\xc0")) == 0);
}

static void check_refuses_depth_past_the_limit_and_takes_the_limit(void **state)
{
    char deep[64];

    (void)state;
    memset(deep, '\x91', sizeof(deep)); /* arrays of one */
    deep[CTS_MP_DEPTH_MAX] = '\x01';
    CHECK(check(deep, CTS_MP_DEPTH_MAX + 1) == 0);
    memset(deep, '\x91', sizeof(deep));
    deep[CTS_MP_DEPTH_MAX + 1] = '\x01';
    CHECK(check(deep, CTS_MP_DEPTH_MAX + 2) == CTS_EPROTO);
}

static void check_counts_objects(void **state)
{
    (void)state;
    CHECK(cts_mp_check("\x93\x01\x02\x03", 4, 4) == 0);
    CHECK(cts_mp_check("\x93\x01\x02\x03", 4, 3) == CTS_EPROTO);
}

static void check_refuses_keys_that_repeat_or_are_no_strings(void **state)
{
    (void)state;
    CHECK(check(BYTES("\x82\xa1" "a\x01\xa1" "b\x02")) == 0);
    CHECK(check(BYTES("\x82\xa1" "a\x01\xa1" "a\x02")) == CTS_EPROTO);
    CHECK(check(BYTES("\x82\xa1" "a\x01\xd9\x01" "a\x02")) == CTS_EPROTO);   /* spelled otherwise */
    CHECK(check(BYTES("\x82\xa1" "a\x81\xa1" "a\x01\xa1" "b\x02")) == 0);    /* the inner a is another map's */
    CHECK(check(BYTES("\x82\xa1" "a\x92\xa1" "b\x01\xa1" "b\x02")) == 0);    /* a value is no key */
    CHECK(check(BYTES("\x82\xa1" "a\x81\xa1" "c\x01\xa1" "a\x02")) == CTS_EPROTO); /* after an inner map */
    CHECK(check(BYTES("\x81\x01\x02")) == CTS_EPROTO);
    CHECK(check(BYTES("\x81\xc0\x02")) == CTS_EPROTO);
}

static void check_bounds_pairs_and_keys_of_a_map(void **state)
{
    struct cts_buf b = CTS_BUF(1 << 20);
    char           key[CTS_MP_KEY_BYTES_MAX + 1];

    (void)state;
    for (uint32_t n = CTS_MP_PAIRS_MAX; n <= CTS_MP_PAIRS_MAX + 1; n++) {
        struct cts_mpw w = { &b, 0 };

        b.len = 0;
        cts_mpw_map(&w, n);
        for (uint32_t i = 0; i < n; i++) {
            snprintf(key, sizeof(key), "%u", i);
            cts_mpw_str(&w, key);
            cts_mpw_u64(&w, i);
        }
        CHECK(check((char *)b.ptr, b.len) == (n <= CTS_MP_PAIRS_MAX ? 0 : CTS_EPROTO));
    }
    memset(key, 'k', sizeof(key));
    for (uint32_t n = CTS_MP_KEY_BYTES_MAX; n <= CTS_MP_KEY_BYTES_MAX + 1; n++) {
        struct cts_mpw w = { &b, 0 };

        b.len = 0;
        cts_mpw_map(&w, 1);
        cts_mpw_strn(&w, key, n);
        cts_mpw_nil(&w);
        CHECK(check((char *)b.ptr, b.len) == (n <= CTS_MP_KEY_BYTES_MAX ? 0 : CTS_EPROTO));
    }
    cts_buf_deinit(&b);
}

static void check_refuses_bad_utf8_ext_types_and_the_unused_byte(void **state)
{
    (void)state;
    CHECK(check(BYTES("\xa2\xc3\xa9")) == 0);
    CHECK(check(BYTES("\xa1\xc3")) == CTS_EPROTO);
    CHECK(check(BYTES("\xa2\xc0\x80")) == CTS_EPROTO);
    CHECK(check(BYTES("\xc4\x01\xff")) == 0); /* bin may hold anything */
    CHECK(check(BYTES("\xc1")) == CTS_EPROTO);
    CHECK(check(BYTES("\xd4\x01\x02")) == CTS_EPROTO);
    CHECK(check(BYTES("\xc7\x01\x01\x02")) == CTS_EPROTO);
    CHECK(check(BYTES("\xd8\x01" "0123456789abcdef")) == CTS_EPROTO);
}

/* Whatever one byte becomes, the check ends, and what it takes can be skipped whole. */
static void check_and_skip_agree_for_every_single_byte_change(void **state)
{
    struct cts_buf b = CTS_BUF(1 << 20);
    uint32_t       n_taken = 0;

    (void)state;
    put_sample(&b);
    b.len = 0; /* a shorter one */
    {
        struct cts_mpw w = { &b, 0 };

        cts_mpw_map(&w, 3);
        cts_mpw_str(&w, "id");
        cts_mpw_u64(&w, 300);
        cts_mpw_str(&w, "method");
        cts_mpw_str(&w, "ring.open");
        cts_mpw_str(&w, "params");
        cts_mpw_map(&w, 1);
        cts_mpw_str(&w, "x");
        cts_mpw_real(&w, 0.1);
    }
    for (size_t i = 0; i < b.len; i++) {
        uint8_t old = b.ptr[i];

        for (int v = 0; v < 256; v++) {
            struct cts_mp c = { b.ptr, b.ptr + b.len };

            b.ptr[i] = (uint8_t)v;
            if (check((char *)b.ptr, b.len) < 0) continue;
            n_taken++;
            CHECK(cts_mp_skip(&c) == 0);
            CHECK(c.ptr == c.end);
        }
        b.ptr[i] = old;
    }
    CHECK(n_taken > b.len); /* among them each string's letters */
    cts_buf_deinit(&b);
}

static void the_cursor_stays_where_it_is_when_the_type_is_wrong(void **state)
{
    static const uint8_t INT[] = { 0xd0, 0xf6 }, STR[] = { 0xa1, 'x' }, BIG[] = { 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0 };
    struct cts_mp        i = { INT, INT + 2 }, s = { STR, STR + 2 }, b = { BIG, BIG + 9 };
    struct cts_span      span;
    int64_t              v;
    uint64_t             u;
    uint32_t             n;
    double               d;
    int                  t;

    (void)state;
    CHECK(cts_mp_str(&i, &span) == CTS_EARG && cts_mp_bool(&i, &t) == CTS_EARG && cts_mp_nil(&i) == CTS_EARG);
    CHECK(cts_mp_array(&i, &n) == CTS_EARG && cts_mp_map(&i, &n) == CTS_EARG && cts_mp_u64(&i, &u) == CTS_EARG);
    CHECK(cts_mp_int(&i, -9, 0, &v) == CTS_EARG && cts_mp_int(&i, -20, -11, &v) == CTS_EARG);
    CHECK(i.ptr == INT);
    CHECK(cts_mp_int(&i, -10, -10, &v) == 0 && v == -10 && i.ptr == i.end);
    CHECK(cts_mp_real(&s, &d) == CTS_EARG && cts_mp_int(&s, 0, 1, &v) == CTS_EARG && s.ptr == STR);
    i.ptr = INT;
    CHECK(cts_mp_real(&i, &d) == 0 && d == -10);
    CHECK(cts_mp_int(&b, INT64_MIN, INT64_MAX, &v) == CTS_EARG); /* 2^63 is no int64 */
    CHECK(cts_mp_u64(&b, &u) == 0 && u == UINT64_C(1) << 63);
}

static void find_looks_in_this_map_only(void **state)
{
    static const char FRAME[] = "\x83\xa1" "a\x81\xa1" "c\x01\xa1" "b\xa1" "c\xa1" "c\x07";
    struct cts_mp     c = { (const uint8_t *)FRAME, (const uint8_t *)FRAME + sizeof(FRAME) - 1 }, v;
    int64_t           i;

    (void)state;
    CHECK(check(FRAME, sizeof(FRAME) - 1) == 0);
    CHECK(cts_mp_find(c, "c", &v) == 1);
    CHECK(cts_mp_int(&v, 0, 9, &i) == 0 && i == 7);
    CHECK(cts_mp_find(c, "d", &v) == 0);
    CHECK(cts_mp_find(v, "c", &v) == 0); /* no map */
}

static void the_writer_keeps_its_first_failure(void **state)
{
    struct cts_buf b = CTS_BUF(8);
    struct cts_mpw w = { &b, 0 };

    (void)state;
    cts_mpw_str(&w, "too long for it");
    CHECK(w.rc == -EMSGSIZE);
    cts_mpw_nil(&w);
    CHECK(w.rc == -EMSGSIZE && b.len <= 1);
    cts_buf_deinit(&b);
}

static void text_becomes_utf8_whatever_it_was(void **state)
{
    struct cts_buf  b = CTS_BUF(64);
    struct cts_mpw  w = { &b, 0 };
    struct cts_mp   c;
    struct cts_span s;

    (void)state;
    cts_mpw_text(&w, "a\xff\xc3\xa9\xc3");
    CHECK(w.rc == 0 && check((char *)b.ptr, b.len) == 0);
    c = (struct cts_mp){ b.ptr, b.ptr + b.len };
    CHECK(cts_mp_str(&c, &s) == 0 && cts_span_is(s, "a?\xc3\xa9?"));
    cts_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_takes_what_the_writer_writes_and_nothing_shorter),
        cmocka_unit_test(msgpack_c_reads_what_the_writer_writes),
        cmocka_unit_test(the_cursor_reads_what_msgpack_c_writes),
        cmocka_unit_test(check_refuses_counts_and_lengths_that_lie),
        cmocka_unit_test(check_refuses_depth_past_the_limit_and_takes_the_limit),
        cmocka_unit_test(check_counts_objects),
        cmocka_unit_test(check_refuses_keys_that_repeat_or_are_no_strings),
        cmocka_unit_test(check_bounds_pairs_and_keys_of_a_map),
        cmocka_unit_test(check_refuses_bad_utf8_ext_types_and_the_unused_byte),
        cmocka_unit_test(check_and_skip_agree_for_every_single_byte_change),
        cmocka_unit_test(the_cursor_stays_where_it_is_when_the_type_is_wrong),
        cmocka_unit_test(find_looks_in_this_map_only),
        cmocka_unit_test(the_writer_keeps_its_first_failure),
        cmocka_unit_test(text_becomes_utf8_whatever_it_was),
    };

    return cmocka_run_group_tests_name("msgpack", tests, NULL, NULL);
}
