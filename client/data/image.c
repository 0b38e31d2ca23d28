/* Image files: bytes from outside to RGB pixels, and pixels to PNG.
 *
 * The bytes may come from anyone. What a file says about itself is read first (libjpeg-turbo's and libspng's header
 * parsers), judged against the bounds of image.h, and only then is memory taken. A file that its decoder had to repair
 * (truncated, corrupt data, wrong checksums) is broken: half a picture is not training data.
 *
 * What becomes of the unusual: grey and palette become RGB, 16 bits become 8, alpha is dropped (the colours under it
 * stay), an embedded profile and the EXIF orientation are ignored. CMYK in a JPEG is taken for Adobe's, which stores
 * it inverted, and multiplied out without a profile. */
#include "client/data/image.h"

#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <spng.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <unistd.h>

#define SIDE_MAX  65535u
#define CHUNK_MAX (64u << 20) /* PNG: one chunk, and all chunks that libspng keeps */

enum image_kind image_kind(const uint8_t *head, size_t len)
{
    if (len >= 3 && memcmp(head, "\xff\xd8\xff", 3) == 0) {
        return IMAGE_JPEG;
    }
    if (len >= 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0) {
        return IMAGE_PNG;
    }
    return IMAGE_UNKNOWN;
}

static int check_size(uint64_t width, uint64_t height, struct err *err)
{
    if (width == 0 || height == 0) {
        return err_set(err, ERR_DATA, "the image has no pixels");
    }
    if (width > SIDE_MAX || height > SIDE_MAX || width * height > IMAGE_PIXELS_MAX) {
        return err_set(err, ERR_DATA, "%llu x %llu pixels are too many", (unsigned long long)width,
                       (unsigned long long)height);
    }
    return 0;
}

static int take_memory(uint32_t width, uint32_t height, struct image *out, struct err *err)
{
    out->rgb = mem_new((size_t)width * height, 3);
    if (!out->rgb) {
        return err_set(err, ERR_NOMEM, "no memory for %u x %u pixels", width, height);
    }
    out->width = width;
    out->height = height;
    return 0;
}

/* The scales that libjpeg-turbo decodes with vector code: 1, 1/2, 1/4, 1/8. */
static tjscalingfactor jpeg_scale(int width, int height, uint32_t at_least)
{
    int shortest = width < height ? width : height;
    tjscalingfactor scale = {1, 1};
    while (at_least > 0 && scale.denom < 8) {
        tjscalingfactor next = {1, scale.denom * 2};
        if ((uint32_t)TJSCALED(shortest, next) < at_least) {
            break;
        }
        scale = next;
    }
    return scale;
}

static int jpeg_cmyk(tjhandle tj, const uint8_t *file, size_t len, int flags, struct image *image, struct err *err)
{
    size_t pixels = (size_t)image->width * image->height;
    uint8_t *cmyk = mem_new(pixels, 4);
    if (!cmyk) {
        return err_set(err, ERR_NOMEM, "no memory for a CMYK image");
    }
    int rc = tjDecompress2(tj, file, len, cmyk, (int)image->width, 0, (int)image->height, TJPF_CMYK, flags);
    for (size_t i = 0; rc == 0 && i < pixels; i++) {
        for (size_t c = 0; c < 3; c++) {
            image->rgb[i * 3 + c] = (uint8_t)((cmyk[i * 4 + c] * cmyk[i * 4 + 3] + 127) / 255);
        }
    }
    mem_free(cmyk);
    return rc ? err_set(err, ERR_DATA, "broken JPEG: %s", tjGetErrorStr2(tj)) : 0;
}

static int jpeg_decode(const uint8_t *file, size_t len, uint32_t at_least, struct image *out, struct err *err)
{
    tjhandle tj = tjInitDecompress();
    if (!tj) {
        return err_set(err, ERR_NOMEM, "no memory for a JPEG decoder");
    }
    int width = 0, height = 0, subsampling = 0, colorspace = 0, rc = 0;
    int flags = TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS;
    if (tjDecompressHeader3(tj, file, len, &width, &height, &subsampling, &colorspace)) {
        rc = err_set(err, ERR_DATA, "broken JPEG header: %s", tjGetErrorStr2(tj));
        goto done;
    }
    rc = check_size((uint64_t)width, (uint64_t)height, err);
    if (rc) {
        goto done;
    }
    tjscalingfactor scale = jpeg_scale(width, height, at_least);
    rc = take_memory((uint32_t)TJSCALED(width, scale), (uint32_t)TJSCALED(height, scale), out, err);
    if (rc) {
        goto done;
    }
    if (colorspace == TJCS_CMYK || colorspace == TJCS_YCCK) {
        rc = jpeg_cmyk(tj, file, len, flags, out, err);
    } else if (tjDecompress2(tj, file, len, out->rgb, (int)out->width, 0, (int)out->height, TJPF_RGB, flags)) {
        rc = err_set(err, ERR_DATA, "broken JPEG: %s", tjGetErrorStr2(tj));
    }
done:
    (void)tjDestroy(tj);
    return rc;
}

