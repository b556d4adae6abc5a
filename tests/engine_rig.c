#include "tests/engine_rig.h"

#include "common/utf8.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct cts_engine_opts rig_opts(void)
{
    static char base[512];

    return (struct cts_engine_opts){ .base_dir = src_path(base, sizeof(base), "contrib/demo/base"),
                                     .backend = "cpu",
                                     .n_threads = 1,
                                     .n_requests_max = 256,
                                     .n_rows_max = 256,
                                     .n_seqs_max = 64,
                                     .prefill_chunk_rows = 32,
                                     .page_tokens = 16,
                                     .n_pages = 1024,
                                     .n_exact_max = 64,
                                     .rank_max = 16 };
}

static void on_events(void *arg)
{
    cts_bell_ring(&((struct rig *)arg)->bell);
}

void rig_open(struct rig *rig, const struct cts_engine_opts *o)
{
    struct cts_engine_opts opts = *o;
    struct cts_err         err = { 0 };
    int                    rc;

    *rig = (struct rig){ 0 };
    opts.on_events = on_events;
    opts.on_events_arg = rig;
    rc = cts_engine_open(&rig->e, &opts, &err);
    CHECK_MSG(rc == 0, "%s\n", err.text);
}

void rig_close(struct rig *rig)
{
    cts_engine_close(rig->e);
    rig->e = NULL;
}

struct cts_engine_request *rig_request(struct rig *rig, struct answer *a, const struct golden_row *r)
{
    struct cts_engine_request *req = cts_request_new(rig->e);

    CHECK(req != NULL);
    memset(a, 0, sizeof(*a));
    a->req = req;
    req->tag = (uint64_t)(uintptr_t)a;
    req->n_prompt = r->n_prompt;
    memcpy(req->prompt, r->prompt, r->n_prompt * sizeof(*r->prompt));
    req->max_tokens = r->n_tokens;
    req->n_logprobs = GOLDEN_TOP;
    req->want_text = 1;
    return req;
}

void rig_admit(struct rig *rig, struct cts_engine_request *req)
{
    struct cts_err err = { 0 };
    int            rc;

    while ((rc = cts_engine_admit(rig->e, req, &err)) == CTS_EBUSY) {
        uint32_t ticket = cts_bell_ticket(&rig->bell);

        cts_engine_kick(rig->e);
        if (rig_take(rig) == 0) cts_bell_sleep(&rig->bell, ticket, 1000000);
    }
    CHECK_MSG(rc == 0, "%s\n", err.text);
    rig->n_live++;
}

static void take_token(struct answer *a, const struct cts_engine_event *ev)
{
    uint32_t i = a->n_tokens++;

    CHECK(i < RIG_TOKENS_MAX && ev->index == i);
    a->tokens[i] = ev->token;
    a->logprobs[i] = ev->logprob;
    a->n_top[i] = ev->n_top;
    for (uint32_t k = 0; k < ev->n_top; k++) {
        a->top_ids[i][k] = ev->top[k].id;
        a->top_logprobs[i][k] = ev->top[k].logprob;
    }
}

static void take_event(struct rig *rig, const struct cts_engine_event *ev)
{
    struct answer *a = (struct answer *)(uintptr_t)ev->tag;

    if (ev->type == CTS_EV_ADAPTER) {
        rig->adapter_tag = ev->tag;
        rig->adapter_code = ev->code;
        rig->n_adapter_events++;
        return;
    }
    CHECK(!a->is_over); /* nothing follows the last event */
    CHECK(a->req->idx == ev->req_idx);
    if (ev->type == CTS_EV_TOKEN) take_token(a, ev);
    CHECK(a->text_bytes + ev->text_bytes < RIG_TEXT_BYTES);
    CHECK(cts_utf8_is_valid(ev->text, ev->text_bytes)); /* whole characters, in every record */
    memcpy(a->text + a->text_bytes, ev->text, ev->text_bytes);
    a->text_bytes += ev->text_bytes;
    if (ev->type != CTS_EV_DONE && ev->type != CTS_EV_ERROR) return;
    a->is_over = 1;
    a->finish = ev->finish;
    a->code = ev->code;
    a->done_n_prompt = ev->n_prompt;
    a->done_n_tokens = ev->n_tokens;
    cts_request_free(rig->e, a->req);
    a->req = NULL;
    rig->n_live--;
}

