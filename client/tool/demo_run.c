/* The federation of the demo: one server and N clients, real processes on loopback, supervised.
 *
 * A process that dies from a signal is started again, as a supervisor would (the server on the same port), so the run
 * survives kill -9 of any of them at any time; one that ends by itself with an error is reported with the last lines of
 * its log, and the run goes on as long as enough clients are left. What the server has to tell is asked in
 * demo_watch.c. */
#include "client/tool/cli.h"
#include "client/tool/demo.h"
#include "client/tool/demo_process.h"
#include "client/tool/demo_watch.h"
#include "client/tool/folder.h"
#include "common/base/mem.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS         200
#define STOP_MS         5000
#define LEAVE_MS        20000 /* for the clients to end by themselves after the last round */
#define EARLY_END_MS    3000  /* a client that ends with 0 may know before us that the run is done */
#define RESTARTS_MAX    100
#define CRASHES_MAX     3 /* of one process by its own fault: SIGSEGV and its kin */
#define LOG_LINES_SHOWN 6
#define TEXT_MAX        16384

struct member {
    struct process process;
    char images[DISK_PATH_MAX], state[DISK_PATH_MAX], threads[16];
    uint64_t restart_at_ms; /* 0: not waiting to be started again */
    uint32_t crashes;
    bool gone; /* ended for good */
};

struct federation {
    struct demo *demo;
    char config[DISK_PATH_MAX], address_file[DISK_PATH_MAX];
    char kernels[DISK_PATH_MAX + 32]; /* "compute.kernels=..." */
    struct member server, *clients;
    struct process **all; /* the server, then the clients */
    uint32_t count;       /* clients */
    struct demo_watch watch;
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    stop_signal = number;
}

static void pause_ms(uint32_t ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

static int in_workdir(const struct demo *demo, const char *name, char out[DISK_PATH_MAX], struct err *err)
{
    return disk_join(out, demo->workdir, name)
               ? err_set(err, ERR_CANTCREATE, "%s/%s: the path is too long", demo->workdir, name)
               : 0;
}

static int write_config(struct federation *fed, struct err *err)
{
    char state[DISK_PATH_MAX], whole[DISK_PATH_MAX];
    int code = folder_make(fed->demo->workdir, "server", state, err);
    if (!code && !realpath(state, whole)) {
        code = err_set(err, ERR_CANTCREATE, "%s: %s", state, strerror(errno));
    }
    code = code ? code : in_workdir(fed->demo, "server.yaml", fed->config, err);
    code = code ? code : in_workdir(fed->demo, "server/address", fed->address_file, err);
    if (code) {
        return code;
    }
    struct buf text;
    buf_init(&text, TEXT_MAX);
    code = demo_server_yaml(fed->demo, whole, &text);
    const struct span part = {text.data, text.len};
    code = code ? err_set(err, code, "%s: %s", fed->config, err_meaning(code))
                : disk_save(&disk_posix, fed->config, &part, 1, err);
    buf_fini(&text);
    return code;
}

static int member_init(struct federation *fed, struct member *member, const char *program, const char *name,
                       struct err *err)
{
    char log[64];
    (void)snprintf(member->process.name, sizeof member->process.name, "%s", name);
    (void)snprintf(log, sizeof log, "logs/%s.log", name);
    int code = process_sibling(program, member->process.program, err);
    return code ? code : in_workdir(fed->demo, log, member->process.log, err);
}

static int client_init(struct federation *fed, uint32_t i, struct err *err)
{
    struct member *member = &fed->clients[i];
    char name[32], part[64];
    (void)snprintf(name, sizeof name, "client-%u", i + 1);
    uint32_t threads = cli_processors() / fed->count;
    (void)snprintf(member->threads, sizeof member->threads, "%u", threads ? threads : 1);
    int code = member_init(fed, member, "starling-client", name, err);
    (void)snprintf(part, sizeof part, "sites/%s", name);
    code = code ? code : in_workdir(fed->demo, part, member->images, err);
    (void)snprintf(part, sizeof part, "state/%s", name);
    return code ? code : folder_make(fed->demo->workdir, part, member->state, err);
}

/* One file for all clients, and for every demo on this machine: the same kernels, so the same bits. */
static void choose_kernels(struct federation *fed)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[DISK_PATH_MAX];
    int n = cache && cache[0] == '/' ? snprintf(folder, sizeof folder, "%s/starling", cache)
            : home && home[0] == '/' ? snprintf(folder, sizeof folder, "%s/.cache/starling", home)
                                     : -1;
    if (n < 0 || (size_t)n >= sizeof folder || disk_make_folder(&disk_posix, folder, NULL) != 0 ||
        access(folder, W_OK) != 0) {
        (void)snprintf(folder, sizeof folder, "%s", fed->demo->workdir);
    }
    (void)snprintf(fed->kernels, sizeof fed->kernels, "compute.kernels=%s/kernels", folder);
}

