#ifndef CTS_DAEMON_MODEL_FORWARD_H
#define CTS_DAEMON_MODEL_FORWARD_H

/* The forward pass, written once: one step over rows (token, position, pages,
 * list of parts) to logits. It knows no requests and no names. */

#include "common/err.h"
#include "daemon/model/model_config.h"
#include "daemon/model/weights.h"
#include "kernels/ctsk.h"

#include <stdint.h>

struct cts_forward_opts {
    uint32_t n_rows_max;           /* rows of a step */
    uint32_t n_seqs_max;           /* sequences in a step */
    uint32_t n_parts_max;          /* entries of all rows' part lists */
    uint32_t n_logits_max;         /* rows of a step whose logits are wanted */
    uint32_t n_pages, page_tokens; /* of the KV cache */
    uint32_t n_pages_per_seq_max;
    uint32_t rank_max; /* of any part */
};

/* The inputs of a step, in host memory that the device copies from. The caller
 * fills them between steps. Rows of one sequence ascend in position. */
struct cts_forward_in {
    uint32_t              n_rows, n_seqs, n_parts, n_logits;
    int32_t              *token;      /* [n_rows] */
    int32_t              *pos;        /* [n_rows], position in the sequence from 0 */
    int32_t              *place;      /* [n_rows], page * page_tokens + index: where k and v go */
    int32_t              *seq;        /* [n_rows], index into page_table */
    int32_t              *page_table; /* [n_seqs, n_pages_per_seq_max] */
    int32_t              *logits_row; /* [n_logits], rows whose logits are wanted, ascending */
    struct ctsk_row_part *parts;      /* [n_parts], as ctsk_adapt wants them */
    uint32_t skip_linears; /* bits of enum cts_linear that no part of this step changes; 0: any may be changed */
};

/* Called (tests and calibration only) with the device place of what feeds a
 * module, before the module runs: x f32 [n_rows, n_in]. */
typedef void (*cts_forward_tap_fn)(void *arg, uint32_t layer, enum cts_linear l, struct ctsk_ptr x, uint32_t n_rows,
                                   uint32_t n_in, struct ctsk_stream *s);

struct cts_forward;

/* Allocates everything, the KV cache included; a step allocates nothing.
 * The sum of bytes is cts_forward_bytes. s and w stay the caller's and outlive
 * the forward pass. 0, CTS_EARG (a limit is 0), -ENOMEM, CTS_EGPU. */
int  cts_forward_new(struct cts_forward **out, struct ctsk_dev *d, struct ctsk_stream *s,
                     const struct cts_model_config *c, const struct cts_weights *w, const struct cts_forward_opts *o,
                     struct cts_err *err);
void cts_forward_free(struct cts_forward *f);

/* Device bytes that cts_forward_new takes: KV cache and work space apart. No device needed. */
void cts_forward_bytes(const struct cts_model_config *c, const struct cts_forward_opts *o, uint64_t *kv_bytes,
                       uint64_t *work_bytes);

struct cts_forward_in *cts_forward_in(struct cts_forward *f);

void cts_forward_tap(struct cts_forward *f, cts_forward_tap_fn fn, void *arg);

/* Queue the step described by cts_forward_in. CTS_ESHAPE when a count passes its
 * limit, a token, position, page or row is out of range, or a place is not what
 * the page table gives its position (nothing queued); CTS_EGPU. */
int cts_forward_step(struct cts_forward *f);

/* Wait for the step. Then cts_forward_logits is [n_logits, vocab] in host memory. */
int          cts_forward_wait(struct cts_forward *f);
const float *cts_forward_logits(const struct cts_forward *f);

#endif
