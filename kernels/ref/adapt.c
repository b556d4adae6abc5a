#include "kernels/ref/ref.h"

#include <errno.h>
#include <stdlib.h>

/* out[o] = sum over i of m[o,i] * x[i], for a vector of floats or of doubles. */
static void product_f32(double *out, const float *m, const float *x, int64_t n_out, int64_t n_in)
{
    for (int64_t o = 0; o < n_out; o++) {
        out[o] = 0.0;
        for (int64_t i = 0; i < n_in; i++) out[o] += (double)m[o * n_in + i] * x[i];
    }
}

static double dot_f64(const float *m, const double *x, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++) sum += m[i] * x[i];
    return sum;
}

static void add_part(const struct ctsk_adapt *a, const struct ctsk_factor *f, const struct ctsk_row_part *p,
                     double *right_x, double *inner)
{
    const float *x = (const float *)cts_ref_at(a->x) + p->row * a->x_ld;
    float       *y = (float *)cts_ref_at(a->y) + p->row * a->y_ld;
    const float *right = cts_ref_at((struct ctsk_ptr){ f->right }), *left = cts_ref_at((struct ctsk_ptr){ f->left });
    const float *sigma = cts_ref_at((struct ctsk_ptr){ f->sigma });

    product_f32(right_x, right, x, f->rank_in, a->n_in);
    for (int64_t i = 0; i < f->rank_out; i++)
        inner[i] = sigma == NULL ? right_x[i] : dot_f64(sigma + i * f->rank_in, right_x, f->rank_in);
    for (int64_t o = 0; o < a->n_out; o++)
        y[o] = (float)(y[o] + (double)p->weight * f->scale * dot_f64(left + o * f->rank_out, inner, f->rank_out));
}

static int is_factor(const struct ctsk_adapt *a, const struct ctsk_factor *f)
{
    if (f->rank_in > a->rank_max || f->rank_out > a->rank_max) return 0;
    return f->sigma != 0 || f->rank_in == f->rank_out;
}

int cts_ref_adapt(const struct ctsk_adapt *a)
{
    const struct ctsk_row_part *parts = cts_ref_at(a->row_parts);
    double                     *vec = calloc(2 * (size_t)a->rank_max, sizeof(*vec));
    int                         rc = 0;

    if (vec == NULL) return -ENOMEM;
    for (int64_t p = 0; p < a->n_parts && rc == 0; p++) {
        const struct ctsk_factor *f = cts_ref_at((struct ctsk_ptr){ parts[p].factors });

        f += a->module_idx;
        if (f->rank_in == 0) continue;
        if (!is_factor(a, f) || parts[p].row >= a->n_rows) rc = CTS_EGPU;
        else add_part(a, f, &parts[p], vec, vec + a->rank_max);
    }
    free(vec);
    return rc;
}
