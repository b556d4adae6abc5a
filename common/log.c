#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 1024

static enum cts_log_level max_level = CTS_LOG_NOTICE;
static int                for_journal;

void cts_log_set_level(enum cts_log_level level)
{
    max_level = level;
}

void cts_log_set_journal(int on)
{
    for_journal = on;
}

int cts_log_level_from_name(const char *name)
{
    static const char *const NAMES[] = { "error", "warning", "notice", "info", "debug" };

    for (int i = 0; i < 5; i++)
        if (strcmp(NAMES[i], name) == 0) return CTS_LOG_ERROR + i;
    return -1;
}

void cts_log(enum cts_log_level level, const char *fmt, ...)
{
    char    line[LINE_BYTES];
    va_list ap;
    int     n = 0, m;

    if (level > max_level) return;
    if (for_journal) n = snprintf(line, sizeof(line), "<%d>", (int)level);
    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
    va_end(ap);
    if (m < 0) return;
    if (m > (int)sizeof(line) - n - 2) m = (int)sizeof(line) - n - 2;
    for (int i = n; i < n + m; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) line[i] = '?';
    line[n + m] = '\n';
    if (write(STDERR_FILENO, line, (size_t)(n + m + 1)) < 0) return; /* nowhere left to say so */
}
