#include "kernels/cpu/vec_generic.h"

#include "kernels/cpu/ops.inc.h"

const struct cts_cpu_level cts_cpu_generic = { .name = "generic", CTS_CPU_OPS };
