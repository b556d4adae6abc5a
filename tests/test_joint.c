#include "daemon/compress/joint.h"

#include "tests/check.h"
#include "tests/fault.h"
#include "tests/synth.h"

#include <errno.h>

#define N_MAX 12

struct problem {
    uint32_t         n;
    struct cts_delta d[N_MAX];
    double           norm[N_MAX];
    struct cts_stack s;
};

static void make(struct problem *p, uint32_t n, uint32_t n_out, uint32_t n_in, uint32_t rank, uint64_t seed)
{
    p->n = n;
    for (uint32_t i = 0; i < n; i++) {
        p->d[i] = synth_delta(n_out, n_in, rank, &seed);
        CHECK(cts_delta_norm(&p->d[i], &p->norm[i]) == 0);
    }
    CHECK(cts_stack_build(&p->s, p->d, p->norm, n) == 0);
}

static void unmake(struct problem *p)
{
    cts_stack_free(&p->s);
    for (uint32_t i = 0; i < p->n; i++) synth_delta_free(&p->d[i]);
}

static struct cts_joint fit(const struct problem *p, uint32_t rank, uint32_t n_steps)
{
    struct cts_joint_opts o = { .rank = rank, .n_sweeps_max = CTS_JOINT_SWEEPS_MAX, .n_steps = n_steps,
                                .tolerance = CTS_JOINT_TOLERANCE, .seed = 1 };
    struct cts_joint      j;

    CHECK(cts_joint_fit(&j, &p->s, &o) == 0);
    return j;
}

/* sigma [rank, rank] = U^T dW V / |dW| by forming dW. */
static void sigma_formed(const struct problem *p, uint32_t i, const struct cts_joint *j, double *sigma)
{
    double *w = synth_form(&p->d[i]), *uw = calloc((size_t)j->rank * j->n_in, sizeof(*uw));

    CHECK(uw != NULL);
    cts_mul_nn(j->rank, j->n_in, j->n_out, j->ut, w, uw);
    cts_mul_nt(j->rank, j->rank, j->n_in, uw, j->vt, sigma);
    for (uint32_t k = 0; k < j->rank * j->rank; k++) sigma[k] /= p->norm[i];
    free(uw);
    free(w);
}

static void check_orthonormal(const double *xt, uint32_t r, uint32_t n)
{
    double g[16 * 16];

    CHECK(r <= 16);
    cts_gram(r, n, xt, g);
    for (uint32_t i = 0; i < r; i++)
        for (uint32_t k = 0; k < r; k++) CHECK(fabs(g[i * r + k] - (i == k)) < 1e-12);
}

static void check_signs(const double *xt, uint32_t r, uint32_t n)
{
    for (size_t k = 0; k < r; k++) {
        size_t top = 0;

        for (size_t i = 1; i < n; i++)
            if (fabs(xt[k * n + i]) > fabs(xt[k * n + top])) top = i;
        CHECK(xt[k * n + top] > 0);
    }
}

/* The columns' energies in all adapters' sigmas descend, on both sides, and add up to the objective. */
static void check_energies(const struct problem *p, const struct cts_joint *j)
{
    double u[16] = { 0 }, v[16] = { 0 }, sigma[16 * 16], sum = 0;
    size_t r = j->rank;

    for (uint32_t i = 0; i < p->n; i++) {
        sigma_formed(p, i, j, sigma);
        for (size_t a = 0; a < r; a++)
            for (size_t b = 0; b < r; b++) {
                double e = sigma[a * r + b] * sigma[a * r + b];

                u[a] += e;
                v[b] += e;
                sum += e;
            }
    }
    CHECK(fabs(sum - j->objective) < 1e-9 * sum);
    for (size_t k = 1; k < r; k++) CHECK(u[k] <= u[k - 1] * (1 + 1e-9) && v[k] <= v[k - 1] * (1 + 1e-9));
}

/* Shapes on both sides of the module and of the span of the factors: n * rank
 * below, between and above the dimensions. Both ways of a half-sweep. */
static void joint_bases_are_orthonormal_ordered_and_signed(void **state)
{
    static const uint32_t shapes[][4] = { /* n, n_out, n_in, rank */
                                          { 3, 40, 30, 2 }, { 10, 40, 12, 3 }, { 12, 7, 9, 4 }, { 1, 20, 20, 5 } };
    struct problem p;

    (void)state;
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (uint32_t n_steps = 0; n_steps < 2; n_steps++) {
            make(&p, shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3], s);
            struct cts_joint j = fit(&p, 4, n_steps);

            CHECK(j.rank == 4);
            check_orthonormal(j.ut, j.rank, j.n_out);
            check_orthonormal(j.vt, j.rank, j.n_in);
            check_signs(j.ut, j.rank, j.n_out);
            check_signs(j.vt, j.rank, j.n_in);
            check_energies(&p, &j);
            cts_joint_free(&j);
            unmake(&p);
        }
}

