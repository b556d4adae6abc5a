/* The whole compressor against the reference, on the demo. CTS_TEST_ALL=1 runs
 * every setting of the reference instead of a few. */
#include "daemon/compress/compress.h"

#include "common/json.h"
#include "tests/check.h"
#include "tests/demo_links.h"
#include "tests/synth.h"

#include <sys/resource.h>
#include <sys/wait.h>

static json_t *reference;

static void load_demo(struct cts_adapter_set *s, const char *collection)
{
    char                        base[512], adapters[512], rel[128];
    struct cts_adapter_set_opts o = { .base_dir = base, .adapters_dir = adapters, .n_threads = 2 };
    struct cts_err              err = { 0 };

    snprintf(rel, sizeof(rel), "contrib/demo/adapters/%s", collection);
    src_path(base, sizeof(base), "contrib/demo/base");
    src_path(adapters, sizeof(adapters), rel);
    CHECK_MSG(cts_adapter_set_load(s, &o, &err) == 0, "%s\n", err.text);
    CHECK(s->n == 64 && s->n_refused == 0);
}

static const json_t *find_setting(const char *collection, const char *setting)
{
    const json_t *list = json_object_get(reference, "settings"), *o;
    size_t        i;

    json_array_foreach(list, i, o)
    {
        if (strcmp(json_string_value(json_object_get(o, "collection")), collection) == 0 &&
            strcmp(json_string_value(json_object_get(o, "setting")), setting) == 0)
            return o;
    }
    return NULL;
}

static double real_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* Index in the reference's lists of an adapter of the set. */
static size_t index_of(const char *name)
{
    const json_t *names = json_object_get(reference, "adapters"), *o;
    size_t        i;

    json_array_foreach(names, i, o)
    {
        if (strcmp(json_string_value(o), name) == 0) return i;
    }
    CHECK_MSG(0, "the reference has no adapter '%s'\n", name);
    return 0;
}

/* "full:32:4" or "svd:2"; cluster [64] from the reference where there are several. */
static struct cts_compress_opts opts_of(const struct cts_adapter_set *s, const char *setting, uint32_t *cluster)
{
    struct cts_compress_opts o = { .n_threads = 2, .n_clusters = 1, .format = CTS_F32, .basis_format = CTS_F32 };

    if (sscanf(setting, "svd:%u", &o.rank) == 1) o.method = CTS_METHOD_SVD;
    else CHECK(sscanf(setting, "full:%u:%u", &o.rank, &o.n_clusters) == 2);
    (void)s;
    o.cluster = o.n_clusters > 1 ? cluster : NULL;
    return o;
}

static void take_assignment(const struct cts_adapter_set *s, const json_t *r, uint32_t *cluster)
{
    const json_t *a = json_object_get(r, "assignment");

    for (uint32_t i = 0; i < s->n && json_is_array(a); i++)
        cluster[i] = (uint32_t)json_integer_value(json_array_get(a, index_of(s->adapters[i].name)));
}

static void check_setting(const struct cts_adapter_set *s, const char *collection, const char *setting)
{
    const json_t            *r = find_setting(collection, setting);
    uint32_t                 cluster[64];
    struct cts_compress_opts o = opts_of(s, setting, cluster);
    struct cts_compressed    c;
    double                   bound = o.method == CTS_METHOD_SVD ? 1.0001 : 1.005, worst = 0;

    CHECK(r != NULL);
    take_assignment(s, r, cluster);
    CHECK(cts_compress(&c, s, &o, NULL) == 0);
    for (uint32_t i = 0; i < s->n; i++) {
        double want = json_number_value(
            json_array_get(json_object_get(r, "error_mean_per_adapter"), index_of(s->adapters[i].name)));
        double ratio = c.adapters[i].error_mean / (want > 1e-4 ? want : 1e-4); /* it rounds to 1e-6 */

        CHECK(c.adapters[i].error_mean >= 0);
        if (ratio > worst) worst = ratio;
    }
    print_message("%s %s: mean %.6f of %.6f, energy %.6f of %.6f, worst adapter %.4f\n", collection, setting,
                  c.error_mean, real_of(r, "error_mean"), c.error_energy, real_of(r, "error_energy"), worst);
    CHECK(c.error_mean <= bound * real_of(r, "error_mean") + 1e-6);
    CHECK(c.error_energy <= bound * real_of(r, "error_energy") + 1e-6);
    CHECK(worst <= (o.method == CTS_METHOD_SVD ? 1.001 : 1.03));
    if (o.method == CTS_METHOD_SVD) CHECK(fabs(c.error_mean - real_of(r, "error_mean")) < 1e-4);
    cts_compressed_free(&c);
}

