#include "daemon/engine/sample.h"
#include "tests/check.h"

#include "common/err.h"

#include <math.h>
#include <string.h>

#define N_VOCAB 48

static void philox_gives_the_published_numbers(void **state)
{
    /* kat_vectors of Random123 1.14: counter, key, result. */
    static const uint32_t KAT[3][10] = {
        { 0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
        { ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd },
        { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
          0x24126ea1 },
    };

    (void)state;
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];

        cts_philox(KAT[i], KAT[i] + 4, out);
        CHECK(memcmp(out, KAT[i] + 6, sizeof(out)) == 0);
    }
    /* The first two words, the second one the upper half: 53 bits from the top. */
    CHECK(cts_philox_uniform(0, 0) == (double)(0xe169c58d6627e8d5ull >> 11) * 0x1p-53);
    CHECK(cts_philox_uniform(0, 1) != cts_philox_uniform(1, 0));
    CHECK(cts_philox_uniform(1ull << 32, 0) != cts_philox_uniform(0, 0));
    CHECK(cts_philox_uniform(0, 1ull << 32) != cts_philox_uniform(0, 0));
}

/* Even steps, not in the order of the ids: each place of the ranking tells itself
 * from the next. */
static void fill_logits(float *logits)
{
    for (int i = 0; i < N_VOCAB; i++) logits[i] = 0.2f * (float)(i * 7 % N_VOCAB);
}

static struct cts_sample sample(const float *logits, const struct cts_sample_opts *o)
{
    struct cts_sampler s;
    struct cts_sample  out;

    CHECK(cts_sampler_init(&s, N_VOCAB) == 0);
    CHECK(cts_sample(&s, logits, o, &out) == 0);
    cts_sampler_deinit(&s);
    return out;
}

/* Which tokens may come, by a full sort and the definition in the header, and
 * with what probability; returns how many. */
static int keep(const float *logits, const struct cts_sample_opts *o, double p[N_VOCAB])
{
    int    rank[N_VOCAB], k = o->top_k > 0 && o->top_k < N_VOCAB ? (int)o->top_k : N_VOCAB, n = 0;
    double sum = 0, kept = 0;

    for (int i = 0; i < N_VOCAB; i++) rank[i] = i;
    for (int i = 0; i < N_VOCAB; i++)
        for (int j = i + 1; j < N_VOCAB; j++)
            if (logits[rank[j]] > logits[rank[i]] || (logits[rank[j]] == logits[rank[i]] && rank[j] < rank[i])) {
                int t = rank[i];
                rank[i] = rank[j];
                rank[j] = t;
            }
    memset(p, 0, N_VOCAB * sizeof(*p));
    for (int i = 0; i < k; i++) sum += exp((double)logits[rank[i]] / (double)o->temperature);
    while (n < k && (n == 0 || kept < (double)o->top_p * sum)) {
        p[rank[n]] = exp((double)logits[rank[n]] / (double)o->temperature);
        kept += p[rank[n++]];
    }
    for (int i = 0; i < N_VOCAB; i++) p[i] /= kept;
    return n;
}

/* 20,000 draws, each at a position of its own. Chi-square with n - 1 degrees of
 * freedom passes n - 1 + 4 sqrt(2 (n - 1)) + 6 about once in 10^5 runs; the seed is
 * fixed, so this run passes or fails for ever. */
static void check_distribution(const float *logits, struct cts_sample_opts o)
{
    enum { N_DRAWS = 20000 };
    double p[N_VOCAB], chi2 = 0;
    int    count[N_VOCAB] = { 0 }, n = keep(logits, &o, p), n_cells = 0;
    double rest_p = 0, rest_n = 0;

    for (int i = 0; i < N_DRAWS; i++) {
        o.pos = (uint64_t)i;
        struct cts_sample s = sample(logits, &o);
        CHECK_MSG(p[s.token] > 0, "token %d is not among the %d kept\n", s.token, n);
        count[s.token]++;
    }
    for (int i = 0; i < N_VOCAB; i++) { /* cells that expect less than 5 go together */
        if (p[i] * N_DRAWS < 5) {
            rest_p += p[i];
            rest_n += count[i];
            continue;
        }
        chi2 += (count[i] - p[i] * N_DRAWS) * (count[i] - p[i] * N_DRAWS) / (p[i] * N_DRAWS);
        n_cells++;
    }
    if (rest_p * N_DRAWS >= 1) {
        chi2 += (rest_n - rest_p * N_DRAWS) * (rest_n - rest_p * N_DRAWS) / (rest_p * N_DRAWS);
        n_cells++;
    }
    CHECK_MSG(chi2 < n_cells - 1 + 4 * sqrt(2.0 * (n_cells - 1)) + 6, "chi2 %g over %d cells\n", chi2, n_cells);
}

static void sampling_follows_the_probabilities(void **state)
{
    float logits[N_VOCAB];

    (void)state;
    fill_logits(logits);
    check_distribution(logits, (struct cts_sample_opts){ .temperature = 1, .top_p = 1, .n_logprobs = -1, .seed = 1 });
    check_distribution(logits,
                       (struct cts_sample_opts){ .temperature = 0.5f, .top_p = 1, .n_logprobs = -1, .seed = 2 });
    check_distribution(logits, (struct cts_sample_opts){ .temperature = 2, .top_p = 1, .n_logprobs = -1, .seed = 3 });
}

