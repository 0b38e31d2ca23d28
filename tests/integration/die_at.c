/* Runs a program and kills it with SIGKILL at one call, chosen by its number:
 *
 *     die_at 7 files /path/state PROGRAM ARG...    before its 7th call that changes something under /path/state
 *     die_at 7 sends - PROGRAM ARG...              before its 7th write to a socket
 *     die_at 0 ...                                 never; counts
 *
 * Calls are counted over all threads in the order in which they are entered, and the chosen one does not happen. At its
 * end it says one line of JSON on the standard error that it shares with the program, either
 * {"event":"died_at","call":"7","what":"rename /path/state/x.tmp"} or {"event":"calls_counted","count":"212"}, and ends
 * as the program did. SIGTERM is passed on. Linux, ptrace. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where a call names what it changes. */
enum where {
    BY_FILE,    /* argument 0 is a descriptor */
    BY_PATH,    /* argument 0 is a path */
    BY_AT,      /* arguments 0 and 1: a folder's descriptor, a path */
    BY_OPEN,    /* like BY_PATH, but only if argument 1 creates or truncates */
    BY_OPEN_AT, /* like BY_AT, but only if argument 2 does */
};

static const struct call {
    long number;
    const char *name;
    enum where where;
    bool sends; /* to a socket, if the descriptor is one */
} calls[] = {
    {SYS_write, "write", BY_FILE, true},          {SYS_writev, "writev", BY_FILE, true},
    {SYS_sendto, "sendto", BY_FILE, true},        {SYS_sendmsg, "sendmsg", BY_FILE, true},
    {SYS_sendmmsg, "sendmmsg", BY_FILE, true},    {SYS_pwrite64, "pwrite64", BY_FILE, false},
    {SYS_pwritev, "pwritev", BY_FILE, false},     {SYS_ftruncate, "ftruncate", BY_FILE, false},
    {SYS_fallocate, "fallocate", BY_FILE, false}, {SYS_fsync, "fsync", BY_FILE, false},
    {SYS_fdatasync, "fdatasync", BY_FILE, false}, {SYS_truncate, "truncate", BY_PATH, false},
    {SYS_openat, "openat", BY_OPEN_AT, false},    {SYS_unlinkat, "unlinkat", BY_AT, false},
    {SYS_mkdirat, "mkdirat", BY_AT, false},       {SYS_renameat2, "renameat2", BY_AT, false},
    {SYS_linkat, "linkat", BY_AT, false},
#ifdef SYS_open /* the older architectures have these beside the calls with a folder */
    {SYS_open, "open", BY_OPEN, false},           {SYS_creat, "creat", BY_PATH, false},
    {SYS_unlink, "unlink", BY_PATH, false},       {SYS_mkdir, "mkdir", BY_PATH, false},
    {SYS_rmdir, "rmdir", BY_PATH, false},         {SYS_rename, "rename", BY_PATH, false},
    {SYS_link, "link", BY_PATH, false},
#endif
#ifdef SYS_renameat
    {SYS_renameat, "renameat", BY_AT, false},
#endif
};

static pid_t child;

static void pass_on(int number)
{
    (void)kill(child, number);
}

static void of_link(pid_t thread, const char *what, char out[PATH_MAX])
{
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/%d/%s", thread, what);
    ssize_t len = readlink(link, out, PATH_MAX - 1);
    out[len > 0 ? len : 0] = '\0';
}

static void of_descriptor(pid_t thread, int file, char out[PATH_MAX])
{
    char what[32];
    (void)snprintf(what, sizeof what, "fd/%d", file);
    of_link(thread, file == AT_FDCWD ? "cwd" : what, out);
}

static void of_path(pid_t thread, int folder, uint64_t address, char out[PATH_MAX])
{
    char name[64], text[PATH_MAX] = "", from[PATH_MAX] = "";
    (void)snprintf(name, sizeof name, "/proc/%d/mem", thread);
    int memory = open(name, O_RDONLY | O_CLOEXEC);
    if (memory >= 0) {
        ssize_t len = pread(memory, text, sizeof text - 1, (off_t)address);
        text[len > 0 ? len : 0] = '\0';
        (void)close(memory);
    }
    if (text[0] != '/') {
        of_descriptor(thread, folder, from);
    }
    if (snprintf(out, PATH_MAX, "%s%s%s", from, text[0] == '/' ? "" : "/", text) >= PATH_MAX) {
        out[0] = '\0';
    }
}

