#include "daemon/config.h"

#include "common/assert.h"
#include "proto/ctl_msg.h"
#include "shm/layout.h"

#include <confuse.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(struct cts_config, field)

/* clang-format off */
#define ROW(sec, name, type, unit, lo, hi, is_pow2, choices, dflt, text, field) \
    { sec, name, type, unit, lo, hi, is_pow2, choices, dflt, 0, text, AT(field) }
/* clang-format on */
#define STRING(sec, name, field, dflt, text)                                                                   \
    ROW(sec, name, CTS_CONFIG_STRING, "", 0, 0, 0, NULL, dflt, text, field)
#define CHOICE(sec, name, field, choices, dflt, text)                                                          \
    ROW(sec, name, CTS_CONFIG_CHOICE, "", 0, 0, 0, choices, dflt, text, field)
#define UINT(sec, name, field, unit, lo, hi, dflt, text)                                                       \
    ROW(sec, name, CTS_CONFIG_UINT, unit, lo, hi, 0, NULL, dflt, text, field)
#define POW2(sec, name, field, lo, hi, dflt, text)                                                             \
    ROW(sec, name, CTS_CONFIG_BYTES, "bytes", lo, hi, 1, NULL, dflt, text, field)
#define BYTES(sec, name, field, lo, hi, dflt, text)                                                            \
    ROW(sec, name, CTS_CONFIG_BYTES, "bytes", lo, hi, 0, NULL, dflt, text, field)

const struct cts_config_option CTS_CONFIG_OPTIONS[] = {
    STRING("model", "path", model_path, "", "Folder of the base model, a Hugging Face checkpoint."),
    STRING("collection", "path", collection_path, "", "Folder of the collection of compressed adapters."),
    STRING("listen", "socket", listen_socket, CTS_CTL_SOCKET, "Path of the control socket."),
    UINT("engine", "threads", threads, "threads", 0, 1024, "0",
         "Threads that compute, the engine's own included. 0: all cores but one, at least one."),
    UINT("engine", "rows", rows, "rows", 1, 65536, "256",
         "Most rows of one step, prompt and decode rows together."),
    UINT("engine", "sequences", sequences, "requests", 1, 65536, "64", "Most requests in one step."),
    UINT("engine", "prefill_chunk", prefill_chunk, "rows", 1, 65536, "64",
         "Most prompt rows of one request in one step."),
    UINT("engine", "page_tokens", page_tokens, "tokens", 1, 4096, "16", "Tokens of one page of the KV cache."),
    UINT("engine", "kv_pages", kv_pages, "pages", 1, 1u << 30, "2048", "Pages of the KV cache."),
    UINT("engine", "requests", requests, "requests", 1, 65536, "1024",
         "Most live requests, waiting ones included."),
    UINT("engine", "exact_adapters", exact_adapters, "adapters", 0, 65536, "16", "Places of the exact lane."),
    UINT("engine", "exact_rank", exact_rank, "", 1, 1024, "64",
         "Largest rank of an adapter of the exact lane."),
    UINT("engine", "context", context, "tokens", 0, 1u << 24, "0",
         "Most tokens of prompt and answer. 0: the base's."),
    CHOICE("engine", "cpu_level", cpu_level, "auto|generic|avx2|avx512f", "auto",
           "Instruction set of the kernels. auto: the best there is."),
    CHOICE("engine", "backend", backend, "cpu|ref|async", "cpu",
           "Kernels that compute; ref and async are for tests."),
    UINT("engine", "spin_us", worker_spin_us, "microseconds", 0, 1000000, "20",
         "How long a compute thread polls for work before it sleeps."),
    UINT("loop", "spin_us", loop_spin_us, "microseconds", 0, 1000000, "0",
         "How long the loop thread polls the rings before it sleeps."),
    UINT("limits", "clients", clients, "connections", 1, 4096, "64",
         "Most connections of the control socket, and most clients with rings."),
    UINT("limits", "live_per_client", live_per_client, "requests", 1, 1024, "256",
         "Most live requests of one client."),
    POW2("limits", "arena_bytes", arena_bytes, CTS_ARENA_BYTES_MIN, CTS_ARENA_BYTES_MAX, "1M",
         "Largest room of one client's rings for payloads, and its default; a power of two."),
    POW2("limits", "out_bytes", out_bytes, CTS_OUT_BYTES_MIN, CTS_OUT_BYTES_MAX, "1M",
         "Largest room of one client's rings for output, and its default; a power of two."),
    BYTES("limits", "prompt_bytes", prompt_bytes, 1024, 64u << 20, "1M", "Longest text of a prompt."),
    UINT("limits", "max_tokens", max_tokens, "tokens", 1, 1u << 24, "256",
         "Tokens to generate where a request does not say."),
    UINT("limits", "client_stall_s", client_stall_s, "seconds", 1, 3600, "10",
         "How long a request waits for its client to take output before it ends with the error slow."),
    UINT("limits", "setup_s", setup_s, "seconds", 1, 3600, "5",
         "How long a new connection may take to say hello."),
    UINT("limits", "drain_s", drain_s, "seconds", 0, 86400, "30",
         "How long live requests may go on after a request to stop."),
    CHOICE("log", "level", log_level, "error|warning|notice|info|debug", "notice",
           "What is logged: this level and those before it."),
};
const uint32_t CTS_CONFIG_N_OPTIONS = sizeof(CTS_CONFIG_OPTIONS) / sizeof(CTS_CONFIG_OPTIONS[0]);

