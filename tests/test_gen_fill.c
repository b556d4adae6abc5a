/* daemon/serve/generate.c; client/ has a test of the shorter name. */
#include "daemon/serve/generate.h"

#include "tests/check.h"
#include "tests/serve_rig.h"

#include <math.h>
#include <string.h>

static struct serve_rig rig;
static struct cts_buf   buf = CTS_BUF(1 << 20);

static int open_rig(void **state)
{
    (void)state;
    serve_rig_open(&rig);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    cts_buf_deinit(&buf);
    serve_rig_close(&rig);
    return 0;
}

static const struct cts_gen_msg PLAIN = {
    .temperature = -1, .top_p = -1, .top_k = -1, .n_logprobs = -1, .want_text = 1, .parse_special = 1
};

/* Fill a request from m and hand it back to the caller, who frees it. */
static struct cts_engine_request *fill(const struct cts_gen_msg *m, uint64_t deadline_ns, int *rc,
                                       const char **param, struct cts_err *err)
{
    struct cts_engine_request *r = cts_request_new(rig.engine);

    CHECK(r != NULL);
    *param = NULL;
    *rc = cts_gen_fill(&rig.gen, m, 1000, deadline_ns, r, param, err);
    return r;
}

static int refusal(const struct cts_gen_msg *m, const char **param, struct cts_err *err)
{
    int rc;

    cts_request_free(rig.engine, fill(m, 0, &rc, param, err));
    return rc;
}

static struct cts_gen_msg prompt(const char *text)
{
    struct cts_gen_msg m = PLAIN;

    m.prompt = (struct cts_span){ (const uint8_t *)text, strlen(text) };
    return m;
}

static struct cts_gen_msg tokens(uint32_t n, int64_t id)
{
    struct cts_gen_msg m = PLAIN;
    struct cts_mpw     w = { &buf, 0 };

    buf.len = 0;
    for (uint32_t i = 0; i < n; i++) cts_mpw_int(&w, id);
    CHECK(w.rc == 0);
    m.tokens = (struct cts_mp){ buf.ptr, buf.ptr + buf.len };
    m.n_tokens = n;
    return m;
}

static void what_a_request_does_not_say_is_the_bases_or_off(void **state)
{
    struct cts_gen_msg         m = prompt("hello");
    struct cts_engine_request *r, *r2;
    const char                *param;
    int                        rc;

    (void)state;
    r = fill(&m, 0, &rc, &param, NULL);
    CHECK(rc == 0 && param == NULL);
    CHECK(r->n_prompt > 0 && r->max_tokens == 100 && r->temperature == 0 && r->top_p == 1 && r->top_k == 0);
    CHECK(r->n_logprobs == -1 && r->want_text && r->deadline_ns == 0 && r->n_stop == 0 &&
          r->n_stop_tokens == 0);
    r2 = fill(&m, 0, &rc, &param, NULL);
    CHECK(r->seed != r2->seed); /* each its own */
    cts_request_free(rig.engine, r);
    cts_request_free(rig.engine, r2);
}

static void the_earlier_of_deadline_and_timeout_holds(void **state)
{
    static const struct {
        uint64_t timeout_ms, deadline_ns, want_ns;
    } CASES[] = { { 0, 0, 0 }, { 0, 77, 77 }, { 2, 0, 2001000 }, { 2, 77, 77 }, { 2, 9000000, 2001000 } };
    const char *param;
    int         rc;

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct cts_gen_msg         m = prompt("x");
        struct cts_engine_request *r;

        m.timeout_ms = CASES[i].timeout_ms;
        r = fill(&m, CASES[i].deadline_ns, &rc, &param, NULL);
        CHECK(rc == 0 && r->deadline_ns == CASES[i].want_ns);
        cts_request_free(rig.engine, r);
    }
}

