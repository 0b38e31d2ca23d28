/* Names of clients, as they reach terminals, web pages and metrics: [A-Za-z0-9._-]{1,64}. */
#ifndef STARLING_BASE_NAME_H
#define STARLING_BASE_NAME_H

#include <stdbool.h>
#include <stddef.h>

#define NAME_MAX_BYTES 65 /* 64 and the zero */

static inline bool name_is_valid(const char *name)
{
    size_t n = 0;
    for (; name[n]; n++) {
        char c = name[n];
        bool ok = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                  c == '-';
        if (!ok || n >= NAME_MAX_BYTES - 1) {
            return false;
        }
    }
    return n > 0;
}

#endif