/* ---- values ---- */

static int is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);

    for (const char *p = choices; p != NULL; p = strchr(p, '|') != NULL ? strchr(p, '|') + 1 : NULL)
        if (n > 0 && strncmp(p, value, n) == 0 && (p[n] == '|' || p[n] == '\0')) return 1;
    return 0;
}

static int shift_of(char suffix)
{
    return suffix == 'K' ? 10 : suffix == 'M' ? 20 : suffix == 'G' ? 30 : -1;
}

/* Digits with an optional size suffix, nothing else. */
static int parse_number(const char *text, int has_suffix, uint64_t *out)
{
    uint64_t v;
    char    *end;
    int      shift = 0;

    if (text[0] < '0' || text[0] > '9') return CTS_EARG; /* strtoull takes signs and blanks */
    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno != 0) return CTS_EARG;
    if (has_suffix && *end != '\0') {
        shift = shift_of(*end++);
        if (shift < 0) return CTS_EARG;
    }
    if (*end != '\0' || v > UINT64_MAX >> shift) return CTS_EARG;
    *out = v << shift;
    return 0;
}

/* A size in its shortest exact form. */
static void format_number(const struct cts_config_option *o, uint64_t v, char out[32])
{
    const char *suffix = o->type == CTS_CONFIG_BYTES ? "GMK" : "";

    for (; *suffix != '\0'; suffix++) {
        int shift = shift_of(*suffix);

        if (v == 0 || v % (UINT64_C(1) << shift) != 0) continue;
        snprintf(out, 32, "%" PRIu64 "%c", v >> shift, *suffix);
        return;
    }
    snprintf(out, 32, "%" PRIu64, v);
}

static int assign_number(const struct cts_config_option *o, struct cts_config *c, const char *value,
                         struct cts_err *err)
{
    char     lo[32], hi[32];
    uint64_t v;

    if (parse_number(value, o->type == CTS_CONFIG_BYTES, &v) < 0 || v < o->lo || v > o->hi ||
        (o->is_pow2 && (v & (v - 1)) != 0)) {
        format_number(o, o->lo, lo);
        format_number(o, o->hi, hi);
        return cts_err_set(err, CTS_EARG, "%s.%s is '%s', wanted %s from %s to %s%s%s", o->section, o->name,
                           value, o->is_pow2 ? "a power of two" : "a whole number", lo, hi,
                           o->unit[0] != '\0' ? " " : "", o->unit);
    }
    *(uint64_t *)((char *)c + o->off) = v;
    return 0;
}

static int assign_string(const struct cts_config_option *o, struct cts_config *c, const char *value,
                         struct cts_err *err)
{
    char **at = (char **)((char *)c + o->off), *copy = NULL;

    if (o->type == CTS_CONFIG_CHOICE && !is_choice(o->choices, value))
        return cts_err_set(err, CTS_EARG, "%s.%s is '%s', wanted one of %s", o->section, o->name, value,
                           o->choices);
    if (value[0] != '\0' && (copy = strdup(value)) == NULL)
        return cts_err_set(err, -ENOMEM, "%s.%s", o->section, o->name);
    free(*at);
    *at = copy;
    return 0;
}

