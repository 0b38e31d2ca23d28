/* What tests with image files share: a scratch folder, encoders, a log that counts. Used by data, train and tool. */
#ifndef STARLING_TESTS_DATA_SUPPORT_H
#define STARLING_TESTS_DATA_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first. */
#include <cmocka.h>

#include "client/data/image.h"
#include "common/base/disk.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <turbojpeg.h>
#include <unistd.h>

struct scratch {
    char path[64];
};

static inline void scratch_open(struct scratch *scratch)
{
    (void)snprintf(scratch->path, sizeof scratch->path, "/tmp/starling-test-XXXXXX");
    assert_non_null(mkdtemp(scratch->path));
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

static inline void scratch_close(struct scratch *scratch)
{
    (void)nftw(scratch->path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* "scratch/name" with the folders on the way made; the caller's buffer. */
static inline const char *scratch_path(const struct scratch *scratch, const char *name, char out[DISK_PATH_MAX])
{
    assert_int_equal(disk_join(out, scratch->path, name), 0);
    for (char *c = out + strlen(scratch->path) + 1; *c; c++) {
        if (*c == '/') {
            *c = '\0';
            (void)mkdir(out, 0700);
            *c = '/';
        }
    }
    return out;
}

static inline void write_bytes(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static inline uint8_t *read_bytes(const char *path, size_t *len)
{
    uint8_t *data;
    struct err err;
    if (disk_load(&disk_posix, path, 1u << 30, &data, len, &err)) {
        fail_msg("%s", err.text);
    }
    return data;
}

/* A picture that differs from place to place and by `name`, smooth enough for JPEG. */
static inline void paint(uint8_t *rgb, uint32_t width, uint32_t height, uint32_t name)
{
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            uint8_t *p = rgb + ((size_t)y * width + x) * 3;
            p[0] = (uint8_t)(40 + 200 * x / width);
            p[1] = (uint8_t)(40 + 200 * y / height);
            p[2] = (uint8_t)(17 * name + 5 * (x + y) / (width + height));
        }
    }
}

static inline void put_png(const struct scratch *scratch, const char *name, uint32_t width, uint32_t height,
                           uint32_t seed)
{
    char path[DISK_PATH_MAX];
    uint8_t *rgb = mem_new((size_t)width * height, 3);
    assert_non_null(rgb);
    paint(rgb, width, height, seed);
    assert_int_equal(image_write_png(scratch_path(scratch, name, path), rgb, width, height, NULL), 0);
    mem_free(rgb);
}

/* To be freed with tjFree. */
static inline uint8_t *make_jpeg(const uint8_t *pixels, uint32_t width, uint32_t height, int format, size_t *len)
{
    tjhandle tj = tjInitCompress();
    unsigned char *out = NULL;
    unsigned long size = 0;
    assert_non_null(tj);
    assert_int_equal(tjCompress2(tj, pixels, (int)width, 0, (int)height, format, &out, &size,
                                 format == TJPF_GRAY ? TJSAMP_GRAY : TJSAMP_444, 95, 0),
                     0);
    (void)tjDestroy(tj);
    *len = size;
    return out;
}

static inline void put_jpeg(const struct scratch *scratch, const char *name, uint32_t width, uint32_t height,
                            uint32_t seed)
{
    char path[DISK_PATH_MAX];
    size_t len;
    uint8_t *rgb = mem_new((size_t)width * height, 3);
    assert_non_null(rgb);
    paint(rgb, width, height, seed);
    uint8_t *file = make_jpeg(rgb, width, height, TJPF_RGB, &len);
    write_bytes(scratch_path(scratch, name, path), file, len);
    tjFree(file);
    mem_free(rgb);
}

/* Counts events and keeps the last event's fields. */
struct tally {
    pthread_mutex_t lock;
    char fields[2048];
    struct {
        char event[32];
        unsigned count;
    } events[16];
};

static inline void tally_emit(void *ctx, enum log_level level, const char *event, const char *fields)
{
    struct tally *tally = ctx;
    (void)level;
    (void)pthread_mutex_lock(&tally->lock);
    for (size_t i = 0; i < 16; i++) {
        if (tally->events[i].count == 0) {
            (void)snprintf(tally->events[i].event, sizeof tally->events[i].event, "%s", event);
        }
        if (strcmp(tally->events[i].event, event) == 0) {
            tally->events[i].count++;
            break;
        }
    }
    if (level >= LOG_LEVEL_WARN) {
        (void)snprintf(tally->fields, sizeof tally->fields, "%s", fields);
    }
    (void)pthread_mutex_unlock(&tally->lock);
}

static inline unsigned tally_of(const struct tally *tally, const char *event)
{
    for (size_t i = 0; i < 16; i++) {
        if (strcmp(tally->events[i].event, event) == 0) {
            return tally->events[i].count;
        }
    }
    return 0;
}

#endif
