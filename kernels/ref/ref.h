#ifndef CTS_KERNELS_REF_REF_H
#define CTS_KERNELS_REF_REF_H

/* The definition of right: each op as ctsk.h words it, one thread, sums in
 * float64, one rounding at the end, never optimised. Every other version is
 * tested against these. Each returns 0, CTS_EGPU where the caller broke a
 * promise that only the device can see (an id out of range), or -ENOMEM. */

#include "kernels/backend.h"

int cts_ref_embed(const struct ctsk_embed *a);
int cts_ref_gather(const struct ctsk_gather *a);
int cts_ref_rmsnorm(const struct ctsk_rmsnorm *a);
int cts_ref_matmul(const struct ctsk_matmul *a);
int cts_ref_rope_append(const struct ctsk_rope_append *a);
int cts_ref_attention(const struct ctsk_attention *a);
int cts_ref_silu_mul(const struct ctsk_silu_mul *a);
int cts_ref_adapt(const struct ctsk_adapt *a);

/* Whichever of them op is, or its copy. */
int cts_ref_run(const struct ctsk_op *op);

/* What a device pointer points to, where the device is the host. */
static inline void *cts_ref_at(struct ctsk_ptr p)
{
    return (void *)(uintptr_t)p.addr;
}

#endif
