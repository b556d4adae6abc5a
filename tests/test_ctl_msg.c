#include "proto/ctl_msg.h"

#include "tests/check.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct cts_buf buf = CTS_BUF(1 << 20);

/* ---- generate ---- */

/* A value for one key, written by the case. */
typedef void (*put_fn)(struct cts_mpw *w);

/* Decode {"prompt": "hi", key: value}; key may be NULL. */
static int decode_with(const char *key, put_fn put, struct cts_gen_msg *m, char *param, struct cts_err *err)
{
    struct cts_mpw w = { &buf, 0 };
    struct cts_mp  c;

    buf.len = 0;
    cts_mpw_map(&w, key != NULL ? 2 : 1);
    cts_mpw_str(&w, "prompt");
    cts_mpw_str(&w, "hi");
    if (key != NULL) {
        cts_mpw_str(&w, key);
        put(&w);
    }
    CHECK(w.rc == 0 && cts_mp_check(buf.ptr, buf.len, 1000) == 0);
    c = (struct cts_mp){ buf.ptr, buf.ptr + buf.len };
    return cts_gen_decode(&c, m, param, err);
}

static void put_nil(struct cts_mpw *w) { cts_mpw_nil(w); }
static void put_zero(struct cts_mpw *w) { cts_mpw_int(w, 0); }
static void put_minus(struct cts_mpw *w) { cts_mpw_int(w, -1); }
static void put_two(struct cts_mpw *w) { cts_mpw_int(w, 2); }
static void put_huge(struct cts_mpw *w) { cts_mpw_u64(w, UINT64_MAX); }
static void put_half(struct cts_mpw *w) { cts_mpw_real(w, 0.5); }
static void put_nan(struct cts_mpw *w) { cts_mpw_real(w, NAN); }
static void put_101(struct cts_mpw *w) { cts_mpw_real(w, 101); }
static void put_21(struct cts_mpw *w) { cts_mpw_int(w, 21); }
static void put_word(struct cts_mpw *w) { cts_mpw_str(w, "x"); }
static void put_empty_array(struct cts_mpw *w) { cts_mpw_array(w, 0); }

static void put_array_of(struct cts_mpw *w, uint32_t n, put_fn put)
{
    cts_mpw_array(w, n);
    for (uint32_t i = 0; i < n; i++) put(w);
}
static void put_words(struct cts_mpw *w) { put_array_of(w, 2, put_word); }
static void put_nine_words(struct cts_mpw *w) { put_array_of(w, CTS_GEN_STOP_MAX + 1, put_word); }
static void put_17_ids(struct cts_mpw *w) { put_array_of(w, CTS_GEN_STOP_TOKENS_MAX + 1, put_two); }
static void put_minus_ids(struct cts_mpw *w) { put_array_of(w, 2, put_minus); }
static void put_huge_ids(struct cts_mpw *w) { put_array_of(w, 2, put_huge); }

static void put_empty_word(struct cts_mpw *w)
{
    cts_mpw_array(w, 1);
    cts_mpw_str(w, "");
}

static void put_long_word(struct cts_mpw *w)
{
    char text[CTS_GEN_STOP_BYTES_MAX + 1];

    memset(text, 'x', sizeof(text));
    cts_mpw_array(w, 1);
    cts_mpw_strn(w, text, sizeof(text));
}

static void put_message_without_role(struct cts_mpw *w)
{
    cts_mpw_array(w, 1);
    cts_mpw_map(w, 1);
    cts_mpw_str(w, "content");
    cts_mpw_str(w, "x");
}

static void put_message_with_more(struct cts_mpw *w)
{
    cts_mpw_array(w, 1);
    cts_mpw_map(w, 3);
    cts_mpw_str(w, "content");
    cts_mpw_str(w, "x");
    cts_mpw_str(w, "role");
    cts_mpw_str(w, "user");
    cts_mpw_str(w, "name");
    cts_mpw_str(w, "x");
}

