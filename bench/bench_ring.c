/* From a submission to its pick-up and to the first byte back, over the
 * shared-memory rings, beside what else wakes another process: a Unix socket, a
 * futex and a bare spin on one shared word. Both sides are processes, as client
 * and daemon are.
 *
 *   bench_ring [--socket PATH]
 *
 * Without --socket a stub echoes: it takes and answers as the daemon's loop does,
 * but for libuv. With it a running ctsd answers PINGs. Each answer is checked;
 * the best of three runs by its median is printed, in nanoseconds. */
#include "client/handle.h"
#include "common/clock.h"
#include "common/wait.h"
#include "shm/record.h"
#include "shm/ring.h"
#include "shm/segment.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_RUNS      3
#define N_WARM      200
#define N_AWAKE     20000 /* samples while nobody sleeps */
#define N_ASLEEP    4000
#define N_RECORDS   256u
#define ARENA_BYTES (64u << 10)
#define OUT_BYTES   (64u << 10)
#define PING_BYTES  64

static void die(const char *what)
{
    fprintf(stderr, "bench_ring: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* ---- samples ---- */

struct summary {
    uint64_t p50, p99, p99_9, max;
    uint32_t n;
};

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static struct summary summarise(uint64_t *ns, uint32_t n)
{
    qsort(ns, n, sizeof(*ns), by_value);
    return (struct summary){ ns[n / 2], ns[(uint64_t)n * 99 / 100], ns[(uint64_t)n * 999 / 1000], ns[n - 1], n };
}

static void keep_best(struct summary *best, struct summary s)
{
    if (best->n == 0 || s.p50 < best->p50) *best = s;
}

static void print_line(const char *name, struct summary s, const char *peer, uint64_t peer_p50)
{
    printf("{\"bench\":\"ring\",\"case\":\"%s\",\"value\":%llu,\"unit\":\"ns\",\"peer\":\"%s\","
           "\"peer_value\":%llu,\"ratio\":%.3f,\"n\":%u,\"spread\":%llu,"
           "\"p99\":%llu,\"p99.9\":%llu,\"max\":%llu}\n",
           name, (unsigned long long)s.p50, peer, (unsigned long long)peer_p50,
           (double)s.p50 / (double)peer_p50, s.n, (unsigned long long)(s.p99 - s.p50),
           (unsigned long long)s.p99, (unsigned long long)s.p99_9, (unsigned long long)s.max);
    fflush(stdout);
}

/* ---- the other side: a child that ends with us ---- */

/* Move to the first CPU that we may use, or to the second where there is one:
 * left alone, the scheduler puts two that take turns on one CPU in one run and
 * on two in the next. */
static void pin(int is_second)
{
    static cpu_set_t all;
    static int       has_all;
    cpu_set_t        one;
    int              cpu = 0, n_skip;

    if (!has_all && sched_getaffinity(0, sizeof(all), &all) != 0) return;
    has_all = 1;
    n_skip = is_second && CPU_COUNT(&all) > 1;
    while (cpu < CPU_SETSIZE && (!CPU_ISSET(cpu, &all) || n_skip-- > 0)) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    (void)sched_setaffinity(0, sizeof(one), &one);
}

static pid_t fork_echo(void (*echo)(void *arg), void *arg)
{
    pid_t pid = fork();

    if (pid < 0) die("fork");
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(1);
    echo(arg);
    _exit(0);
}

static void stop_echo(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- peers: round trips of 64 bytes ---- */

static void echo_socket(void *arg)
{
    int  fd = *(int *)arg;
    char bytes[PING_BYTES];

    while (recv(fd, bytes, sizeof(bytes), MSG_WAITALL) == PING_BYTES)
        (void)send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
}

static struct summary ping_socket(uint64_t *ns, uint32_t n)
{
    char  bytes[PING_BYTES] = "ping";
    pid_t pid;
    int   pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) die("socketpair");
    pid = fork_echo(echo_socket, &pair[1]);
    for (uint32_t i = 0; i < n + N_WARM; i++) {
        uint64_t t = cts_clock_ns();

        if (send(pair[0], bytes, sizeof(bytes), 0) != PING_BYTES ||
            recv(pair[0], bytes, sizeof(bytes), MSG_WAITALL) != PING_BYTES)
            die("ping over a socket");
        if (i >= N_WARM) ns[i - N_WARM] = cts_clock_ns() - t;
    }
    stop_echo(pid);
    close(pair[0]);
    close(pair[1]);
    return summarise(ns, n);
}

/* Two words on lines of their own; sleeps or spins until the other moved on. */
struct words {
    _Alignas(128) _Atomic uint32_t there;
    _Alignas(128) _Atomic uint32_t back;
    int is_spin;
};

static void await(_Atomic uint32_t *word, uint32_t old, int is_spin)
{
    while (atomic_load(word) == old) {
        if (is_spin) relax();
        else (void)cts_futex_wait(word, old, UINT64_MAX, 1);
    }
}

static void move_on(_Atomic uint32_t *word, uint32_t v, int is_spin)
{
    atomic_store(word, v);
    if (!is_spin) cts_futex_wake(word, 1, 1);
}

static void echo_words(void *arg)
{
    struct words *w = arg;

    for (uint32_t i = 0;; i++) {
        await(&w->there, i, w->is_spin);
        move_on(&w->back, i + 1, w->is_spin);
    }
}

static struct summary ping_words(uint64_t *ns, uint32_t n, int is_spin)
{
    struct words *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t         pid;

    if (w == MAP_FAILED) die("mmap");
    w->is_spin = is_spin;
    pid = fork_echo(echo_words, w);
    for (uint32_t i = 0; i < n + N_WARM; i++) {
        uint64_t t = cts_clock_ns();

        move_on(&w->there, i + 1, is_spin);
        await(&w->back, i, is_spin);
        if (i >= N_WARM) ns[i - N_WARM] = cts_clock_ns() - t;
    }
    stop_echo(pid);
    munmap(w, sizeof(*w));
    return summarise(ns, n);
}

/* ---- the rings ---- */

struct rig {
    struct cts_segment sub_segment, out_segment;
    struct cts_sub     sub;
    struct cts_out     out;
    int                kick_fd, is_spin;
    uint8_t            payload[ARENA_BYTES];
};

/* Take what is there and answer it, as one turn of the daemon's loop. */
static int echo_turn(struct rig *r)
{
    _Alignas(8) uint8_t   bytes[CTS_OUT_RECORD_MAX];
    struct cts_sub_record rec;
    int                   n = 0;

    while (cts_sub_take(&r->sub, &rec, r->payload, sizeof(r->payload)) == 1) {
        struct cts_out_view v = { .type = CTS_OUT_PONG, .req_id = rec.req_id };

        cts_out_publish_head(&r->out, r->sub.head);
        (void)cts_out_look(&r->out);
        (void)cts_out_put(&r->out, bytes, cts_out_encode(&v, bytes));
        n++;
    }
    if (n > 0 && (cts_out_publish(&r->out) & CTS_WAIT_FUTEX)) cts_futex_wake(&r->out.hdr->wake_seq, 1, 1);
    return n;
}

static void echo_ring(void *arg)
{
    struct rig        *r = arg;
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
    int                ep = epoll_create1(0);

    epoll_ctl(ep, EPOLL_CTL_ADD, r->kick_fd, &ev);
    for (;;) {
        if (echo_turn(r) > 0) continue;
        if (r->is_spin) {
            relax();
            continue;
        }
        cts_out_flag(&r->out, CTS_OUT_NEED_KICK, 0);
        if (!cts_sub_has_more(&r->sub)) (void)epoll_wait(ep, &ev, 1, -1);
        cts_out_flag(&r->out, 0, CTS_OUT_NEED_KICK);
    }
}

static void open_rig(struct rig *r, int is_spin)
{
    *r = (struct rig){ .is_spin = is_spin, .kick_fd = eventfd(0, EFD_NONBLOCK) };
    if (cts_segment_create(&r->sub_segment, CTS_SEGMENT_SUB, cts_sub_bytes(N_RECORDS, ARENA_BYTES), NULL) != 0 ||
        cts_segment_create(&r->out_segment, CTS_SEGMENT_OUT, cts_out_bytes(OUT_BYTES), NULL) != 0)
        die("make the rings");
    cts_sub_init(&r->sub, r->sub_segment.map, N_RECORDS, ARENA_BYTES, 1);
    cts_out_init(&r->out, r->out_segment.map, r->sub.hdr, OUT_BYTES, 1);
}

static void close_rig(struct rig *r)
{
    cts_segment_close(&r->sub_segment);
    cts_segment_close(&r->out_segment);
    close(r->kick_fd);
}

/* The client's ends, of a rig or of a real connection. */
struct ends {
    struct cts_subw *subw;
    struct cts_outr *outr;
    int              kick_fd;
};

static void submit_ping(struct ends *e, uint64_t id)
{
    struct cts_sub_record rec = { .op = CTS_OP_PING, .req_id = id };
    uint64_t              one = 1;

    if (cts_subw_put(e->subw, &rec, NULL, 0) != 0) die("submit");
    if (cts_subw_publish(e->subw) && write(e->kick_fd, &one, sizeof(one)) < 0) die("kick");
}

static void take_pong(struct ends *e, uint64_t id, int is_spin)
{
    _Alignas(8) static uint8_t rec[CTS_OUT_RECORD_MAX];
    struct cts_out_view        v;
    uint32_t                   seq;
    int                        must_kick, rc;

    while ((rc = cts_outr_take(e->outr, rec, &must_kick)) == 0) {
        if (is_spin) {
            relax();
            continue;
        }
        if (cts_outr_sleep_begin(e->outr, CTS_WAIT_FUTEX, 0, &seq)) continue;
        (void)cts_futex_wait(&e->outr->hdr->wake_seq, seq, 1000000000, 1);
        cts_outr_sleep_end(e->outr);
    }
    if (rc < 0 || cts_out_decode(rec, &v) != 0 || v.type != CTS_OUT_PONG || v.req_id != id)
        die("the answer to a ping is wrong");
}

/* pick_up may be NULL: a client that sleeps does not see that moment. */
static void ping_ring(struct ends *e, uint32_t n, int is_spin, uint64_t *pick_up, uint64_t *back)
{
    for (uint32_t i = 0; i < n + N_WARM; i++) {
        uint64_t t = cts_clock_ns(), taken = 0;

        submit_ping(e, i);
        if (pick_up != NULL) {
            while (atomic_load_explicit(&e->subw->out->sub_head, memory_order_acquire) != e->subw->tail) relax();
            taken = cts_clock_ns();
        }
        take_pong(e, i, is_spin);
        if (i < N_WARM) continue;
        back[i - N_WARM] = cts_clock_ns() - t;
        if (pick_up != NULL) pick_up[i - N_WARM] = taken - t;
    }
}

/* ---- the whole ---- */

struct results {
    struct summary socket, futex, spin;
    struct summary pick_up, back, back_asleep, back_client_awake;
};

static void run_stub(struct results *r, uint64_t *a, uint64_t *b)
{
    static struct rig      rig;
    static struct cts_subw subw;
    struct cts_outr        outr;
    struct ends            e = { &subw, &outr, -1 };

    for (int is_spin = 0; is_spin < 2; is_spin++) {
        uint32_t n = is_spin ? N_AWAKE : N_ASLEEP;
        pid_t    pid;

        open_rig(&rig, is_spin);
        if (cts_subw_init(&subw, rig.sub_segment.map, rig.out_segment.map, N_RECORDS, ARENA_BYTES) != 0 ||
            cts_outr_init(&outr, rig.out_segment.map, rig.sub_segment.map, OUT_BYTES) != 0)
            die("open the rings");
        e.kick_fd = rig.kick_fd;
        pid = fork_echo(echo_ring, &rig);
        ping_ring(&e, n, is_spin, is_spin ? a : NULL, b);
        stop_echo(pid);
        close_rig(&rig);
        if (is_spin) keep_best(&r->pick_up, summarise(a, n));
        keep_best(is_spin ? &r->back : &r->back_asleep, summarise(b, n));
    }
}

static void run_daemon(struct results *r, const char *path, uint64_t *a, uint64_t *b)
{
    struct cts_options o = CTS_OPTIONS_INIT;
    char               message[512];
    struct ends        e;
    cts               *c;

    o.socket = path;
    if (cts_open(&c, &o, message, sizeof(message)) != 0) {
        fprintf(stderr, "bench_ring: %s\n", message);
        exit(1);
    }
    e = (struct ends){ &c->subw, &c->outr, c->kick_fd };
    ping_ring(&e, N_ASLEEP, 1, a, b);
    keep_best(&r->pick_up, summarise(a, N_ASLEEP));
    keep_best(&r->back_client_awake, summarise(b, N_ASLEEP));
    ping_ring(&e, N_ASLEEP, 0, NULL, b);
    keep_best(&r->back_asleep, summarise(b, N_ASLEEP));
    cts_close(c);
}

int main(int argc, char **argv)
{
    static uint64_t a[N_AWAKE], b[N_AWAKE];
    const char     *path = argc == 3 && strcmp(argv[1], "--socket") == 0 ? argv[2] : NULL;
    struct results  r = { .pick_up = { .n = 0 } };

    if (argc != 1 && path == NULL) {
        fprintf(stderr, "usage: bench_ring [--socket PATH]\n");
        return 2;
    }
    pin(0);
    for (int run = 0; run < N_RUNS; run++) {
        keep_best(&r.socket, ping_socket(a, N_ASLEEP));
        keep_best(&r.futex, ping_words(a, N_ASLEEP, 0));
        keep_best(&r.spin, ping_words(a, N_AWAKE, 1));
        if (path == NULL) run_stub(&r, a, b);
        else run_daemon(&r, path, a, b);
    }
    print_line("unix socket, round trip", r.socket, "futex, round trip", r.futex.p50);
    print_line("spin on a shared word, round trip", r.spin, "unix socket, round trip", r.socket.p50);
    print_line(path == NULL ? "stub, both awake, submit to pick-up"
                            : "ctsd as configured, client awake, submit to pick-up",
               r.pick_up, "spin on a shared word, round trip", r.spin.p50);
    if (path == NULL)
        print_line("stub, both awake, submit to first byte back", r.back, "spin on a shared word, round trip",
                   r.spin.p50);
    else
        print_line("ctsd as configured, client awake, submit to first byte back", r.back_client_awake,
                   "unix socket, round trip", r.socket.p50);
    print_line(path == NULL ? "stub, both asleep, submit to first byte back"
                            : "ctsd as configured, client asleep, submit to first byte back",
               r.back_asleep, "futex, round trip", r.futex.p50);
    return 0;
}
