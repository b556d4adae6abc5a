/* How adapters are shared out to clusters.
 *
 * The error depends on how many adapters share a basis above all (on the demo a
 * balanced assignment at random beats an unbalanced one by k-means), so all
 * clusters have the same size, give or take one. Within that each adapter goes
 * where the others' bases keep most of it. A basis keeps its own members best
 * because they made it, and were they asked, nobody would ever move; so each
 * cluster is fitted in two halves at random, and a member is judged by the half
 * that it is not in. */
#include "daemon/compress/cluster.h"

#include "common/assert.h"
#include "daemon/compress/joint.h"
#include "daemon/compress/linalg.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SKETCH       8  /* a module's sketch is SKETCH x SKETCH numbers */
#define KMEANS_RUNS  16 /* each from other centres; the best one is refined */
#define KMEANS_STEPS 50
#define ROUNDS_MAX   8  /* of assignment and refit */
#define ROUNDS_IDLE  3  /* stop after so many that found nothing better */
#define SWEEPS_HALF  1  /* enough to compare clusters with each other */
#define SWEEPS_WHOLE 2

/* A module's adapters that change it, stacked, and what a round finds of it. */
struct module_data {
    uint32_t         n;
    uint32_t        *adapter; /* [n] index in the set */
    struct cts_stack stack;
    double          *gain; /* [n_adapters, n_clusters]: what the others' basis keeps of the adapter, of 1 */
    double           kept; /* of all adapters by their own clusters' bases */
};

struct search {
    const struct cts_adapter_set   *set;
    const struct cts_compress_opts *o;
    uint32_t                        n, k;
    size_t                          n_features;
    struct module_data             *modules;  /* [set->n_modules] */
    double                         *features; /* [n, n_features], rows of length 1 */
    uint32_t                       *cluster;  /* [n], of the round that runs */
    uint8_t                        *half;     /* [n], 0 or 1 */
    double                         *score;    /* [n, k], scratch: the higher, the better */
    uint32_t                        round;
};