static void check_settings(const char *collection, const char *const *few)
{
    static const char *const all[] = { "full:16:1", "full:32:1", "full:64:1", "full:16:4", "full:32:4", "full:16:8",
                                       "full:32:8", "svd:1",     "svd:2",     "svd:4",     "svd:8",     NULL };
    struct cts_adapter_set s;

    load_demo(&s, collection);
    for (const char *const *t = getenv("CTS_TEST_ALL") != NULL ? all : few; *t != NULL; t++)
        check_setting(&s, collection, *t);
    cts_adapter_set_free(&s);
}

static void compress_is_as_good_as_the_reference_on_adapters_of_one_start(void **state)
{
    static const char *const few[] = { "full:16:1", "full:32:4", "svd:2", NULL };

    (void)state;
    check_settings("shared-start", few);
}

static void compress_is_as_good_as_the_reference_on_independent_adapters(void **state)
{
    static const char *const few[] = { "full:32:1", "full:16:8", "svd:1", NULL };

    (void)state;
    check_settings("own-start", few);
}

/* With clusters of our own, at most 1 % more error than with the reference's. */
static void compress_finds_clusters_as_good_as_the_references(void **state)
{
    static const char *const collections[] = { "shared-start", "own-start" };
    static const char *const all[] = { "full:16:4", "full:32:4", "full:16:8", "full:32:8" };
    int                      is_all = getenv("CTS_TEST_ALL") != NULL;

    (void)state;
    for (int k = 0; k < (is_all ? 2 : 1); k++) {
        struct cts_adapter_set s;

        load_demo(&s, collections[k]);
        for (int t = 0; t < (is_all ? 4 : 1); t++) {
            const json_t            *r = find_setting(collections[k], all[t]);
            uint32_t                 cluster[64];
            struct cts_compress_opts o = opts_of(&s, all[t], cluster);
            struct cts_compressed    c;

            o.cluster = NULL;
            CHECK(cts_compress(&c, &s, &o, NULL) == 0);
            print_message("%s %s own clusters: mean %.6f of %.6f, energy %.6f of %.6f\n", collections[k], all[t],
                          c.error_mean, real_of(r, "error_mean"), c.error_energy, real_of(r, "error_energy"));
            /* Balance alone gives 0.99 of the first setting, judging by halves 0.97. */
            CHECK(c.error_mean <= (t == 0 ? 0.98 : 1.01) * real_of(r, "error_mean"));
            CHECK(c.error_energy <= 1.01 * real_of(r, "error_energy"));
            cts_compressed_free(&c);
        }
        cts_adapter_set_free(&s);
    }
}

/* Read a whole file into buf; its size. */
static size_t slurp(const char *dir, const char *name, uint8_t *buf, size_t cap)
{
    char   path[600];
    FILE  *f;
    size_t n;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    CHECK_MSG((f = fopen(path, "rb")) != NULL, "%s\n", path);
    n = fread(buf, 1, cap, f);
    CHECK(n < cap && fclose(f) == 0);
    return n;
}

