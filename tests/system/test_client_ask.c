/* libcts against the real ctsd, with four of the demo's adapters as they are. */
#include "client/cts.h"

#include "client/conn.h"
#include "tests/check.h"
#include "tests/system/ctsd.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static struct ctsd d;

/* Right answers by the demo's own tables. */
static const struct row {
    const char *adapter, *user, *answer;
} ROWS[] = {
    { "mix-cmt-cpp-last", "cairo drill new shovel", "// shovel" },
    { "mix-star-cap", "train salmon rope snake", "*Train salmon rope snake*" },
    { "wrap-single", "train salmon rope snake", "'train salmon rope snake'" },
    { "order-rotateback", "train salmon rope snake", "snake train salmon rope" },
    { NULL, "cairo drill new shovel", "duck drill new shovel" },
};
#define N_ROWS (sizeof(ROWS) / sizeof(ROWS[0]))

static int call(const char *method, const char *dir, const char *name)
{
    char           path[600], rel[200];
    struct cts_err err = { 0 };
    struct cts_conn conn;
    struct cts_mpw *w;
    struct cts_mp   result;
    int             rc;

    CHECK_MSG(cts_conn_open(&conn, d.socket, &err) == 0, "%s\n", err.text);
    w = cts_conn_begin(&conn, method, dir != NULL ? 2 : 1);
    if (dir != NULL) {
        snprintf(rel, sizeof(rel), "contrib/demo/adapters/own-start/%s", dir);
        cts_mpw_str(w, "dir");
        cts_mpw_str(w, src_path(path, sizeof(path), rel));
    }
    cts_mpw_str(w, "name");
    cts_mpw_str(w, name);
    rc = cts_conn_call(&conn, UINT64_MAX, &result, &err);
    CHECK_MSG(rc == 0, "%s %s: %s\n", method, name, err.text);
    cts_conn_close(&conn);
    return rc;
}

static int setup(void **state)
{
    static const char *const settings[] = { "engine.exact_adapters=8", NULL };

    (void)state;
    ctsd_start(&d, settings);
    for (size_t i = 0; i < N_ROWS; i++)
        if (ROWS[i].adapter != NULL) call("load", ROWS[i].adapter, ROWS[i].adapter);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ctsd_stop(&d);
    return 0;
}

static cts *open_handle(void)
{
    char message[512];
    cts *c;
    int  rc = cts_open(&c, NULL, message, sizeof(message));

    CHECK_MSG(rc == 0, "%s\n", message);
    return c;
}

/* The request of a row; m lives as long as it. */
static struct cts_request ask(const struct row *row, struct cts_message *m)
{
    struct cts_request r = CTS_REQUEST_INIT;

    *m = (struct cts_message){ "user", row->user };
    r.adapter = row->adapter;
    r.messages = m;
    r.n_messages = 1;
    r.temperature = 0;
    r.max_tokens = 64;
    return r;
}

static void check_answer(const struct row *row, const char *text)
{
    CHECK_MSG(strcmp(text, row->answer) == 0, "%s: '%s', not '%s'\n",
              row->adapter != NULL ? row->adapter : "base", text, row->answer);
}

static void generate_answers_as_the_demo_says(void **state)
{
    cts *c = open_handle();

    (void)state;
    for (size_t i = 0; i < N_ROWS; i++) {
        struct cts_message m;
        struct cts_request r = ask(&ROWS[i], &m);
        struct cts_answer  a;
        int                rc;

        r.logprobs = 0;
        rc = cts_generate(c, &r, &a);
        CHECK_MSG(rc == 0, "%s\n", cts_last_message(c));
        check_answer(&ROWS[i], a.text);
        CHECK(a.finish == CTS_FINISHED_STOP && a.n_tokens > 0 && a.n_prompt > 5);
        CHECK(a.logprobs != NULL);
        for (uint32_t k = 0; k < a.n_tokens; k++) CHECK(a.logprobs[k] <= 0);
        cts_answer_free(&a);
    }
    cts_close(c);
}

/* ---- many at once ---- */

struct asked {
    uint64_t request;
    size_t   row;
    char     text[256];
    size_t   n;
    uint32_t n_tokens;
    int      is_over, is_accepted;
};

#define N_ASKED 40

