/* The commands that are one question to the daemon. */
#include "client/ctsctl.h"

#include "config.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int show_result(struct ctsctl *t, struct cts_mp result)
{
    json_t *doc = ctsctl_json(&result);

    if (t->is_json || doc == NULL) return ctsctl_print_json(t, doc);
    ctsctl_print_object(doc, 0);
    json_decref(doc);
    return CTSCTL_OK;
}

int ctsctl_status(struct ctsctl *t)
{
    struct cts_mp result;
    int           rc = ctsctl_call(t, "status", &result);

    return rc == 0 ? show_result(t, result) : rc;
}

/* The status tells why: 0 serves, 4 drains, 3 nobody answers, 1 anything else. */
int ctsctl_health(struct ctsctl *t)
{
    struct cts_span state = { (const uint8_t *)"", 0 };
    struct cts_err  err = { 0 };
    struct cts_mp   result, v;
    int             rc = cts_conn_open(&t->conn, t->socket, &err);

    if (rc != 0) {
        (void)ctsctl_fail_open(t, rc, err.text);
        return rc == -ENOENT || rc == -ECONNREFUSED || rc == -ETIMEDOUT || rc == CTS_ECLOSED
                   ? CTSCTL_NO_DAEMON
                   : CTSCTL_FAILED;
    }
    cts_conn_begin(&t->conn, "health", 0);
    rc = ctsctl_finish(t, &result);
    if (rc != 0) return rc;
    if (cts_mp_find(result, "status", &v)) (void)cts_mp_str(&v, &state);
    rc = show_result(t, result);
    if (rc != 0 || cts_span_is(state, "ok")) return rc;
    return cts_span_is(state, "draining") ? CTSCTL_DRAINING : CTSCTL_FAILED;
}

static void add_adapter(struct ctsctl_table *table, const json_t *a)
{
    const char *digest = json_string_value(json_object_get(a, "digest"));
    const char *name = json_string_value(json_object_get(a, "name")),
               *kind = json_string_value(json_object_get(a, "kind"));

    ctsctl_table_add(table, name != NULL ? name : "-");
    ctsctl_table_add(table, kind != NULL ? kind : "-");
    ctsctl_table_addf(table, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(a, "number")));
    ctsctl_table_addf(table, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(a, "live")));
    ctsctl_table_addf(table, "%.12s", digest != NULL ? digest : "-");
}

/* The daemon answers in parts where a list is long: all of them, in one. */
static int list_adapters(struct ctsctl *t, json_t *all)
{
    uint64_t from = 0, next = 0;

    for (;;) {
        struct cts_mpw *w;
        struct cts_mp   result, v;
        json_t         *doc;
        int             rc = ctsctl_connect(t);

        if (rc != 0) return rc;
        w = cts_conn_begin(&t->conn, "ls", from > 0);
        if (from > 0) {
            cts_mpw_str(w, "from");
            cts_mpw_u64(w, from);
        }
        rc = ctsctl_finish(t, &result);
        if (rc != 0) return rc;
        v = result;
        doc = ctsctl_json(&v);
        rc = json_array_extend(all, json_object_get(doc, "adapters"));
        json_decref(doc);
        if (rc != 0) return ctsctl_fail(t, CTS_EPROTO, "the daemon's answer has no list of adapters");
        if (!cts_mp_find(result, "next", &v)) return 0;
        rc = cts_mp_u64(&v, &next);
        if (rc != 0 || next <= from) return ctsctl_fail(t, CTS_EPROTO, "the daemon's list of adapters has no end");
        from = next;
    }
}

int ctsctl_ls(struct ctsctl *t)
{
    static const char *const HEADS[] = { "NAME", "KIND", "NUMBER", "LIVE", "DIGEST" };
    struct ctsctl_table      table = { .heads = HEADS, .n_cols = 5 };
    json_t                  *list = json_array();
    int                      rc = list_adapters(t, list);

    if (rc == 0 && t->is_json) return ctsctl_print_json(t, json_pack("{s:o}", "adapters", list));
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) add_adapter(&table, json_array_get(list, i));
    if (rc == 0 && ctsctl_table_end(&table) != 0) rc = ctsctl_fail(t, -ENOMEM, "print the table");
    json_decref(list);
    return rc;
}

static void put_str(struct cts_mpw *w, const char *key, const char *value)
{
    cts_mpw_str(w, key);
    cts_mpw_str(w, value);
}

int ctsctl_show(struct ctsctl *t)
{
    struct cts_mp result;
    int           rc = ctsctl_connect(t);

    if (rc != 0) return rc;
    put_str(cts_conn_begin(&t->conn, "show", 1), "name", t->args[0]);
    rc = ctsctl_finish(t, &result);
    return rc == 0 ? show_result(t, result) : rc;
}

/* The daemon has another working directory, so it gets the whole path. */
int ctsctl_load(struct ctsctl *t)
{
    const char     *name = ctsctl_value(t, "name"), *slash;
    char            dir[PATH_MAX];
    struct cts_mpw *w;
    struct cts_mp   result;
    int             rc;

    if (realpath(t->args[0], dir) == NULL) return ctsctl_fail(t, -errno, "'%s': %s", t->args[0], strerror(errno));
    slash = strrchr(dir, '/');
    if (name == NULL) name = slash + 1;
    if (name[0] == '\0') return ctsctl_usage(t, "'%s' gives no name, --name is needed", t->args[0]);
    rc = ctsctl_connect(t);
    if (rc != 0) return rc;
    w = cts_conn_begin(&t->conn, "load", 2);
    put_str(w, "dir", dir);
    put_str(w, "name", name);
    rc = ctsctl_finish(t, &result);
    if (rc != 0) return rc;
    if (!t->is_json) printf("loaded '%s'\n", name);
    return show_result(t, result);
}

int ctsctl_unload(struct ctsctl *t)
{
    struct cts_mp result;
    int           rc = ctsctl_connect(t);

    if (rc != 0) return rc;
    put_str(cts_conn_begin(&t->conn, "unload", 1), "name", t->args[0]);
    rc = ctsctl_finish(t, &result);
    if (rc != 0) return rc;
    if (t->is_json) return show_result(t, result);
    printf("unloaded '%s'\n", t->args[0]);
    return CTSCTL_OK;
}

/* The daemon closes its connections as the last thing. */
static void wait_until_gone(const struct cts_conn *c)
{
    struct pollfd p = { .fd = c->fd, .events = POLLRDHUP };

    while (poll(&p, 1, -1) < 0 && errno == EINTR) continue;
}

int ctsctl_stop(struct ctsctl *t)
{
    struct cts_mp result;
    int           rc = ctsctl_call(t, "stop", &result);

    if (rc != 0) return rc;
    if (ctsctl_value(t, "no-wait") == NULL) wait_until_gone(&t->conn);
    if (t->is_json) return show_result(t, result);
    puts(ctsctl_value(t, "no-wait") == NULL ? "stopped" : "stopping");
    return CTSCTL_OK;
}

/* Which program this is does not depend on a daemon; none is fine here. */
int ctsctl_version(struct ctsctl *t)
{
    int has_daemon = cts_conn_open(&t->conn, t->socket, NULL) == 0;

    if (t->is_json)
        return ctsctl_print_json(t, json_pack("{s:s, s:s?}", "ctsctl", PACKAGE_VERSION, "server",
                                              has_daemon ? t->conn.server : NULL));
    printf("ctsctl %s\n", PACKAGE_VERSION);
    if (has_daemon) printf("%s at %s\n", t->conn.server, t->socket);
    return CTSCTL_OK;
}
