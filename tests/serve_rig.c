#include "tests/serve_rig.h"

#include "tests/check.h"

static void on_events(uv_async_t *h)
{
    uv_stop(h->loop);
}

static void ring(void *arg)
{
    (void)uv_async_send(arg);
}

void serve_rig_open(struct serve_rig *r)
{
    char                   base[512];
    struct cts_engine_opts eo = { .base_dir = src_path(base, sizeof(base), "contrib/demo/base"),
                                  .n_threads = 1,
                                  .n_requests_max = RIG_REQUESTS,
                                  .n_rows_max = 32,
                                  .n_seqs_max = 8,
                                  .prefill_chunk_rows = 16,
                                  .page_tokens = 16,
                                  .n_pages = 256,
                                  .n_exact_max = RIG_EXACT,
                                  .rank_max = 16,
                                  .on_events = ring,
                                  .on_events_arg = &r->events };
    struct cts_err         err = { .code = 0 };
    struct cts_lives_opts  lo = { .adapters = NULL };

    *r = (struct serve_rig){ .engine = NULL };
    CHECK(uv_loop_init(&r->loop) == 0);
    CHECK(uv_async_init(&r->loop, &r->events, on_events) == 0);
    CHECK_MSG(cts_engine_open(&r->engine, &eo, &err) == 0, "%s\n", err.text);
    CHECK(cts_adapters_open(&r->adapters, r->engine, &r->loop, RIG_EXACT, &err) == 0);
    CHECK(cts_gen_open(&r->gen, r->engine, 4096, 100, &err) == 0);
    lo = (struct cts_lives_opts){ .engine = r->engine,
                                  .adapters = r->adapters,
                                  .gen = &r->gen,
                                  .n_requests_max = RIG_REQUESTS,
                                  .live_per_client = RIG_PER_CLIENT,
                                  .stall_ns = RIG_STALL_NS };
    CHECK(cts_lives_open(&r->lives, &lo, &err) == 0);
}

void serve_rig_close(struct serve_rig *r)
{
    while (cts_adapters_is_loading(r->adapters)) (void)uv_run(&r->loop, UV_RUN_ONCE);
    cts_engine_close(r->engine);
    cts_lives_close(&r->lives);
    cts_gen_close(&r->gen);
    cts_adapters_close(r->adapters);
    uv_close((uv_handle_t *)&r->events, NULL);
    (void)uv_run(&r->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&r->loop) == 0);
}

void serve_rig_flush(struct serve_rig *r)
{
    r->lives.has_orders |= cts_adapters_turn(r->adapters);
    cts_lives_flush(&r->lives);
}

void serve_rig_turn(struct serve_rig *r, uint64_t now_ns)
{
    serve_rig_flush(r);
    (void)uv_run(&r->loop, UV_RUN_DEFAULT); /* until on_events */
    (void)cts_lives_drain(&r->lives, now_ns, UINT32_MAX);
    serve_rig_flush(r);
}
