/* starling-client: a site's command line. Flag, file, default, in this order of precedence; then the daemon. */
#include "client/options.h"
#include "client/shell/client.h"
#include "common/base/disk.h"
#include "common/config/flags.h"

#include <linux/ioprio.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PRINT_MAX ((size_t)1 << 18)

static const char usage[] = "starling-client --images DIR [--join TOKEN] [flags]\n       starling-client --role "
                            "observer --train DIR --test DIR [flags]";
static const char about[] =
    "Takes part in a federation with the images of one folder, which stay where they are: what leaves this machine are "
    "model updates and features. It can be killed at any time: started again with the same state folder it goes on "
    "where it was. An observer evaluates each aggregated model on labelled images instead, and contributes nothing.";
static const char examples[] =
    "  starling-client --join TOKEN --images /data/images     TOKEN: of `starling ca token` at the coordinator\n"
    "  starling-client --images /data/images --name site-a    a coordinator on this machine, without TLS\n"
    "  starling-client --role observer --train labelled/train --test labelled/test --join TOKEN\n"
    "  starling-client --print-config > client.yaml     a commented sample, all defaults\n"
    "  starling-client --config client.yaml\n";

struct wishes {
    const char *config, *server, *join, *role, *images, *train, *test, *name, *state, *log_format;
    const char *set[FLAG_LIST_MAX];
    uint32_t threads;
    bool check, print, stay, no_share, reproducible, new_run, version, help;
};