uint32_t rig_take(struct rig *rig)
{
    struct cts_engine_event ev;
    uint32_t                n = 0;

    for (; cts_engine_next(rig->e, &ev); n++) take_event(rig, &ev);
    return n;
}

void rig_wait(struct rig *rig, uint32_t n)
{
    cts_engine_kick(rig->e);
    for (;;) {
        uint32_t ticket = cts_bell_ticket(&rig->bell);

        rig_take(rig);
        if (rig->n_live <= n) return;
        cts_bell_sleep(&rig->bell, ticket, UINT64_MAX);
    }
}

/* Wait for the answer to a load or an unload. */
static int32_t wait_for_adapter(struct rig *rig, uint32_t n_before)
{
    cts_engine_kick(rig->e);
    for (;;) {
        uint32_t ticket = cts_bell_ticket(&rig->bell);

        rig_take(rig);
        if (rig->n_adapter_events > n_before) return rig->adapter_code;
        cts_bell_sleep(&rig->bell, ticket, UINT64_MAX);
    }
}

uint32_t rig_load(struct rig *rig, const char *dir)
{
    char            path[512];
    struct cts_peft peft = { 0 };
    struct cts_err  err = { 0 };
    uint32_t        idx, n_before = rig->n_adapter_events;

    if (dir[0] != '/') dir = src_path(path, sizeof(path), dir);
    CHECK_MSG(cts_peft_read(&peft, dir, cts_engine_model(rig->e), cts_engine_base_digest(rig->e), &err) == 0, "%s\n",
              err.text);
    CHECK(cts_engine_exact_idx(rig->e, &idx) == 0);
    CHECK(cts_engine_load(rig->e, idx, &peft, 77) == 0);
    CHECK(wait_for_adapter(rig, n_before) == 0);
    CHECK(rig->adapter_tag == 77);
    cts_peft_free(&peft);
    return idx;
}

void rig_unload(struct rig *rig, uint32_t adapter_idx)
{
    uint32_t n_before = rig->n_adapter_events;

    CHECK(cts_engine_unload(rig->e, adapter_idx, 78) == 0);
    CHECK(wait_for_adapter(rig, n_before) == 0);
    CHECK(rig->adapter_tag == 78);
}

static int is_name(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

uint32_t rig_load_all(struct rig *rig, const char *folder, char names[][64], uint32_t *idx, uint32_t cap)
{
    char            path[512], dir[1024];
    struct dirent **list;
    int             n;

    if (folder[0] != '/') folder = src_path(path, sizeof(path), folder);
    n = scandir(folder, &list, is_name, alphasort);
    CHECK(n > 0 && (uint32_t)n <= cap);
    for (int i = 0; i < n; i++) {
        CHECK(snprintf(names[i], 64, "%s", list[i]->d_name) < 64);
        snprintf(dir, sizeof(dir), "%s/%s", folder, list[i]->d_name);
        idx[i] = rig_load(rig, dir);
        free(list[i]);
    }
    free(list);
    return (uint32_t)n;
}

const char *answer_differs(const struct answer *a, const struct golden_row *r)
{
    static char what[256];

    if (!a->is_over || a->code != 0) {
        snprintf(what, sizeof(what), "over %d, code %d", a->is_over, a->code);
        return what;
    }
    for (uint32_t i = 0; i < a->n_tokens; i++) {
        const char *differs =
            golden_compare(r, i, a->tokens[i], a->logprobs[i], a->top_ids[i], a->top_logprobs[i], a->n_top[i]);
        if (differs != NULL) return differs;
    }
    if (a->n_tokens != r->n_tokens || a->done_n_tokens != r->n_tokens || a->done_n_prompt != r->n_prompt) {
        snprintf(what, sizeof(what), "%u tokens, wanted %u", a->n_tokens, r->n_tokens);
        return what;
    }
    if (strcmp(a->text, r->text) != 0) {
        snprintf(what, sizeof(what), "text '%.80s', wanted '%.80s'", a->text, r->text);
        return what;
    }
    return NULL;
}
