#include "client/shell/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The number behind `key` in a small file of the kernel's. False: no such file, or no number there ("max"). */
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

/* Of the group that `folder` describes; false where it has no limit. */
static bool group_available(const char *folder, uint64_t *out)
{
    char path[1200];
    uint64_t limit, used, cached = 0;
    (void)snprintf(path, sizeof path, "%s/memory.max", folder);
    if (!read_number(path, "", &limit)) {
        return false;
    }
    (void)snprintf(path, sizeof path, "%s/memory.current", folder);
    if (!read_number(path, "", &used)) {
        return false;
    }
    (void)snprintf(path, sizeof path, "%s/memory.stat", folder);
    (void)read_number(path, "file ", &cached);
    used = used > cached ? used - cached : 0;
    *out = limit > used ? limit - used : 1;
    return true;
}

uint64_t memory_available(void)
{
    char line[1100], folder[1150];
    uint64_t system = 0, group;
    if (read_number("/proc/meminfo", "MemAvailable:", &system)) {
        system *= 1024;
    }
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "0::", 3) != 0) {
            continue;
        }
        (void)snprintf(folder, sizeof folder, "/sys/fs/cgroup%s", line + 3);
        if (group_available(folder, &group) && (system == 0 || group < system)) {
            system = group;
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return system;
}

uint64_t memory_peak(void)
{
    uint64_t kib = 0;
    return read_number("/proc/self/status", "VmHWM:", &kib) ? kib * 1024 : 0;
}