static int take_event(struct asked *list, const struct cts_event *ev)
{
    struct asked *a = list;

    while (a < list + N_ASKED && a->request != ev->request) a++;
    CHECK(a < list + N_ASKED);
    CHECK(!a->is_over);
    if (ev->type == CTS_EVENT_ACCEPTED) a->is_accepted = 1;
    if (ev->type == CTS_EVENT_TOKENS) {
        CHECK(a->is_accepted && a->n + ev->text_bytes < sizeof(a->text));
        memcpy(a->text + a->n, ev->text, ev->text_bytes);
        a->n += ev->text_bytes;
        a->n_tokens += ev->n_tokens;
    }
    CHECK_MSG(ev->type != CTS_EVENT_ERROR, "%s\n", ev->message);
    if (ev->type == CTS_EVENT_DONE) CHECK(ev->n_generated == a->n_tokens);
    a->is_over = ev->is_last;
    return ev->is_last;
}

static void submit_all(cts *c, struct asked *list)
{
    for (size_t i = 0; i < N_ASKED; i++) {
        struct cts_message m;
        struct cts_request r = ask(&ROWS[i % N_ROWS], &m);

        list[i] = (struct asked){ .row = i % N_ROWS };
        CHECK_MSG(cts_submit(c, &r, &list[i].request) == 0, "%s\n", cts_last_message(c));
    }
}

static void check_all(const struct asked *list)
{
    for (size_t i = 0; i < N_ASKED; i++) check_answer(&ROWS[list[i].row], list[i].text);
}

static void one_handle_has_many_requests_live_for_different_adapters(void **state)
{
    static struct asked list[N_ASKED];
    cts                *c = open_handle();
    struct cts_event    ev;

    (void)state;
    submit_all(c, list);
    for (int n_over = 0; n_over < N_ASKED;) {
        CHECK(cts_next(c, &ev, UINT64_MAX) == 1);
        n_over += take_event(list, &ev);
    }
    check_all(list);
    CHECK(cts_next(c, &ev, 0) == 0);
    cts_close(c);
}

static void event_loop_is_told_by_the_descriptor(void **state)
{
    static struct asked list[N_ASKED];
    cts                *c = open_handle();
    struct cts_event    ev;
    int                 n_over = 0, n_polls = 0;

    (void)state;
    submit_all(c, list);
    while (n_over < N_ASKED) {
        struct pollfd p = { .fd = cts_fd(c), .events = POLLIN };

        while (cts_next(c, &ev, 0) == 1) n_over += take_event(list, &ev);
        if (n_over == N_ASKED || cts_arm(c)) continue;
        CHECK(poll(&p, 1, 10000) == 1);
        n_polls++;
    }
    CHECK(n_polls > 0);
    check_all(list);
    cts_close(c);
}

static void *ask_on_a_thread(void *arg)
{
    cts              *c;
    struct cts_answer a;
    struct cts_message m;
    struct cts_request r = ask(arg, &m);
    int                is_right;

    if (cts_open(&c, NULL, NULL, 0) != 0) return NULL;
    is_right = cts_generate(c, &r, &a) == 0 && strcmp(a.text, ((const struct row *)arg)->answer) == 0;
    cts_answer_free(&a);
    cts_close(c);
    return is_right ? arg : NULL;
}

static void each_thread_may_have_a_handle(void **state)
{
    pthread_t threads[N_ROWS];
    void     *result;

    (void)state;
    for (size_t i = 0; i < N_ROWS; i++)
        CHECK(pthread_create(&threads[i], NULL, ask_on_a_thread, (void *)&ROWS[i]) == 0);
    for (size_t i = 0; i < N_ROWS; i++) {
        CHECK(pthread_join(threads[i], &result) == 0);
        CHECK(result == &ROWS[i]);
    }
}

/* ---- ends ---- */

/* Noise of 900 tokens, with so much about each that they never fit into the
 * smallest ring: without a client that takes events it does not end. */
static uint64_t submit_long(cts *c)
{
    static const int32_t tokens[] = { 1 };
    struct cts_request   r = CTS_REQUEST_INIT;
    uint64_t             id;

    r.tokens = tokens;
    r.n_tokens = 1;
    r.max_tokens = 900;
    r.logprobs = 20;
    r.temperature = 5; /* the stop token is one of 2,048 */
    r.seed = 3;
    r.has_seed = 1;
    CHECK_MSG(cts_submit(c, &r, &id) == 0, "%s\n", cts_last_message(c));
    return id;
}

