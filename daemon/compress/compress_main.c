/* cts-compress: a folder of adapters becomes a collection. */
#include "common/clock.h"
#include "common/progress.h"
#include "config.h"
#include "daemon/compress/assign.h"
#include "daemon/compress/compress.h"
#include "daemon/compress/report.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANK_MAX    4096
#define THREADS_MAX 1024

enum { EXIT_USAGE = 2 };

struct args {
    struct cts_compress_opts o;
    const char              *base_dir, *adapters_dir, *out_dir, *assign_path, *json_path;
    uint32_t                 linears; /* bits of --modules; 0: all */
    int                      skips_bad, is_replacing, has_clusters;
};

enum {
    O_METHOD = 256,
    O_RANK,
    O_CLUSTERS,
    O_ASSIGN,
    O_SEED,
    O_THREADS,
    O_FORMAT,
    O_BASIS_FORMAT,
    O_MODULES,
    O_JSON,
    O_SKIP_BAD,
    O_FORCE,
    O_HELP,
    O_VERSION
};

static const struct option long_options[] = {
    { "output", required_argument, NULL, 'o' },
    { "method", required_argument, NULL, O_METHOD },
    { "rank", required_argument, NULL, O_RANK },
    { "clusters", required_argument, NULL, O_CLUSTERS },
    { "assign", required_argument, NULL, O_ASSIGN },
    { "seed", required_argument, NULL, O_SEED },
    { "threads", required_argument, NULL, O_THREADS },
    { "format", required_argument, NULL, O_FORMAT },
    { "basis-format", required_argument, NULL, O_BASIS_FORMAT },
    { "modules", required_argument, NULL, O_MODULES },
    { "json", required_argument, NULL, O_JSON },
    { "skip-bad", no_argument, NULL, O_SKIP_BAD },
    { "force", no_argument, NULL, O_FORCE },
    { "help", no_argument, NULL, O_HELP },
    { "version", no_argument, NULL, O_VERSION },
    { 0 },
};

static const char help[] =
    "Usage: cts-compress BASE ADAPTERS -o COLLECTION [options]\n"
    "Compress the LoRA adapters in the folder ADAPTERS, one PEFT folder each, over\n"
    "the base model in BASE into a collection that ctsd serves.\n"
    "\n"
    "  -o, --output DIR       the collection to make; required\n"
    "      --method METHOD    jd-full (default): bases shared by clusters of adapters;\n"
    "                         svd: each adapter alone, truncated to --rank\n"
    "      --rank R           rank of the bases or of each adapter, 1 to 4096 (default 32)\n"
    "      --clusters K       find K clusters, each with bases of its own (default 1)\n"
    "      --assign FILE      take the clusters from FILE: {\"ADAPTER\": CLUSTER, ...}\n"
    "      --seed N           of everything random (default 0)\n"
    "      --threads N        1 to 1024 (default: as many as CPUs)\n"
    "      --format F         of sigmas and pairs: f32 (default) or bf16\n"
    "      --basis-format F   of the bases: f32 (default) or bf16\n"
    "      --modules LIST     q_proj,k_proj,...: refuse adapters that change another\n"
    "      --json FILE        write the report as JSON to FILE; - is standard output\n"
    "      --skip-bad         go on without the adapters that are refused\n"
    "      --force            replace COLLECTION when it is one already\n"
    "      --help             print this and exit\n"
    "      --version          print the version and exit\n";

static int usage(const char *fmt, const char *what)
{
    fputs("cts-compress: ", stderr);
    fprintf(stderr, fmt, what);
    fputs("; see cts-compress --help\n", stderr);
    return EXIT_USAGE;
}

static int parse_number(const char *s, uint64_t lo, uint64_t hi, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(s, &end, 10);
    return errno == 0 && end != s && *end == 0 && s[0] >= '0' && s[0] <= '9' && *out >= lo && *out <= hi;
}

static int parse_u32(const char *s, uint32_t lo, uint32_t hi, uint32_t *out)
{
    uint64_t v;

    if (!parse_number(s, lo, hi, &v)) return 0;
    *out = (uint32_t)v;
    return 1;
}

