#ifndef CTS_COMMON_WAIT_H
#define CTS_COMMON_WAIT_H

#include <stdatomic.h>
#include <stdint.h>

/* Futex words. is_shared is 1 for a word in memory that two processes map.
 * Each call is one system call; all are safe on a read-only mapping. */

/* Sleep while *word == seen, at most timeout_ns (UINT64_MAX: for ever).
 * Returns 0 when woken or when the word had changed, -ETIMEDOUT, -EINTR. */
int cts_futex_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns, int is_shared);

/* Wake up to n sleepers of word. */
void cts_futex_wake(_Atomic uint32_t *word, int n, int is_shared);

/* A thread's doorbell: one sleeper, many ringers, no lost wake-up. The sleeper
 * reads a ticket, looks whether there is work, and sleeps on the ticket; a ring
 * between the two makes the sleep return at once. */
struct cts_bell {
    _Atomic uint32_t seq;
    _Atomic uint32_t is_asleep;
};

/* Ring: one system call when the owner sleeps, none while it is awake. */
void cts_bell_ring(struct cts_bell *b);

/* The ticket to take before looking for work. Owner only. */
uint32_t cts_bell_ticket(struct cts_bell *b);

/* Sleep until a ring newer than the ticket, or timeout_ns. Owner only. */
void cts_bell_sleep(struct cts_bell *b, uint32_t ticket, uint64_t timeout_ns);

#endif
