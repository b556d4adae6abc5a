#include "common/clock.h"
#include "common/log.h"
#include "common/progress.h"
#include "tests/check.h"

#include <string.h>
#include <unistd.h>

/* Runs fn with stderr going into a pipe; what came out is in out, terminated. */
static void capture(void (*fn)(void), char *out, size_t cap)
{
    int     fds[2], kept = dup(STDERR_FILENO);
    ssize_t n;

    CHECK(kept >= 0 && pipe(fds) == 0 && dup2(fds[1], STDERR_FILENO) >= 0);
    fn();
    fflush(stderr);
    CHECK(dup2(kept, STDERR_FILENO) >= 0 && close(kept) == 0 && close(fds[1]) == 0);
    n = read(fds[0], out, cap - 1); /* all of it: less than a pipe holds */
    CHECK(n >= 0 && close(fds[0]) == 0);
    out[n] = '\0';
}

static void say_three(void)
{
    cts_log(CTS_LOG_ERROR, "one\n<3>forged\x1b[2J\x7f");
    cts_log(CTS_LOG_NOTICE, "%s %d", "two", 2);
    cts_log(CTS_LOG_INFO, "not shown");
}

static void log_lines_cannot_be_forged_and_levels_are_kept(void **state)
{
    char out[4096];

    (void)state;
    capture(say_three, out, sizeof(out));
    CHECK_MSG(strcmp(out, "one?<3>forged?[2J?\ntwo 2\n") == 0, "%s", out);
    cts_log_set_journal(1);
    cts_log_set_level(CTS_LOG_INFO);
    capture(say_three, out, sizeof(out));
    cts_log_set_journal(0);
    cts_log_set_level(CTS_LOG_NOTICE);
    CHECK_MSG(strcmp(out, "<3>one?<3>forged?[2J?\n<5>two 2\n<6>not shown\n") == 0, "%s", out);
}

static void say_much(void)
{
    char text[3000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    cts_log(CTS_LOG_ERROR, "%s", text);
}

static void log_cuts_long_lines_and_ends_them(void **state)
{
    char out[4096];

    (void)state;
    capture(say_much, out, sizeof(out));
    CHECK(strlen(out) > 1000 && strlen(out) <= 1024 && strchr(out, '\n') == out + strlen(out) - 1);
}

static void log_levels_have_names(void **state)
{
    (void)state;
    CHECK(cts_log_level_from_name("error") == CTS_LOG_ERROR && cts_log_level_from_name("debug") == CTS_LOG_DEBUG);
    CHECK(cts_log_level_from_name("Debug") == -1 && cts_log_level_from_name("") == -1);
}

static void show_progress(void)
{
    struct cts_progress p;

    cts_progress_start(&p, "testing", 10);
    cts_progress_update(&p, 5, "half");
    cts_progress_end(&p);
}

static void progress_says_nothing_where_there_is_no_terminal(void **state)
{
    char out[256];

    (void)state;
    capture(show_progress, out, sizeof(out));
    CHECK(out[0] == '\0');
}

static void clock_goes_forward_and_can_be_mocked(void **state)
{
    uint64_t a = cts_clock_ns(), b = cts_clock_ns();

    (void)state;
    CHECK(a > 0 && b >= a);
    cts_clock_mock(17);
    CHECK(cts_clock_ns() == 17);
    cts_clock_mock(UINT64_MAX);
    CHECK(cts_clock_ns() >= b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_lines_cannot_be_forged_and_levels_are_kept),
        cmocka_unit_test(log_cuts_long_lines_and_ends_them),
        cmocka_unit_test(log_levels_have_names),
        cmocka_unit_test(progress_says_nothing_where_there_is_no_terminal),
        cmocka_unit_test(clock_goes_forward_and_can_be_mocked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
