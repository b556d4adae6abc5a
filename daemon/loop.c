#include "daemon/loop.h"

#include "common/assert.h"
#include "common/clock.h"
#include "common/log.h"
#include "daemon/engine/engine.h"
#include "daemon/serve/adapters.h"
#include "daemon/serve/ctl_server.h"
#include "daemon/serve/generate.h"
#include "daemon/serve/listen.h"
#include "daemon/serve/live.h"
#include "daemon/serve/sdnotify.h"
#include "daemon/serve/shm_server.h"
#include "shm/ring.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define EVENTS_PER_TURN 4096u
#define TICK_MS         100u

struct cts_loop {
    const struct cts_config *config;
    uv_loop_t                uv;
    uv_poll_t                events;    /* on events_fd */
    int                      events_fd; /* the engine has published and found the loop asleep */
    _Atomic int              is_asleep;
    uv_prepare_t             prepare; /* one turn, before each poll */
    uv_check_t               check;
    uv_idle_t                idle; /* active: the next poll does not wait */
    uv_timer_t               tick; /* active while something has a deadline */
    uv_signal_t              sigterm, sigint, sighup;
    struct cts_engine       *engine;
    struct cts_adapters     *adapters;
    struct cts_gen           gen;
    struct cts_lives         lives;
    struct cts_shm          *shm;
    struct cts_ctl          *ctl;
    struct cts_listen        listen;
    uint64_t                 drain_until_ns;
    int                      has_uv, is_over;
};

static struct cts_engine_opts engine_opts(const struct cts_config *c)
{
    return (struct cts_engine_opts){
        .base_dir = c->model_path,
        .collection_dir = c->collection_path,
        .backend = c->backend,
        .cpu_level = c->cpu_level,
        .n_threads = (uint32_t)c->threads,
        .spin_ns = c->worker_spin_us * 1000,
        .n_requests_max = (uint32_t)c->requests,
        .n_rows_max = (uint32_t)c->rows,
        .n_seqs_max = (uint32_t)c->sequences,
        .prefill_chunk_rows = (uint32_t)c->prefill_chunk,
        .page_tokens = (uint32_t)c->page_tokens,
        .n_pages = (uint32_t)c->kv_pages,
        .n_exact_max = (uint32_t)c->exact_adapters,
        .rank_max = (uint32_t)c->exact_rank,
        .context_max = (uint32_t)c->context,
    };
}

/* ---- the turn ---- */

static void stop_serving(struct cts_loop *l)
{
    l->is_over = 1;
    uv_stop(&l->uv);
}

/* Idempotent. The first call begins to drain; the turn ends it. */
static void begin_drain(struct cts_loop *l)
{
    if (l->lives.is_draining) return;
    cts_log(CTS_LOG_NOTICE, "stopping: %u requests are live", l->lives.n_live);
    (void)cts_sdnotify("STOPPING=1\nSTATUS=finishing live requests");
    l->lives.is_draining = 1;
    l->drain_until_ns = cts_clock_ns() + l->config->drain_s * 1000000000u;
    cts_shm_set_draining(l->shm);
}

static void look_at_drain(struct cts_loop *l, uint64_t now_ns)
{
    if (!l->lives.is_draining || (l->lives.n_live > 0 && now_ns < l->drain_until_ns)) return;
    if (l->lives.n_live > 0)
        cts_log(CTS_LOG_WARNING, "%u requests are cut off (limits.drain_s)", l->lives.n_live);
    stop_serving(l);
}

/* Everything that there is to do, bounded, in one go. 1 when some is left. */
static int turn(struct cts_loop *l)
{
    uint64_t now_ns = cts_clock_ns();
    int      has_more = cts_lives_drain(&l->lives, now_ns, EVENTS_PER_TURN) == EVENTS_PER_TURN;

    has_more |= cts_shm_take(l->shm, now_ns);
    cts_ctl_flush(l->ctl, now_ns);
    l->lives.has_orders |= cts_adapters_turn(l->adapters);
    cts_lives_flush(&l->lives);
    cts_shm_publish(l->shm);
    if (l->lives.is_device_lost) begin_drain(l);
    look_at_drain(l, now_ns);
    return has_more;
}

