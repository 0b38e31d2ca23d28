/* Errors: one list for the whole of Starling.
 *
 * A function that can fail returns 0 or a negative ERR_ code. Where a person will read the reason, it also takes a
 * `struct err *` as its last parameter and fills in one sentence that says what, where and what to do; the pointer
 * may be NULL. Exit codes follow sysexits.h, since scripts branch on them. */
#ifndef STARLING_BASE_ERR_H
#define STARLING_BASE_ERR_H

/* X(name, exit code, what it means) */
#define ERR_LIST(X)                                                                                                    \
    X(NOMEM, 1, "out of memory")                                                                                       \
    X(FAILED, 1, "failed at run time")                                                                                 \
    X(CANCELLED, 1, "cancelled")                                                                                       \
    X(LIMIT, 1, "a limit was exceeded")                                                                                \
    X(STATE, 1, "not allowed in this state")                                                                           \
    X(USAGE, 64, "wrong usage")                                                                                        \
    X(DATA, 65, "bad data")                                                                                            \
    X(NOTFOUND, 65, "not found")                                                                                       \
    X(UNAVAILABLE, 69, "service unavailable")                                                                          \
    X(CANTCREATE, 73, "cannot create output")                                                                          \
    X(IO, 74, "input/output error")                                                                                    \
    X(FULL, 74, "no space left on device")                                                                             \
    X(TEMPFAIL, 75, "temporary failure")                                                                               \
    X(PROTOCOL, 76, "protocol error")                                                                                  \
    X(VERSION, 76, "protocol version mismatch")                                                                        \
    X(MISMATCH, 76, "plan, run or layout mismatch")                                                                    \
    X(CONFIG, 78, "configuration error")                                                                               \
    X(READONLY, 73, "read-only, or no permission to write")                                                            \
    X(ACCESS, 77, "access refused")

enum {
#define ERR_ORDINAL(name, exit, text) ERR_ORDINAL_##name,
    ERR_LIST(ERR_ORDINAL)
#undef ERR_ORDINAL
        ERR_COUNT
};
enum err_code {
    ERR_OK = 0,
#define ERR_CODE(name, exit, text) ERR_##name = -1 - ERR_ORDINAL_##name,
    ERR_LIST(ERR_CODE)
#undef ERR_CODE
};

struct err {
    int code;
    char text[512]; /* one sentence, no newline; control bytes from outside are replaced by '?' */
};

/* Fills *err (if not NULL) and returns `code`, so that a failing line reads `return err_set(err, ERR_DATA, ...)`. */
int err_set(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Puts "prefix: " before the sentence that is already there, and returns the code that is already there. */
int err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

const char *err_name(int code);    /* "DATA"; "OK" for 0; "UNKNOWN" for anything else */
const char *err_meaning(int code); /* the sentence of the list */
int err_exit_code(int code);       /* 0 for 0, sysexits otherwise */

#endif
