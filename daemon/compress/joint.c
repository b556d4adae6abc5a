#include "daemon/compress/joint.h"

#include "common/assert.h"
#include "daemon/compress/linalg.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define START_STEPS 32 /* of power iteration from random signs, on a side too long for LAPACK */
#define SOLVE_STEPS 12 /* on such a side from the old basis: what a half-sweep counts as solved */

static int stack_alloc(struct cts_stack *s)
{
    s->first = calloc((size_t)s->n + 1, sizeof(*s->first));
    s->bt = cts_doubles(s->n_rows, s->n_out);
    s->a = cts_doubles(s->n_rows, s->n_in);
    return s->first != NULL && s->bt != NULL && s->a != NULL ? 0 : -ENOMEM;
}

int cts_stack_build(struct cts_stack *s, const struct cts_delta *d, const double *norm, uint32_t n)
{
    CTS_ASSERT(n > 0);
    *s = (struct cts_stack){ .n = n, .n_out = d[0].n_out, .n_in = d[0].n_in };
    for (uint32_t j = 0; j < n; j++) s->n_rows += d[j].rank;
    if (stack_alloc(s) < 0) {
        cts_stack_free(s);
        return -ENOMEM;
    }
    for (uint32_t j = 0, row = 0; j < n; row += d[j].rank, j++) {
        double *bt = s->bt + (size_t)row * s->n_out, *a = s->a + (size_t)row * s->n_in, by = d[j].scale / norm[j];

        CTS_ASSERT(d[j].n_out == s->n_out && d[j].n_in == s->n_in);
        for (size_t i = 0; i < s->n_out; i++)
            for (size_t k = 0; k < d[j].rank; k++) bt[k * s->n_out + i] = by * d[j].b[i * d[j].rank + k];
        for (size_t i = 0; i < (size_t)d[j].rank * s->n_in; i++) a[i] = d[j].a[i];
        s->first[j + 1] = row + d[j].rank;
    }
    return 0;
}

int cts_stack_pick(struct cts_stack *s, const struct cts_stack *all, const uint32_t *pick, uint32_t n)
{
    *s = (struct cts_stack){ .n = n, .n_out = all->n_out, .n_in = all->n_in };
    for (uint32_t j = 0; j < n; j++) s->n_rows += all->first[pick[j] + 1] - all->first[pick[j]];
    if (stack_alloc(s) < 0) {
        cts_stack_free(s);
        return -ENOMEM;
    }
    for (uint32_t j = 0; j < n; j++) {
        size_t from = all->first[pick[j]], rows = all->first[pick[j] + 1] - from, to = s->first[j];

        memcpy(s->bt + to * s->n_out, all->bt + from * s->n_out, rows * s->n_out * sizeof(*s->bt));
        memcpy(s->a + to * s->n_in, all->a + from * s->n_in, rows * s->n_in * sizeof(*s->a));
        s->first[j + 1] = (uint32_t)(to + rows);
    }
    return 0;
}

void cts_stack_free(struct cts_stack *s)
{
    free(s->a);
    free(s->bt);
    free(s->first);
    *s = (struct cts_stack){ 0 };
}

/* One side of the problem: the stacked factors in coordinates of their span,
 * and the basis in the same coordinates. */
struct side {
    uint32_t n, d;   /* length of the module's side, of the coordinates */
    double  *q;      /* [d, n]: the orthonormal rows that the coordinates are of; NULL when d == n */
    double  *x;      /* [n_rows, d] */
    double  *basis;  /* [rank, d] */
    double  *best;   /* [rank, d] */
    double  *p;      /* [n_rows, rank]: x basis^T */
};

struct work {
    const struct cts_stack *s;
    uint32_t                rank;
    struct side             u, v;
    double                 *w;   /* [n, rank, rank]: U^T dW_j V */
    double                 *mix; /* [n_rows, rank] */
    double                 *g;   /* [rank, rank] */
    double                 *z, *m, *eigen, *oo; /* solve_side's: [n_rows, d], [d, d], [d], [ranks_max, ranks_max] */
};

