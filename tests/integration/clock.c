/* Preloaded: the wall clock is as many seconds ahead as the file STARLING_CLOCK says. Monotonic clocks stay right, as
 * they do when somebody sets a machine's clock. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long ahead_s(void)
{
    const char *path = getenv("STARLING_CLOCK");
    FILE *file = path ? fopen(path, "re") : NULL;
    char line[32] = "0";
    if (file) {
        (void)!fgets(line, sizeof line, file);
        (void)fclose(file);
    }
    return strtol(line, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next) {
        next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    int rc = next(clock, out);
    out->tv_sec += rc == 0 && clock == CLOCK_REALTIME ? ahead_s() : 0;
    return rc;
}

time_t time(time_t *out)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (out) {
        *out = now.tv_sec;
    }
    return now.tv_sec;
}
