#include "kernels/cpu/vec_avx2.h"

#include "kernels/cpu/ops.inc.h"

const struct cts_cpu_level cts_cpu_avx2 = { .name = "avx2", CTS_CPU_OPS };
