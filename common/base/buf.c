#include "common/base/buf.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void buf_init(struct buf *buf, size_t max)
{
    *buf = (struct buf){.max = max};
}

void buf_fini(struct buf *buf)
{
    mem_free(buf->data);
    *buf = (struct buf){0};
}

int buf_reserve(struct buf *buf, size_t more)
{
    if (more > buf->max - buf->len) {
        return ERR_LIMIT;
    }
    size_t need = buf->len + more;
    if (need <= buf->cap) {
        return 0;
    }
    size_t cap = buf->cap < 256 ? 256 : buf->cap;
    while (cap < need) {
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    }
    if (cap > buf->max) {
        cap = buf->max;
    }
    uint8_t *data = mem_resize(buf->data, cap, 1);
    if (!data) {
        return ERR_NOMEM;
    }
    buf->data = data;
    buf->cap = cap;
    return 0;
}

int buf_append(struct buf *buf, const void *data, size_t len)
{
    int rc = buf_reserve(buf, len);
    if (rc == 0 && len > 0) {
        memcpy(buf->data + buf->len, data, len);
        buf->len += len;
    }
    return rc;
}

int buf_printf(struct buf *buf, const char *format, ...)
{
    char small[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (len < 0) {
        return ERR_FAILED;
    }
    if ((size_t)len < sizeof small) {
        return buf_append(buf, small, (size_t)len);
    }
    int rc = buf_reserve(buf, (size_t)len + 1);
    if (rc == 0) {
        va_start(args, format);
        (void)vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, format, args);
        va_end(args);
        buf->len += (size_t)len;
    }
    return rc;
}

void buf_consume(struct buf *buf, size_t len)
{
    if (len < buf->len) {
        memmove(buf->data, buf->data + len, buf->len - len);
        buf->len -= len;
    } else {
        buf->len = 0;
    }
}

int buf_json_escape(struct buf *buf, const char *text)
{
    int rc = 0;
    for (; *text && rc == 0; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            rc = buf_printf(buf, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            rc = buf_printf(buf, "\\u%04x", c);
        } else {
            rc = buf_append(buf, text, 1);
        }
    }
    return rc;
}
