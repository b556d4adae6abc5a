#include "client/request.h"

#include "proto/ctl_msg.h"
#include "tests/check.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static struct cts_buf buf;

/* r through the encoder and the daemon's decoder. */
static struct cts_gen_msg round_trip(const struct cts_request *r)
{
    struct cts_err     err = { 0 };
    struct cts_gen_msg m;
    struct cts_mp      c;
    char               param[CTS_PARAM_BYTES];

    cts_buf_deinit(&buf);
    buf = CTS_BUF(1u << 20);
    CHECK_MSG(cts_request_encode(r, &buf, &err) == 0, "%s\n", err.text);
    CHECK(cts_mp_check(buf.ptr, buf.len, CTS_MP_OBJECTS_MAX) == 0);
    c = (struct cts_mp){ buf.ptr, buf.ptr + buf.len };
    CHECK_MSG(cts_gen_decode(&c, &m, param, &err) == 0, "%s: %s\n", param, err.text);
    return m;
}

static int is(struct cts_span s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.ptr, text, s.len) == 0;
}

static void request_sends_only_what_was_set(void **state)
{
    struct cts_request r = CTS_REQUEST_INIT;
    struct cts_gen_msg m;

    (void)state;
    r.prompt = "hello";
    m = round_trip(&r);
    CHECK(is(m.prompt, "hello"));
    CHECK(buf.ptr[0] == 0x81); /* a map of one pair */
    CHECK(m.adapter.ptr == NULL && m.max_tokens == 0 && m.temperature < 0 && m.top_p < 0 && m.top_k < 0);
    CHECK(!m.has_seed && m.n_logprobs == -1 && m.want_text && m.parse_special);
}

static void request_carries_every_field_to_the_decoder(void **state)
{
    static const char *const stop[] = { "\n", "END" };
    static const int32_t     stop_tokens[] = { 2, 7, 70000 };
    struct cts_request       r = CTS_REQUEST_INIT;
    struct cts_gen_msg       m;
    struct cts_span          s;
    int64_t                  v;

    (void)state;
    r.prompt = "h\0i";
    r.prompt_bytes = 3;
    r.max_tokens = 300;
    r.temperature = 0.7;
    r.top_p = 0.9;
    r.top_k = 40;
    r.seed = UINT64_MAX;
    r.has_seed = 1;
    r.stop = stop;
    r.n_stop = 2;
    r.stop_tokens = stop_tokens;
    r.n_stop_tokens = 3;
    r.logprobs = 5;
    r.no_text = r.no_special = 1;
    m = round_trip(&r);
    CHECK(m.prompt.len == 3 && memcmp(m.prompt.ptr, "h\0i", 3) == 0);
    CHECK(m.max_tokens == 300 && m.temperature == 0.7 && m.top_p == 0.9 && m.top_k == 40);
    CHECK(m.has_seed && m.seed == UINT64_MAX && m.n_logprobs == 5);
    CHECK(!m.want_text && !m.parse_special);
    CHECK(m.n_stop == 2 && m.n_stop_tokens == 3);
    CHECK(cts_mp_str(&m.stop, &s) == 0 && is(s, "\n"));
    CHECK(cts_mp_str(&m.stop, &s) == 0 && is(s, "END"));
    for (int i = 0; i < 3; i++) {
        CHECK(cts_mp_int(&m.stop_tokens, 0, INT32_MAX, &v) == 0);
        CHECK(v == stop_tokens[i]);
    }
}

static void request_carries_zeros_that_mean_something(void **state)
{
    struct cts_request r = CTS_REQUEST_INIT;
    struct cts_gen_msg m;

    (void)state;
    r.prompt = "x";
    r.temperature = 0;
    r.top_k = 0;
    r.logprobs = 0;
    r.seed = 0;
    r.has_seed = 1;
    m = round_trip(&r);
    CHECK(m.temperature == 0 && m.top_k == 0 && m.n_logprobs == 0);
    CHECK(m.has_seed && m.seed == 0);
}