static int parse_format(const char *s, enum cts_dtype *out)
{
    if (strcmp(s, "f32") == 0) *out = CTS_F32;
    else if (strcmp(s, "bf16") == 0) *out = CTS_BF16;
    else return 0;
    return 1;
}

static int parse_method(const char *s, enum cts_method *out)
{
    if (strcmp(s, "jd-full") == 0) *out = CTS_METHOD_JD_FULL;
    else if (strcmp(s, "svd") == 0) *out = CTS_METHOD_SVD;
    else return 0;
    return 1;
}

static int parse_modules(const char *s, uint32_t *linears)
{
    for (;;) {
        size_t n = strcspn(s, ",");
        int    l = cts_linear_from_name(s, n);

        if (l < 0) return 0;
        *linears |= 1u << l;
        if (s[n] == 0) return 1;
        s += n + 1;
    }
}

/* One option. 1, or 0 when its argument is wrong. */
static int take_option(struct args *a, int c, const char *arg)
{
    switch (c) {
    case 'o': a->out_dir = arg; return arg[0] != 0;
    case O_METHOD: return parse_method(arg, &a->o.method);
    case O_RANK: return parse_u32(arg, 1, RANK_MAX, &a->o.rank);
    case O_CLUSTERS: a->has_clusters = 1; return parse_u32(arg, 1, UINT32_MAX - 1, &a->o.n_clusters);
    case O_ASSIGN: a->assign_path = arg; return 1;
    case O_SEED: return parse_number(arg, 0, INT64_MAX, &a->o.seed);
    case O_THREADS: return parse_u32(arg, 1, THREADS_MAX, &a->o.n_threads);
    case O_FORMAT: return parse_format(arg, &a->o.format);
    case O_BASIS_FORMAT: return parse_format(arg, &a->o.basis_format);
    case O_MODULES: return parse_modules(arg, &a->linears);
    case O_JSON: a->json_path = arg; return 1;
    case O_SKIP_BAD: a->skips_bad = 1; return 1;
    case O_FORCE: a->is_replacing = 1; return 1;
    default: return 0;
    }
}

/* -1 to go on, else the exit status. */
static int parse_args(struct args *a, int argc, char **argv)
{
    int c, idx = 0;

    while ((c = getopt_long(argc, argv, "o:", long_options, &idx)) != -1) {
        if (c == '?') return EXIT_USAGE; /* getopt_long has said why */
        if (c == O_HELP) return fputs(help, stdout) == EOF;
        if (c == O_VERSION) return puts("cts-compress " PACKAGE_VERSION) == EOF;
        if (!take_option(a, c, optarg)) {
            fprintf(stderr, "cts-compress: %s%s: '%s' is no value of it", c == 'o' ? "-" : "--",
                    c == 'o' ? "o" : long_options[idx].name, optarg);
            return usage("%s", "");
        }
    }
    if (argc - optind != 2) return usage("%s", "give BASE and ADAPTERS");
    a->base_dir = argv[optind];
    a->adapters_dir = argv[optind + 1];
    if (a->out_dir == NULL) return usage("%s", "-o is missing: where should the collection go?");
    if (a->assign_path != NULL && a->has_clusters) return usage("%s", "--assign and --clusters exclude each other");
    if (a->o.method == CTS_METHOD_SVD && (a->assign_path != NULL || a->has_clusters))
        return usage("%s", "--method svd has no clusters");
    return -1;
}

/* Where the bar of one phase ends the next begins. */
struct bar {
    struct cts_progress p;
    const char         *what;
};

static void on_progress(void *arg, const char *what, uint32_t n_done, uint32_t n_total)
{
    struct bar *b = arg;

    if (b->what == NULL || strcmp(b->what, what) != 0) {
        if (b->what != NULL) cts_progress_end(&b->p);
        cts_progress_start(&b->p, what, n_total);
        b->what = what;
    }
    cts_progress_update(&b->p, n_done, NULL);
}

static void on_read(void *arg, uint32_t n_done, uint32_t n_total)
{
    on_progress(arg, "reading", n_done, n_total);
}

