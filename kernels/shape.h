#ifndef CTS_KERNELS_SHAPE_H
#define CTS_KERNELS_SHAPE_H

/* The shape contract of every op in one place. 1: may be queued. 0: the caller
 * broke it. Pointers are looked at only where there are rows, and never followed. */

#include "kernels/ctsk.h"

int ctsk_fits_embed(const struct ctsk_embed *a);
int ctsk_fits_gather(const struct ctsk_gather *a);
int ctsk_fits_rmsnorm(const struct ctsk_rmsnorm *a);
int ctsk_fits_matmul(const struct ctsk_matmul *a);
int ctsk_fits_rope_append(const struct ctsk_rope_append *a);
int ctsk_fits_attention(const struct ctsk_attention *a);
int ctsk_fits_silu_mul(const struct ctsk_silu_mul *a);
int ctsk_fits_adapt(const struct ctsk_adapt *a);

#endif
