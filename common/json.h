#ifndef CTS_COMMON_JSON_H
#define CTS_COMMON_JSON_H

#include "common/err.h"

#include <jansson.h> /* json_t, and jansson's accessors for whoever includes this header */
#include <stddef.h>
#include <stdint.h>

/* Parse n bytes of JSON whose top is an object. Duplicate keys, invalid UTF-8,
 * trailing text and nesting past jansson's 2048 are refused. what names the
 * source in the message ("config.json"). 0 with a new reference in *out, or
 * CTS_EFORMAT, -ENOMEM. Any thread. */
int cts_json_parse(const void *text, size_t n, const char *what, json_t **out, struct cts_err *err);

/* The same from a file of at most max_bytes. Also -errno, -EFBIG. Blocks. */
int cts_json_load(const char *path, size_t max_bytes, json_t **out, struct cts_err *err);

/* Typed reads of obj[key]. An absent key or null leaves *out as it is (the
 * default) and returns 0; a value returns 1; a wrong type or range CTS_EFORMAT
 * with key, what was found and what is wanted in err. Strings are borrowed
 * from obj. */
int cts_json_int(const json_t *obj, const char *key, int64_t lo, int64_t hi, int64_t *out, struct cts_err *err);
int cts_json_real(const json_t *obj, const char *key, double lo, double hi, double *out, struct cts_err *err);
int cts_json_bool(const json_t *obj, const char *key, int *out, struct cts_err *err);
int cts_json_str(const json_t *obj, const char *key, const char **out, struct cts_err *err);

/* obj[key], where it is set, must be the text want. 0; CTS_EFORMAT, or CTS_EUNSUP
 * with name (the file), key, what was found and what is supported. */
int cts_json_want_str(const json_t *obj, const char *key, const char *want, const char *name, struct cts_err *err);

/* Write doc to path through a temporary file beside it, fsync and rename: the
 * old file or the new one, never half. Indented by 1, key order kept. */
int cts_json_save(const json_t *doc, const char *path, struct cts_err *err);

#endif
