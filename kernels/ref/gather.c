#include "kernels/ref/ref.h"

#include <string.h>

int cts_ref_gather(const struct ctsk_gather *a)
{
    const float   *x = cts_ref_at(a->x);
    const int32_t *ids = cts_ref_at(a->ids);
    float         *y = cts_ref_at(a->y);

    for (int64_t r = 0; r < a->n_rows; r++) {
        if (ids[r] < 0) return CTS_EGPU;
        memcpy(y + r * a->n_cols, x + ids[r] * a->x_ld, (size_t)a->n_cols * sizeof(float));
    }
    return 0;
}
