#include "common/wait.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int cts_futex_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns, int is_shared)
{
    struct timespec ts = { (time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u) };
    int             op = FUTEX_WAIT | (is_shared ? 0 : FUTEX_PRIVATE_FLAG);

    if (syscall(SYS_futex, word, op, seen, timeout_ns == UINT64_MAX ? NULL : &ts, NULL, 0) == 0) return 0;
    return errno == EAGAIN ? 0 : -errno;
}

void cts_futex_wake(_Atomic uint32_t *word, int n, int is_shared)
{
    syscall(SYS_futex, word, FUTEX_WAKE | (is_shared ? 0 : FUTEX_PRIVATE_FLAG), n, NULL, NULL, 0);
}

void cts_bell_ring(struct cts_bell *b)
{
    /* seq before is_asleep, both seq_cst, against cts_bell_sleep's store of
     * is_asleep before its load of seq: one of the two sees the other. */
    atomic_fetch_add(&b->seq, 1);
    if (atomic_load(&b->is_asleep)) cts_futex_wake(&b->seq, 1, 0);
}

uint32_t cts_bell_ticket(struct cts_bell *b)
{
    return atomic_load(&b->seq);
}

void cts_bell_sleep(struct cts_bell *b, uint32_t ticket, uint64_t timeout_ns)
{
    atomic_store(&b->is_asleep, 1);
    if (atomic_load(&b->seq) == ticket) (void)cts_futex_wait(&b->seq, ticket, timeout_ns, 0);
    atomic_store(&b->is_asleep, 0);
}