/* Whether a call that is being entered counts; `what` says what it is about. */
static bool counts(pid_t thread, const struct call *call, const uint64_t *args, const char *folder, char what[PATH_MAX])
{
    uint64_t flags = call->where == BY_OPEN ? args[1] : call->where == BY_OPEN_AT ? args[2] : O_CREAT;
    if (!(flags & (O_CREAT | O_TRUNC))) {
        return false;
    }
    if (call->where == BY_FILE) {
        of_descriptor(thread, (int)args[0], what);
    } else if (call->where == BY_AT || call->where == BY_OPEN_AT) {
        of_path(thread, (int)args[0], args[1], what);
    } else {
        of_path(thread, AT_FDCWD, args[0], what);
    }
    if (!folder) {
        return call->sends && strncmp(what, "socket:", 7) == 0;
    }
    size_t len = strlen(folder);
    return strncmp(what, folder, len) == 0 && (what[len] == '/' || what[len] == '\0');
}

static const struct call *find_call(uint64_t number)
{
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        if ((uint64_t)calls[i].number == number) {
            return &calls[i];
        }
    }
    return NULL;
}

/* A thread stands before or behind a call: true if this is the one to die at. */
static bool at_call(pid_t thread, const char *folder, unsigned long chosen, unsigned long *count)
{
    struct __ptrace_syscall_info info;
    char what[PATH_MAX];
    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) <= 0 || info.op != PTRACE_SYSCALL_INFO_ENTRY) {
        return false;
    }
    const struct call *call = find_call(info.entry.nr);
    if (!call || !counts(thread, call, info.entry.args, folder, what) || ++*count != chosen) {
        return false;
    }
    (void)kill(child, SIGKILL); /* a stopped call of a dying process is not made */
    (void)fprintf(stderr, "{\"event\":\"died_at\",\"call\":\"%lu\",\"what\":\"%s %s\"}\n", *count, call->name, what);
    return true;
}

/* Until the program has ended; its wait status. */
static int follow(const char *folder, unsigned long chosen)
{
    unsigned long count = 0;
    for (;;) {
        int status;
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0 && errno == EINTR) {
            continue;
        }
        if (thread < 0 || (thread == child && !WIFSTOPPED(status))) {
            if (thread > 0 && (chosen == 0 || count < chosen)) {
                (void)fprintf(stderr, "{\"event\":\"calls_counted\",\"count\":\"%lu\"}\n", count);
            }
            return thread < 0 ? -1 : status;
        }
        if (!WIFSTOPPED(status)) {
            continue;
        }
        int number = WSTOPSIG(status);
        bool of_ours = number == (SIGTRAP | 0x80) || status >> 16 != 0 || number == SIGSTOP;
        if (number == (SIGTRAP | 0x80) && at_call(thread, folder, chosen, &count)) {
            continue;
        }
        (void)ptrace(PTRACE_SYSCALL, thread, 0, of_ours ? 0 : number);
    }
}

static int run_program(char **args)
{
    const char *given = getenv("ASAN_OPTIONS");
    char options[1024];
    /* The leak checker is a tracer itself, and there can be only one. */
    (void)snprintf(options, sizeof options, "%s:detect_leaks=0", given ? given : "");
    (void)setenv("ASAN_OPTIONS", options, 1);
    (void)ptrace(PTRACE_TRACEME, 0, 0, 0);
    (void)raise(SIGSTOP);
    (void)execv(args[0], args);
    perror(args[0]);
    return 127;
}

int main(int argc, char **argv)
{
    bool files = argc > 4 && strcmp(argv[2], "files") == 0;
    if (argc < 5 || (!files && strcmp(argv[2], "sends") != 0)) {
        (void)fprintf(stderr, "usage: die_at NUMBER files|sends FOLDER PROGRAM ARG...\n");
        return 64;
    }
    child = fork();
    if (child == 0) {
        return run_program(argv + 4);
    }
    int status = -1;
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (child < 0 || waitpid(child, &status, 0) != child || ptrace(PTRACE_SETOPTIONS, child, 0, options) != 0) {
        perror("die_at");
        if (child > 0) {
            (void)kill(child, SIGKILL);
        }
        return 71;
    }
    (void)signal(SIGTERM, pass_on);
    (void)ptrace(PTRACE_SYSCALL, child, 0, 0);
    status = follow(files ? argv[3] : NULL, strtoul(argv[1], NULL, 10));
    if (WIFSIGNALED(status)) {
        (void)signal(WTERMSIG(status), SIG_DFL);
        (void)raise(WTERMSIG(status));
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
