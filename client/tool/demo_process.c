#include "client/tool/demo_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TAIL_BYTES 8192

/* In the child, between fork and exec: only calls that are safe there. Its own process group keeps the terminal's
 * Ctrl-C away, so that the parent decides in which order things stop. */
static void become(const struct process *process, int log, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0 ||
        setpgid(0, 0) || prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent) {
        _exit(126);
    }
    (void)execv(process->program, process->args);
    _exit(127);
}

int process_start(struct process *process, struct err *err)
{
    int log = open(process->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0) {
        return err_set(err, ERR_CANTCREATE, "cannot write %s: %s", process->log, strerror(errno));
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        become(process, log, parent);
    }
    int reason = errno;
    (void)close(log);
    if (pid < 0) {
        return err_set(err, ERR_FAILED, "cannot start %s: %s", process->name, strerror(reason));
    }
    process->pid = pid;
    return 0;
}

bool process_ended(struct process *process)
{
    if (process->pid == 0 || waitpid(process->pid, &process->status, WNOHANG) != process->pid) {
        return false;
    }
    process->pid = 0;
    return true;
}

static size_t running(struct process *const *list, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        left += list[i]->pid != 0 && !process_ended(list[i]);
    }
    return left;
}

void processes_stop(struct process *const *list, size_t count, uint32_t wait_ms)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i]->pid) {
            (void)kill(list[i]->pid, SIGTERM);
        }
    }
    for (uint32_t waited = 0; running(list, count) > 0 && waited < wait_ms; waited += 10) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    for (size_t i = 0; i < count; i++) {
        if (list[i]->pid) {
            (void)kill(list[i]->pid, SIGKILL);
            while (waitpid(list[i]->pid, &list[i]->status, 0) < 0 && errno == EINTR) {
            }
            list[i]->pid = 0;
        }
    }
}

int process_describe(int status, struct buf *out)
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        return buf_printf(out, "signal %d (%s)", WTERMSIG(status), name ? name : "unknown");
    }
    return buf_printf(out, "exit code %d", WEXITSTATUS(status));
}

/* The last bytes of a file into `text`; returns how many. */
static size_t read_tail(const char *path, char text[TAIL_BYTES])
{
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe has no end to wait for */
    if (file < 0) {
        return 0;
    }
    off_t end = lseek(file, 0, SEEK_END);
    off_t start = end > TAIL_BYTES ? end - TAIL_BYTES : 0;
    ssize_t n = end > 0 ? pread(file, text, TAIL_BYTES, start) : 0;
    (void)close(file);
    return n > 0 ? (size_t)n : 0;
}

int process_log_tail(const struct process *process, uint32_t lines, const char *indent, struct buf *out)
{
    char text[TAIL_BYTES];
    size_t len = read_tail(process->log, text);
    while (len > 0 && text[len - 1] == '\n') {
        len--;
    }
    size_t start = len;
    for (uint32_t found = 0; start > 0; start--) {
        found += text[start - 1] == '\n';
        if (found == lines) {
            break;
        }
    }
    int code = 0;
    while (!code && start < len) {
        size_t end = start;
        for (; end < len && text[end] != '\n'; end++) {
            if ((unsigned char)text[end] < 0x20 || text[end] == 0x7f) {
                text[end] = '?';
            }
        }
        code = buf_printf(out, "%s%.*s\n", indent, (int)(end - start), text + start);
        start = end + 1;
    }
    return code;
}

int process_own_path(char out[DISK_PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", out, DISK_PATH_MAX - 1);
    if (n > 0) {
        out[n] = 0;
        return 0;
    }
    /* A bare chroot may have no /proc; the kernel also tells the path that was executed. DISK_PATH_MAX is PATH_MAX. */
    const char *executed = (const char *)getauxval(AT_EXECFN);
    return executed && realpath(executed, out) ? 0 : ERR_NOTFOUND;
}

int process_sibling(const char *name, char out[DISK_PATH_MAX], struct err *err)
{
    char own[DISK_PATH_MAX];
    if (process_own_path(own)) {
        return err_set(err, ERR_NOTFOUND, "cannot tell where this program lies: %s", strerror(errno));
    }
    *strrchr(own, '/') = 0; /* an absolute path: there is one */
    if (disk_join(out, own, name) || access(out, X_OK)) {
        return err_set(err, ERR_NOTFOUND, "%s is not beside this program in %s", name, own);
    }
    return 0;
}