/* Coordinates of the rows of x [n_rows, n] in their own span where it is smaller than n: x = R^T Q. */
static int side_init(struct side *e, const double *x, uint32_t n_rows, uint32_t n, uint32_t rank)
{
    double *rr = NULL;
    int     rc = 0;

    e->n = n;
    e->d = n_rows < n ? n_rows : n;
    e->x = cts_doubles(n_rows, e->d);
    e->basis = cts_doubles(rank, e->d);
    e->best = cts_doubles(rank, e->d);
    e->p = cts_doubles(n_rows, rank);
    if (e->x == NULL || e->basis == NULL || e->best == NULL || e->p == NULL) return -ENOMEM;
    if (e->d == n) {
        memcpy(e->x, x, (size_t)n_rows * n * sizeof(*x));
        return 0;
    }
    e->q = cts_doubles(n_rows, n);
    rr = cts_doubles(n_rows, n_rows);
    if (e->q == NULL || rr == NULL) rc = -ENOMEM;
    if (rc == 0) {
        memcpy(e->q, x, (size_t)n_rows * n * sizeof(*x));
        rc = cts_qr(e->q, n_rows, n, rr, 1);
    }
    for (size_t i = 0; i < n_rows && rc == 0; i++)
        for (size_t j = 0; j < n_rows; j++) e->x[i * n_rows + j] = rr[j * n_rows + i];
    free(rr);
    return rc;
}

static void side_free(struct side *e)
{
    free(e->p);
    free(e->best);
    free(e->basis);
    free(e->x);
    free(e->q);
}

static int is_solvable(const struct side *e)
{
    return e->d <= CTS_JOINT_EXACT_MAX;
}

/* What solve_side needs for the longer of the sides that it may see. */
static int work_init_solver(struct work *k)
{
    const struct cts_stack *s = k->s;
    size_t                  d = 0, ranks_max = 1;

    if (is_solvable(&k->u)) d = k->u.d;
    if (is_solvable(&k->v) && k->v.d > d) d = k->v.d;
    if (d == 0) return 0;
    for (uint32_t j = 0; j < s->n; j++)
        if (s->first[j + 1] - s->first[j] > ranks_max) ranks_max = s->first[j + 1] - s->first[j];
    k->z = cts_doubles(s->n_rows, d);
    k->m = cts_doubles(d, d);
    k->eigen = cts_doubles(d, 1);
    k->oo = cts_doubles(ranks_max, ranks_max);
    return k->z != NULL && k->m != NULL && k->eigen != NULL && k->oo != NULL ? 0 : -ENOMEM;
}

static int work_init(struct work *k, const struct cts_stack *s, uint32_t rank, int is_solving)
{
    int rc;

    *k = (struct work){ .s = s, .rank = rank };
    k->w = cts_doubles((size_t)s->n * rank, rank);
    k->mix = cts_doubles(s->n_rows, rank);
    k->g = cts_doubles(rank, rank);
    if (k->w == NULL || k->mix == NULL || k->g == NULL) return -ENOMEM;
    if ((rc = side_init(&k->u, s->bt, s->n_rows, s->n_out, rank)) < 0) return rc;
    if ((rc = side_init(&k->v, s->a, s->n_rows, s->n_in, rank)) < 0) return rc;
    return is_solving ? work_init_solver(k) : 0;
}

static void work_free(struct work *k)
{
    side_free(&k->v);
    side_free(&k->u);
    free(k->oo);
    free(k->eigen);
    free(k->m);
    free(k->z);
    free(k->g);
    free(k->mix);
    free(k->w);
}

static void project(struct work *k, struct side *e)
{
    cts_mul_nt(k->s->n_rows, k->rank, e->d, e->x, e->basis, e->p);
}

/* w_j = U^T dW_j V for every adapter, from the projected factors; the objective. */
static double project_all(struct work *k)
{
    size_t r = k->rank;

    for (uint32_t j = 0; j < k->s->n; j++) {
        size_t row = k->s->first[j];

        cts_mul_tn(k->rank, k->rank, k->s->first[j + 1] - k->s->first[j], k->u.p + row * r, k->v.p + row * r,
                   k->w + j * r * r);
    }
    return cts_sum_squares(k->w, k->s->n * r * r);
}

/* A half-sweep: one side from the other's projections o [n_rows, rank], which
 * stand still meanwhile: the leading space of sum_j x_j^T (o_j o_j^T) x_j, that
 * is U from sum_j dW_j V V^T dW_j^T, or V likewise. o NULL: of sum_j x_j^T x_j.
 *
 * By power iteration, basis <- orth(sum_j x_j^T o_j o_j^T x_j basis), from the old basis. */
