#include "daemon/engine/kv.h"

#include "common/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int cts_kv_init(struct cts_kv *kv, uint32_t n_pages, uint32_t page_tokens)
{
    CTS_ASSERT(n_pages > 0 && n_pages <= INT32_MAX);
    CTS_ASSERT(page_tokens > 0);
    *kv = (struct cts_kv){ .n_free = n_pages, .n_pages = n_pages, .page_tokens = page_tokens };
    kv->free = calloc(n_pages, sizeof(*kv->free));
    if (kv->free == NULL) return -ENOMEM;
    /* The lowest numbers go out first: a lightly loaded cache stays small in the CPU's. */
    for (uint32_t i = 0; i < n_pages; i++) kv->free[i] = (int32_t)(n_pages - 1 - i);
    return 0;
}

void cts_kv_deinit(struct cts_kv *kv)
{
    free(kv->free);
    *kv = (struct cts_kv){ 0 };
}

uint32_t cts_kv_pages_for(const struct cts_kv *kv, uint32_t n_tokens)
{
    return (uint32_t)(((uint64_t)n_tokens + kv->page_tokens - 1) / kv->page_tokens);
}

int cts_kv_take(struct cts_kv *kv, uint32_t n, int32_t *pages)
{
    if (n > kv->n_free) return -EAGAIN;
    for (uint32_t i = 0; i < n; i++) pages[i] = kv->free[--kv->n_free];
    return 0;
}

void cts_kv_give(struct cts_kv *kv, uint32_t n, const int32_t *pages)
{
    CTS_ASSERT(n <= kv->n_pages - kv->n_free); /* a page given back twice would serve two requests */
    for (uint32_t i = n; i-- > 0;) {
        CTS_ASSERT(pages[i] >= 0 && (uint32_t)pages[i] < kv->n_pages);
        kv->free[kv->n_free++] = pages[i];
    }
}
