/* The administrator's and the curious user's command: this file is the table of
 * commands, the command line and help. */
#include "client/ctsctl.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct ctsctl_option GLOBAL[] = {
    { "socket", "PATH", "the daemon's control socket (default: $CTS_SOCKET, else the built-in path)" },
    { "json", NULL, "print one line of JSON" },
    { "help", NULL, "print this help" },
    { NULL, NULL, NULL },
};

static const struct ctsctl_option RUN[] = {
    { "base", NULL, "ask the base model alone; then the only argument is PROMPT" },
    { "chat", NULL, "PROMPT is one user message (the default where the base has a chat template)" },
    { "raw", NULL, "PROMPT goes to the model as it is" },
    { "system", "TEXT", "a system message before it" },
    { "max-tokens", "N", "generate at most N tokens" },
    { "temperature", "X", "0 takes the likeliest token, above 0 draws" },
    { "top-k", "N", "draw from the N likeliest tokens, 0 from all" },
    { "top-p", "X", "draw from the likeliest tokens that sum up to X" },
    { "seed", "N", "draw the same again" },
    { "stop", "TEXT", "end before TEXT; may be given several times" },
    { "logprobs", "N", "with --json: the N likeliest tokens of each place too" },
    { NULL, NULL, NULL },
};

static const struct ctsctl_option LOAD[] = {
    { "name", "NAME", "its name at the daemon (default: the folder's)" },
    { NULL, NULL, NULL },
};

static const struct ctsctl_option STOP[] = {
    { "no-wait", NULL, "return at once, not when the daemon is gone" },
    { NULL, NULL, NULL },
};

static const struct ctsctl_option EVAL[] = {
    { "adapters", "LIST", "only these, separated by commas" },
    { "suffix", "TEXT", "ask for NAME followed by TEXT, e.g. .exact" },
    { "limit", "N", "at most N prompts an adapter" },
    { "prompts", "N", "at most N lines of the second form" },
    { "concurrency", "N", "requests in flight (default: 64)" },
    { "max-tokens", "N", "generate at most N tokens an answer (default: 128)" },
    { "table", NULL, "print each answer beside the right one" },
    { "json", "FILE", "write the results to FILE as JSON, - for standard output" },
    { NULL, NULL, NULL },
};

static const struct ctsctl_command COMMANDS[] = {
    { "status", "", "what the daemon serves and how it is", 0, 0, NULL, ctsctl_status },
    { "health", "", "whether the daemon serves, as an exit status", 0, 0, NULL, ctsctl_health },
    { "ls", "", "list the adapters", 0, 0, NULL, ctsctl_ls },
    { "show", "NAME", "all about one adapter", 1, 1, NULL, ctsctl_show },
    { "run", "NAME [PROMPT]",
      "ask an adapter and print its answer as it comes; PROMPT - reads standard input", 0, 2, RUN,
      ctsctl_run },
    { "load", "DIR", "load a PEFT folder, uncompressed", 1, 1, LOAD, ctsctl_load },
    { "unload", "NAME", "take out what load brought, after its last request", 1, 1, NULL, ctsctl_unload },
    { "eval", "FILE", "ask every question of a file and count right answers", 1, 1, EVAL, ctsctl_eval },
    { "stop", "", "let the daemon finish its requests and exit", 0, 0, STOP, ctsctl_stop },
    { "version", "", "print the versions of ctsctl and of the daemon", 0, 0, NULL, ctsctl_version },
    { "help", "[COMMAND]", "print help", 0, 1, NULL, ctsctl_help },
};
#define N_COMMANDS (sizeof(COMMANDS) / sizeof(COMMANDS[0]))

static const struct ctsctl_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(COMMANDS[i].name, name) == 0) return &COMMANDS[i];
    return NULL;
}

/* ---- help ---- */

static int has_option(const struct ctsctl_option *list, const char *name)
{
    for (; list != NULL && list->name != NULL; list++)
        if (strcmp(list->name, name) == 0) return 1;
    return 0;
}

