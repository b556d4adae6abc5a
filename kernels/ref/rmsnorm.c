#include "kernels/ref/ref.h"

#include <math.h>

int cts_ref_rmsnorm(const struct ctsk_rmsnorm *a)
{
    const float *w = cts_ref_at(a->w);

    for (int64_t r = 0; r < a->n_rows; r++) {
        const float *x = (const float *)cts_ref_at(a->x) + r * a->x_ld;
        float       *y = (float *)cts_ref_at(a->y) + r * a->n_cols;
        double       sum = 0.0, scale;

        for (int64_t c = 0; c < a->n_cols; c++) sum += (double)x[c] * x[c];
        scale = 1.0 / sqrt(sum / (double)a->n_cols + a->eps);
        for (int64_t c = 0; c < a->n_cols; c++) y[c] = (float)(x[c] * scale * w[c]);
    }
    return 0;
}
