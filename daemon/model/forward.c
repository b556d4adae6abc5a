/* The forward pass of a Llama, written once over the kernels' table. One block
 * of host memory holds all inputs of a step and goes to the device in one copy;
 * q, k and v of a row lie side by side, so that one product makes the three. */

#include "daemon/model/forward.h"

#include "common/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_BYTES 64

/* Byte offsets in the input block (host and device alike) and in the work buffer. */
struct layout {
    uint64_t token, pos, place, seq, logits_row, parts, page_table, in_bytes;
    uint64_t x, h, qkv, attn, gate, up, head_x, logits, scratch, in, work_bytes;
};

struct cts_forward {
    struct ctsk_dev          *dev;
    struct ctsk_stream       *stream;
    struct cts_model_config   c;
    const struct cts_weights *w;
    struct cts_forward_opts   o;
    struct layout             at;
    struct ctsk_buf          *work, *kv;
    uint8_t                  *host_in;     /* [at.in_bytes] */
    float                    *host_logits; /* [n_logits_max, vocab] */
    struct cts_forward_in     in;
    uint64_t                  kv_layer_bytes;   /* of k or of v */
    uint32_t                  n_q, n_kv, n_qkv; /* columns */
    cts_forward_tap_fn        tap;
    void                     *tap_arg;
};

