#include "kernels/cpu/vec_avx512f.h"

#include "kernels/cpu/ops.inc.h"

const struct cts_cpu_level cts_cpu_avx512f = { .name = "avx512f", CTS_CPU_OPS };
