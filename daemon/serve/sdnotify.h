#ifndef CTS_DAEMON_SERVE_SDNOTIFY_H
#define CTS_DAEMON_SERVE_SDNOTIFY_H

/* Tell the service manager how we are ("READY=1", "STOPPING=1\nSTATUS=..."): one
 * datagram to $NOTIFY_SOCKET. 1 when it was sent, 0 when nobody asked for it,
 * -errno. Never blocks. */
int cts_sdnotify(const char *state);

#endif
