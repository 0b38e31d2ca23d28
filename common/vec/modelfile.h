/* The model file: what the server writes after each round and what `starling eval`, `embed` and `inspect` read.
 * The byte table stands in modelfile.c. */
#ifndef STARLING_VEC_MODELFILE_H
#define STARLING_VEC_MODELFILE_H

#include "common/base/disk.h"
#include "common/vec/layout.h"

struct model_info {
    struct hash128 run; /* random id of the run; zero for a model outside any run */
    struct hash128 plan_hash;
    uint32_t round; /* 0: not trained yet */
    struct model_spec spec;
};

/* Writes durably (disk_save). params: [layout->total] floats. */
int modelfile_save(const struct disk *disk, const char *path, const struct model_info *info,
                   const struct layout *layout, const float *params, struct err *err);

/* ERR_DATA and the check that failed for anything but a whole, undamaged file; the caller frees layout (layout_free)
 * and params (mem_free). Outputs are NULL on failure. */
int modelfile_load(const struct disk *disk, const char *path, struct model_info *info, struct layout **layout,
                   float **params, struct err *err);

/* The same from and to memory, for tests and fuzzing. `head` receives everything before the floats, `tail` (16 bytes)
 * the content hash after them. */
struct buf;
int modelfile_encode(const struct model_info *info, const struct layout *layout, const float *params, struct buf *head,
                     struct hash128 *tail);
int modelfile_decode(const uint8_t *data, size_t len, struct model_info *info, struct layout **layout, float **params,
                     struct err *err);

#endif