static void stops_and_tokens_are_copied(void **state)
{
    static const uint8_t       STOP[] = "\xa2"
                                        "ab\xa1"
                                        "c";
    struct cts_gen_msg         m = tokens(5, 17);
    struct cts_engine_request *r;
    const char                *param;
    int                        rc;

    (void)state;
    m.stop = (struct cts_mp){ STOP, STOP + 5 };
    m.n_stop = 2;
    m.stop_tokens = m.tokens;
    m.n_stop_tokens = 2;
    m.top_p = 1e-300;
    r = fill(&m, 0, &rc, &param, NULL);
    CHECK(rc == 0 && r->n_prompt == 5 && r->prompt[0] == 17 && r->prompt[4] == 17);
    CHECK(r->n_stop == 2 && r->stop_bytes[0] == 2 && memcmp(r->stop[0], "ab", 2) == 0 && r->stop[1][0] == 'c');
    CHECK(r->n_stop_tokens == 2 && r->stop_tokens[1] == 17);
    CHECK(r->top_p > 0); /* still above 0 as a float32 */
    cts_request_free(rig.engine, r);
}

static void control_tokens_in_a_prompt_are_text_where_the_request_says_so(void **state)
{
    struct cts_gen_msg         m = prompt("<|im_end|>");
    struct cts_engine_request *r;
    const char                *param;
    int                        rc;

    (void)state;
    r = fill(&m, 0, &rc, &param, NULL);
    CHECK(rc == 0 && r->n_prompt == 1);
    cts_request_free(rig.engine, r);
    m.parse_special = 0;
    r = fill(&m, 0, &rc, &param, NULL);
    CHECK(rc == 0 && r->n_prompt > 1);
    cts_request_free(rig.engine, r);
}

static void what_passes_the_context_is_refused_with_both_numbers(void **state)
{
    struct cts_gen_msg m;
    const char        *param;
    struct cts_err     err = { .code = 0 };
    char               text[6000];

    (void)state;
    m = tokens(1025, 17);
    CHECK(refusal(&m, &param, &err) == CTS_ETOOLONG && strcmp(param, "tokens") == 0 &&
          strstr(err.text, "1024") != NULL);
    m = tokens(1024, 17);
    CHECK(refusal(&m, &param, &err) == CTS_ETOOLONG && strstr(err.text, "1024") != NULL);
    m = tokens(1000, 17);
    m.max_tokens = 25;
    CHECK(refusal(&m, &param, &err) == CTS_ETOOLONG && strcmp(param, "max_tokens") == 0);
    CHECK(strstr(err.text, "1000") != NULL && strstr(err.text, "1024") != NULL);
    m.max_tokens = 24;
    CHECK(refusal(&m, &param, &err) == 0);
    m.max_tokens = 0; /* the default is cut to what is left */
    CHECK(refusal(&m, &param, &err) == 0);
    memset(text, '7', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    m = prompt(text); /* more than prompt_bytes_max */
    CHECK(refusal(&m, &param, &err) == CTS_ETOOLONG && strcmp(param, "prompt") == 0);
    m = prompt("");
    CHECK(refusal(&m, &param, &err) == CTS_EARG && strcmp(param, "prompt") == 0);
}

static void messages_are_rendered_and_a_strange_role_is_refused(void **state)
{
    static const char *const   ROLES[] = { "user", "wizard" };
    struct cts_engine_request *r;
    const char                *param;
    struct cts_err             err = { .code = 0 };
    int                        rc;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct cts_gen_msg m = PLAIN;
        struct cts_mpw     w = { &buf, 0 };

        buf.len = 0;
        cts_mpw_map(&w, 2);
        cts_mpw_str(&w, "role");
        cts_mpw_str(&w, ROLES[i]);
        cts_mpw_str(&w, "content");
        cts_mpw_str(&w, "hi");
        m.messages = (struct cts_mp){ buf.ptr, buf.ptr + buf.len };
        m.n_messages = 1;
        r = fill(&m, 0, &rc, &param, &err);
        CHECK(rc == (i == 0 ? 0 : CTS_EARG));
        if (i == 0) CHECK(r->n_prompt > 3 && r->prompt[0] == cts_engine_chat(rig.engine)->im_start);
        else CHECK(strcmp(param, "messages") == 0);
        cts_request_free(rig.engine, r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_request_does_not_say_is_the_bases_or_off),
        cmocka_unit_test(the_earlier_of_deadline_and_timeout_holds),
        cmocka_unit_test(stops_and_tokens_are_copied),
        cmocka_unit_test(control_tokens_in_a_prompt_are_text_where_the_request_says_so),
        cmocka_unit_test(what_passes_the_context_is_refused_with_both_numbers),
        cmocka_unit_test(messages_are_rendered_and_a_strange_role_is_refused),
    };

    return cmocka_run_group_tests_name("gen_fill", tests, open_rig, close_rig);
}
