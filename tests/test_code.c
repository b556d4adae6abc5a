#include "daemon/compress/code.h"

#include "tests/check.h"
#include "tests/synth.h"

#include <float.h>

#define N_OUT 24
#define N_IN  18
#define RANK  4

static struct cts_delta delta;
static double           norm;
static struct cts_coder coder; /* rank RANK, of delta and two others */

static int setup(void **state)
{
    struct cts_joint_opts o = { .rank = RANK, .n_sweeps_max = 50, .tolerance = 1e-9 };
    struct cts_delta      d[3];
    double                norms[3];
    struct cts_stack      s;
    struct cts_joint      j;
    uint64_t              random = 1;

    (void)state;
    for (int i = 0; i < 3; i++) {
        d[i] = synth_delta(N_OUT, N_IN, 3, &random);
        CHECK(cts_delta_norm(&d[i], &norms[i]) == 0);
    }
    CHECK(cts_stack_build(&s, d, norms, 3) == 0 && cts_joint_fit(&j, &s, &o) == 0);
    CHECK(cts_coder_init(&coder, &j, CTS_F32) == 0);
    cts_joint_free(&j);
    cts_stack_free(&s);
    synth_delta_free(&d[1]);
    synth_delta_free(&d[2]);
    delta = d[0];
    norm = norms[0];
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cts_coder_free(&coder);
    synth_delta_free(&delta);
    return 0;
}

/* The share that is lost by what is stored, by forming both. */
static double error_formed(const struct cts_coder *c, const struct cts_delta *d, const struct cts_coded *k)
{
    double *w = synth_form(d), total = cts_sum_squares(w, (size_t)d->n_out * d->n_in), sum;
    float  *u, *vt;

    CHECK(cts_coder_basis(c, &u, &vt) == 0);
    for (size_t i = 0; i < d->n_out; i++)
        for (size_t j = 0; j < d->n_in; j++)
            for (size_t a = 0; a < c->rank; a++)
                for (size_t b = 0; b < c->rank; b++)
                    w[i * d->n_in + j] -= (double)k->scale * (double)u[i * c->rank + a] *
                                          (double)k->values[a * c->rank + b] * (double)vt[b * d->n_in + j];
    sum = cts_sum_squares(w, (size_t)d->n_out * d->n_in);
    free(u);
    free(vt);
    free(w);
    return sum / total;
}

static void sigma_error_is_that_of_the_stored_values(void **state)
{
    static const enum cts_dtype formats[] = { CTS_F32, CTS_BF16 };
    struct cts_coded            k;
    double                      error[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        CHECK(cts_coder_sigma(&coder, &delta, norm, formats[i], &k) == 0);
        CHECK(k.n_rows == RANK && k.n_cols == RANK && k.rank == 0 && k.scale == (float)norm);
        error[i] = k.lost / k.total;
        CHECK(fabs(error[i] - error_formed(&coder, &delta, &k)) < 1e-9);
        for (int v = 0; v < RANK * RANK && formats[i] == CTS_BF16; v++) {
            uint32_t bits;

            memcpy(&bits, &k.values[v], 4);
            CHECK((bits & 0xffff) == 0); /* what a slot will hold, already */
        }
        cts_coded_free(&k);
    }
    CHECK(error[0] > 0.01 && error[1] > error[0] && error[1] < error[0] + 1e-4);
}

/* A basis in bf16 is not quite orthonormal; the error must say so. */
static void sigma_error_counts_what_the_basis_lost_in_its_format(void **state)
{
    struct cts_joint j = {
        .n_out = N_OUT, .n_in = N_IN, .rank = 3, .ut = calloc(3 * N_OUT, 8), .vt = calloc(3 * N_IN, 8)
    };
    struct cts_coder      c;
    struct cts_coded      k;
    double                error;

    (void)state;
    CHECK(j.ut != NULL && j.vt != NULL);
    /* The exact spans of B and A: in float32 nothing would be lost. */
    for (size_t i = 0; i < N_OUT; i++)
        for (size_t r = 0; r < 3; r++) j.ut[r * N_OUT + i] = (double)delta.b[i * 3 + r];
    for (size_t i = 0; i < 3 * N_IN; i++) j.vt[i] = (double)delta.a[i];
    CHECK(cts_orth(j.ut, 3, N_OUT) == 0 && cts_orth(j.vt, 3, N_IN) == 0);
    CHECK(cts_coder_init(&c, &j, CTS_F32) == 0 && cts_coder_sigma(&c, &delta, norm, CTS_F32, &k) == 0);
    error = k.lost / k.total;
    CHECK_MSG(error > 1e-17 && error < 1e-12, "%g\n", error); /* from the residual's factors: not 0, not noise */
    CHECK(fabs(error - error_formed(&c, &delta, &k)) < 0.01 * error);
    cts_coded_free(&k);
    cts_coder_free(&c);
    CHECK(cts_coder_init(&c, &j, CTS_BF16) == 0 && cts_coder_sigma(&c, &delta, norm, CTS_F32, &k) == 0);
    error = k.lost / k.total;
    CHECK_MSG(error > 1e-7 && error < 1e-4, "%g\n", error);
    CHECK(fabs(error - error_formed(&c, &delta, &k)) < 1e-6 * error);
    cts_coded_free(&k);
    cts_coder_free(&c);
    cts_joint_free(&j);
}

