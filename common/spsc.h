#ifndef CTS_COMMON_SPSC_H
#define CTS_COMMON_SPSC_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Bounded queue of fixed records between exactly two threads of one process,
 * one that pushes and one that pops. Full is -EAGAIN, never growth. */
struct cts_spsc {
    uint8_t *records;      /* [n_records * record_bytes] */
    uint32_t n_records;    /* power of two */
    uint32_t record_bytes;
    alignas(128) _Atomic uint32_t tail; /* pushed since creation; stored by the producer (release) */
    uint32_t head_seen;                 /* producer's last look at head */
    alignas(128) _Atomic uint32_t head; /* popped since creation; stored by the consumer (release) */
    uint32_t tail_seen;                 /* consumer's last look at tail */
};

/* n_records is a power of two. 0 or -ENOMEM. */
int cts_spsc_init(struct cts_spsc *q, uint32_t n_records, uint32_t record_bytes);

/* Both threads are done with it. Safe on a zeroed struct. */
void cts_spsc_deinit(struct cts_spsc *q);

/* Producer: copy one record in. 0, or -EAGAIN when full. */
int cts_spsc_push(struct cts_spsc *q, const void *record);

/* Producer: room for how many more records at least. */
uint32_t cts_spsc_room(struct cts_spsc *q);

/* Consumer: copy the oldest record out. 1, or 0 when empty. */
int cts_spsc_pop(struct cts_spsc *q, void *record);

/* Consumer: 1 when nothing is there to pop. */
int cts_spsc_is_empty(struct cts_spsc *q);

#endif
