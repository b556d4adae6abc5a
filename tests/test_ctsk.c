/* Opening and its failures, buffers, and the shape contract of every op. */
#include "tests/check.h"
#include "tests/ctsk_rig.h"
#include "tests/fault.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A sanitizer's runtime makes system calls of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#define IS_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define IS_SANITIZED 0
#endif

static int open_as(const char *backend, const char *level, uint32_t n_threads, struct ctsk_dev **d, struct cts_err *err)
{
    struct ctsk_opts o = { .backend = backend, .cpu_level = level, .n_threads = n_threads, .spin_ns = 1000 };

    *d = NULL;
    return ctsk_open(d, &o, err);
}

static void open_names_what_it_chose(void **state)
{
    const char      *names[8];
    uint32_t         n = ctsk_cpu_levels(names, 8);
    struct ctsk_dev *d;
    char             want[64];

    (void)state;
    CHECK(n >= 1 && strcmp(names[0], "generic") == 0);
    CHECK(ctsk_cpu_levels(names, 1) == 1);
    n = ctsk_cpu_levels(names, 8);
    CHECK(open_as(NULL, NULL, 2, &d, NULL) == 0);
    snprintf(want, sizeof(want), "cpu %s, 2 threads", names[n - 1]);
    CHECK(strcmp(ctsk_describe(d), want) == 0);
    ctsk_close(d);
    CHECK(open_as("cpu", "generic", 0, &d, NULL) == 0);
    CHECK(strcmp(ctsk_describe(d), "cpu generic, 1 thread") == 0);
    ctsk_close(d);
    CHECK(open_as("ref", NULL, 0, &d, NULL) == 0);
    CHECK(strcmp(ctsk_describe(d), "ref") == 0);
    ctsk_close(d);
    CHECK(open_as("async", NULL, 0, &d, NULL) == 0);
    CHECK(strcmp(ctsk_describe(d), "async ref") == 0);
    ctsk_close(d);
    ctsk_close(NULL);
}

static void open_refuses_what_it_does_not_know_by_name(void **state)
{
    struct cts_err   err = { 0 };
    struct ctsk_dev *d;

    (void)state;
    CHECK(open_as("gpu", NULL, 1, &d, &err) == CTS_EARG);
    CHECK(strstr(err.text, "'gpu'") != NULL);
    CHECK(open_as("cpu", "sse9", 1, &d, &err) == CTS_EARG);
    CHECK(strstr(err.text, "'sse9'") != NULL);
    CHECK(open_as("cpu", NULL, 100000, &d, &err) == CTS_EARG);
    CHECK(d == NULL);
}

/* Open, a buffer, a stream: each allocation fails once. */
static int use_device(const char *backend)
{
    struct ctsk_dev    *d;
    struct ctsk_buf    *b = NULL;
    struct ctsk_stream *s = NULL;
    int                 rc = open_as(backend, NULL, 3, &d, NULL);

    if (rc < 0) return rc;
    rc = ctsk_buf_new(d, 100, &b);
    if (rc == 0) rc = ctsk_stream_new(d, &s);
    ctsk_stream_free(s);
    ctsk_buf_free(b);
    ctsk_close(d);
    return rc;
}

static void open_buffer_and_stream_survive_failure_of_every_allocation(void **state)
{
    static const char *const BACKENDS[] = { "ref", "cpu", "async" };

    (void)state;
    for (size_t b = 0; b < 3; b++) {
        int64_t live = fault_n_live();
        int     rc, i;

        for (i = 0; i < 20; i++) {
            fault_after(i);
            rc = use_device(BACKENDS[b]);
            fault_after(-1);
            CHECK(fault_n_live() == live);
            if (rc == 0) break;
            CHECK(rc == -ENOMEM || rc == -EAGAIN);
        }
        CHECK(i > 3 && i < 20);
    }
}