static int iterate_side(struct work *k, struct side *e, const double *o, uint32_t n_steps)
{
    const struct cts_stack *s = k->s;
    size_t                  r = k->rank;
    int                     rc = 0;

    for (uint32_t i = 0; i < n_steps && rc == 0; i++) {
        project(k, e);
        if (o == NULL) memcpy(k->mix, e->p, s->n_rows * r * sizeof(*k->mix));
        for (uint32_t j = 0; j < s->n && o != NULL; j++) {
            size_t   row = s->first[j] * r;
            uint32_t rows = s->first[j + 1] - s->first[j];

            cts_mul_tn(k->rank, k->rank, rows, o + row, e->p + row, k->g);
            cts_mul_nn(rows, k->rank, k->rank, o + row, k->g, k->mix + row);
        }
        cts_mul_tn(k->rank, e->d, s->n_rows, k->mix, e->x, e->basis);
        rc = cts_orth(e->basis, k->rank, e->d);
    }
    return rc;
}

/* The same by LAPACK, in coordinates. */
static int solve_side(struct work *k, struct side *e, const double *o)
{
    const struct cts_stack *s = k->s;
    const double           *z = o == NULL ? e->x : k->z;
    int                     rc;

    for (uint32_t j = 0; j < s->n && o != NULL; j++) {
        size_t   row = s->first[j];
        uint32_t rows = s->first[j + 1] - s->first[j];

        cts_gram(rows, k->rank, o + row * k->rank, k->oo);
        cts_mul_nn(rows, e->d, rows, k->oo, e->x + row * e->d, k->z + row * e->d);
    }
    cts_mul_tn(e->d, e->d, s->n_rows, e->x, z, k->m);
    rc = cts_eigen(k->m, e->d, k->eigen);
    if (rc == 0) memcpy(e->basis, k->m, (size_t)k->rank * e->d * sizeof(*k->m));
    return rc;
}

/* Solved exactly, one half-sweep is the best that can be done with the other
 * side as it is: the sweeps are fewer, never lose, and end in the same optimum
 * whatever the machine rounds. Power steps alone end in others, up to 15 % worse
 * for one adapter at the same total. */
static int half_sweep(struct work *k, struct side *e, const struct side *o, uint32_t n_steps)
{
    int rc;

    if (n_steps == 0 && is_solvable(e)) rc = solve_side(k, e, o->p);
    else rc = iterate_side(k, e, o->p, n_steps == 0 ? SOLVE_STEPS : n_steps);
    if (rc == 0) project(k, e);
    return rc;
}

static int sweep(struct work *k, uint32_t n_steps, double *objective)
{
    int rc = half_sweep(k, &k->u, &k->v, n_steps);

    if (rc == 0) rc = half_sweep(k, &k->v, &k->u, n_steps);
    if (rc == 0) *objective = project_all(k);
    return rc;
}

/* One side without an old basis. */
static int start_side(struct work *k, struct side *e, const double *o, uint64_t *random)
{
    int rc;

    if (is_solvable(e)) return solve_side(k, e, o);
    cts_random_signs(random, e->basis, (size_t)k->rank * e->d);
    rc = cts_orth(e->basis, k->rank, e->d);
    return rc < 0 ? rc : iterate_side(k, e, o, START_STEPS);
}

/* A start from a given basis [rank, n], filled up with random rows or cut to this rank. */
static int start_warm(struct work *k, struct side *e, const double *given, uint32_t rank, uint64_t *random)
{
    uint32_t both = rank < k->rank ? rank : k->rank;

    if (both > 0 && e->q != NULL) cts_mul_nt(both, e->d, e->n, given, e->q, e->basis);
    else if (both > 0) memcpy(e->basis, given, (size_t)both * e->d * sizeof(*given));
    cts_random_signs(random, e->basis + (size_t)both * e->d, (size_t)(k->rank - both) * e->d);
    return cts_orth(e->basis, k->rank, e->d);
}

/* Cold: V spans what the stacked A span most, U is the best for that V. */
static int start(struct work *k, const struct cts_joint_opts *o)
{
    uint64_t random = cts_random_stream(o->seed, 0);
    int      rc;

    if (o->start != NULL) {
        rc = start_warm(k, &k->u, o->start->ut, o->start->rank, &random);
        return rc < 0 ? rc : start_warm(k, &k->v, o->start->vt, o->start->rank, &random);
    }
    rc = start_side(k, &k->v, NULL, &random);
    if (rc < 0) return rc;
    project(k, &k->v);
    return start_side(k, &k->u, k->v.p, &random);
}

static void keep_best(struct work *k)
{
    memcpy(k->u.best, k->u.basis, (size_t)k->rank * k->u.d * sizeof(double));
    memcpy(k->v.best, k->v.basis, (size_t)k->rank * k->v.d * sizeof(double));
}

/* Sweep until the objective rests. Power steps are not monotone, so the best
 * pair seen is what counts; it is in basis afterwards, with its projections. */
