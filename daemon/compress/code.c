#include "daemon/compress/code.h"

#include "common/assert.h"
#include "daemon/compress/linalg.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* x as it will be read back after it was stored in format t. */
static float stored(double x, enum cts_dtype t)
{
    float   f = (float)x;
    uint8_t bytes[4];

    if (t == CTS_F32) return f;
    cts_dtype_narrow(bytes, &f, 1, t);
    cts_dtype_widen(&f, bytes, 1, t);
    return f;
}

/* |dW| as a slot stores it. A norm that float32 would flush becomes the smallest
 * that it does not; the values are smaller then. */
static float scale_of(double norm)
{
    CTS_ASSERT(norm <= (double)FLT_MAX);
    return norm == 0 ? 0.0f : norm < (double)FLT_MIN ? FLT_MIN : (float)norm;
}

void cts_coded_free(struct cts_coded *c)
{
    free(c->values);
    *c = (struct cts_coded){ 0 };
}

int cts_coder_init(struct cts_coder *c, const struct cts_joint *j, enum cts_dtype basis_format)
{
    size_t r = j->rank;

    *c = (struct cts_coder){ .n_out = j->n_out, .n_in = j->n_in, .rank = j->rank };
    c->ut = cts_doubles(r, c->n_out);
    c->vt = cts_doubles(r, c->n_in);
    c->gu = cts_doubles(r, r);
    c->gv = cts_doubles(r, r);
    if (c->ut == NULL || c->vt == NULL || c->gu == NULL || c->gv == NULL) {
        cts_coder_free(c);
        return -ENOMEM;
    }
    for (size_t i = 0; i < r * c->n_out; i++) c->ut[i] = (double)stored(j->ut[i], basis_format);
    for (size_t i = 0; i < r * c->n_in; i++) c->vt[i] = (double)stored(j->vt[i], basis_format);
    cts_gram(c->rank, c->n_out, c->ut, c->gu);
    cts_gram(c->rank, c->n_in, c->vt, c->gv);
    return 0;
}

void cts_coder_free(struct cts_coder *c)
{
    free(c->gv);
    free(c->gu);
    free(c->vt);
    free(c->ut);
    *c = (struct cts_coder){ 0 };
}

int cts_coder_basis(const struct cts_coder *c, float **u, float **vt)
{
    size_t r = c->rank, n_out = c->n_out, n_in = c->n_in;

    *u = malloc(n_out * r * sizeof(**u));
    *vt = malloc(r * n_in * sizeof(**vt));
    if (*u == NULL || *vt == NULL) {
        free(*u);
        free(*vt);
        *u = *vt = NULL;
        return -ENOMEM;
    }
    for (size_t k = 0; k < r; k++)
        for (size_t i = 0; i < n_out; i++) (*u)[i * r + k] = (float)c->ut[k * n_out + i];
    for (size_t i = 0; i < r * n_in; i++) (*vt)[i] = (float)c->vt[i];
    return 0;
}

/* x [rank of d, r] = B^T U, y [rank of d, r] = A V, in float64. */
static int project(const struct cts_coder *c, const struct cts_delta *d, double *x, double *y)
{
    size_t  n = d->rank, n_max = c->n_out > c->n_in ? c->n_out : c->n_in;
    double *wide = cts_doubles(n, n_max);

    if (wide == NULL) return -ENOMEM;
    for (size_t i = 0; i < c->n_out; i++)
        for (size_t k = 0; k < n; k++) wide[k * c->n_out + i] = d->b[i * n + k];
    cts_mul_nt(d->rank, c->rank, c->n_out, wide, c->ut, x);
    for (size_t i = 0; i < n * c->n_in; i++) wide[i] = d->a[i];
    cts_mul_nt(d->rank, c->rank, c->n_in, wide, c->vt, y);
    free(wide);
    return 0;
}

/* |dW - scale U sigma V^T|^2. exact: U^T dW V / scale before sigma was stored. */
static int sigma_lost(const struct cts_coder *c, const struct cts_delta *d, const double *exact, struct cts_coded *out)
{
    size_t  r = c->rank;
    double  s = out->scale, cross;
    double *sigma = cts_doubles(r, r), *g = cts_doubles(r, r), *h = cts_doubles(r, r), *pt = NULL;
    int     rc = sigma == NULL || g == NULL || h == NULL ? -ENOMEM : 0;

    if (rc == 0) {
        for (size_t i = 0; i < r * r; i++) sigma[i] = out->values[i];
        cross = cts_dot(exact, sigma, r * r);
        /* |U sigma V^T|^2 = <sigma, (U^T U) sigma (V^T V)> */
        cts_mul_nn(c->rank, c->rank, c->rank, c->gu, sigma, g);
        cts_mul_nn(c->rank, c->rank, c->rank, g, c->gv, h);
        out->lost = out->total - s * s * (2 * cross - cts_dot(sigma, h, r * r));
    }
    if (rc == 0 && !(out->lost >= CTS_SHARE_TRUSTED * out->total)) {
        struct cts_pair p = { .k = c->rank, .c = s, .qt = c->vt };

        p.pt = pt = cts_doubles(r, c->n_out);
        if (pt == NULL) rc = -ENOMEM;
        else cts_mul_tn(c->rank, c->n_out, c->rank, sigma, c->ut, pt); /* (U sigma)^T */
        if (rc == 0) rc = cts_delta_lost(d, &p, out->total, &out->lost);
    }
    free(pt);
    free(h);
    free(g);
    free(sigma);
    return rc;
}

