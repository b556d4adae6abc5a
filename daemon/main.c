#include "common/log.h"
#include "daemon/config.h"
#include "daemon/loop.h"
#include "kernels/ctsk.h"

#include <config.h> /* the build's; the quoted form would find the one beside this file */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#define CONFIG_FILE CTS_SYSCONFDIR "/ctsd/ctsd.conf"
#define CTSD_VERSION     "ctsd " PACKAGE_VERSION

static const char HELP[] =
    "usage: ctsd [-tTVh] [-c FILE] [-s SECTION.NAME=VALUE]...\n"
    "  -c, --config FILE              read FILE (default: " CONFIG_FILE " where there is one)\n"
    "  -s, --set SECTION.NAME=VALUE   set one option, over the file; may be repeated\n"
    "  -t, --test                     check the configuration and exit\n"
    "  -T, --dump                     print the whole configuration and the memory it takes, and exit\n"
    "  -V, --version                  print version and build, and exit\n"
    "  -h, --help                     print this help, and exit\n";

static const struct option OPTIONS[] = {
    { "config", required_argument, NULL, 'c' }, { "set", required_argument, NULL, 's' }, { "test", no_argument, NULL, 't' },
    { "dump", no_argument, NULL, 'T' },         { "version", no_argument, NULL, 'V' },  { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static int print_version(void)
{
    const char *levels[8];
    uint32_t    n = ctsk_cpu_levels(levels, 8);

    printf("%s\nbuilt with %s\ncpu levels:", CTSD_VERSION, CTS_BUILD_SUMMARY);
    for (uint32_t i = 0; i < n; i++) printf(" %s", levels[i]);
    printf("\n");
    return EX_OK;
}

/* File and assignments, in the order of the command line's meaning: file first. */
static int read_config(struct cts_config *c, int argc, char **argv, struct cts_err *err)
{
    const char *file = access(CONFIG_FILE, F_OK) == 0 ? CONFIG_FILE : NULL;
    int         rc = cts_config_init(c), opt;

    for (optind = 1; (opt = getopt_long(argc, argv, "c:s:tTVh", OPTIONS, NULL)) != -1;)
        if (opt == 'c') file = optarg;
    if (rc == 0 && file != NULL) rc = cts_config_load(c, file, err);
    for (optind = 1; rc == 0 && (opt = getopt_long(argc, argv, "c:s:tTVh", OPTIONS, NULL)) != -1;)
        if (opt == 's') rc = cts_config_set(c, optarg, err);
    return rc == 0 ? cts_config_check(c, err) : rc;
}

/* The journal reads levels where stderr is the stream that it gave us. */
static void set_up_log(const struct cts_config *c)
{
    const char        *stream = getenv("JOURNAL_STREAM");
    struct stat        st;
    unsigned long long dev, ino;

    cts_log_set_level((enum cts_log_level)cts_log_level_from_name(c->log_level));
    if (stream != NULL && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0)
        cts_log_set_journal(st.st_dev == dev && st.st_ino == ino);
}

static int run(const struct cts_config *c, int mode, struct cts_err *err)
{
    set_up_log(c);
    if (mode == 0) return cts_loop_run(c, CTSD_VERSION, err);
    if (mode == 'T') cts_config_print(c, stdout);
    return cts_loop_plan(c, mode == 'T' ? stdout : NULL, err);
}

int main(int argc, char **argv)
{
    struct cts_config c = { .model_path = NULL };
    struct cts_err    err = { .code = 0 };
    int               mode = 0, rc, opt;

    while ((opt = getopt_long(argc, argv, "c:s:tTVh", OPTIONS, NULL)) != -1) {
        if (opt == 'V') return print_version();
        if (opt == 'h') return fputs(HELP, stdout) < 0 ? EX_IOERR : EX_OK;
        if (opt == 't' || opt == 'T') mode = opt;
        if (opt == '?') return fputs(HELP, stderr), EX_USAGE;
    }
    if (optind < argc) return fputs(HELP, stderr), EX_USAGE;
    rc = read_config(&c, argc, argv, &err);
    if (rc < 0) fprintf(stderr, "ctsd: %s\n", err.text);
    else if ((rc = run(&c, mode, &err)) < 0) cts_log(CTS_LOG_ERROR, "%s", err.text);
    cts_config_deinit(&c);
    return rc == 0 ? EX_OK : rc == CTS_EBUSY ? EX_TEMPFAIL : rc == CTS_EGPU || rc == CTS_EGPU_LOST || rc == -ENOMEM ? EX_OSERR : EX_CONFIG;
}
