#include "common/err.h"

#include "common/assert.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int         code;
    const char *name, *text;
} OURS[] = {
    { CTS_EPROTO,    "protocol",    "peer broke the protocol" },
    { CTS_ESHAPE,    "shape",       "shapes do not fit a kernel's contract" },
    { CTS_EGPU,      "device",      "device call failed" },
    { CTS_EGPU_LOST, "device-lost", "device lost" },
    { CTS_EFORMAT,   "format",      "malformed file" },
    { CTS_EUNSUP,    "unsupported", "not supported" },
    { CTS_EDIGEST,   "digest",      "contents differ from their digest" },
    { CTS_EBUSY,     "busy",        "busy, try again later" },
    { CTS_ENOTFOUND, "not-found",   "not found" },
    { CTS_EARG,      "argument",    "invalid argument" },
    { CTS_EDENIED,   "denied",      "permission denied" },
    { CTS_EVERSION,  "version",     "version mismatch" },
    { CTS_ECLOSED,   "closed",      "the other side went away" },
    { CTS_ESLOW,     "slow",        "the client took its output too slowly" },
    { CTS_ECANCELED, "cancelled",   "cancelled" },
    { CTS_ETOOLONG,  "too-long",    "past the context length" },
};

static int is_errno(int code)
{
    return code < 0 && code > -1000;
}

int cts_err_set(struct cts_err *err, int code, const char *fmt, ...)
{
    va_list ap;
    int     n;

    CTS_ASSERT(code != 0);
    if (err == NULL) return code;
    err->code = code;
    va_start(ap, fmt);
    n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    if (is_errno(code) && n >= 0 && (size_t)n < sizeof(err->text))
        snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %s", strerror(-code));
    return code;
}

int cts_err_prefix(struct cts_err *err, int code, const char *fmt, ...)
{
    char    text[CTS_ERR_TEXT_BYTES];
    va_list ap;
    int     n;

    if (err == NULL) return code;
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n + 2 >= sizeof(text)) return err->code;
    snprintf(text + n, sizeof(text) - (size_t)n, ": %.*s", (int)(sizeof(text) - (size_t)n - 3), err->text);
    memcpy(err->text, text, sizeof(text));
    return err->code;
}

const char *cts_strerror(int code)
{
    for (size_t i = 0; i < sizeof(OURS) / sizeof(OURS[0]); i++)
        if (OURS[i].code == code) return OURS[i].text;
    return code == 0 ? "success" : is_errno(code) ? strerror(-code) : "unknown error";
}

const char *cts_err_name(int code)
{
    const char *name;

    for (size_t i = 0; i < sizeof(OURS) / sizeof(OURS[0]); i++)
        if (OURS[i].code == code) return OURS[i].name;
    name = is_errno(code) ? strerrorname_np(-code) : NULL;
    return name != NULL ? name : code == 0 ? "ok" : "unknown";
}