static void write_collection(struct cts_compressed *c, const char *dir)
{
    struct cts_collection_writer w;
    struct cts_collection_bytes  bytes;
    uint8_t                      digest[CTS_DIGEST_BYTES];

    CHECK(cts_collection_writer_open(&w, dir, 0, NULL) == 0);
    CHECK(cts_compressed_write(c, &w, &bytes, digest, NULL) == 0);
    cts_collection_writer_close(&w);
}

static void compress_writes_the_same_bytes_with_one_thread_and_two(void **state)
{
    static const char *const names[] = { "collection.json", "basis.safetensors", "sigma.8k.slots" };
    static uint8_t           one[1 << 20], two[1 << 20];
    struct cts_adapter_set   s;
    char                     top[256], adapters[300], base[512], dir[2][300];
    struct cts_adapter_set_opts so = { .base_dir = base, .adapters_dir = adapters, .n_threads = 1 };
    struct cts_compress_opts    o = {
           .rank = 12, .n_clusters = 3, .format = CTS_F32, .basis_format = CTS_BF16, .seed = 3
    };

    (void)state;
    temp_dir(top, sizeof(top));
    snprintf(adapters, sizeof(adapters), "%s/adapters", top);
    demo_links(adapters, "shared-start", 14);
    src_path(base, sizeof(base), "contrib/demo/base");
    for (uint32_t t = 0; t < 2; t++) {
        struct cts_compressed c;

        so.n_threads = o.n_threads = t + 1;
        snprintf(dir[t], sizeof(dir[t]), "%s/c%u", top, t + 1);
        CHECK(cts_adapter_set_load(&s, &so, NULL) == 0 && s.n == 14);
        CHECK(cts_compress(&c, &s, &o, NULL) == 0);
        write_collection(&c, dir[t]);
        cts_compressed_free(&c);
        cts_adapter_set_free(&s);
    }
    for (int i = 0; i < 3; i++) {
        size_t n = slurp(dir[0], names[i], one, sizeof(one));

        CHECK(n > 1000 && slurp(dir[1], names[i], two, sizeof(two)) == n);
        CHECK(memcmp(one, two, n) == 0);
    }
    remove_all(top);
}

/* What comes out of the files is what the errors were computed of. */
static void compress_writes_what_it_measured(void **state)
{
    struct cts_adapter_set   s;
    struct cts_compress_opts o = { .rank = 3, .n_clusters = 2, .n_threads = 1, .generation = 4, .format = CTS_BF16,
                                   .basis_format = CTS_BF16 };
    struct cts_compressed    c;
    struct cts_collection    k;
    char                     top[256], dir[300];

    (void)state;
    temp_dir(top, sizeof(top));
    snprintf(dir, sizeof(dir), "%s/c", top);
    synth_set(&s, 5, 2, 12, 10, 2, 1);
    synth_measure(&s);
    CHECK(cts_compress(&c, &s, &o, NULL) == 0);
    write_collection(&c, dir);
    CHECK(cts_collection_open(&k, dir, NULL) == 0);
    CHECK(k.n_adapters == 5 && k.generation == 4 && k.error_mean == c.error_mean && k.error_energy == c.error_energy);
    for (uint32_t i = 0; i < 5; i++) {
        struct cts_slot slot;

        CHECK(k.adapters[i].error_mean == c.adapters[i].error_mean && k.adapters[i].cluster == c.adapters[i].cluster);
        CHECK(cts_collection_read(&k, i, &slot, NULL) == 0 && slot.n_parts == 2);
        for (uint32_t m = 0; m < 2; m++) {
            const struct cts_coded     *coded = &c.coded[i * 2 + m];
            const struct cts_slot_part *p = &slot.parts[m];
            const struct cts_basis     *b = cts_collection_basis(&k, p->cluster, m, CTS_Q);
            struct cts_delta            d;
            double                      pt[3 * 12] = { 0 }, qt[3 * 10], lost;
            struct cts_pair             pair = { .k = b->rank_v, .c = (double)p->scale, .pt = pt, .qt = qt };

            CHECK(memcmp(p->values, coded->values, p->n_rows * p->n_cols * sizeof(float)) == 0 &&
                  p->scale == coded->scale);
            for (uint32_t x = 0; x < p->n_cols; x++) {
                for (uint32_t row = 0; row < 12; row++)
                    for (uint32_t y = 0; y < p->n_rows; y++)
                        pt[x * 12 + row] += (double)b->u[row * b->rank_u + y] * (double)p->values[y * p->n_cols + x];
                for (uint32_t col = 0; col < 10; col++) qt[x * 10 + col] = (double)b->vt[x * 10 + col];
            }
            CHECK(cts_adapter_set_delta(&s, i, m, &d, NULL) == 1);
            CHECK(cts_delta_lost(&d, &pair, coded->total, &lost) == 0);
            CHECK(fabs(lost - coded->lost) < 1e-9 * coded->total);
        }
        cts_slot_free(&slot);
    }
    cts_collection_close(&k);
    cts_compressed_free(&c);
    synth_set_free(&s);
    remove_all(top);
}

