/* The params of generate and the payload of a submission. */

#include "tests/fuzz/fuzz.h"

#include "common/utf8.h"
#include "proto/ctl_msg.h"

static void read_lists(struct cts_gen_msg *m)
{
    struct cts_span s, role;
    int64_t         id;

    for (uint32_t i = 0; i < m->n_tokens; i++) PROMISE(cts_mp_int(&m->tokens, INT64_MIN, INT64_MAX, &id) == 0);
    for (uint32_t i = 0; i < m->n_stop; i++) PROMISE(cts_mp_str(&m->stop, &s) == 0);
    for (uint32_t i = 0; i < m->n_stop_tokens; i++)
        PROMISE(cts_mp_int(&m->stop_tokens, INT64_MIN, INT64_MAX, &id) == 0);
    for (uint32_t i = 0; i < m->n_messages; i++) {
        cts_gen_next_message(&m->messages, &role, &s);
        PROMISE(cts_utf8_is_valid(role.ptr, role.len) && cts_utf8_is_valid(s.ptr, s.len));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct cts_mp      c = { data, data + n };
    struct cts_gen_msg m;
    struct cts_err     err = { .code = 0 };
    char               param[32];

    if (cts_mp_check(data, n, CTS_MP_OBJECTS_MAX) != 0) return 0;
    if (cts_gen_decode(&c, &m, param, &err) != 0) {
        PROMISE(err.text[0] != '\0');
        return 0;
    }
    PROMISE(m.n_logprobs >= -1 && m.n_logprobs <= 20);
    PROMISE((m.prompt.ptr != NULL) + (m.n_tokens > 0) + (m.n_messages > 0) <= 1);
    if (m.prompt.ptr != NULL) PROMISE(cts_utf8_is_valid(m.prompt.ptr, m.prompt.len));
    read_lists(&m);
    return 0;
}
