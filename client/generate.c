/* One request, start to end. */
#include "client/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The answer's arrays grow by doubling; these are their capacities. */
struct room {
    size_t text_bytes, n_tokens;
};

static int grow(void *list, size_t *cap, size_t need, size_t entry_bytes)
{
    void **at = list, *bigger;
    size_t n = *cap == 0 ? 64 : *cap;

    if (need <= *cap) return 0;
    while (n < need) n *= 2;
    bigger = realloc(*at, n * entry_bytes); /* the daemon bounds an answer far below an overflow */
    if (bigger == NULL) return -ENOMEM;
    *at = bigger;
    *cap = n;
    return 0;
}

static int add(struct cts_answer *a, struct room *room, const struct cts_event *ev)
{
    size_t n_ids = room->n_tokens, n_logprobs = room->n_tokens, n = (size_t)a->n_tokens + ev->n_tokens;

    if (grow(&a->ids, &n_ids, n, sizeof(*a->ids)) != 0) return -ENOMEM;
    if (ev->logprobs != NULL && grow(&a->logprobs, &n_logprobs, n, sizeof(*a->logprobs)) != 0) return -ENOMEM;
    room->n_tokens = n_ids;
    if (grow(&a->text, &room->text_bytes, a->text_bytes + ev->text_bytes + 1, 1) != 0) return -ENOMEM;
    if (ev->n_tokens > 0) memcpy(a->ids + a->n_tokens, ev->ids, ev->n_tokens * sizeof(*a->ids));
    if (ev->logprobs != NULL) memcpy(a->logprobs + a->n_tokens, ev->logprobs, ev->n_tokens * sizeof(*a->logprobs));
    memcpy(a->text + a->text_bytes, ev->text, ev->text_bytes);
    a->n_tokens += ev->n_tokens;
    a->text_bytes += ev->text_bytes;
    a->text[a->text_bytes] = '\0';
    return 0;
}

static int finish(cts *c, struct cts_answer *a, const struct cts_event *ev)
{
    static const struct cts_event NOTHING = { .text = "" };
    struct room                   room = { 0, 0 };

    if (ev->type == CTS_EVENT_ERROR) return cts_handle_say(c, ev->code, "%s", ev->message);
    a->finish = ev->finish;
    a->n_prompt = ev->n_prompt;
    return a->text == NULL ? add(a, &room, &NOTHING) : 0; /* an empty answer is a text too */
}

/* Events until the last; without memory the request is cancelled, and its rest
 * passed over, so that the handle is free again. */
static int follow(cts *c, uint64_t request, struct cts_answer *a)
{
    struct room      room = { 0, 0 };
    struct cts_event ev;
    int              rc, failure = 0;

    for (;;) {
        rc = cts_next(c, &ev, UINT64_MAX);
        if (rc == -EINTR) continue;
        if (rc < 0) return rc;
        if (ev.is_last) return failure != 0 ? failure : finish(c, a, &ev);
        if (ev.type != CTS_EVENT_TOKENS || failure != 0) continue;
        failure = add(a, &room, &ev);
        if (failure != 0) (void)cts_cancel(c, request);
    }
}

int cts_generate(cts *c, const struct cts_request *r, struct cts_answer *answer)
{
    uint64_t request;
    int      rc;

    *answer = (struct cts_answer){ .text = NULL };
    if (c->rc != 0) return c->rc;
    if (c->n_live > 0) return cts_handle_say(c, -EBUSY, "other requests of this handle are live");
    rc = cts_submit(c, r, &request);
    if (rc == 0) rc = follow(c, request, answer);
    if (rc != 0) cts_answer_free(answer);
    return rc;
}

void cts_answer_free(struct cts_answer *answer)
{
    if (answer == NULL) return;
    free(answer->text);
    free(answer->ids);
    free(answer->logprobs);
    *answer = (struct cts_answer){ .text = NULL };
}
