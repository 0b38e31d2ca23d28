/* One child process of the demo: its output goes to a log file, and it dies with this process. */
#ifndef STARLING_TOOL_DEMO_PROCESS_H
#define STARLING_TOOL_DEMO_PROCESS_H

#include "common/base/buf.h"
#include "common/base/disk.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCESS_ARGS_MAX 20

struct process {
    char name[32];
    char program[DISK_PATH_MAX];
    char log[DISK_PATH_MAX];      /* appended to, so that a restart keeps what was said before */
    char *args[PROCESS_ARGS_MAX]; /* NULL-terminated, args[0] is the program's name; borrowed */
    pid_t pid;                    /* 0: not running */
    int status;                   /* of the last end, as waitpid gives it */
};

int process_start(struct process *process, struct err *err);
/* Whether it ended since it was last asked; then pid is 0 and status is set. */
bool process_ended(struct process *process);
/* SIGTERM to all, up to wait_ms for them to go, then SIGKILL to what is left. None is running afterwards. */
void processes_stop(struct process *const *list, size_t count, uint32_t wait_ms);
/* "signal 9 (KILL)", "exit code 65". */
int process_describe(int status, struct buf *out);
/* The last `lines` lines of the log, each after `indent`, control bytes replaced. Nothing when it cannot be read. */
int process_log_tail(const struct process *process, uint32_t lines, const char *indent, struct buf *out);
/* This program's executable, an absolute path. ERR_NOTFOUND. */
int process_own_path(char out[DISK_PATH_MAX]);
/* A program beside this one's executable. ERR_NOTFOUND. */
int process_sibling(const char *name, char out[DISK_PATH_MAX], struct err *err);

#endif
