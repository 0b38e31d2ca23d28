/* A growable byte buffer with a ceiling. It never holds more than `max` bytes: what would exceed it is refused with
 * ERR_LIMIT and the buffer stays as it was. */
#ifndef STARLING_BASE_BUF_H
#define STARLING_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data;
    size_t len, cap, max;
};

void buf_init(struct buf *buf, size_t max);
void buf_fini(struct buf *buf);
/* Room for `more` bytes after len. ERR_LIMIT, ERR_NOMEM. */
int buf_reserve(struct buf *buf, size_t more);
int buf_append(struct buf *buf, const void *data, size_t len);
int buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Drops the first `len` bytes. */
void buf_consume(struct buf *buf, size_t len);
/* Appends text as the inside of a JSON string (no quotes). */
int buf_json_escape(struct buf *buf, const char *text);

#endif
