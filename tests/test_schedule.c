#include "daemon/engine/schedule.h"
#include "tests/check.h"

#include <string.h>

#define N 32

struct fixture {
    struct cts_schedule       s;
    struct cts_run            runs[N];
    struct cts_engine_request reqs[N];
};

static void start(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    CHECK(cts_schedule_init(&f->s, f->runs, N) == 0);
}

/* Who leaves the queue next; N when nobody waits. */
static uint32_t next(struct fixture *f)
{
    uint32_t idx = cts_schedule_whose_turn(&f->s);

    if (idx == CTS_RUN_IDX_NONE) return N;
    cts_schedule_unwait(&f->s, idx, f->reqs[idx].client);
    return idx;
}

static void wait_for(struct fixture *f, uint32_t idx, uint32_t client)
{
    f->reqs[idx].client = client;
    cts_schedule_wait(&f->s, idx, client);
}

static void clients_take_turns_and_each_keeps_its_order(void **state)
{
    struct fixture f;
    /* Client 7 floods first; 8 and 9 come later with two and one. */
    static const uint32_t WANT[] = { 0, 4, 6, 1, 5, 2, 3, N };

    (void)state;
    start(&f);
    for (uint32_t i = 0; i < 4; i++) wait_for(&f, i, 7);
    wait_for(&f, 4, 8);
    wait_for(&f, 5, 8);
    wait_for(&f, 6, 9);
    CHECK(f.s.n_waiting == 7);
    for (size_t i = 0; i < sizeof(WANT) / sizeof(WANT[0]); i++) CHECK(next(&f) == WANT[i]);
    CHECK(f.s.n_waiting == 0);
    cts_schedule_deinit(&f.s);
}

static void leaving_the_queue_from_anywhere_keeps_it_whole(void **state)
{
    struct fixture        f;
    static const uint32_t WANT[] = { 1, 4, 3, N };

    (void)state;
    start(&f);
    for (uint32_t i = 0; i < 4; i++) wait_for(&f, i, 7);
    wait_for(&f, 4, 8);
    wait_for(&f, 5, 9);
    cts_schedule_unwait(&f.s, 2, 7); /* the middle of one */
    cts_schedule_unwait(&f.s, 5, 9); /* the whole of one */
    cts_schedule_unwait(&f.s, 0, 7); /* whose turn it was: passes on */
    CHECK(next(&f) == 4);
    wait_for(&f, 4, 8);
    for (size_t i = 0; i < sizeof(WANT) / sizeof(WANT[0]); i++) CHECK(next(&f) == WANT[i]);
    wait_for(&f, 0, 1); /* usable again */
    CHECK(next(&f) == 0);
    cts_schedule_deinit(&f.s);
}

static void join(struct fixture *f, uint32_t idx, uint64_t key, uint32_t n_prompt, uint32_t n_fed)
{
    f->runs[idx].key = key;
    f->runs[idx].n_fed = n_fed;
    f->reqs[idx].n_prompt = n_prompt;
    cts_schedule_join(&f->s, idx);
}

static void the_batch_is_sorted_by_key(void **state)
{
    struct fixture        f;
    static const uint32_t WANT[] = { 4, 1, 2, 3, 0 };

    (void)state;
    start(&f);
    join(&f, 0, 30, 1, 1);
    join(&f, 1, 10, 1, 1);
    join(&f, 3, 20, 1, 1);
    join(&f, 2, 20, 1, 1);
    join(&f, 4, 0, 1, 1);
    CHECK(f.s.n_ready == 5);
    CHECK(memcmp(f.s.ready, WANT, sizeof(WANT)) == 0);
    cts_schedule_leave(&f.s, 2);
    CHECK(f.s.n_ready == 4 && f.s.ready[2] == 3);
    cts_schedule_deinit(&f.s);
}

