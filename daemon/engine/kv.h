#ifndef CTS_DAEMON_ENGINE_KV_H
#define CTS_DAEMON_ENGINE_KV_H

/* Which pages of the KV cache are free. A request takes all that it may ever
 * need when it is admitted, so nothing admitted waits for a page later and
 * nothing is preempted. Engine thread only. */

#include <stdint.h>

struct cts_kv {
    int32_t *free; /* [n_pages], the first n_free are free */
    uint32_t n_free, n_pages, page_tokens;
};

int  cts_kv_init(struct cts_kv *kv, uint32_t n_pages, uint32_t page_tokens); /* 0 or -ENOMEM */
void cts_kv_deinit(struct cts_kv *kv);                                       /* zeroed is fine */

/* Pages that n_tokens need. */
uint32_t cts_kv_pages_for(const struct cts_kv *kv, uint32_t n_tokens);

/* Take n pages into pages. 0, or -EAGAIN: not so many are free, none was taken. */
int cts_kv_take(struct cts_kv *kv, uint32_t n, int32_t *pages);

/* Give n pages back that cts_kv_take gave out. */
void cts_kv_give(struct cts_kv *kv, uint32_t n, const int32_t *pages);

#endif
