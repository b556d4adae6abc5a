#include "common/json.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cts_json_parse(const void *text, size_t n, const char *what, json_t **out, struct cts_err *err)
{
    json_error_t je;
    json_t      *doc = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);

    /* jansson has no words for it when it is out of memory before the first token. */
    if (doc == NULL && je.text[0] == '\0') return cts_err_set(err, -ENOMEM, "%s", what);
    if (doc == NULL) return cts_err_set(err, CTS_EFORMAT, "%s: line %d: %s", what, je.line, je.text);
    if (!json_is_object(doc)) {
        json_decref(doc);
        return cts_err_set(err, CTS_EFORMAT, "%s: the top is not a JSON object", what);
    }
    *out = doc;
    return 0;
}

int cts_json_load(const char *path, size_t max_bytes, json_t **out, struct cts_err *err)
{
    char  *text = NULL;
    size_t n = 0;
    int    rc = cts_file_read(path, max_bytes, &text, &n, err);

    if (rc < 0) return rc;
    rc = cts_json_parse(text, n, path, out, err);
    free(text);
    return rc;
}

static const char *type_name(const json_t *v)
{
    static const char *const NAMES[] = { "an object", "an array", "a string", "an integer",
                                         "a number",  "true",     "false",    "null" };

    return NAMES[json_typeof(v)];
}

/* obj[key], or NULL where it is absent or null. */
static const json_t *value_of(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);

    return v == NULL || json_is_null(v) ? NULL : v;
}

int cts_json_int(const json_t *obj, const char *key, int64_t lo, int64_t hi, int64_t *out, struct cts_err *err)
{
    const json_t *v = value_of(obj, key);

    if (v == NULL) return 0;
    if (!json_is_integer(v))
        return cts_err_set(err, CTS_EFORMAT, "'%s' is %s, an integer is wanted", key, type_name(v));
    if (json_integer_value(v) < lo || json_integer_value(v) > hi)
        return cts_err_set(err, CTS_EFORMAT, "'%s' is %lld, wanted is %lld to %lld", key,
                           (long long)json_integer_value(v), (long long)lo, (long long)hi);
    *out = json_integer_value(v);
    return 1;
}

int cts_json_real(const json_t *obj, const char *key, double lo, double hi, double *out, struct cts_err *err)
{
    const json_t *v = value_of(obj, key);

    if (v == NULL) return 0;
    if (!json_is_number(v))
        return cts_err_set(err, CTS_EFORMAT, "'%s' is %s, a number is wanted", key, type_name(v));
    if (!(json_number_value(v) >= lo && json_number_value(v) <= hi))
        return cts_err_set(err, CTS_EFORMAT, "'%s' is %g, wanted is %g to %g", key, json_number_value(v), lo, hi);
    *out = json_number_value(v);
    return 1;
}

int cts_json_bool(const json_t *obj, const char *key, int *out, struct cts_err *err)
{
    const json_t *v = value_of(obj, key);

    if (v == NULL) return 0;
    if (!json_is_boolean(v))
        return cts_err_set(err, CTS_EFORMAT, "'%s' is %s, true or false is wanted", key, type_name(v));
    *out = json_is_true(v);
    return 1;
}

int cts_json_str(const json_t *obj, const char *key, const char **out, struct cts_err *err)
{
    const json_t *v = value_of(obj, key);

    if (v == NULL) return 0;
    if (!json_is_string(v))
        return cts_err_set(err, CTS_EFORMAT, "'%s' is %s, a string is wanted", key, type_name(v));
    *out = json_string_value(v);
    return 1;
}

int cts_json_want_str(const json_t *obj, const char *key, const char *want, const char *name, struct cts_err *err)
{
    const char *v = want;
    int         rc = cts_json_str(obj, key, &v, err);

    if (rc < 0) return cts_err_prefix(err, rc, "'%s'", name);
    if (strcmp(v, want) == 0) return 0;
    return cts_err_set(err, CTS_EUNSUP, "'%s': '%s' is '%.64s', only '%s' is supported", name, key, v, want);
}

int cts_json_save(const json_t *doc, const char *path, struct cts_err *err)
{
    char tmp[4096];
    int  fd, rc = 0;

    if (snprintf(tmp, sizeof(tmp), "%s.tmp", path) >= (int)sizeof(tmp))
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", path);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return cts_err_set(err, -errno, "create '%s'", tmp);
    if (json_dumpfd(doc, fd, JSON_INDENT(1)) < 0 || write(fd, "\n", 1) != 1 || fsync(fd) < 0)
        rc = cts_err_set(err, errno != 0 ? -errno : -EIO, "write '%s'", tmp);
    if (close(fd) < 0 && rc == 0) rc = cts_err_set(err, -errno, "close '%s'", tmp);
    if (rc == 0 && rename(tmp, path) < 0) rc = cts_err_set(err, -errno, "rename '%s' to '%s'", tmp, path);
    if (rc < 0) (void)unlink(tmp); /* best effort: the failure is already told */
    return rc;
}