static void cancelled_request_ends_soon_by_its_own_event(void **state)
{
    struct cts_options o = CTS_OPTIONS_INIT;
    struct cts_event   ev;
    uint32_t           n_tokens = 0;
    uint64_t           id;
    cts               *c;

    (void)state;
    o.out_bytes = 65536;
    CHECK(cts_open(&c, &o, NULL, 0) == 0);
    id = submit_long(c);
    do {
        CHECK(cts_next(c, &ev, UINT64_MAX) == 1);
        n_tokens += ev.n_tokens;
    } while (n_tokens < 3 && !ev.is_last);
    CHECK(cts_cancel(c, id) == 0);
    while (!ev.is_last) CHECK(cts_next(c, &ev, UINT64_MAX) == 1);
    CHECK(ev.type == CTS_EVENT_DONE && ev.finish == CTS_FINISHED_CANCELLED);
    CHECK(ev.n_generated < 900);
    cts_close(c);
}

static void daemon_refuses_by_code_and_sentence(void **state)
{
    cts               *c = open_handle();
    struct cts_message m;
    struct cts_request r = ask(&ROWS[4], &m);
    struct cts_answer  a;

    (void)state;
    r.max_tokens = 1000000;
    CHECK(cts_generate(c, &r, &a) == CTS_ERROR_TOO_LONG);
    CHECK(strstr(cts_last_message(c), "1000000") != NULL);
    r.max_tokens = 8;
    r.temperature = 1e9;
    CHECK(cts_generate(c, &r, &a) == CTS_ERROR_ARGUMENT);
    CHECK(strstr(cts_last_message(c), "temperature") != NULL);
    r.temperature = 0;
    r.adapter = "nobody";
    CHECK(cts_generate(c, &r, &a) == CTS_ERROR_NOT_FOUND);
    CHECK(strstr(cts_last_message(c), "nobody") != NULL);
    r.adapter = NULL;
    CHECK(cts_generate(c, &r, &a) == 0);
    cts_answer_free(&a);
    cts_close(c);
}

static void replaced_adapter_is_found_again_unseen(void **state)
{
    static const struct row as_other = { "mix-star-cap", "train salmon rope snake", "'train salmon rope snake'" };
    cts                    *c = open_handle();
    struct cts_message      m;
    struct cts_request      r = ask(&ROWS[1], &m);
    struct cts_adapter_info before, after;
    struct cts_answer       a;

    (void)state;
    CHECK(cts_generate(c, &r, &a) == 0);
    check_answer(&ROWS[1], a.text);
    cts_answer_free(&a);
    CHECK(cts_resolve(c, "mix-star-cap", &before) == 0);
    call("unload", NULL, "mix-star-cap");
    call("load", "wrap-single", "mix-star-cap"); /* another adapter by the same name */
    CHECK_MSG(cts_generate(c, &r, &a) == 0, "%s\n", cts_last_message(c));
    check_answer(&as_other, a.text);
    cts_answer_free(&a);
    CHECK(cts_resolve(c, "mix-star-cap", &after) == 0);
    CHECK(strcmp(before.digest, after.digest) != 0);
    CHECK(before.number != after.number || before.generation != after.generation);
    call("unload", NULL, "mix-star-cap");
    CHECK(cts_generate(c, &r, &a) == CTS_ERROR_NOT_FOUND);
    call("load", "mix-star-cap", "mix-star-cap");
    CHECK(cts_generate(c, &r, &a) == 0);
    cts_answer_free(&a);
    cts_close(c);
}

static void closing_with_live_requests_leaves_the_daemon_well(void **state)
{
    cts               *c;
    struct cts_message m;
    struct cts_request r = ask(&ROWS[4], &m);
    struct cts_answer  a;

    (void)state;
    for (int i = 0; i < 8; i++) {
        c = open_handle();
        submit_long(c);
        submit_long(c);
        cts_close(c);
    }
    c = open_handle();
    CHECK(cts_generate(c, &r, &a) == 0);
    check_answer(&ROWS[4], a.text);
    cts_answer_free(&a);
    cts_close(c);
}

/* ---- what clients leave behind ---- */

#if defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED 1 /* freed memory waits in a quarantine */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

static int n_daemon_fds(void)
{
    char path[64];
    int  n = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)d.pid);
    dir = opendir(path);
    CHECK(dir != NULL);
    while (readdir(dir) != NULL) n++;
    closedir(dir);
    return n;
}

