#include "daemon/compress/assign.h"

#include "common/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 30)

static int compare_adapter(const void *key, const void *elem)
{
    return strcmp(key, ((const struct cts_adapter *)elem)->name);
}

static int is_refused(const struct cts_adapter_set *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_refused; i++)
        if (strcmp(s->refused[i].name, name) == 0) return 1;
    return 0;
}

static int read_entry(const char *name, const json_t *v, const struct cts_adapter_set *s, uint32_t *cluster,
                      struct cts_err *err)
{
    const struct cts_adapter *a = NULL;

    if (s->n > 0) a = bsearch(name, s->adapters, s->n, sizeof(*a), compare_adapter);
    if (a == NULL && is_refused(s, name)) return 0;
    if (a == NULL) return cts_err_set(err, CTS_ENOTFOUND, "there is no adapter '%s'", name);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= (json_int_t)s->n)
        return cts_err_set(err, CTS_EFORMAT, "the cluster of '%s' is not a number from 0 to %u", name, s->n - 1);
    cluster[a - s->adapters] = (uint32_t)json_integer_value(v);
    return 0;
}

/* Every adapter has a cluster, every cluster up to the highest an adapter. */
static int check_whole(const struct cts_adapter_set *s, const uint32_t *cluster, uint32_t *n_clusters,
                       struct cts_err *err)
{
    uint8_t *has = calloc((size_t)s->n + 1, 1);
    uint32_t n = 0;
    int      rc = has == NULL ? cts_err_set(err, -ENOMEM, "%u clusters", s->n) : 0;

    for (uint32_t i = 0; i < s->n && rc == 0; i++) {
        if (cluster[i] == UINT32_MAX) {
            rc = cts_err_set(err, CTS_ENOTFOUND, "adapter '%s' has no cluster", s->adapters[i].name);
            break;
        }
        has[cluster[i]] = 1;
        if (cluster[i] >= n) n = cluster[i] + 1;
    }
    for (uint32_t k = 0; k < n && rc == 0; k++)
        if (!has[k])
            rc = cts_err_set(err, CTS_EFORMAT,
                             "cluster %u has no adapter: number the clusters from 0 without a gap", k);
    if (rc == 0) *n_clusters = n;
    free(has);
    return rc;
}

int cts_assign_load(const char *path, const struct cts_adapter_set *s, uint32_t *cluster, uint32_t *n_clusters,
                    struct cts_err *err)
{
    json_t     *j = NULL, *v;
    const char *name;
    int         rc = cts_json_load(path, FILE_BYTES_MAX, &j, err);

    if (rc < 0) return rc;
    for (uint32_t i = 0; i < s->n; i++) cluster[i] = UINT32_MAX;
    json_object_foreach(j, name, v)
    {
        rc = read_entry(name, v, s, cluster, err);
        if (rc < 0) break;
    }
    if (rc == 0) rc = check_whole(s, cluster, n_clusters, err);
    json_decref(j);
    return rc < 0 ? cts_err_prefix(err, rc, "'%s'", path) : 0;
}
