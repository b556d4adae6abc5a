#include "daemon/engine/sample.h"

#include "common/assert.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

int cts_sampler_init(struct cts_sampler *s, uint32_t n_vocab)
{
    CTS_ASSERT(n_vocab > 0);
    *s = (struct cts_sampler){ .n_vocab = n_vocab };
    s->heap = calloc(n_vocab, sizeof(*s->heap));
    return s->heap == NULL ? -ENOMEM : 0;
}

void cts_sampler_deinit(struct cts_sampler *s)
{
    free(s->heap);
    *s = (struct cts_sampler){ 0 };
}

void cts_philox(const uint32_t ctr[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3], k0 = key[0], k1 = key[1];

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;

        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

double cts_philox_uniform(uint64_t seed, uint64_t pos)
{
    uint32_t ctr[4] = { (uint32_t)pos, (uint32_t)(pos >> 32), 0, 0 };
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    uint32_t r[4];

    cts_philox(ctr, key, r);
    return (double)(((uint64_t)r[1] << 32 | r[0]) >> 11) * 0x1p-53;
}

/* The ranking: larger logit first, then lower id. */
static int is_before(struct cts_candidate a, struct cts_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* First of the ranking. 0 or CTS_EGPU; a NaN anywhere shows because every
 * comparison with it is false. */
static int find_best(const float *logits, uint32_t n, struct cts_candidate *best)
{
    int is_bad = 0;

    *best = (struct cts_candidate){ logits[0], 0 };
    for (uint32_t i = 0; i < n; i++) {
        is_bad |= !(logits[i] <= HUGE_VALF);
        if (logits[i] > best->logit) *best = (struct cts_candidate){ logits[i], (int32_t)i };
    }
    return is_bad || !isfinite(best->logit) ? CTS_EGPU : 0;
}

static double sum_exp(const float *logits, uint32_t n, float max, double inv_temperature)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++) sum += exp(((double)logits[i] - (double)max) * inv_temperature);
    return sum;
}

static void sift_down(struct cts_candidate *heap, uint32_t n, uint32_t i)
{
    struct cts_candidate c = heap[i];

    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_before(heap[child + 1], heap[child])) child++;
        if (!is_before(heap[child], c)) break;
        heap[i] = heap[child];
    }
    heap[i] = c;
}

static void make_heap(struct cts_sampler *s, const float *logits)
{
    for (uint32_t i = 0; i < s->n_vocab; i++) s->heap[i] = (struct cts_candidate){ logits[i], (int32_t)i };
    for (uint32_t i = s->n_vocab / 2; i-- > 0;) sift_down(s->heap, s->n_vocab, i);
}

/* Move the first of the heap's n to its end and return it: popped candidates
 * stand behind the heap, the last popped first. */
static struct cts_candidate pop(struct cts_candidate *heap, uint32_t n)
{
    struct cts_candidate c = heap[0];

    heap[0] = heap[n - 1];
    heap[n - 1] = c;
    sift_down(heap, n - 1, 0);
    return c;
}

/* The token at which the running sum of weights passes u times their total,
 * over n candidates that rank from heap[last] down to heap[last - n + 1]. */
static int32_t draw_ranked(const struct cts_candidate *last, uint32_t n, float max, double inv_t, double total,
                           double u)
{
    double sum = 0, want = u * total;

    for (uint32_t i = 0; i < n; i++) {
        sum += exp(((double)last[-(ptrdiff_t)i].logit - (double)max) * inv_t);
        if (sum > want) return last[-(ptrdiff_t)i].id;
    }
    return last[-(ptrdiff_t)(n - 1)].id; /* rounding left the sum a hair short */
}

/* top-k and top-p: only as many as are kept leave the heap, nothing is sorted. */
static int32_t draw_truncated(struct cts_sampler *s, const float *logits, const struct cts_sample_opts *o, float max,
                              double u)
{
    uint32_t              n = s->n_vocab, k = o->top_k > 0 && o->top_k < n ? o->top_k : n, n_kept = 0;
    double                inv_t = 1.0 / (double)o->temperature, total = 0, sum = 0;
    struct cts_candidate *last = s->heap + n - 1;

    make_heap(s, logits);
    if (k == n) total = sum_exp(logits, n, max, inv_t);
    for (uint32_t i = 0; k < n && i < k; i++) total += exp(((double)pop(s->heap, n - i).logit - (double)max) * inv_t);
    while (n_kept < k && (n_kept == 0 || sum < (double)o->top_p * total)) {
        struct cts_candidate c = k < n ? last[-(ptrdiff_t)n_kept] : pop(s->heap, n - n_kept);

        sum += exp(((double)c.logit - (double)max) * inv_t);
        n_kept++;
    }
    return draw_ranked(last, n_kept, max, inv_t, sum, u);
}

static int32_t draw_full(const float *logits, uint32_t n, float max, double inv_t, double u)
{
    double  sum = 0, want = u * sum_exp(logits, n, max, inv_t);
    int32_t last = 0;

    for (uint32_t i = 0; i < n; i++) {
        double p = exp(((double)logits[i] - (double)max) * inv_t);

        sum += p;
        if (sum > want) return (int32_t)i;
        if (p > 0) last = (int32_t)i;
    }
    return last;
}

/* The n first of the ranking by insertion: n is at most twenty. */
static void find_top(const float *logits, uint32_t n_vocab, uint32_t n, struct cts_sample *out)
{
    out->n_top = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        struct cts_candidate c = { logits[i], (int32_t)i };
        uint32_t             at = out->n_top;

        if (at == n && !is_before(c, out->top[n - 1])) continue;
        if (at < n) out->n_top++;
        else at = n - 1;
        for (; at > 0 && is_before(c, out->top[at - 1]); at--) out->top[at] = out->top[at - 1];
        out->top[at] = c;
    }
}

static void add_logprobs(const float *logits, uint32_t n_vocab, int n_logprobs, float max, struct cts_sample *out)
{
    double log_sum = log(sum_exp(logits, n_vocab, max, 1.0)) + (double)max;

    out->logprob = (float)((double)logits[out->token] - log_sum);
    if (n_logprobs == 0) return;
    find_top(logits, n_vocab, (uint32_t)n_logprobs, out);
    for (uint32_t i = 0; i < out->n_top; i++) out->top[i].logit = (float)((double)out->top[i].logit - log_sum);
}

int cts_sample(struct cts_sampler *s, const float *logits, const struct cts_sample_opts *o, struct cts_sample *out)
{
    struct cts_candidate best;
    int                  rc = find_best(logits, s->n_vocab, &best);

    CTS_DASSERT(o->n_logprobs <= CTS_TOP_LOGPROBS_MAX);
    if (rc != 0) return rc;
    out->token = best.id;
    out->logprob = 0;
    out->n_top = 0;
    if (o->temperature > 0) {
        double u = cts_philox_uniform(o->seed, o->pos);

        out->token = o->top_k > 0 || o->top_p < 1
                         ? draw_truncated(s, logits, o, best.logit, u)
                         : draw_full(logits, s->n_vocab, best.logit, 1.0 / (double)o->temperature, u);
    }
    if (o->n_logprobs >= 0) add_logprobs(logits, s->n_vocab, o->n_logprobs, best.logit, out);
    return 0;
}
