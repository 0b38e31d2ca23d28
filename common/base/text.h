/* Texts from outside reach terminals, logs and pages: they must be UTF-8 (RFC 3629: no overlong forms, no surrogates,
 * nothing past U+10FFFF) and free of control characters (C0, DEL, C1). */
#ifndef STARLING_BASE_TEXT_H
#define STARLING_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the clean character at `text`, and its code point; 0 when there is none. len > 0. */
size_t text_character(const char *text, size_t len, uint32_t *code);
bool text_is_clean(const char *text, size_t len);
/* Copies, with '?' for every byte that keeps the text from being clean; out holds len + 1. */
void text_clean(const char *text, size_t len, char *out);

#endif
