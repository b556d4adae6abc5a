#include "client/event.h"

#include "common/err.h"
#include "shm/record.h"
#include "tests/check.h"

#include <string.h>

struct parsed {
    _Alignas(8) uint8_t rec[CTS_OUT_RECORD_MAX];
    char                message[64];
    struct cts_event    ev;
    int                 rc;
};

static struct parsed p;

/* Encode v, change one byte of its head (at, xor with bits), parse. */
static int parse(const struct cts_out_view *v, size_t at, uint8_t bits)
{
    cts_out_encode(v, p.rec);
    p.rec[at] ^= bits;
    p.rc = cts_event_parse(p.rec, &p.ev, p.message, sizeof(p.message));
    return p.rc;
}

#define AT_TYPE   offsetof(struct cts_out_record, type)
#define AT_FLAGS  offsetof(struct cts_out_record, flags)
#define AT_COUNT  offsetof(struct cts_out_record, count)
#define AT_STATUS offsetof(struct cts_out_record, status)
#define AT_TEXT   offsetof(struct cts_out_record, text_len)

static void event_shows_tokens_with_all_that_belongs_to_them(void **state)
{
    static const uint32_t            ids[] = { 7, 8 };
    static const float               logprobs[] = { -0.5f, -1.5f };
    static const struct cts_top_pair top[] = { { 7, -0.5f }, { 9, -2 }, { 8, -1.5f }, { 1, -3 } };
    struct cts_out_view              v = { .type = CTS_OUT_TOKENS,
                                           .req_id = 42,
                                           .first = 3,
                                           .n_tokens = 2,
                                           .ids = ids,
                                           .logprobs = logprobs,
                                           .n_top = 2,
                                           .top = top,
                                           .text = "hé",
                                           .text_len = 3 };

    (void)state;
    CHECK(parse(&v, 0, 0) == 1);
    CHECK(p.ev.type == CTS_EVENT_TOKENS && p.ev.request == 42 && !p.ev.is_last);
    CHECK(p.ev.first == 3 && p.ev.n_tokens == 2 && p.ev.n_top == 2);
    CHECK(p.ev.ids[1] == 8 && p.ev.logprobs[1] == -1.5f);
    CHECK(p.ev.top[1].id == 9 && p.ev.top[3].logprob == -3);
    CHECK(p.ev.text_bytes == 3 && memcmp(p.ev.text, "hé", 3) == 0);
}

static void event_of_tokens_alone_has_empty_text_and_no_logprobs(void **state)
{
    static const uint32_t ids[] = { 7 };
    struct cts_out_view   v = { .type = CTS_OUT_TOKENS, .req_id = 1, .n_tokens = 1, .ids = ids };

    (void)state;
    CHECK(parse(&v, 0, 0) == 1);
    CHECK(p.ev.logprobs == NULL && p.ev.top == NULL && p.ev.text != NULL && p.ev.text_bytes == 0);
}

static void event_shows_the_other_types(void **state)
{
    struct cts_out_view done = {
        .type = CTS_OUT_DONE, .req_id = 1, .status = CTS_FINISH_LENGTH, .n_prompt = 5, .n_tokens = 6
    };
    struct cts_out_view error = {
        .type = CTS_OUT_ERROR, .req_id = 1, .status = 1007, .retry_ms = 9, .text = "full", .text_len = 4
    };
    struct cts_out_view accepted = { .type = CTS_OUT_ACCEPTED, .req_id = 1, .n_prompt = 5 },
                        pong = { .type = CTS_OUT_PONG };

    (void)state;
    CHECK(parse(&done, 0, 0) == 1);
    CHECK(p.ev.type == CTS_EVENT_DONE && p.ev.is_last && p.ev.finish == CTS_FINISHED_LENGTH);
    CHECK(p.ev.n_prompt == 5 && p.ev.n_generated == 6);
    CHECK(parse(&error, 0, 0) == 1);
    CHECK(p.ev.type == CTS_EVENT_ERROR && p.ev.is_last && p.ev.code == CTS_ERROR_BUSY && p.ev.retry_ms == 9);
    CHECK(strcmp(p.ev.message, "full") == 0);
    error.text = NULL;
    error.text_len = 0;
    CHECK(parse(&error, 0, 0) == 1);
    CHECK(strcmp(p.ev.message, cts_strerror(CTS_EBUSY)) == 0);
    CHECK(parse(&accepted, 0, 0) == 1);
    CHECK(p.ev.type == CTS_EVENT_ACCEPTED && p.ev.n_prompt == 5 && !p.ev.is_last);
    CHECK(parse(&pong, 0, 0) == 0);
}

static void event_cuts_a_long_message_at_a_whole_character(void **state)
{
    char                text[101];
    struct cts_out_view v = { .type = CTS_OUT_ERROR, .status = 1009, .text = text, .text_len = 100 };

    (void)state;
    for (int i = 0; i < 100; i += 2) memcpy(text + i, "é", 3);
    CHECK(parse(&v, 0, 0) == 1);
    CHECK(strlen(p.ev.message) == 62); /* 63 bytes of room hold 31 characters of two */
}

static void event_refuses_nonsense(void **state)
{
    static const uint32_t ids[] = { 7 };
    struct cts_out_view   tokens = { .type = CTS_OUT_TOKENS, .n_tokens = 1, .ids = ids, .text = "ab", .text_len = 2 };
    struct cts_out_view   done = { .type = CTS_OUT_DONE, .status = CTS_FINISH_STOP };
    struct cts_out_view   error = { .type = CTS_OUT_ERROR, .status = 1, .text = "\xff", .text_len = 1 };

    (void)state;
    CHECK(parse(&tokens, AT_TYPE, 0x40) == CTS_EPROTO);
    CHECK(parse(&tokens, AT_TYPE, CTS_OUT_TOKENS) == CTS_EPROTO); /* type 0 */
    CHECK(parse(&tokens, AT_FLAGS, CTS_OUTF_LAST) == CTS_EPROTO);
    CHECK(parse(&tokens, AT_COUNT, 0x80) == CTS_EPROTO); /* more ids than the record has bytes */
    CHECK(parse(&tokens, AT_TEXT, 0x80) == CTS_EPROTO);
    CHECK(parse(&tokens, AT_FLAGS, CTS_OUTF_TOP) == CTS_EPROTO); /* the text read as a count */
    tokens.text = "\xc3";
    tokens.text_len = 1;
    CHECK(parse(&tokens, 0, 0) == CTS_EPROTO);
    CHECK(parse(&done, AT_FLAGS, CTS_OUTF_LAST) == CTS_EPROTO); /* a last record that is not marked so */
    CHECK(parse(&done, AT_STATUS, CTS_FINISH_STOP) == CTS_EPROTO); /* status 0 */
    CHECK(parse(&done, AT_STATUS, 0x40) == CTS_EPROTO);
    CHECK(parse(&error, 0, 0) == CTS_EPROTO);
    error.text_len = 0;
    CHECK(parse(&error, AT_STATUS, 1) == CTS_EPROTO); /* code 0 */
    CHECK(parse(&error, AT_STATUS + 1, 0x80) == CTS_EPROTO); /* code -32769 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(event_shows_tokens_with_all_that_belongs_to_them),
        cmocka_unit_test(event_of_tokens_alone_has_empty_text_and_no_logprobs),
        cmocka_unit_test(event_shows_the_other_types),
        cmocka_unit_test(event_cuts_a_long_message_at_a_whole_character),
        cmocka_unit_test(event_refuses_nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