static void top_k_and_top_p_keep_what_they_say(void **state)
{
    float logits[N_VOCAB];

    (void)state;
    fill_logits(logits);
    check_distribution(
        logits, (struct cts_sample_opts){ .temperature = 1, .top_p = 1, .top_k = 5, .n_logprobs = -1, .seed = 4 });
    check_distribution(logits,
                       (struct cts_sample_opts){ .temperature = 1, .top_p = 0.6f, .n_logprobs = -1, .seed = 5 });
    check_distribution(logits, (struct cts_sample_opts){
                                   .temperature = 1.5f, .top_p = 0.7f, .top_k = 9, .n_logprobs = -1, .seed = 6 });
    check_distribution(logits, (struct cts_sample_opts){
                                   .temperature = 1, .top_p = 0.99f, .top_k = 1000, .n_logprobs = -1, .seed = 7 });
    check_distribution(logits,
                       (struct cts_sample_opts){ .temperature = 1, .top_p = 1e-9f, .n_logprobs = -1, .seed = 8 });
    check_distribution(
        logits, (struct cts_sample_opts){ .temperature = 1, .top_p = 1, .top_k = 1, .n_logprobs = -1, .seed = 9 });
}

static void equal_logits_rank_by_token_id(void **state)
{
    float                  logits[N_VOCAB];
    struct cts_sample_opts o = { .temperature = 0, .top_p = 1, .n_logprobs = 3 };
    struct cts_sample      s;

    (void)state;
    for (int i = 0; i < N_VOCAB; i++) logits[i] = i % 5 == 3 ? 2.0f : 1.0f;
    s = sample(logits, &o);
    CHECK(s.token == 3);
    CHECK(s.n_top == 3);
    CHECK(s.top[0].id == 3 && s.top[1].id == 8 && s.top[2].id == 13);
    /* top-k cuts through the equals: only the lowest ids stay. */
    for (uint64_t pos = 0; pos < 200; pos++) {
        s = sample(logits, &(struct cts_sample_opts){
                               .temperature = 1, .top_p = 1, .top_k = 2, .n_logprobs = -1, .seed = 1, .pos = pos });
        CHECK(s.token == 3 || s.token == 8);
    }
}

static void logprobs_are_the_log_softmax_of_the_plain_logits(void **state)
{
    float                  logits[N_VOCAB];
    double                 sum = 0;
    struct cts_sample_opts o = { .temperature = 0.3f, .top_p = 0.5f, .top_k = 4, .n_logprobs = 20, .seed = 11 };
    struct cts_sample      s;

    (void)state;
    fill_logits(logits);
    for (int i = 0; i < N_VOCAB; i++) logits[i] += 500; /* exp would overflow without the shift */
    for (int i = 0; i < N_VOCAB; i++) sum += exp((double)logits[i] - 500);
    s = sample(logits, &o);
    CHECK(fabs((double)s.logprob - ((double)logits[s.token] - 500 - log(sum))) < 1e-6);
    CHECK(s.n_top == 20);
    for (uint32_t i = 0; i < s.n_top; i++) {
        CHECK(fabs((double)s.top[i].logit - ((double)logits[s.top[i].id] - 500 - log(sum))) < 1e-6);
        CHECK(i == 0 || s.top[i].logit < s.top[i - 1].logit);
    }
    o.n_logprobs = 0;
    CHECK(sample(logits, &o).n_top == 0);
    CHECK(sample(logits, &o).token == s.token);
}

static void a_row_that_is_not_numbers_is_refused(void **state)
{
    float                  logits[N_VOCAB];
    struct cts_sampler     s;
    struct cts_sample      out;
    struct cts_sample_opts o = { .temperature = 1, .top_p = 1, .n_logprobs = 1 };

    (void)state;
    CHECK(cts_sampler_init(&s, N_VOCAB) == 0);
    for (int at = 0; at < N_VOCAB; at += N_VOCAB - 1) {
        fill_logits(logits);
        logits[at] = NAN;
        CHECK(cts_sample(&s, logits, &o, &out) == CTS_EGPU);
        logits[at] = INFINITY;
        CHECK(cts_sample(&s, logits, &o, &out) == CTS_EGPU);
        logits[at] = -INFINITY; /* a token that is ruled out is a number like any other */
        CHECK(cts_sample(&s, logits, &o, &out) == 0);
    }
    for (int i = 0; i < N_VOCAB; i++) logits[i] = -INFINITY;
    CHECK(cts_sample(&s, logits, &o, &out) == CTS_EGPU);
    cts_sampler_deinit(&s);
}

static void extreme_temperatures_stay_finite(void **state)
{
    float                  logits[N_VOCAB];
    struct cts_sample_opts o = { .temperature = 1e-45f, .top_p = 1, .n_logprobs = -1, .seed = 5 };
    int                    best = 0;

    (void)state;
    fill_logits(logits);
    for (int i = 0; i < N_VOCAB; i++)
        if (logits[i] > logits[best]) best = i;
    CHECK(sample(logits, &o).token == best);
    o.top_k = 7;
    CHECK(sample(logits, &o).token == best);
    o.temperature = 3e38f;
    CHECK(sample(logits, &o).token >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_numbers),
        cmocka_unit_test(sampling_follows_the_probabilities),
        cmocka_unit_test(top_k_and_top_p_keep_what_they_say),
        cmocka_unit_test(equal_logits_rank_by_token_id),
        cmocka_unit_test(logprobs_are_the_log_softmax_of_the_plain_logits),
        cmocka_unit_test(a_row_that_is_not_numbers_is_refused),
        cmocka_unit_test(extreme_temperatures_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
