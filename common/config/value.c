/* Values of options: text to field and back; see value.h. */
#include "common/config/value.h"

#include "common/base/text.h"
#include "common/config/number.h"

#include <string.h>

/* A clean text without what YAML reads as a line break or refuses, so that it survives print and parse. */
static bool is_plain_text(const char *text, size_t len)
{
    uint32_t c;
    for (size_t at = 0, step; at < len; at += step) {
        step = text_character(text + at, len - at, &c);
        if (step == 0 || c == 0x2028 || c == 0x2029 || c == 0xfeff || (c & 0xfffe) == 0xfffe) {
            return false;
        }
    }
    return true;
}

static int reject(const struct option *option, const char *text, struct err *err)
{
    struct buf bounds;
    buf_init(&bounds, sizeof err->text);
    (void)value_print_bounds(option, &bounds); /* cut short at worst */
    static const char *const phrases[] = {
        [OPTION_BOOL] = "is not",
        [OPTION_U32] = "is no whole number from",
        [OPTION_U64] = "is no whole number from",
        [OPTION_F64] = "is no number from",
        [OPTION_DURATION] = "is no duration from",
        [OPTION_CHOICE] = "is none of",
        [OPTION_TEXT] = "is no printable text of",
        [OPTION_U32_LIST] = "is no list of",
    };
    uint64_t ms;
    bool no_duration = option->type == OPTION_DURATION && !duration_parse(text, &ms);
    int rc = err_set(err, ERR_CONFIG, "\"%.*s\" %s %.*s%s", VALUE_SHOWN, text, phrases[option->type], (int)bounds.len,
                     bounds.len ? (const char *)bounds.data : "", no_duration ? DURATION_HINT : "");
    buf_fini(&bounds);
    return rc;
}