static void decode_rows_come_first_and_prompts_fill_the_rest(void **state)
{
    struct fixture         f;
    struct cts_step_plan   plan;
    struct cts_step_limits lim = { .n_rows = 10, .n_seqs = 8, .chunk = 6, .n_tokens = 8 };

    (void)state;
    start(&f);
    join(&f, 0, 0, 20, 0); /* prompts */
    join(&f, 1, 0, 20, 18);
    join(&f, 2, 0, 5, 5); /* decoding */
    join(&f, 3, 0, 5, 9);
    cts_schedule_plan(&f.s, f.reqs, &lim, &plan);
    CHECK(f.runs[2].n_step_rows == 1 && f.runs[3].n_step_rows == 1);
    CHECK(f.runs[0].n_step_rows == 6); /* a chunk */
    CHECK(f.runs[1].n_step_rows == 2); /* what is left of the prompt */
    CHECK(plan.n_rows == 10 && plan.n_seqs == 4 && plan.n_tokens == 3 && plan.n_no_room == 0);
    cts_schedule_deinit(&f.s);
}

/* Every limit is kept at every step, and nobody starves. */
static void whoever_was_left_out_is_first_next_time(void **state)
{
    struct fixture         f;
    struct cts_step_plan   plan;
    struct cts_step_limits lim = { .n_rows = 7, .n_seqs = 5, .chunk = 3, .n_tokens = 4 };
    uint32_t               n_since[N] = { 0 };

    (void)state;
    start(&f);
    for (uint32_t i = 0; i < N; i++) join(&f, i, i % 3, 1000, i % 2 == 0 ? 1000 : 0);
    for (int step = 0; step < 200; step++) {
        uint32_t n_rows = 0, n_seqs = 0, n_tokens = 0;

        cts_schedule_plan(&f.s, f.reqs, &lim, &plan);
        for (uint32_t i = 0; i < N; i++) {
            struct cts_run *r = &f.runs[i];

            n_rows += r->n_step_rows;
            n_seqs += r->n_step_rows > 0;
            n_tokens += r->n_step_rows > 0 && r->n_fed + r->n_step_rows >= 1000;
            CHECK(r->n_step_rows <= (r->n_fed >= 1000 ? 1 : lim.chunk));
            n_since[i] = r->n_step_rows > 0 ? 0 : n_since[i] + 1;
            CHECK_MSG(n_since[i] < 2 * N, "run %u waits for %u steps\n", i, n_since[i]);
        }
        CHECK(n_rows == plan.n_rows && n_seqs == plan.n_seqs && n_tokens == plan.n_tokens);
        CHECK(n_rows <= lim.n_rows && n_seqs <= lim.n_seqs && n_tokens <= lim.n_tokens);
        CHECK(n_rows > 0);
    }
    cts_schedule_deinit(&f.s);
}

static void without_room_for_tokens_prompts_still_go_on(void **state)
{
    struct fixture         f;
    struct cts_step_plan   plan;
    struct cts_step_limits lim = { .n_rows = 10, .n_seqs = 8, .chunk = 6, .n_tokens = 0 };

    (void)state;
    start(&f);
    join(&f, 0, 0, 20, 0);
    join(&f, 1, 0, 20, 18);
    join(&f, 2, 0, 5, 5);
    cts_schedule_plan(&f.s, f.reqs, &lim, &plan);
    CHECK(f.runs[0].n_step_rows == 6);
    CHECK(f.runs[1].n_step_rows == 0 && f.runs[2].n_step_rows == 0);
    CHECK(plan.n_rows == 6 && plan.n_seqs == 1 && plan.n_tokens == 0 && plan.n_no_room == 2);
    cts_schedule_deinit(&f.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_take_turns_and_each_keeps_its_order),
        cmocka_unit_test(leaving_the_queue_from_anywhere_keeps_it_whole),
        cmocka_unit_test(the_batch_is_sorted_by_key),
        cmocka_unit_test(decode_rows_come_first_and_prompts_fill_the_rest),
        cmocka_unit_test(whoever_was_left_out_is_first_next_time),
        cmocka_unit_test(without_room_for_tokens_prompts_still_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