static void print_options(const struct ctsctl_option *list, const struct ctsctl_option *hidden_by)
{
    for (; list != NULL && list->name != NULL; list++) {
        char left[40];

        if (has_option(hidden_by, list->name)) continue;
        snprintf(left, sizeof(left), "%s--%s%s%s", strcmp(list->name, "help") == 0 ? "-h, " : "", list->name,
                 list->arg != NULL ? " " : "", list->arg != NULL ? list->arg : "");
        printf("  %-18s  %s\n", left, list->text);
    }
}

static void print_help(const struct ctsctl_command *c)
{
    if (c != NULL) {
        printf("usage: ctsctl %s [OPTION]...%s%s\n%s\n\n", c->name, c->args[0] != '\0' ? " " : "", c->args, c->text);
        print_options(c->options, NULL);
        print_options(GLOBAL, c->options);
        return;
    }
    printf("usage: ctsctl [OPTION]... COMMAND [ARGUMENT]...\nTalk to ctsd, the server of compressed LoRA "
           "adapters.\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char left[40];

        snprintf(left, sizeof(left), "%s %s", COMMANDS[i].name, COMMANDS[i].args);
        printf("  %-18s  %s\n", left, COMMANDS[i].text);
    }
    putchar('\n');
    print_options(GLOBAL, NULL);
    printf("\n'ctsctl help COMMAND' tells a command's options.\n");
}

static json_t *options_json(const struct ctsctl_option *list, const struct ctsctl_option *hidden_by, json_t *out)
{
    for (; list != NULL && list->name != NULL; list++)
        if (!has_option(hidden_by, list->name))
            json_array_append_new(
                out, json_pack("{s:s, s:s?, s:s}", "name", list->name, "arg", list->arg, "text", list->text));
    return out;
}

static json_t *help_json(const struct ctsctl_command *c)
{
    json_t *options = options_json(GLOBAL, c->options, options_json(c->options, NULL, json_array()));

    return json_pack("{s:s, s:s, s:s, s:o}", "name", c->name, "args", c->args, "text", c->text, "options", options);
}

int ctsctl_help(struct ctsctl *t)
{
    const struct ctsctl_command *c = NULL;
    json_t                      *list;

    if (t->n_args > 0) {
        c = find_command(t->args[0]);
        if (c == NULL) return ctsctl_usage(t, "there is no command '%s'", t->args[0]);
    }
    if (!t->is_json) {
        print_help(c);
        return CTSCTL_OK;
    }
    if (c != NULL) return ctsctl_print_json(t, help_json(c));
    list = json_array();
    for (size_t i = 0; i < N_COMMANDS; i++) json_array_append_new(list, help_json(&COMMANDS[i]));
    return ctsctl_print_json(t, json_pack("{s:o}", "commands", list));
}

/* ---- values ---- */

const char *ctsctl_value(const struct ctsctl *t, const char *option)
{
    const char *value = NULL;

    for (uint32_t i = 0; i < t->n_values; i++)
        if (strcmp(t->values[i].name, option) == 0) value = t->values[i].value;
    return value;
}

int ctsctl_int(const struct ctsctl *t, const char *option, int64_t lo, int64_t hi, int64_t *out)
{
    const char *s = ctsctl_value(t, option);
    char       *end;
    long long   v;

    if (s == NULL) return 0;
    errno = 0;
    v = strtoll(s, &end, 10);
    if (end == s || *end != '\0' || errno != 0 || v < lo || v > hi)
        return -ctsctl_usage(t, "--%s takes a whole number from %lld to %lld, not '%s'", option,
                             (long long)lo, (long long)hi, s);
    *out = v;
    return 1;
}

int ctsctl_real(const struct ctsctl *t, const char *option, double lo, double hi, double *out)
{
    const char *s = ctsctl_value(t, option);
    char       *end;
    double      v;

    if (s == NULL) return 0;
    v = strtod(s, &end);
    if (end == s || *end != '\0' || isnan(v) || v < lo || v > hi)
        return -ctsctl_usage(t, "--%s takes a number from %g to %g, not '%s'", option, lo, hi, s);
    *out = v;
    return 1;
}