static void request_carries_tokens_and_messages(void **state)
{
    static const struct cts_message messages[] = { { "system", "be brief" }, { "user", "<|im_end|> ü" } };
    static const int32_t            tokens[] = { 0, 1, 2047 };
    struct cts_request              r = CTS_REQUEST_INIT;
    struct cts_span                 role, content;
    struct cts_gen_msg              m;
    int64_t                         v;

    (void)state;
    r.tokens = tokens;
    r.n_tokens = 3;
    m = round_trip(&r);
    CHECK(m.n_tokens == 3);
    for (int i = 0; i < 3; i++) {
        CHECK(cts_mp_int(&m.tokens, 0, INT32_MAX, &v) == 0);
        CHECK(v == tokens[i]);
    }
    r = (struct cts_request)CTS_REQUEST_INIT;
    r.messages = messages;
    r.n_messages = 2;
    m = round_trip(&r);
    CHECK(m.n_messages == 2);
    for (int i = 0; i < 2; i++) {
        cts_gen_next_message(&m.messages, &role, &content);
        CHECK(is(role, messages[i].role) && is(content, messages[i].content));
    }
}

/* Refused, by a sentence that has word in it, and nothing written. */
static void check_refused(const struct cts_request *r, const char *word)
{
    struct cts_buf out = CTS_BUF(1u << 20);
    struct cts_err err = { 0 };

    CHECK(cts_buf_put(&out, "before", 6) == 0);
    CHECK(cts_request_encode(r, &out, &err) == CTS_EARG);
    CHECK_MSG(strstr(err.text, word) != NULL, "'%s' lacks '%s'\n", err.text, word);
    CHECK(out.len == 6);
    cts_buf_deinit(&out);
}

static void request_refuses_what_cannot_be_sent_by_its_field(void **state)
{
    static const struct cts_message no_content = { "user", NULL }, bad_content = { "user", "\xff" };
    static const char *const        no_stop[] = { NULL };
    static const int32_t            tokens[] = { 1 };
    struct cts_request              r = CTS_REQUEST_INIT;

    (void)state;
    check_refused(&r, "prompt, tokens and messages");
    r.prompt = "x";
    r.tokens = tokens;
    r.n_tokens = 1;
    check_refused(&r, "not 2");
    r = (struct cts_request)CTS_REQUEST_INIT;
    r.prompt = "\xc3";
    check_refused(&r, "prompt is not UTF-8");
    r.prompt = "x";
    r.temperature = NAN;
    check_refused(&r, "temperature");
    r.temperature = 0;
    r.stop = no_stop;
    r.n_stop = 1;
    check_refused(&r, "stop string is NULL");
    r = (struct cts_request)CTS_REQUEST_INIT;
    r.n_tokens = 3;
    check_refused(&r, "tokens is NULL");
    r = (struct cts_request)CTS_REQUEST_INIT;
    r.messages = &no_content;
    r.n_messages = 1;
    check_refused(&r, "content is NULL");
    r.messages = &bad_content;
    check_refused(&r, "content is not UTF-8");
}

static void request_past_the_buffer_leaves_it_as_it_was(void **state)
{
    struct cts_buf     out = CTS_BUF(32);
    struct cts_request r = CTS_REQUEST_INIT;
    struct cts_err     err = { 0 };

    (void)state;
    CHECK(cts_buf_put(&out, "before", 6) == 0);
    r.prompt = "a prompt that is longer than the room which is left in there";
    CHECK(cts_request_encode(&r, &out, &err) == -EMSGSIZE);
    CHECK(strstr(err.text, "32 bytes") != NULL);
    CHECK(out.len == 6);
    cts_buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_sends_only_what_was_set),
        cmocka_unit_test(request_carries_every_field_to_the_decoder),
        cmocka_unit_test(request_carries_zeros_that_mean_something),
        cmocka_unit_test(request_carries_tokens_and_messages),
        cmocka_unit_test(request_refuses_what_cannot_be_sent_by_its_field),
        cmocka_unit_test(request_past_the_buffer_leaves_it_as_it_was),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    cts_buf_deinit(&buf);
    return rc;
}
