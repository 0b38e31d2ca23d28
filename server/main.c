/* starling-server: the coordinator's command line. Precedence: flag, file, default; then the daemon runs. */
#include "common/base/disk.h"
#include "common/config/flags.h"
#include "server/options.h"
#include "server/shell/daemon.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define PRINT_MAX ((size_t)1 << 18)

static const char usage[] = "starling-server [--config FILE] [flags]";
static const char about[] =
    "Coordinates a federation: hands out the model, averages what the clients learned, keeps their features in a bank. "
    "It can be killed at any time: started again with the same state folder it goes on where it was.";
static const char examples[] =
    "  starling-server --print-config > server.yaml     a commented sample, all defaults\n"
    "  starling-server --config server.yaml --check-config\n"
    "  starling-server --config server.yaml\n"
    "  starling-server --set plan.rounds=20 --set plan.min_clients=3     on this machine alone\n"
    "  starling ca init --address coordinator.example:7640     for other machines: once, before\n"
    "  starling-server --trust starling-trust --listen 0.0.0.0:7640\n";

struct wishes {
    const char *config, *state, *listen, *trust, *log_format;
    const char *set[FLAG_LIST_MAX];
    bool check, print, new_run, version, help;
};

static int read_flags(int argc, char **argv, struct wishes *wishes, struct buf *help, struct err *err)
{
    const struct flag flags[] = {
        {"config", FLAG_TEXT, &wishes->config, "FILE", "configuration, as --print-config writes it", 0, 0, false},
        {"state", FLAG_TEXT, &wishes->state, "DIR", "folder of checkpoints, models and history", 0, 0, false},
        {"listen", FLAG_TEXT, &wishes->listen, "HOST:PORT", "where clients connect; port 0: any free one", 0, 0, false},
        {"trust", FLAG_TEXT, &wishes->trust, "DIR", "folder of `starling ca init`: with TLS", 0, 0, false},
        {"new-run", FLAG_SWITCH, &wishes->new_run, NULL,
         "begin anew; what lies in the state folder is moved aside, into old-RUN/ in it; clients need theirs too", 0, 0,
         false},
        {"set", FLAG_LIST, wishes->set, "KEY=VALUE", "any key of the configuration; can be given several times", 0, 0,
         false},
        {"log-format", FLAG_TEXT, &wishes->log_format, "text|json", "of the lines on standard error", 0, 0, false},
        {"check-config", FLAG_SWITCH, &wishes->check, NULL, "only check the configuration, and the folder of trust", 0,
         0, false},
        {"print-config", FLAG_SWITCH, &wishes->print, NULL, "print the whole configuration, commented", 0, 0, false},
        {"version", FLAG_SWITCH, &wishes->version, NULL, "print the version", 0, 0, false},
    };
    const size_t count = sizeof flags / sizeof flags[0];
    int rc = flags_parse(flags, count, argc, argv, NULL, 0, NULL, &wishes->help, err);
    if (rc == 0 && wishes->help && flags_help(usage, about, examples, flags, count, help)) {
        rc = err_set(err, ERR_NOMEM, "out of memory");
    }
    return rc;
}

static int read_options(const struct option_set *set, const struct wishes *wishes, struct server_options *options,
                        struct err *err)
{
    const struct {
        const char *flag, *key, *value;
    } direct[] = {{"--state", "state", wishes->state},
                  {"--listen", "listen", wishes->listen},
                  {"--trust", "trust", wishes->trust},
                  {"--log-format", "log.format", wishes->log_format}};
    config_defaults(set, options);
    options->new_run = wishes->new_run;
    int rc = wishes->config ? config_load(set, &disk_posix, wishes->config, options, err) : 0;
    for (size_t i = 0; rc == 0 && i < sizeof direct / sizeof direct[0]; i++) {
        if (direct[i].value) {
            rc = config_set(set, direct[i].flag, direct[i].key, direct[i].value, options, err);
        }
    }
    for (size_t i = 0; rc == 0 && wishes->set[i]; i++) {
        rc = config_assign(set, "--set", wishes->set[i], options, err);
    }
    return rc ? rc : daemon_check(options, err);
}

static int print(const struct buf *text, struct err *err)
{
    bool failed = fwrite(text->data, 1, text->len, stdout) != text->len || fflush(stdout) != 0;
    return failed ? err_set(err, ERR_IO, "standard output: cannot write") : 0;
}

static int print_config(const struct option_set *set, const struct server_options *options, struct err *err)
{
    struct buf text;
    buf_init(&text, PRINT_MAX);
    int rc = config_print(set, options, true, &text);
    rc = rc ? err_set(err, rc, "%s", err_meaning(rc)) : print(&text, err);
    buf_fini(&text);
    return rc;
}

/* What belongs to the whole process. A peer that goes away and a file that may not grow are errors of one write, not
 * deaths; each client is a file descriptor. glibc keeps freed memory in a heap for each thread and raises the size from
 * which it asks the system as larger blocks are freed; with models that come and go on several threads this would hold
 * several models for nothing. Fixed at 256 KiB, every model and every upload goes back when it is freed; and one heap
 * does for the loop and its one job at a time, where four workers' heaps would fill one after the other. */
static void prepare_process(void)
{
    struct rlimit files;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)mallopt(M_MMAP_THRESHOLD, 256 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
    (void)mallopt(M_ARENA_MAX, 1);
}

static int run(const struct server_options *options, struct err *err)
{
    struct log_fd sink = {.fd = STDERR_FILENO, .json = options->log.format == 1};
    const struct log log = {.emit = log_fd_emit, .ctx = &sink, .least = (enum log_level)options->log.level};
    prepare_process();
    int rc = daemon_run(options, &log, err);
    if (rc && sink.json) {
        log_event(&log, LOG_LEVEL_ERROR, "failed", "reason=\"%s\"", err->text);
        err->text[0] = '\0'; /* said */
    }
    return rc;
}

static int serve(const struct wishes *wishes, struct err *err)
{
    struct server_option_set set;
    struct server_options options = {0};
    server_option_set_init(&set);
    int rc = read_options(&set.set, wishes, &options, err);
    if (rc) {
        return rc;
    }
    return wishes->check   ? daemon_check_trust(&options, err)
           : wishes->print ? print_config(&set.set, &options, err)
                           : run(&options, err);
}

int main(int argc, char **argv)
{
    struct wishes wishes = {0};
    struct err err = {0};
    struct buf text;
    buf_init(&text, PRINT_MAX);
    int rc = read_flags(argc, argv, &wishes, &text, &err);
    if (rc == 0 && wishes.version) {
        rc = buf_printf(&text, "starling-server %s\n", STARLING_VERSION);
    }
    if (rc == 0) {
        rc = wishes.help || wishes.version ? print(&text, &err) : serve(&wishes, &err);
    }
    buf_fini(&text);
    if (rc && err.text[0]) {
        (void)fprintf(stderr, "starling-server: %s\n", err.text);
    }
    return err_exit_code(rc);
}
