/* ctsctl eval: ask many adapters at once, through one handle, and count the
 * answers that are right to the letter. */
#include "client/ctsctl.h"

#include "client/cts.h"
#include "client/eval_file.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONCURRENCY_DEFAULT 64
#define CONCURRENCY_MAX     1024
#define MAX_TOKENS_DEFAULT  128
#define ANSWER_BYTES_MAX    (1u << 20)
#define RETRY_MS_DEFAULT    50

/* A request in flight. */
struct flight {
    uint64_t       request; /* 0: free; the library counts from above 0 */
    uint32_t       question_idx;
    struct cts_buf text; /* kept from one request to the next */
};

struct eval {
    struct ctsctl       *ctl;
    cts                 *c;
    struct cts_questions q;
    char               **names;   /* [n_adapters], as the daemon knows them */
    char               **answers; /* [q.n], NULL before; kept for the table only */
    uint8_t             *is_right; /* [q.n] */
    uint32_t            *again;   /* [n_again], questions that the daemon was too busy for */
    struct flight       *flights; /* [n_flights] */
    uint32_t             n_flights, n_live, n_next, n_again, n_done, n_right, max_tokens;
    uint64_t             retry_ns; /* nothing is submitted before */
    uint64_t             n_tokens, n_prompt_tokens, elapsed_ns;
    int                  is_table;
};

/* ---- asking ---- */

static int submit(struct eval *e, uint32_t question_idx, struct flight *f)
{
    const struct cts_question *q = &e->q.list[question_idx];
    struct cts_message         m = { "user", q->input };
    struct cts_request         r = CTS_REQUEST_INIT;
    int                        rc;

    r.adapter = e->names[q->adapter_idx];
    r.messages = &m;
    r.n_messages = 1;
    r.temperature = 0;
    r.max_tokens = e->max_tokens;
    rc = cts_submit(e->c, &r, &f->request);
    if (rc != 0) {
        f->request = 0;
        return rc;
    }
    f->question_idx = question_idx;
    f->text.len = 0;
    e->n_live++;
    return 0;
}

/* Fill the free flights. -EAGAIN of the library means that events must be taken
 * first, which only helps while something is in flight. */
static int fill(struct eval *e)
{
    if (e->retry_ns != 0 && cts_clock_ns() < e->retry_ns) return 0;
    e->retry_ns = 0;
    for (uint32_t i = 0; i < e->n_flights && (e->n_again > 0 || e->n_next < e->q.n); i++) {
        uint32_t idx = e->n_again > 0 ? e->again[e->n_again - 1] : e->n_next;
        int      rc;

        if (e->flights[i].request != 0) continue;
        rc = submit(e, idx, &e->flights[i]);
        if (rc == -EAGAIN && e->n_live > 0) return 0;
        if (rc != 0)
            return ctsctl_fail(e->ctl, rc, "adapter '%s': %s", e->names[e->q.list[idx].adapter_idx],
                               cts_last_message(e->c));
        if (e->n_again > 0) e->n_again--;
        else e->n_next++;
    }
    return 0;
}

static struct flight *find_flight(struct eval *e, uint64_t request)
{
    for (uint32_t i = 0; i < e->n_flights; i++)
        if (e->flights[i].request == request) return &e->flights[i];
    return NULL;
}

static int take_answer(struct eval *e, struct flight *f, const struct cts_event *ev)
{
    const char *right = e->q.list[f->question_idx].output;
    size_t      n = strlen(right);

    e->is_right[f->question_idx] =
        f->text.len == n && memcmp(f->text.ptr != NULL ? (const char *)f->text.ptr : "", right, n) == 0;
    e->n_right += e->is_right[f->question_idx];
    e->n_tokens += ev->n_generated;
    e->n_prompt_tokens += ev->n_prompt;
    e->n_done++;
    if (!e->is_table) return 0;
    e->answers[f->question_idx] = strndup(f->text.ptr != NULL ? (const char *)f->text.ptr : "", f->text.len);
    return e->answers[f->question_idx] != NULL ? 0 : ctsctl_fail(e->ctl, -ENOMEM, "keep the answers");
}

