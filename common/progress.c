#include "common/progress.h"

#include "common/clock.h"

#include <stdio.h>
#include <unistd.h>

#define BAR_COLUMNS     30
#define REDRAW_NS       100000000u

void cts_progress_start(struct cts_progress *p, const char *what, uint64_t n_total)
{
    *p = (struct cts_progress){ .what = what, .n_total = n_total, .start_ns = cts_clock_ns() };
    p->is_shown = isatty(STDERR_FILENO) == 1;
    cts_progress_update(p, 0, NULL);
}

void cts_progress_update(struct cts_progress *p, uint64_t n_done, const char *note)
{
    static const char FULL[] = "##############################", VOID[] = "..............................";
    uint64_t          now_ns = cts_clock_ns();
    int               n_full;

    if (!p->is_shown || (n_done < p->n_total && now_ns - p->drawn_ns < REDRAW_NS && p->drawn_ns != 0)) return;
    p->drawn_ns = now_ns;
    n_full = p->n_total == 0 ? BAR_COLUMNS : (int)(n_done * BAR_COLUMNS / p->n_total);
    if (n_full > BAR_COLUMNS) n_full = BAR_COLUMNS;
    fprintf(stderr, "\r\033[K%s [%.*s%.*s] %llu/%llu %.1f s%s%s", p->what, n_full, FULL, BAR_COLUMNS - n_full, VOID,
            (unsigned long long)n_done, (unsigned long long)p->n_total, (double)(now_ns - p->start_ns) * 1e-9,
            note != NULL ? "  " : "", note != NULL ? note : "");
}

void cts_progress_end(struct cts_progress *p)
{
    if (p->is_shown) fputs("\r\033[K", stderr);
    p->is_shown = 0;
}
