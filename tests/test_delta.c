#include "daemon/compress/delta.h"

#include "tests/check.h"
#include "tests/fault.h"
#include "tests/synth.h"

#include <errno.h>

/* |x - y| <= tol |y| */
static int is_near(double x, double y, double tol)
{
    return fabs(x - y) <= tol * fabs(y);
}

static void delta_norm_is_that_of_the_formed_product(void **state)
{
    uint64_t random = 1;

    (void)state;
    for (uint32_t rank = 1; rank <= 20; rank += 3) {
        struct cts_delta d = synth_delta(13, 9, rank, &random); /* ranks past both dimensions, too */
        double          *w = synth_form(&d), norm;

        d.scale = -d.scale;
        CHECK(cts_delta_norm(&d, &norm) == 0);
        CHECK(is_near(norm, sqrt(cts_sum_squares(w, 13 * 9)), 1e-12));
        free(w);
        synth_delta_free(&d);
    }
}

/* B = [b, -b] and A = [a; a (1 + tiny)]: the product is 2^-22 of its parts. */
static void delta_norm_is_right_where_the_factors_cancel(void **state)
{
    uint64_t         random = 2;
    struct cts_delta d = synth_delta(50, 40, 2, &random);
    float           *b = (float *)(uintptr_t)d.b, *a = (float *)(uintptr_t)d.a;
    double          *w, norm;

    (void)state;
    for (int i = 0; i < 50; i++) b[2 * i + 1] = -b[2 * i];
    for (int j = 0; j < 40; j++) a[40 + j] = a[j] * (1 + 0x1p-22f);
    w = synth_form(&d);
    CHECK(cts_delta_norm(&d, &norm) == 0);
    CHECK_MSG(is_near(norm, sqrt(cts_sum_squares(w, 50 * 40)), 1e-8), "%.17g\n", norm);
    free(w);
    synth_delta_free(&d);
}

static void delta_norm_of_zero_and_of_tiny_factors_is_exact(void **state)
{
    uint64_t         random = 3;
    struct cts_delta d = synth_delta(6, 5, 3, &random), one = d;
    float           *b = (float *)(uintptr_t)d.b;
    double           norm, of_one;

    (void)state;
    CHECK(cts_delta_norm(&one, &of_one) == 0);
    for (int i = 0; i < 18; i++) b[i] *= 0x1p-100f;
    CHECK(cts_delta_norm(&d, &norm) == 0 && is_near(norm, of_one * 0x1p-100, 1e-12));
    memset(b, 0, 18 * sizeof(*b));
    CHECK(cts_delta_norm(&d, &norm) == 0 && norm == 0);
    synth_delta_free(&d);
}

/* What cts_delta_lost must return, by forming everything. */
static double lost_formed(const struct cts_delta *d, const struct cts_pair *p)
{
    double *w = synth_form(d), sum;

    for (size_t i = 0; i < d->n_out; i++)
        for (size_t k = 0; k < p->k; k++)
            for (size_t j = 0; j < d->n_in; j++)
                w[i * d->n_in + j] -= p->c * p->pt[k * d->n_out + i] * p->qt[k * d->n_in + j];
    sum = cts_sum_squares(w, (size_t)d->n_out * d->n_in);
    free(w);
    return sum;
}

static void delta_lost_is_that_of_the_formed_difference(void **state)
{
    uint64_t         random = 4;
    struct cts_delta d = synth_delta(30, 20, 4, &random);
    double           pt[3 * 30], qt[3 * 20], norm, lost;
    struct cts_pair  p = { .k = 3, .c = 0.5, .pt = pt, .qt = qt };

    (void)state;
    for (int i = 0; i < 90; i++) pt[i] = (double)synth_value(&random);
    for (int i = 0; i < 60; i++) qt[i] = (double)synth_value(&random);
    CHECK(cts_delta_norm(&d, &norm) == 0);
    CHECK(cts_delta_lost(&d, &p, norm * norm, &lost) == 0);
    CHECK(is_near(lost, lost_formed(&d, &p), 1e-10));
    synth_delta_free(&d);
}

/* A pair that differs from dW by 2^-20 of one value: the loss is 1e-13 of the whole. */
static void delta_lost_keeps_its_digits_where_almost_nothing_is_lost(void **state)
{
    uint64_t         random = 5;
    struct cts_delta d = synth_delta(40, 30, 2, &random);
    double           pt[2 * 40], qt[2 * 30], norm, lost, want;
    struct cts_pair  p = { .k = 2, .c = 2.0, .pt = pt, .qt = qt };

    (void)state;
    for (size_t i = 0; i < 40; i++)
        for (size_t k = 0; k < 2; k++) pt[k * 40 + i] = (double)d.b[i * 2 + k];
    for (size_t i = 0; i < 60; i++) qt[i] = (double)d.a[i];
    CHECK(cts_delta_norm(&d, &norm) == 0);
    CHECK(cts_delta_lost(&d, &p, norm * norm, &lost) == 0);
    CHECK_MSG(lost >= 0 && lost <= 1e-28 * norm * norm, "%g\n", lost / norm / norm);
    pt[7] *= 1 + 0x1p-20;
    want = lost_formed(&d, &p);
    CHECK(want > 0 && want < 1e-11 * norm * norm);
    CHECK(cts_delta_lost(&d, &p, norm * norm, &lost) == 0);
    CHECK_MSG(is_near(lost, want, 1e-6), "%g, want %g\n", lost, want);
    synth_delta_free(&d);
}

static void delta_survives_failure_of_every_allocation(void **state)
{
    uint64_t         random = 6;
    struct cts_delta d = synth_delta(8, 7, 2, &random);
    double           pt[8] = { 1 }, qt[7] = { 1 }, norm, lost;
    struct cts_pair  p = { .k = 1, .c = 1, .pt = pt, .qt = qt };
    int              rc = -ENOMEM, n = 0;
    int64_t          n_live = fault_n_live();

    (void)state;
    for (; rc == -ENOMEM && n < 50; n++) {
        fault_after(n);
        rc = cts_delta_norm(&d, &norm);
        if (rc == 0) rc = cts_delta_lost(&d, &p, norm * norm, &lost);
        fault_after(-1);
        CHECK(fault_n_live() == n_live);
    }
    CHECK(rc == 0 && n > 5);
    synth_delta_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delta_norm_is_that_of_the_formed_product),
        cmocka_unit_test(delta_norm_is_right_where_the_factors_cancel),
        cmocka_unit_test(delta_norm_of_zero_and_of_tiny_factors_is_exact),
        cmocka_unit_test(delta_lost_is_that_of_the_formed_difference),
        cmocka_unit_test(delta_lost_keeps_its_digits_where_almost_nothing_is_lost),
        cmocka_unit_test(delta_survives_failure_of_every_allocation),
    };
    cts_linalg_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
