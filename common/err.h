#ifndef CTS_COMMON_ERR_H
#define CTS_COMMON_ERR_H

/* One int for the whole tree:
 *
 *   -1 .. -133      -errno, exactly as the kernel, liburing and libuv hand it out
 *   -1000 .. -1999  ours, below
 *   -3000 .. -4095  libuv's own (UV_EOF, UV_EAI_*), passed through
 *
 * 0 is success, positive only where a header says so. A code names what the
 * caller must do, not where it broke. */
enum {
    CTS_EPROTO    = -1000, /* peer broke the wire or ring protocol: drop the peer */
    CTS_ESHAPE    = -1001, /* a kernel's shape contract is broken: caller's bug */
    CTS_EGPU      = -1002, /* device call failed, context usable: fail the request */
    CTS_EGPU_LOST = -1003, /* sticky device error: the daemon must restart */
    CTS_EFORMAT   = -1004, /* a file is not what it should be: refuse the file */
    CTS_EUNSUP    = -1005, /* understood, and not supported: refuse, say what is */
    CTS_EDIGEST   = -1006, /* contents differ from their recorded digest: refuse */
    CTS_EBUSY     = -1007, /* a bounded queue is full: try again after a while */
    CTS_ENOTFOUND = -1008, /* no such adapter, request or method: the caller's name is wrong */
    CTS_EARG      = -1009, /* a parameter is wrong: tell the caller which */
    CTS_EDENIED   = -1010, /* the peer may not do this */
    CTS_EVERSION  = -1011, /* other major version: say both numbers */
    CTS_ECLOSED   = -1012, /* the other side went away */
    CTS_ESLOW     = -1013, /* the client did not take its output in time */
    CTS_ECANCELED = -1014, /* cancelled by its client */
    CTS_ETOOLONG  = -1015, /* prompt and max_tokens pass the context length */
};

#define CTS_ERR_TEXT_BYTES 512

/* What went wrong, for a person: object, reason, what to do. Owned by whoever
 * declares it; zero-initialise. */
struct cts_err {
    int  code;
    char text[CTS_ERR_TEXT_BYTES];
};

/* Fill err (may be NULL) and return code, so that a caller can write
 * return cts_err_set(err, -errno, "open '%s'", path); for codes in the errno
 * range the system's words are appended (": No such file or directory").
 * Any thread. */
int cts_err_set(struct cts_err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "<prefix>: " in front of err's text (err may be NULL); returns err's
 * code, or code where err is NULL. For a layer that knows the object's name. */
int cts_err_prefix(struct cts_err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Words for a code, static storage: "peer broke the protocol". Any thread. */
const char *cts_strerror(int code);

/* The stable name of a code as it goes over the wire: "not-found", "busy",
 * "ENOENT". Static storage. Any thread. */
const char *cts_err_name(int code);

#endif