static int read_flags(int argc, char **argv, struct wishes *wishes, struct buf *help, struct err *err)
{
    const struct flag flags[] = {
        {"config", FLAG_TEXT, &wishes->config, "FILE", "configuration, as --print-config writes it", 0, 0, false},
        {"server", FLAG_TEXT, &wishes->server, "HOST:PORT", "the coordinator", 0, 0, false},
        {"join", FLAG_TEXT, &wishes->join, "TOKEN|FILE",
         "a token that is good once, or a file that holds it: this site gets its certificate", 0, 0, false},
        {"role", FLAG_TEXT, &wishes->role, "trainer|observer",
         "trains (the default), or evaluates each aggregated model", 0, 0, false},
        {"images", FLAG_TEXT, &wishes->images, "DIR", "folder of JPEG and PNG images, searched to any depth", 0, 0,
         false},
        {"train", FLAG_TEXT, &wishes->train, "DIR", "an observer's labelled images to compare with: one folder a class",
         0, 0, false},
        {"test", FLAG_TEXT, &wishes->test, "DIR", "an observer's labelled images to name", 0, 0, false},
        {"name", FLAG_TEXT, &wishes->name, "NAME",
         "of this site, one of its own in the federation; default: the certificate's, or else the host's", 0, 0, false},
        {"state", FLAG_TEXT, &wishes->state, "DIR", "folder of what is kept; default: starling-client-NAME", 0, 0,
         false},
        {"threads", FLAG_U32, &wishes->threads, "N", "to train with; default: all processors", 1, 256, false},
        {"no-share", FLAG_SWITCH, &wishes->no_share, NULL, "keep this site's features: give none, and get none", 0, 0,
         false},
        {"reproducible", FLAG_SWITCH, &wishes->reproducible, NULL,
         "for experiments: the same bits on every machine; other sites can then make this site's views", 0, 0, false},
        {"stay", FLAG_SWITCH, &wishes->stay, NULL, "stay connected after the last round", 0, 0, false},
        {"new-run", FLAG_SWITCH, &wishes->new_run, NULL,
         "once, when the server began a new run: forget the state of the old one", 0, 0, false},
        {"set", FLAG_LIST, wishes->set, "KEY=VALUE", "any key of the configuration; can be given several times", 0, 0,
         false},
        {"log-format", FLAG_TEXT, &wishes->log_format, "text|json", "of the lines on standard error", 0, 0, false},
        {"check-config", FLAG_SWITCH, &wishes->check, NULL, "only check the configuration", 0, 0, false},
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

static int read_options(const struct option_set *set, const struct wishes *wishes, struct client_options *options,
                        struct err *err)
{
    const struct {
        const char *flag, *key, *value;
    } direct[] = {{"--server", "server", wishes->server}, {"--role", "role", wishes->role},
                  {"--images", "images", wishes->images}, {"--train", "train", wishes->train},
                  {"--test", "test", wishes->test},       {"--name", "name", wishes->name},
                  {"--state", "state", wishes->state},    {"--log-format", "log.format", wishes->log_format}};
    config_defaults(set, options);
    int rc = wishes->config ? config_load(set, &disk_posix, wishes->config, options, err) : 0;
    for (size_t i = 0; rc == 0 && i < sizeof direct / sizeof direct[0]; i++) {
        if (direct[i].value) {
            rc = config_set(set, direct[i].flag, direct[i].key, direct[i].value, options, err);
        }
    }
    for (size_t i = 0; rc == 0 && wishes->set[i]; i++) {
        rc = config_assign(set, "--set", wishes->set[i], options, err);
    }
    options->new_run = wishes->new_run;
    options->join = wishes->join;
    options->stay = options->stay || wishes->stay;
    options->share_features = options->share_features && !wishes->no_share;
    options->reproducible = options->reproducible || wishes->reproducible;
    options->threads = wishes->threads ? wishes->threads : options->threads;
    return rc;
}

static int print(const struct buf *text, struct err *err)
{
    bool failed = fwrite(text->data, 1, text->len, stdout) != text->len || fflush(stdout) != 0;
    return failed ? err_set(err, ERR_IO, "standard output: cannot write") : 0;
}

static int print_config(const struct option_set *set, const struct client_options *options, struct err *err)
{
    struct buf text;
    buf_init(&text, PRINT_MAX);
    int rc = config_print(set, options, true, &text);
    rc = rc ? err_set(err, rc, "%s", err_meaning(rc)) : print(&text, err);
    buf_fini(&text);
    return rc;
}

/* What belongs to the whole process: a server that goes away and a file that may not grow are errors of one write, not
 * deaths. */
static void prepare_process(uint32_t nice_level)
{
    /* The machine has other work. A container that forbids this costs nothing but politeness. */
    if (nice_level > 0) {
        int now = getpriority(PRIO_PROCESS, 0);
        (void)setpriority(PRIO_PROCESS, 0, now > (int)nice_level ? now : (int)nice_level);
        /* The lowest of the ordinary class: the idle one could keep a contribution from the disk past its round. */
        (void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7));
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
}

static int run(const struct client_options *options, struct err *err)
{
    struct log_fd sink = {.fd = STDERR_FILENO, .json = options->log.format == 1};
    const struct log log = {.emit = log_fd_emit, .ctx = &sink, .least = (enum log_level)options->log.level};
    prepare_process(options->nice);
    int rc = client_run(options, &log, err);
    if (rc && sink.json) {
        log_event(&log, LOG_LEVEL_ERROR, "failed", "reason=\"%s\"", err->text);
        err->text[0] = '\0'; /* said */
    }
    return rc;
}

static int serve(const struct wishes *wishes, struct err *err)
{
    struct client_options options = {0};
    int rc = read_options(&client_option_set, wishes, &options, err);
    if (rc == 0 && wishes->print) { /* also of a configuration that lacks something: it is where one begins */
        return print_config(&client_option_set, &options, err);
    }
    rc = rc ? rc : client_check(&options, err);
    return rc || wishes->check ? rc : run(&options, err);
}

int main(int argc, char **argv)
{
    struct wishes wishes = {0};
    struct err err = {0};
    struct buf text;
    buf_init(&text, PRINT_MAX);
    int rc = read_flags(argc, argv, &wishes, &text, &err);
    if (rc == 0 && wishes.version) {
        rc = buf_printf(&text, "starling-client %s\n", STARLING_VERSION);
    }
    if (rc == 0) {
        rc = wishes.help || wishes.version ? print(&text, &err) : serve(&wishes, &err);
    }
    buf_fini(&text);
    if (rc && err.text[0]) {
        (void)fprintf(stderr, "starling-client: %s\n", err.text);
    }
    return err_exit_code(rc);
}
