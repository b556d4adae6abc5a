#include "daemon/compress/cluster.h"

#include "common/assert.h"
#include "daemon/compress/joint.h"
#include "daemon/compress/linalg.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SKETCH       8   /* a module's sketch is SKETCH x SKETCH numbers */
#define KMEANS_RUNS  16  /* each from other centres; the best STARTS of them are refined */
#define KMEANS_STEPS 50
#define STARTS       3
#define ROUNDS_MAX   20  /* of assignment and refit; nobody moves long before */
#define ROUND_SWEEPS 6   /* of a fit that the next round continues */
#define ROUND_TOLERANCE 1e-4

/* A module's adapters that change it, stacked, and what is found of it. */
struct module_data {
    uint32_t         n;
    uint32_t        *adapter; /* [n] index in the set */
    struct cts_stack stack;
    struct cts_joint *fitted; /* [n_clusters]; rank 0: none yet */
    double           *gain;   /* [n_adapters, n_clusters]: share of the adapter's change that is kept */
};

struct search {
    const struct cts_adapter_set   *set;
    const struct cts_compress_opts *o;
    uint32_t                        n, k;
    size_t                          n_features;
    struct module_data             *modules;  /* [set->n_modules] */
    double                         *features; /* [n, n_features], rows of length 1 */
    const uint32_t                 *cluster;  /* [n], of the round that runs */
    uint32_t                        n_done, n_total;
};

static double *doubles(size_t n, size_t m)
{
    return calloc(n * m + 1, sizeof(double));
}

static void on_done(void *arg, uint32_t n_done)
{
    struct search *s = arg;

    (void)n_done; /* of this round; the bar shows rounds */
    if (s->o->on_progress != NULL) s->o->on_progress(s->o->on_progress_arg, "clustering", s->n_done, s->n_total);
}

static int run_tasks(struct search *s, cts_task_fn run, struct cts_err *err)
{
    struct cts_tasks t = { .n_tasks = s->set->n_modules, .run = run, .arg = s, .on_done = on_done, .on_done_arg = s };

    return cts_tasks_run(&t, s->o->n_threads, err);
}

/* ---- the sketch ---- */

/* The adapters that change the module, stacked and of norm 1. */
static int gather(struct search *s, uint32_t module_idx, struct module_data *m)
{
    struct cts_delta *d = calloc(s->n, sizeof(*d));
    double           *norm = calloc(s->n, sizeof(*norm));
    int               rc = 0;

    m->adapter = calloc(s->n, sizeof(*m->adapter));
    m->fitted = calloc(s->k, sizeof(*m->fitted));
    m->gain = doubles(s->n, s->k);
    if (d == NULL || norm == NULL || m->adapter == NULL || m->fitted == NULL || m->gain == NULL) rc = -ENOMEM;
    for (uint32_t i = 0; i < s->n && rc == 0; i++)
        if (cts_adapter_set_delta(s->set, i, module_idx, &d[m->n], &norm[m->n]) && norm[m->n] > 0) m->adapter[m->n++] = i;
    if (rc == 0 && m->n > 0) rc = cts_stack_build(&m->stack, d, norm, m->n);
    free(norm);
    free(d);
    return rc;
}

/* Task: gather one module and write its SKETCH x SKETCH features P dW Q^T, P and Q of random signs. */
static int sketch_task(void *arg, uint32_t module_idx, struct cts_err *err)
{
    struct search      *s = arg;
    struct module_data *m = &s->modules[module_idx];
    uint64_t            random = cts_random_stream(s->o->seed, UINT32_MAX - (uint64_t)module_idx);
    double             *p = NULL, *q = NULL, *x = NULL, *y = NULL;
    int                 rc = gather(s, module_idx, m);

    if (rc < 0 || m->n == 0) goto out;
    p = doubles(SKETCH, m->stack.n_out);
    q = doubles(SKETCH, m->stack.n_in);
    x = doubles(m->stack.n_rows, SKETCH);
    y = doubles(m->stack.n_rows, SKETCH);
    if (p == NULL || q == NULL || x == NULL || y == NULL) {
        rc = -ENOMEM;
        goto out;
    }
    cts_random_signs(&random, p, (size_t)SKETCH * m->stack.n_out);
    cts_random_signs(&random, q, (size_t)SKETCH * m->stack.n_in);
    cts_mul_nt(m->stack.n_rows, SKETCH, m->stack.n_out, m->stack.bt, p, x);
    cts_mul_nt(m->stack.n_rows, SKETCH, m->stack.n_in, m->stack.a, q, y);
    for (uint32_t j = 0; j < m->n; j++) {
        size_t row = m->stack.first[j];

        cts_mul_tn(SKETCH, SKETCH, m->stack.first[j + 1] - m->stack.first[j], x + row * SKETCH, y + row * SKETCH,
                   s->features + m->adapter[j] * s->n_features + (size_t)module_idx * SKETCH * SKETCH);
    }

out:
    free(y);
    free(x);
    free(q);
    free(p);
    return rc < 0 ? cts_err_set(err, rc, "sketch a module") : 0;
}