static int iterate(struct work *k, const struct cts_joint_opts *o, struct cts_joint *out)
{
    double now, before, best;
    int    rc = 0;

    project(k, &k->u);
    project(k, &k->v);
    now = best = project_all(k);
    keep_best(k);
    while (out->n_sweeps < o->n_sweeps_max) {
        before = now;
        if ((rc = sweep(k, o->n_steps, &now)) < 0) return rc;
        out->n_sweeps++;
        if (now > best) {
            best = now;
            keep_best(k);
        }
        if (fabs(now - before) <= o->tolerance * now) break;
    }
    memcpy(k->u.basis, k->u.best, (size_t)k->rank * k->u.d * sizeof(double));
    memcpy(k->v.basis, k->v.best, (size_t)k->rank * k->v.d * sizeof(double));
    project(k, &k->u);
    project(k, &k->v);
    out->objective = project_all(k);
    return 0;
}

/* The first component of largest absolute value of each row becomes positive. */
static void fix_signs(double *xt, uint32_t r, uint32_t n)
{
    for (size_t k = 0; k < r; k++) {
        double *row = xt + k * n;
        size_t  top = 0;

        for (size_t i = 1; i < n; i++)
            if (fabs(row[i]) > fabs(row[top])) top = i;
        double sign = row[top] < 0 ? -1.0 : 1.0;

        for (size_t i = 0; i < n; i++) row[i] *= sign;
    }
}

/* The basis of one side in the module's own coordinates, its columns turned
 * into the eigenvectors of energy [rank, rank] and ordered by them. *out is the caller's. */
static int lift(struct work *k, struct side *e, double *energy, double **out)
{
    uint32_t r = k->rank;
    double  *w = cts_doubles(r, 1), *turned = cts_doubles(r, e->d);
    int      rc;

    *out = cts_doubles(r, e->n);
    rc = w == NULL || turned == NULL || *out == NULL ? -ENOMEM : cts_eigen(energy, r, w);
    if (rc == 0) {
        cts_mul_nn(r, e->d, r, energy, e->basis, turned);
        if (e->q != NULL) cts_mul_nn(r, e->n, e->d, turned, e->q, *out);
        else memcpy(*out, turned, (size_t)r * e->n * sizeof(double));
        fix_signs(*out, r, e->n);
    }
    free(turned);
    free(w);
    return rc;
}

/* g = sum_j w_j w_j^T, or of w_j^T w_j. h: scratch. */
static void sum_energy(const struct work *k, int of_u, double *g, double *h)
{
    size_t rr = (size_t)k->rank * k->rank;

    memset(g, 0, rr * sizeof(*g));
    for (uint32_t j = 0; j < k->s->n; j++) {
        const double *w = k->w + j * rr;

        if (of_u) cts_mul_nt(k->rank, k->rank, k->rank, w, w, h);
        else cts_mul_tn(k->rank, k->rank, k->rank, w, w, h);
        for (size_t i = 0; i < rr; i++) g[i] += h[i];
    }
}

static int finish(struct work *k, struct cts_joint *out)
{
    double *h = cts_doubles(k->rank, k->rank);
    int     rc = h == NULL ? -ENOMEM : 0;

    if (rc == 0) {
        sum_energy(k, 1, k->g, h);
        rc = lift(k, &k->u, k->g, &out->ut);
    }
    if (rc == 0) {
        sum_energy(k, 0, k->g, h);
        rc = lift(k, &k->v, k->g, &out->vt);
    }
    free(h);
    return rc;
}

int cts_joint_fit(struct cts_joint *out, const struct cts_stack *s, const struct cts_joint_opts *o)
{
    struct work k;
    uint32_t    rank = o->rank;
    int         rc;

    CTS_ASSERT(s->n > 0);
    CTS_ASSERT(o->rank > 0);
    if (rank > s->n_out) rank = s->n_out;
    if (rank > s->n_in) rank = s->n_in;
    if (rank > s->n_rows) rank = s->n_rows;
    *out = (struct cts_joint){ .n_out = s->n_out, .n_in = s->n_in, .rank = rank };
    if ((rc = work_init(&k, s, rank, o->n_steps == 0 || o->start == NULL)) == 0 && (rc = start(&k, o)) == 0 &&
        (rc = iterate(&k, o, out)) == 0)
        rc = finish(&k, out);
    work_free(&k);
    if (rc < 0) cts_joint_free(out);
    return rc;
}

void cts_joint_free(struct cts_joint *j)
{
    free(j->vt);
    free(j->ut);
    *j = (struct cts_joint){ 0 };
}
