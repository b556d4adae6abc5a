/* Runs a target over its seeds, whole, cut off at every sixteenth of their
 * length and with single bytes changed: what make check can afford of a fuzzer. */

#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>

#define SEED_BYTES_MAX (1u << 20)
#define CUTS           16u
#define CHANGES        64u

/* A copy of exactly n bytes, so that a sanitizer sees the first byte behind it. */
static void run(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n > 0 ? n : 1);

    if (copy == NULL) abort();
    memcpy(copy, data, n);
    (void)LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

static void run_around(uint8_t *data, size_t n)
{
    run(data, n);
    for (size_t i = 0; i < CUTS; i++) run(data, n * i / CUTS);
    for (size_t i = 0; i < CHANGES && n > 0; i++) {
        size_t  at = (i * 2654435761u) % n;
        uint8_t was = data[at];

        data[at] = (uint8_t)(i % 3 == 0 ? 0 : i % 3 == 1 ? 0xff : was ^ 1u << i % 8);
        run(data, n);
        data[at] = was;
    }
}

/* 1 when the file could be read. */
static int run_file(const char *path)
{
    static uint8_t data[SEED_BYTES_MAX];
    FILE          *f = fopen(path, "rb");
    size_t         n;

    if (f == NULL) return 0;
    n = fread(data, 1, sizeof(data), f);
    fclose(f);
    run_around(data, n);
    return 1;
}

int main(int argc, char **argv)
{
    const char    *src = getenv("CTS_SRCDIR"), *name = strstr(basename(argv[0]), "fuzz_");
    char           dir[4096], path[4400];
    unsigned       n = 0;
    DIR           *d;
    struct dirent *e;

    if (argc > 1 || name == NULL) {
        fprintf(stderr, "usage: %s (runs its seeds below $CTS_SRCDIR/tests/fuzz/seeds)\n", argv[0]);
        return 2;
    }
    snprintf(dir, sizeof(dir), "%s/tests/fuzz/seeds/%s", src != NULL ? src : ".", name + strlen("fuzz_"));
    d = opendir(dir);
    while (d != NULL && (e = readdir(d)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.' && !run_file(path)) return 1;
        n += e->d_name[0] != '.';
    }
    if (d != NULL) closedir(d);
    printf("%s: %u seeds\n", name, n);
    return n > 0 ? 0 : 1; /* a corpus that is not found has shown nothing */
}
