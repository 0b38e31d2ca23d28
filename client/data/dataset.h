/* A folder of images as an array: scanned once, decoded once, kept in a memory-mapped cache of uint8 pixels.
 *
 * The folder is walked recursively (symbolic links to files are followed, hidden names are skipped), JPEG and PNG are
 * recognised by their first bytes, not by their names. Order: by relative path, bytewise, so that it does not depend on
 * the file system. A broken file is named in the log, counted and skipped; a folder that is missing, empty or without a
 * readable image is ERR_DATA with the path. */
#ifndef STARLING_DATA_DATASET_H
#define STARLING_DATA_DATASET_H

#include "common/base/err.h"
#include "common/base/log.h"

#include <stdbool.h>
#include <stdint.h>

struct dataset;

struct dataset_options {
    const char *folder;
    const char *cache; /* folder for the cache file, created when missing; NULL: memory only */
    uint32_t side;     /* pixels: the shortest side is scaled to it, the middle square is kept */
    uint32_t threads;
    const struct log *log;
    const bool *cancel; /* polled between images when not NULL; ERR_CANCELLED */
};

/* The cache is valid for the same side and the same list of (path, size, mtime); changed files are decoded again. */
int dataset_open(const struct dataset_options *options, struct dataset **out, struct err *err);
void dataset_close(struct dataset *dataset);

/* One file as it would stand in a dataset: out [side, side, 3]. ERR_NOMEM, or another error that concerns this file
 * alone; *unread when its bytes could not be read at all. */
int dataset_decode(const char *folder, const char *path, uint32_t side, uint8_t *out, bool *unread, struct err *err);

uint32_t dataset_count(const struct dataset *dataset);   /* readable images */
uint32_t dataset_skipped(const struct dataset *dataset); /* broken ones */
uint32_t dataset_side(const struct dataset *dataset);
const uint8_t *dataset_pixels(const struct dataset *dataset, uint32_t i); /* [side, side, 3], RGB */
const char *dataset_path(const struct dataset *dataset, uint32_t i);      /* relative to the folder */

/* Classes are the first folder of the relative path, sorted; images directly in the folder have none. Returns the
 * number of classes; 0 when any image has none. */
uint32_t dataset_classes(const struct dataset *dataset);
const char *dataset_class_name(const struct dataset *dataset, uint32_t class);
uint32_t dataset_label(const struct dataset *dataset, uint32_t i);

#endif
