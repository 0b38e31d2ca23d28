/* A minimal tar reader over zlib.
 *
 *   tar header, 512 bytes:  0 name[100]  124 size[12], octal  148 checksum[8], octal  156 type  257 "ustar"
 *   then size bytes of content, padded with zeros to 512; two blocks of zeros end the archive
 *
 * A header is valid if and only if (1) its checksum, the sum of its bytes with the checksum's own as spaces, is right
 * and (2) its size is octal. Long-name and pax extension entries are passed over, since the archives that this is for
 * have short names. Names are told to the caller, never used as paths. */
#include "client/tool/targz.h"

#include "common/base/mem.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

#define BLOCK 512u

struct targz {
    const char *path; /* the caller's */
    gzFile file;
    uint64_t left, padding; /* of the current file */
    int ended;
};

int targz_open(const char *path, struct targz **out, struct err *err)
{
    *out = NULL;
    struct targz *archive = mem_new(1, sizeof *archive);
    if (!archive) {
        return err_set(err, ERR_NOMEM, "no memory for an archive");
    }
    archive->path = path;
    errno = 0;
    archive->file = gzopen(path, "rbe");
    if (!archive->file) {
        mem_free(archive);
        return err_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "archive %s: %s", path,
                       errno ? strerror(errno) : "out of memory");
    }
    (void)gzbuffer(archive->file, 1u << 17);
    *out = archive;
    return 0;
}

void targz_close(struct targz *archive)
{
    if (archive) {
        (void)gzclose(archive->file);
        mem_free(archive);
    }
}

/* Up to len bytes; fewer only at a clean end of the file. */
static int take(struct targz *archive, void *data, unsigned len, unsigned *got, struct err *err)
{
    int n = gzread(archive->file, data, len), code = 0;
    *got = n < 0 ? 0 : (unsigned)n;
    if (*got == len) {
        return 0;
    }
    const char *text = gzerror(archive->file, &code);
    if (code == Z_ERRNO) {
        return err_set(err, ERR_IO, "archive %s: %s", archive->path, strerror(errno));
    }
    if (n < 0 || (code != Z_OK && code != Z_STREAM_END)) {
        return err_set(err, ERR_DATA, "the archive is damaged or cut short: %s", text);
    }
    return 0;
}

static int take_all(struct targz *archive, uint8_t *data, uint64_t len, struct err *err)
{
    uint8_t waste[4096];
    while (len > 0) {
        unsigned want = data ? (len < 1u << 30 ? (unsigned)len : 1u << 30)
                             : (len < sizeof waste ? (unsigned)len : (unsigned)sizeof waste);
        unsigned got;
        int rc = take(archive, data ? data : waste, want, &got, err);
        if (rc) {
            return rc;
        }
        if (got < want) {
            return err_set(err, ERR_DATA, "the archive is cut short");
        }
        data = data ? data + want : NULL;
        len -= want;
    }
    return 0;
}

static int octal(const uint8_t *field, size_t width, uint64_t *out)
{
    size_t i = 0;
    *out = 0;
    while (i < width && field[i] == ' ') {
        i++;
    }
    size_t first = i;
    for (; i < width && field[i] >= '0' && field[i] <= '7'; i++) {
        *out = *out * 8 + (uint64_t)(field[i] - '0');
    }
    return i > first && (i == width || field[i] == ' ' || field[i] == '\0') ? 0 : ERR_DATA;
}

static int parse_header(const uint8_t block[BLOCK], uint64_t *size, struct err *err)
{
    uint64_t wanted = 0, sum = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        sum += i >= 148 && i < 156 ? ' ' : block[i];
    }
    if (octal(block + 148, 8, &wanted) || wanted != sum || octal(block + 124, 12, size)) {
        return err_set(err, ERR_DATA, "the archive is damaged, or no tar archive");
    }
    return 0;
}

/* The end blocks were seen: what follows is read too, so that zlib compares its checksum. */
static int finish(struct targz *archive, struct err *err)
{
    uint8_t waste[4096];
    unsigned got;
    int rc;
    do {
        rc = take(archive, waste, sizeof waste, &got, err);
    } while (rc == 0 && got == sizeof waste);
    archive->ended = rc == 0;
    return rc;
}

int targz_next(struct targz *archive, char name[TARGZ_NAME_MAX], uint64_t *size, int *more, struct err *err)
{
    static const uint8_t zeros[BLOCK];
    *more = 0;
    while (!archive->ended) {
        uint8_t block[BLOCK];
        int rc = take_all(archive, NULL, archive->left + archive->padding, err);
        archive->left = archive->padding = 0;
        rc = rc ? rc : take_all(archive, block, BLOCK, err);
        if (rc) {
            return rc;
        }
        if (memcmp(block, zeros, BLOCK) == 0) {
            return finish(archive, err);
        }
        rc = parse_header(block, size, err);
        if (rc) {
            return rc;
        }
        archive->left = *size;
        archive->padding = (BLOCK - *size % BLOCK) % BLOCK;
        if (block[156] == '0' || block[156] == '\0') {
            char full[TARGZ_NAME_MAX] = {0};
            memcpy(full, block, 100);
            const char *slash = strrchr(full, '/');
            const char *last = slash ? slash + 1 : full;
            memcpy(name, last, strlen(last) + 1);
            *more = 1;
            return 0;
        }
    }
    return 0;
}

int targz_read(struct targz *archive, void *data, size_t len, struct err *err)
{
    if (len > archive->left) {
        return err_set(err, ERR_DATA, "a file in the archive is shorter than it should be");
    }
    archive->left -= len;
    return take_all(archive, data, len, err);
}
