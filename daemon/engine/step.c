/* One step: the planned rows into the forward pass's inputs, the pass, and what
 * came out: a token for each sequence whose last known row was in it. */

#include "daemon/engine/state.h"

#include "common/assert.h"

#include <string.h>

static int row_gets_token(const struct cts_run *run, const struct cts_engine_request *req)
{
    return run->n_fed + run->n_step_rows >= req->n_prompt;
}

/* The rows of one sequence. */
static void put_rows(struct cts_engine *e, struct cts_forward_in *in, uint32_t idx)
{
    const struct cts_engine_request *req = &e->requests.at[idx];
    const struct cts_run            *run = &e->requests.runs[idx];
    uint32_t                         page_tokens = e->kv.page_tokens, seq = in->n_seqs++;
    uint32_t                         n_pages = cts_kv_pages_for(&e->kv, run->n_fed + run->n_step_rows);

    CTS_ASSERT(n_pages <= run->n_pages);
    memcpy(in->page_table + (size_t)seq * e->n_pages_per_seq_max, run->pages, n_pages * sizeof(*run->pages));
    for (uint32_t i = 0; i < run->n_step_rows; i++) {
        uint32_t r = in->n_rows++, pos = run->n_fed + i;
        int      is_last = i + 1 == run->n_step_rows;

        in->token[r] = pos < req->n_prompt ? req->prompt[pos] : run->last;
        in->pos[r] = (int32_t)pos;
        in->place[r] = run->pages[pos / page_tokens] * (int32_t)page_tokens + (int32_t)(pos % page_tokens);
        in->seq[r] = (int32_t)seq;
        for (uint32_t p = 0; p < run->n_refs; p++)
            in->parts[in->n_parts++] = (struct ctsk_row_part){ run->refs[p].factors, run->refs[p].weight, r };
        if (e->tap != NULL || (is_last && row_gets_token(run, req))) in->logits_row[in->n_logits++] = (int32_t)r;
    }
}

static void fill_inputs(struct cts_engine *e)
{
    struct cts_forward_in *in = cts_forward_in(e->forward);

    in->n_rows = in->n_seqs = in->n_parts = in->n_logits = 0;
    in->skip_linears = (1u << CTS_N_LINEARS) - 1;
    for (uint32_t i = 0; i < e->schedule.n_ready; i++) {
        uint32_t idx = e->schedule.ready[i];

        if (e->requests.runs[idx].n_step_rows == 0) continue;
        put_rows(e, in, idx);
        in->skip_linears &= ~e->requests.runs[idx].linears;
    }
    CTS_ASSERT(in->n_rows == e->plan.n_rows);
    CTS_ASSERT(in->n_seqs == e->plan.n_seqs);
}

static int is_stop_token(const struct cts_engine *e, const struct cts_engine_request *req, int32_t token)
{
    for (uint32_t i = 0; i < e->model.n_stop_tokens; i++)
        if (e->model.stop_tokens[i] == token) return 1;
    for (uint32_t i = 0; i < req->n_stop_tokens; i++)
        if (req->stop_tokens[i] == token) return 1;
    return 0;
}

/* The token's text, and why the request ends with it: 0 when it goes on. */
static uint32_t add_token(struct cts_engine *e, uint32_t idx, int32_t token)
{
    const struct cts_engine_request *req = &e->requests.at[idx];
    struct cts_run                  *run = &e->requests.runs[idx];
    struct cts_stops                 stops = { req->n_stop, req->stop_bytes, req->stop };
    uint32_t                         finish = 0;

    if (is_stop_token(e, req, token)) finish = CTS_ENGINE_STOP;
    else if (req->want_text || req->n_stop > 0) {
        if (cts_text_push(&run->text, cts_tokenizer_piece(e->tokenizer, token), &stops))
            finish = CTS_ENGINE_STOP_STRING;
        if (!req->want_text) cts_text_drop(&run->text);
    }
    if (finish == 0 && run->n_out + 1 == req->max_tokens) finish = CTS_ENGINE_LENGTH;
    if (finish != 0 && req->want_text) cts_text_end(&run->text);
    return finish;
}

