/* A stream of control frames, as both ends read them. */

#include "tests/fuzz/fuzz.h"

#include "proto/ctl_msg.h"

static void walk(struct cts_mp c)
{
    while (cts_mp_type(&c) != CTS_MP_END) PROMISE(cts_mp_skip(&c) == 0); /* checked bytes skip to their end */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    size_t off = 0;

    while (off < n) {
        int64_t                frame = cts_frame_bytes(data + off, n - off);
        struct cts_ctl_request request;
        struct cts_ctl_reply   reply;
        struct cts_mp          value;

        if (frame <= 0 || (uint64_t)frame > n - off) break;
        if (cts_ctl_request_decode(data + off + 4, (size_t)frame - 4, &request) == 0) {
            PROMISE(request.method.ptr >= data && request.method.ptr + request.method.len <= data + n);
            if (request.has_params) {
                walk(request.params);
                (void)cts_mp_find(request.params, "name", &value);
            }
        }
        if (cts_ctl_reply_decode(data + off + 4, (size_t)frame - 4, &reply) == 0) {
            walk(reply.body);
            (void)cts_mp_find(reply.body, "code", &value);
        }
        off += (size_t)frame;
    }
    return 0;
}
