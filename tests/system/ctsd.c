#include "tests/system/ctsd.h"

#include "tests/check.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_TIMEOUT_MS 60000
#define SETTINGS_MAX     16

static const char *build_dir(void)
{
    const char *dir = getenv("CTS_BUILDDIR");

    return dir != NULL ? dir : ".";
}

static void print_log(const struct ctsd *d)
{
    char  path[128], line[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/log", d->dir);
    f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) print_error("ctsd: %s", line);
    if (f != NULL) fclose(f);
}

/* The socket on which the daemon says READY=1, as it does to systemd. */
static int open_notify(const struct ctsd *d)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int                fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s/notify", d->dir);
    CHECK(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    setenv("NOTIFY_SOCKET", a.sun_path, 1);
    return fd;
}

static void exec_ctsd(const struct ctsd *d, const char *const *settings)
{
    char        program[512], base[512], model[600], listen[128], log[128];
    const char *argv[2 * SETTINGS_MAX + 8] = { program, "--set", model, "--set", listen };
    int         n = 5;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(program, sizeof(program), "%s/ctsd", build_dir());
    snprintf(model, sizeof(model), "model.path=%s", src_path(base, sizeof(base), "contrib/demo/base"));
    snprintf(listen, sizeof(listen), "listen.socket=%s", d->socket);
    snprintf(log, sizeof(log), "%s/log", d->dir);
    for (int i = 0; settings != NULL && settings[i] != NULL && i < SETTINGS_MAX; i++) {
        argv[n++] = "--set";
        argv[n++] = settings[i];
    }
    if (freopen(log, "w", stderr) == NULL || freopen("/dev/null", "r", stdin) == NULL) _exit(126);
    execv(program, (char *const *)argv);
    fprintf(stderr, "exec '%s': %s\n", program, strerror(errno));
    _exit(127);
}

static int has_ended(struct ctsd *d)
{
    int status;

    if (waitpid(d->pid, &status, WNOHANG) != d->pid) return 0;
    d->pid = 0;
    return 1;
}

static void wait_ready(struct ctsd *d, int notify_fd)
{
    struct pollfd p = { .fd = notify_fd, .events = POLLIN };
    char          state[256];

    for (int waited_ms = 0; waited_ms < READY_TIMEOUT_MS; waited_ms += 100) {
        ssize_t n;

        if (poll(&p, 1, 100) <= 0) {
            if (has_ended(d)) break;
            continue;
        }
        n = recv(notify_fd, state, sizeof(state) - 1, 0);
        state[n > 0 ? n : 0] = '\0';
        if (strstr(state, "READY=1") != NULL) return;
    }
    print_log(d);
    CHECK_MSG(0, "ctsd did not become ready\n");
}

void ctsd_start(struct ctsd *d, const char *const *settings)
{
    int notify_fd;

    *d = (struct ctsd){ .pid = 0 };
    temp_dir(d->dir, sizeof(d->dir));
    snprintf(d->socket, sizeof(d->socket), "%s/socket", d->dir);
    setenv("CTS_SOCKET", d->socket, 1);
    notify_fd = open_notify(d);
    d->pid = fork();
    CHECK(d->pid >= 0);
    if (d->pid == 0) exec_ctsd(d, settings);
    wait_ready(d, notify_fd);
    close(notify_fd);
    unsetenv("NOTIFY_SOCKET");
}

/* A killed daemon leaves its socket and lock. */
static void remove_dir(const struct ctsd *d)
{
    char           path[512];
    struct dirent *e;
    DIR           *dir = opendir(d->dir);

    CHECK(dir != NULL);
    while ((e = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", d->dir, e->d_name);
        if (e->d_name[0] != '.') (void)unlink(path);
    }
    closedir(dir);
    CHECK_MSG(rmdir(d->dir) == 0, "'%s' is not empty\n", d->dir);
}

void ctsd_wait(struct ctsd *d)
{
    int status;

    CHECK(waitpid(d->pid, &status, 0) == d->pid);
    d->pid = 0;
    if (status != 0) print_log(d);
    CHECK_MSG(status == 0, "ctsd ended with status 0x%x\n", status);
}

void ctsd_stop(struct ctsd *d)
{
    if (d->pid != 0) {
        kill(d->pid, SIGTERM);
        ctsd_wait(d);
    }
    remove_dir(d);
}

void ctsd_kill(struct ctsd *d)
{
    kill(d->pid, SIGKILL);
    CHECK(waitpid(d->pid, NULL, 0) == d->pid);
    d->pid = 0;
}

/* Standard input of a command, from a file that is gone at once. */
static FILE *input_file(const char *input)
{
    FILE *f = tmpfile();

    CHECK(f != NULL);
    CHECK(fputs(input != NULL ? input : "", f) >= 0);
    rewind(f);
    return f;
}

int run_command(const char *input, char *out, size_t cap, const char *fmt, ...)
{
    char    command[2048], path[512], full[4096];
    FILE   *in = input_file(input), *f;
    int     saved = dup(STDIN_FILENO), status;
    size_t  n;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    snprintf(full, sizeof(full), "exec 2>&1; ctsctl='%s/ctsctl'; demo='%s'; %s", build_dir(),
             src_path(path, sizeof(path), "contrib/demo"), command);
    CHECK(dup2(fileno(in), STDIN_FILENO) == STDIN_FILENO);
    f = popen(full, "r");
    CHECK(f != NULL);
    n = fread(out, 1, cap - 1, f);
    out[n] = '\0';
    status = pclose(f);
    dup2(saved, STDIN_FILENO);
    close(saved);
    fclose(in);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}
