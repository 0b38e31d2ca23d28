/* Flags are read in two passes: the first looks for --help, which outranks every mistake on the line; the second takes
 * each word as a flag, a value or a positional word. Values point into argv, so nothing is allocated. */
#include "common/config/flags.h"

#include "common/config/nearest.h"
#include "common/config/number.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#define FLAGS_MAX   64 /* of one program; one bit each in `given` */
#define WORD_SHOWN  24 /* of a word that has no place: it may be a secret that belonged behind a flag */
#define VALUE_SHOWN 64

static const char *rest(const char *word, size_t shown)
{
    return strlen(word) > shown ? "..." : "";
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static bool help_wanted(int argc, char *const *argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (is_help(argv[i])) {
            return true;
        }
    }
    return false;
}

/* The flag whose name is word[0, len). */
static const struct flag *flag_find(const struct flag *flags, size_t count, const char *word, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(flags[i].name) == len && memcmp(flags[i].name, word, len) == 0) {
            return &flags[i];
        }
    }
    return NULL;
}

static int unknown_flag(const struct flag *flags, size_t count, const char *word, size_t len, struct err *err)
{
    char name[NEAREST_WORD_MAX + 1];
    struct nearest nearest = {0};
    if (len < sizeof name) {
        memcpy(name, word, len);
        name[len] = 0;
        for (size_t i = 0; i < count; i++) {
            nearest_offer(&nearest, name, flags[i].name);
        }
        nearest_offer(&nearest, name, "help");
    }
    int shown = len < sizeof name ? (int)len : (int)sizeof name - 1;
    if (nearest.name) {
        return err_set(err, ERR_USAGE, "unknown flag --%.*s; did you mean --%s?", shown, word, nearest.name);
    }
    return err_set(err, ERR_USAGE, "unknown flag --%.*s%s; --help lists them", shown, word,
                   len < sizeof name ? "" : "...");
}

static int bad_number(const struct flag *flag, const char *text, uint64_t most, struct err *err)
{
    if (flag->least == 0 && most == UINT64_MAX) {
        return err_set(err, ERR_USAGE, "--%s: \"%.*s%s\" is no whole number", flag->name, VALUE_SHOWN, text,
                       rest(text, VALUE_SHOWN));
    }
    return err_set(err, ERR_USAGE, "--%s: \"%.*s%s\" is no whole number from %" PRIu64 " to %" PRIu64, flag->name,
                   VALUE_SHOWN, text, rest(text, VALUE_SHOWN), flag->least, most);
}

static int set_number(const struct flag *flag, const char *text, struct err *err)
{
    uint64_t ceiling = flag->type == FLAG_U32 ? UINT32_MAX : UINT64_MAX;
    uint64_t most = flag->most && flag->most < ceiling ? flag->most : ceiling;
    uint64_t number = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (digit > most || number > (most - digit) / 10) {
            return bad_number(flag, text, most, err);
        }
        number = number * 10 + digit;
    }
    if (p == text || *p || number < flag->least) {
        return bad_number(flag, text, most, err);
    }
    if (flag->type == FLAG_U32) {
        *(uint32_t *)flag->value = (uint32_t)number;
    } else {
        *(uint64_t *)flag->value = number;
    }
    return 0;
}

static int set_duration(const struct flag *flag, const char *text, struct err *err)
{
    uint64_t most = flag->most ? flag->most : UINT64_MAX, ms;
    bool is_one = duration_parse(text, &ms);
    if (is_one && ms >= flag->least && ms <= most) {
        *(uint64_t *)flag->value = ms;
        return 0;
    }
    struct buf bounds;
    buf_init(&bounds, 128);
    int rc = duration_print(flag->least, &bounds);
    rc = rc ? rc : buf_append(&bounds, " to ", 4);
    rc = rc ? rc : duration_print(most, &bounds);
    rc = rc ? rc : buf_append(&bounds, "", 1);
    rc = err_set(err, ERR_USAGE, "--%s: \"%.*s%s\" is no duration from %s%s", flag->name, VALUE_SHOWN, text,
                 rest(text, VALUE_SHOWN), rc ? "the shortest to the longest" : (const char *)bounds.data,
                 is_one ? "" : DURATION_HINT);
    buf_fini(&bounds);
    return rc;
}

static int set_value(const struct flag *flag, const char *text, struct err *err)
{
    switch (flag->type) {
    case FLAG_SWITCH:
        *(bool *)flag->value = true;
        return 0;
    case FLAG_TEXT:
        if (!*text) {
            return err_set(err, ERR_USAGE, "--%s: the value is empty", flag->name);
        }
        *(const char **)flag->value = text;
        return 0;
    case FLAG_U32:
    case FLAG_U64:
        return set_number(flag, text, err);
    case FLAG_DURATION:
        return set_duration(flag, text, err);
    case FLAG_LIST: {
        const char **list = flag->value;
        size_t n = 0;
        while (list[n]) {
            n++;
        }
        if (n + 1 >= FLAG_LIST_MAX) {
            return err_set(err, ERR_USAGE, "--%s: given more than %d times", flag->name, FLAG_LIST_MAX - 1);
        }
        list[n] = text;
        list[n + 1] = NULL;
        return 0;
    }
    }
    return ERR_USAGE;
}

