/* A map: what flows between the operations of a network, [n, channels, side, side], in one of three layouts. */
#ifndef STARLING_NN_MAP_H
#define STARLING_NN_MAP_H

#include <stddef.h>
#include <stdint.h>

#define MAP_BLOCK 16u /* channels; one AVX-512 vector of floats */

enum map_format {
    MAP_PLANES, /* [n, channels, pixels]: the image as the caller has it */
    MAP_PIXELS, /* [n, pixels, channels] */
    MAP_BLOCKS, /* [n, channels / 16, pixels, 16]; channels is a multiple of 16 */
};

enum map_type { MAP_F32, MAP_BF16 };

struct map {
    uint32_t n, channels, side;
    enum map_format format;
    enum map_type type;
};

static inline size_t map_elements(const struct map *map)
{
    return (size_t)map->n * map->channels * map->side * map->side;
}

static inline size_t map_bytes(const struct map *map)
{
    return map_elements(map) * (map->type == MAP_BF16 ? sizeof(uint16_t) : sizeof(float));
}

#endif