/* Poll the rings for the configured time instead of sleeping at once. */
static int spin(struct cts_loop *l)
{
    uint64_t until_ns = cts_clock_ns() + l->config->loop_spin_us * 1000;

    while (cts_clock_ns() < until_ns)
        if (cts_shm_has_more(l->shm)) return 1;
    return 0;
}

static void on_idle(uv_idle_t *h)
{
    (void)h; /* being active is all that it is for */
}

static void on_tick(uv_timer_t *h);

static void set_timers(struct cts_loop *l, int has_more)
{
    int needs_tick =
        l->lives.n_stalled > 0 || l->lives.n_orders > 0 || l->lives.is_draining || cts_ctl_needs_tick(l->ctl);

    if (has_more) uv_idle_start(&l->idle, on_idle);
    else uv_idle_stop(&l->idle);
    if (!needs_tick) uv_timer_stop(&l->tick);
    else if (!uv_is_active((uv_handle_t *)&l->tick)) uv_timer_start(&l->tick, on_tick, TICK_MS, TICK_MS);
}

/* From here on whoever has something for us rings. 1 when something came before
 * that could be seen: then don't sleep. */
static int fall_asleep(struct cts_loop *l)
{
    int has_more;

    atomic_store(&l->is_asleep, 1); /* before the looks: pairs with ring_loop's exchange after its push */
    has_more = cts_shm_arm(l->shm);
    return cts_lives_drain(&l->lives, cts_clock_ns(), EVENTS_PER_TURN) > 0 || has_more;
}

static void on_prepare(uv_prepare_t *h)
{
    struct cts_loop *l = h->data;
    int              has_more;

    if (l->is_over) return;
    has_more = turn(l);
    if (!has_more && l->config->loop_spin_us > 0) has_more = spin(l);
    if (!has_more) has_more = fall_asleep(l);
    set_timers(l, has_more);
}

static void on_check(uv_check_t *h)
{
    struct cts_loop *l = h->data;

    atomic_store_explicit(&l->is_asleep, 0, memory_order_relaxed); /* a ring too many does no harm */
    if (!l->is_over) cts_shm_disarm(l->shm);
}

static void on_tick(uv_timer_t *h)
{
    struct cts_loop *l = h->data;
    uint64_t         now_ns = cts_clock_ns();

    if (l->is_over) return;
    cts_lives_tick(&l->lives, now_ns);
    cts_ctl_tick(l->ctl, now_ns);
}

static void on_events(uv_poll_t *h, int status, int events)
{
    struct cts_loop *l = h->data;
    uint64_t         n;

    (void)status;
    (void)events;
    (void)!read(l->events_fd, &n, sizeof(n)); /* the turn before the next poll drains the queue */
}

/* Engine thread. An eventfd and a flag of our own instead of uv_async_t: that of
 * libuv 1.44 lets the loop spin with sched_yield while the sender is between its
 * write and its next store, which costs hundreds of system calls where the two
 * share a core. */
