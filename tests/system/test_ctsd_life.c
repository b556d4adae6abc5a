/* Beginning and end of the real ctsd. */

#include "shm/record.h"
#include "tests/check.h"
#include "tests/system/ctsd.h"
#include "tests/system/raw.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char out[16384];

/* Run ctsd with these arguments: its exit status, what it said in out. */
static int ctsd(const char *args)
{
    const char *dir = getenv("CTS_BUILDDIR");

    return run_command(NULL, out, sizeof(out), "%s/ctsd -c /dev/null %s", dir != NULL ? dir : ".", args);
}

static void flags_answer_without_serving(void **state)
{
    (void)state;
    CHECK(ctsd("-V") == 0 && strncmp(out, "ctsd ", 5) == 0 && strstr(out, "cpu levels: ") != NULL &&
          strstr(out, "sanitizers") != NULL);
    CHECK(ctsd("-h") == 0 && strstr(out, "--set") != NULL);
    CHECK(ctsd("-t -s model.path=$demo/base") == 0 && out[0] == '\0');
    CHECK(ctsd("-s model.path=$demo/base -T") == 0);
    CHECK(strstr(out, "    kv_pages = 2048\n") != NULL && strstr(out, "KV cache\n") != NULL &&
          strstr(out, "in all\n") != NULL);
}

static void what_is_wrong_with_the_configuration_is_said_and_is_78(void **state)
{
    (void)state;
    CHECK(ctsd("-t") == 78 && strstr(out, "model.path") != NULL);
    CHECK(ctsd("-t -s model.path=/x") == 78 && strstr(out, "/x") != NULL);
    CHECK(ctsd("-t -s model.path=/x -s engine.rows=0") == 78 && strstr(out, "engine.rows") != NULL);
    CHECK(ctsd("-t -s modell.path=/x") == 78 && strstr(out, "modell.path") != NULL);
    CHECK(ctsd("-c /nonexistent/ctsd.conf -t") == 78 && strstr(out, "/nonexistent/ctsd.conf") != NULL);
    CHECK(ctsd("-x") == 64 && strstr(out, "usage") != NULL);
    CHECK(ctsd("surplus") == 64);
    CHECK(ctsd("-s model.path=/nonexistent -s listen.socket=/tmp/cts-test-$$") == 78 &&
          strstr(out, "/nonexistent") != NULL);
}

static void a_second_daemon_names_the_first_and_leaves_it_alone(void **state)
{
    struct ctsd          d;
    struct raw           c;
    struct cts_ctl_reply reply;
    char                 args[256], pid[32];

    (void)state;
    ctsd_start(&d, NULL);
    snprintf(args, sizeof(args), "-s model.path=$demo/base -s listen.socket=%s", d.socket);
    snprintf(pid, sizeof(pid), "pid %ld", (long)d.pid);
    CHECK(ctsd(args) == 75);
    CHECK_MSG(strstr(out, pid) != NULL, "%s\n", out);
    raw_open(&c, d.socket);
    raw_call(&c, "health", &reply);
    raw_close(&c);
    ctsd_stop(&d);
}

/* A request over the ring that runs for a while. */
static void submit(struct raw_ring *r, uint32_t max_tokens)
{
    struct cts_buf b = CTS_BUF(4096);
    struct cts_mpw w = { &b, 0 };

    cts_mpw_map(&w, 4);
    cts_mpw_str(&w, "prompt"), cts_mpw_str(&w, "a large");
    cts_mpw_str(&w, "max_tokens"), cts_mpw_u64(&w, max_tokens);
    cts_mpw_str(&w, "temperature"), cts_mpw_int(&w, 1);
    cts_mpw_str(&w, "seed"), cts_mpw_u64(&w, 1);
    raw_ring_put(r, (struct cts_sub_record){ .op = CTS_OP_GENERATE, .req_id = max_tokens }, b.ptr, b.len);
    cts_buf_deinit(&b);
}

static struct cts_out_view take(struct raw_ring *r)
{
    struct cts_out_view v = { .type = 0 };

    CHECK(raw_ring_take(r) == 1 && cts_out_decode(r->rec, &v) == 0);
    return v;
}