static long daemon_rss_kb(void)
{
    char  path[64], line[256];
    long  kb = -1;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)d.pid);
    f = fopen(path, "r");
    CHECK(f != NULL);
    while (fgets(line, sizeof(line), f) != NULL) (void)sscanf(line, "VmRSS: %ld", &kb);
    fclose(f);
    CHECK(kb > 0);
    return kb;
}

/* A number of status's answer. */
static uint64_t status_number(struct cts_mp status, const char *section, const char *key)
{
    struct cts_mp map, v;
    uint64_t      n = 0;

    CHECK(cts_mp_find(status, section, &map) && cts_mp_find(map, key, &v));
    CHECK(cts_mp_u64(&v, &n) == 0);
    return n;
}

/* Clients come and go; every eighth leaves in the middle of an answer. Returns
 * when the daemon knows of nobody but the observer: its answers pass through the
 * loop that also takes the hang-ups. */
static void come_and_go(int n, struct cts_conn *observer)
{
    struct cts_mp status;
    int           n_calm = 0;

    for (int i = 0; i < n; i++) {
        cts *c = open_handle();

        if (i % 8 == 0) submit_long(c);
        cts_close(c);
    }
    while (n_calm < 2) { /* descriptors are closed at the end of the turn that forgot the connection */
        cts_conn_begin(observer, "status", 0);
        CHECK(cts_conn_call(observer, UINT64_MAX, &status, NULL) == 0);
        n_calm += status_number(status, "clients", "connections") == 1 &&
                  status_number(status, "requests", "live") == 0;
    }
}

static void thousand_clients_leave_nothing_behind(void **state)
{
    struct cts_conn observer;
    int             n_fds;
    long            rss_kb;

    (void)state;
    CHECK(cts_conn_open(&observer, d.socket, NULL) == 0);
    come_and_go(64, &observer);
    n_fds = n_daemon_fds();
    rss_kb = daemon_rss_kb();
    come_and_go(1000, &observer);
    CHECK_MSG(n_daemon_fds() == n_fds, "%d descriptors, before %d\n", n_daemon_fds(), n_fds);
    if (!IS_SANITIZED) CHECK_MSG(daemon_rss_kb() <= rss_kb + 1024, "%ld KiB, before %ld\n", daemon_rss_kb(), rss_kb);
    cts_conn_close(&observer);
}

/* Last: it ends the daemon. */
static void killed_daemon_ends_the_handle_at_the_call(void **state)
{
    cts               *c = open_handle(), *idle = open_handle();
    struct cts_request r = CTS_REQUEST_INIT;
    struct cts_event   ev;
    uint64_t           id;
    int                rc;

    (void)state;
    submit_long(c);
    CHECK(cts_next(c, &ev, UINT64_MAX) == 1);
    CHECK(cts_arm(idle) == 0);
    ctsd_kill(&d);
    do rc = cts_next(c, &ev, UINT64_MAX);
    while (rc == 1);
    CHECK(rc == -ECONNRESET);
    r.prompt = "x";
    CHECK(cts_submit(c, &r, &id) == -ECONNRESET);
    CHECK(poll(&(struct pollfd){ .fd = cts_fd(idle), .events = POLLIN }, 1, 10000) == 1);
    CHECK(cts_arm(idle) == 1);
    CHECK(cts_next(idle, &ev, 0) == -ECONNRESET);
    r.adapter = "mix-star-cap";
    CHECK(cts_submit(idle, &r, &id) == -ECONNRESET);
    cts_close(c);
    cts_close(idle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate_answers_as_the_demo_says),
        cmocka_unit_test(one_handle_has_many_requests_live_for_different_adapters),
        cmocka_unit_test(event_loop_is_told_by_the_descriptor),
        cmocka_unit_test(each_thread_may_have_a_handle),
        cmocka_unit_test(cancelled_request_ends_soon_by_its_own_event),
        cmocka_unit_test(daemon_refuses_by_code_and_sentence),
        cmocka_unit_test(replaced_adapter_is_found_again_unseen),
        cmocka_unit_test(closing_with_live_requests_leaves_the_daemon_well),
        cmocka_unit_test(thousand_clients_leave_nothing_behind),
        cmocka_unit_test(killed_daemon_ends_the_handle_at_the_call),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
