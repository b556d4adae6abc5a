#include "kernels/ref/ref.h"

#include <math.h>

int cts_ref_silu_mul(const struct ctsk_silu_mul *a)
{
    const float *gate = cts_ref_at(a->gate), *up = cts_ref_at(a->up);
    float       *y = cts_ref_at(a->y);

    for (int64_t i = 0; i < a->n_rows * a->n_cols; i++) {
        double z = gate[i];

        y[i] = (float)(z / (1.0 + exp(-z)) * up[i]);
    }
    return 0;
}
