/* One image file to pixels and back: JPEG by libjpeg-turbo (decoded at a scale not far above what is needed), PNG by
 * libspng. Bounds: at most 65,535 pixels a side and IMAGE_PIXELS_MAX in all, judged from the header before memory is
 * taken. */
#ifndef STARLING_DATA_IMAGE_H
#define STARLING_DATA_IMAGE_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define IMAGE_PIXELS_MAX (100u * 1000 * 1000)
#define IMAGE_FILE_MAX   (256u << 20)

/* Told by the first bytes, never by the name. */
enum image_kind { IMAGE_UNKNOWN, IMAGE_JPEG, IMAGE_PNG };
#define IMAGE_HEAD 8 /* bytes that image_kind needs to see */
enum image_kind image_kind(const uint8_t *head, size_t len);

struct image {
    uint32_t width, height;
    uint8_t *rgb; /* [height, width, 3] */
};

/* at_least: the shortest side may be reduced towards it by the decoder, never below; 0: full size. ERR_DATA. */
int image_decode(const uint8_t *file, size_t len, uint32_t at_least, struct image *out, struct err *err);
void image_free(struct image *image);
/* Area-averaged scaling (antialiased) so that the shortest side is `side`, then the middle square: out [side, side, 3].
 * Smaller images are enlarged by linear interpolation. ERR_DATA for an empty image or a side of 0 or above 65,535;
 * ERR_NOMEM. */
int image_square(const struct image *image, uint32_t side, uint8_t *out);
/* Writes a PNG file. ERR_CANTCREATE, ERR_FULL, ERR_IO. */
int image_write_png(const char *path, const uint8_t *rgb, uint32_t width, uint32_t height, struct err *err);

#endif
