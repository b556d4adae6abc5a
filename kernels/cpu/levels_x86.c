#include "kernels/cpu/level.h"

const struct cts_cpu_level *const cts_cpu_levels[] = { &cts_cpu_generic, &cts_cpu_avx2, &cts_cpu_avx512f };
const uint32_t                    cts_cpu_n_levels = 3;

int cts_cpu_can_run(const struct cts_cpu_level *l)
{
    __builtin_cpu_init();
    if (l == &cts_cpu_avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (l == &cts_cpu_avx512f) return __builtin_cpu_supports("avx512f") != 0;
    return 1;
}