static bool choice_parse(const struct option *option, const char *text, uint32_t *out)
{
    for (uint32_t i = 0; option->choices[i]; i++) {
        if (strcmp(option->choices[i], text) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool within(const struct option *option, double value)
{
    return value >= option->least && value <= option->most;
}

int value_parse_scalar(const struct option *option, const char *text, size_t len, uint32_t index, void *base,
                       struct err *err)
{
    void *field = (char *)base + option->offset;
    uint64_t whole = 0;
    uint32_t choice = 0;
    double number = 0;
    bool ok = strlen(text) == len; /* a zero byte inside is part of nothing */
    int rc = 0;
    switch (option->type) {
    case OPTION_BOOL:
        ok = ok && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0);
        if (ok) {
            *(bool *)field = text[0] == 't';
        }
        break;
    case OPTION_U32:
    case OPTION_U32_LIST:
        ok = ok && whole_parse(text, len, &whole) && whole <= UINT32_MAX && within(option, (double)whole);
        if (ok) {
            ((uint32_t *)field)[index] = (uint32_t)whole;
        }
        break;
    case OPTION_U64:
    case OPTION_DURATION:
        ok = ok && (option->type == OPTION_U64 ? whole_parse(text, len, &whole) : duration_parse(text, &whole)) &&
             within(option, (double)whole);
        if (ok) {
            *(uint64_t *)field = whole;
        }
        break;
    case OPTION_F64:
        rc = ok ? number_parse(text, &number, &ok) : 0;
        ok = ok && within(option, number);
        if (rc == 0 && ok) {
            *(double *)field = number;
        }
        break;
    case OPTION_CHOICE:
        ok = ok && choice_parse(option, text, &choice);
        if (ok) {
            *(uint32_t *)field = choice;
        }
        break;
    case OPTION_TEXT:
        ok = ok && len < option->size && is_plain_text(text, len);
        if (ok) {
            memset(field, 0, option->size);
            memcpy(field, text, len);
        }
        break;
    }
    return rc ? err_set(err, rc, "%s", err_meaning(rc)) : ok ? 0 : reject(option, text, err);
}

int value_end_list(const struct option *option, uint32_t count, void *base, struct err *err)
{
    if (count == 0) {
        return reject(option, "[]", err);
    }
    uint32_t *items = (uint32_t *)(void *)((char *)base + option->offset);
    memset(items + count, 0, (option->size - count) * sizeof *items);
    *(uint32_t *)(void *)((char *)base + option->count_offset) = count;
    return 0;
}

static int parse_list(const struct option *option, const char *text, void *base, struct err *err)
{
    const char *p = text, *end = text + strlen(text);
    if (*p == '[' && end[-1] == ']') {
        p++;
        end--;
    }
    uint32_t count = 0;
    while (p <= end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma ? comma : end, *last = stop;
        while (p < last && *p == ' ') {
            p++;
        }
        while (last > p && last[-1] == ' ') {
            last--;
        }
        char item[16];
        size_t len = (size_t)(last - p);
        if (count >= option->size || len >= sizeof item) {
            return reject(option, text, err);
        }
        memcpy(item, p, len);
        item[len] = '\0';
        if (value_parse_scalar(option, item, len, count, base, err)) {
            return reject(option, text, err);
        }
        count++;
        p = stop + 1;
    }
    return value_end_list(option, count, base, err);
}

int value_parse(const struct option *option, const char *text, void *base, struct err *err)
{
    return option->type == OPTION_U32_LIST ? parse_list(option, text, base, err)
                                           : value_parse_scalar(option, text, strlen(text), 0, base, err);
}

static int print_text(const char *text, struct buf *out)
{
    int rc = buf_append(out, "\"", 1);
    for (; rc == 0 && *text; text++) {
        if (*text == '"' || *text == '\\') {
            rc = buf_append(out, "\\", 1);
        }
        rc = rc ? rc : buf_append(out, text, 1);
    }
    return rc ? rc : buf_append(out, "\"", 1);
}

static int print_list(const uint32_t *items, uint32_t count, struct buf *out)
{
    int rc = buf_append(out, "[", 1);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        rc = buf_printf(out, "%s%u", i ? ", " : "", items[i]);
    }
    return rc ? rc : buf_append(out, "]", 1);
}

int value_print(const struct option *option, const void *base, struct buf *out)
{
    const void *field = (const char *)base + option->offset;
    char number[32];
    int rc;
    switch (option->type) {
    case OPTION_BOOL:
        return buf_printf(out, "%s", *(const bool *)field ? "true" : "false");
    case OPTION_U32:
        return buf_printf(out, "%u", *(const uint32_t *)field);
    case OPTION_U64:
        return buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)field);
    case OPTION_DURATION:
        return duration_print(*(const uint64_t *)field, out);
    case OPTION_CHOICE:
        return buf_printf(out, "%s", option->choices[*(const uint32_t *)field]);
    case OPTION_U32_LIST:
        return print_list(field, *(const uint32_t *)(const void *)((const char *)base + option->count_offset), out);
    case OPTION_TEXT:
        return print_text(field, out);
    case OPTION_F64:
        break;
    }
    rc = number_print(*(const double *)field, number);
    return rc ? rc : buf_printf(out, "%s", number);
}

int value_print_bounds(const struct option *option, struct buf *out)
{
    char least[32], most[32];
    int rc = 0;
    switch (option->type) {
    case OPTION_BOOL:
        return buf_printf(out, "true or false");
    case OPTION_TEXT:
        return buf_printf(out, "at most %zu bytes", option->size - 1);
    case OPTION_DURATION:
        rc = duration_print((uint64_t)option->least, out);
        rc = rc ? rc : buf_printf(out, " to ");
        return rc ? rc : duration_print((uint64_t)option->most, out);
    case OPTION_CHOICE:
        for (uint32_t i = 0; rc == 0 && option->choices[i]; i++) {
            rc = buf_printf(out, "%s%s", i ? ", " : "", option->choices[i]);
        }
        return rc;
    case OPTION_U32_LIST:
        rc = buf_printf(out, "1 to %zu numbers from ", option->size);
        break;
    case OPTION_U32:
    case OPTION_U64:
    case OPTION_F64:
        break;
    }
    if (rc == 0 && option->type != OPTION_F64) {
        uint64_t top = option->most < 0x1p64 ? (uint64_t)option->most : UINT64_MAX;
        return buf_printf(out, "%llu to %llu", (unsigned long long)option->least, (unsigned long long)top);
    }
    rc = rc ? rc : number_print(option->least, least);
    rc = rc ? rc : number_print(option->most, most);
    return rc ? rc : buf_printf(out, "%s to %s", least, most);
}
