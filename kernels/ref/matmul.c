#include "kernels/ref/ref.h"

static double dot(const float *x, const float *w, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * w[i];
    return sum;
}

int cts_ref_matmul(const struct ctsk_matmul *a)
{
    const float *x = cts_ref_at(a->x), *w = cts_ref_at(a->w);
    float       *y = cts_ref_at(a->y);

    for (int64_t r = 0; r < a->n_rows; r++) {
        for (int64_t o = 0; o < a->n_out; o++) {
            double sum = dot(x + r * a->x_ld, w + o * a->n_in, a->n_in);
            float *yo = y + r * a->y_ld + o;

            *yo = (float)(a->accumulate ? sum + *yo : sum);
        }
    }
    return 0;
}
