#include "tests/fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Atomic int64_t n_left = -1, n_live;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *p, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
char *__real_strdup(const char *s);
void  __real_free(void *p);
void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t off);
int   __real_munmap(void *at, size_t bytes);
int   __real_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
char *__wrap_strdup(const char *s);
void  __wrap_free(void *p);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t off);
int   __wrap_munmap(void *at, size_t bytes);
int   __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

void fault_after(int64_t n)
{
    atomic_store(&n_left, n);
}

int64_t fault_n_live(void)
{
    return atomic_load(&n_live);
}

/* 1: this one fails. */
static int is_faulty(void)
{
    int64_t left = atomic_load(&n_left);

    while (left > 0)
        if (atomic_compare_exchange_weak(&n_left, &left, left - 1)) return 0;
    return left == 0;
}

static void *counted(void *p)
{
    if (p != NULL) atomic_fetch_add(&n_live, 1);
    return p;
}

void *__wrap_malloc(size_t bytes)
{
    return is_faulty() ? NULL : counted(__real_malloc(bytes));
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return is_faulty() ? NULL : counted(__real_calloc(n, bytes));
}

void *__wrap_realloc(void *p, size_t bytes)
{
    void *q = is_faulty() ? NULL : __real_realloc(p, bytes);

    return p == NULL ? counted(q) : q;
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    return is_faulty() ? NULL : counted(__real_aligned_alloc(align, bytes));
}

char *__wrap_strdup(const char *s)
{
    return is_faulty() ? NULL : counted(__real_strdup(s));
}

void __wrap_free(void *p)
{
    if (p != NULL) atomic_fetch_sub(&n_live, 1);
    __real_free(p);
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t off)
{
    void *p;

    if (is_faulty()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    p = __real_mmap(at, bytes, prot, flags, fd, off);
    if (p != MAP_FAILED) atomic_fetch_add(&n_live, 1);
    return p;
}

int __wrap_munmap(void *at, size_t bytes)
{
    atomic_fetch_sub(&n_live, 1);
    return __real_munmap(at, bytes);
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    return is_faulty() ? EAGAIN : __real_pthread_create(t, attr, fn, arg);
}
