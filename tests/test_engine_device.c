/* What a failing device does to requests: those in the step get the error, the
 * engine goes on; a lost device ends everything and refuses what comes. The waits
 * of the forward pass are diverted to fail on command. */

#include "tests/engine_rig.h"

#include "daemon/model/forward.h"

#include <stdatomic.h>
#include <string.h>

static struct golden G;

static _Atomic int fail_code;  /* what the next wait of a step gives; 0: what it really gives */
static _Atomic int fail_after; /* waits before that */

int __real_cts_forward_wait(struct cts_forward *f);
int __wrap_cts_forward_wait(struct cts_forward *f);

int __wrap_cts_forward_wait(struct cts_forward *f)
{
    int rc = __real_cts_forward_wait(f);

    if (atomic_load(&fail_code) == 0 || atomic_fetch_sub(&fail_after, 1) > 0) return rc;
    return atomic_exchange(&fail_code, 0);
}

static void admit(struct rig *rig, struct answer *a, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) rig_admit(rig, rig_request(rig, &a[i], &G.rows[i]));
}

static void a_failed_step_ends_its_requests_and_the_engine_goes_on(void **state)
{
    struct cts_engine_opts  o = rig_opts();
    struct cts_engine_stats s;
    struct rig              rig;
    struct answer           a[8];
    uint32_t                n_failed = 0;

    (void)state;
    o.n_seqs_max = 4; /* the other four wait and are not touched */
    rig_open(&rig, &o);
    atomic_store(&fail_after, 2);
    atomic_store(&fail_code, CTS_EGPU);
    admit(&rig, a, 8);
    rig_wait(&rig, 0);
    for (int i = 0; i < 8; i++) {
        CHECK(a[i].is_over);
        if (a[i].code == 0) CHECK(answer_differs(&a[i], &G.rows[i]) == NULL);
        else CHECK(a[i].code == CTS_EGPU && ++n_failed);
    }
    CHECK(n_failed >= 1 && n_failed <= 4);
    admit(&rig, a, 8);
    rig_wait(&rig, 0);
    for (int i = 0; i < 8; i++) CHECK(answer_differs(&a[i], &G.rows[i]) == NULL);
    cts_engine_stats(rig.e, &s);
    CHECK(s.n_errors == n_failed && s.n_pages_free == s.n_pages);
    rig_close(&rig);
}

static void a_lost_device_ends_everything_and_refuses_what_comes(void **state)
{
    struct cts_engine_opts o = rig_opts();
    struct rig             rig;
    struct answer          a[8];

    (void)state;
    o.n_seqs_max = 4;
    rig_open(&rig, &o);
    atomic_store(&fail_after, 1);
    atomic_store(&fail_code, CTS_EGPU_LOST);
    admit(&rig, a, 8);
    rig_wait(&rig, 0);
    for (int i = 0; i < 8; i++) CHECK(a[i].is_over && a[i].code == CTS_EGPU_LOST);
    admit(&rig, a, 1);
    rig_wait(&rig, 0);
    CHECK(a[0].code == CTS_EGPU_LOST && a[0].n_tokens == 0);
    rig_close(&rig);
}

/* An adapter whose numbers run over is its request's misfortune alone. */
static void a_row_that_overflows_fails_alone(void **state)
{
    struct cts_engine_opts     o = rig_opts();
    struct rig                 rig;
    struct answer              a[4];
    struct cts_engine_request *req;
    uint32_t                   idx;

    (void)state;
    rig_open(&rig, &o);
    idx = rig_load(&rig, "contrib/demo/adapters/own-start/has-city");
    for (uint32_t i = 0; i < 4; i++) {
        req = rig_request(&rig, &a[i], &G.rows[i]);
        req->n_parts = i == 2;
        req->parts[0] = (struct cts_request_part){ idx, 3e38f };
        rig_admit(&rig, req);
    }
    rig_wait(&rig, 0);
    for (uint32_t i = 0; i < 4; i++) {
        if (i == 2) CHECK(a[i].code == CTS_EGPU && a[i].n_tokens == 0);
        else CHECK(answer_differs(&a[i], &G.rows[i]) == NULL);
    }
    rig_close(&rig);
}

static int setup(void **state)
{
    (void)state;
    golden_load(&G);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    golden_free(&G);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_step_ends_its_requests_and_the_engine_goes_on),
        cmocka_unit_test(a_lost_device_ends_everything_and_refuses_what_comes),
        cmocka_unit_test(a_row_that_overflows_fails_alone),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