static void ring_loop(void *arg)
{
    struct cts_loop *l = arg;

    if (atomic_exchange(&l->is_asleep, 0)) (void)!write(l->events_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

static void on_signal(uv_signal_t *h, int signum)
{
    struct cts_loop *l = h->data;

    if (signum == SIGHUP) cts_log(CTS_LOG_NOTICE, "SIGHUP: no option can be reloaded; restart to change one");
    else if (l->lives.is_draining) stop_serving(l); /* the second one does not wait */
    else begin_drain(l);
}

static void on_stop(void *arg)
{
    begin_drain(arg);
}

/* ---- open and close ---- */

static int open_handles(struct cts_loop *l, struct cts_err *err)
{
    int rc = uv_loop_init(&l->uv);

    if (rc < 0) return cts_err_set(err, rc, "event loop");
    l->has_uv = 1;
    l->events_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->events_fd < 0) return cts_err_set(err, -errno, "eventfd");
    rc = uv_poll_init(&l->uv, &l->events, l->events_fd);
    if (rc == 0) rc = uv_prepare_init(&l->uv, &l->prepare);
    if (rc == 0) rc = uv_check_init(&l->uv, &l->check);
    if (rc == 0) rc = uv_idle_init(&l->uv, &l->idle);
    if (rc == 0) rc = uv_timer_init(&l->uv, &l->tick);
    if (rc == 0) rc = uv_signal_init(&l->uv, &l->sigterm);
    if (rc == 0) rc = uv_signal_init(&l->uv, &l->sigint);
    if (rc == 0) rc = uv_signal_init(&l->uv, &l->sighup);
    l->events.data = l->prepare.data = l->check.data = l->tick.data = l->sigterm.data = l->sigint.data =
        l->sighup.data = l;
    return rc < 0 ? cts_err_set(err, rc, "event loop") : 0;
}

static int start_handles(struct cts_loop *l, struct cts_err *err)
{
    int rc = uv_prepare_start(&l->prepare, on_prepare);

    if (rc == 0) rc = uv_poll_start(&l->events, UV_READABLE, on_events);
    if (rc == 0) rc = uv_check_start(&l->check, on_check);
    if (rc == 0) rc = uv_signal_start(&l->sigterm, on_signal, SIGTERM);
    if (rc == 0) rc = uv_signal_start(&l->sigint, on_signal, SIGINT);
    if (rc == 0) rc = uv_signal_start(&l->sighup, on_signal, SIGHUP);
    return rc < 0 ? cts_err_set(err, rc, "event loop") : 0;
}

static int open_engine(struct cts_loop *l, struct cts_err *err)
{
    struct cts_engine_opts o = engine_opts(l->config);

    o.on_events = ring_loop;
    o.on_events_arg = l;
    return cts_engine_open(&l->engine, &o, err);
}

static int open_doors(struct cts_loop *l, const char *version, struct cts_err *err)
{
    const struct cts_config *c = l->config;
    struct cts_lives_opts    lo = { .engine = l->engine,
                                    .adapters = l->adapters,
                                    .gen = &l->gen,
                                    .n_requests_max = (uint32_t)c->requests,
                                    .live_per_client = (uint32_t)c->live_per_client,
                                    .stall_ns = c->client_stall_s * 1000000000u };
    struct cts_shm_opts      so = { .loop = &l->uv,
                                    .lives = &l->lives,
                                    .adapters = l->adapters,
                                    .n_rings_max = (uint32_t)c->clients,
                                    .arena_bytes_max = (uint32_t)c->arena_bytes,
                                    .out_bytes_max = (uint32_t)c->out_bytes,
                                    .live_per_client = (uint32_t)c->live_per_client };
    struct cts_ctl_opts      co = { .loop = &l->uv,
                                    .engine = l->engine,
                                    .adapters = l->adapters,
                                    .lives = &l->lives,
                                    .listen_fd = l->listen.fd,
                                    .base_dir = c->model_path,
                                    .version = version,
                                    .n_conns_max = (uint32_t)c->clients,
                                    .live_per_client = (uint32_t)c->live_per_client,
                                    .setup_ns = c->setup_s * 1000000000u,
                                    .on_stop = on_stop,
                                    .on_stop_arg = l };
    int                      rc = cts_lives_open(&l->lives, &lo, err);

    if (rc == 0) rc = cts_shm_open(&l->shm, &so, err);
    co.shm = l->shm;
    if (rc == 0) rc = cts_ctl_open(&l->ctl, &co, err);
    return rc;
}

/* The socket first: it tells in a moment that another daemon is there. Clients
 * that connect while the model loads wait in its backlog. */
static int open_all(struct cts_loop *l, const char *version, struct cts_err *err)
{
    const struct cts_config *c = l->config;
    int                      rc = open_handles(l, err);

    if (rc == 0) rc = cts_listen_open(&l->listen, c->listen_socket, err);
    if (rc == 0) rc = open_engine(l, err);
    if (rc == 0) rc = cts_adapters_open(&l->adapters, l->engine, &l->uv, (uint32_t)c->exact_adapters, err);
    if (rc == 0) rc = cts_gen_open(&l->gen, l->engine, (uint32_t)c->prompt_bytes, (uint32_t)c->max_tokens, err);
    if (rc == 0) rc = open_doors(l, version, err);
    if (rc == 0) rc = start_handles(l, err);
    return rc;
}

static void close_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h)) uv_close(h, NULL);
}