static void check_buffers(struct rig *g, void *arg)
{
    char             in[100], out[100];
    struct ctsk_buf *b, *empty;
    void            *host = ctsk_host_new(g->dev, 1000);

    (void)arg;
    for (int i = 0; i < 100; i++) in[i] = (char)i;
    CHECK(host != NULL);
    for (int i = 0; i < 1000; i++) CHECK(((char *)host)[i] == 0);
    ctsk_host_free(g->dev, host);
    CHECK(ctsk_buf_new(g->dev, 0, &empty) == 0);
    CHECK(ctsk_buf_new(g->dev, 100, &b) == 0);
    CHECK(ctsk_buf_bytes(b) == 100);
    CHECK(ctsk_at(b, 0).addr % 64 == 0 && ctsk_at(b, 100).addr == ctsk_at(b, 0).addr + 100);
    CHECK(ctsk_upload(g->stream, b, 0, in, 100) == 0);
    CHECK(ctsk_upload(g->stream, b, 1, in, 100) == CTS_ESHAPE);
    CHECK(ctsk_upload(g->stream, b, 101, in, 0) == CTS_ESHAPE);
    CHECK(ctsk_upload(g->stream, b, 8, in, SIZE_MAX) == CTS_ESHAPE);
    CHECK(ctsk_upload(g->stream, empty, 0, in, 0) == 0);
    CHECK(ctsk_upload(g->stream, empty, 0, in, 1) == CTS_ESHAPE);
    CHECK(ctsk_download(g->stream, out, b, 0, 101) == CTS_ESHAPE);
    CHECK(ctsk_download(g->stream, out, b, 40, 60) == 0);
    CHECK(ctsk_sync(g->stream) == 0);
    CHECK(memcmp(out, in + 40, 60) == 0);
    ctsk_buf_free(b);
    ctsk_buf_free(empty);
    ctsk_buf_free(NULL);
    ctsk_stream_free(NULL);
}

static void buffers_keep_their_bounds_on_every_backend(void **state)
{
    struct ctsk_dev *d;
    struct ctsk_buf *b;

    (void)state;
    rig_each_backend(check_buffers, NULL);
    CHECK(open_as("cpu", NULL, 1, &d, NULL) == 0);
    CHECK(ctsk_buf_new(d, SIZE_MAX, &b) == -ENOMEM);
    ctsk_close(d);
    CHECK(open_as("async", NULL, 1, &d, NULL) == 0);
    CHECK(ctsk_buf_new(d, SIZE_MAX, &b) == -ENOMEM);
    CHECK(ctsk_buf_new(d, SIZE_MAX / 2, &b) == -ENOMEM); /* the kernel's refusal; sanitizers' heaps abort here */
    ctsk_close(d);
}

