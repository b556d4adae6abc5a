#ifndef CTS_CLIENT_EVENT_H
#define CTS_CLIENT_EVENT_H

#include "client/cts.h"

/* Judge the private copy of one OUT record and describe it in *ev, whose
 * pointers then point into rec, the message of an error into message [cap].
 * Returns 1; 0 for a record that is nobody's event (the answer to a ping);
 * CTS_EPROTO when the daemon wrote nonsense. No state, any thread. */
int cts_event_parse(const void *rec, struct cts_event *ev, char *message, size_t cap);

#endif
