#ifndef STARLING_TOOL_DRAW_IMAGES_H
#define STARLING_TOOL_DRAW_IMAGES_H

#include "common/base/err.h"

#include <stdint.h>

struct draw_images_options {
    const char *out;
    uint32_t classes, per_class, size; /* up to DRAW_CLASSES_MAX; DRAW_SIZE_MIN to DRAW_SIZE_MAX pixels */
    uint64_t seed;
};

/* out/<class>/NNNN.png into a new or empty folder. ERR_CANTCREATE, ERR_FULL, ERR_IO, ERR_NOMEM. */
int draw_images_run(const struct draw_images_options *options, struct err *err);

#endif
