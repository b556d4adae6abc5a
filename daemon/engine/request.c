#include "daemon/engine/request.h"

#include "common/assert.h"

#include <errno.h>
#include <stdlib.h>

static void link_parts(struct cts_requests *p, const struct cts_requests_opts *o)
{
    for (uint32_t i = 0; i < p->n; i++) {
        p->at[i].idx = i;
        p->at[i].prompt = p->prompts + (size_t)i * o->context;
        p->runs[i].pages = p->pages + (size_t)i * o->n_pages_per_seq_max;
        p->runs[i].refs = p->refs + (size_t)i * o->n_refs_max;
        p->runs[i].text_buf = p->text + (size_t)i * o->text_cap;
        p->free[i] = p->n - 1 - i;
    }
    p->n_free = p->n;
}

int cts_requests_init(struct cts_requests *p, const struct cts_requests_opts *o)
{
    CTS_ASSERT(o->n > 0 && o->n < CTS_RUN_IDX_NONE);
    *p = (struct cts_requests){ .n = o->n, .text_cap = o->text_cap };
    p->at = calloc(o->n, sizeof(*p->at));
    p->runs = calloc(o->n, sizeof(*p->runs));
    p->prompts = calloc((size_t)o->n * o->context, sizeof(*p->prompts));
    p->pages = calloc((size_t)o->n * o->n_pages_per_seq_max, sizeof(*p->pages));
    p->refs = calloc((size_t)o->n * o->n_refs_max, sizeof(*p->refs));
    p->text = calloc(o->n, o->text_cap);
    p->free = calloc(o->n, sizeof(*p->free));
    if (p->at == NULL || p->runs == NULL || p->prompts == NULL || p->pages == NULL || p->refs == NULL ||
        p->text == NULL || p->free == NULL) {
        cts_requests_deinit(p);
        return -ENOMEM;
    }
    link_parts(p, o);
    return 0;
}

void cts_requests_deinit(struct cts_requests *p)
{
    free(p->free);
    free(p->text);
    free(p->refs);
    free(p->pages);
    free(p->prompts);
    free(p->runs);
    free(p->at);
    *p = (struct cts_requests){ 0 };
}

uint64_t cts_requests_bytes(const struct cts_requests_opts *o)
{
    return o->n * (sizeof(struct cts_engine_request) + sizeof(struct cts_run) + sizeof(uint32_t) + o->text_cap +
                   (uint64_t)o->context * sizeof(int32_t) + (uint64_t)o->n_pages_per_seq_max * sizeof(int32_t) +
                   (uint64_t)o->n_refs_max * sizeof(struct cts_part_ref));
}
