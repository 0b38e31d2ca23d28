/* Reads a .tar.gz (or .tar) from front to back, one regular file after the other. */
#ifndef STARLING_TOOL_TARGZ_H
#define STARLING_TOOL_TARGZ_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct targz;

int targz_open(const char *path, struct targz **out, struct err *err); /* ERR_NOTFOUND, ERR_IO, ERR_NOMEM */
void targz_close(struct targz *archive);

#define TARGZ_NAME_MAX 101
/* Goes to the next regular file, past whatever of this one was not read. name: its last part. *more is 0 at the end,
 * which is reached only when the gzip checksum is right. ERR_DATA for a damaged archive, ERR_IO. */
int targz_next(struct targz *archive, char name[TARGZ_NAME_MAX], uint64_t *size, int *more, struct err *err);
/* Exactly len bytes of the current file. ERR_DATA when it is shorter or damaged. */
int targz_read(struct targz *archive, void *data, size_t len, struct err *err);

#endif