static int png_decode(const uint8_t *file, size_t len, struct image *out, struct err *err)
{
    spng_ctx *png = spng_ctx_new(0);
    if (!png) {
        return err_set(err, ERR_NOMEM, "no memory for a PNG decoder");
    }
    struct spng_ihdr header;
    size_t bytes = 0;
    int failed = spng_set_image_limits(png, SIDE_MAX, SIDE_MAX);
    failed = failed ? failed : spng_set_chunk_limits(png, CHUNK_MAX, CHUNK_MAX);
    failed = failed ? failed : spng_set_png_buffer(png, file, len);
    failed = failed ? failed : spng_get_ihdr(png, &header);
    int rc = failed ? err_set(err, ERR_DATA, "broken PNG header: %s", spng_strerror(failed)) : 0;
    if (rc == 0) {
        rc = check_size(header.width, header.height, err);
    }
    if (rc == 0) {
        rc = take_memory(header.width, header.height, out, err);
    }
    if (rc == 0) {
        failed = spng_decoded_image_size(png, SPNG_FMT_RGB8, &bytes);
        if (!failed && bytes != (size_t)header.width * header.height * 3) {
            failed = SPNG_EINTERNAL;
        }
        failed = failed ? failed : spng_decode_image(png, out->rgb, bytes, SPNG_FMT_RGB8, 0);
        failed = failed ? failed : spng_decode_chunks(png); /* to the end: a file cut behind its last row is cut too */
        rc = failed ? err_set(err, ERR_DATA, "broken PNG: %s", spng_strerror(failed)) : 0;
    }
    spng_ctx_free(png);
    return rc;
}

int image_decode(const uint8_t *file, size_t len, uint32_t at_least, struct image *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    if (len > IMAGE_FILE_MAX) {
        return err_set(err, ERR_DATA, "a file of %zu bytes is too large", len);
    }
    int rc;
    switch (image_kind(file, len)) {
    case IMAGE_JPEG:
        rc = jpeg_decode(file, len, at_least, out, err);
        break;
    case IMAGE_PNG:
        rc = png_decode(file, len, out, err);
        break;
    default:
        rc = err_set(err, ERR_DATA, "neither JPEG nor PNG");
    }
    if (rc) {
        image_free(out);
    }
    return rc;
}

void image_free(struct image *image)
{
    mem_free(image->rgb);
    memset(image, 0, sizeof *image);
}

/* The source pixels that make output pixel i when `from` pixels become `to`: `first`.. with whole-number weights that
 * sum to `total`, so that scaling is exact and the same everywhere. Shrinking weighs each source pixel by the area it
 * covers; enlarging interpolates linearly between two. */
struct taps {
    uint32_t first, count;
    uint32_t head, middle, tail; /* weights of the first, the inner and the last */
    uint32_t total;
};

static struct taps taps_of(uint32_t i, uint32_t from, uint32_t to)
{
    struct taps taps;
    if (from >= to) {
        uint64_t begin = (uint64_t)i * from, end = begin + from; /* in units of 1 / to source pixels */
        uint32_t last = (uint32_t)((end - 1) / to);
        taps.first = (uint32_t)(begin / to);
        taps.count = last - taps.first + 1;
        taps.head = taps.count > 1 ? (uint32_t)((uint64_t)(taps.first + 1) * to - begin) : from;
        taps.middle = to;
        taps.tail = (uint32_t)(end - (uint64_t)last * to);
        taps.total = from;
        return taps;
    }
    /* The centre of output pixel i lies (2i + 1) from - to, in units of 1 / 2to, past the centre of source pixel 0. */
    int64_t centre = (int64_t)(2 * (uint64_t)i + 1) * from - to;
    centre = centre < 0 ? 0 : centre;
    taps.first = (uint32_t)(centre / (2 * (int64_t)to));
    taps.tail = (uint32_t)(centre % (2 * (int64_t)to));
    taps.total = 2 * to;
    taps.head = taps.total - taps.tail;
    taps.middle = 0;
    taps.count = taps.tail > 0 && taps.first + 1 < from ? 2 : 1;
    if (taps.count == 1) {
        taps.head = taps.total;
    }
    return taps;
}