static void sigma_of_a_zero_module_is_zero_and_has_no_error(void **state)
{
    struct cts_coded k;

    (void)state;
    memset((void *)(uintptr_t)delta.b, 0, N_OUT * 3 * sizeof(float));
    CHECK(cts_coder_sigma(&coder, &delta, 0, CTS_F32, &k) == 0);
    CHECK(k.scale == 0 && k.total == 0 && k.lost == 0);
    for (int i = 0; i < RANK * RANK; i++) CHECK(k.values[i] == 0);
    cts_coded_free(&k);
    CHECK(cts_code_pair(&delta, 0, 2, CTS_F32, &k) == 0);
    CHECK(k.rank == 2 && k.scale == 0 && k.total == 0 && k.lost == 0);
    for (int i = 0; i < 2 * (N_OUT + N_IN); i++) CHECK(k.values[i] == 0);
    cts_coded_free(&k);
}

/* Norms down to below what float32 holds: the error stays what it was. */
static void sigma_of_a_tiny_module_is_as_good_as_of_any(void **state)
{
    float            *b = (float *)(uintptr_t)delta.b, *a = (float *)(uintptr_t)delta.a;
    struct cts_coded  k;
    double            want, tiny;

    (void)state;
    CHECK(cts_coder_sigma(&coder, &delta, norm, CTS_F32, &k) == 0);
    want = k.lost / k.total;
    cts_coded_free(&k);
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < N_OUT * 3 && t == 0; i++) b[i] *= 0x1p-60f;
        for (int i = 0; i < N_IN * 3 && t == 1; i++) a[i] *= 0x1p-80f;
        CHECK(cts_delta_norm(&delta, &tiny) == 0 && tiny > 0);
        CHECK((tiny < (double)FLT_MIN) == (t == 1));
        CHECK(cts_coder_sigma(&coder, &delta, tiny, CTS_F32, &k) == 0);
        CHECK(isnormal(k.scale) && fabs(k.lost / k.total - want) < 1e-5);
        cts_coded_free(&k);
    }
}

static void sigma_of_a_negative_scale_turns_its_sign(void **state)
{
    struct cts_coded a, b;

    (void)state;
    CHECK(cts_coder_sigma(&coder, &delta, norm, CTS_F32, &a) == 0);
    delta.scale = -delta.scale;
    CHECK(cts_coder_sigma(&coder, &delta, norm, CTS_F32, &b) == 0);
    CHECK(b.scale == a.scale && b.values[0] == -a.values[0] && b.lost == a.lost);
    cts_coded_free(&a);
    cts_coded_free(&b);
}

static void pair_keeps_the_largest_singular_values(void **state)
{
    double           *w = synth_form(&delta), s[N_IN], u[N_OUT * N_IN], vt[N_IN * N_IN];
    struct cts_coded  k;

    (void)state;
    CHECK(cts_svd(w, N_OUT, N_IN, s, u, vt) == 0);
    for (uint32_t rank = 1; rank <= 3; rank++) {
        double lost = 0;

        for (int i = (int)rank; i < 3; i++) lost += s[i] * s[i];
        CHECK(cts_code_pair(&delta, norm, rank, CTS_F32, &k) == 0);
        CHECK(k.rank == rank && k.n_rows == N_OUT && k.n_cols == N_IN);
        CHECK(fabs(k.lost / k.total - lost / norm / norm) < 1e-12 + 1e-7 * lost);
        /* Split evenly: both factors' columns have the same length. */
        double p = 0, q = 0;
        for (size_t i = 0; i < N_OUT; i++) p += (double)k.values[i * rank] * (double)k.values[i * rank];
        for (size_t i = 0; i < N_IN; i++) q += pow((double)k.values[N_OUT * rank + i], 2);
        CHECK(fabs(p - q) < 1e-5 * p);
        cts_coded_free(&k);
    }
    CHECK(cts_code_pair(&delta, norm, 100, CTS_BF16, &k) == 0);
    CHECK(k.rank == 3 && k.lost / k.total > 1e-8 && k.lost / k.total < 1e-4); /* only the format's */
    cts_coded_free(&k);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sigma_error_is_that_of_the_stored_values, setup, teardown),
        cmocka_unit_test_setup_teardown(sigma_error_counts_what_the_basis_lost_in_its_format, setup, teardown),
        cmocka_unit_test_setup_teardown(sigma_of_a_zero_module_is_zero_and_has_no_error, setup, teardown),
        cmocka_unit_test_setup_teardown(sigma_of_a_tiny_module_is_as_good_as_of_any, setup, teardown),
        cmocka_unit_test_setup_teardown(sigma_of_a_negative_scale_turns_its_sign, setup, teardown),
        cmocka_unit_test_setup_teardown(pair_keeps_the_largest_singular_values, setup, teardown),
    };
    cts_linalg_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