static void generate_names_each_key_that_is_wrong(void **state)
{
    static const struct {
        const char *key;
        put_fn      put;
    } CASES[] = {
        { "adapter", put_zero },      { "tokens", put_word },       { "tokens", put_empty_array },
        { "tokens", put_minus_ids },  { "tokens", put_huge_ids },   { "tokens", put_words },
        { "messages", put_word },     { "messages", put_empty_array }, { "messages", put_words },
        { "messages", put_message_without_role }, { "messages", put_message_with_more },
        { "max_tokens", put_zero },   { "max_tokens", put_huge },   { "max_tokens", put_half },
        { "temperature", put_minus }, { "temperature", put_nan },   { "temperature", put_101 },
        { "temperature", put_word },  { "top_p", put_zero },        { "top_p", put_two },
        { "top_p", put_nan },         { "top_k", put_minus },       { "top_k", put_huge },
        { "seed", put_minus },        { "seed", put_half },         { "stop", put_word },
        { "stop", put_nine_words },   { "stop", put_empty_word },   { "stop", put_long_word },
        { "stop_tokens", put_17_ids }, { "stop_tokens", put_minus_ids }, { "logprobs", put_minus },
        { "logprobs", put_21 },       { "text", put_zero },         { "special", put_nil },
        { "timeout_ms", put_zero },   { "timeout_ms", put_huge },   { "no_such_key", put_zero },
    };
    struct cts_gen_msg m;

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        char           param[CTS_PARAM_BYTES] = "?";
        struct cts_err err = { 0 };

        CHECK_MSG(decode_with(CASES[i].key, CASES[i].put, &m, param, &err) == CTS_EARG, "case %zu: %s\n", i,
                  CASES[i].key);
        CHECK_MSG(strcmp(param, CASES[i].key) == 0, "case %zu: %s named, not %s\n", i, param, CASES[i].key);
        CHECK_MSG(strstr(err.text, CASES[i].key) != NULL, "case %zu: '%s'\n", i, err.text);
    }
}

static void generate_takes_every_key_at_once(void **state)
{
    struct cts_mpw     w = { &buf, 0 };
    struct cts_gen_msg m;
    struct cts_mp      c;
    struct cts_span    s, role;
    char               param[CTS_PARAM_BYTES];
    struct cts_err     err;
    int64_t            id;

    (void)state;
    buf.len = 0;
    cts_mpw_map(&w, 13);
    cts_mpw_str(&w, "messages");
    cts_mpw_array(&w, 2);
    for (int i = 0; i < 2; i++) {
        cts_mpw_map(&w, 2);
        cts_mpw_str(&w, i == 0 ? "content" : "role");
        cts_mpw_str(&w, i == 0 ? "be brief" : "user");
        cts_mpw_str(&w, i == 0 ? "role" : "content");
        cts_mpw_str(&w, i == 0 ? "system" : "hi");
    }
    cts_mpw_str(&w, "adapter"), cts_mpw_str(&w, "case/upper");
    cts_mpw_str(&w, "max_tokens"), cts_mpw_int(&w, 7);
    cts_mpw_str(&w, "temperature"), cts_mpw_int(&w, 1); /* an integer is a number */
    cts_mpw_str(&w, "top_p"), cts_mpw_real(&w, 0.25);
    cts_mpw_str(&w, "top_k"), cts_mpw_int(&w, 0);
    cts_mpw_str(&w, "seed"), cts_mpw_u64(&w, UINT64_MAX);
    cts_mpw_str(&w, "stop"), put_words(&w);
    cts_mpw_str(&w, "stop_tokens"), put_array_of(&w, CTS_GEN_STOP_TOKENS_MAX, put_two);
    cts_mpw_str(&w, "logprobs"), cts_mpw_int(&w, 5);
    cts_mpw_str(&w, "text"), cts_mpw_bool(&w, 0);
    cts_mpw_str(&w, "special"), cts_mpw_bool(&w, 0);
    cts_mpw_str(&w, "timeout_ms"), cts_mpw_int(&w, 250);
    CHECK(w.rc == 0);
    c = (struct cts_mp){ buf.ptr, buf.ptr + buf.len };
    CHECK(cts_gen_decode(&c, &m, param, &err) == 0);
    CHECK(c.ptr == c.end && param[0] == '\0');
    CHECK(m.prompt.ptr == NULL && m.n_tokens == 0 && m.n_messages == 2 && cts_span_is(m.adapter, "case/upper"));
    cts_gen_next_message(&m.messages, &role, &s);
    CHECK(cts_span_is(role, "system") && cts_span_is(s, "be brief"));
    cts_gen_next_message(&m.messages, &role, &s);
    CHECK(cts_span_is(role, "user") && cts_span_is(s, "hi"));
    CHECK(m.max_tokens == 7 && m.temperature == 1 && m.top_p == 0.25 && m.top_k == 0);
    CHECK(m.has_seed && m.seed == UINT64_MAX && m.n_logprobs == 5);
    CHECK(!m.want_text && !m.parse_special && m.timeout_ms == 250);
    CHECK(m.n_stop == 2 && cts_mp_str(&m.stop, &s) == 0 && cts_span_is(s, "x"));
    CHECK(m.n_stop_tokens == CTS_GEN_STOP_TOKENS_MAX && cts_mp_int(&m.stop_tokens, 0, 9, &id) == 0 && id == 2);
}

