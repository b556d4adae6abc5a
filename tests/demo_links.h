#ifndef CTS_TESTS_DEMO_LINKS_H
#define CTS_TESTS_DEMO_LINKS_H

/* A few of the demo's adapters in a folder of their own, as links, so that a
 * test needs not take all 64, and can put bad ones beside them. */

#include "tests/check.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first n adapters of a demo collection ("shared-start") by name into dir, a new folder. */
static inline void demo_links(const char *dir, const char *collection, int n)
{
    char cmd[2048], from[512];
    char rel[128];

    snprintf(rel, sizeof(rel), "contrib/demo/adapters/%s", collection);
    src_path(from, sizeof(from), rel);
    CHECK(mkdir(dir, 0777) == 0);
    snprintf(
        cmd, sizeof(cmd),
        "from=$(cd '%s' && pwd) && ls \"$from\" | head -n %d | while read -r a; do ln -s \"$from/$a\" '%s/'; done",
        from, n, dir);
    CHECK(system(cmd) == 0);
}

static inline void remove_all(const char *dir)
{
    char cmd[1024];

    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
    CHECK(system(cmd) == 0);
}

#endif