int cts_coder_sigma(const struct cts_coder *c, const struct cts_delta *d, double norm, enum cts_dtype format,
                    struct cts_coded *out)
{
    size_t  r = c->rank;
    double *x = cts_doubles(d->rank, r), *y = cts_doubles(d->rank, r), *exact = cts_doubles(r, r);
    int     rc;

    CTS_ASSERT(d->n_out == c->n_out && d->n_in == c->n_in);
    *out = (struct cts_coded){ .n_rows = c->rank, .n_cols = c->rank, .scale = scale_of(norm), .total = norm * norm };
    out->values = calloc(r * r, sizeof(*out->values));
    rc = x == NULL || y == NULL || exact == NULL || out->values == NULL ? -ENOMEM : 0;
    if (rc == 0 && norm > 0 && (rc = project(c, d, x, y)) == 0) {
        cts_mul_tn(c->rank, c->rank, d->rank, x, y, exact);
        for (size_t i = 0; i < r * r; i++) {
            exact[i] *= d->scale / (double)out->scale;
            out->values[i] = stored(exact[i], format);
        }
        rc = sigma_lost(c, d, exact, out);
    }
    free(exact);
    free(y);
    free(x);
    if (rc < 0) cts_coded_free(out);
    return rc;
}

/* The factors of the singular value decomposition of dW: dW = sum_i w[i] p_i q_i^T
 * with the rows p_i of pt [k, n_out] and q_i of qt [k, n_in]. */
struct triple {
    uint32_t k;
    double  *w, *pt, *qt;
};

static void triple_free(struct triple *t)
{
    free(t->qt);
    free(t->pt);
    free(t->w);
}

/* Through the QR of B and of A^T and the small matrix between them. */
static int decompose(const struct cts_delta *d, struct triple *t)
{
    uint32_t n = d->rank, kb = n < d->n_out ? n : d->n_out, ka = n < d->n_in ? n : d->n_in;
    double  *qb = cts_doubles(n, d->n_out), *qa = cts_doubles(n, d->n_in);
    double  *rb = cts_doubles(kb, n), *ra = cts_doubles(ka, n);
    double  *core = cts_doubles(kb, ka), *u = cts_doubles(kb, kb), *vt = cts_doubles(ka, ka);
    int      rc = -ENOMEM;

    t->k = kb < ka ? kb : ka;
    t->w = cts_doubles(t->k, 1);
    t->pt = cts_doubles(t->k, d->n_out);
    t->qt = cts_doubles(t->k, d->n_in);
    if (qb == NULL || qa == NULL || rb == NULL || ra == NULL || core == NULL || u == NULL || vt == NULL ||
        t->w == NULL || t->pt == NULL || t->qt == NULL)
        goto out;
    for (size_t i = 0; i < d->n_out; i++)
        for (size_t k = 0; k < n; k++) qb[k * d->n_out + i] = d->scale * d->b[i * n + k];
    for (size_t i = 0; i < (size_t)n * d->n_in; i++) qa[i] = d->a[i];
    if ((rc = cts_qr(qb, n, d->n_out, rb, 1)) < 0 || (rc = cts_qr(qa, n, d->n_in, ra, 1)) < 0) goto out;
    cts_mul_nt(kb, ka, n, rb, ra, core);
    if ((rc = cts_svd(core, kb, ka, t->w, u, vt)) < 0) goto out;
    cts_mul_tn(t->k, d->n_out, kb, u, qb, t->pt); /* u is [kb, k] */
    cts_mul_nn(t->k, d->n_in, ka, vt, qa, t->qt);

out:
    free(vt);
    free(u);
    free(core);
    free(ra);
    free(rb);
    free(qa);
    free(qb);
    return rc;
}

/* The first rank triples as P [n_out, rank] and Q^T [rank, n_in] in the stored
 * format, and what is lost by them. pt and qt of the triple become the stored values. */
static int store_pair(const struct cts_delta *d, struct triple *t, enum cts_dtype format, struct cts_coded *out)
{
    size_t          r = out->rank, n_out = d->n_out, n_in = d->n_in;
    struct cts_pair p = { .k = out->rank, .c = (double)out->scale, .pt = t->pt, .qt = t->qt };

    for (size_t k = 0; k < r; k++) {
        double root = sqrt(t->w[k] / (double)out->scale);

        for (size_t i = 0; i < n_out; i++)
            t->pt[k * n_out + i] = (double)(out->values[i * r + k] = stored(root * t->pt[k * n_out + i], format));
        for (size_t i = 0; i < n_in; i++)
            t->qt[k * n_in + i] =
                (double)(out->values[n_out * r + k * n_in + i] = stored(root * t->qt[k * n_in + i], format));
    }
    return cts_delta_lost(d, &p, out->total, &out->lost);
}

int cts_code_pair(const struct cts_delta *d, double norm, uint32_t rank, enum cts_dtype format, struct cts_coded *out)
{
    struct triple t = { 0 };
    uint32_t      k = d->rank;
    int           rc = 0;

    if (k > d->n_out) k = d->n_out;
    if (k > d->n_in) k = d->n_in;
    if (k > rank) k = rank;
    *out = (struct cts_coded){
        .n_rows = d->n_out, .n_cols = d->n_in, .rank = k, .scale = scale_of(norm), .total = norm * norm
    };
    out->values = calloc((size_t)k * ((size_t)d->n_out + d->n_in), sizeof(*out->values));
    if (out->values == NULL) rc = -ENOMEM;
    else if (norm > 0 && (rc = decompose(d, &t)) == 0) rc = store_pair(d, &t, format, out);
    triple_free(&t);
    if (rc < 0) cts_coded_free(out);
    return rc;
}