static void generate_has_defaults(void **state)
{
    struct cts_gen_msg m;
    char               param[CTS_PARAM_BYTES];

    (void)state;
    CHECK(decode_with(NULL, NULL, &m, param, NULL) == 0);
    CHECK(cts_span_is(m.prompt, "hi") && m.adapter.ptr == NULL && m.max_tokens == 0);
    CHECK(m.temperature < 0 && m.top_p < 0 && m.top_k < 0 && !m.has_seed && m.n_logprobs == -1);
    CHECK(m.want_text == 1 && m.parse_special == 1 && m.timeout_ms == 0 && m.n_stop == 0 && m.n_stop_tokens == 0);
}

static void put_ids(struct cts_mpw *w) { put_array_of(w, 3, put_two); }

static void generate_wants_exactly_one_source(void **state)
{
    struct cts_gen_msg m;
    char               param[CTS_PARAM_BYTES];
    struct cts_err     err = { 0 };
    struct cts_mp      c = { (const uint8_t *)"\x80", (const uint8_t *)"\x80" + 1 };

    (void)state;
    CHECK(decode_with("tokens", put_ids, &m, param, &err) == CTS_EARG);
    CHECK(strcmp(param, "prompt") == 0 && strstr(err.text, "only one") != NULL);
    CHECK(cts_gen_decode(&c, &m, param, &err) == CTS_EARG);
    CHECK(strcmp(param, "prompt") == 0);
    c = (struct cts_mp){ (const uint8_t *)"\x90", (const uint8_t *)"\x90" + 1 };
    CHECK(cts_gen_decode(&c, &m, param, &err) == CTS_EARG); /* no map */
    CHECK(param[0] == '\0');
}

static void a_long_unknown_key_is_named_as_far_as_it_fits_in_whole_characters(void **state)
{
    struct cts_gen_msg m;
    char               param[CTS_PARAM_BYTES];

    (void)state;
    CHECK(decode_with("0123456789012345678901234567\xe2\x82\xac\xe2\x82\xac", put_zero, &m, param, NULL) == CTS_EARG);
    CHECK(strcmp(param, "0123456789012345678901234567\xe2\x82\xac") == 0);
    CHECK(decode_with("01234567890123456789012345678\xe2\x82\xac", put_zero, &m, param, NULL) == CTS_EARG);
    CHECK(strcmp(param, "01234567890123456789012345678") == 0);
}

/* ---- frames, requests, replies ---- */

static void frame_lengths_are_bounded(void **state)
{
    (void)state;
    CHECK(cts_frame_bytes((const uint8_t *)"\0\0\0", 3) == 0);
    CHECK(cts_frame_bytes((const uint8_t *)"\0\0\0\0", 4) == CTS_EPROTO);
    CHECK(cts_frame_bytes((const uint8_t *)"\0\0\0\5", 4) == 9);
    CHECK(cts_frame_bytes((const uint8_t *)"\0\x40\0\0", 4) == 4 + CTS_CTL_MESSAGE_MAX);
    CHECK(cts_frame_bytes((const uint8_t *)"\0\x40\0\1", 4) == CTS_EPROTO);
    CHECK(cts_frame_bytes((const uint8_t *)"\xff\xff\xff\xff", 4) == CTS_EPROTO);
}

