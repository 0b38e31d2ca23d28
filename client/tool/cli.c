#include "client/tool/cli.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HELP_MAX 16384

int cli_fail(const struct err *err)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "starling: %s\n", err->text);
    return err_exit_code(err->code);
}

static int stdout_failed(void)
{
    struct err err;
    (void)err_set(&err, ERR_IO, "standard output: %s", strerror(errno));
    return cli_fail(&err);
}

int cli_print(const struct buf *out)
{
    if ((out->len && fwrite(out->data, 1, out->len, stdout) != out->len) || fflush(stdout)) {
        return stdout_failed();
    }
    return 0;
}

int cli_print_json(json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    if (!text) {
        struct err err;
        (void)err_set(&err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
        return cli_fail(&err);
    }
    bool failed = printf("%s\n", text) < 0 || fflush(stdout);
    free(text);
    return failed ? stdout_failed() : 0;
}

json_t *cli_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static int print_help(const struct cli_verb *verb, const struct flag *flags, size_t count)
{
    struct buf help;
    buf_init(&help, HELP_MAX);
    int code = flags_help(verb->usage, verb->about, verb->examples, flags, count, &help);
    struct err err;
    int exit_code = code ? cli_fail((err_set(&err, code, "%s", err_meaning(code)), &err)) : cli_print(&help);
    buf_fini(&help);
    return exit_code;
}

static bool usage_error(const struct cli_verb *verb, const char *name, const struct err *err, int *exit_code)
{
    (void)fprintf(stderr, "starling %s: %s\nusage: %s\n", name, err->text, verb->usage);
    *exit_code = err_exit_code(err->code);
    return false;
}

/* With up to one word, which is required when `what` says what it is. */
static bool parse(const struct cli_verb *verb, const struct flag *flags, size_t count, int argc, char **argv,
                  const char *what, const char **word, int *exit_code)
{
    bool help;
    size_t words = 0;
    struct err err;
    int code = flags_parse(flags, count, argc, argv, word, word ? 1 : 0, &words, &help, &err);
    if (code == 0 && !help && what && words == 0) {
        code = err_set(&err, ERR_USAGE, "%s is missing", what);
    }
    if (code) {
        return usage_error(verb, argv[0], &err, exit_code);
    }
    if (help) {
        *exit_code = print_help(verb, flags, count);
        return false;
    }
    return true;
}

bool cli_flags_word(const struct cli_verb *verb, const struct flag *flags, size_t count, int argc, char **argv,
                    const char *what, const char **word, int *exit_code)
{
    return parse(verb, flags, count, argc, argv, what, word, exit_code);
}

bool cli_flags_optional_word(const struct cli_verb *verb, const struct flag *flags, size_t count, int argc, char **argv,
                             const char **word, int *exit_code)
{
    return parse(verb, flags, count, argc, argv, NULL, word, exit_code);
}

bool cli_flags(const struct cli_verb *verb, const struct flag *flags, size_t count, int argc, char **argv,
               int *exit_code)
{
    return parse(verb, flags, count, argc, argv, NULL, NULL, exit_code);
}

uint32_t cli_processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int count = CPU_COUNT(&set);
        return count < 1 ? 1 : count > 256 ? 256 : (uint32_t)count;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online > 256 ? 256 : (uint32_t)online;
}

const struct log *cli_log(void)
{
    static struct log_fd sink = {.fd = STDERR_FILENO, .json = false};
    static const struct log log = {.emit = log_fd_emit, .ctx = &sink, .least = LOG_LEVEL_WARN};
    return &log;
}
