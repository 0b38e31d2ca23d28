#include "common/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int exit_code;
    const char *meaning;
} table[] = {
#define ERR_ROW(name, exit, text) {#name, exit, text},
    ERR_LIST(ERR_ROW)
#undef ERR_ROW
};

/* Texts quote bytes from outside (file names, peers); no control byte may reach a terminal or a log line. */
static void scrub(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = '?';
        }
    }
}

int err_set(struct err *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = code;
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        scrub(err->text);
    }
    return code;
}

int err_prefix(struct err *err, const char *format, ...)
{
    if (!err) {
        return ERR_FAILED;
    }
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    int written = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (written >= 0 && (size_t)written < sizeof err->text) {
        size_t room = sizeof err->text - (size_t)written;
        (void)snprintf(err->text + written, room, ": %.*s", (int)(room > 3 ? room - 3 : 0), old);
    }
    scrub(err->text);
    return err->code;
}

static int row_of(int code)
{
    int row = -1 - code;
    return row >= 0 && row < ERR_COUNT ? row : -1;
}

const char *err_name(int code)
{
    return code == 0 ? "OK" : row_of(code) < 0 ? "UNKNOWN" : table[row_of(code)].name;
}

const char *err_meaning(int code)
{
    return code == 0 ? "no error" : row_of(code) < 0 ? "unknown error" : table[row_of(code)].meaning;
}

int err_exit_code(int code)
{
    return code == 0 ? 0 : row_of(code) < 0 ? 1 : table[row_of(code)].exit_code;
}