static void a_half_written_frame_is_dropped(void **state)
{
    struct cts_buf b = CTS_BUF(40);
    struct cts_mpw w = { &b, 0 };
    size_t         begin;

    (void)state;
    begin = cts_frame_begin(&w);
    cts_mpw_str(&w, "first");
    CHECK(cts_frame_end(&w, begin) == 0 && b.len == 10);
    CHECK(memcmp(b.ptr, "\0\0\0\6\xa5" "first", 10) == 0);
    begin = cts_frame_begin(&w);
    cts_mpw_str(&w, "fits");
    cts_mpw_str(&w, "this does not fit into it any more");
    CHECK(cts_frame_end(&w, begin) == -EMSGSIZE && b.len == 10);
    cts_buf_deinit(&b);
}

static int request(const char *bytes, size_t n, struct cts_ctl_request *r)
{
    return cts_ctl_request_decode(bytes, n, r);
}
#define BYTES(s) (s), sizeof(s) - 1

static void request_heads_are_exactly_id_method_and_params(void **state)
{
    struct cts_ctl_request r;
    uint32_t               n;

    (void)state;
    CHECK(request(BYTES("\x82\xa2id\x05\xa6method\xa2ls"), &r) == 0);
    CHECK(r.id == 5 && cts_span_is(r.method, "ls") && !r.has_params);
    CHECK(request(BYTES("\x83\xa6params\x81\xa1" "a\x01\xa2id\x05\xa6method\xa2ls"), &r) == 0);
    CHECK(r.has_params && cts_mp_map(&r.params, &n) == 0 && n == 1 && r.params.end - r.params.ptr == 3);
    CHECK(request(BYTES("\x81\xa2id\x05"), &r) == CTS_EPROTO);
    CHECK(request(BYTES("\x81\xa6method\xa2ls"), &r) == CTS_EPROTO);
    CHECK(request(BYTES("\x82\xa2id\xff\xa6method\xa2ls"), &r) == CTS_EPROTO);
    CHECK(request(BYTES("\x82\xa2id\x05\xa6method\x01"), &r) == CTS_EPROTO);
    CHECK(request(BYTES("\x83\xa2id\x05\xa6method\xa2ls\xa6params\x90"), &r) == CTS_EPROTO);
    CHECK(request(BYTES("\x83\xa2id\x05\xa6method\xa2ls\xa5param\x80"), &r) == CTS_EPROTO);
    CHECK(request(BYTES("\xdd\x04\x00\x00\x00"), &r) == CTS_EPROTO);
    CHECK(request(BYTES("\x90"), &r) == CTS_EPROTO);
}

static void errors_come_back_with_what_was_put_in(void **state)
{
    struct cts_ctl_reply r;
    struct cts_mp        v;
    struct cts_span      s;
    int64_t              ms;

    (void)state;
    buf.len = 0;
    CHECK(cts_ctl_error_put(&buf, 9, CTS_EBUSY, "full\xff", "adapter", 250) == 0);
    CHECK(cts_frame_bytes(buf.ptr, buf.len) == (int64_t)buf.len);
    CHECK(cts_ctl_reply_decode(buf.ptr + 4, buf.len - 4, &r) == 0);
    CHECK(r.id == 9 && r.kind == CTS_CTL_ERROR);
    CHECK(cts_mp_find(r.body, "code", &v) && cts_mp_str(&v, &s) == 0 && cts_span_is(s, "busy"));
    CHECK(cts_mp_find(r.body, "message", &v) && cts_mp_str(&v, &s) == 0 && cts_span_is(s, "full?"));
    CHECK(cts_mp_find(r.body, "param", &v) && cts_mp_str(&v, &s) == 0 && cts_span_is(s, "adapter"));
    CHECK(cts_mp_find(r.body, "retry_ms", &v) && cts_mp_int(&v, 0, 999, &ms) == 0 && ms == 250);
    buf.len = 0;
    CHECK(cts_ctl_error_put(&buf, 9, -ENOENT, "gone", NULL, 0) == 0);
    CHECK(cts_ctl_reply_decode(buf.ptr + 4, buf.len - 4, &r) == 0);
    CHECK(!cts_mp_find(r.body, "param", &v) && !cts_mp_find(r.body, "retry_ms", &v));
    CHECK(cts_mp_find(r.body, "code", &v) && cts_mp_str(&v, &s) == 0 && cts_span_is(s, "ENOENT"));
}

