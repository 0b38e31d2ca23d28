/* What verbs share: flags with --help handled, errors to stderr with the right exit code, text and JSON to stdout. */
#ifndef STARLING_TOOL_CLI_H
#define STARLING_TOOL_CLI_H

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/config/flags.h"

struct json_t;

struct cli_verb {
    const char *usage; /* "starling split --images DIR --clients N --split S --out DIR [--seed S]" */
    const char *about; /* one or two sentences */
    const char *examples;
};

/* Parses flags, without positional words. Returns true to go on; false when the verb is over (--help printed, or a
 * usage error reported), with *exit_code set. */
bool cli_flags(const struct cli_verb *verb, const struct flag *flags, size_t count, int argc, char **argv,
               int *exit_code);
/* The same with one positional word, which is required; `what` names it ("FILE.yaml"). */
bool cli_flags_word(const struct cli_verb *verb, const struct flag *flags, size_t count, int argc, char **argv,
                    const char *what, const char **word, int *exit_code);
/* The same with one word that may be left out; then *word stays as it is. */
bool cli_flags_optional_word(const struct cli_verb *verb, const struct flag *flags, size_t count, int argc, char **argv,
                             const char **word, int *exit_code);
/* "starling: sentence" to stderr; returns err_exit_code(err->code). */
int cli_fail(const struct err *err);
/* The bytes to stdout, flushed. Returns 0 or an exit code, after the reason went to stderr. */
int cli_print(const struct buf *out);
/* One JSON object on one line to stdout; takes over the reference. NULL counts as out of memory. Results as cli_print.
 */
int cli_print_json(struct json_t *object);
/* A JSON number, or null where it is not finite. */
struct json_t *cli_number(double value);
/* Processors this process may use, at most 256. */
uint32_t cli_processors(void);
/* A log whose warnings and errors go to stderr as text. */
const struct log *cli_log(void);

#endif
