/* All ops of one level, over the vector that was included before. Each result
 * element goes through the same instructions wherever it lies: ends of rows
 * take vf_load_n into the same arithmetic, never a scalar loop of their own.
 * The files are compiled with -ffp-contract=off: a multiply and an add are
 * fused where it says vf_fma, and nowhere else. */

#ifdef __FAST_MATH__
#error "-ffast-math reorders sums: a row's bits would depend on its neighbours"
#endif

#include "kernels/cpu/level.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/dot.inc.h"
#include "kernels/cpu/rows.inc.h"
#include "kernels/cpu/matmul.inc.h"
#include "kernels/cpu/attention.inc.h"
#include "kernels/cpu/adapt.inc.h"

#define CTS_CPU_OPS                                                                                \
    .rmsnorm = rmsnorm, .rope_append = rope_append, .matmul = matmul, .attention = attention,      \
    .silu_mul = silu_mul, .adapt_shrink = adapt_shrink, .adapt_expand = adapt_expand