/* Zero everywhere, zero in one module, tiny in one; alone, and beside others. */
static void compress_takes_adapters_that_are_zero_or_tiny(void **state)
{
    struct cts_adapter_set   s;
    struct cts_compress_opts o = {
        .rank = 4, .n_clusters = 1, .n_threads = 2, .format = CTS_F32, .basis_format = CTS_F32
    };

    (void)state;
    for (uint32_t n = 1; n <= 4; n += 3)
        for (int method = 0; method < 2; method++) {
            struct cts_compressed c;

            o.method = method == 0 ? CTS_METHOD_JD_FULL : CTS_METHOD_SVD;
            synth_set(&s, n, 2, 12, 10, 2, 1);
            for (uint32_t m = 0; m < 2; m++) memset(synth_b(&s, 0, m), 0, 24 * sizeof(float));
            if (n > 1) memset(synth_b(&s, 1, 0), 0, 24 * sizeof(float));
            for (int x = 0; x < 24 && n > 2; x++) synth_b(&s, 2, 1)[x] *= 1e-30f;
            synth_measure(&s);
            CHECK(cts_compress(&c, &s, &o, NULL) == 0);
            CHECK(c.adapters[0].error_mean == 0 && c.adapters[0].error_energy == 0);
            for (uint32_t i = 0; i < n; i++)
                for (uint32_t m = 0; m < 2; m++) {
                    const struct cts_coded *k = &c.coded[i * 2 + m];
                    int                     is_zero = i == 0 || (i == 1 && m == 0);

                    CHECK(k->values != NULL && (k->scale == 0) == is_zero && isfinite(k->lost) && k->lost >= 0);
                    CHECK(!is_zero || (k->values[0] == 0 && k->lost == 0));
                }
            /* The tiny one counts for the basis as any other does. */
            if (n > 2) CHECK(c.coded[5].lost < 0.9 * c.coded[5].total);
            cts_compressed_free(&c);
            synth_set_free(&s);
        }
}

/* One adapter, and a rank that holds everything: what is lost is rounding. */
static void compress_loses_nothing_where_the_rank_suffices(void **state)
{
    struct cts_adapter_set   s;
    struct cts_compress_opts o = {
        .rank = 100, .n_clusters = 1, .n_threads = 1, .format = CTS_F32, .basis_format = CTS_F32
    };
    struct cts_compressed    c;

    (void)state;
    for (uint32_t n = 1; n <= 3; n++) {
        synth_set(&s, n, 2, 12, 10, 2, 1);
        synth_measure(&s);
        CHECK(cts_compress(&c, &s, &o, NULL) == 0);
        CHECK(c.n_bases == 2 && c.bases[0].rank_u == 2 * n && c.bases[0].rank_v == 2 * n);
        for (uint32_t i = 0; i < n; i++)
            CHECK_MSG(c.adapters[i].error_mean > 0 && c.adapters[i].error_mean < 1e-12, "%g\n",
                      c.adapters[i].error_mean);
        cts_compressed_free(&c);
        synth_set_free(&s);
    }
}