static int assign(const struct cts_config_option *o, struct cts_config *c, const char *value,
                  struct cts_err *err)
{
    int is_number = o->type == CTS_CONFIG_UINT || o->type == CTS_CONFIG_BYTES;

    return is_number ? assign_number(o, c, value, err) : assign_string(o, c, value, err);
}

static const struct cts_config_option *find_option(const char *section, size_t n, const char *name)
{
    for (uint32_t i = 0; i < CTS_CONFIG_N_OPTIONS; i++) {
        const struct cts_config_option *o = &CTS_CONFIG_OPTIONS[i];

        if (strlen(o->section) == n && memcmp(o->section, section, n) == 0 && strcmp(o->name, name) == 0)
            return o;
    }
    return NULL;
}

int cts_config_init(struct cts_config *c)
{
    *c = (struct cts_config){ .model_path = NULL };
    for (uint32_t i = 0; i < CTS_CONFIG_N_OPTIONS; i++) {
        struct cts_err err = { .code = 0 };
        int            rc = assign(&CTS_CONFIG_OPTIONS[i], c, CTS_CONFIG_OPTIONS[i].dflt, &err);

        CTS_ASSERT(rc == 0 || rc == -ENOMEM); /* a default is a value that may be given */
        if (rc < 0) {
            cts_config_deinit(c);
            return rc;
        }
    }
    return 0;
}

void cts_config_deinit(struct cts_config *c)
{
    for (uint32_t i = 0; i < CTS_CONFIG_N_OPTIONS; i++) {
        const struct cts_config_option *o = &CTS_CONFIG_OPTIONS[i];

        if (o->type == CTS_CONFIG_STRING || o->type == CTS_CONFIG_CHOICE) free(*(char **)((char *)c + o->off));
    }
    *c = (struct cts_config){ .model_path = NULL };
}

/* ---- the file ---- */

/* What libconfuse's callbacks write to: it passes them no pointer of ours. Set
 * for the time of one cts_config_load; one thread reads the configuration. */
static struct {
    struct cts_config *config;
    cfg_t             *top; /* knows the file's name, where a section does not */
    struct cts_err    *err;
    int                rc;
} parsing;

__attribute__((format(printf, 2, 0))) static void on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
    const char *file = cfg->filename != NULL ? cfg->filename : parsing.top->filename;
    char        text[384];

    if (parsing.rc < 0) return; /* the first says it best */
    vsnprintf(text, sizeof(text), fmt, ap);
    parsing.rc = cts_err_set(parsing.err, CTS_EFORMAT, "%s:%d: %s", file != NULL ? file : "?", cfg->line, text);
}

static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
    const struct cts_config_option *o = find_option(cfg_name(cfg), strlen(cfg_name(cfg)), cfg_opt_name(opt));
    struct cts_err                  err = { .code = 0 };

    CTS_ASSERT(o != NULL); /* libconfuse knows the same table */
    if (assign(o, parsing.config, cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1), &err) == 0) return 0;
    cfg_error(cfg, "%s", err.text);
    return -1;
}

#define SECTIONS_MAX 8

/* libconfuse's view of the table: sections of strings, whose values on_value takes. */
struct grammar {
    cfg_opt_t sections[SECTIONS_MAX + 2];
    cfg_opt_t options[SECTIONS_MAX][sizeof(CTS_CONFIG_OPTIONS) / sizeof(CTS_CONFIG_OPTIONS[0]) + 1];
};

static void make_grammar(struct grammar *g)
{
    static const cfg_opt_t END = CFG_END(), INCLUDE = CFG_FUNC("include", cfg_include);
    uint32_t               n_sections = 0, n_options = 0;

    for (uint32_t i = 0; i < CTS_CONFIG_N_OPTIONS; i++) {
        const struct cts_config_option *o = &CTS_CONFIG_OPTIONS[i];

        if (i == 0 || strcmp(o->section, CTS_CONFIG_OPTIONS[i - 1].section) != 0) {
            CTS_ASSERT(n_sections < SECTIONS_MAX);
            g->sections[n_sections] = (cfg_opt_t)CFG_SEC(o->section, g->options[n_sections], CFGF_NONE);
            n_sections++;
            n_options = 0;
        }
        g->options[n_sections - 1][n_options++] = (cfg_opt_t)CFG_STR(o->name, NULL, CFGF_NODEFAULT);
        g->options[n_sections - 1][n_options] = END;
    }
    g->sections[n_sections] = INCLUDE;
    g->sections[n_sections + 1] = END;
}