/* Of one adapter the best bases are its singular vectors: what is kept is known. */
static void joint_of_one_adapter_keeps_its_largest_singular_values(void **state)
{
    struct problem   p;
    struct cts_joint j;
    double          *w, s[15], u[20 * 15], vt[15 * 15], kept = 0;

    (void)state;
    make(&p, 1, 20, 15, 6, 3);
    j = fit(&p, 3, 0);
    w = synth_form(&p.d[0]);
    CHECK(cts_svd(w, 20, 15, s, u, vt) == 0);
    for (int k = 0; k < 3; k++) kept += s[k] * s[k] / p.norm[0] / p.norm[0];
    CHECK_MSG(fabs(j.objective - kept) < 1e-6, "%.9f, want %.9f\n", j.objective, kept);
    free(w);
    cts_joint_free(&j);
    unmake(&p);
}

static void joint_loses_nothing_once_the_rank_holds_every_factor(void **state)
{
    struct problem   p;
    struct cts_joint j;

    (void)state;
    make(&p, 3, 40, 30, 2, 5);
    j = fit(&p, 100, 0);
    CHECK(j.rank == 6); /* the sum of the ranks */
    CHECK(fabs(j.objective - 3) < 1e-12);
    cts_joint_free(&j);
    unmake(&p);
    make(&p, 12, 7, 30, 4, 6);
    j = fit(&p, 100, 0);
    CHECK(j.rank == 7); /* n_out */
    cts_joint_free(&j);
    unmake(&p);
}

/* No pair near the fitted one keeps more: it is an optimum. */
static void joint_is_not_beaten_by_its_neighbours(void **state)
{
    struct problem        p;
    struct cts_joint      j, other;
    struct cts_joint_opts still = { .rank = 4, .n_sweeps_max = 0 };
    uint64_t              random = 9;

    (void)state;
    make(&p, 10, 40, 30, 3, 8);
    j = fit(&p, 4, 0);
    for (int t = 0; t < 20; t++) {
        struct cts_joint near = { .n_out = 40, .n_in = 30, .rank = 4, .ut = malloc(160 * 8), .vt = malloc(120 * 8) };

        CHECK(near.ut != NULL && near.vt != NULL);
        for (int i = 0; i < 160; i++) near.ut[i] = j.ut[i] + 0.02 * (double)synth_value(&random);
        for (int i = 0; i < 120; i++) near.vt[i] = j.vt[i] + 0.02 * (double)synth_value(&random);
        still.start = &near;
        CHECK(cts_joint_fit(&other, &p.s, &still) == 0); /* takes the start as it is */
        CHECK(other.n_sweeps == 0 && other.objective < j.objective);
        cts_joint_free(&other);
        cts_joint_free(&near);
    }
    cts_joint_free(&j);
    unmake(&p);
}

static void joint_goes_on_from_a_start_of_any_rank(void **state)
{
    struct problem        p;
    struct cts_joint      j, again;
    struct cts_joint_opts o = { .n_sweeps_max = 50, .tolerance = 1e-9, .start = &j };

    (void)state;
    make(&p, 6, 40, 30, 3, 10);
    j = fit(&p, 4, 0);
    for (o.rank = 2; o.rank <= 8; o.rank += 3) {
        CHECK(cts_joint_fit(&again, &p.s, &o) == 0);
        CHECK(again.rank == o.rank && (again.objective > j.objective) == (o.rank > 4));
        cts_joint_free(&again);
    }
    cts_joint_free(&j);
    unmake(&p);
}

static void joint_gives_the_same_bits_again(void **state)
{
    struct problem   p;
    struct cts_joint a, b;

    (void)state;
    make(&p, 10, 40, 30, 3, 11);
    a = fit(&p, 5, 0);
    b = fit(&p, 5, 0);
    CHECK(memcmp(a.ut, b.ut, 5 * 40 * sizeof(double)) == 0 && memcmp(a.vt, b.vt, 5 * 30 * sizeof(double)) == 0);
    cts_joint_free(&a);
    cts_joint_free(&b);
    unmake(&p);
}

static void joint_fit_survives_failure_of_every_allocation(void **state)
{
    struct cts_joint_opts o = { .rank = 3, .n_sweeps_max = 3, .tolerance = 1e-6 };
    struct problem        p;
    struct cts_joint      j = { 0 };
    int                   rc = -ENOMEM, n;
    int64_t               n_live;

    (void)state;
    make(&p, 3, 20, 10, 2, 12);
    n_live = fault_n_live();
    for (n = 0; rc == -ENOMEM && n < 200; n++) {
        fault_after(n);
        rc = cts_joint_fit(&j, &p.s, &o);
        fault_after(-1);
        if (rc < 0) CHECK(fault_n_live() == n_live && j.ut == NULL && j.vt == NULL);
    }
    CHECK(rc == 0 && n > 15);
    cts_joint_free(&j);
    CHECK(fault_n_live() == n_live);
    unmake(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joint_bases_are_orthonormal_ordered_and_signed),
        cmocka_unit_test(joint_of_one_adapter_keeps_its_largest_singular_values),
        cmocka_unit_test(joint_loses_nothing_once_the_rank_holds_every_factor),
        cmocka_unit_test(joint_is_not_beaten_by_its_neighbours),
        cmocka_unit_test(joint_goes_on_from_a_start_of_any_rank),
        cmocka_unit_test(joint_gives_the_same_bits_again),
        cmocka_unit_test(joint_fit_survives_failure_of_every_allocation),
    };
    cts_linalg_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