static void reply_heads_have_one_body_and_may_have_more_keys(void **state)
{
    struct cts_ctl_reply r;

    (void)state;
    CHECK(cts_ctl_reply_decode(BYTES("\x82\xa2id\x05\xa6result\x80"), &r) == 0 && r.kind == CTS_CTL_RESULT);
    CHECK(cts_ctl_reply_decode(BYTES("\x83\xa2id\x05\xa3new\xc0\xa5" "event\x80"), &r) == 0 && r.kind == CTS_CTL_EVENT);
    CHECK(cts_ctl_reply_decode(BYTES("\x81\xa2id\x05"), &r) == CTS_EPROTO);
    CHECK(cts_ctl_reply_decode(BYTES("\x83\xa2id\x05\xa6result\x80\xa5" "error\x80"), &r) == CTS_EPROTO);
    CHECK(cts_ctl_reply_decode(BYTES("\x82\xa2id\x05\xa6result\x01"), &r) == CTS_EPROTO);
}

/* ---- cts-control(7) ---- */

/* The bytes of a hexdump's lines in the page. */
static size_t read_hexdump(FILE *page, uint8_t *out, size_t cap)
{
    char   line[256];
    size_t n = 0;

    while (fgets(line, sizeof(line), page) != NULL) {
        unsigned off, byte;
        int      at;

        if (sscanf(line, "%8x  %n", &off, &at) != 1 || at != 10 || off != n) continue;
        while (line[at] != '|' && n < cap && sscanf(line + at, "%2x", &byte) == 1) {
            out[n++] = (uint8_t)byte;
            at += 2;
            while (line[at] == ' ') at++;
        }
    }
    return n;
}

static void the_pages_example_is_what_the_writer_makes(void **state)
{
    char           path[512];
    uint8_t        bytes[128];
    FILE          *page = fopen(src_path(path, sizeof(path), "man/cts-control.7"), "r");
    struct cts_mpw w = { &buf, 0 };
    size_t         begin;

    (void)state;
    CHECK(page != NULL);
    buf.len = 0;
    begin = cts_frame_begin(&w);
    cts_mpw_map(&w, 3);
    cts_mpw_str(&w, "id"), cts_mpw_u64(&w, 1);
    cts_mpw_str(&w, "method"), cts_mpw_str(&w, "hello");
    cts_mpw_str(&w, "params"), cts_mpw_map(&w, 3);
    cts_mpw_str(&w, "major"), cts_mpw_u64(&w, CTS_CTL_MAJOR);
    cts_mpw_str(&w, "minor"), cts_mpw_u64(&w, CTS_CTL_MINOR);
    cts_mpw_str(&w, "client"), cts_mpw_str(&w, "x");
    CHECK(cts_frame_end(&w, begin) == 0);
    CHECK(read_hexdump(page, bytes, sizeof(bytes)) == buf.len);
    CHECK(memcmp(bytes, buf.ptr, buf.len) == 0);
    fclose(page);
}

static int group_teardown(void **state)
{
    (void)state;
    cts_buf_deinit(&buf);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate_names_each_key_that_is_wrong),
        cmocka_unit_test(generate_takes_every_key_at_once),
        cmocka_unit_test(generate_has_defaults),
        cmocka_unit_test(generate_wants_exactly_one_source),
        cmocka_unit_test(a_long_unknown_key_is_named_as_far_as_it_fits_in_whole_characters),
        cmocka_unit_test(frame_lengths_are_bounded),
        cmocka_unit_test(a_half_written_frame_is_dropped),
        cmocka_unit_test(request_heads_are_exactly_id_method_and_params),
        cmocka_unit_test(errors_come_back_with_what_was_put_in),
        cmocka_unit_test(reply_heads_have_one_body_and_may_have_more_keys),
        cmocka_unit_test(the_pages_example_is_what_the_writer_makes),
    };

    return cmocka_run_group_tests_name("ctl_msg", tests, NULL, group_teardown);
}
