#ifndef CTS_DAEMON_SERVE_CTL_CONN_H
#define CTS_DAEMON_SERVE_CTL_CONN_H

/* One connection of the control socket, as the server and the methods see it.
 * Private to the ctl_*.c files. Loop thread. */

#include "common/buf.h"
#include "daemon/serve/ctl_server.h"
#include "proto/ctl_msg.h"
#include "shm/segment.h"

#include <sys/types.h>

#define CTS_CTL_PARAMS_MAX 3

struct cts_ctl_conn {
    struct cts_sink  sink; /* first: generate's answers go to the connection */
    struct cts_ctl  *ctl;
    uv_poll_t        poll; /* poll.data == this; the memory goes with its close callback */
    int              fd;
    int              polled; /* events that poll watches now */
    pid_t            pid;
    uid_t            uid;
    uint64_t         serial;  /* never used twice: who answers later finds this connection or none */
    uint32_t         idx;     /* in the server's list */
    uint64_t         opened_ns;
    struct cts_buf   rx, tx;
    int              fds[CTS_FDS_MAX]; /* to be sent with the byte of tx at fd_off */
    uint32_t         n_fds;
    size_t           fd_off;
    struct cts_ring *ring;    /* NULL: none */
    int              has_hello;
    int              ends;    /* takes nothing more, closes once tx is out */
    int              failed;  /* closed at the next chance */
};

struct cts_ctl {
    struct cts_ctl_opts   o;
    uv_poll_t             listener;
    int                   has_listener, is_listening;
    struct cts_ctl_conn **conns; /* [n_conns_max], the first n_conns are open */
    uint32_t              n_conns, n_half_open;
    uint64_t              serial, started_ns, paused_ns, n_accepted, n_denied;
    uint8_t               chunk[64u << 10]; /* one read */
};

/* A request being answered. */
struct cts_ctl_arg {
    int             is_given;
    uint64_t        u;
    struct cts_span s;
};
struct cts_ctl_call {
    struct cts_ctl_conn *conn;
    uint64_t             id;
    struct cts_mp        params; /* at the map's head, for a method that decodes itself */
    struct cts_ctl_arg   args[CTS_CTL_PARAMS_MAX]; /* in the order of the method's params */
    const char          *param;  /* at fault; NULL: none */
    char                 param_text[CTS_PARAM_BYTES]; /* room for it */
    uint32_t             retry_ms;
};

/* A row of the table of commands. */
enum cts_ctl_type { CTS_CTL_UINT = 1, CTS_CTL_STR };
struct cts_ctl_param {
    const char       *name;
    enum cts_ctl_type type;
    int               is_needed;
    const char       *help;
};
struct cts_ctl_method {
    const char *name;
    /* 0 when the answer is written or comes later; else the code of an error
     * that the server answers with err's sentence. */
    int       (*handle)(struct cts_ctl_call *call, struct cts_err *err);
    uint32_t    n_params;
    struct cts_ctl_param params[CTS_CTL_PARAMS_MAX];
    int         decodes_itself; /* params is left to the handler */
    const char *help;
};
extern const struct cts_ctl_method CTS_CTL_METHODS[];
extern const uint32_t              CTS_CTL_N_METHODS;

/* The method by name, NULL when there is none. */
const struct cts_ctl_method *cts_ctl_find(struct cts_span name);

/* Fill call->args from the request's params by the method's list. CTS_EARG with
 * call->param set. */
int cts_ctl_args(const struct cts_ctl_method *m, const struct cts_ctl_request *r, struct cts_ctl_call *call,
                 struct cts_err *err);

/* Begin the frame {"id": id, kind: map of n pairs} in the connection's tx: the
 * caller writes the pairs. end returns -EMSGSIZE or -ENOMEM with nothing written. */
struct cts_ctl_out {
    struct cts_mpw w;
    size_t         begin;
};
void cts_ctl_begin(struct cts_ctl_conn *c, struct cts_ctl_out *o, uint64_t id, const char *kind, uint32_t n_pairs);
int  cts_ctl_end(struct cts_ctl_out *o);

/* Answer with an error; a connection that can't even take that is closed. */
void cts_ctl_refuse(struct cts_ctl_conn *c, uint64_t id, int code, const char *text, const char *param,
                    uint32_t retry_ms);

/* The open connection with that serial; NULL when it is gone. */
struct cts_ctl_conn *cts_ctl_conn_at(struct cts_ctl *t, uint64_t serial);

/* What generate's events need of the connection: ctl_generate.c. */
extern const struct cts_sink_ops CTS_CTL_SINK_OPS;

/* The methods: ctl_methods.c, and the last two in ctl_generate.c. */
int cts_ctl_hello(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_status(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_health(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_ls(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_show(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_resolve(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_load(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_unload(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_stop_daemon(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_ring_open(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_generate(struct cts_ctl_call *call, struct cts_err *err);
int cts_ctl_cancel(struct cts_ctl_call *call, struct cts_err *err);

#define CTS_CTL_TX_SOFT (256u << 10) /* bytes: no more is taken or generated for a connection above this */

#endif
