/* From a request to a record in SUB, and the table of live requests. */
#include "client/handle.h"

#include "client/request.h"
#include "common/assert.h"
#include "common/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define KEEP_BYTES 16384u /* a live entry's buffer above this is freed, not kept for the next request */

/* ---- live requests ---- */

static uint64_t id_of(const cts *c, const struct cts_live *l)
{
    return (uint64_t)l->turn << 32 | (uint64_t)(l - c->live);
}

static struct cts_live *take_live(cts *c)
{
    struct cts_live *l;

    if (c->free_idx == CTS_LIVE_NONE) return NULL;
    l = &c->live[c->free_idx];
    CTS_ASSERT(!l->is_live);
    c->free_idx = l->next_free_idx;
    c->n_live++;
    if (++l->turn == 0) l->turn = 1; /* so that 0 never names a request */
    l->n_tokens = 0;
    l->is_live = 1;
    l->is_accepted = l->is_again = l->is_cancelled = 0;
    return l;
}

void cts_handle_accept(struct cts_live *l)
{
    l->is_accepted = 1;
    if (l->kept.cap > KEEP_BYTES) cts_buf_deinit(&l->kept);
}

void cts_handle_release(cts *c, struct cts_live *l)
{
    CTS_ASSERT(l->is_live);
    cts_handle_accept(l); /* whatever became of it, it is not submitted again */
    l->is_live = 0;
    l->next_free_idx = c->free_idx;
    c->free_idx = (uint32_t)(l - c->live);
    c->n_live--;
}

struct cts_live *cts_handle_find(cts *c, uint64_t request)
{
    uint32_t         idx = (uint32_t)request;
    struct cts_live *l;

    if (idx >= c->n_live_max) return NULL;
    l = &c->live[idx];
    return l->is_live && l->turn == (uint32_t)(request >> 32) ? l : NULL;
}

/* ---- the ring ---- */

/* Kick the daemon awake. The counter only grows: nobody reads it, and 2^64 kicks
 * do not happen. */
void cts_handle_kick(const cts *c)
{
    uint64_t one = 1;

    while (write(c->kick_fd, &one, sizeof(one)) < 0 && errno == EINTR) continue;
}

int cts_handle_put(cts *c, struct cts_sub_record *rec, const void *payload, size_t n)
{
    int rc = n <= UINT32_MAX ? cts_subw_put(&c->subw, rec, payload, (uint32_t)n) : -EMSGSIZE;

    if (rc == CTS_EPROTO) return cts_handle_fail(c, rc, "ctsd broke the submission ring");
    if (rc == -EAGAIN) return cts_handle_say(c, rc, "the submission ring is full; take events first");
    if (rc == -EMSGSIZE)
        return cts_handle_say(c, rc, "the request takes %zu bytes, the arena has %u", n, c->subw.arena_bytes);
    if (rc == 0 && cts_subw_publish(&c->subw)) cts_handle_kick(c);
    return rc;
}

/* ---- submitting ---- */

/* The number and generation of name, from memory or from the daemon. */
static int look_up(cts *c, const char *name, struct cts_live *l)
{
    struct cts_adapter_info info;
    const struct cts_name  *known;
    int                     rc;

    l->number = l->generation = 0;
    if (name == NULL || name[0] == '\0') return 0;
    known = cts_names_find(&c->names, name);
    if (known != NULL) {
        l->number = known->number;
        l->generation = known->generation;
        return 0;
    }
    rc = cts_resolve(c, name, &info);
    if (rc != 0) return rc;
    l->number = info.number;
    l->generation = info.generation;
    return 0;
}

/* Keep the name and the encoded payload until the daemon has accepted them. */
static int keep(cts *c, struct cts_live *l, const struct cts_request *r)
{
    const char *name = r->adapter != NULL ? r->adapter : "";
    int         rc;

    l->kept.len = 0;
    rc = cts_buf_put(&l->kept, name, strlen(name) + 1);
    if (rc != 0) return cts_handle_say(c, rc, rc == -ENOMEM ? "no memory" : "the adapter's name is too long");
    return cts_request_encode(r, &l->kept, &c->err);
}

static int put_generate(cts *c, const struct cts_live *l)
{
    size_t                name_bytes = strlen((const char *)l->kept.ptr) + 1;
    struct cts_sub_record rec = { .op = CTS_OP_GENERATE,
                                  .req_id = id_of(c, l),
                                  .adapter = l->number,
                                  .generation = l->generation,
                                  .deadline_ns = l->deadline_ns };

    return cts_handle_put(c, &rec, l->kept.ptr + name_bytes, l->kept.len - name_bytes);
}

static uint64_t deadline_after(uint64_t timeout_ns)
{
    uint64_t now_ns = cts_clock_ns();

    return timeout_ns == 0 || timeout_ns >= UINT64_MAX - now_ns ? 0 : now_ns + timeout_ns;
}

int cts_submit(cts *c, const struct cts_request *r, uint64_t *request)
{
    struct cts_live *l;
    int              rc;

    if (c->rc != 0) return c->rc;
    l = take_live(c);
    if (l == NULL)
        return cts_handle_say(c, -EAGAIN, "%u requests are live, the most that ctsd takes; take events first",
                              c->n_live);
    l->deadline_ns = deadline_after(r->timeout_ns);
    rc = keep(c, l, r);
    if (rc == 0) rc = look_up(c, r->adapter, l);
    if (rc == 0) rc = put_generate(c, l);
    if (rc != 0) {
        cts_handle_release(c, l);
        return rc;
    }
    *request = id_of(c, l);
    return 0;
}

int cts_handle_again(cts *c, struct cts_live *l, struct cts_event *ev)
{
    const char             *name = (const char *)l->kept.ptr; /* there while the request is not accepted */
    struct cts_adapter_info info;
    int                     rc;

    if (ev->code != CTS_ENOTFOUND || l->is_again || l->is_accepted || name[0] == '\0') return 0;
    l->is_again = 1;
    rc = cts_resolve(c, name, &info);
    if (rc == 0 && info.number == l->number && info.generation == l->generation) return 0;
    if (rc == 0 && !l->is_cancelled) {
        l->number = info.number;
        l->generation = info.generation;
        rc = put_generate(c, l);
        if (rc == 0) return 1;
    }
    if (rc == 0 || c->rc != 0)
        return 0; /* a cancelled one needs no second life; a dead handle tells its own failure */
    ev->code = rc == -EAGAIN ? CTS_EBUSY : rc;
    snprintf(c->message, sizeof(c->message), "%s", c->err.text);
    ev->message = c->message;
    return 0;
}

int cts_cancel(cts *c, uint64_t request)
{
    struct cts_sub_record rec = { .op = CTS_OP_CANCEL, .req_id = request };
    struct cts_live      *l = cts_handle_find(c, request);
    int                   rc;

    if (c->rc != 0) return c->rc;
    if (l == NULL || l->is_cancelled) return 0;
    rc = cts_handle_put(c, &rec, NULL, 0);
    if (rc == 0) l->is_cancelled = 1;
    return rc;
}
