/* Opening: whatever fails, nothing is left; a collection that does not belong to
 * the base is refused. */

#include "tests/engine_rig.h"
#include "tests/fault.h"
#include "tests/lossless.h"
#include "tests/tiny_collection.h"

#include <errno.h>
#include <string.h>

static char TOP[256], COLLECTION[300];

static void opening_survives_the_failure_of_any_allocation(void **state)
{
    struct cts_engine_opts o = rig_opts();
    int64_t                n_live = fault_n_live(), i;
    int                    n_failed = 0, rc = -1;

    (void)state;
    o.collection_dir = COLLECTION;
    o.n_threads = 2;
    /* Every one of the first, then ever fewer: a collection has a handful per slot. */
    for (i = 0; rc != 0; i += 1 + i / 24) {
        struct cts_engine *e = NULL;
        struct cts_err     err = { 0 };

        fault_after(i);
        rc = cts_engine_open(&e, &o, &err);
        fault_after(-1);
        CHECK_MSG(rc == 0 || rc == -ENOMEM || rc == -EAGAIN, "allocation %d: %d, %s\n", (int)i, rc, err.text);
        CHECK((rc == 0) == (e != NULL));
        CHECK(rc == 0 || err.text[0] != 0);
        if (rc == 0) cts_engine_close(e);
        CHECK_MSG(fault_n_live() == n_live, "allocation %d: %d are left\n", (int)i, (int)(fault_n_live() - n_live));
        n_failed += rc != 0;
    }
    CHECK(n_failed > 50);
}

static void check_refused(const struct cts_engine_opts *o, int code, const char *words)
{
    struct cts_engine *e = NULL;
    struct cts_err     err = { 0 };

    CHECK_MSG(cts_engine_open(&e, o, &err) == code, "%s\n", err.text);
    CHECK_MSG(strstr(err.text, words) != NULL, "'%s' does not say '%s'\n", err.text, words);
    CHECK(e == NULL);
}

static void a_collection_of_other_shapes_is_refused(void **state)
{
    struct cts_engine_opts o = rig_opts();
    static struct tiny     tiny;
    char                   dir[300];

    (void)state;
    snprintf(dir, sizeof(dir), "%s/tiny", TOP);
    tiny_fill(&tiny);
    CHECK(tiny_write(dir, &tiny.n, 0, &(struct cts_collection_bytes){ 0 }, NULL) == 0);
    o.collection_dir = dir;
    check_refused(&o, CTS_EFORMAT, "which the base does not have");
}

static void a_collection_of_another_base_is_refused(void **state)
{
    struct cts_engine_opts o = rig_opts();
    char                   base[512], dir[300], cmd[1200];

    (void)state;
    src_path(base, sizeof(base), "contrib/demo/base");
    snprintf(dir, sizeof(dir), "%s/base", TOP);
    snprintf(cmd, sizeof(cmd), "cp -r '%s' '%s' && sed -i 's/1e-05/1e-06/' '%s/config.json'", base, dir, dir);
    CHECK(system(cmd) == 0);
    o.base_dir = dir;
    o.collection_dir = COLLECTION;
    check_refused(&o, CTS_EDIGEST, "was made for another base");
}

static int setup(void **state)
{
    (void)state;
    temp_dir(TOP, sizeof(TOP));
    snprintf(COLLECTION, sizeof(COLLECTION), "%s/collection", TOP);
    lossless_write(COLLECTION, "contrib/demo/adapters/own-start", NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_tree(TOP);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_survives_the_failure_of_any_allocation),
        cmocka_unit_test(a_collection_of_other_shapes_is_refused),
        cmocka_unit_test(a_collection_of_another_base_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