static uint64_t take(uint64_t *end, uint64_t bytes)
{
    uint64_t at = *end;

    *end += (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return at;
}

/* The page table comes last: only the rows of sequences in the step are copied. */
static void lay_out_inputs(struct layout *at, const struct cts_forward_opts *o)
{
    uint64_t end = 0, rows_bytes = (uint64_t)o->n_rows_max * sizeof(int32_t);

    at->token = take(&end, rows_bytes);
    at->pos = take(&end, rows_bytes);
    at->place = take(&end, rows_bytes);
    at->seq = take(&end, rows_bytes);
    at->logits_row = take(&end, (uint64_t)o->n_logits_max * sizeof(int32_t));
    at->parts = take(&end, (uint64_t)o->n_parts_max * sizeof(struct ctsk_row_part));
    at->page_table = take(&end, (uint64_t)o->n_seqs_max * o->n_pages_per_seq_max * sizeof(int32_t));
    at->in_bytes = end;
}

static void lay_out_work(struct layout *at, const struct cts_model_config *c, const struct cts_forward_opts *o)
{
    uint64_t end = 0, rows = o->n_rows_max, f = sizeof(float);
    uint64_t n_q = (uint64_t)c->n_heads * c->head_dim, n_kv = (uint64_t)c->n_kv_heads * c->head_dim;

    at->x = take(&end, rows * c->hidden * f);
    at->h = take(&end, rows * c->hidden * f);
    at->qkv = take(&end, rows * (n_q + 2 * n_kv) * f);
    at->attn = take(&end, rows * n_q * f);
    at->gate = take(&end, rows * c->intermediate * f);
    at->up = take(&end, rows * c->intermediate * f);
    at->head_x = take(&end, (uint64_t)o->n_logits_max * c->hidden * f);
    at->logits = take(&end, (uint64_t)o->n_logits_max * c->vocab_size * f);
    at->scratch = take(&end, (uint64_t)o->n_parts_max * 2 * o->rank_max * f);
    at->in = take(&end, at->in_bytes);
    at->work_bytes = end;
}

static uint64_t kv_layer_bytes(const struct cts_model_config *c, const struct cts_forward_opts *o)
{
    return (uint64_t)o->n_pages * o->page_tokens * c->n_kv_heads * c->head_dim * sizeof(float);
}

void cts_forward_bytes(const struct cts_model_config *c, const struct cts_forward_opts *o, uint64_t *kv_bytes,
                       uint64_t *work_bytes)
{
    struct layout at;

    lay_out_inputs(&at, o);
    lay_out_work(&at, c, o);
    *kv_bytes = 2 * c->n_layers * kv_layer_bytes(c, o);
    *work_bytes = at.work_bytes;
}

static void name_inputs(struct cts_forward *f)
{
    uint8_t *p = f->host_in;

    f->in = (struct cts_forward_in){
        .token = (int32_t *)(p + f->at.token),
        .pos = (int32_t *)(p + f->at.pos),
        .place = (int32_t *)(p + f->at.place),
        .seq = (int32_t *)(p + f->at.seq),
        .page_table = (int32_t *)(p + f->at.page_table),
        .logits_row = (int32_t *)(p + f->at.logits_row),
        .parts = (struct ctsk_row_part *)(p + f->at.parts),
    };
}

/* Limits that the offsets and the kernels' int32 indices rest on. */
static int check_opts(const struct cts_forward_opts *o, struct cts_err *err)
{
    if (o->n_rows_max == 0 || o->n_seqs_max == 0 || o->n_logits_max == 0 || o->page_tokens == 0 || o->n_pages == 0 ||
        o->n_pages_per_seq_max == 0 || (o->n_parts_max > 0 && o->rank_max == 0))
        return cts_err_set(err, CTS_EARG, "forward pass: a limit is 0");
    if ((uint64_t)o->n_pages * o->page_tokens > INT32_MAX)
        return cts_err_set(err, CTS_EARG, "forward pass: %u pages of %u tokens pass 2^31 places", o->n_pages,
                           o->page_tokens);
    return 0;
}

int cts_forward_new(struct cts_forward **out, struct ctsk_dev *d, struct ctsk_stream *s,
                    const struct cts_model_config *c, const struct cts_weights *w, const struct cts_forward_opts *o,
                    struct cts_err *err)
{
    struct cts_forward *f;
    uint64_t            kv_bytes, work_bytes;
    int                 rc = check_opts(o, err);

    if (rc != 0) return rc;
    f = calloc(1, sizeof(*f));
    if (f == NULL) return cts_err_set(err, -ENOMEM, "forward pass");
    f->dev = d;
    f->stream = s;
    f->c = *c;
    f->w = w;
    f->o = *o;
    f->n_q = c->n_heads * c->head_dim;
    f->n_kv = c->n_kv_heads * c->head_dim;
    f->n_qkv = f->n_q + 2 * f->n_kv;
    f->kv_layer_bytes = kv_layer_bytes(c, o);
    lay_out_inputs(&f->at, o);
    lay_out_work(&f->at, c, o);
    cts_forward_bytes(c, o, &kv_bytes, &work_bytes);

    f->host_in = ctsk_host_new(d, f->at.in_bytes);
    f->host_logits = ctsk_host_new(d, (size_t)o->n_logits_max * c->vocab_size * sizeof(float));
    if (f->host_in == NULL || f->host_logits == NULL) rc = -ENOMEM;
    if (rc == 0) rc = ctsk_buf_new(d, work_bytes, &f->work);
    if (rc == 0) rc = ctsk_buf_new(d, kv_bytes, &f->kv);
    if (rc != 0) {
        cts_forward_free(f);
        return cts_err_set(err, rc, "forward pass: %" PRIu64 " bytes of work space, %" PRIu64 " of KV cache",
                           work_bytes, kv_bytes);
    }
    name_inputs(f);
    *out = f;
    return 0;
}

void cts_forward_free(struct cts_forward *f)
{
    if (f == NULL) return;
    ctsk_buf_free(f->kv);
    ctsk_buf_free(f->work);
    if (f->host_logits != NULL) ctsk_host_free(f->dev, f->host_logits);
    if (f->host_in != NULL) ctsk_host_free(f->dev, f->host_in);
    free(f);
}

struct cts_forward_in *cts_forward_in(struct cts_forward *f)
{
    return &f->in;
}

void cts_forward_tap(struct cts_forward *f, cts_forward_tap_fn fn, void *arg)
{
    f->tap = fn;
    f->tap_arg = arg;
}

const float *cts_forward_logits(const struct cts_forward *f)
{
    return f->host_logits;
}

int cts_forward_wait(struct cts_forward *f)
{
    return ctsk_sync(f->stream);
}

/* Whether row r's place is the one that its sequence's page table gives its
 * position, and every page up to there exists: attention walks these pages. */
static int row_is_right(const struct cts_forward *f, uint32_t r)
{
    const struct cts_forward_in *in = &f->in;
    uint32_t                     page_tokens = f->o.page_tokens, pos, page, first = 0;
    const int32_t               *pages;

    if (in->token[r] < 0 || (uint32_t)in->token[r] >= f->c.vocab_size) return 0;
    if (in->pos[r] < 0 || (uint32_t)in->pos[r] >= f->c.max_positions) return 0;
    if (in->seq[r] < 0 || (uint32_t)in->seq[r] >= in->n_seqs) return 0;
    pos = (uint32_t)in->pos[r];
    page = pos / page_tokens;
    if (page >= f->o.n_pages_per_seq_max) return 0;
    if (r > 0 && in->seq[r] == in->seq[r - 1]) {
        if (in->pos[r] <= in->pos[r - 1]) return 0;
        first = (uint32_t)in->pos[r - 1] / page_tokens; /* the row before vouches for the pages before */
    }
    pages = in->page_table + (size_t)in->seq[r] * f->o.n_pages_per_seq_max;
    for (uint32_t i = first; i <= page; i++)
        if (pages[i] < 0 || (uint32_t)pages[i] >= f->o.n_pages) return 0;
    return (int64_t)in->place[r] == (int64_t)pages[page] * page_tokens + pos % page_tokens;
}

static int inputs_are_right(const struct cts_forward *f)
{
    const struct cts_forward_in *in = &f->in;

    if (in->n_rows > f->o.n_rows_max || in->n_seqs > f->o.n_seqs_max || in->n_parts > f->o.n_parts_max ||
        in->n_logits > f->o.n_logits_max)
        return 0;
    for (uint32_t r = 0; r < in->n_rows; r++)
        if (!row_is_right(f, r)) return 0;
    for (uint32_t i = 0; i < in->n_parts; i++) {
        const struct ctsk_row_part *p = &in->parts[i];
        if (p->row >= in->n_rows || p->factors == 0 || (i > 0 && p->row < in->parts[i - 1].row)) return 0;
    }
    for (uint32_t i = 0; i < in->n_logits; i++) {
        if (in->logits_row[i] < 0 || (uint32_t)in->logits_row[i] >= in->n_rows) return 0;
        if (i > 0 && in->logits_row[i] <= in->logits_row[i - 1]) return 0;
    }
    return 1;
}

static struct ctsk_ptr work_at(const struct cts_forward *f, uint64_t off)
{
    return ctsk_at(f->work, off);
}

static struct ctsk_ptr input_at(const struct cts_forward *f, uint64_t off)
{
    return ctsk_at(f->work, f->at.in + off);
}

/* A module's place in the work buffer: x [n_rows, n_in] and y with strides. */
struct module {
    uint64_t x, y; /* byte offsets */
    uint32_t x_ld, y_ld;
    int      accumulate;
};

/* What the rows' adapters add to one linear. */
static int adapt(struct cts_forward *f, uint32_t layer, enum cts_linear l, const struct module *m)
{
    uint32_t n_out, n_in;

    cts_linear_shape(&f->c, l, &n_out, &n_in);
    if (f->tap != NULL) f->tap(f->tap_arg, layer, l, work_at(f, m->x), f->in.n_rows, n_in, f->stream);
    if (f->in.n_parts == 0 || (f->in.skip_linears >> l & 1)) return 0;
    return ctsk_adapt(f->stream, &(struct ctsk_adapt){
                                     .x = work_at(f, m->x),
                                     .y = work_at(f, m->y),
                                     .row_parts = input_at(f, f->at.parts),
                                     .scratch = work_at(f, f->at.scratch),
                                     .n_rows = f->in.n_rows,
                                     .n_parts = f->in.n_parts,
                                     .n_in = n_in,
                                     .n_out = n_out,
                                     .x_ld = m->x_ld,
                                     .y_ld = m->y_ld,
                                     .rank_max = f->o.rank_max,
                                     .module_idx = cts_module_idx(layer, l),
                                 });
}

static int matmul(struct cts_forward *f, struct ctsk_ptr w, uint32_t n_out, uint32_t n_in, const struct module *m)
{
    return ctsk_matmul(f->stream, &(struct ctsk_matmul){
                                      .x = work_at(f, m->x),
                                      .w = w,
                                      .y = work_at(f, m->y),
                                      .n_rows = f->in.n_rows,
                                      .n_in = n_in,
                                      .n_out = n_out,
                                      .x_ld = m->x_ld,
                                      .y_ld = m->y_ld,
                                      .accumulate = m->accumulate,
                                  });
}

/* One linear and its adapters. */
static int linear(struct cts_forward *f, uint32_t layer, enum cts_linear l, const struct module *m)
{
    uint32_t n_out, n_in;
    int      rc;

    cts_linear_shape(&f->c, l, &n_out, &n_in);
    rc = matmul(f, f->w->layers[layer].linear[l], n_out, n_in, m);
    return rc != 0 ? rc : adapt(f, layer, l, m);
}

static int norm(struct cts_forward *f, struct ctsk_ptr w, uint64_t x, uint64_t y, uint32_t n_rows)
{
    return ctsk_rmsnorm(f->stream, &(struct ctsk_rmsnorm){
                                       .x = work_at(f, x),
                                       .w = w,
                                       .y = work_at(f, y),
                                       .n_rows = n_rows,
                                       .n_cols = f->c.hidden,
                                       .x_ld = f->c.hidden,
                                       .eps = f->c.rms_eps,
                                   });
}

/* q, k and v of every row by one product (their weights are one matrix), then
 * what the adapters add to each. */
static int make_qkv(struct cts_forward *f, uint32_t layer)
{
    const struct cts_layer_weights *lw = &f->w->layers[layer];
    struct module                   m = { .x = f->at.h, .y = f->at.qkv, .x_ld = f->c.hidden, .y_ld = f->n_qkv };
    int                             rc;

    if ((rc = norm(f, lw->attn_norm, f->at.x, f->at.h, f->in.n_rows)) != 0) return rc;
    if ((rc = matmul(f, lw->linear[CTS_Q], f->n_qkv, f->c.hidden, &m)) != 0) return rc;
    if ((rc = adapt(f, layer, CTS_Q, &m)) != 0) return rc;
    m.y = f->at.qkv + f->n_q * sizeof(float);
    if ((rc = adapt(f, layer, CTS_K, &m)) != 0) return rc;
    m.y = f->at.qkv + (f->n_q + f->n_kv) * sizeof(float);
    return adapt(f, layer, CTS_V, &m);
}

static int attend(struct cts_forward *f, uint32_t layer)
{
    struct ctsk_ptr k_pages = ctsk_at(f->kv, 2 * layer * f->kv_layer_bytes);
    struct ctsk_ptr v_pages = ctsk_at(f->kv, (2 * layer + 1) * f->kv_layer_bytes);
    int             rc;

    rc = ctsk_rope_append(f->stream, &(struct ctsk_rope_append){
                                         .q = work_at(f, f->at.qkv),
                                         .k = work_at(f, f->at.qkv + f->n_q * sizeof(float)),
                                         .v = work_at(f, f->at.qkv + (f->n_q + f->n_kv) * sizeof(float)),
                                         .cos = f->w->rope_cos,
                                         .sin = f->w->rope_sin,
                                         .pos = input_at(f, f->at.pos),
                                         .place = input_at(f, f->at.place),
                                         .k_pages = k_pages,
                                         .v_pages = v_pages,
                                         .n_rows = f->in.n_rows,
                                         .n_heads = f->c.n_heads,
                                         .n_kv_heads = f->c.n_kv_heads,
                                         .head_dim = f->c.head_dim,
                                         .qkv_ld = f->n_qkv,
                                     });
    if (rc != 0) return rc;
    return ctsk_attention(f->stream, &(struct ctsk_attention){
                                         .q = work_at(f, f->at.qkv),
                                         .y = work_at(f, f->at.attn),
                                         .pos = input_at(f, f->at.pos),
                                         .seq = input_at(f, f->at.seq),
                                         .page_table = input_at(f, f->at.page_table),
                                         .k_pages = k_pages,
                                         .v_pages = v_pages,
                                         .n_rows = f->in.n_rows,
                                         .n_heads = f->c.n_heads,
                                         .n_kv_heads = f->c.n_kv_heads,
                                         .head_dim = f->c.head_dim,
                                         .q_ld = f->n_qkv,
                                         .n_pages_max = f->o.n_pages_per_seq_max,
                                         .page_tokens = f->o.page_tokens,
                                         .scale = 1.0f / sqrtf((float)f->c.head_dim),
                                     });
}

static int mlp(struct cts_forward *f, uint32_t layer)
{
    struct module gate = { .x = f->at.h, .y = f->at.gate, .x_ld = f->c.hidden, .y_ld = f->c.intermediate };
    struct module up = { .x = f->at.h, .y = f->at.up, .x_ld = f->c.hidden, .y_ld = f->c.intermediate };
    struct module down = { f->at.gate, f->at.x, f->c.intermediate, f->c.hidden, .accumulate = 1 };
    int           rc;

    if ((rc = norm(f, f->w->layers[layer].mlp_norm, f->at.x, f->at.h, f->in.n_rows)) != 0) return rc;
    if ((rc = linear(f, layer, CTS_GATE, &gate)) != 0) return rc;
    if ((rc = linear(f, layer, CTS_UP, &up)) != 0) return rc;
    rc = ctsk_silu_mul(f->stream, &(struct ctsk_silu_mul){ .gate = work_at(f, f->at.gate),
                                                           .up = work_at(f, f->at.up),
                                                           .y = work_at(f, f->at.gate),
                                                           .n_rows = f->in.n_rows,
                                                           .n_cols = f->c.intermediate });
    return rc != 0 ? rc : linear(f, layer, CTS_DOWN, &down);
}

static int layer_pass(struct cts_forward *f, uint32_t layer)
{
    struct module o = { f->at.attn, f->at.x, f->n_q, f->c.hidden, .accumulate = 1 };
    int           rc;

    if ((rc = make_qkv(f, layer)) != 0) return rc;
    if ((rc = attend(f, layer)) != 0) return rc;
    if ((rc = linear(f, layer, CTS_O, &o)) != 0) return rc;
    return mlp(f, layer);
}

/* Logits of the wanted rows only: the head is the largest matrix of all. */
static int head_pass(struct cts_forward *f)
{
    uint32_t n = f->in.n_logits;
    int      rc;

    if (n == 0) return 0;
    rc = ctsk_gather(f->stream, &(struct ctsk_gather){ .y = work_at(f, f->at.head_x),
                                                       .x = work_at(f, f->at.x),
                                                       .ids = input_at(f, f->at.logits_row),
                                                       .n_rows = n,
                                                       .n_cols = f->c.hidden,
                                                       .x_ld = f->c.hidden });
    if (rc == 0) rc = norm(f, f->w->final_norm, f->at.head_x, f->at.head_x, n);
    if (rc == 0)
        rc = ctsk_matmul(f->stream, &(struct ctsk_matmul){ .x = work_at(f, f->at.head_x),
                                                           .w = f->w->head,
                                                           .y = work_at(f, f->at.logits),
                                                           .n_rows = n,
                                                           .n_in = f->c.hidden,
                                                           .n_out = f->c.vocab_size,
                                                           .x_ld = f->c.hidden,
                                                           .y_ld = f->c.vocab_size });
    if (rc == 0)
        rc = ctsk_download(f->stream, f->host_logits, f->work, f->at.logits,
                           (size_t)n * f->c.vocab_size * sizeof(float));
    return rc;
}

int cts_forward_step(struct cts_forward *f)
{
    uint64_t in_bytes = f->at.page_table + (uint64_t)f->in.n_seqs * f->o.n_pages_per_seq_max * sizeof(int32_t);
    int      rc;

    if (!inputs_are_right(f)) return CTS_ESHAPE;
    if (f->in.n_rows == 0) return 0;
    if ((rc = ctsk_upload(f->stream, f->work, f->at.in, f->host_in, in_bytes)) != 0) return rc;
    rc = ctsk_embed(f->stream, &(struct ctsk_embed){ .y = work_at(f, f->at.x),
                                                     .table = f->w->embed,
                                                     .ids = input_at(f, f->at.token),
                                                     .n_rows = f->in.n_rows,
                                                     .n_cols = f->c.hidden,
                                                     .n_ids = f->c.vocab_size });
    for (uint32_t i = 0; i < f->c.n_layers && rc == 0; i++) rc = layer_pass(f, i);
    return rc != 0 ? rc : head_pass(f);
}
