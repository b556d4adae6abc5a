#include "shm/record.h"

#include "common/err.h"
#include "tests/check.h"

#include <string.h>

static _Alignas(8) uint8_t buf[CTS_OUT_RECORD_MAX];

static void a_full_token_record_comes_back_as_it_was(void **state)
{
    const uint32_t            ids[2] = { 5, 70000 };
    const float               lp[2] = { -0.5f, -1.25f };
    const struct cts_top_pair top[4] = { { 5, -0.5f }, { 6, -2 }, { 70000, -1.25f }, { 1, -3 } };
    const struct cts_out_view v = { .type = CTS_OUT_TOKENS,
                                    .req_id = 9,
                                    .first = 3,
                                    .n_tokens = 2,
                                    .ids = ids,
                                    .logprobs = lp,
                                    .n_top = 2,
                                    .top = top,
                                    .text = "h\xc3\xa9",
                                    .text_len = 3 };
    struct cts_out_view       d;

    (void)state;
    CHECK(cts_out_encode(&v, buf) == 96); /* 24 + 8 + 8 + 4 + 32 + 3 = 79 */
    CHECK(cts_out_decode(buf, &d) == 0);
    CHECK(d.flags == (CTS_OUTF_LOGPROBS | CTS_OUTF_TOP | CTS_OUTF_TEXT));
    CHECK(d.req_id == 9 && d.first == 3 && d.n_tokens == 2 && d.n_top == 2 && d.text_len == 3);
    CHECK(memcmp(d.ids, ids, sizeof(ids)) == 0 && memcmp(d.logprobs, lp, sizeof(lp)) == 0);
    CHECK(memcmp(d.top, top, sizeof(top)) == 0 && memcmp(d.text, "h\xc3\xa9", 3) == 0);
    for (int i = 79; i < 96; i++) CHECK(buf[i] == 0);
}

static void one_token_and_every_last_record_take_32_bytes(void **state)
{
    const uint32_t      ids[2] = { 1, 2 };
    struct cts_out_view v = { .type = CTS_OUT_TOKENS, .n_tokens = 2, .ids = ids }, d;

    (void)state;
    CHECK(cts_out_encode(&v, buf) == 32);
    v = (struct cts_out_view){
        .type = CTS_OUT_DONE, .status = CTS_FINISH_LENGTH, .n_prompt = 4, .n_tokens = 6
    };
    CHECK(cts_out_encode(&v, buf) == 32);
    CHECK(cts_out_decode(buf, &d) == 0);
    CHECK(d.flags == CTS_OUTF_LAST && d.status == CTS_FINISH_LENGTH && d.n_prompt == 4 && d.n_tokens == 6);
    v = (struct cts_out_view){ .type = CTS_OUT_ERROR, .status = -CTS_ESLOW, .retry_ms = 50 };
    CHECK(cts_out_encode(&v, buf) == 32);
    CHECK(cts_out_decode(buf, &d) == 0);
    CHECK(d.flags == CTS_OUTF_LAST && d.status == -CTS_ESLOW && d.retry_ms == 50 && d.text == NULL);
}

static void decode_refuses_parts_that_leave_the_record(void **state)
{
    const uint32_t      ids[1] = { 1 };
    struct cts_out_view v = { .type = CTS_OUT_TOKENS, .n_tokens = 1, .ids = ids, .text = "abc", .text_len = 3 },
                        d;
    struct cts_out_record *head = (struct cts_out_record *)buf;

    (void)state;
    CHECK(cts_out_encode(&v, buf) == 32);
    head->text_len = 5; /* 24 + 4 + 5 */
    CHECK(cts_out_decode(buf, &d) == CTS_EPROTO);
    head->text_len = 4;
    CHECK(cts_out_decode(buf, &d) == 0);
    head->count = 3;
    CHECK(cts_out_decode(buf, &d) == CTS_EPROTO);
    head->count = 1;
    head->flags = CTS_OUTF_LOGPROBS | CTS_OUTF_TOP; /* 4 + 4, and no room for n_top */
    CHECK(cts_out_decode(buf, &d) == CTS_EPROTO);
    head->flags = CTS_OUTF_TOP; /* n_top is the text "abc": far too large */
    CHECK(cts_out_decode(buf, &d) == CTS_EPROTO);
    head->flags = 0;
    head->type = 99;
    CHECK(cts_out_decode(buf, &d) == CTS_EPROTO);
    head->type = CTS_OUT_TOKENS;
    head->len = CTS_OUT_RECORD_MAX + 32;
    CHECK(cts_out_decode(buf, &d) == CTS_EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_token_record_comes_back_as_it_was),
        cmocka_unit_test(one_token_and_every_last_record_take_32_bytes),
        cmocka_unit_test(decode_refuses_parts_that_leave_the_record),
    };

    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
