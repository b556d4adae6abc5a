#include "common/spsc.h"

#include "common/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int cts_spsc_init(struct cts_spsc *q, uint32_t n_records, uint32_t record_bytes)
{
    CTS_ASSERT(n_records > 0 && (n_records & (n_records - 1)) == 0);
    memset(q, 0, sizeof(*q));
    q->records = calloc(n_records, record_bytes);
    if (q->records == NULL) return -ENOMEM;
    q->n_records = n_records;
    q->record_bytes = record_bytes;
    return 0;
}

void cts_spsc_deinit(struct cts_spsc *q)
{
    free(q->records);
    memset(q, 0, sizeof(*q));
}

static uint8_t *record_at(struct cts_spsc *q, uint32_t pos)
{
    return q->records + (size_t)(pos & (q->n_records - 1)) * q->record_bytes;
}

uint32_t cts_spsc_room(struct cts_spsc *q)
{
    uint32_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);

    /* Acquire pairs with the consumer's release of head: its reads of the
     * records are over before we overwrite them. */
    q->head_seen = atomic_load_explicit(&q->head, memory_order_acquire);
    return q->n_records - (tail - q->head_seen);
}

int cts_spsc_push(struct cts_spsc *q, const void *record)
{
    uint32_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);

    if (tail - q->head_seen == q->n_records && cts_spsc_room(q) == 0) return -EAGAIN;
    memcpy(record_at(q, tail), record, q->record_bytes);
    atomic_store_explicit(&q->tail, tail + 1, memory_order_release); /* pairs with is_empty's acquire */
    return 0;
}

int cts_spsc_is_empty(struct cts_spsc *q)
{
    uint32_t head = atomic_load_explicit(&q->head, memory_order_relaxed);

    if (head != q->tail_seen) return 0;
    q->tail_seen = atomic_load_explicit(&q->tail, memory_order_acquire); /* pairs with push's release */
    return head == q->tail_seen;
}

int cts_spsc_pop(struct cts_spsc *q, void *record)
{
    uint32_t head = atomic_load_explicit(&q->head, memory_order_relaxed);

    if (cts_spsc_is_empty(q)) return 0;
    memcpy(record, record_at(q, head), q->record_bytes);
    atomic_store_explicit(&q->head, head + 1, memory_order_release); /* pairs with room's acquire */
    return 1;
}
