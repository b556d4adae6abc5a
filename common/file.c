#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Up to want bytes; how many came before the end, or -errno. */
static ssize_t read_all(int fd, char *dst, size_t want)
{
    size_t have = 0;

    while (have < want) {
        ssize_t got = read(fd, dst + have, want - have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -errno;
        if (got == 0) break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

/* The fd's bytes, whose count fstat has told, into new memory. */
static int read_text(int fd, const char *path, size_t bytes, char **text, struct cts_err *err)
{
    char   *p = malloc(bytes + 1);
    ssize_t have;

    if (p == NULL) return cts_err_set(err, -ENOMEM, "read '%s'", path);
    have = read_all(fd, p, bytes);
    if (have != (ssize_t)bytes) {
        free(p);
        if (have < 0) return cts_err_set(err, (int)have, "read '%s'", path);
        return cts_err_set(err, -EIO, "read '%s': %zd of %zu bytes", path, have, bytes);
    }
    p[bytes] = '\0';
    *text = p;
    return 0;
}

int cts_file_read(const char *path, size_t max_bytes, char **text, size_t *n, struct cts_err *err)
{
    struct stat st;
    int         rc;
    int         fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO is refused, not waited for */

    if (fd < 0) return cts_err_set(err, -errno, "open '%s'", path);
    if (fstat(fd, &st) < 0) rc = cts_err_set(err, -errno, "stat '%s'", path);
    else if (!S_ISREG(st.st_mode)) rc = cts_err_set(err, CTS_EFORMAT, "'%s' is not a regular file", path);
    else if ((uint64_t)st.st_size > max_bytes)
        rc = cts_err_set(err, -EFBIG, "'%s' has %lld bytes, at most %zu are read", path, (long long)st.st_size,
                         max_bytes);
    else rc = read_text(fd, path, (size_t)st.st_size, text, err);
    if (rc == 0) *n = (size_t)st.st_size;
    close(fd);
    return rc;
}

int cts_file_write(int fd, const void *src, uint64_t n)
{
    const uint8_t *p = src;

    while (n > 0) {
        ssize_t put = write(fd, p, n);

        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -errno;
        p += put;
        n -= (uint64_t)put;
    }
    return 0;
}
