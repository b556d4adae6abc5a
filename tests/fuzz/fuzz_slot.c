/* A slot of the smallest class. The checksum is made right first, or nothing
 * behind it would ever be reached. */

#include "tests/fuzz/fuzz.h"

#include "common/hash.h"
#include "daemon/store/slot_file.h"

#include <string.h>

#define CLASS_BYTES  4096u
#define SLOT_IDX     3u
#define PAYLOAD_AT   64 /* of the header: u64 payload bytes, u32 payload offset */
#define CHECKSUM_AT  96

static void repair_checksum(uint8_t *slot)
{
    uint64_t payload_bytes;
    uint32_t payload_off;

    memcpy(&payload_bytes, slot + PAYLOAD_AT, 8);
    memcpy(&payload_off, slot + PAYLOAD_AT + 8, 4);
    if (payload_bytes > CLASS_BYTES || payload_off > CLASS_BYTES - payload_bytes) return;
    if (payload_off + payload_bytes < CTS_SLOT_HEADER_BYTES) return;
    memset(slot + CHECKSUM_AT, 0, CTS_SLOT_CHECKSUM_BYTES);
    cts_xxh128(slot, CTS_SLOT_HEADER_BYTES, slot + CTS_SLOT_HEADER_BYTES,
               payload_off + payload_bytes - CTS_SLOT_HEADER_BYTES, slot + CHECKSUM_AT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t  slot[CLASS_BYTES];
    struct cts_slot s;
    uint8_t         checksum[CTS_SLOT_CHECKSUM_BYTES];

    memset(slot, 0, sizeof(slot));
    memcpy(slot, data, n < sizeof(slot) ? n : sizeof(slot));
    repair_checksum(slot);
    if (cts_slot_unpack(&s, slot, CLASS_BYTES, SLOT_IDX, checksum, NULL) != 0) return 0;
    PROMISE(s.n_parts > 0);
    for (uint32_t i = 0; i < s.n_parts; i++) {
        uint64_t n_values = cts_slot_part_values(&s.parts[i]);

        PROMISE(n_values * cts_dtype_bytes(s.parts[i].dtype) <= CLASS_BYTES);
        PROMISE(s.parts[i].values[0] - s.parts[i].values[n_values - 1] == 0 || n_values > 1);
    }
    cts_slot_free(&s);
    return 0;
}
