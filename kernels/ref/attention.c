#include "kernels/ref/ref.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* Where position p of a row's sequence lies: an index into the pages' places. */
static int64_t place_of(const struct ctsk_attention *a, const int32_t *pages, int64_t p)
{
    return pages[p / a->page_tokens] * a->page_tokens + p % a->page_tokens;
}

static const float *kv_at(const struct ctsk_attention *a, struct ctsk_ptr pages, int64_t place, int64_t kv_head)
{
    return (const float *)cts_ref_at(pages) + (place * a->n_kv_heads + kv_head) * a->head_dim;
}

/* score[0 .. n-1] becomes softmax(scale * q . k). */
static void weigh(const struct ctsk_attention *a, const float *q, const int32_t *pages, int64_t kv_head,
                  double *score, int64_t n)
{
    double max = -INFINITY, total = 0.0;

    for (int64_t p = 0; p < n; p++) {
        const float *k = kv_at(a, a->k_pages, place_of(a, pages, p), kv_head);
        double       sum = 0.0;

        for (int64_t i = 0; i < a->head_dim; i++) sum += (double)q[i] * k[i];
        score[p] = sum * a->scale;
        max = fmax(max, score[p]);
    }
    for (int64_t p = 0; p < n; p++) total += score[p] = exp(score[p] - max);
    for (int64_t p = 0; p < n; p++) score[p] /= total;
}

static void attend(const struct ctsk_attention *a, int64_t row, int64_t head, double *score, int64_t n)
{
    const int32_t *seq = cts_ref_at(a->seq);
    const int32_t *pages = (const int32_t *)cts_ref_at(a->page_table) + seq[row] * a->n_pages_max;
    const float   *q = (const float *)cts_ref_at(a->q) + row * a->q_ld + head * a->head_dim;
    float         *y = (float *)cts_ref_at(a->y) + (row * a->n_heads + head) * a->head_dim;
    int64_t        kv_head = head / (a->n_heads / a->n_kv_heads);

    weigh(a, q, pages, kv_head, score, n);
    for (int64_t i = 0; i < a->head_dim; i++) {
        double sum = 0.0;

        for (int64_t p = 0; p < n; p++)
            sum += score[p] * kv_at(a, a->v_pages, place_of(a, pages, p), kv_head)[i];
        y[i] = (float)sum;
    }
}

int cts_ref_attention(const struct ctsk_attention *a)
{
    const int32_t *pos = cts_ref_at(a->pos), *seq = cts_ref_at(a->seq);

    for (int64_t r = 0; r < a->n_rows; r++) {
        int64_t n = (int64_t)pos[r] + 1;
        double *score;

        if (n < 1 || n > a->n_pages_max * a->page_tokens || seq[r] < 0) return CTS_EGPU;
        score = calloc((size_t)n, sizeof(*score));
        if (score == NULL) return -ENOMEM;
        for (int64_t h = 0; h < a->n_heads; h++) attend(a, r, h, score, n);
        free(score);
    }
    return 0;
}
