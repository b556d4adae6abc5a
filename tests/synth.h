#ifndef CTS_TESTS_SYNTH_H
#define CTS_TESTS_SYNTH_H

/* Adapters made of random numbers, in memory, for the compressor's tests. */

#include "daemon/compress/adapter_set.h"
#include "daemon/compress/linalg.h"
#include "tests/check.h"

#include <math.h>
#include <string.h>

/* A number between -1 and 1. */
static inline float synth_value(uint64_t *random)
{
    return (float)((double)(int64_t)cts_random(random) * 0x1p-63);
}

static inline void synth_fill(float *x, size_t n, uint64_t *random)
{
    for (size_t i = 0; i < n; i++) x[i] = synth_value(random);
}

/* A delta with values of its own. */
static inline struct cts_delta synth_delta(uint32_t n_out, uint32_t n_in, uint32_t rank, uint64_t *random)
{
    float *b = malloc((size_t)n_out * rank * sizeof(*b)), *a = malloc((size_t)n_in * rank * sizeof(*a));

    CHECK(a != NULL && b != NULL);
    synth_fill(b, (size_t)n_out * rank, random);
    synth_fill(a, (size_t)n_in * rank, random);
    return (struct cts_delta){ .n_out = n_out, .n_in = n_in, .rank = rank, .scale = 2.0, .b = b, .a = a };
}

static inline void synth_delta_free(struct cts_delta *d)
{
    free((void *)(uintptr_t)d->b);
    free((void *)(uintptr_t)d->a);
}

/* dW [n_out, n_in] itself, the caller's to free. Small ones only. */
static inline double *synth_form(const struct cts_delta *d)
{
    double *w = calloc((size_t)d->n_out * d->n_in, sizeof(*w));

    CHECK(w != NULL);
    for (size_t i = 0; i < d->n_out; i++)
        for (size_t k = 0; k < d->rank; k++)
            for (size_t j = 0; j < d->n_in; j++)
                w[i * d->n_in + j] += d->scale * (double)d->b[i * d->rank + k] * (double)d->a[k * d->n_in + j];
    return w;
}

/* n adapters over n_modules layers' q_proj [n_out, n_in], named a00, a01, ... */
static inline void synth_set(struct cts_adapter_set *s, uint32_t n, uint32_t n_modules, uint32_t n_out, uint32_t n_in,
                             uint32_t rank, uint64_t seed)
{
    *s = (struct cts_adapter_set){ .n = n, .n_modules = n_modules };
    s->config.n_layers = n_modules;
    s->adapters = calloc(n, sizeof(*s->adapters));
    s->modules = calloc(n_modules, sizeof(*s->modules));
    s->place = calloc((size_t)n * n_modules, sizeof(*s->place));
    CHECK(s->adapters != NULL && s->modules != NULL && s->place != NULL);
    for (uint32_t m = 0; m < n_modules; m++)
        s->modules[m] = (struct cts_set_module){ .layer = m, .linear = CTS_Q, .n_out = n_out, .n_in = n_in };
    for (uint32_t i = 0; i < n; i++) {
        struct cts_adapter *a = &s->adapters[i];

        CHECK(asprintf(&a->name, "a%02u", i) > 0);
        a->norm = calloc(n_modules, sizeof(*a->norm));
        a->peft.n_modules = n_modules;
        a->peft.modules = calloc(n_modules, sizeof(*a->peft.modules));
        CHECK(a->norm != NULL && a->peft.modules != NULL);
        memset(a->peft.digest, (int)i, sizeof(a->peft.digest));
        for (uint32_t m = 0; m < n_modules; m++) {
            uint64_t         random = cts_random_stream(seed, (uint64_t)i * n_modules + m);
            struct cts_delta d = synth_delta(n_out, n_in, rank, &random);

            a->peft.modules[m] = (struct cts_peft_module){ .layer = m, .linear = CTS_Q, .rank = rank, .n_out = n_out,
                                                           .n_in = n_in, .scale = 2.0f, .a = d.a, .b = d.b };
            s->place[(size_t)i * n_modules + m] = (int32_t)m;
        }
    }
}

/* The factors of one module, to change them. */
static inline float *synth_b(struct cts_adapter_set *s, uint32_t adapter_idx, uint32_t module_idx)
{
    return (float *)(uintptr_t)s->adapters[adapter_idx].peft.modules[module_idx].b;
}

static inline float *synth_a(struct cts_adapter_set *s, uint32_t adapter_idx, uint32_t module_idx)
{
    return (float *)(uintptr_t)s->adapters[adapter_idx].peft.modules[module_idx].a;
}

/* The norms, once all values stand. */
static inline void synth_measure(struct cts_adapter_set *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        for (uint32_t m = 0; m < s->n_modules; m++) {
            struct cts_delta d;

            CHECK(cts_adapter_set_delta(s, i, m, &d, NULL) == 1);
            CHECK(cts_delta_norm(&d, &s->adapters[i].norm[m]) == 0);
        }
}

static inline void synth_set_free(struct cts_adapter_set *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        for (uint32_t m = 0; m < s->n_modules; m++) {
            free(synth_a(s, i, m));
            free(synth_b(s, i, m));
        }
        free(s->adapters[i].peft.modules);
        s->adapters[i].peft = (struct cts_peft){ 0 };
    }
    cts_adapter_set_free(s);
}

#endif