/* Doors first, then what reads for them, then the engine, which rings the loop
 * until it is gone, and the loop last. Safe on what open_all left half done. */
static void close_all(struct cts_loop *l)
{
    l->is_over = 1;
    if (l->ctl != NULL) cts_ctl_stop(l->ctl);
    if (l->shm != NULL) cts_shm_stop(l->shm);
    cts_listen_close(&l->listen);
    while (l->adapters != NULL && cts_adapters_is_loading(l->adapters)) (void)uv_run(&l->uv, UV_RUN_ONCE);
    cts_engine_close(l->engine);
    if (l->has_uv) {
        uv_walk(&l->uv, close_handle, NULL);
        (void)uv_run(&l->uv, UV_RUN_DEFAULT);
        CTS_ASSERT(uv_loop_close(&l->uv) == 0); /* every handle was closed above */
    }
    if (l->events_fd >= 0) close(l->events_fd);
    cts_ctl_free(l->ctl);
    cts_shm_free(l->shm);
    cts_lives_close(&l->lives);
    cts_gen_close(&l->gen);
    cts_adapters_close(l->adapters);
}

/* The journal reads levels where stderr is the stream that it gave us. */
static void set_up_log(const struct cts_config *c)
{
    const char        *stream = getenv("JOURNAL_STREAM");
    struct stat        st;
    unsigned long long dev, ino;

    cts_log_set_level((enum cts_log_level)cts_log_level_from_name(c->log_level));
    if (stream != NULL && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0)
        cts_log_set_journal(st.st_dev == dev && st.st_ino == ino);
}

static void say_ready(const struct cts_loop *l)
{
    const struct cts_collection *c = cts_engine_collection(l->engine);

    cts_log(CTS_LOG_NOTICE, "serving '%s' and %u compressed adapters at '%s' on %s", l->config->model_path,
            c != NULL ? c->n_adapters : 0, l->config->listen_socket, cts_engine_describe(l->engine));
    if (cts_sdnotify("READY=1\nSTATUS=serving") < 0)
        cts_log(CTS_LOG_WARNING, "the service manager could not be told: $NOTIFY_SOCKET");
}

int cts_loop_run(const struct cts_config *c, const char *version, struct cts_err *err)
{
    struct cts_loop l = { .config = c, .events_fd = -1, .listen = CTS_LISTEN_NONE };
    int             rc;

    set_up_log(c);
    (void)signal(SIGPIPE, SIG_IGN);
    rc = open_all(&l, version, err);
    if (rc == 0) {
        say_ready(&l);
        (void)uv_run(&l.uv, UV_RUN_DEFAULT);
        cts_log(CTS_LOG_NOTICE, "stopped");
        if (l.lives.is_device_lost)
            rc = cts_err_set(err, CTS_EGPU_LOST, "the device is lost: restart the daemon");
    }
    close_all(&l);
    return rc;
}

/* ---- plan ---- */

struct plan {
    FILE    *out;
    uint64_t sum;
};

static void add_line(void *arg, const char *what, uint64_t bytes)
{
    struct plan *p = arg;

    p->sum += bytes;
    if (p->out != NULL) fprintf(p->out, "# %14" PRIu64 "  %s\n", bytes, what);
}

int cts_loop_plan(const struct cts_config *c, FILE *out, struct cts_err *err)
{
    struct plan            p = { .out = out };
    struct cts_engine_opts o = engine_opts(c);
    uint64_t               ring =
        cts_sub_bytes(CTS_SUB_RECORDS_MAX, (uint32_t)c->arena_bytes) + cts_out_bytes((uint32_t)c->out_bytes);
    int rc;

    if (out != NULL) fputs("\n# memory at most, in bytes\n", out);
    rc = cts_engine_plan(&o, add_line, &p, err);
    if (rc < 0 || out == NULL) return rc;
    add_line(&p, "rings of all clients", c->clients * ring);
    add_line(&p, "messages of all connections",
             c->clients * 2 * ((uint64_t)CTS_CTL_MESSAGE_MAX + (512u << 10)));
    fprintf(out, "# %14" PRIu64 "  in all\n", p.sum);
    return 0;
}