static uint32_t tap_weight(const struct taps *taps, uint32_t k)
{
    return k == 0 ? taps->head : k + 1 == taps->count ? taps->tail : taps->middle;
}

/* One source row, weighed across: out [side, 3]; at most 255 * 2 * 65,535 each. */
static void square_row(const uint8_t *row, uint32_t side, const struct taps *across, uint32_t *out)
{
    for (uint32_t x = 0; x < side; x++) {
        const struct taps *taps = &across[x];
        const uint8_t *p = row + (size_t)taps->first * 3;
        uint32_t r = taps->head * p[0], g = taps->head * p[1], b = taps->head * p[2];
        for (uint32_t i = 1; i < taps->count; i++) {
            uint32_t weight = i + 1 == taps->count ? taps->tail : taps->middle;
            p += 3;
            r += weight * p[0];
            g += weight * p[1];
            b += weight * p[2];
        }
        out[x * 3] = r;
        out[x * 3 + 1] = g;
        out[x * 3 + 2] = b;
    }
}

int image_square(const struct image *image, uint32_t side, uint8_t *out)
{
    uint32_t from = image->width < image->height ? image->width : image->height;
    if (from == 0 || side == 0 || side > SIDE_MAX) {
        return ERR_DATA;
    }
    size_t stride = (size_t)image->width * 3, values = (size_t)side * 3;
    struct taps *across = mem_new(side, sizeof *across);
    uint32_t *row = mem_new(values, sizeof *row);
    uint64_t *sums = mem_new(values, sizeof *sums);
    int rc = across && row && sums ? 0 : ERR_NOMEM;
    const uint8_t *square =
        image->rgb + (size_t)((image->height - from) / 2) * stride + (size_t)((image->width - from) / 2) * 3;
    for (uint32_t x = 0; rc == 0 && x < side; x++) {
        across[x] = taps_of(x, from, side);
    }
    uint32_t held = UINT32_MAX; /* the source row in `row`: neighbours share one */
    for (uint32_t y = 0; rc == 0 && y < side; y++) {
        struct taps down = taps_of(y, from, side);
        uint64_t all = (uint64_t)down.total * across[0].total;
        for (uint32_t j = 0; j < down.count; j++) {
            if (held != down.first + j) {
                held = down.first + j;
                square_row(square + held * stride, side, across, row);
            }
            uint32_t weight = tap_weight(&down, j);
            for (size_t i = 0; i < values; i++) {
                sums[i] = (j == 0 ? 0 : sums[i]) + (uint64_t)weight * row[i];
            }
        }
        for (size_t i = 0; i < values; i++) {
            out[y * values + i] = (uint8_t)((sums[i] + all / 2) / all);
        }
    }
    mem_free(across);
    mem_free(row);
    mem_free(sums);
    return rc;
}

static int write_file(const char *path, const uint8_t *data, size_t len, struct err *err)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) {
        return err_set(err, errno == ENOSPC || errno == EDQUOT ? ERR_FULL : ERR_CANTCREATE, "%s: %s", path,
                       strerror(errno));
    }
    int failed = 0;
    while (len > 0 && !failed) {
        ssize_t n = write(file, data, len);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            failed = n == 0 ? EIO : errno;
        }
    }
    if (close(file) && !failed) {
        failed = errno;
    }
    return failed ? err_set(err, failed == ENOSPC || failed == EDQUOT ? ERR_FULL : ERR_IO, "%s: %s", path,
                            strerror(failed))
                  : 0;
}

int image_write_png(const char *path, const uint8_t *rgb, uint32_t width, uint32_t height, struct err *err)
{
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    if (!png) {
        return err_set(err, ERR_NOMEM, "no memory for a PNG encoder");
    }
    struct spng_ihdr header = {
        .width = width, .height = height, .bit_depth = 8, .color_type = SPNG_COLOR_TYPE_TRUECOLOR};
    size_t len = 0;
    uint8_t *data = NULL;
    int failed = spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1);
    failed = failed ? failed : spng_set_ihdr(png, &header);
    failed =
        failed ? failed : spng_encode_image(png, rgb, (size_t)width * height * 3, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    if (!failed) {
        data = spng_get_png_buffer(png, &len, &failed); /* ours to free, and from malloc: libspng's allocator */
    }
    int rc = failed ? err_set(err, ERR_FAILED, "%s: PNG encoder: %s", path, spng_strerror(failed))
                    : write_file(path, data, len, err);
    free(data);
    spng_ctx_free(png);
    return rc;
}
