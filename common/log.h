#ifndef CTS_COMMON_LOG_H
#define CTS_COMMON_LOG_H

enum cts_log_level { CTS_LOG_ERROR = 3, CTS_LOG_WARNING = 4, CTS_LOG_NOTICE = 5, CTS_LOG_INFO = 6, CTS_LOG_DEBUG = 7 };

/* Lines above this level are dropped. Default CTS_LOG_NOTICE. Main thread, at start. */
void cts_log_set_level(enum cts_log_level level);

/* Write "<N>" before each line, as systemd's journal reads levels from stderr. */
void cts_log_set_journal(int on);

/* One line per event to stderr, one write(2). Control characters of the text
 * become '?', so that a peer's name cannot forge a line. Only daemon/ logs;
 * never inside a turn above debug. Any thread. */
void cts_log(enum cts_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Level by name: "error" .. "debug"; -1 when unknown. */
int cts_log_level_from_name(const char *name);

#endif
