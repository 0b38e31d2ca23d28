/* A disk in memory that loses what was not synced, fills up, and dies at the k-th operation.
 *
 * A file has content and synced content; a folder's entries are what programs see, and, apart from that, what the last
 * sync_folder made durable. A crash goes back to the durable state, except that each thing that was not synced yet is
 * as likely to have reached the disk: with a generator, chance decides; without one, nothing of it has. */
#ifndef STARLING_TESTS_SIMDISK_H
#define STARLING_TESTS_SIMDISK_H

#include "common/base/disk.h"
#include "common/base/rng.h"

#define SIMDISK_FILES 256
#define SIMDISK_PATH  160
#define SIMDISK_OPEN  8

struct simfile {
    uint32_t references;
    uint8_t *data, *synced;
    size_t len, synced_len;
};
struct simentry {
    char path[SIMDISK_PATH];
    struct simfile *file;
};
struct simfolder {
    struct simentry entries[SIMDISK_FILES];
    uint32_t count;
};
struct simdisk {
    struct disk disk; /* hand this to the code under test */
    struct simfolder seen, durable;
    struct simfile *open[SIMDISK_OPEN];
    bool full;            /* creating and writing fails with ERR_FULL */
    uint64_t operations;  /* so far */
    uint64_t dies_after;  /* operations; UINT64_MAX: never */
    uint64_t fails_at;    /* the one operation that ends with ERR_IO; UINT64_MAX: none */
    bool syncs_nothing;   /* a lying disk: fsync returns 0 and does nothing */
    bool syncs_no_folder; /* likewise, for folders alone */
};

void simdisk_init(struct simdisk *disk);
void simdisk_fini(struct simdisk *disk);
/* The machine went down. rng NULL: the worst case. Afterwards the disk lives again. */
void simdisk_crash(struct simdisk *disk, struct rng *rng);
/* A copy of what is durable for certain: what a crash at this moment leaves in the worst case. */
void simdisk_image(const struct simdisk *disk, struct simdisk *out);

#endif
