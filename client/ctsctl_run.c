/* ctsctl run: one request, printed as it comes or as one JSON object. */
#include "client/ctsctl.h"

#include "client/cts.h"
#include "common/buf.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROMPT_BYTES_MAX (4u << 20)
#define POLL_NS          100000000u /* how soon Ctrl-C is noticed */

static volatile sig_atomic_t is_interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    is_interrupted = 1;
}

/* What came for one request. */
struct answer {
    json_t        *tokens, *logprobs, *top;
    struct cts_buf text;
    size_t         n_printed; /* bytes that went out at once instead */
};

/* All of standard input as text; one line end at its end is the shell's, not the prompt's. */
static int read_stdin(struct ctsctl *t, struct cts_buf *out)
{
    if (isatty(STDIN_FILENO) == 1) fputs("ctsctl: reading the prompt; end it with Ctrl-D\n", stderr);
    for (;;) {
        ssize_t n;

        if (cts_buf_reserve(out, 65536) != 0)
            return ctsctl_fail(t, -EMSGSIZE, "the prompt has more than %u bytes", PROMPT_BYTES_MAX);
        n = read(STDIN_FILENO, out->ptr + out->len, 65536);
        if (n < 0 && errno == EINTR && !is_interrupted) continue;
        if (n < 0) return ctsctl_fail(t, -errno, "read standard input: %s", strerror(errno));
        if (n == 0) break;
        out->len += (size_t)n;
    }
    if (out->len > 0 && out->ptr[out->len - 1] == '\n') out->len--;
    if (memchr(out->ptr, '\0', out->len) != NULL) return ctsctl_fail(t, CTS_EARG, "the prompt has a zero byte");
    return cts_buf_put(out, "", 1) == 0 ? 0 : ctsctl_fail(t, -ENOMEM, "read standard input");
}

/* Whether the base has a chat template; 0 when the daemon does not say. */
static int has_chat(struct ctsctl *t, int *out)
{
    struct cts_mp result, base, v;
    int           rc = ctsctl_call(t, "status", &result);

    *out = 0;
    if (rc != 0) return rc;
    if (!cts_mp_find(result, "base", &base) || !cts_mp_find(base, "chat", &v)) return 0;
    if (cts_mp_type(&v) == CTS_MP_STR) *out = 1;
    else (void)cts_mp_bool(&v, out);
    return 0;
}

/* The sampling options into r; stop strings into stop [n_stop_max]. */
static int read_options(const struct ctsctl *t, struct cts_request *r, const char **stop)
{
    int64_t max_tokens = 0, seed, logprobs = t->is_json ? 0 : -1;
    int     rc[6];

    rc[0] = ctsctl_int(t, "max-tokens", 1, INT32_MAX, &max_tokens);
    rc[1] = ctsctl_int(t, "top-k", 0, INT32_MAX, &r->top_k);
    rc[2] = ctsctl_int(t, "seed", 0, INT64_MAX, &seed);
    rc[3] = ctsctl_int(t, "logprobs", 0, 20, &logprobs);
    rc[4] = ctsctl_real(t, "temperature", 0, 100, &r->temperature);
    rc[5] = ctsctl_real(t, "top-p", 0, 1, &r->top_p);
    for (int i = 0; i < 6; i++)
        if (rc[i] < 0) return CTSCTL_USAGE;
    r->max_tokens = (uint32_t)max_tokens;
    r->logprobs = (int)logprobs;
    if (rc[2] > 0) {
        r->seed = (uint64_t)seed;
        r->has_seed = 1;
    }
    r->stop = stop;
    for (uint32_t i = 0; i < t->n_values; i++)
        if (strcmp(t->values[i].name, "stop") == 0) stop[r->n_stop++] = t->values[i].value;
    return 0;
}

static void add_tokens(struct answer *a, const struct cts_event *ev)
{
    for (uint32_t i = 0; i < ev->n_tokens; i++) {
        json_t *best;

        json_array_append_new(a->tokens, json_integer(ev->ids[i]));
        if (ev->logprobs != NULL) json_array_append_new(a->logprobs, json_real((double)ev->logprobs[i]));
        if (ev->n_top == 0) continue;
        best = json_array();
        for (uint32_t k = 0; k < ev->n_top; k++) {
            const struct cts_top *p = &ev->top[i * ev->n_top + k];

            json_array_append_new(best, json_pack("[i, f]", (int)p->id, (double)p->logprob));
        }
        json_array_append_new(a->top, best);
    }
    (void)cts_buf_put(&a->text, ev->text, ev->text_bytes); /* the daemon bounds an answer far below the limit */
}

static const char *finish_name(enum cts_finish_reason finish)
{
    static const char *const NAMES[] = { "unknown", "stop", "length", "stop-string", "cancelled" };

    return NAMES[finish < sizeof(NAMES) / sizeof(NAMES[0]) ? finish : 0];
}

static json_t *answer_json(const struct cts_request *r, const struct cts_adapter_info *who, const struct answer *a,
                           const struct cts_event *done)
{
    json_t *doc = json_pack("{s:s?, s:s, s:s, s:O, s:s%, s:O, s:s, s:i, s:i}", "adapter", r->adapter, "kind",
                            who->kind, "digest", who->digest, "tokens", a->tokens, "text",
                            a->text.len > 0 ? (const char *)a->text.ptr : "", a->text.len, "logprobs",
                            a->logprobs, "finish", finish_name(done->finish), "n_prompt", (int)done->n_prompt,
                            "n_tokens", (int)done->n_generated);

    if (doc != NULL && json_array_size(a->top) > 0) json_object_set(doc, "top", a->top);
    return doc;
}

