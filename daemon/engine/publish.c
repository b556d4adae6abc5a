/* Events into from_engine. Room is known before anything is pushed: a step is
 * planned for as many tokens as fit, and endings wait in a list. */

#include "daemon/engine/state.h"

#include "common/assert.h"

#include <string.h>

void cts_engine_push(struct cts_engine *e, const struct cts_engine_event *ev)
{
    CTS_ASSERT(e->room > 0); /* whoever pushes counted before */
    CTS_ASSERT(cts_spsc_push(&e->events, ev) == 0);
    e->room--;
    e->n_pushed++;
}

static struct cts_engine_event event_of(const struct cts_engine *e, enum cts_engine_event_type type, uint32_t idx)
{
    return (struct cts_engine_event){ .type = type, .req_idx = idx, .tag = e->requests.at[idx].tag };
}

/* What may be given out beyond the record that carried a token. */
static void push_text(struct cts_engine *e, uint32_t idx)
{
    struct cts_text *t = &e->requests.runs[idx].text;

    while (t->n_out > 0) {
        struct cts_engine_event ev = event_of(e, CTS_EV_TEXT, idx);

        ev.text_bytes = cts_text_take(t, ev.text, sizeof(ev.text));
        cts_engine_push(e, &ev);
    }
}

void cts_engine_push_token(struct cts_engine *e, uint32_t idx, const struct cts_sample *s)
{
    struct cts_run         *run = &e->requests.runs[idx];
    struct cts_engine_event ev = event_of(e, CTS_EV_TOKEN, idx);

    ev.index = run->n_out;
    ev.token = s->token;
    ev.logprob = s->logprob;
    ev.n_top = s->n_top;
    for (uint32_t i = 0; i < s->n_top; i++) {
        ev.top[i].id = s->top[i].id;
        ev.top[i].logprob = s->top[i].logit;
    }
    if (run->text.n_out > 0) ev.text_bytes = cts_text_take(&run->text, ev.text, sizeof(ev.text));
    cts_engine_push(e, &ev);
    push_text(e, idx);
}

/* Held-back text and DONE, or ERROR: at most two records, since what is held back
 * is shorter than a stop string and an unfinished character. */
static void push_ending(struct cts_engine *e, uint32_t idx)
{
    struct cts_run         *run = &e->requests.runs[idx];
    struct cts_engine_event ev = event_of(e, run->end_code == 0 ? CTS_EV_DONE : CTS_EV_ERROR, idx);

    ev.code = run->end_code;
    ev.finish = run->end_code == 0 ? run->end_finish : 0;
    ev.n_prompt = e->requests.at[idx].n_prompt;
    ev.n_tokens = run->n_out;
    if (run->end_code == 0 && e->requests.at[idx].want_text) push_text(e, idx);
    run->state = CTS_RUN_NONE; /* before the push: from then on the loop may give the object out again */
    cts_engine_push(e, &ev);
}

_Static_assert(CTS_STOP_STRING_BYTES_MAX + 3 <= CTS_EVENT_TEXT_BYTES, "held-back text is one record");
#define EVENTS_PER_ENDING 2u

uint32_t cts_engine_push_endings(struct cts_engine *e)
{
    uint32_t n = 0;

    while (n < e->n_ending && e->room >= EVENTS_PER_ENDING) push_ending(e, e->ending[n++]);
    e->n_ending -= n;
    memmove(e->ending, e->ending + n, e->n_ending * sizeof(*e->ending));
    return e->n_ending;
}
