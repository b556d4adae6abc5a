#ifndef CTS_CLIENT_REQUEST_H
#define CTS_CLIENT_REQUEST_H

#include "client/cts.h"
#include "common/buf.h"
#include "common/err.h"

/* Append r as the msgpack map that a SUB record's payload is (proto/ctl_msg.h
 * lists its keys; the adapter's name is not among them). What the daemon could
 * not even decode is refused here by its field: CTS_EARG with a sentence, and
 * -EMSGSIZE or -ENOMEM of the buffer. Ranges are the daemon's to judge. On a
 * failure out holds what it held. Any thread. */
int cts_request_encode(const struct cts_request *r, struct cts_buf *out, struct cts_err *err);

#endif
