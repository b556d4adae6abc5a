/* The daemon's end of a submission ring whose memory is what the input says: the
 * first bytes are the counters, the rest lies over records and arena. */

#include "tests/fuzz/fuzz.h"

#include "common/err.h"
#include "shm/ring.h"

#include <string.h>

#define N_RECORDS   CTS_SUB_RECORDS_MIN
#define ARENA_BYTES CTS_ARENA_BYTES_MIN

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static _Alignas(4096) uint8_t map[1u << 18];
    static uint8_t                payload[ARENA_BYTES];
    struct cts_sub                s;
    struct cts_sub_record         rec;
    size_t                        bytes = cts_sub_bytes(N_RECORDS, ARENA_BYTES), n_over;
    uint32_t                      tail = 0, n_taken = 0;
    int                           rc;

    PROMISE(bytes <= sizeof(map));
    memset(map, 0, bytes);
    cts_sub_init(&s, map, N_RECORDS, ARENA_BYTES, 1);
    if (n < sizeof(tail)) return 0;
    memcpy(&tail, data, sizeof(tail));
    n_over = n - sizeof(tail) < bytes - CTS_SHM_HEADER_BYTES ? n - sizeof(tail) : bytes - CTS_SHM_HEADER_BYTES;
    memcpy(map + CTS_SHM_HEADER_BYTES, data + sizeof(tail), n_over);
    atomic_store(&s.hdr->tail, tail);
    while ((rc = cts_sub_take(&s, &rec, payload, sizeof(payload))) == 1) {
        PROMISE(rec.pay_len <= ARENA_BYTES && rec.abi == 1);
        PROMISE(++n_taken <= N_RECORDS);
    }
    PROMISE(rc == 0 || rc == CTS_EPROTO);
    return 0;
}
