/* The cache file.
 *
 *   offset   bytes     field
 *   0        8         "STARPIX1"
 *   8        4         side, pixels
 *   12       4         n, files in the folder's list
 *   16       16        hash of the list (path, size, time of change of each)
 *   32       28        zero
 *   60       4         CRC-32C of bytes 0 to 59 and of the table
 *   64       n         table: 1 for a file whose pixels follow, 0 for a broken one
 *   P        n * S     pixels, S = side * side * 3 bytes a file in the list's order; P is 64 + n rounded up to 4,096
 *
 * All numbers are little-endian. A cache is valid if and only if (1) its length is P + n * S, (2) it begins with the
 * eight letters, (3) the checksum is right, (4) side, n and hash are those of the folder as it is now. Pixels carry no
 * checksum: reading them all at each start would cost what the cache saves.
 *
 * A new cache is written to PATH.tmp under a lock and renamed, so that readers see the old or the new, whole. What a
 * killed process leaves behind is one PATH.tmp, and the next writer uses it again. */
#include "client/data/cache.h"

#include "common/base/byteorder.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES 64

static uint64_t slot_bytes(const struct cache_key *key)
{
    return (uint64_t)key->side * key->side * 3;
}

static uint64_t pixels_at(const struct cache_key *key)
{
    return (HEADER_BYTES + (uint64_t)key->files + 4095) / 4096 * 4096;
}

static void make_header(const struct cache_key *key, const uint8_t *readable, uint8_t header[HEADER_BYTES])
{
    memset(header, 0, HEADER_BYTES);
    memcpy(header, "STARPIX1", 8);
    store_u32(header + 8, key->side);
    store_u32(header + 12, key->files);
    memcpy(header + 16, key->list.bytes, 16);
    store_u32(header + 60, crc32c(crc32c(0, header, 60), readable, key->files));
}

/* The expected header is built from the key and the file's own table: equal bytes mean that every field is right. */
static int check(const struct cache_key *key, const uint8_t *map, struct err *err)
{
    uint8_t header[HEADER_BYTES];
    make_header(key, map + HEADER_BYTES, header);
    if (memcmp(header, map, 8) != 0) {
        return err_set(err, ERR_DATA, "not a cache of this version");
    }
    if (memcmp(header + 8, map + 8, 24) != 0) {
        return err_set(err, ERR_DATA, "the folder or the size has changed");
    }
    if (memcmp(header, map, HEADER_BYTES) != 0) {
        return err_set(err, ERR_DATA, "the checksum is wrong");
    }
    return 0;
}

int cache_open(const char *path, const struct cache_key *key, struct cache *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for its writer */
    if (file < 0) {
        return err_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_DATA, "%s", strerror(errno));
    }
    uint64_t bytes = 0;
    struct stat st;
    int rc = 0;
    if (__builtin_mul_overflow(slot_bytes(key), key->files, &bytes) ||
        __builtin_add_overflow(bytes, pixels_at(key), &bytes) || bytes > SIZE_MAX / 2) {
        rc = err_set(err, ERR_DATA, "no cache can match");
    } else if (fstat(file, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes) {
        rc = err_set(err, ERR_DATA, "its length is not what the folder and the size make");
    } else {
        void *map = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, file, 0);
        if (map == MAP_FAILED) {
            rc = err_set(err, ERR_DATA, "mmap: %s", strerror(errno));
        } else {
            out->map = map;
            out->map_bytes = (size_t)bytes;
            out->readable = out->map + HEADER_BYTES;
            out->pixels = out->map + pixels_at(key);
            rc = check(key, out->map, err);
        }
    }
    (void)close(file);
    if (rc) {
        cache_close(out);
    }
    return rc;
}

void cache_close(struct cache *cache)
{
    if (cache->map) {
        (void)munmap(cache->map, cache->map_bytes);
    }
    memset(cache, 0, sizeof *cache);
}

static int io_error(void)
{
    return errno == ENOSPC || errno == EDQUOT ? ERR_FULL : ERR_IO;
}

int cache_writer_open(const char *path, const struct cache_key *key, struct cache_writer *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    out->file = -1;
    out->key = *key;
    size_t length = strlen(path);
    out->path = mem_text(path, length);
    out->temporary = mem_new(length + 5, 1);
    int rc = 0;
    if (!out->path || !out->temporary) {
        rc = err_set(err, ERR_NOMEM, "no memory");
        goto failed;
    }
    (void)snprintf(out->temporary, length + 5, "%s.tmp", path);
    out->file = open(out->temporary, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (out->file < 0) {
        rc = err_set(err, io_error(), "open: %s", strerror(errno));
        goto failed;
    }
    /* The lock belongs to the file, not to its name: a file that was renamed between open and flock is another's. */
    struct stat mine, named;
    if (flock(out->file, LOCK_EX | LOCK_NB) || fstat(out->file, &mine) || stat(out->temporary, &named) ||
        mine.st_ino != named.st_ino || mine.st_dev != named.st_dev) {
        rc = err_set(err, ERR_TEMPFAIL, "another process is writing it");
        goto failed;
    }
    out->owned = true;
    if (ftruncate(out->file, 0) || ftruncate(out->file, (off_t)(pixels_at(key) + slot_bytes(key) * key->files))) {
        rc = err_set(err, io_error(), "ftruncate: %s", strerror(errno));
        goto failed;
    }
    return 0;
failed:
    cache_writer_close(out);
    return rc;
}

static int write_at(int file, const uint8_t *data, size_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t n = pwrite(file, data, len, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n == 0 ? ERR_IO : io_error();
        }
        data += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int cache_writer_put(const struct cache_writer *writer, uint32_t file, const uint8_t *pixels)
{
    uint64_t bytes = slot_bytes(&writer->key);
    return write_at(writer->file, pixels, (size_t)bytes, pixels_at(&writer->key) + bytes * file);
}

int cache_writer_commit(struct cache_writer *writer, const uint8_t *readable, struct err *err)
{
    uint8_t header[HEADER_BYTES];
    make_header(&writer->key, readable, header);
    int rc = write_at(writer->file, readable, writer->key.files, HEADER_BYTES);
    rc = rc ? rc : write_at(writer->file, header, HEADER_BYTES, 0);
    if (rc) {
        return err_set(err, rc, "write: %s", err_meaning(rc));
    }
    if (fsync(writer->file)) {
        return err_set(err, io_error(), "fsync: %s", strerror(errno));
    }
    if (rename(writer->temporary, writer->path)) {
        return err_set(err, io_error(), "rename: %s", strerror(errno));
    }
    writer->owned = false;
    return 0;
}

void cache_writer_close(struct cache_writer *writer)
{
    if (writer->owned) {
        (void)unlink(writer->temporary);
    }
    if (writer->file >= 0) {
        (void)close(writer->file);
    }
    mem_free(writer->temporary);
    mem_free(writer->path);
    memset(writer, 0, sizeof *writer);
    writer->file = -1;
}
