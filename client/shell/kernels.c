#include "client/shell/kernels.h"

#include "common/base/disk.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define FILE_MAX ((size_t)1 << 20)

static void complain(const struct kernels *kernels, const char *reason)
{
    char path[1024];
    log_event(kernels->log, LOG_LEVEL_WARN, "kernels_not_kept", "path=\"%s\" reason=\"%s\"",
              log_quotable(kernels->path, path, sizeof path), reason);
}

void kernels_open(const char *path, const struct log *log, struct kernels *out)
{
    char lock[sizeof out->path + 8];
    uint8_t *data = NULL;
    size_t len = 0;
    struct err err;
    *out = (struct kernels){.lock = -1, .log = log};
    (void)snprintf(out->path, sizeof out->path, "%s", path);
    (void)snprintf(lock, sizeof lock, "%s.lock", out->path);
    out->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int rc;
    do {
        rc = out->lock < 0 ? -1 : flock(out->lock, LOCK_EX);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0) {
        complain(out, strerror(errno));
    }
    rc = disk_load(&disk_posix, out->path, FILE_MAX, &data, &len, &err);
    if (rc != 0) {
        if (rc != ERR_NOTFOUND) {
            complain(out, err.text);
        }
        return;
    }
    char *text = mem_text((const char *)data, len);
    if (text) {
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
    if (kernels->choices.measured > 0) {
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

/* The number behind `key` in a small file of the kernel's, or that it begins with. False: no such file, or no number
 * ("max"). */
static bool read_number(const char *path, const char *key, uint64_t *out)
{
    char line[256];
    bool found = false;
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        size_t skip = strlen(key);
        found = strncmp(line, key, skip) == 0 && sscanf(line + skip, "%" SCNu64, out) == 1;
    }
    if (file) {
        (void)fclose(file);
    }
    return found;
}

uint64_t memory_available(void)
{
    uint64_t system = 0, limit = 0, used = 0;
    if (read_number("/proc/meminfo", "MemAvailable:", &system)) {
        system *= 1024;
    }
    if (read_number("/sys/fs/cgroup/memory.max", "", &limit) &&
        read_number("/sys/fs/cgroup/memory.current", "", &used)) {
        uint64_t left = limit > used ? limit - used : 1;
        return system == 0 || left < system ? left : system;
    }
    return system;
}
