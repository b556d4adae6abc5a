#include "shm/record.h"

#include "common/assert.h"
#include "common/err.h"

#include <string.h>

/* Where the next part goes, or comes from; bounded by end. */
struct place {
    uint8_t *ptr, *end;
};

static void put(struct place *p, const void *src, size_t n)
{
    CTS_ASSERT(n <= (size_t)(p->end - p->ptr));
    if (n > 0) memcpy(p->ptr, src, n);
    p->ptr += n;
}

static void put_u32(struct place *p, uint32_t v)
{
    put(p, &v, sizeof(v));
}

static void put_tokens(struct place *p, const struct cts_out_view *v, struct cts_out_record *head)
{
    head->count = (uint16_t)v->n_tokens;
    head->first = v->first;
    put(p, v->ids, 4 * (size_t)v->n_tokens);
    if (v->logprobs != NULL) {
        head->flags |= CTS_OUTF_LOGPROBS;
        put(p, v->logprobs, 4 * (size_t)v->n_tokens);
    }
    if (v->top != NULL) {
        head->flags |= CTS_OUTF_TOP;
        put_u32(p, v->n_top);
        put(p, v->top, sizeof(*v->top) * v->n_tokens * v->n_top);
    }
}

static void put_text(struct place *p, const struct cts_out_view *v, struct cts_out_record *head)
{
    if (v->text == NULL || v->text_len == 0) return;
    head->flags |= CTS_OUTF_TEXT;
    head->text_len = (uint16_t)v->text_len;
    put(p, v->text, v->text_len);
}

uint32_t cts_out_encode(const struct cts_out_view *v, void *buf)
{
    struct cts_out_record head = { .type = v->type, .req_id = v->req_id, .status = (uint16_t)v->status };
    struct place          p = { (uint8_t *)buf + sizeof(head), (uint8_t *)buf + CTS_OUT_RECORD_MAX };
    size_t                n;

    if (v->type == CTS_OUT_DONE || v->type == CTS_OUT_ERROR) head.flags |= CTS_OUTF_LAST;
    switch (v->type) {
    case CTS_OUT_TOKENS:
        put_tokens(&p, v, &head);
        put_text(&p, v, &head);
        break;
    case CTS_OUT_DONE:
        put_u32(&p, v->n_prompt);
        put_u32(&p, v->n_tokens);
        break;
    case CTS_OUT_ERROR:
        put_u32(&p, v->retry_ms);
        put_text(&p, v, &head);
        break;
    case CTS_OUT_ACCEPTED:
        put_u32(&p, v->n_prompt);
        break;
    default:
        CTS_ASSERT(v->type == CTS_OUT_PONG);
    }
    n = (size_t)(p.ptr - (uint8_t *)buf);
    head.len = (uint32_t)((n + CTS_OUT_RECORD_ALIGN - 1) / CTS_OUT_RECORD_ALIGN * CTS_OUT_RECORD_ALIGN);
    memset(p.ptr, 0, head.len - n);
    memcpy(buf, &head, sizeof(head));
    return head.len;
}

/* The next n bytes, or NULL when the record has fewer. */
static const void *take(struct place *p, uint64_t n)
{
    const void *at = p->ptr;

    if (n > (uint64_t)(p->end - p->ptr)) return NULL;
    p->ptr += n;
    return at;
}

static int take_u32(struct place *p, uint32_t *out)
{
    const void *at = take(p, sizeof(*out));

    if (at == NULL) return CTS_EPROTO;
    memcpy(out, at, sizeof(*out));
    return 0;
}

static int take_tokens(struct place *p, const struct cts_out_record *head, struct cts_out_view *v)
{
    v->first = head->first;
    v->n_tokens = head->count;
    v->ids = take(p, 4 * (uint64_t)head->count);
    if (v->ids == NULL) return CTS_EPROTO;
    if (head->flags & CTS_OUTF_LOGPROBS) {
        v->logprobs = take(p, 4 * (uint64_t)head->count);
        if (v->logprobs == NULL) return CTS_EPROTO;
    }
    if (head->flags & CTS_OUTF_TOP) {
        if (take_u32(p, &v->n_top) < 0 || v->n_top > CTS_OUT_RECORD_MAX) return CTS_EPROTO;
        v->top = take(p, sizeof(*v->top) * (uint64_t)head->count * v->n_top);
        if (v->top == NULL) return CTS_EPROTO;
    }
    return 0;
}

static int take_text(struct place *p, const struct cts_out_record *head, struct cts_out_view *v)
{
    if (!(head->flags & CTS_OUTF_TEXT)) return 0;
    v->text_len = head->text_len;
    v->text = take(p, head->text_len);
    return v->text == NULL ? CTS_EPROTO : 0;
}

int cts_out_decode(const void *buf, struct cts_out_view *v)
{
    struct cts_out_record head;
    struct place          p;

    memcpy(&head, buf, sizeof(head));
    if (head.len < CTS_OUT_RECORD_ALIGN || head.len > CTS_OUT_RECORD_MAX) return CTS_EPROTO;
    p = (struct place){ (uint8_t *)(uintptr_t)buf + sizeof(head), (uint8_t *)(uintptr_t)buf + head.len };
    *v = (struct cts_out_view){
        .type = head.type, .flags = head.flags, .req_id = head.req_id, .status = head.status
    };
    switch (head.type) {
    case CTS_OUT_TOKENS:
        return take_tokens(&p, &head, v) < 0 ? CTS_EPROTO : take_text(&p, &head, v);
    case CTS_OUT_DONE:
        return take_u32(&p, &v->n_prompt) < 0 ? CTS_EPROTO : take_u32(&p, &v->n_tokens);
    case CTS_OUT_ERROR:
        return take_u32(&p, &v->retry_ms) < 0 ? CTS_EPROTO : take_text(&p, &head, v);
    case CTS_OUT_ACCEPTED:
        return take_u32(&p, &v->n_prompt);
    case CTS_OUT_PONG:
        return 0;
    default:
        return CTS_EPROTO;
    }
}