/* One flag at argv[*at]; moves *at to its value when that is a word of its own. */
static int take_flag(const struct flag *flags, size_t count, int argc, char *const *argv, int *at, uint64_t *given,
                     struct err *err)
{
    const char *word = argv[*at] + 2;
    const char *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    const struct flag *flag = flag_find(flags, count, word, len);
    if (!flag) {
        return unknown_flag(flags, count, word, len, err);
    }
    uint64_t bit = UINT64_C(1) << (flag - flags);
    if ((*given & bit) && flag->type != FLAG_LIST) {
        return err_set(err, ERR_USAGE, "--%s is given twice", flag->name);
    }
    *given |= bit;
    if (flag->type == FLAG_SWITCH) {
        return equals ? err_set(err, ERR_USAGE, "--%s takes no value", flag->name) : set_value(flag, "", err);
    }
    if (equals) {
        return set_value(flag, equals + 1, err);
    }
    if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0) {
        return err_set(err, ERR_USAGE, "--%s needs a value: --%s %s", flag->name, flag->name, flag->operand);
    }
    *at += 1;
    return set_value(flag, argv[*at], err);
}

int flags_parse(const struct flag *flags, size_t count, int argc, char *const *argv, const char **positional,
                size_t positional_max, size_t *positional_count, bool *help, struct err *err)
{
    assert(count <= FLAGS_MAX);
    size_t words = 0;
    uint64_t given = 0;
    bool ended = false;
    *help = help_wanted(argc, argv);
    if (positional_count) {
        *positional_count = 0;
    }
    if (*help) {
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        if (!ended && strcmp(argv[i], "--") == 0) {
            ended = true;
        } else if (!ended && strncmp(argv[i], "--", 2) == 0) {
            int code = take_flag(flags, count, argc, argv, &i, &given, err);
            if (code) {
                return code;
            }
        } else if (!ended && argv[i][0] == '-' && argv[i][1]) {
            return err_set(err, ERR_USAGE, "unknown flag %.*s%s; flags have long names, --help lists them", WORD_SHOWN,
                           argv[i], rest(argv[i], WORD_SHOWN));
        } else if (words >= positional_max) {
            return err_set(err, ERR_USAGE, "unexpected word \"%.*s%s\"; --help shows how it is called", WORD_SHOWN,
                           argv[i], rest(argv[i], WORD_SHOWN));
        } else {
            positional[words++] = argv[i];
        }
    }
    if (positional_count) {
        *positional_count = words;
    }
    for (size_t i = 0; i < count; i++) {
        if (flags[i].required && !(given >> i & 1)) {
            return err_set(err, ERR_USAGE, "--%s %s is missing", flags[i].name,
                           flags[i].operand ? flags[i].operand : "");
        }
    }
    return 0;
}

/* "--name OPERAND" as the left column shows it; its width. */
static size_t left_width(const struct flag *flag)
{
    return 2 + strlen(flag->name) + (flag->operand ? 1 + strlen(flag->operand) : 0);
}

/* `text` broken at spaces so that lines end by column 100; continuation lines start at `indent`. */
static int wrap(struct buf *out, const char *text, size_t indent)
{
    size_t room = indent < 60 ? 100 - indent : 40;
    int code = 0;
    while (!code && strlen(text) > room) {
        size_t cut = room;
        while (cut > 0 && text[cut] != ' ') {
            cut--;
        }
        if (cut == 0) {
            break;
        }
        code = buf_printf(out, "%.*s\n%*s", (int)cut, text, (int)indent, "");
        text += cut + 1;
    }
    return code ? code : buf_printf(out, "%s\n", text);
}

int flags_help(const char *usage, const char *about, const char *examples, const struct flag *flags, size_t count,
               struct buf *out)
{
    int code = 0;
    if (examples) {
        code = buf_printf(out, "Examples:\n%s%s\n", examples, examples[strlen(examples) - 1] == '\n' ? "" : "\n");
    }
    code = code ? code : buf_printf(out, "Usage: %s\n\n", usage);
    if (!code && about) {
        code = wrap(out, about, 0);
        code = code ? code : buf_append(out, "\n", 1);
    }
    size_t column = strlen("--help");
    for (size_t i = 0; i < count; i++) {
        size_t width = left_width(&flags[i]);
        column = width > column && width <= 34 ? width : column;
    }
    code = code ? code : buf_printf(out, "Flags:\n");
    for (size_t i = 0; !code && i < count; i++) {
        const struct flag *flag = &flags[i];
        code = buf_printf(out, "  --%s%s%s", flag->name, flag->operand ? " " : "", flag->operand ? flag->operand : "");
        size_t width = left_width(flag);
        if (!code && width > column) {
            code = buf_printf(out, "\n%*s", (int)column + 4, "");
        } else if (!code) {
            code = buf_printf(out, "%*s", (int)(column - width) + 2, "");
        }
        code = code ? code : wrap(out, flag->help, column + 4);
    }
    return code ? code : buf_printf(out, "  --help%*sprints this\n", (int)(column - strlen("--help")) + 2, "");
}
