/* ctsd.conf. libconfuse reads files, so the bytes go through a memfd. */

#include "tests/fuzz/fuzz.h"

#include "daemon/config.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* libconfuse forgets the arguments of a function that the file ends within: some
 * bytes, once, since ctsd reads its file once. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfuse";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct cts_config c;
    struct cts_err    err = { .code = 0 };
    char              path[64];
    int               fd = memfd_create("fuzz", MFD_CLOEXEC);

    if (fd < 0 || cts_config_init(&c) != 0) abort();
    if (write(fd, data, n) != (ssize_t)n) abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (cts_config_load(&c, path, &err) != 0) PROMISE(err.text[0] != '\0');
    else (void)cts_config_check(&c, &err);
    cts_config_deinit(&c);
    close(fd);
    return 0;
}
