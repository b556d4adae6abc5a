#ifndef CTS_TESTS_SYSTEM_CTSD_H
#define CTS_TESTS_SYSTEM_CTSD_H

/* The real ctsd in a directory of its own, and commands run against it. */

#include <stddef.h>
#include <sys/types.h>

struct ctsd {
    pid_t pid; /* 0: not running */
    char  dir[64], socket[96];
};

/* Start ./ctsd on the demo's base with these settings ("section.key=value", up to
 * NULL; the array may be NULL) and wait until it says that it is ready. CTS_SOCKET
 * is set to its socket. CHECKs that all went well. */
void ctsd_start(struct ctsd *d, const char *const *settings);

/* Ask it to end (SIGTERM, unless it ended already), CHECK that it exits with 0,
 * remove the directory. */
void ctsd_stop(struct ctsd *d);

/* Wait for the end of a daemon that was asked to stop; CHECK that it exits with 0. */
void ctsd_wait(struct ctsd *d);

/* SIGKILL, and wait. */
void ctsd_kill(struct ctsd *d);

/* Run a shell command in which $ctsctl and $demo stand for what they say, with
 * input (may be NULL) on its standard input; its two outputs in out [cap], as
 * they come. Returns the exit status. */
int run_command(const char *input, char *out, size_t cap, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
