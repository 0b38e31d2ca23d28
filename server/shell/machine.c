/* What the daemon asks the machine for. */
#include "server/shell/internal.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

int64_t machine_unix_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t machine_files_most(void)
{
    struct rlimit files;
    return getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY ? files.rlim_cur : UINT32_MAX;
}

/* Without a /proc: more than a server that has just begun has open. */
uint64_t machine_files_open(void)
{
    uint64_t count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder)) {
        count++;
    }
    if (folder) {
        (void)closedir(folder);
    }
    return count ? count : 32;
}

/* VmHWM belongs to this program. ru_maxrss, which is asked when there is no /proc, also counts what the process was
 * before exec: a copy of whoever started it. */
uint64_t machine_peak_rss_bytes(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && kib == 0 && fgets(line, sizeof line, status)) {
        (void)sscanf(line, "VmHWM: %llu kB", &kib);
    }
    if (status) {
        (void)fclose(status);
    }
    struct rusage usage;
    if (kib == 0 && getrusage(RUSAGE_SELF, &usage) == 0) {
        kib = (unsigned long long)usage.ru_maxrss;
    }
    return kib * 1024;
}