static cfg_t *make_parser(struct grammar *g)
{
    cfg_t *cfg;

    make_grammar(g);
    cfg = cfg_init(g->sections, CFGF_NONE);
    if (cfg == NULL) return NULL;
    (void)cfg_set_error_function(cfg, on_error);
    for (uint32_t i = 0; i < CTS_CONFIG_N_OPTIONS; i++) {
        char path[64];

        snprintf(path, sizeof(path), "%s|%s", CTS_CONFIG_OPTIONS[i].section, CTS_CONFIG_OPTIONS[i].name);
        (void)cfg_set_validate_func(cfg, path, on_value);
    }
    return cfg;
}

int cts_config_load(struct cts_config *c, const char *path, struct cts_err *err)
{
    struct grammar *g = calloc(1, sizeof(*g));
    cfg_t          *cfg = g != NULL ? make_parser(g) : NULL;
    int             rc;

    if (cfg == NULL) {
        free(g);
        return cts_err_set(err, -ENOMEM, "read '%s'", path);
    }
    parsing.config = c;
    parsing.top = cfg;
    parsing.err = err;
    parsing.rc = 0;
    errno = 0;
    rc = cfg_parse(cfg, path);
    if (rc == CFG_SUCCESS) rc = 0;
    else if (parsing.rc < 0) rc = parsing.rc;
    else if (rc == CFG_FILE_ERROR) rc = cts_err_set(err, errno != 0 ? -errno : -EIO, "read '%s'", path);
    else rc = cts_err_set(err, CTS_EFORMAT, "'%s' is not a configuration file", path);
    cfg_free(cfg);
    free(g);
    return rc;
}

int cts_config_set(struct cts_config *c, const char *assignment, struct cts_err *err)
{
    const char                     *dot = strchr(assignment, '.'), *eq = strchr(assignment, '=');
    const struct cts_config_option *o;
    char                            name[64];

    if (dot == NULL || eq == NULL || dot > eq)
        return cts_err_set(err, CTS_EARG, "'%s' is not SECTION.NAME=VALUE", assignment);
    snprintf(name, sizeof(name), "%.*s", (int)(eq - dot - 1 < 63 ? eq - dot - 1 : 63), dot + 1);
    o = find_option(assignment, (size_t)(dot - assignment), name);
    if (o == NULL)
        return cts_err_set(err, CTS_EARG, "there is no option '%.*s'", (int)(eq - assignment), assignment);
    return assign(o, c, eq + 1, err);
}

int cts_config_check(const struct cts_config *c, struct cts_err *err)
{
    if (c->model_path == NULL)
        return cts_err_set(err, CTS_EARG, "model.path is not set: it names the folder of the base model");
    if (c->listen_socket == NULL) return cts_err_set(err, CTS_EARG, "listen.socket is empty");
    if (c->sequences > c->rows)
        return cts_err_set(err, CTS_EARG, "engine.sequences is %" PRIu64 ", more than engine.rows, %" PRIu64,
                           c->sequences, c->rows);
    return 0;
}

/* ---- printing ---- */

static void print_string(const char *s, FILE *out)
{
    fputc('"', out);
    for (; s != NULL && *s != '\0'; s++) {
        if (*s == '"' || *s == '\\' || *s == '$') fputc('\\', out);
        fputc(*s, out);
    }
    fputs("\"\n", out);
}

void cts_config_print(const struct cts_config *c, FILE *out)
{
    for (uint32_t i = 0; i < CTS_CONFIG_N_OPTIONS; i++) {
        const struct cts_config_option *o = &CTS_CONFIG_OPTIONS[i];
        const void                     *at = (const char *)c + o->off;
        char                            number[32];

        if (i == 0 || strcmp(o->section, o[-1].section) != 0)
            fprintf(out, "%s%s {\n", i > 0 ? "}\n" : "", o->section);
        fprintf(out, "    %s = ", o->name);
        if (o->type == CTS_CONFIG_STRING || o->type == CTS_CONFIG_CHOICE) {
            print_string(*(char *const *)at, out);
        } else {
            format_number(o, *(const uint64_t *)at, number);
            fprintf(out, "%s\n", number);
        }
    }
    fputs("}\n", out);
}