/* One field of a good call is changed, the call refused, the field put back. */
#define REFUSED(call, field, value)                              \
    do {                                                         \
        __typeof__(field) good = (field);                        \
        (field) = (value);                                       \
        CHECK_MSG((call) == CTS_ESHAPE, #field " = " #value "\n"); \
        (field) = good;                                          \
        CHECK((call) == 0);                                      \
    } while (0)

/* A good call with no rows may have nothing to point to. */
#define EMPTY(call, n)         \
    do {                       \
        int64_t good = (n);    \
        (n) = 0;               \
        CHECK((call) == 0);    \
        (n) = good;            \
    } while (0)

#define INT_LARGE ((int64_t)INT32_MAX + 1)

static struct ctsk_ptr moved(struct ctsk_ptr p, int64_t bytes)
{
    return (struct ctsk_ptr){ p.addr + (uint64_t)bytes };
}

static const struct ctsk_ptr NOWHERE = { 0 };

/* zeros: room for every tensor of the calls below */
static struct ctsk_ptr zeros(struct rig *g)
{
    static const float ZEROS[4096];

    return rig_put(g, ZEROS, sizeof(ZEROS));
}

static void check_rows(struct rig *g, void *arg)
{
    struct ctsk_embed    e = { zeros(g), zeros(g), zeros(g), 3, 4, 8 };
    struct ctsk_gather   t = { zeros(g), zeros(g), zeros(g), 3, 4, 6 };
    struct ctsk_rmsnorm  n = { zeros(g), zeros(g), zeros(g), 3, 4, 6, 1e-5f };
    struct ctsk_silu_mul m = { zeros(g), zeros(g), zeros(g), 3, 4 };

    (void)arg;
    REFUSED(ctsk_embed(g->stream, &e), e.n_rows, -1);
    REFUSED(ctsk_embed(g->stream, &e), e.n_rows, INT_LARGE);
    REFUSED(ctsk_embed(g->stream, &e), e.n_cols, 0);
    REFUSED(ctsk_embed(g->stream, &e), e.n_ids, 0);
    REFUSED(ctsk_embed(g->stream, &e), e.y, NOWHERE);
    REFUSED(ctsk_embed(g->stream, &e), e.ids, moved(e.ids, 2));
    REFUSED(ctsk_gather(g->stream, &t), t.x_ld, 3);
    REFUSED(ctsk_gather(g->stream, &t), t.x, t.y);
    REFUSED(ctsk_gather(g->stream, &t), t.n_cols, INT_LARGE);
    REFUSED(ctsk_rmsnorm(g->stream, &n), n.x_ld, 3);
    REFUSED(ctsk_rmsnorm(g->stream, &n), n.y, n.x);           /* in place, and x is not dense */
    REFUSED(ctsk_rmsnorm(g->stream, &n), n.y, moved(n.x, 4)); /* half in place */
    REFUSED(ctsk_rmsnorm(g->stream, &n), n.eps, -1.0f);
    REFUSED(ctsk_rmsnorm(g->stream, &n), n.w, NOWHERE);
    REFUSED(ctsk_silu_mul(g->stream, &m), m.n_cols, -4);
    REFUSED(ctsk_silu_mul(g->stream, &m), m.y, moved(m.up, 4));
    REFUSED(ctsk_silu_mul(g->stream, &m), m.gate, NOWHERE);
    e.y = t.y = n.y = m.y = NOWHERE;
    EMPTY(ctsk_embed(g->stream, &e), e.n_rows);
    EMPTY(ctsk_gather(g->stream, &t), t.n_rows);
    EMPTY(ctsk_rmsnorm(g->stream, &n), n.n_rows);
    EMPTY(ctsk_silu_mul(g->stream, &m), m.n_rows);
    CHECK(ctsk_sync(g->stream) == 0);
    rig_clear(g);
}

static void check_matmul(struct rig *g, void *arg)
{
    struct ctsk_matmul m = { zeros(g), zeros(g), zeros(g), 3, 4, 5, 6, 7, 0 };

    (void)arg;
    REFUSED(ctsk_matmul(g->stream, &m), m.n_rows, -1);
    REFUSED(ctsk_matmul(g->stream, &m), m.n_in, 0);
    REFUSED(ctsk_matmul(g->stream, &m), m.n_out, 0);
    REFUSED(ctsk_matmul(g->stream, &m), m.x_ld, 3);
    REFUSED(ctsk_matmul(g->stream, &m), m.y_ld, 4);
    REFUSED(ctsk_matmul(g->stream, &m), m.x_ld, INT64_MAX);
    REFUSED(ctsk_matmul(g->stream, &m), m.y, m.x);
    REFUSED(ctsk_matmul(g->stream, &m), m.y, moved(m.x, 4 * (2 * 6 + 3))); /* the last element of x */
    REFUSED(ctsk_matmul(g->stream, &m), m.y, moved(m.w, 4));
    REFUSED(ctsk_matmul(g->stream, &m), m.w, moved(m.w, 1));
    m.y = moved(m.x, 4 * (2 * 6 + 4)); /* just behind */
    CHECK(ctsk_matmul(g->stream, &m) == 0);
    m.x_ld = m.y_ld = 9; /* columns of one matrix: x is 0..3, y is 4..8 */
    m.y = moved(m.x, 4 * 4);
    CHECK(ctsk_matmul(g->stream, &m) == 0);
    REFUSED(ctsk_matmul(g->stream, &m), m.y, moved(m.x, 4 * 3));
    REFUSED(ctsk_matmul(g->stream, &m), m.y, moved(m.x, 4 * 5));
    m.y = NOWHERE;
    EMPTY(ctsk_matmul(g->stream, &m), m.n_rows);
    CHECK(ctsk_sync(g->stream) == 0);
    rig_clear(g);
}

static void check_heads(struct rig *g, void *arg)
{
    struct ctsk_rope_append r = { zeros(g), zeros(g), zeros(g), zeros(g), zeros(g), zeros(g), zeros(g), zeros(g),
                                  zeros(g), 3, 4, 2, 6, 24 };
    struct ctsk_attention   a = { zeros(g), zeros(g), zeros(g), zeros(g), zeros(g), zeros(g), zeros(g), 3, 4, 2, 6,
                                  24, 2, 8, 1.0f };

    (void)arg;
    REFUSED(ctsk_rope_append(g->stream, &r), r.n_kv_heads, 3);
    REFUSED(ctsk_rope_append(g->stream, &r), r.n_kv_heads, 0);
    REFUSED(ctsk_rope_append(g->stream, &r), r.head_dim, 5);
    REFUSED(ctsk_rope_append(g->stream, &r), r.head_dim, CTSK_HEAD_DIM_MAX + 2);
    REFUSED(ctsk_rope_append(g->stream, &r), r.qkv_ld, 23);
    REFUSED(ctsk_rope_append(g->stream, &r), r.place, NOWHERE);
    REFUSED(ctsk_rope_append(g->stream, &r), r.v, NOWHERE);
    REFUSED(ctsk_attention(g->stream, &a), a.n_heads, 5);
    REFUSED(ctsk_attention(g->stream, &a), a.n_heads, INT64_MAX - 1);
    REFUSED(ctsk_attention(g->stream, &a), a.head_dim, 0);
    REFUSED(ctsk_attention(g->stream, &a), a.q_ld, 23);
    REFUSED(ctsk_attention(g->stream, &a), a.page_tokens, 0);
    REFUSED(ctsk_attention(g->stream, &a), a.n_pages_max, 0);
    REFUSED(ctsk_attention(g->stream, &a), a.y, moved(a.q, 8));
    REFUSED(ctsk_attention(g->stream, &a), a.page_table, NOWHERE);
    r.k_pages = a.v_pages = NOWHERE;
    EMPTY(ctsk_rope_append(g->stream, &r), r.n_rows);
    EMPTY(ctsk_attention(g->stream, &a), a.n_rows);
    CHECK(ctsk_sync(g->stream) == 0);
    rig_clear(g);
}

static void check_adapt(struct rig *g, void *arg)
{
    struct ctsk_ptr   factors = zeros(g); /* rank_in 0: nothing to do */
    struct ctsk_row_part part = { factors.addr, 1.0f, 0 };
    struct ctsk_adapt a = { zeros(g), zeros(g), rig_put(g, &part, sizeof(part)), zeros(g), 3, 1, 4, 5, 6, 7, 8, 1 };

    (void)arg;
    REFUSED(ctsk_adapt(g->stream, &a), a.n_parts, -1);
    REFUSED(ctsk_adapt(g->stream, &a), a.n_in, 0);
    REFUSED(ctsk_adapt(g->stream, &a), a.x_ld, 3);
    REFUSED(ctsk_adapt(g->stream, &a), a.y_ld, 4);
    REFUSED(ctsk_adapt(g->stream, &a), a.rank_max, 0);
    REFUSED(ctsk_adapt(g->stream, &a), a.rank_max, CTSK_RANK_MAX + 1);
    REFUSED(ctsk_adapt(g->stream, &a), a.y, a.x);
    REFUSED(ctsk_adapt(g->stream, &a), a.row_parts, moved(a.row_parts, 4));
    REFUSED(ctsk_adapt(g->stream, &a), a.scratch, NOWHERE);
    a.y = NOWHERE;
    EMPTY(ctsk_adapt(g->stream, &a), a.n_rows);
    EMPTY(ctsk_adapt(g->stream, &a), a.n_parts);
    CHECK(ctsk_sync(g->stream) == 0);
    rig_clear(g);
}

static void every_op_refuses_a_broken_shape_on_every_backend(void **state)
{
    (void)state;
    rig_each_backend(check_rows, NULL);
    rig_each_backend(check_matmul, NULL);
    rig_each_backend(check_heads, NULL);
    rig_each_backend(check_adapt, NULL);
}

static void check_promise(struct rig *g, void *arg)
{
    int32_t           ids[3] = { 0, 8, 1 };
    struct ctsk_embed e = { zeros(g), zeros(g), rig_put(g, ids, sizeof(ids)), 3, 4, 8 };

    (void)arg;
    CHECK(ctsk_embed(g->stream, &e) == 0);
    CHECK(ctsk_sync(g->stream) == CTS_EGPU);
    CHECK(ctsk_sync(g->stream) == 0);
    rig_clear(g);
}

static void an_id_out_of_range_fails_the_sync_on_every_backend(void **state)
{
    (void)state;
    rig_each_backend(check_promise, NULL);
}

/* From here on any system call of this thread but exit_group ends the process
 * with SIGSYS. Other threads go on as they were. */
static int forbid_system_calls(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

/* Matrix products in a process that may not call the kernel: its exit code, or
 * 128 and the signal. 2: it could not be set up. */
static int fate_without_system_calls(uint32_t n_threads)
{
    struct ctsk_opts    o = { .backend = "cpu", .n_threads = n_threads, .spin_ns = 1000000000000u };
    struct ctsk_matmul  m = { .n_rows = 32, .n_in = 64, .n_out = 64, .x_ld = 64, .y_ld = 64 };
    static float        x[32 * 64], w[64 * 64], y[32 * 64];
    struct ctsk_dev    *d;
    struct ctsk_stream *s;
    pid_t               pid = fork();
    int                 status;

    CHECK(pid >= 0);
    if (pid == 0) {
        m.x.addr = (uint64_t)(uintptr_t)x;
        m.w.addr = (uint64_t)(uintptr_t)w;
        m.y.addr = (uint64_t)(uintptr_t)y;
        if (ctsk_open(&d, &o, NULL) != 0 || ctsk_stream_new(d, &s) != 0 || forbid_system_calls() != 0) _exit(2);
        for (int i = 0; i < 200; i++)
            if (ctsk_matmul(s, &m) != 0) _exit(1);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void an_op_makes_no_system_call_while_the_workers_are_awake(void **state)
{
    (void)state;
    if (IS_SANITIZED) skip();
    for (uint32_t n_threads = 1; n_threads <= 2; n_threads++) {
        int fate = fate_without_system_calls(n_threads);

        if (fate == 2) skip(); /* a container that forbids seccomp */
        CHECK_MSG(fate == 0, "%u threads: %d\n", n_threads, fate);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_names_what_it_chose),
        cmocka_unit_test(open_refuses_what_it_does_not_know_by_name),
        cmocka_unit_test(open_buffer_and_stream_survive_failure_of_every_allocation),
        cmocka_unit_test(buffers_keep_their_bounds_on_every_backend),
        cmocka_unit_test(every_op_refuses_a_broken_shape_on_every_backend),
        cmocka_unit_test(an_op_makes_no_system_call_while_the_workers_are_awake),
        cmocka_unit_test(an_id_out_of_range_fails_the_sync_on_every_backend),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
