#include "daemon/engine/schedule.h"

#include "common/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int cts_schedule_init(struct cts_schedule *s, struct cts_run *runs, uint32_t n_requests)
{
    *s = (struct cts_schedule){ .runs = runs, .turn = CTS_RUN_IDX_NONE };
    s->queues = calloc(CTS_CLIENT_QUEUES, sizeof(*s->queues));
    s->ready = calloc(n_requests, sizeof(*s->ready));
    if (s->queues == NULL || s->ready == NULL) {
        cts_schedule_deinit(s);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < CTS_CLIENT_QUEUES; i++) s->queues[i].head = s->queues[i].tail = CTS_RUN_IDX_NONE;
    return 0;
}

void cts_schedule_deinit(struct cts_schedule *s)
{
    free(s->ready);
    free(s->queues);
    *s = (struct cts_schedule){ .turn = CTS_RUN_IDX_NONE };
}

static uint32_t queue_of(uint32_t client)
{
    return client & (CTS_CLIENT_QUEUES - 1);
}

/* A queue that is no longer empty joins the ring just behind the turn: all
 * others have theirs first. */
static void ring_add(struct cts_schedule *s, uint32_t q)
{
    struct cts_client_queue *queue = &s->queues[q];

    if (s->turn == CTS_RUN_IDX_NONE) {
        queue->next = queue->prev = s->turn = q;
        return;
    }
    queue->next = s->turn;
    queue->prev = s->queues[s->turn].prev;
    s->queues[queue->prev].next = q;
    s->queues[s->turn].prev = q;
}

static void ring_remove(struct cts_schedule *s, uint32_t q)
{
    struct cts_client_queue *queue = &s->queues[q];

    if (s->turn == q) s->turn = queue->next != q ? queue->next : CTS_RUN_IDX_NONE;
    s->queues[queue->prev].next = queue->next;
    s->queues[queue->next].prev = queue->prev;
}

void cts_schedule_wait(struct cts_schedule *s, uint32_t idx, uint32_t client)
{
    struct cts_client_queue *q = &s->queues[queue_of(client)];
    struct cts_run          *run = &s->runs[idx];

    if (q->head == CTS_RUN_IDX_NONE) ring_add(s, queue_of(client));
    run->next = CTS_RUN_IDX_NONE;
    run->prev = q->tail;
    if (q->tail == CTS_RUN_IDX_NONE) q->head = idx;
    else s->runs[q->tail].next = idx;
    q->tail = idx;
    s->n_waiting++;
}

void cts_schedule_unwait(struct cts_schedule *s, uint32_t idx, uint32_t client)
{
    uint32_t                 q_idx = queue_of(client);
    struct cts_client_queue *q = &s->queues[q_idx];
    struct cts_run          *run = &s->runs[idx];
    int                      was_its_turn = s->turn == q_idx && q->head == idx;

    CTS_ASSERT(s->n_waiting > 0);
    if (run->prev == CTS_RUN_IDX_NONE) q->head = run->next;
    else s->runs[run->prev].next = run->next;
    if (run->next == CTS_RUN_IDX_NONE) q->tail = run->prev;
    else s->runs[run->next].prev = run->prev;
    if (q->head == CTS_RUN_IDX_NONE) ring_remove(s, q_idx);
    else if (was_its_turn) s->turn = q->next;
    s->n_waiting--;
}

uint32_t cts_schedule_whose_turn(const struct cts_schedule *s)
{
    return s->turn == CTS_RUN_IDX_NONE ? CTS_RUN_IDX_NONE : s->queues[s->turn].head;
}

/* Place of run idx in ready: where it stands, or where it belongs. */
static uint32_t ready_place(const struct cts_schedule *s, uint32_t idx)
{
    uint32_t lo = 0, hi = s->n_ready;
    uint64_t key = s->runs[idx].key;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2, at = s->ready[mid];

        if (s->runs[at].key < key || (s->runs[at].key == key && at < idx)) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

void cts_schedule_join(struct cts_schedule *s, uint32_t idx)
{
    uint32_t place = ready_place(s, idx);

    CTS_ASSERT(place == s->n_ready || s->ready[place] != idx);
    memmove(s->ready + place + 1, s->ready + place, (s->n_ready - place) * sizeof(*s->ready));
    s->ready[place] = idx;
    s->n_ready++;
    for (int i = 0; i < 2; i++) s->cursor[i] += place < s->cursor[i];
}

void cts_schedule_leave(struct cts_schedule *s, uint32_t idx)
{
    uint32_t place = ready_place(s, idx);

    CTS_ASSERT(place < s->n_ready && s->ready[place] == idx);
    s->n_ready--;
    memmove(s->ready + place, s->ready + place + 1, (s->n_ready - place) * sizeof(*s->ready));
    for (int i = 0; i < 2; i++) s->cursor[i] -= place < s->cursor[i];
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* One pass over the batch: rows for those that are past their prompt, or for
 * those that are not. Each kind has a cursor of its own: with one for both, the
 * kind that goes first would choose who of the other is always left out. */
static void hand_out(struct cts_schedule *s, const struct cts_engine_request *reqs,
                     const struct cts_step_limits *limits, int is_decode, struct cts_step_plan *plan)
{
    uint32_t first = s->cursor[is_decode] % s->n_ready, first_out = s->n_ready;

    for (uint32_t i = 0; i < s->n_ready; i++) {
        uint32_t        place = (first + i) % s->n_ready, idx = s->ready[place];
        struct cts_run *run = &s->runs[idx];
        uint32_t        n_prompt = reqs[idx].n_prompt, n;
        int             gets_token;

        if ((run->n_fed >= n_prompt) != is_decode) continue;
        n = is_decode ? 1 : min_u32(limits->chunk, n_prompt - run->n_fed);
        n = min_u32(n, limits->n_rows - plan->n_rows);
        gets_token = run->n_fed + n >= n_prompt;
        if (n == 0 || plan->n_seqs == limits->n_seqs || (gets_token && plan->n_tokens == limits->n_tokens)) {
            if (n > 0 && plan->n_seqs < limits->n_seqs) plan->n_no_room++;
            if (first_out == s->n_ready) first_out = place;
            continue;
        }
        run->n_step_rows = n;
        plan->n_rows += n;
        plan->n_seqs++;
        plan->n_tokens += (uint32_t)gets_token;
    }
    if (first_out < s->n_ready) s->cursor[is_decode] = first_out;
}

void cts_schedule_plan(struct cts_schedule *s, const struct cts_engine_request *reqs,
                       const struct cts_step_limits *limits, struct cts_step_plan *out)
{
    *out = (struct cts_step_plan){ 0 };
    for (uint32_t i = 0; i < s->n_ready; i++) s->runs[s->ready[i]].n_step_rows = 0;
    if (s->n_ready == 0) return;
    hand_out(s, reqs, limits, 1, out);
    hand_out(s, reqs, limits, 0, out);
}
