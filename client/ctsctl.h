#ifndef CTS_CLIENT_CTSCTL_H
#define CTS_CLIENT_CTSCTL_H

/* What the files of ctsctl share. A command is a row of a table (ctsctl.c): its
 * name, its arguments and options and a function; help, the checks of the
 * command line, man page and completion all follow the table. */

#include "client/conn.h"
#include "common/err.h"
#include "common/json.h"

#include <stdint.h>

enum {
    CTSCTL_OK = 0,
    CTSCTL_FAILED = 1,
    CTSCTL_USAGE = 2,
    CTSCTL_NO_DAEMON = 3,
    CTSCTL_DRAINING = 4,
    CTSCTL_INTERRUPTED = 130
};

#define CTSCTL_ARGS_MAX   2
#define CTSCTL_VALUES_MAX 64 /* options on one command line */

struct ctsctl_option {
    const char *name; /* without the dashes */
    const char *arg;  /* what follows it, NULL: nothing */
    const char *text; /* one line of help */
};

struct ctsctl;

struct ctsctl_command {
    const char                 *name, *args, *text; /* "run", "NAME [PROMPT]", one line of help */
    uint32_t                    n_args_min, n_args_max;
    const struct ctsctl_option *options; /* up to an entry without a name, or NULL */
    int                       (*run)(struct ctsctl *t); /* the exit status */
};

/* One call of the program. Strings are borrowed from argv. */
struct ctsctl {
    const struct ctsctl_command *command;
    const char                  *args[CTSCTL_ARGS_MAX];
    uint32_t                     n_args, n_values;
    struct {
        const char *name, *value;
    } values[CTSCTL_VALUES_MAX];
    int             is_json;
    const char     *socket; /* never NULL */
    struct cts_conn conn;
    int             is_connected;
};

/* The value of an option: the last one given; NULL when it was not given, "" for
 * one without an argument. */
const char *ctsctl_value(const struct ctsctl *t, const char *option);

/* A number from an option within lo..hi: 1 with *out, 0 when it was not given;
 * what is no such number ends in CTSCTL_USAGE, negative, with the message printed. */
int ctsctl_int(const struct ctsctl *t, const char *option, int64_t lo, int64_t hi, int64_t *out);
int ctsctl_real(const struct ctsctl *t, const char *option, double lo, double hi, double *out);

/* Print "ctsctl: ..." to stderr, and with --json an object "error" to stdout;
 * returns CTSCTL_FAILED. The second returns CTSCTL_USAGE and points to --help. */
int ctsctl_fail(const struct ctsctl *t, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int ctsctl_usage(const struct ctsctl *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same for a connection that could not be made: says which socket was tried
 * and how to start a daemon. */
int ctsctl_fail_open(const struct ctsctl *t, int code, const char *text);

/* Connect to the daemon, once: 0 or an exit status, with the message printed. */
int ctsctl_connect(struct ctsctl *t);

/* Call a method without parameters or with those that the caller wrote after
 * cts_conn_begin: 0 with *result, or an exit status with the message printed.
 * Waits for ever: the daemon's answer, its end or Ctrl-C ends it. */
int ctsctl_call(struct ctsctl *t, const char *method, struct cts_mp *result);
int ctsctl_finish(struct ctsctl *t, struct cts_mp *result);

/* One checked msgpack object as JSON, a new reference; NULL without memory. */
json_t *ctsctl_json(struct cts_mp *c);

/* Print doc as one line and drop it. Returns the exit status. */
int ctsctl_print_json(struct ctsctl *t, json_t *doc);

/* doc as indented lines "key  value", maps within as sections. */
void ctsctl_print_object(const json_t *doc, int indent);

/* Columns of text. Cells are copied, control characters escaped. Rows are
 * complete when every column has had its cell. */
struct ctsctl_table {
    const char *const *heads; /* [n_cols] */
    uint32_t           n_cols;
    char             **cells; /* [n_cells] */
    size_t             n_cells, cap;
    int                is_short_of_memory;
};
void ctsctl_table_add(struct ctsctl_table *t, const char *cell);
void ctsctl_table_addf(struct ctsctl_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Print it aligned, the head in bold on a terminal, then free it. 0 or -ENOMEM. */
int ctsctl_table_end(struct ctsctl_table *t);

/* The commands. */
int ctsctl_status(struct ctsctl *t);
int ctsctl_health(struct ctsctl *t);
int ctsctl_ls(struct ctsctl *t);
int ctsctl_show(struct ctsctl *t);
int ctsctl_load(struct ctsctl *t);
int ctsctl_unload(struct ctsctl *t);
int ctsctl_stop(struct ctsctl *t);
int ctsctl_version(struct ctsctl *t);
int ctsctl_run(struct ctsctl *t);
int ctsctl_eval(struct ctsctl *t);
int ctsctl_help(struct ctsctl *t);

#endif
