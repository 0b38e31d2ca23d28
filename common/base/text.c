/* One step function decides what a clean character is; the check and the cleaning copy both walk by it. */
#include "common/base/text.h"

#include <string.h>

size_t text_character(const char *text, size_t len, uint32_t *code)
{
    const uint8_t *bytes = (const uint8_t *)text;
    uint8_t first = bytes[0];
    if (first < 0x80) {
        *code = first;
        return first >= 0x20 && first != 0x7f ? 1 : 0;
    }
    size_t more = first >= 0xc2 && first < 0xe0   ? 1
                  : (first & 0xf0) == 0xe0        ? 2
                  : first >= 0xf0 && first < 0xf5 ? 3
                                                  : 0;
    if (more == 0 || len <= more) {
        return 0;
    }
    *code = first & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
        *code = *code << 6 | (bytes[i] & 0x3fu);
    }
    static const uint32_t least[] = {0, 0xa0, 0x800, 0x10000}; /* 0x80..0x9f: C1 controls */
    bool surrogate = *code >= 0xd800 && *code < 0xe000;
    return *code >= least[more] && *code <= 0x10ffff && !surrogate ? more + 1 : 0;
}

bool text_is_clean(const char *text, size_t len)
{
    uint32_t code;
    size_t at = 0, step = 1;
    for (; at < len && step > 0; at += step) {
        step = text_character(text + at, len - at, &code);
    }
    return step > 0;
}

void text_clean(const char *text, size_t len, char *out)
{
    uint32_t code;
    for (size_t at = 0; at < len;) {
        size_t step = text_character(text + at, len - at, &code);
        if (step > 0) {
            memcpy(out + at, text + at, step);
            at += step;
        } else {
            out[at++] = '?';
        }
    }
    out[len] = 0;
}
