/* What ctsctl prints: messages, JSON, objects as lines, tables; and its calls of
 * the daemon, whose failures all end in a message. */
#include "client/ctsctl.h"

#include "common/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- messages ---- */

static void print_error_json(int code, const char *text)
{
    json_t *doc = json_pack("{s:{s:s, s:s}}", "error", "code", cts_err_name(code), "message", text);

    if (doc != NULL) json_dumpf(doc, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(doc);
}

int ctsctl_fail(const struct ctsctl *t, int code, const char *fmt, ...)
{
    char    text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "ctsctl: %s\n", text);
    if (t->is_json) print_error_json(code, text);
    return CTSCTL_FAILED;
}

int ctsctl_usage(const struct ctsctl *t, const char *fmt, ...)
{
    va_list ap;

    fputs("ctsctl: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "; 'ctsctl%s%s --help' tells the usage\n", t->command != NULL ? " " : "",
            t->command != NULL ? t->command->name : "");
    return CTSCTL_USAGE;
}

int ctsctl_fail_open(const struct ctsctl *t, int code, const char *text)
{
    if (code == -ENOENT || code == -ECONNREFUSED)
        return ctsctl_fail(t, code, "%s; start it with 'ctsd -c FILE' or 'systemctl start ctsd', or name its socket "
                           "with --socket or CTS_SOCKET", text);
    if (code == -EACCES || code == CTS_EDENIED)
        return ctsctl_fail(t, code, "%s; the daemon's own user and root may", text);
    return ctsctl_fail(t, code, "%s", text);
}

/* ---- calls ---- */

int ctsctl_connect(struct ctsctl *t)
{
    struct cts_err err = { 0 };
    int            rc;

    if (t->is_connected) return 0;
    rc = cts_conn_open(&t->conn, t->socket, &err);
    if (rc != 0) return ctsctl_fail_open(t, rc, err.text);
    t->is_connected = 1;
    return 0;
}

int ctsctl_finish(struct ctsctl *t, struct cts_mp *result)
{
    struct cts_err err = { 0 };
    int            rc = cts_conn_call(&t->conn, UINT64_MAX, result, &err);

    return rc == 0 ? 0 : ctsctl_fail(t, rc, "%s", err.text);
}

int ctsctl_call(struct ctsctl *t, const char *method, struct cts_mp *result)
{
    int rc = ctsctl_connect(t);

    if (rc != 0) return rc;
    cts_conn_begin(&t->conn, method, 0);
    return ctsctl_finish(t, result);
}

/* ---- JSON ---- */

static json_t *json_from_int(struct cts_mp *c)
{
    int64_t  i;
    uint64_t u;

    if (cts_mp_int(c, INT64_MIN, INT64_MAX, &i) == 0) return json_integer(i);
    return cts_mp_u64(c, &u) == 0 ? json_real((double)u) : NULL; /* JSON's readers have no more than that */
}

static json_t *json_from_array(struct cts_mp *c)
{
    json_t  *out = json_array();
    uint32_t n = 0;

    (void)cts_mp_array(c, &n);
    for (uint32_t i = 0; i < n; i++) json_array_append_new(out, ctsctl_json(c));
    return out;
}

static json_t *json_from_map(struct cts_mp *c)
{
    json_t         *out = json_object();
    struct cts_span key;
    uint32_t        n = 0;

    (void)cts_mp_map(c, &n);
    for (uint32_t i = 0; i < n && cts_mp_str(c, &key) == 0; i++) {
        char name[128];

        snprintf(name, sizeof(name), "%.*s", (int)key.len, (const char *)key.ptr);
        json_object_set_new(out, name, ctsctl_json(c));
    }
    return out;
}

json_t *ctsctl_json(struct cts_mp *c)
{
    struct cts_span s;
    double          real;
    int             is_true;

    switch (cts_mp_type(c)) {
    case CTS_MP_INT: return json_from_int(c);
    case CTS_MP_REAL: return cts_mp_real(c, &real) == 0 ? json_real(real) : NULL;
    case CTS_MP_BOOL: return cts_mp_bool(c, &is_true) == 0 ? json_boolean(is_true) : NULL;
    case CTS_MP_STR: return cts_mp_str(c, &s) == 0 ? json_stringn((const char *)s.ptr, s.len) : NULL;
    case CTS_MP_ARRAY: return json_from_array(c);
    case CTS_MP_MAP: return json_from_map(c);
    default: (void)cts_mp_skip(c); return json_null();
    }
}

int ctsctl_print_json(struct ctsctl *t, json_t *doc)
{
    if (doc == NULL) return ctsctl_fail(t, -ENOMEM, "build the answer");
    if (json_dumpf(doc, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) != 0) {
        json_decref(doc);
        return ctsctl_fail(t, -EIO, "write the answer");
    }
    putchar('\n');
    json_decref(doc);
    return CTSCTL_OK;
}

/* ---- lines ---- */

