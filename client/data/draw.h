/* A labelled picture from numbers alone, for trying Starling without a data set: the class is a pattern (stripes, dots,
 * bricks, ...), everything else about the picture is chance. */
#ifndef STARLING_DATA_DRAW_H
#define STARLING_DATA_DRAW_H

#include <stdint.h>

#define DRAW_CLASSES_MAX 12
#define DRAW_SIZE_MIN    16
#define DRAW_SIZE_MAX    512

const char *draw_class_name(uint32_t class); /* class < DRAW_CLASSES_MAX */
/* A function of its arguments: the same bytes on every machine. rgb: [size, size, 3]. */
void draw_image(uint32_t class, uint64_t seed, uint64_t index, uint32_t size, uint8_t *rgb);

#endif