/* A request ended in an error: a busy daemon is asked again, anything else ends
 * the whole, since a count over part of the questions would mislead. */
static int take_error(struct eval *e, const struct flight *f, const struct cts_event *ev)
{
    if (ev->code == CTS_ERROR_BUSY) {
        e->again[e->n_again++] = f->question_idx;
        e->retry_ns = cts_clock_ns() + (uint64_t)(ev->retry_ms != 0 ? ev->retry_ms : RETRY_MS_DEFAULT) * 1000000;
        return 0;
    }
    return ctsctl_fail(e->ctl, ev->code, "adapter '%s': %s", e->names[e->q.list[f->question_idx].adapter_idx],
                       ev->message);
}

static int take_event(struct eval *e, const struct cts_event *ev)
{
    struct flight *f = find_flight(e, ev->request);
    int            rc = 0;

    if (f == NULL) return 0;
    if (ev->type == CTS_EVENT_TOKENS && cts_buf_put(&f->text, ev->text, ev->text_bytes) != 0)
        return ctsctl_fail(e->ctl, -EMSGSIZE, "an answer has more than %u bytes", ANSWER_BYTES_MAX);
    if (!ev->is_last) return 0;
    rc = ev->type == CTS_EVENT_DONE ? take_answer(e, f, ev) : take_error(e, f, ev);
    f->request = 0;
    e->n_live--;
    return rc;
}

static int ask_all(struct eval *e)
{
    struct cts_progress p;
    uint64_t            start_ns = cts_clock_ns();
    int                 rc = 0;

    cts_progress_start(&p, "asking", e->q.n);
    while (rc == 0 && e->n_done < e->q.n) {
        struct cts_event ev;
        char             note[64];
        int              got;

        rc = fill(e);
        if (rc != 0) break;
        got = cts_next(e->c, &ev, e->retry_ns != 0 ? 10000000u : UINT64_MAX);
        if (got < 0 && got != -EINTR) rc = ctsctl_fail(e->ctl, got, "%s", cts_last_message(e->c));
        else if (got > 0) rc = take_event(e, &ev);
        snprintf(note, sizeof(note), "%u right", e->n_right);
        cts_progress_update(&p, e->n_done, note);
    }
    cts_progress_end(&p);
    e->elapsed_ns = cts_clock_ns() - start_ns;
    return rc;
}

/* ---- the report ---- */

struct score {
    uint32_t n_right, n;
};

static struct score score_of(const struct eval *e, uint32_t adapter_idx)
{
    struct score s = { 0, 0 };

    for (uint32_t i = 0; i < e->q.n; i++) {
        if (e->q.list[i].adapter_idx != adapter_idx) continue;
        s.n++;
        s.n_right += e->is_right[i];
    }
    return s;
}

static double share(struct score s)
{
    return (double)s.n_right / (double)s.n;
}

/* The mean over adapters, and the worst of them. */
static double mean_score(const struct eval *e, uint32_t *worst_idx)
{
    double sum = 0, lowest = 2;

    for (uint32_t a = 0; a < e->q.n_adapters; a++) {
        double v = share(score_of(e, a));

        sum += v;
        if (v >= lowest) continue;
        lowest = v;
        *worst_idx = a;
    }
    return sum / e->q.n_adapters;
}

static double tokens_per_second(const struct eval *e)
{
    return e->elapsed_ns > 0 ? (double)e->n_tokens * 1e9 / (double)e->elapsed_ns : 0;
}

static int print_answers(const struct eval *e)
{
    static const char *const HEADS[] = { "ADAPTER", "ANSWER", "RIGHT ANSWER", "OK" };
    struct ctsctl_table      table = { .heads = HEADS, .n_cols = 4 };
    int                      rc;

    for (uint32_t i = 0; i < e->q.n; i++) {
        ctsctl_table_add(&table, e->names[e->q.list[i].adapter_idx]);
        ctsctl_table_add(&table, e->answers[i]);
        ctsctl_table_add(&table, e->q.list[i].output);
        ctsctl_table_add(&table, e->is_right[i] ? "✓" : "✗");
    }
    rc = ctsctl_table_end(&table);
    if (rc != 0) return ctsctl_fail(e->ctl, rc, "print the table");
    putchar('\n');
    return 0;
}