static int finish(struct ctsctl *t, const struct cts_request *r, const struct cts_adapter_info *who, struct answer *a,
                  const struct cts_event *ev)
{
    if (ev->type == CTS_EVENT_ERROR) {
        if (!t->is_json && a->n_printed > 0) putchar('\n');
        return ctsctl_fail(t, ev->code, "%s", ev->message);
    }
    if (t->is_json) return ctsctl_print_json(t, answer_json(r, who, a, ev));
    putchar('\n');
    return CTSCTL_OK;
}

/* Take events until the last one. Ctrl-C cancels once and still waits for it. */
static int follow(struct ctsctl *t, cts *c, uint64_t request, const struct cts_request *r,
                  const struct cts_adapter_info *who, struct answer *a)
{
    int was_interrupted = 0;

    for (;;) {
        struct cts_event ev;
        int              rc = cts_next(c, &ev, POLL_NS);

        if (rc < 0 && rc != -EINTR) return ctsctl_fail(t, rc, "%s", cts_last_message(c));
        if (is_interrupted && !was_interrupted) {
            was_interrupted = 1;
            (void)cts_cancel(c, request); /* a full ring: the last event comes by itself, later */
        }
        if (rc <= 0) continue;
        if (ev.is_last) {
            rc = finish(t, r, who, a, &ev);
            return was_interrupted ? CTSCTL_INTERRUPTED : rc;
        }
        if (ev.type != CTS_EVENT_TOKENS) continue;
        if (t->is_json) {
            add_tokens(a, &ev);
        } else {
            a->n_printed += ev.text_bytes;
            fwrite(ev.text, 1, ev.text_bytes, stdout);
            fflush(stdout);
        }
    }
}

static int ask(struct ctsctl *t, cts *c, const struct cts_request *r)
{
    struct answer           a = { json_array(), json_array(), json_array(), CTS_BUF(64u << 20), 0 };
    struct cts_adapter_info who;
    uint64_t                request;
    int                     rc = cts_resolve(c, r->adapter, &who);

    if (rc == 0) rc = cts_submit(c, r, &request);
    if (rc != 0) rc = ctsctl_fail(t, rc, "%s", cts_last_message(c));
    else rc = follow(t, c, request, r, &who, &a);
    json_decref(a.tokens);
    json_decref(a.logprobs);
    json_decref(a.top);
    cts_buf_deinit(&a.text);
    return rc;
}

/* PROMPT into r: as it is, or as the user's message after the system's. */
static int set_input(struct ctsctl *t, struct cts_request *r, const char *prompt, struct cts_message messages[2])
{
    const char *system_text = ctsctl_value(t, "system");
    int         is_chat = ctsctl_value(t, "chat") != NULL, is_raw = ctsctl_value(t, "raw") != NULL, rc;

    if (is_chat && is_raw) return ctsctl_usage(t, "--chat and --raw exclude each other");
    if (is_raw && system_text != NULL) return ctsctl_usage(t, "--raw takes no --system message");
    if (!is_chat && !is_raw) {
        rc = has_chat(t, &is_chat);
        if (rc != 0) return rc;
        is_chat = is_chat || system_text != NULL;
    }
    if (!is_chat) {
        r->prompt = prompt;
        return 0;
    }
    if (system_text != NULL) messages[r->n_messages++] = (struct cts_message){ "system", system_text };
    messages[r->n_messages++] = (struct cts_message){ "user", prompt };
    r->messages = messages;
    return 0;
}

/* NAME and PROMPT from the arguments; a missing PROMPT is read like -. */
static int take_args(struct ctsctl *t, struct cts_request *r, const char **prompt, struct cts_buf *input)
{
    int      is_base = ctsctl_value(t, "base") != NULL;
    uint32_t at = is_base ? 0 : 1;
    int      rc;

    if (!is_base && t->n_args == 0) return ctsctl_usage(t, "run needs the NAME of an adapter, or --base");
    if (is_base && t->n_args == 2) return ctsctl_usage(t, "with --base the only argument is PROMPT");
    r->adapter = is_base ? NULL : t->args[0];
    *prompt = at < t->n_args ? t->args[at] : "-";
    if (strcmp(*prompt, "-") != 0) return 0;
    rc = read_stdin(t, input);
    *prompt = (const char *)input->ptr;
    return rc;
}

int ctsctl_run(struct ctsctl *t)
{
    struct sigaction   sa = { .sa_handler = on_interrupt };
    struct cts_request r = CTS_REQUEST_INIT;
    struct cts_options o = CTS_OPTIONS_INIT;
    struct cts_message messages[2];
    struct cts_buf     input = CTS_BUF(PROMPT_BYTES_MAX + 65536);
    const char        *stop[CTSCTL_VALUES_MAX], *prompt = NULL;
    char               message[512] = "";
    cts               *c = NULL;
    int                rc = read_options(t, &r, stop);

    if (rc == 0) rc = take_args(t, &r, &prompt, &input);
    if (rc == 0) rc = set_input(t, &r, prompt, messages);
    if (rc == 0) {
        o.socket = t->socket;
        rc = cts_open(&c, &o, message, sizeof(message));
        if (rc != 0) rc = ctsctl_fail_open(t, rc, message);
    }
    if (rc == 0) {
        sigaction(SIGINT, &sa, NULL);
        rc = ask(t, c, &r);
    }
    cts_close(c);
    cts_buf_deinit(&input);
    return rc;
}
