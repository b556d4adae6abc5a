#include "kernels/ref/ref.h"

#include <string.h>

int cts_ref_embed(const struct ctsk_embed *a)
{
    const float   *table = cts_ref_at(a->table);
    const int32_t *ids = cts_ref_at(a->ids);
    float         *y = cts_ref_at(a->y);

    for (int64_t r = 0; r < a->n_rows; r++) {
        if (ids[r] < 0 || ids[r] >= a->n_ids) return CTS_EGPU;
        memcpy(y + r * a->n_cols, table + ids[r] * a->n_cols, (size_t)a->n_cols * sizeof(float));
    }
    return 0;
}