/* ---- the command line ---- */

/* The row of --name[=value], from the command's options or the global ones. */
static const struct ctsctl_option *find_option(const struct ctsctl *t, const char *name, size_t n)
{
    const struct ctsctl_option *lists[] = { t->command != NULL ? t->command->options : NULL, GLOBAL };

    for (size_t i = 0; i < 2; i++)
        for (const struct ctsctl_option *o = lists[i]; o != NULL && o->name != NULL; o++)
            if (strlen(o->name) == n && memcmp(o->name, name, n) == 0) return o;
    return NULL;
}

/* argv[*i] is an option; takes its value too. 0 or CTSCTL_USAGE. */
static int take_option(struct ctsctl *t, char **argv, int argc, int *i)
{
    const char                 *name = argv[*i] + 2, *eq = strchr(name, '='), *value = "";
    const struct ctsctl_option *o = find_option(t, name, eq != NULL ? (size_t)(eq - name) : strlen(name));

    if (strcmp(argv[*i], "-h") == 0) {
        o = find_option(t, "help", 4);
    } else if (argv[*i][1] != '-' || o == NULL) {
        return ctsctl_usage(t, "unknown option '%s'", argv[*i]);
    }
    if (o->arg == NULL && eq != NULL) return ctsctl_usage(t, "--%s takes no value", o->name);
    if (o->arg != NULL && eq == NULL && *i + 1 >= argc) return ctsctl_usage(t, "--%s needs its %s", o->name, o->arg);
    if (o->arg != NULL) value = eq != NULL ? eq + 1 : argv[++*i];
    if (t->n_values == CTSCTL_VALUES_MAX) return ctsctl_usage(t, "more than %d options", CTSCTL_VALUES_MAX);
    t->values[t->n_values].name = o->name;
    t->values[t->n_values++].value = value;
    return 0;
}

static int take_word(struct ctsctl *t, const char *word)
{
    if (t->command == NULL) {
        t->command = find_command(word);
        return t->command != NULL ? 0 : ctsctl_usage(t, "there is no command '%s'", word);
    }
    if (t->n_args == t->command->n_args_max) return ctsctl_usage(t, "too many arguments: '%s'", word);
    t->args[t->n_args++] = word;
    return 0;
}

static int parse(struct ctsctl *t, int argc, char **argv)
{
    int is_over = 0;

    for (int i = 1; i < argc; i++) {
        int is_option = !is_over && argv[i][0] == '-' && argv[i][1] != '\0'; /* - alone means standard input */
        int rc;

        if (is_option && strcmp(argv[i], "--") == 0) {
            is_over = 1;
            continue;
        }
        rc = is_option ? take_option(t, argv, argc, &i) : take_word(t, argv[i]);
        if (rc != 0) return rc;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct ctsctl t = { .conn = { .fd = -1 } };
    int           rc;

    signal(SIGPIPE, SIG_DFL); /* a reader that went away ends us, as it ends any filter */
    rc = parse(&t, argc, argv);
    if (rc != 0) return rc;
    t.is_json = ctsctl_value(&t, "json") != NULL;
    t.socket = cts_conn_path(ctsctl_value(&t, "socket"));
    if (ctsctl_value(&t, "help") != NULL || t.command == NULL) {
        if (ctsctl_value(&t, "help") == NULL) return ctsctl_usage(&t, "a command is needed");
        print_help(t.command);
        return CTSCTL_OK;
    }
    if (t.n_args < t.command->n_args_min) return ctsctl_usage(&t, "%s needs %s", t.command->name, t.command->args);
    rc = t.command->run(&t);
    cts_conn_close(&t.conn);
    if (fflush(stdout) != 0 || ferror(stdout))
        rc = ctsctl_fail(&t, errno != 0 ? -errno : -EIO, "write to standard output");
    return rc;
}