static void normalise_features(struct search *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        double *f = s->features + i * s->n_features, norm = sqrt(cts_sum_squares(f, s->n_features));

        for (size_t k = 0; k < s->n_features && norm > 0; k++) f[k] /= norm;
    }
}

/* ---- k-means ---- */

static double distance2(const struct search *s, const double *x, const double *y)
{
    double sum = 0;

    for (size_t k = 0; k < s->n_features; k++) sum += (x[k] - y[k]) * (x[k] - y[k]);
    return sum;
}

/* Centres far from each other (k-means++): each next one an adapter, picked with
 * the probability of its squared distance to the nearest so far. near: scratch [n]. */
static void seed_centres(const struct search *s, double *centre, double *near, uint64_t *random)
{
    size_t f = s->n_features;
    size_t pick = cts_random(random) % s->n;

    for (uint32_t i = 0; i < s->n; i++) near[i] = INFINITY;
    for (uint32_t k = 0; k < s->k; k++) {
        double sum = 0, at;

        memcpy(centre + k * f, s->features + pick * f, f * sizeof(*centre));
        for (uint32_t i = 0; i < s->n; i++) {
            double d = distance2(s, s->features + i * f, centre + k * f);

            if (d < near[i]) near[i] = d;
            sum += near[i];
        }
        at = sum * (double)(cts_random(random) >> 11) * 0x1p-53;
        for (pick = 0; pick + 1 < s->n && at >= near[pick]; pick++) at -= near[pick];
    }
}

/* Every adapter to its nearest centre; the sum of squared distances. */
static double assign_nearest(const struct search *s, const double *centre, uint32_t *cluster, double *near)
{
    double sum = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        near[i] = INFINITY;
        for (uint32_t k = 0; k < s->k; k++) {
            double d = distance2(s, s->features + i * s->n_features, centre + k * s->n_features);

            if (d < near[i]) {
                near[i] = d;
                cluster[i] = k;
            }
        }
        sum += near[i];
    }
    return sum;
}

/* An empty cluster takes the adapter that is served worst (the least of good,
 * the adapter's share that is kept) out of a cluster that has another. count: scratch [k]. */
static void fill_empty(const struct search *s, uint32_t *cluster, double *good, uint32_t *count)
{
    memset(count, 0, s->k * sizeof(*count));
    for (uint32_t i = 0; i < s->n; i++) count[cluster[i]]++;
    for (uint32_t k = 0; k < s->k; k++) {
        uint32_t worst = UINT32_MAX;

        if (count[k] > 0) continue;
        for (uint32_t i = 0; i < s->n; i++)
            if (count[cluster[i]] > 1 && (worst == UINT32_MAX || good[i] < good[worst])) worst = i;
        CTS_ASSERT(worst != UINT32_MAX); /* there are no more clusters than adapters */
        count[cluster[worst]]--;
        count[k]++;
        cluster[worst] = k;
        good[worst] = INFINITY; /* it stays there */
    }
}

static void move_centres(const struct search *s, const uint32_t *cluster, double *centre, const uint32_t *count)
{
    size_t f = s->n_features;

    memset(centre, 0, s->k * f * sizeof(*centre));
    for (uint32_t i = 0; i < s->n; i++)
        for (size_t x = 0; x < f; x++) centre[cluster[i] * f + x] += s->features[i * f + x] / count[cluster[i]];
}

/* One run of k-means; the sum of squared distances at its end. */
static double kmeans(const struct search *s, uint32_t *cluster, double *centre, double *near, uint32_t *count, uint64_t *random)
{
    double sum = INFINITY;

    seed_centres(s, centre, near, random);
    for (int i = 0; i < KMEANS_STEPS; i++) {
        double before = sum;

        sum = assign_nearest(s, centre, cluster, near);
        for (uint32_t a = 0; a < s->n; a++) near[a] = -near[a];
        fill_empty(s, cluster, near, count);
        if (sum >= before) break;
        move_centres(s, cluster, centre, count);
    }
    return sum;
}