static void print_summary(const struct eval *e)
{
    uint32_t     worst_idx = 0;
    double       mean = mean_score(e, &worst_idx);
    struct score worst = score_of(e, worst_idx);

    printf("right answers  %u of %u (%.2f %%)\n", e->n_right, e->q.n, 100.0 * e->n_right / e->q.n);
    printf("adapters       %u, mean %.2f %%, worst %.2f %% (%s, %u of %u)\n", e->q.n_adapters, 100 * mean,
           100 * share(worst), e->names[worst_idx], worst.n_right, worst.n);
    printf("tokens         %llu in %.2f s, %.0f per second\n", (unsigned long long)e->n_tokens,
           (double)e->elapsed_ns * 1e-9, tokens_per_second(e));
}

static json_t *adapters_json(const struct eval *e)
{
    json_t *list = json_array();

    for (uint32_t a = 0; a < e->q.n_adapters; a++) {
        struct score s = score_of(e, a);

        json_array_append_new(list, json_pack("{s:s, s:i, s:i}", "adapter", e->names[a], "right",
                                              (int)s.n_right, "total", (int)s.n));
    }
    return list;
}

static json_t *answers_json(const struct eval *e)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < e->q.n; i++) {
        const struct cts_question *q = &e->q.list[i];

        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s, s:b}", "adapter", e->names[q->adapter_idx],
                                        "input", q->input, "answer", e->answers[i], "output", q->output,
                                        "is_right", e->is_right[i]));
    }
    return list;
}

/* The totals come first, so that line-minded readers find them there. */
static json_t *report_json(const struct eval *e)
{
    uint32_t     worst_idx = 0;
    double       mean = mean_score(e, &worst_idx);
    struct score worst = score_of(e, worst_idx);
    json_t      *doc =
        json_pack("{s:i, s:i, s:i, s:f, s:f, s:s, s:I, s:I, s:f, s:f, s:o}", "right", (int)e->n_right,
                  "total", (int)e->q.n, "n_adapters", (int)e->q.n_adapters, "mean", mean, "worst",
                  share(worst), "worst_adapter", e->names[worst_idx], "tokens", (json_int_t)e->n_tokens,
                  "prompt_tokens", (json_int_t)e->n_prompt_tokens, "seconds", (double)e->elapsed_ns * 1e-9,
                  "tokens_per_second", tokens_per_second(e), "adapters", adapters_json(e));

    if (doc != NULL && e->is_table) json_object_set_new(doc, "answers", answers_json(e));
    return doc;
}

static int is_stdout(const struct ctsctl *t)
{
    const char *path = ctsctl_value(t, "json");

    return path != NULL && (path[0] == '\0' || strcmp(path, "-") == 0);
}

static int report(struct eval *e)
{
    const char    *path = ctsctl_value(e->ctl, "json");
    struct cts_err err = { 0 };
    json_t        *doc;
    int            rc = 0;

    if (e->ctl->is_json) return ctsctl_print_json(e->ctl, report_json(e));
    if (e->is_table) rc = print_answers(e);
    if (rc != 0) return rc;
    print_summary(e);
    if (path == NULL) return CTSCTL_OK;
    doc = report_json(e);
    rc = doc != NULL ? cts_json_save(doc, path, &err) : cts_err_set(&err, -ENOMEM, "build the report");
    json_decref(doc);
    return rc == 0 ? CTSCTL_OK : ctsctl_fail(e->ctl, rc, "%s", err.text);
}

/* ---- set-up ---- */

/* Ask for every name once, before the clock runs: so all requests can be
 * submitted together and meet in one batch, and a missing adapter is told first. */