/* Name the refused. 0 to go on without them. */
static int judge_refused(const struct args *a, const struct cts_adapter_set *s, struct cts_err *err)
{
    for (uint32_t i = 0; i < s->n_refused; i++)
        fprintf(stderr, "cts-compress: refused: %s: %s\n", s->refused[i].name, s->refused[i].why.text);
    if (s->n_refused > 0 && !a->skips_bad)
        return cts_err_set(err, CTS_EFORMAT,
                           "%u of %u adapters refused: nothing was written; --skip-bad goes on without them",
                           s->n_refused, s->n + s->n_refused);
    if (s->n == 0) return cts_err_set(err, CTS_EFORMAT, "no adapter is left: nothing was written");
    return 0;
}

static int check_clusters(const struct args *a, const struct cts_adapter_set *s, struct cts_err *err)
{
    if (a->o.n_clusters <= s->n) return 0;
    return cts_err_set(err, CTS_EARG, "--clusters %u: there are %u adapters", a->o.n_clusters, s->n);
}

/* From the loaded set to the written collection and its report. */
static int make(struct args *a, const struct cts_adapter_set *s, struct cts_collection_writer *w, struct bar *bar,
                uint64_t start_ns, struct cts_err *err)
{
    uint32_t             *cluster = calloc((size_t)s->n + 1, sizeof(*cluster));
    struct cts_compressed c = { 0 };
    struct cts_report     r = { .c = &c, .dir = a->out_dir };
    int                   rc = cluster == NULL ? cts_err_set(err, -ENOMEM, "%u adapters", s->n) : 0;

    if (rc == 0 && a->assign_path != NULL) {
        rc = cts_assign_load(a->assign_path, s, cluster, &a->o.n_clusters, err);
        a->o.cluster = cluster;
    }
    if (rc == 0) rc = check_clusters(a, s, err);
    if (rc == 0) rc = cts_compress(&c, s, &a->o, err);
    cts_progress_end(&bar->p);
    if (rc == 0) rc = cts_compressed_write(&c, w, &r.bytes, r.digest, err);
    if (rc == 0) {
        r.seconds = (double)(cts_clock_ns() - start_ns) * 1e-9;
        if (a->json_path == NULL || strcmp(a->json_path, "-") != 0) cts_report_print(&r, stdout);
        if (a->json_path != NULL) rc = cts_report_json(&r, a->json_path, err);
    }
    cts_compressed_free(&c);
    free(cluster);
    return rc;
}

static int run(struct args *a, struct cts_err *err)
{
    struct bar                   bar = { .what = NULL };
    struct cts_adapter_set       set = { 0 };
    struct cts_adapter_set_opts  so = { .base_dir = a->base_dir, .adapters_dir = a->adapters_dir, .linears = a->linears,
                                        .n_threads = a->o.n_threads, .on_progress = on_read, .on_progress_arg = &bar };
    struct cts_collection_writer w;
    uint64_t                     start_ns = cts_clock_ns();
    int                          rc = cts_collection_writer_open(&w, a->out_dir, a->is_replacing, err);

    if (rc < 0) return rc;
    a->o.on_progress = on_progress;
    a->o.on_progress_arg = &bar;
    rc = cts_adapter_set_load(&set, &so, err);
    if (bar.what != NULL) cts_progress_end(&bar.p);
    if (rc == 0) rc = judge_refused(a, &set, err);
    if (rc == 0) rc = make(a, &set, &w, &bar, start_ns, err);
    cts_adapter_set_free(&set);
    cts_collection_writer_close(&w);
    return rc;
}

int main(int argc, char **argv)
{
    struct args a = {
        .o = { .rank = 32, .n_clusters = 1, .generation = 1, .format = CTS_F32, .basis_format = CTS_F32 }
    };
    struct cts_err err = { 0 };
    int            rc = parse_args(&a, argc, argv);

    if (rc >= 0) return rc;
    if (a.o.n_threads == 0) a.o.n_threads = cts_cpu_count();
    rc = run(&a, &err);
    if (rc == 0) return EXIT_SUCCESS;
    fprintf(stderr, "cts-compress: %s\n", err.text);
    return EXIT_FAILURE;
}
