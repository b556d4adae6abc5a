#ifndef CTS_COMMON_PROGRESS_H
#define CTS_COMMON_PROGRESS_H

#include <stdint.h>

/* A progress bar on stderr while it is a terminal; nothing otherwise.
 * Redraws at most ten times a
 * second. One thread. */
struct cts_progress {
    const char *what; /* borrowed, e.g. "compressing" */
    uint64_t    n_total, start_ns, drawn_ns;
    int         is_shown;
};

void cts_progress_start(struct cts_progress *p, const char *what, uint64_t n_total);
/* n_done of n_total; note (may be NULL) stands at the end of the line. */
void cts_progress_update(struct cts_progress *p, uint64_t n_done, const char *note);
/* Clears the bar's line. */
void cts_progress_end(struct cts_progress *p);

#endif
