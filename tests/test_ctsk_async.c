/* The async backend: what is not waited for has not happened, and the host
 * can't look. */
#include "tests/check.h"
#include "tests/ctsk_rig.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void fresh_memory_reads_a5(void **state)
{
    struct rig       g;
    struct ctsk_buf *b;
    uint8_t          out[5000];

    (void)state;
    rig_open(&g, "async", NULL, 1);
    CHECK(ctsk_buf_new(g.dev, sizeof(out), &b) == 0);
    CHECK(ctsk_download(g.stream, out, b, 0, sizeof(out)) == 0);
    CHECK(ctsk_sync(g.stream) == 0);
    for (size_t i = 0; i < sizeof(out); i++) CHECK(out[i] == 0xA5);
    ctsk_buf_free(b);
    rig_close(&g);
}

static void a_download_leaves_the_old_bytes_until_the_sync(void **state)
{
    struct rig g;
    float      x[2] = { 1.0f, 2.0f }, out[2] = { -1.0f, -2.0f };

    (void)state;
    rig_open(&g, "async", NULL, 1);
    rig_put(&g, x, sizeof(x));
    CHECK(ctsk_download(g.stream, out, g.bufs[0], 0, sizeof(out)) == 0);
    CHECK(out[0] == -1.0f && out[1] == -2.0f);
    CHECK(ctsk_sync(g.stream) == 0);
    CHECK(out[0] == 1.0f && out[1] == 2.0f);
    rig_close(&g);
}

static void an_upload_reads_its_source_at_the_sync(void **state)
{
    struct rig g;
    float      x = 1.0f, out = 0.0f;

    (void)state;
    rig_open(&g, "async", NULL, 1);
    rig_put(&g, &x, sizeof(x));
    CHECK(ctsk_upload(g.stream, g.bufs[0], 0, &x, sizeof(x)) == 0);
    x = 3.0f; /* too early: what a caller must not do */
    rig_get(&g, &out, ctsk_at(g.bufs[0], 0), sizeof(out));
    CHECK(out == 3.0f);
    rig_close(&g);
}

static void one_stream_does_not_wait_for_another(void **state)
{
    struct rig          g;
    struct ctsk_stream *other;
    float               x = 1.0f, y = 2.0f, out = 0.0f;

    (void)state;
    rig_open(&g, "async", NULL, 1);
    CHECK(ctsk_stream_new(g.dev, &other) == 0);
    rig_put(&g, &x, sizeof(x));
    CHECK(ctsk_upload(other, g.bufs[0], 0, &y, sizeof(y)) == 0);
    rig_get(&g, &out, ctsk_at(g.bufs[0], 0), sizeof(out));
    CHECK(out == 1.0f);
    ctsk_stream_free(other); /* waits */
    rig_get(&g, &out, ctsk_at(g.bufs[0], 0), sizeof(out));
    CHECK(out == 2.0f);
    rig_close(&g);
}

static void a_full_queue_runs_and_takes_more(void **state)
{
    struct rig         g;
    static float       x[64], w[64];
    struct ctsk_matmul m = { .n_rows = 1, .n_in = 1, .n_out = 1, .x_ld = 1, .y_ld = 1, .accumulate = 1 };
    float              out;

    (void)state;
    x[0] = w[0] = 1.0f;
    rig_open(&g, "async", NULL, 1);
    m.x = rig_put(&g, x, sizeof(x));
    m.w = rig_put(&g, w, sizeof(w));
    m.y = rig_put(&g, x + 1, sizeof(float));
    for (int i = 0; i < 3000; i++) CHECK(ctsk_matmul(g.stream, &m) == 0);
    rig_get(&g, &out, m.y, sizeof(out));
    CHECK(out == 3000.0f);
    rig_close(&g);
}

static void a_failure_waits_for_the_sync_of_its_stream(void **state)
{
    struct rig          g;
    struct ctsk_stream *other;
    int32_t             id = 7;
    struct ctsk_embed   e = { .n_rows = 1, .n_cols = 1, .n_ids = 1 };
    float               x = 1.0f;

    (void)state;
    rig_open(&g, "async", NULL, 1);
    CHECK(ctsk_stream_new(g.dev, &other) == 0);
    e.y = rig_put(&g, &x, sizeof(x));
    e.table = rig_put(&g, &x, sizeof(x));
    e.ids = rig_put(&g, &id, sizeof(id));
    CHECK(ctsk_embed(g.stream, &e) == 0);
    CHECK(ctsk_sync(other) == 0);
    CHECK(ctsk_sync(g.stream) == CTS_EGPU);
    CHECK(ctsk_sync(g.stream) == 0);
    ctsk_stream_free(other);
    rig_close(&g);
}

/* What a child that reads addr dies of: a signal, or, since a sanitizer turns
 * that into its own report, an exit code. 0: it lived. */
static int death_of_reading(uint64_t addr)
{
    pid_t pid = fork();
    int   status;

    CHECK(pid >= 0);
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);

        (void)dup2(null, STDERR_FILENO); /* the sanitizer's report of what we want */
        signal(SIGSEGV, SIG_DFL);
        (void)*(const volatile char *)(uintptr_t)addr;
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void the_host_dies_when_it_reads_device_memory(void **state)
{
    struct rig g;
    char       page[4096] = { 0 };
    int        death;

    (void)state;
    rig_open(&g, "async", NULL, 1);
    rig_put(&g, page, sizeof(page));
    CHECK(death_of_reading((uint64_t)(uintptr_t)page) == 0);
    death = death_of_reading(ctsk_at(g.bufs[0], 0).addr);
    CHECK_MSG(death == SIGSEGV || death == 1, "died of %d\n", death);
    CHECK(death_of_reading(ctsk_at(g.bufs[0], 4095).addr) != 0);
    CHECK(death_of_reading(ctsk_at(g.bufs[0], 4096).addr) != 0); /* the page behind */
    rig_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_memory_reads_a5),
        cmocka_unit_test(a_download_leaves_the_old_bytes_until_the_sync),
        cmocka_unit_test(an_upload_reads_its_source_at_the_sync),
        cmocka_unit_test(one_stream_does_not_wait_for_another),
        cmocka_unit_test(a_full_queue_runs_and_takes_more),
        cmocka_unit_test(a_failure_waits_for_the_sync_of_its_stream),
        cmocka_unit_test(the_host_dies_when_it_reads_device_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