static void sigterm_finishes_what_is_live_and_takes_nothing_new(void **state)
{
    struct ctsd         d;
    struct raw          c, late;
    struct raw_ring     r, late_ring;
    struct cts_out_view v = { .type = 0 };
    uint32_t            n_tokens = 0, n_over = 0, is_refused = 0, n_wanted = 0;
    /* However slow a sanitizer makes it: this is about who is served to the end. */
    static const char *const SETTINGS[] = { "limits.drain_s=3600", NULL };

    (void)state;
    ctsd_start(&d, SETTINGS);
    raw_open(&c, d.socket);
    raw_ring_open(&r, &c, 0, 0, 0);
    for (uint32_t n = 900; n < 908; n_wanted += n++) submit(&r, n);
    CHECK(take(&r).type == CTS_OUT_ACCEPTED);
    kill(d.pid, SIGTERM);
    while (!(cts_outr_flags(&r.outr) & CTS_OUT_DRAINING)) continue;
    raw_open(&late, d.socket); /* who comes now hears the same */
    raw_ring_open(&late_ring, &late, 0, 0, 0);
    CHECK(cts_outr_flags(&late_ring.outr) & CTS_OUT_DRAINING);
    raw_ring_close(&late_ring);
    raw_close(&late);
    submit(&r, 1);
    while (n_over < 8) {
        v = take(&r);
        n_tokens += v.n_tokens * (v.type == CTS_OUT_TOKENS);
        if (v.req_id == 1) {
            CHECK(v.type == CTS_OUT_ERROR && v.status == -CTS_EBUSY && v.retry_ms > 0);
            is_refused = 1;
        } else if (v.flags & CTS_OUTF_LAST) {
            CHECK(v.type == CTS_OUT_DONE && v.n_tokens == v.req_id);
            n_over++;
        }
    }
    CHECK(n_tokens == n_wanted && is_refused);
    while (raw_ring_take(&r) == 1) continue; /* and then the rings close */
    CHECK(cts_outr_close_reason(&r.outr) == CTS_ECLOSED);
    raw_ring_close(&r);
    raw_close(&c);
    ctsd_wait(&d);
    CHECK(access(d.socket, F_OK) < 0);
    ctsd_stop(&d);
}

static void a_drain_is_bounded(void **state)
{
    static const char *const SETTINGS[] = { "limits.drain_s=0", NULL };
    struct ctsd              d;
    struct raw               c;
    struct raw_ring          r;

    (void)state;
    ctsd_start(&d, SETTINGS);
    raw_open(&c, d.socket);
    raw_ring_open(&r, &c, 0, 0, 0);
    submit(&r, 1000);
    CHECK(take(&r).type == CTS_OUT_ACCEPTED);
    kill(d.pid, SIGINT);
    while (raw_ring_take(&r) == 1) CHECK(!(r.rec[5] & CTS_OUTF_LAST)); /* cut off */
    raw_ring_close(&r);
    raw_close(&c);
    ctsd_wait(&d);
    ctsd_stop(&d);
}

static void stop_answers_and_then_the_daemon_is_gone(void **state)
{
    struct ctsd          d;
    struct raw           c;
    struct cts_ctl_reply reply;

    (void)state;
    ctsd_start(&d, NULL);
    raw_open(&c, d.socket);
    raw_call(&c, "stop", &reply);
    CHECK(raw_recv(&c, &reply) == 0);
    raw_close(&c);
    ctsd_wait(&d);
    ctsd_stop(&d);
}

static void a_killed_daemons_place_is_taken_over(void **state)
{
    struct ctsd d;
    char        args[256];

    (void)state;
    ctsd_start(&d, NULL);
    ctsd_kill(&d);
    CHECK(access(d.socket, F_OK) == 0);
    /* It gets as far as the model, which is not there: the socket was free. */
    snprintf(args, sizeof(args), "-s model.path=/nonexistent -s listen.socket=%s", d.socket);
    CHECK(ctsd(args) == 78 && strstr(out, "/nonexistent") != NULL);
    CHECK(access(d.socket, F_OK) < 0);
    ctsd_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_answer_without_serving),
        cmocka_unit_test(what_is_wrong_with_the_configuration_is_said_and_is_78),
        cmocka_unit_test(a_second_daemon_names_the_first_and_leaves_it_alone),
        cmocka_unit_test(sigterm_finishes_what_is_live_and_takes_nothing_new),
        cmocka_unit_test(a_drain_is_bounded),
        cmocka_unit_test(stop_answers_and_then_the_daemon_is_gone),
        cmocka_unit_test(a_killed_daemons_place_is_taken_over),
    };

    return cmocka_run_group_tests_name("ctsd life", tests, NULL, NULL);
}
