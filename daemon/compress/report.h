#ifndef CTS_DAEMON_COMPRESS_REPORT_H
#define CTS_DAEMON_COMPRESS_REPORT_H

/* What cts-compress says when it is done: for people and for programs. */

#include "common/err.h"
#include "common/hash.h"
#include "daemon/compress/compress.h"

#include <stdio.h>

struct cts_report {
    const struct cts_compressed *c;
    struct cts_collection_bytes  bytes;
    uint8_t                      digest[CTS_DIGEST_BYTES];
    const char                  *dir; /* the collection */
    double                       seconds;
};

/* A line per adapter, then what all have in common. */
void cts_report_print(const struct cts_report *r, FILE *f);

/* The same as JSON, to the file path, or to standard output for "-". 0, -errno, -ENOMEM. */
int cts_report_json(const struct cts_report *r, const char *path, struct cts_err *err);

#endif
