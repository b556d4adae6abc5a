/* System calls of the two threads over a thousand decode steps, counted by
 * strace: the engine at most one a step, the loop at most two and one for each
 * sleeping client. */

#include "shm/record.h"
#include "tests/check.h"
#include "tests/system/ctsd.h"
#include "tests/system/raw.h"

#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_TOKENS 1000u
#define SLACK    60u /* beginning and end: hello, status, submission, attaching */

static struct ctsd d;

/* The thread of the daemon with that name; 0 when there is none. */
static pid_t thread_named(const char *name)
{
    char           path[512], comm[64];
    struct dirent *e;
    pid_t          tid = 0;
    DIR           *dir;

    snprintf(path, sizeof(path), "/proc/%ld/task", (long)d.pid);
    dir = opendir(path);
    CHECK(dir != NULL);
    while (tid == 0 && (e = readdir(dir)) != NULL) {
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%ld/task/%.20s/comm", (long)d.pid, e->d_name);
        f = fopen(path, "r");
        if (f == NULL) continue;
        if (fgets(comm, sizeof(comm), f) != NULL && strncmp(comm, name, strlen(name)) == 0)
            tid = (pid_t)atol(e->d_name);
        fclose(f);
    }
    closedir(dir);
    return tid;
}

struct tracer {
    pid_t pid;
    char  path[128];
};

/* Count the system calls of one thread from now on; 0 when strace can't. */
static int trace(struct tracer *t, pid_t tid, const char *name)
{
    char    text[1024] = "", target[32];
    size_t  n = 0;
    ssize_t got;
    int     fds[2];

    snprintf(t->path, sizeof(t->path), "%s/%s", d.dir, name);
    snprintf(target, sizeof(target), "%ld", (long)tid);
    CHECK(pipe(fds) == 0);
    t->pid = fork();
    if (t->pid == 0) {
        dup2(fds[1], STDERR_FILENO);
        execlp("strace", "strace", "-c", "-o", t->path, "-p", target, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    while (strstr(text, "attached") == NULL && n < sizeof(text) - 1 &&
           (got = read(fds[0], text + n, sizeof(text) - 1 - n)) > 0)
        n += (size_t)got;
    close(fds[0]);
    if (strstr(text, "attached") != NULL) return 1;
    (void)waitpid(t->pid, NULL, 0);
    return 0;
}

/* Stop counting: the number of calls. */
static unsigned long end_trace(struct tracer *t)
{
    char          line[256], name[64], errors[64];
    unsigned long n = 0;
    FILE         *f;

    kill(t->pid, SIGINT);
    CHECK(waitpid(t->pid, NULL, 0) == t->pid);
    f = fopen(t->path, "r");
    CHECK(f != NULL);
    while (fgets(line, sizeof(line), f) != NULL) {
        unsigned long calls;

        if (strstr(line, " total") != NULL &&
            sscanf(line, "%*s %*s %*s %lu %63s %63s", &calls, errors, name) >= 2)
            n = calls;
        print_message("%s", line);
    }
    fclose(f);
    CHECK(n > 0);
    return n;
}

static void put_request(struct raw_ring *r, uint64_t req_id)
{
    struct cts_buf b = CTS_BUF(4096);
    struct cts_mpw w = { &b, 0 };

    cts_mpw_map(&w, 4);
    cts_mpw_str(&w, "prompt"), cts_mpw_str(&w, "a large");
    cts_mpw_str(&w, "max_tokens"), cts_mpw_u64(&w, N_TOKENS);
    cts_mpw_str(&w, "temperature"), cts_mpw_int(&w, 1);
    cts_mpw_str(&w, "seed"), cts_mpw_u64(&w, 1);
    raw_ring_put(r, (struct cts_sub_record){ .op = CTS_OP_GENERATE, .req_id = req_id }, b.ptr, b.len);
    cts_buf_deinit(&b);
}

/* Take everything of one request, asleep in between; 77 tokens or 1000, all is well. */
static uint32_t take_all(struct raw_ring *r)
{
    struct cts_out_view v = { .type = 0 };
    uint32_t            n_tokens = 0;

    do {
        CHECK(raw_ring_take(r) == 1 && cts_out_decode(r->rec, &v) == 0);
        if (v.type == CTS_OUT_TOKENS) n_tokens += v.n_tokens;
    } while (!(v.flags & CTS_OUTF_LAST));
    CHECK(v.type == CTS_OUT_DONE);
    return n_tokens;
}

static void a_step_costs_the_engine_one_call_and_the_loop_two_and_a_wake(void **state)
{
    struct tracer   loop, engine;
    struct raw      c;
    struct raw_ring r;
    uint64_t        steps;
    unsigned long   n_loop, n_engine;

    (void)state;
    raw_open(&c, d.socket);
    raw_ring_open(&r, &c, 0, 0, 0);
    steps = raw_status(&c, "engine", "n_steps");
    if (!trace(&loop, d.pid, "loop")) SKIP_ALL("strace can't attach to a process here");
    CHECK(trace(&engine, thread_named("ctsd-engine"), "engine"));
    put_request(&r, 1);
    CHECK(take_all(&r) == N_TOKENS);
    n_engine = end_trace(&engine);
    n_loop = end_trace(&loop);
    steps = raw_status(&c, "engine", "n_steps") - steps;
    CHECK(steps >= N_TOKENS);
    CHECK_MSG(n_engine <= steps + SLACK, "engine: %lu calls in %lu steps\n", n_engine, (unsigned long)steps);
    CHECK_MSG(n_loop <= 3 * steps + SLACK, "loop: %lu calls in %lu steps, one client asleep\n", n_loop,
              (unsigned long)steps);
    raw_ring_close(&r);
    raw_close(&c);
}

static int start(void **state)
{
    /* One compute thread: more of them wake one another, which is the kernels' own affair. */
    static const char *const SETTINGS[] = { "engine.threads=1", NULL };

    (void)state;
    ctsd_start(&d, SETTINGS);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    ctsd_stop(&d);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(
        a_step_costs_the_engine_one_call_and_the_loop_two_and_a_wake) };

    if (system("strace -V >/dev/null 2>&1") != 0) SKIP_ALL("strace is not installed");
    return cmocka_run_group_tests_name("ctsd system calls", tests, start, stop);
}