static void on_done(void *arg, uint32_t n_done)
{
    struct search *s = arg;

    (void)n_done; /* of this round; the bar shows rounds */
    if (s->o->on_progress != NULL) s->o->on_progress(s->o->on_progress_arg, "clustering", s->round, ROUNDS_MAX);
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
    m->gain = cts_doubles(s->n, s->k);
    if (d == NULL || norm == NULL || m->adapter == NULL || m->gain == NULL) rc = -ENOMEM;
    for (uint32_t i = 0; i < s->n && rc == 0; i++)
        if (cts_adapter_set_delta(s->set, i, module_idx, &d[m->n], &norm[m->n]) && norm[m->n] > 0)
            m->adapter[m->n++] = i;
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
    p = cts_doubles(SKETCH, m->stack.n_out);
    q = cts_doubles(SKETCH, m->stack.n_in);
    x = cts_doubles(m->stack.n_rows, SKETCH);
    y = cts_doubles(m->stack.n_rows, SKETCH);
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

/* ---- balanced assignment ---- */

/* Who loses most by not getting its first choice chooses first. */
struct chooser {
    double   regret;
    uint32_t adapter;
};

static int compare_chooser(const void *a, const void *b)
{
    const struct chooser *x = a, *y = b;

    if (x->regret != y->regret) return x->regret > y->regret ? -1 : 1;
    return (x->adapter > y->adapter) - (x->adapter < y->adapter);
}

static double regret_of(const double *score, uint32_t k)
{
    double first = -INFINITY, second = -INFINITY;

    for (uint32_t c = 0; c < k; c++) {
        double v = score[c];

        if (v > first) {
            second = first;
            first = v;
        } else if (v > second) {
            second = v;
        }
    }
    return k > 1 ? first - second : 0;
}

/* Every adapter to the cluster with its highest score that has room: n / k
 * adapters each, and one more in n mod k of them. Returns the sum of scores, or
 * -INFINITY when memory ran out. */
static double assign(const struct search *s, uint32_t *cluster)
{
    struct chooser *order = calloc(s->n, sizeof(*order));
    uint32_t       *count = calloc(s->k, sizeof(*count)), n_larger = s->n % s->k;
    double          sum = order == NULL || count == NULL ? -INFINITY : 0;

    for (uint32_t i = 0; i < s->n && sum == 0; i++)
        order[i] = (struct chooser){ regret_of(s->score + (size_t)i * s->k, s->k), i };
    if (sum == 0) qsort(order, s->n, sizeof(*order), compare_chooser);
    for (uint32_t x = 0; x < s->n && sum > -INFINITY; x++) {
        const double *score = s->score + (size_t)order[x].adapter * s->k;
        uint32_t      best = UINT32_MAX;

        for (uint32_t c = 0; c < s->k; c++)
            if (count[c] < s->n / s->k + (n_larger > 0) && (best == UINT32_MAX || score[c] > score[best])) best = c;
        CTS_ASSERT(best != UINT32_MAX); /* there is room for exactly n */
        n_larger -= count[best]++ == s->n / s->k;
        cluster[order[x].adapter] = best;
        sum += score[best];
    }
    free(count);
    free(order);
    return sum;
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
    size_t f = s->n_features, pick = cts_random(random) % s->n;

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

static void move_centres(const struct search *s, const uint32_t *cluster, double *centre)
{
    size_t f = s->n_features;

    memset(centre, 0, s->k * f * sizeof(*centre));
    for (uint32_t i = 0; i < s->n; i++)
        for (size_t x = 0; x < f; x++) centre[cluster[i] * f + x] += s->features[i * f + x];
    for (uint32_t k = 0; k < s->k; k++) {
        double n = (double)(s->n / s->k); /* but for one at most: good enough to measure from */

        for (size_t x = 0; x < f; x++) centre[k * f + x] /= n;
    }
}

/* One run of k-means with clusters of one size; minus the sum of squared distances at its end. */
static double kmeans(const struct search *s, uint32_t *cluster, double *centre, double *near, uint64_t *random)
{
    double sum = -INFINITY;

    seed_centres(s, centre, near, random);
    for (int step = 0; step < KMEANS_STEPS; step++) {
        double before = sum;

        for (uint32_t i = 0; i < s->n; i++)
            for (uint32_t k = 0; k < s->k; k++)
                s->score[(size_t)i * s->k + k] =
                    -distance2(s, s->features + i * s->n_features, centre + k * s->n_features);
        sum = assign(s, cluster);
        if (sum <= before) break;
        move_centres(s, cluster, centre);
    }
    return sum;
}

/* The best of KMEANS_RUNS runs into s->cluster. */
static int start_clusters(struct search *s)
{
    uint32_t *cluster = calloc(s->n, sizeof(*cluster));
    double   *centre = cts_doubles(s->k, s->n_features), *near = cts_doubles(s->n, 1), best = -INFINITY;
    uint64_t  random = cts_random_stream(s->o->seed, UINT64_MAX);
    int       rc = cluster == NULL || centre == NULL || near == NULL ? -ENOMEM : 0;

    for (int run = 0; run < KMEANS_RUNS && rc == 0; run++) {
        double sum = kmeans(s, cluster, centre, near, &random);

        if (sum == -INFINITY) rc = -ENOMEM;
        if (sum <= best) continue;
        best = sum;
        memcpy(s->cluster, cluster, s->n * sizeof(*cluster));
    }
    free(near);
    free(centre);
    free(cluster);
    return rc;
}

/* ---- assign and refit ---- */

/* The members of a cluster that change the module, of one half or of both (half 2). */
static int pick_part(const struct search *s, const struct module_data *m, uint32_t cluster, int half,
                     struct cts_stack *part)
{
    uint32_t *pick = calloc((size_t)m->n + 1, sizeof(*pick)), n = 0;
    int       rc = pick == NULL ? -ENOMEM : 0;

    *part = (struct cts_stack){ 0 };
    for (uint32_t j = 0; j < m->n && rc == 0; j++)
        if (s->cluster[m->adapter[j]] == cluster && (half == 2 || s->half[m->adapter[j]] == half)) pick[n++] = j;
    if (rc == 0 && n > 0) rc = cts_stack_pick(part, &m->stack, pick, n);
    free(pick);
    return rc;
}

/* Fit one part of a cluster, on from start. Rank 0 where nobody is in it. */
static int fit_part(const struct search *s, const struct module_data *m, uint32_t cluster, int half,
                    const struct cts_joint *start, struct cts_joint *out)
{
    /* Half of the members, half of the rank: the two halves together start the whole. */
    struct cts_joint_opts o = { .rank = half == 2 ? s->o->rank : (s->o->rank + 1) / 2,
                                .seed = s->o->seed,
                                .start = start,
                                .n_sweeps_max = half == 2 ? SWEEPS_WHOLE : SWEEPS_HALF,
                                .n_steps = half == 2 ? 1 : 2 };
    struct cts_stack      part;
    int                   rc = pick_part(s, m, cluster, half, &part);

    *out = (struct cts_joint){ 0 };
    if (rc == 0 && part.n > 0) rc = cts_joint_fit(out, &part, &o);
    cts_stack_free(&part);
    return rc;
}

/* kept [n]: |U^T dW V|^2 of every adapter of the module. */
static int measure(const struct module_data *m, const struct cts_joint *f, double *kept)
{
    size_t  r = f->rank;
    double *x = cts_doubles(m->stack.n_rows, r), *y = cts_doubles(m->stack.n_rows, r), *w = cts_doubles(r, r);
    int     rc = x == NULL || y == NULL || w == NULL ? -ENOMEM : 0;

    memset(kept, 0, m->n * sizeof(*kept));
    if (rc == 0 && r > 0) {
        cts_mul_nt(m->stack.n_rows, f->rank, m->stack.n_out, m->stack.bt, f->ut, x);
        cts_mul_nt(m->stack.n_rows, f->rank, m->stack.n_in, m->stack.a, f->vt, y);
    }
    for (uint32_t j = 0; j < m->n && rc == 0 && r > 0; j++) {
        size_t row = m->stack.first[j];

        cts_mul_tn(f->rank, f->rank, m->stack.first[j + 1] - m->stack.first[j], x + row * r, y + row * r, w);
        kept[j] = cts_sum_squares(w, r * r);
    }
    free(w);
    free(y);
    free(x);
    return rc;
}

/* What one half of a cluster keeps: of its own members nothing counts, of the
 * other half's members all, of everybody else the mean of both halves. */
static int judge_half(struct search *s, struct module_data *m, uint32_t cluster, int half, double *kept,
                      struct cts_joint *f)
{
    static const struct cts_joint nothing = { 0 };
    int                           rc = fit_part(s, m, cluster, half, &nothing, f);

    if (rc == 0) rc = measure(m, f, kept);
    for (uint32_t j = 0; j < m->n && rc == 0; j++) {
        uint32_t i = m->adapter[j];
        double   share = s->cluster[i] != cluster ? 0.5 : s->half[i] == half ? 0 : 1;

        m->gain[(size_t)i * s->k + cluster] += share * kept[j];
    }
    return rc;
}

/* Both pairs side by side. */
static int join(const struct cts_joint *a, const struct cts_joint *b, struct cts_joint *out)
{
    const struct cts_joint *any = a->rank > 0 ? a : b;
    size_t                  ra = a->rank, rb = b->rank, n_out = any->n_out, n_in = any->n_in;

    *out = (struct cts_joint){ .n_out = any->n_out, .n_in = any->n_in, .rank = a->rank + b->rank };
    out->ut = cts_doubles(ra + rb, n_out);
    out->vt = cts_doubles(ra + rb, n_in);
    if (out->ut == NULL || out->vt == NULL) return -ENOMEM;
    if (ra > 0) memcpy(out->ut, a->ut, ra * n_out * sizeof(double));
    if (ra > 0) memcpy(out->vt, a->vt, ra * n_in * sizeof(double));
    if (rb > 0) memcpy(out->ut + ra * n_out, b->ut, rb * n_out * sizeof(double));
    if (rb > 0) memcpy(out->vt + ra * n_in, b->vt, rb * n_in * sizeof(double));
    return 0;
}

/* What a cluster's halves keep of everybody, and the whole of its own members. */
static int judge(struct search *s, struct module_data *m, uint32_t cluster, double *kept)
{
    struct cts_joint half[2] = { { 0 }, { 0 } }, start = { 0 }, whole = { 0 };
    int              rc = judge_half(s, m, cluster, 0, kept, &half[0]);

    if (rc == 0) rc = judge_half(s, m, cluster, 1, kept, &half[1]);
    if (rc == 0) rc = join(&half[0], &half[1], &start);
    if (rc == 0) rc = fit_part(s, m, cluster, 2, &start, &whole);
    if (rc == 0) rc = measure(m, &whole, kept);
    for (uint32_t j = 0; j < m->n && rc == 0; j++)
        if (s->cluster[m->adapter[j]] == cluster) m->kept += kept[j];
    cts_joint_free(&whole);
    cts_joint_free(&start);
    cts_joint_free(&half[1]);
    cts_joint_free(&half[0]);
    return rc;
}

/* Task: one module. */
static int round_task(void *arg, uint32_t module_idx, struct cts_err *err)
{
    struct search      *s = arg;
    struct module_data *m = &s->modules[module_idx];
    double             *kept = cts_doubles(m->n, 1);
    int                 rc = kept == NULL ? -ENOMEM : 0;

    memset(m->gain, 0, (size_t)s->n * s->k * sizeof(*m->gain));
    m->kept = 0;
    for (uint32_t k = 0; k < s->k && rc == 0; k++) rc = judge(s, m, k, kept);
    free(kept);
    return rc < 0 ? cts_err_set(err, rc, "fit a module for the clusters") : 0;
}

/* Share the members of every cluster out to two halves at random. */
static int draw_halves(struct search *s, uint64_t *random)
{
    uint32_t *room = calloc(s->k, 2 * sizeof(*room));

    if (room == NULL) return -ENOMEM;
    for (uint32_t i = 0; i < s->n; i++) room[2 * s->cluster[i]]++;
    for (uint32_t k = 0; k < s->k; k++) {
        room[2 * k + 1] = room[2 * k] / 2;
        room[2 * k] -= room[2 * k + 1];
    }
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t *of = room + 2 * s->cluster[i];

        s->half[i] = cts_random(random) % (of[0] + of[1]) >= of[0];
        of[s->half[i]]--;
    }
    free(room);
    return 0;
}

/* Sums over modules in their order: the scores of all adapters; what the clusters keep. */
static double sum_modules(struct search *s)
{
    double kept = 0;

    memset(s->score, 0, (size_t)s->n * s->k * sizeof(*s->score));
    for (uint32_t m = 0; m < s->set->n_modules; m++) {
        kept += s->modules[m].kept;
        for (size_t i = 0; i < (size_t)s->n * s->k; i++) s->score[i] += s->modules[m].gain[i];
    }
    return kept;
}

/* From s->cluster until rounds find nothing better; cluster is the best seen. */
static int refine(struct search *s, uint32_t *cluster, struct cts_err *err)
{
    uint64_t random = cts_random_stream(s->o->seed, UINT64_MAX - 1);
    double   best = -1;
    int      rc, n_idle = 0;

    for (s->round = 0; s->round < ROUNDS_MAX && n_idle < ROUNDS_IDLE; s->round++) {
        if ((rc = draw_halves(s, &random)) < 0) return cts_err_set(err, rc, "%u clusters", s->k);
        if ((rc = run_tasks(s, round_task, err)) < 0) return rc;
        double kept = sum_modules(s);
        n_idle = kept > best ? 0 : n_idle + 1;
        if (kept > best) {
            best = kept;
            memcpy(cluster, s->cluster, s->n * sizeof(*cluster));
        }
        if (assign(s, s->cluster) == -INFINITY) return cts_err_set(err, -ENOMEM, "%u adapters", s->n);
    }
    return 0;
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

static int search_init(struct search *s, struct cts_err *err)
{
    s->modules = calloc(s->set->n_modules, sizeof(*s->modules));
    s->features = cts_doubles(s->n, s->n_features);
    s->cluster = calloc(s->n, sizeof(*s->cluster));
    s->half = calloc(s->n, 1);
    s->score = cts_doubles(s->n, s->k);
    if (s->modules == NULL || s->features == NULL || s->cluster == NULL || s->half == NULL || s->score == NULL)
        return cts_err_set(err, -ENOMEM, "%u adapters", s->n);
    return run_tasks(s, sketch_task, err);
}

static void search_free(struct search *s)
{
    for (uint32_t m = 0; s->modules != NULL && m < s->set->n_modules; m++) {
        cts_stack_free(&s->modules[m].stack);
        free(s->modules[m].adapter);
        free(s->modules[m].gain);
    }
    free(s->score);
    free(s->half);
    free(s->cluster);
    free(s->features);
    free(s->modules);
}

int cts_cluster_find(uint32_t *cluster, const struct cts_adapter_set *set, const struct cts_compress_opts *o,
                     struct cts_err *err)
{
    struct search s = { .set = set, .o = o, .n = set->n, .k = o->n_clusters,
                        .n_features = (size_t)set->n_modules * SKETCH * SKETCH };
    uint32_t     *number = calloc(s.k, sizeof(*number));
    int           rc = number == NULL ? cts_err_set(err, -ENOMEM, "%u clusters", s.k) : search_init(&s, err);

    CTS_ASSERT(s.k > 0 && s.k <= s.n);
    if (rc == 0) {
        normalise_features(&s);
        rc = start_clusters(&s);
        if (rc < 0) cts_err_set(err, rc, "k-means of %u adapters", s.n);
    }
    if (rc == 0) rc = refine(&s, cluster, err);
    if (rc == 0) renumber(&s, cluster, number);
    search_free(&s);
    free(number);
    return rc;
}
