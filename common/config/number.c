/* Numbers and durations as text; see number.h. */
#include "common/config/number.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The numbers of printf and strtod follow the locale of the thread; ours do not. */
int number_print(double value, char out[32])
{
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain) {
        return ERR_NOMEM;
    }
    locale_t before = uselocale(plain);
    /* Whole numbers of everyday size read better without an exponent; 17 digits always suffice for the others. */
    bool whole = fabs(value) < 1e15 && value == floor(value);
    for (int digits = whole ? 15 : 1; digits <= 17; digits++) {
        (void)snprintf(out, 32, "%.*g", digits, value);
        double back = strtod(out, NULL);
        if (memcmp(&back, &value, sizeof value) == 0) {
            break;
        }
    }
    (void)uselocale(before);
    freelocale(plain);
    return 0;
}

static size_t digits_of(const char *text)
{
    return strspn(text, "0123456789");
}

/* -12.5e-3 and the like: no spaces, no hexadecimal, no "inf", digits on both sides of a point. */
static bool is_decimal(const char *text)
{
    text += *text == '-';
    size_t n = digits_of(text);
    bool ok = n > 0;
    text += n;
    if (*text == '.') {
        n = digits_of(++text);
        ok &= n > 0;
        text += n;
    }
    if (*text == 'e' || *text == 'E') {
        text++;
        text += *text == '-' || *text == '+';
        n = digits_of(text);
        ok &= n > 0;
        text += n;
    }
    return ok && *text == '\0';
}

int number_parse(const char *text, double *out, bool *ok)
{
    *ok = is_decimal(text);
    if (*ok) {
        locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        if (!plain) {
            return ERR_NOMEM;
        }
        *out = strtod_l(text, NULL, plain);
        freelocale(plain);
        *ok = isfinite(*out);
    }
    return 0;
}

bool whole_parse(const char *text, size_t len, uint64_t *out)
{
    uint64_t value = 0;
    if (len == 0 || digits_of(text) < len || (text[0] == '0' && len > 1)) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value)) {
            return false;
        }
    }
    *out = value;
    return true;
}

static const struct {
    const char *name;
    uint64_t ms;
} units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}}; /* largest first */
#define PRINT_FROM 1 /* plans that exist say 48h, and their canonical bytes must stay */

bool duration_parse(const char *text, uint64_t *out)
{
    size_t digits = digits_of(text);
    uint64_t value;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text + digits, units[i].name) == 0) {
            return whole_parse(text, digits, &value) && !__builtin_mul_overflow(value, units[i].ms, out);
        }
    }
    return false;
}

int duration_print(uint64_t ms, struct buf *out)
{
    size_t i = PRINT_FROM;
    while (ms % units[i].ms != 0) {
        i++;
    }
    i = ms == 0 ? 3 : i; /* "0s" */
    return buf_printf(out, "%llu%s", (unsigned long long)(ms / units[i].ms), units[i].name);
}