static int federation_init(struct federation *fed, struct demo *demo, struct err *err)
{
    char logs[DISK_PATH_MAX];
    *fed = (struct federation){.demo = demo, .count = demo->options.clients};
    fed->clients = mem_new(fed->count, sizeof *fed->clients);
    fed->all = mem_new(fed->count + 1, sizeof(struct process *));
    if (!fed->clients || !fed->all) {
        return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    fed->all[0] = &fed->server.process;
    for (uint32_t i = 0; i < fed->count; i++) {
        fed->all[i + 1] = &fed->clients[i].process;
    }
    int code = write_config(fed, err);
    choose_kernels(fed);
    code = code ? code : folder_make(demo->workdir, "logs", logs, err);
    code = code ? code : member_init(fed, &fed->server, "starling-server", "server", err);
    for (uint32_t i = 0; i < fed->count; i++) {
        code = code ? code : client_init(fed, i, err);
    }
    return code;
}

/* On a port of the kernel's choice the first time, on the same one after that. */
static int start_server(struct federation *fed, struct err *err)
{
    struct process *process = &fed->server.process;
    bool again = fed->demo->address[0] != 0;
    char *args[] = {(char *)"starling-server",
                    (char *)"--config",
                    fed->config,
                    again ? (char *)"--listen" : NULL,
                    again ? fed->demo->address : NULL,
                    NULL};
    memcpy(process->args, args, sizeof args);
    int code = again ? 0 : disk_remove(&disk_posix, fed->address_file, err);
    return code ? code : process_start(process, err);
}

static int start_client(struct federation *fed, struct member *member, struct err *err)
{
    char *args[] = {(char *)"starling-client",
                    (char *)"--server",
                    fed->demo->address,
                    (char *)"--images",
                    member->images,
                    (char *)"--name",
                    member->process.name,
                    (char *)"--state",
                    member->state,
                    (char *)"--threads",
                    member->threads,
                    (char *)"--set",
                    fed->kernels,
                    (char *)"--reproducible", /* the report's figures are to come out again */
                    NULL};
    memcpy(member->process.args, args, sizeof args);
    return process_start(&member->process, err);
}

static bool is_crash(int status)
{
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return number == SIGSEGV || number == SIGABRT || number == SIGBUS || number == SIGILL || number == SIGFPE;
}

static uint32_t clients_left(const struct federation *fed)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < fed->count; i++) {
        left += !fed->clients[i].gone;
    }
    return left;
}

/* The member will not come back: say why, and whether the run can go on without it. */
static int give_up(struct federation *fed, struct member *member, struct err *err)
{
    struct buf text;
    buf_init(&text, TEXT_MAX);
    member->gone = true;
    (void)buf_printf(&text, "%s ended with ", member->process.name);
    (void)process_describe(member->process.status, &text);
    (void)buf_printf(&text, "; the end of %s:\n", member->process.log);
    (void)process_log_tail(&member->process, LOG_LINES_SHOWN, "    ", &text);
    demo_watch_say(&fed->watch, &text);
    buf_fini(&text);
    if (member == &fed->server) {
        return err_set(err, ERR_FAILED, "the server ended before the run was done; its log is %s", member->process.log);
    }
    if (clients_left(fed) < fed->demo->plan.min_clients) {
        return err_set(err, ERR_FAILED, "a round needs %u clients and %u %s left (--set min_clients=N lowers that)",
                       fed->demo->plan.min_clients, clients_left(fed), clients_left(fed) == 1 ? "is" : "are");
    }
    return 0;
}

static int member_ended(struct federation *fed, struct member *member, struct err *err)
{
    int status = member->process.status;
    bool killed = WIFSIGNALED(status);
    bool comes_back = killed || WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == err_exit_code(ERR_TEMPFAIL);
    if (fed->watch.done) {
        return 0;
    }
    if (is_crash(status)) {
        comes_back = ++member->crashes <= CRASHES_MAX;
    }
    if (!comes_back || fed->demo->restarts >= RESTARTS_MAX) {
        return give_up(fed, member, err);
    }
    member->restart_at_ms = demo_now_ms() + (killed ? 0 : EARLY_END_MS);
    return 0;
}

static int restart(struct federation *fed, struct member *member, struct err *err)
{
    struct buf text;
    buf_init(&text, TEXT_MAX);
    bool killed = WIFSIGNALED(member->process.status);
    (void)buf_printf(&text, "%s %s (", member->process.name, killed ? "died" : "stopped");
    (void)process_describe(member->process.status, &text);
    (void)buf_printf(&text, "); starting it again\n");
    demo_watch_say(&fed->watch, &text);
    buf_fini(&text);
    member->restart_at_ms = 0;
    fed->demo->restarts++;
    return member == &fed->server ? start_server(fed, err) : start_client(fed, member, err);
}