/* Returns whether the run is still in the batch. */
static int take_token(struct cts_engine *e, uint32_t idx, const float *logits)
{
    const struct cts_engine_request *req = &e->requests.at[idx];
    struct cts_run                  *run = &e->requests.runs[idx];
    struct cts_sample_opts           o = { .temperature = req->temperature,
                                           .top_p = req->top_p,
                                           .top_k = req->top_k,
                                           .n_logprobs = req->n_logprobs,
                                           .seed = req->seed,
                                           .pos = (uint64_t)req->n_prompt + run->n_out };
    struct cts_sample                sample;
    uint32_t                         finish;
    int                              rc = cts_sample(&e->sampler, logits, &o, &sample);

    if (rc != 0) {
        cts_engine_end_run(e, idx, rc, 0);
        return 0;
    }
    finish = add_token(e, idx, sample.token);
    cts_engine_push_token(e, idx, &sample);
    run->last = sample.token;
    run->n_out++;
    e->stats.n_tokens++;
    if (finish != 0) cts_engine_end_run(e, idx, 0, finish);
    return finish == 0;
}

static void call_tap(struct cts_engine *e, uint32_t idx, const float *logits)
{
    const struct cts_run *run = &e->requests.runs[idx];

    for (uint32_t i = 0; i < run->n_step_rows; i++)
        e->tap(e->tap_arg, e->requests.at[idx].tag, run->n_fed + i, logits + (size_t)i * e->model.vocab_size);
}

/* Walk the batch as fill_inputs did. Who ends leaves the batch, and the next run
 * takes its place in the list. */
static void take_results(struct cts_engine *e)
{
    const float *logits = cts_forward_logits(e->forward);

    for (uint32_t i = 0; i < e->schedule.n_ready;) {
        uint32_t        idx = e->schedule.ready[i];
        struct cts_run *run = &e->requests.runs[idx];
        int             gets_token = row_gets_token(run, &e->requests.at[idx]), is_in = 1;
        uint32_t        n_rows = run->n_step_rows;

        if (n_rows > 0) {
            uint32_t n_logits = e->tap != NULL ? n_rows : (uint32_t)gets_token;

            if (e->tap != NULL) call_tap(e, idx, logits);
            run->n_step_rows = 0;
            run->n_fed += n_rows;
            if (run->n_fed <= e->requests.at[idx].n_prompt) e->stats.n_prompt_tokens += n_rows;
            if (gets_token) is_in = take_token(e, idx, logits + (size_t)(n_logits - 1) * e->model.vocab_size);
            logits += (size_t)n_logits * e->model.vocab_size;
        }
        i += (uint32_t)is_in;
    }
}

/* The device failed: whoever was in the step gets the error. With the device
 * lost, the next turn ends all others. */
static void fail_step(struct cts_engine *e, int code)
{
    if (code == CTS_EGPU_LOST) e->is_lost = 1;
    for (uint32_t i = 0; i < e->schedule.n_ready;) {
        uint32_t idx = e->schedule.ready[i];

        if (e->requests.runs[idx].n_step_rows > 0) cts_engine_end_run(e, idx, code, 0);
        else i++;
    }
}

void cts_engine_step(struct cts_engine *e)
{
    int rc, rc_wait;

    fill_inputs(e);
    rc = cts_forward_step(e->forward);
    CTS_ASSERT(rc != CTS_ESHAPE); /* the plan keeps every limit, and all tokens were checked */
    rc_wait = cts_forward_wait(e->forward);
    if (rc == 0) rc = rc_wait;
    e->stats.n_steps++;
    e->stats.n_rows += e->plan.n_rows;
    if (rc != 0) fail_step(e, rc);
    else take_results(e);
}
