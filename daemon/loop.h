#ifndef CTS_DAEMON_LOOP_H
#define CTS_DAEMON_LOOP_H

/* The loop thread: it opens everything that the configuration names, serves until
 * it is told to stop, drains, and closes everything again. */

#include "daemon/config.h"

/* Serve. 0 after an orderly stop (SIGTERM, SIGINT, `stop`); CTS_EGPU_LOST when the
 * device was lost meanwhile; else nothing was served, and err says why. Main
 * thread; logs. */
int cts_loop_run(const struct cts_config *c, const char *version, struct cts_err *err);

/* What serving by c would take, by line, without opening a device; out may be
 * NULL: then this only looks whether what c names can be served. */
int cts_loop_plan(const struct cts_config *c, FILE *out, struct cts_err *err);

#endif