static int mind_member(struct federation *fed, struct member *member, struct err *err)
{
    int code = process_ended(&member->process) ? member_ended(fed, member, err) : 0;
    if (!code && member->restart_at_ms && !fed->watch.done && demo_now_ms() >= member->restart_at_ms) {
        code = restart(fed, member, err);
    }
    return code;
}

static int mind_members(struct federation *fed, struct err *err)
{
    int code = mind_member(fed, &fed->server, err);
    for (uint32_t i = 0; !code && i < fed->count; i++) {
        code = mind_member(fed, &fed->clients[i], err);
    }
    return code;
}

/* The server writes its address once it listens. */
static bool read_address(struct federation *fed)
{
    uint8_t *data;
    size_t len;
    if (disk_load(&disk_posix, fed->address_file, sizeof fed->demo->address - 1, &data, &len, NULL)) {
        return false;
    }
    memcpy(fed->demo->address, data, len);
    fed->demo->address[len] = 0;
    mem_free(data);
    char *line_end = strchr(fed->demo->address, '\n');
    if (line_end) {
        *line_end = 0;
    }
    return fed->demo->address[0] != 0;
}

static int start_clients(struct federation *fed, struct err *err)
{
    struct buf line;
    int code = 0;
    for (uint32_t i = 0; !code && i < fed->count; i++) {
        code = start_client(fed, &fed->clients[i], err);
    }
    buf_init(&line, TEXT_MAX);
    (void)buf_printf(&line,
                     "server      listens on %s (starling status --server %s shows more)\n"
                     "clients     %u processes with %s thread%s each; logs in %s/logs\n",
                     fed->demo->address, fed->demo->address, fed->count, fed->clients[0].threads,
                     strcmp(fed->clients[0].threads, "1") == 0 ? "" : "s", fed->demo->workdir);
    demo_watch_say(&fed->watch, &line);
    buf_fini(&line);
    return code;
}

static int cancelled(const struct federation *fed, struct err *err)
{
    return err_set(err, ERR_CANCELLED, "stopped by signal %d; what was done is in %s", (int)stop_signal,
                   fed->demo->workdir);
}

static int supervise(struct federation *fed, struct err *err)
{
    int code = start_server(fed, err);
    while (!code && !fed->demo->address[0]) {
        code = stop_signal ? cancelled(fed, err) : mind_member(fed, &fed->server, err);
        if (!code && !read_address(fed)) {
            demo_watch_waiting(&fed->watch, NULL);
            pause_ms(20);
        }
    }
    code = code ? code : start_clients(fed, err);
    while (!code && !fed->watch.done) {
        pause_ms(POLL_MS);
        code = stop_signal ? cancelled(fed, err) : mind_members(fed, err);
        if (!code && fed->server.process.pid) {
            demo_watch_ask(&fed->watch);
        }
        if (!code && fed->watch.stuck[0]) {
            code = err_set(err, ERR_FAILED, "%s", fed->watch.stuck);
        }
    }
    return code;
}

/* After the last round the clients learn from the server that the run is done, and end by themselves. */
static void let_clients_leave(struct federation *fed)
{
    uint64_t until = demo_now_ms() + LEAVE_MS;
    uint32_t running = fed->count;
    while (running > 0 && !stop_signal && demo_now_ms() < until) {
        running = 0;
        for (uint32_t i = 0; i < fed->count; i++) {
            running += fed->clients[i].process.pid != 0 && !process_ended(&fed->clients[i].process);
        }
        pause_ms(20);
    }
    if (running > 0) {
        (void)printf("stopping    %u client%s still running\n", running, running == 1 ? " is" : "s are");
    }
}

int demo_run(struct demo *demo, struct err *err)
{
    struct sigaction stop = {.sa_handler = on_signal}, old_int, old_term, old_hup;
    struct federation fed;
    int code = federation_init(&fed, demo, err);
    stop_signal = 0;
    (void)sigemptyset(&stop.sa_mask);
    (void)sigaction(SIGINT, &stop, &old_int);
    (void)sigaction(SIGTERM, &stop, &old_term);
    (void)sigaction(SIGHUP, NULL, &old_hup);
    if (old_hup.sa_handler != SIG_IGN) { /* under nohup it goes on without its terminal */
        (void)sigaction(SIGHUP, &stop, NULL);
    }
    demo_watch_init(&fed.watch, demo);
    code = code ? code : supervise(&fed, err);
    if (!code) {
        let_clients_leave(&fed);
    }
    if (fed.all) {
        processes_stop(fed.all, fed.count + 1, STOP_MS);
    }
    (void)sigaction(SIGINT, &old_int, NULL);
    (void)sigaction(SIGTERM, &old_term, NULL);
    (void)sigaction(SIGHUP, &old_hup, NULL);
    mem_free(fed.clients);
    mem_free(fed.all);
    return code;
}
