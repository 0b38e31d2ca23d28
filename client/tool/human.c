#include "client/tool/human.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *human_bytes(uint64_t bytes, char out[HUMAN_MAX])
{
    static const char *const units[] = {"KB", "MB", "GB", "TB", "PB", "EB"};
    if (bytes < 1000) {
        (void)snprintf(out, HUMAN_MAX, "%" PRIu64 " B", bytes);
        return out;
    }
    double value = (double)bytes / 1000;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1000;
        unit++;
    }
    (void)snprintf(out, HUMAN_MAX, value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

const char *human_ms(uint64_t ms, char out[HUMAN_MAX])
{
    uint64_t s = (ms + 500) / 1000;
    if (ms < 9950) {
        (void)snprintf(out, HUMAN_MAX, "%.1f s", (double)ms / 1000);
    } else if (s < 120) {
        (void)snprintf(out, HUMAN_MAX, "%" PRIu64 " s", s);
    } else if (s < 7200) {
        (void)snprintf(out, HUMAN_MAX, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    } else if (s < 172800) {
        (void)snprintf(out, HUMAN_MAX, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    } else {
        (void)snprintf(out, HUMAN_MAX, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
    }
    return out;
}

const char *human_count(uint64_t count, char out[HUMAN_MAX])
{
    char digits[HUMAN_MAX];
    int n = snprintf(digits, sizeof digits, "%" PRIu64, count);
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) {
            out[at++] = ',';
        }
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}
