#include "daemon/compress/report.h"

#include "common/json.h"
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char *method_name(const struct cts_compressed *c)
{
    return c->o.method == CTS_METHOD_SVD ? "svd" : "jd-full";
}

/* Bytes of A and B of all adapters as they lay in their files. */
static uint64_t bytes_before(const struct cts_adapter_set *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->n; i++) n += s->adapters[i].peft.tensor_bytes;
    return n;
}

static uint64_t bytes_after(const struct cts_collection_bytes *b)
{
    return b->basis + b->values + b->scales + b->headers;
}

static void print_adapters(const struct cts_compressed *c, FILE *f)
{
    int width = 7;

    for (uint32_t i = 0; i < c->set->n; i++)
        if ((int)strlen(c->set->adapters[i].name) > width) width = (int)strlen(c->set->adapters[i].name);
    fprintf(f, "%-*s cluster  error mean    energy  bytes: basis    values  scales  headers\n", width, "adapter");
    for (uint32_t i = 0; i < c->set->n; i++) {
        const struct cts_compress_adapter *a = &c->adapters[i];

        fprintf(f, "%-*s ", width, c->set->adapters[i].name);
        if (a->cluster == CTS_CLUSTER_NONE) fprintf(f, "%7s", "-");
        else fprintf(f, "%7" PRIu32, a->cluster);
        fprintf(f, "  %10.4g  %8.4g  %12" PRIu64 "  %8" PRIu64 "  %6" PRIu64 "  %7" PRIu64 "\n", a->error_mean,
                a->error_energy, a->basis_bytes, a->value_bytes, a->scale_bytes, a->header_bytes);
    }
}

void cts_report_print(const struct cts_report *r, FILE *f)
{
    const struct cts_compressed *c = r->c;
    uint64_t                     after = bytes_after(&r->bytes), before = bytes_before(c->set);
    char                         hex[CTS_DIGEST_HEX_BYTES];

    print_adapters(c, f);
    cts_digest_hex(r->digest, hex);
    fprintf(f, "\n%u adapters, %s, rank %u", c->set->n, method_name(c), c->o.rank);
    if (c->n_clusters > 0)
        fprintf(f, ", %u cluster%s, basis %s", c->n_clusters, c->n_clusters == 1 ? "" : "s",
                cts_dtype_name(c->o.basis_format));
    fprintf(f, ", %s %s\n", c->n_clusters > 0 ? "sigma" : "pairs", cts_dtype_name(c->o.format));
    fprintf(f, "error mean %.6f, energy %.6f\n", c->error_mean, c->error_energy);
    fprintf(f,
            "bytes: basis %" PRIu64 ", values %" PRIu64 ", scales %" PRIu64 ", headers %" PRIu64
            "; %.0f an adapter, was %.0f (%.1f times)\n",
            r->bytes.basis, r->bytes.values, r->bytes.scales, r->bytes.headers, (double)after / c->set->n,
            (double)before / c->set->n, (double)before / (double)after);
    fprintf(f, "collection %s in %s, %.1f s\n", hex, r->dir, r->seconds);
}

/* json_object_set_new that remembers a failure. */
static void set(json_t *o, const char *key, json_t *v, int *rc)
{
    if (o == NULL || v == NULL || json_object_set_new(o, key, v) < 0) *rc = -ENOMEM;
}

static json_t *adapter_json(const struct cts_compressed *c, uint32_t i, int *rc)
{
    const struct cts_compress_adapter *a = &c->adapters[i];
    json_t                            *o = json_object(), *b = json_object();
    char                               hex[CTS_DIGEST_HEX_BYTES];

    cts_digest_hex(c->set->adapters[i].peft.digest, hex);
    set(o, "name", json_string(c->set->adapters[i].name), rc);
    set(o, "digest", json_string(hex), rc);
    if (a->cluster != CTS_CLUSTER_NONE) set(o, "cluster", json_integer(a->cluster), rc);
    set(o, "error_mean", json_real(a->error_mean), rc);
    set(o, "error_energy", json_real(a->error_energy), rc);
    set(b, "basis", json_integer((json_int_t)a->basis_bytes), rc);
    set(b, "values", json_integer((json_int_t)a->value_bytes), rc);
    set(b, "scales", json_integer((json_int_t)a->scale_bytes), rc);
    set(b, "headers", json_integer((json_int_t)a->header_bytes), rc);
    set(o, "bytes", b, rc);
    return o;
}

static json_t *bytes_json(const struct cts_report *r, int *rc)
{
    json_t *o = json_object();

    set(o, "basis", json_integer((json_int_t)r->bytes.basis), rc);
    set(o, "values", json_integer((json_int_t)r->bytes.values), rc);
    set(o, "scales", json_integer((json_int_t)r->bytes.scales), rc);
    set(o, "headers", json_integer((json_int_t)r->bytes.headers), rc);
    set(o, "total", json_integer((json_int_t)bytes_after(&r->bytes)), rc);
    set(o, "before", json_integer((json_int_t)bytes_before(r->c->set)), rc);
    return o;
}

static json_t *refused_json(const struct cts_adapter_set *s, int *rc)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < s->n_refused; i++) {
        json_t *o = json_object();

        set(o, "name", json_string(s->refused[i].name), rc);
        set(o, "why", json_string(s->refused[i].why.text), rc);
        if (json_array_append_new(list, o) < 0) *rc = -ENOMEM;
    }
    return list;
}

static void head_json(const struct cts_report *r, json_t *j, int *rc)
{
    const struct cts_compressed *c = r->c;
    char                         hex[CTS_DIGEST_HEX_BYTES];

    cts_digest_hex(r->digest, hex);
    set(j, "collection", json_string(r->dir), rc);
    set(j, "digest", json_string(hex), rc);
    set(j, "tool", json_string("cts-compress " PACKAGE_VERSION), rc);
    set(j, "method", json_string(method_name(c)), rc);
    set(j, "rank", json_integer(c->o.rank), rc);
    set(j, "clusters", json_integer(c->n_clusters), rc);
    set(j, "assignment", json_string(c->assignment), rc);
    set(j, "seed", json_integer((json_int_t)c->o.seed), rc);
    set(j, "sigma_format", json_string(cts_dtype_name(c->o.format)), rc);
    set(j, "basis_format", json_string(cts_dtype_name(c->o.basis_format)), rc);
    set(j, "threads", json_integer(c->o.n_threads), rc);
    set(j, "seconds", json_real(r->seconds), rc);
    set(j, "error_mean", json_real(c->error_mean), rc);
    set(j, "error_energy", json_real(c->error_energy), rc);
}

int cts_report_json(const struct cts_report *r, const char *path, struct cts_err *err)
{
    json_t *j = json_object(), *list = json_array();
    int     rc = 0;

    head_json(r, j, &rc);
    set(j, "bytes", bytes_json(r, &rc), &rc);
    for (uint32_t i = 0; i < r->c->set->n; i++)
        if (json_array_append_new(list, adapter_json(r->c, i, &rc)) < 0) rc = -ENOMEM;
    set(j, "adapters", list, &rc);
    set(j, "refused", refused_json(r->c->set, &rc), &rc);
    if (rc < 0) rc = cts_err_set(err, rc, "the report");
    else if (strcmp(path, "-") != 0) rc = cts_json_save(j, path, err);
    else if (json_dumpf(j, stdout, JSON_INDENT(1)) < 0 || putchar('\n') == EOF || fflush(stdout) != 0)
        rc = cts_err_set(err, -EIO, "write the report");
    json_decref(j);
    return rc;
}