/* The STARTS best different runs, best first, into best [STARTS, n]. Returns how many there are. */
static int kmeans_runs(const struct search *s, uint32_t *best, uint32_t *n_best)
{
    uint32_t *cluster = calloc(s->n, sizeof(*cluster)), *count = calloc(s->k, sizeof(*count));
    double   *centre = doubles(s->k, s->n_features), *near = doubles(s->n, 1), sums[STARTS];
    uint64_t  random = cts_random_stream(s->o->seed, UINT64_MAX);
    int       rc = cluster == NULL || count == NULL || centre == NULL || near == NULL ? -ENOMEM : 0;

    *n_best = 0;
    for (int run = 0; run < KMEANS_RUNS && rc == 0; run++) {
        double   sum = kmeans(s, cluster, centre, near, count, &random);
        uint32_t at = 0;

        while (at < *n_best && sums[at] < sum) at++;
        if (at == STARTS || (at < *n_best && sums[at] == sum)) continue; /* the same clusters again */
        if (*n_best < STARTS) (*n_best)++;
        for (uint32_t i = *n_best - 1; i > at; i--) {
            sums[i] = sums[i - 1];
            memcpy(best + (size_t)i * s->n, best + (size_t)(i - 1) * s->n, s->n * sizeof(*best));
        }
        sums[at] = sum;
        memcpy(best + (size_t)at * s->n, cluster, s->n * sizeof(*best));
    }
    free(near);
    free(centre);
    free(count);
    free(cluster);
    return rc;
}

/* ---- assign and refit ---- */

/* Fit the cluster's basis of one module, on from the last round's. */
static int refit(struct search *s, struct module_data *m, uint32_t module_idx, uint32_t cluster, uint32_t *pick)
{
    struct cts_joint_opts o = { .rank = s->o->rank, .n_sweeps_max = ROUND_SWEEPS, .n_steps = 1, .tolerance = ROUND_TOLERANCE,
                                .seed = cts_random_stream(s->o->seed, module_idx) };
    struct cts_joint      before = m->fitted[cluster];
    struct cts_stack      part;
    uint32_t              n = 0;
    int                   rc;

    for (uint32_t j = 0; j < m->n; j++)
        if (s->cluster[m->adapter[j]] == cluster) pick[n++] = j;
    m->fitted[cluster] = (struct cts_joint){ 0 };
    if (n == 0) {
        cts_joint_free(&before);
        return 0;
    }
    if (before.rank > 0) o.start = &before;
    rc = cts_stack_pick(&part, &m->stack, pick, n);
    if (rc == 0) rc = cts_joint_fit(&m->fitted[cluster], &part, &o);
    cts_stack_free(&part);
    cts_joint_free(&before);
    return rc;
}

/* gain[i, cluster] of every adapter of the module: |U^T dW V|^2. */
static int measure(struct search *s, struct module_data *m, uint32_t cluster)
{
    const struct cts_joint *f = &m->fitted[cluster];
    size_t                  r = f->rank;
    double                 *x = doubles(m->stack.n_rows, r), *y = doubles(m->stack.n_rows, r), *w = doubles(r, r);
    int                     rc = x == NULL || y == NULL || w == NULL ? -ENOMEM : 0;

    if (rc == 0 && r > 0) {
        cts_mul_nt(m->stack.n_rows, f->rank, m->stack.n_out, m->stack.bt, f->ut, x);
        cts_mul_nt(m->stack.n_rows, f->rank, m->stack.n_in, m->stack.a, f->vt, y);
    }
    for (uint32_t j = 0; j < m->n && rc == 0; j++) {
        size_t  row = m->stack.first[j];
        double *gain = &m->gain[(size_t)m->adapter[j] * s->k + cluster];

        *gain = 0;
        if (r == 0) continue;
        cts_mul_tn(f->rank, f->rank, m->stack.first[j + 1] - m->stack.first[j], x + row * r, y + row * r, w);
        *gain = cts_sum_squares(w, r * r);
    }
    free(w);
    free(y);
    free(x);
    return rc;
}

/* Task: refit one module's bases and measure every adapter in each. */
static int round_task(void *arg, uint32_t module_idx, struct cts_err *err)
{
    struct search      *s = arg;
    struct module_data *m = &s->modules[module_idx];
    uint32_t           *pick = calloc((size_t)m->n + 1, sizeof(*pick));
    int                 rc = pick == NULL ? -ENOMEM : 0;

    for (uint32_t k = 0; k < s->k && rc == 0; k++) {
        rc = refit(s, m, module_idx, k, pick);
        if (rc == 0) rc = measure(s, m, k);
    }
    free(pick);
    return rc < 0 ? cts_err_set(err, rc, "fit a module for the clusters") : 0;
}

/* Every adapter to the cluster that keeps most of it. Returns how many moved;
 * *kept is what the clusters kept before that. good [n], count [k]: scratch. */
