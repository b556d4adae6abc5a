#include "common/log.h"
#include "daemon/config.h"
#include "daemon/loop.h"
#include "kernels/ctsk.h"

#include <config.h> /* the build's; the quoted form would find the one beside this file */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

#define CONFIG_FILE  CTS_SYSCONFDIR "/ctsd/ctsd.conf"
#define CTSD_VERSION "ctsd " PACKAGE_VERSION

static const char HELP[] =
    "usage: ctsd [-tTVh] [-c FILE] [-s SECTION.NAME=VALUE]...\n"
    "  -c, --config FILE              read FILE (default: " CONFIG_FILE " where there is one)\n"
    "  -s, --set SECTION.NAME=VALUE   set one option, over the file; may be repeated\n"
    "  -t, --test                     check the configuration and exit\n"
    "  -T, --dump                     print the whole configuration and the memory it takes, and exit\n"
    "  -V, --version                  print version and build, and exit\n"
    "  -h, --help                     print this help, and exit\n";

static const struct option OPTIONS[] = {
    { "config", required_argument, NULL, 'c' },
    { "set", required_argument, NULL, 's' },
    { "test", no_argument, NULL, 't' },
    { "dump", no_argument, NULL, 'T' },
    { "version", no_argument, NULL, 'V' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static int print_version(void)
{
    const char *levels[8];
    uint32_t    n = ctsk_cpu_levels(levels, 8);

    printf("%s\nbuilt with %s\ncpu levels:", CTSD_VERSION, CTS_BUILD_SUMMARY);
    for (uint32_t i = 0; i < n; i++) printf(" %s", levels[i]);
    printf("; engine.cpu_level = auto takes %s\n", levels[n - 1]);
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

static int run(const struct cts_config *c, int mode, struct cts_err *err)
{
    if (mode == 0) return cts_loop_run(c, CTSD_VERSION, err);
    if (mode == 'T') cts_config_print(c, stdout);
    return cts_loop_plan(c, mode == 'T' ? stdout : NULL, err);
}

static int exit_status(int rc)
{
    switch (rc) {
    case 0: return EX_OK;
    case CTS_EBUSY: return EX_TEMPFAIL; /* another daemon serves the socket */
    case -ENOMEM:
    case CTS_EGPU:
    case CTS_EGPU_LOST: return EX_OSERR;
    default: return EX_CONFIG; /* the configuration, or something that it names */
    }
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
    return exit_status(rc);
}
