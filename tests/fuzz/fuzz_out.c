/* The client's end of an event ring that a lying daemon wrote: the tail, then
 * the ring's bytes. */

#include "tests/fuzz/fuzz.h"

#include "client/event.h"
#include "common/err.h"
#include "shm/ring.h"

#include <string.h>

#define RING_BYTES CTS_OUT_BYTES_MIN

static void judge(const void *rec)
{
    struct cts_event ev;
    char             message[512];

    if (cts_event_parse(rec, &ev, message, sizeof(message)) != 1) return;
    PROMISE(ev.n_tokens <= CTS_OUT_RECORD_MAX / 4 && ev.text_bytes <= CTS_OUT_RECORD_MAX);
    for (uint32_t i = 0; i < ev.n_tokens && ev.type == CTS_EVENT_TOKENS; i++) PROMISE(ev.ids[i] == ev.ids[i]);
    if (ev.type == CTS_EVENT_ERROR) PROMISE(memchr(ev.message, 0, sizeof(message)) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static _Alignas(4096) uint8_t out_map[CTS_SHM_HEADER_BYTES + RING_BYTES], sub_map[CTS_SHM_HEADER_BYTES];
    static _Alignas(8) uint8_t    rec[CTS_OUT_RECORD_MAX];
    struct cts_out                o;
    struct cts_outr               r;
    uint64_t                      tail = 0;
    int                           rc, kick;

    memset(out_map, 0, sizeof(out_map));
    memset(sub_map, 0, sizeof(sub_map));
    cts_out_init(&o, out_map, (struct cts_sub_hdr *)sub_map, RING_BYTES, 1);
    PROMISE(cts_outr_init(&r, out_map, sub_map, RING_BYTES) == 0);
    if (n < sizeof(tail)) return 0;
    memcpy(&tail, data, sizeof(tail));
    n -= sizeof(tail);
    memcpy(out_map + CTS_SHM_HEADER_BYTES, data + sizeof(tail), n < RING_BYTES ? n : RING_BYTES);
    atomic_store(&((struct cts_out_hdr *)out_map)->tail, tail);
    while ((rc = cts_outr_take(&r, rec, &kick)) == 1) judge(rec);
    PROMISE(rc == 0 || rc == CTS_EPROTO);
    return 0;
}
