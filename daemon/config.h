#ifndef CTS_DAEMON_CONFIG_H
#define CTS_DAEMON_CONFIG_H

/* The configuration: one table of options makes the file's parser, --set, the
 * output of -T and the list in ctsd.conf(5), which a test compares. Read at start,
 * by one thread. */

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct cts_config {
    /* Strings are owned; NULL where the default is none. */
    char    *model_path, *collection_path, *listen_socket, *cpu_level, *backend, *log_level;
    uint64_t threads, rows, sequences, prefill_chunk, page_tokens, kv_pages, requests;
    uint64_t exact_adapters, exact_rank, context;
    uint64_t worker_spin_us, loop_spin_us;
    uint64_t clients, live_per_client, arena_bytes, out_bytes, prompt_bytes, max_tokens;
    uint64_t client_stall_s, setup_s, drain_s;
};

enum cts_config_type {
    CTS_CONFIG_STRING,
    CTS_CONFIG_UINT,
    CTS_CONFIG_BYTES,  /* a number with an optional K, M or G (powers of 1024) */
    CTS_CONFIG_CHOICE, /* one of choices */
};

struct cts_config_option {
    const char          *section, *name;
    enum cts_config_type type;
    const char          *unit;     /* "" where a number has none */
    uint64_t             lo, hi;   /* of numbers */
    int                  is_pow2;  /* a number has to be a power of two */
    const char          *choices;  /* "a|b|c" */
    const char          *dflt;     /* as it would be written; "": none */
    int                  is_reloadable;
    const char          *text;     /* one sentence */
    size_t               off;      /* in struct cts_config */
};
extern const struct cts_config_option CTS_CONFIG_OPTIONS[];
extern const uint32_t                 CTS_CONFIG_N_OPTIONS;

/* All defaults. 0 or -ENOMEM. */
int  cts_config_init(struct cts_config *c);
void cts_config_deinit(struct cts_config *c); /* zeroed is fine */

/* Read a file over what is there. CTS_EFORMAT with file, line and reason; -errno. */
int cts_config_load(struct cts_config *c, const char *path, struct cts_err *err);

/* "section.name=value" over what is there. CTS_EARG with the reason. */
int cts_config_set(struct cts_config *c, const char *assignment, struct cts_err *err);

/* What no option can check alone. CTS_EARG. */
int cts_config_check(const struct cts_config *c, struct cts_err *err);

/* The whole configuration, as a file that gives the same again. */
void cts_config_print(const struct cts_config *c, FILE *out);

#endif
