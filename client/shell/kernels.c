#include "client/shell/kernels.h"

#include "common/base/disk.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILE_MAX ((size_t)1 << 20)

static void complain(const struct kernels *kernels, const char *reason)
{
    char path[1024];
    log_event(kernels->log, LOG_LEVEL_WARN, "kernels_not_kept", "path=\"%s\" reason=\"%s\"",
              log_quotable(kernels->path, path, sizeof path), reason);
}

#define LOCK_TRIES   1200
#define LOCK_WAIT_NS 50000000

/* flock has no event to wait for that could be cancelled, so it is asked again and again. 0 or an errno. */
static int lock_file(const struct kernels *kernels, const bool *cancel)
{
    for (int i = 0; i < LOCK_TRIES && !__atomic_load_n(cancel, __ATOMIC_RELAXED); i++) {
        if (flock(kernels->lock, LOCK_EX | LOCK_NB) == 0) {
            return 0;
        }
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return errno;
        }
        if (i == 0) {
            char path[1024];
            log_event(kernels->log, LOG_LEVEL_INFO, "kernels_locked",
                      "path=\"%s.lock\" waits_for=\"another process that measures kernels, a minute at most\"",
                      log_quotable(kernels->path, path, sizeof path));
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = LOCK_WAIT_NS}, NULL);
    }
    return EWOULDBLOCK;
}

/* NULL, or why this path is no place for the file. */
static const char *not_ours(const char *path)
{
    struct stat found;
    if (stat(path, &found) != 0) {
        bool dangling = lstat(path, &found) == 0;
        return dangling ? "it is a link that leads nowhere" : errno == ENOENT ? NULL : strerror(errno);
    }
    return S_ISDIR(found.st_mode) ? "it is a folder" : S_ISREG(found.st_mode) ? NULL : "it is no regular file";
}

static void open_lock(struct kernels *kernels, const bool *cancel)
{
    char lock[sizeof kernels->path + 8];
    (void)snprintf(lock, sizeof lock, "%s.lock", kernels->path);
    kernels->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (kernels->lock < 0) {
        complain(kernels, strerror(errno));
        kernels->foreign = true;
        return;
    }
    int rc = lock_file(kernels, cancel);
    if (rc != 0) {
        complain(kernels, rc == EWOULDBLOCK ? "another process holds its lock" : strerror(rc));
        kernels->foreign = true;
    }
}

void kernels_open(const char *path, const struct log *log, const bool *cancel, struct kernels *out)
{
    uint8_t *data = NULL;
    size_t len = 0;
    struct err err;
    *out = (struct kernels){.lock = -1, .log = log, .choices = {.cancel = cancel}};
    (void)snprintf(out->path, sizeof out->path, "%s", path);
    const char *why = not_ours(out->path);
    if (why) {
        complain(out, why);
        out->foreign = true;
        return;
    }
    open_lock(out, cancel);
    int rc = disk_load(&disk_posix, out->path, FILE_MAX, &data, &len, &err);
    if (rc != 0) {
        if (rc != ERR_NOTFOUND && !out->foreign) {
            complain(out, err.text);
            out->foreign = true;
        }
        return;
    }
    char *text = mem_text((const char *)data, len);
    if (!text || strncmp(text, CHOICES_HEADER, strlen(CHOICES_HEADER)) != 0) {
        complain(out, "it is no file of measured kernels, and is left as it is");
        out->foreign = true;
    } else {
        (void)choices_parse(&out->choices, text, &err);
    }
    mem_free(text);
    mem_free(data);
}

void kernels_close(struct kernels *kernels)
{
    struct buf text;
    struct err err = {0};
    buf_init(&text, FILE_MAX);
    if (kernels->choices.measured > 0 && !kernels->foreign) {
        int rc = choices_text(&kernels->choices, &text);
        const struct span part = {text.data, text.len};
        rc = rc ? err_set(&err, rc, "%s", err_meaning(rc)) : disk_save(&disk_posix, kernels->path, &part, 1, &err);
        if (rc != 0) {
            complain(kernels, err.text);
        }
    }
    buf_fini(&text);
    choices_fini(&kernels->choices);
    if (kernels->lock >= 0) {
        (void)close(kernels->lock);
    }
    kernels->lock = -1;
}
