#ifndef CTS_DAEMON_COMPRESS_CODE_H
#define CTS_DAEMON_COMPRESS_CODE_H

/* From a fitted basis, or from nothing, to the values that a slot stores for
 * one adapter and one module, and what is lost by them. Errors are of the
 * values as they are stored, number formats included. */

#include "common/dtype.h"
#include "daemon/compress/delta.h"
#include "daemon/compress/joint.h"

#include <stdint.h>

/* What is stored, and the squared norms of dW and of what is lost of it. */
struct cts_coded {
    uint32_t n_rows, n_cols, rank; /* as struct cts_slot_part has them */
    float    scale;                /* |dW| */
    float   *values;               /* NULL: there is no part */
    double   total, lost;
};
void cts_coded_free(struct cts_coded *c); /* empty is fine */

/* A basis as it is stored. */
struct cts_coder {
    uint32_t n_out, n_in, rank;
    double  *ut, *vt; /* [rank, n_out], [rank, n_in]: the stored values, widened */
    double  *gu, *gv; /* [rank, rank]: Gram matrices of U and of V */
};

/* Take the fitted pair in a number format. 0, -ENOMEM (*c empty). */
int  cts_coder_init(struct cts_coder *c, const struct cts_joint *j, enum cts_dtype basis_format);
void cts_coder_free(struct cts_coder *c); /* empty is fine */

/* U [n_out, rank] and V^T [rank, n_in] as float32, the caller's to free. 0, -ENOMEM. */
int cts_coder_basis(const struct cts_coder *c, float **u, float **vt);

/* sigma = U^T dW V / |dW|. norm is |dW|; where it is 0 sigma and error are 0. 0,
 * -ENOMEM (*out empty). Any thread. */
int cts_coder_sigma(const struct cts_coder *c, const struct cts_delta *d, double norm, enum cts_dtype format,
                    struct cts_coded *out);

/* The pair P Q^T of at most rank columns that is nearest to dW / |dW|, the
 * singular values split evenly between P and Q. 0, -ENOMEM, -EDOM (*out empty). Any thread. */
int cts_code_pair(const struct cts_delta *d, double norm, uint32_t rank, enum cts_dtype format, struct cts_coded *out);

#endif