/* s without control characters, so that a name from afar cannot steer a terminal. */
static char *printable(const char *s)
{
    size_t n = strlen(s), at = 0;
    char  *out = malloc(4 * n + 1);

    for (size_t i = 0; out != NULL && i < n; i++) {
        unsigned char b = (unsigned char)s[i];

        if (b == '\n' || b == '\t') {
            out[at++] = '\\';
            out[at++] = b == '\n' ? 'n' : 't';
        } else if (b < 0x20 || b == 0x7f) {
            at += (size_t)sprintf(out + at, "\\x%02x", b);
        } else {
            out[at++] = (char)b;
        }
    }
    if (out != NULL) out[at] = '\0';
    return out;
}

static void print_scalar(const json_t *v)
{
    char *text;

    switch (json_typeof(v)) {
    case JSON_STRING:
        text = printable(json_string_value(v));
        fputs(text != NULL ? text : "", stdout);
        free(text);
        break;
    case JSON_INTEGER: printf("%" JSON_INTEGER_FORMAT, json_integer_value(v)); break;
    case JSON_REAL: printf("%g", json_real_value(v)); break;
    case JSON_TRUE: fputs("yes", stdout); break;
    case JSON_FALSE: fputs("no", stdout); break;
    default: fputs("-", stdout);
    }
}

static void print_array(const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);

        if (i > 0) putchar(' ');
        if (json_is_object(v) || json_is_array(v)) json_dumpf(v, stdout, JSON_COMPACT);
        else print_scalar(v);
    }
}

void ctsctl_print_object(const json_t *doc, int indent)
{
    const char *key;
    json_t     *v;
    int         width = 0;

    json_object_foreach((json_t *)doc, key, v) {
        if (!json_is_object(v) && (int)strlen(key) > width) width = (int)strlen(key);
    }
    json_object_foreach((json_t *)doc, key, v) {
        if (json_is_object(v)) {
            printf("%*s%s\n", indent, "", key);
            ctsctl_print_object(v, indent + 2);
            continue;
        }
        printf("%*s%-*s  ", indent, "", width, key);
        if (json_is_array(v)) print_array(v);
        else print_scalar(v);
        putchar('\n');
    }
}

/* ---- tables ---- */

void ctsctl_table_add(struct ctsctl_table *t, const char *cell)
{
    if (t->n_cells == t->cap) {
        size_t cap = t->cap == 0 ? 256 : 2 * t->cap;
        char **cells = realloc(t->cells, cap * sizeof(*cells));

        if (cells == NULL) {
            t->is_short_of_memory = 1;
            return;
        }
        t->cells = cells;
        t->cap = cap;
    }
    t->cells[t->n_cells] = printable(cell);
    if (t->cells[t->n_cells] == NULL) t->is_short_of_memory = 1;
    else t->n_cells++;
}

void ctsctl_table_addf(struct ctsctl_table *t, const char *fmt, ...)
{
    char    cell[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(cell, sizeof(cell), fmt, ap);
    va_end(ap);
    ctsctl_table_add(t, cell);
}

/* Characters, as far as a terminal without wide ones is concerned. */
static int columns(const char *s)
{
    size_t   n = strlen(s), i = 0;
    int      n_chars = 0;
    uint32_t cp;

    while (i < n) {
        size_t step = cts_utf8_next((const uint8_t *)s + i, n - i, &cp);

        i += step > 0 ? step : 1;
        n_chars++;
    }
    return n_chars;
}

static void print_row(const struct ctsctl_table *t, const char *const *row, const int *widths)
{
    for (uint32_t c = 0; c < t->n_cols; c++) {
        int pad = c + 1 < t->n_cols ? widths[c] - columns(row[c]) + 2 : 0; /* no blanks at a line's end */

        printf("%s%*s", row[c], pad, "");
    }
}

static void print_table(const struct ctsctl_table *t)
{
    int is_terminal = isatty(STDOUT_FILENO) == 1;
    int widths[16] = { 0 };

    for (uint32_t c = 0; c < t->n_cols; c++) widths[c] = columns(t->heads[c]);
    for (size_t i = 0; i < t->n_cells; i++) {
        int n = columns(t->cells[i]), *w = &widths[i % t->n_cols];

        if (n > *w) *w = n;
    }
    if (is_terminal) fputs("\033[1m", stdout);
    print_row(t, t->heads, widths);
    puts(is_terminal ? "\033[0m" : "");
    for (size_t i = 0; i + t->n_cols <= t->n_cells; i += t->n_cols) {
        print_row(t, (const char *const *)t->cells + i, widths);
        putchar('\n');
    }
}

int ctsctl_table_end(struct ctsctl_table *t)
{
    int rc = t->is_short_of_memory ? -ENOMEM : 0;

    if (rc == 0) print_table(t);
    for (size_t i = 0; i < t->n_cells; i++) free(t->cells[i]);
    free(t->cells);
    t->cells = NULL;
    t->n_cells = t->cap = 0;
    return rc;
}