static int resolve_names(struct eval *e)
{
    const char *suffix = ctsctl_value(e->ctl, "suffix");

    for (uint32_t a = 0; a < e->q.n_adapters; a++) {
        struct cts_adapter_info who;
        int                     rc;

        if (asprintf(&e->names[a], "%s%s", e->q.adapters[a], suffix != NULL ? suffix : "") < 0) {
            e->names[a] = NULL;
            return ctsctl_fail(e->ctl, -ENOMEM, "list the adapters");
        }
        rc = cts_resolve(e->c, e->names[a], &who);
        if (rc != 0) return ctsctl_fail(e->ctl, rc, "adapter '%s': %s", e->names[a], cts_last_message(e->c));
    }
    return 0;
}

static int prepare(struct eval *e, int64_t concurrency)
{
    e->n_flights = concurrency < e->q.n ? (uint32_t)concurrency : e->q.n;
    e->names = calloc(e->q.n_adapters, sizeof(*e->names));
    e->answers = calloc(e->q.n, sizeof(*e->answers));
    e->is_right = calloc(e->q.n, sizeof(*e->is_right));
    e->again = calloc(e->n_flights, sizeof(*e->again));
    e->flights = calloc(e->n_flights, sizeof(*e->flights));
    if (e->names == NULL || e->answers == NULL || e->is_right == NULL || e->again == NULL || e->flights == NULL)
        return ctsctl_fail(e->ctl, -ENOMEM, "keep %u questions", e->q.n);
    for (uint32_t i = 0; i < e->n_flights; i++) e->flights[i].text = CTS_BUF(ANSWER_BYTES_MAX);
    return resolve_names(e);
}

static void release(struct eval *e)
{
    cts_close(e->c);
    for (uint32_t a = 0; e->names != NULL && a < e->q.n_adapters; a++) free(e->names[a]);
    for (uint32_t i = 0; e->answers != NULL && i < e->q.n; i++) free(e->answers[i]);
    for (uint32_t i = 0; e->flights != NULL && i < e->n_flights; i++) cts_buf_deinit(&e->flights[i].text);
    free(e->names);
    free(e->answers);
    free(e->is_right);
    free(e->again);
    free(e->flights);
    cts_questions_close(&e->q);
}

static int open_handle(struct eval *e)
{
    struct cts_options o = CTS_OPTIONS_INIT;
    char               message[512] = "";
    int                rc;

    o.socket = e->ctl->socket;
    o.n_records = CONCURRENCY_MAX;
    rc = cts_open(&e->c, &o, message, sizeof(message));
    return rc == 0 ? 0 : ctsctl_fail_open(e->ctl, rc, message);
}

int ctsctl_eval(struct ctsctl *t)
{
    int64_t n_limit = 0, n_prompts = 0, concurrency = CONCURRENCY_DEFAULT, max_tokens = MAX_TOKENS_DEFAULT;
    struct cts_questions_opts o = { .adapters = ctsctl_value(t, "adapters") };
    struct eval               e = { .ctl = t, .is_table = ctsctl_value(t, "table") != NULL };
    struct cts_err            err = { 0 };
    int                       rc;

    if (ctsctl_int(t, "limit", 1, UINT32_MAX, &n_limit) < 0 ||
        ctsctl_int(t, "prompts", 1, UINT32_MAX, &n_prompts) < 0 ||
        ctsctl_int(t, "concurrency", 1, CONCURRENCY_MAX, &concurrency) < 0 ||
        ctsctl_int(t, "max-tokens", 1, INT32_MAX, &max_tokens) < 0)
        return CTSCTL_USAGE;
    t->is_json = is_stdout(t); /* --json FILE writes there, and errors are for a person */
    o.n_per_adapter_max = (uint32_t)n_limit;
    o.n_prompts_max = (uint32_t)n_prompts;
    e.max_tokens = (uint32_t)max_tokens;
    rc = cts_questions_open(&e.q, t->args[0], &o, &err);
    if (rc != 0) return ctsctl_fail(t, rc, "%s", err.text);
    rc = open_handle(&e);
    if (rc == 0) rc = prepare(&e, concurrency);
    if (rc == 0) rc = ask_all(&e);
    if (rc == 0) rc = report(&e);
    release(&e);
    return rc;
}