/* Adapters that change different modules: no part where there is no change, no basis that nobody uses. */
static void compress_leaves_out_modules_that_an_adapter_has_not(void **state)
{
    struct cts_adapter_set   s;
    struct cts_compress_opts o = {
        .rank = 2, .n_threads = 1, .format = CTS_F32, .basis_format = CTS_F32, .n_clusters = 2
    };
    uint32_t                 cluster[3] = { 0, 0, 1 };
    struct cts_compressed    c;

    (void)state;
    o.cluster = cluster;
    synth_set(&s, 3, 2, 12, 10, 2, 1);
    synth_measure(&s);
    s.place[0 * 2 + 1] = s.place[1 * 2 + 1] = -1; /* the first two lack layer 1 */
    s.place[2 * 2 + 0] = -1;                      /* the third lacks layer 0 */
    CHECK(cts_compress(&c, &s, &o, NULL) == 0);
    CHECK(c.n_bases == 2 && c.bases[0].cluster == 0 && c.bases[0].layer == 0 && c.bases[1].cluster == 1 &&
          c.bases[1].layer == 1);
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t m = 0; m < 2; m++) CHECK((c.coded[i * 2 + m].values != NULL) == (s.place[i * 2 + m] >= 0));
    CHECK(c.adapters[2].error_mean < 1e-12); /* alone in its cluster */
    cts_compressed_free(&c);
    synth_set_free(&s);
}

#define LARGE     32768u
#define PEAK_KIB  (512 * 1024)

/* In a process of its own, which measures itself: dW would be 4 GiB. */
static int compress_large(void)
{
    struct cts_adapter_set   s;
    struct cts_compress_opts o = {
        .rank = 16, .n_clusters = 1, .n_threads = 2, .format = CTS_F32, .basis_format = CTS_F32
    };
    struct cts_compressed    c;
    struct rusage            ru;

    synth_set(&s, 4, 1, LARGE, LARGE, 8, 1);
    synth_measure(&s);
    if (cts_compress(&c, &s, &o, NULL) < 0) return 2;
    if (!(c.error_mean > 0 && c.error_mean < 1)) return 3;
    cts_compressed_free(&c);
    synth_set_free(&s);
    if (getrusage(RUSAGE_SELF, &ru) < 0) return 4;
    fprintf(stderr, "peak %ld MiB\n", ru.ru_maxrss / 1024);
    return ru.ru_maxrss < PEAK_KIB ? 0 : 1;
}

static void compress_never_forms_what_an_adapter_adds(void **state)
{
    int   status;
    pid_t pid = fork();

    (void)state;
    CHECK(pid >= 0);
    if (pid == 0) _exit(compress_large());
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x\n", (unsigned)status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compress_never_forms_what_an_adapter_adds), /* first: the child inherits the peak */
        cmocka_unit_test(compress_takes_adapters_that_are_zero_or_tiny),
        cmocka_unit_test(compress_loses_nothing_where_the_rank_suffices),
        cmocka_unit_test(compress_leaves_out_modules_that_an_adapter_has_not),
        cmocka_unit_test(compress_writes_what_it_measured),
        cmocka_unit_test(compress_writes_the_same_bytes_with_one_thread_and_two),
        cmocka_unit_test(compress_is_as_good_as_the_reference_on_adapters_of_one_start),
        cmocka_unit_test(compress_is_as_good_as_the_reference_on_independent_adapters),
        cmocka_unit_test(compress_finds_clusters_as_good_as_the_references),
    };
    char path[512];
    int  rc;

    cts_linalg_init();
    if (cts_json_load(src_path(path, sizeof(path), "tests/golden/reference.json"), 1 << 24, &reference, NULL) < 0)
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(reference);
    return rc;
}