static uint32_t reassign(const struct search *s, uint32_t *cluster, double *good, uint32_t *count, double *kept)
{
    uint32_t *old = count + s->k, n_moved = 0;

    *kept = 0;
    memcpy(old, cluster, s->n * sizeof(*old));
    for (uint32_t i = 0; i < s->n; i++) {
        double top = -1;

        for (uint32_t k = 0; k < s->k; k++) {
            double gain = 0;

            for (uint32_t m = 0; m < s->set->n_modules; m++) gain += s->modules[m].gain[(size_t)i * s->k + k];
            if (k == old[i]) *kept += gain;
            if (gain > top) {
                top = good[i] = gain;
                cluster[i] = k;
            }
        }
    }
    fill_empty(s, cluster, good, count);
    for (uint32_t i = 0; i < s->n; i++) n_moved += cluster[i] != old[i];
    return n_moved;
}

static void forget_fits(struct search *s)
{
    for (uint32_t m = 0; s->modules != NULL && m < s->set->n_modules; m++)
        for (uint32_t k = 0; k < s->k && s->modules[m].fitted != NULL; k++) cts_joint_free(&s->modules[m].fitted[k]);
}

/* From one start until nobody moves; cluster is the best seen, *kept what it keeps. */
static int refine(struct search *s, uint32_t *cluster, double *kept, struct cts_err *err)
{
    uint32_t *now = calloc(s->n, sizeof(*now)), *count = calloc((size_t)s->k + s->n, sizeof(*count));
    double   *good = doubles(s->n, 1), keeps;
    int       rc = now == NULL || count == NULL || good == NULL ? cts_err_set(err, -ENOMEM, "%u adapters", s->n) : 0;

    *kept = -1;
    forget_fits(s);
    if (rc == 0) memcpy(now, cluster, s->n * sizeof(*now));
    s->cluster = now;
    for (int round = 0; round < ROUNDS_MAX && rc == 0; round++, s->n_done++) {
        uint32_t *tried = count + s->k; /* reassign leaves the clusters that it measured here */
        uint32_t  n_moved;

        if ((rc = run_tasks(s, round_task, err)) < 0) break;
        n_moved = reassign(s, now, good, count, &keeps);
        if (keeps > *kept) {
            *kept = keeps;
            memcpy(cluster, tried, s->n * sizeof(*cluster));
        }
        if (n_moved == 0) break;
    }
    free(good);
    free(count);
    free(now);
    return rc;
}

/* Clusters are numbered in the order of their first adapters. number: scratch [k]. */
static void renumber(const struct search *s, uint32_t *cluster, uint32_t *number)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < s->k; k++) number[k] = UINT32_MAX;
    for (uint32_t i = 0; i < s->n; i++) {
        if (number[cluster[i]] == UINT32_MAX) number[cluster[i]] = n++;
        cluster[i] = number[cluster[i]];
    }
}

static void search_free(struct search *s)
{
    forget_fits(s);
    for (uint32_t m = 0; s->modules != NULL && m < s->set->n_modules; m++) {
        cts_stack_free(&s->modules[m].stack);
        free(s->modules[m].adapter);
        free(s->modules[m].fitted);
        free(s->modules[m].gain);
    }
    free(s->modules);
    free(s->features);
}

int cts_cluster_find(uint32_t *cluster, const struct cts_adapter_set *set, const struct cts_compress_opts *o,
                     struct cts_err *err)
{
    struct search s = { .set = set, .o = o, .n = set->n, .k = o->n_clusters,
                        .n_features = (size_t)set->n_modules * SKETCH * SKETCH, .n_total = STARTS * ROUNDS_MAX };
    uint32_t     *start = calloc((size_t)STARTS * set->n, sizeof(*start)), n_starts = 0; /* n >= k */
    double        kept, best = -1;
    int           rc;

    s.modules = calloc(set->n_modules, sizeof(*s.modules));
    s.features = doubles(s.n, s.n_features);
    rc = start == NULL || s.modules == NULL || s.features == NULL ? cts_err_set(err, -ENOMEM, "%u adapters", s.n) : 0;
    if (rc == 0) rc = run_tasks(&s, sketch_task, err);
    if (rc == 0) {
        normalise_features(&s);
        rc = kmeans_runs(&s, start, &n_starts);
        if (rc < 0) cts_err_set(err, rc, "k-means of %u adapters", s.n);
    }
    for (uint32_t i = 0; i < n_starts && rc == 0; i++) {
        s.n_done = i * ROUNDS_MAX;
        rc = refine(&s, start + (size_t)i * s.n, &kept, err);
        if (rc == 0 && kept > best) {
            best = kept;
            memcpy(cluster, start + (size_t)i * s.n, s.n * sizeof(*cluster));
        }
    }
    if (rc == 0) renumber(&s, cluster, start);
    search_free(&s);
    free(start);
    return rc;
}
