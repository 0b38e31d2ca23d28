/* Decoding: what each kind of file becomes, and that no bytes from outside do harm. Run under ASan and UBSan, the loops
 * over cut and changed files are the test; the assertions beside them keep the loops from passing for lack of reach. */
#include "tests/unit/client/data/data_support.h"

#include <spng.h>

#define W 40u
#define H 24u

static uint8_t *make_png(const void *pixels, size_t bytes, uint8_t depth, uint8_t color,
                         const struct spng_plte *palette, size_t *len)
{
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    struct spng_ihdr header = {.width = W, .height = H, .bit_depth = depth, .color_type = color};
    int failed = 0;
    assert_non_null(png);
    assert_int_equal(spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1), 0);
    assert_int_equal(spng_set_ihdr(png, &header), 0);
    if (palette) {
        struct spng_plte copy = *palette;
        assert_int_equal(spng_set_plte(png, &copy), 0);
    }
    assert_int_equal(spng_encode_image(png, pixels, bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE), 0);
    uint8_t *out = spng_get_png_buffer(png, len, &failed);
    assert_int_equal(failed, 0);
    spng_ctx_free(png);
    return out;
}

static void jpeg_is_decoded(void **state)
{
    (void)state;
    uint8_t rgb[W * H * 3];
    size_t len;
    struct image image;
    struct err err;
    paint(rgb, W, H, 3);
    uint8_t *file = make_jpeg(rgb, W, H, TJPF_RGB, &len);
    assert_int_equal(image_kind(file, len), IMAGE_JPEG);
    assert_int_equal(image_decode(file, len, 0, &image, &err), 0);
    assert_int_equal(image.width, W);
    assert_int_equal(image.height, H);
    for (size_t i = 0; i < sizeof rgb; i++) {
        assert_true(abs(image.rgb[i] - rgb[i]) <= 8);
    }
    image_free(&image);
    tjFree(file);
}

static void large_jpeg_is_decoded_at_a_scale(void **state)
{
    (void)state;
    const uint32_t width = 256, height = 192;
    const struct {
        uint32_t at_least, width, height;
    } cases[] = {{0, 256, 192}, {192, 256, 192}, {97, 256, 192}, {96, 128, 96},
                 {32, 64, 48},  {24, 32, 24},    {1, 32, 24}};
    size_t len;
    uint8_t *rgb = mem_new((size_t)width * height, 3);
    paint(rgb, width, height, 1);
    uint8_t *file = make_jpeg(rgb, width, height, TJPF_RGB, &len);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct image image;
        assert_int_equal(image_decode(file, len, cases[i].at_least, &image, NULL), 0);
        assert_int_equal(image.width, cases[i].width);
        assert_int_equal(image.height, cases[i].height);
        image_free(&image);
    }
    tjFree(file);
    mem_free(rgb);
}

static void grey_and_cmyk_jpeg_become_rgb(void **state)
{
    (void)state;
    uint8_t grey[W * H], cmyk[W * H * 4];
    size_t len;
    struct image image;
    memset(grey, 99, sizeof grey);
    uint8_t *file = make_jpeg(grey, W, H, TJPF_GRAY, &len);
    assert_int_equal(image_decode(file, len, 0, &image, NULL), 0);
    assert_in_range(image.rgb[0], 98, 100);
    assert_in_range(image.rgb[2], 98, 100);
    image_free(&image);
    tjFree(file);
    for (size_t i = 0; i < W * H; i++) { /* Adobe's way: 255 is no ink */
        memcpy(cmyk + 4 * i, (const uint8_t[]){255, 128, 0, 128}, 4);
    }
    file = make_jpeg(cmyk, W, H, TJPF_CMYK, &len);
    assert_int_equal(image_decode(file, len, 0, &image, NULL), 0);
    assert_in_range(image.rgb[0], 124, 132);
    assert_in_range(image.rgb[1], 60, 68);
    assert_in_range(image.rgb[2], 0, 4);
    image_free(&image);
    tjFree(file);
}

static void expect_png(const void *pixels, size_t bytes, uint8_t depth, uint8_t color, const struct spng_plte *palette,
                       const uint8_t first[3])
{
    size_t len;
    struct image image;
    struct err err = {0};
    uint8_t *file = make_png(pixels, bytes, depth, color, palette, &len);
    assert_int_equal(image_kind(file, len), IMAGE_PNG);
    if (image_decode(file, len, 8, &image, &err)) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(image.width, W);
    assert_int_equal(image.height, H);
    assert_memory_equal(image.rgb, first, 3);
    assert_memory_equal(image.rgb + 3 * (W * H - 1), first, 3);
    image_free(&image);
    free(file);
}

static void every_kind_of_png_becomes_rgb(void **state)
{
    (void)state;
    uint8_t grey[W * H], rgba[W * H * 4], indexed[W * H];
    uint16_t deep[W * H * 3];
    struct spng_plte palette = {.n_entries = 2, .entries = {{1, 2, 3, 255}, {200, 100, 50, 255}}};
    memset(grey, 77, sizeof grey);
    memset(indexed, 1, sizeof indexed);
    for (size_t i = 0; i < W * H; i++) {
        memcpy(rgba + 4 * i, (const uint8_t[]){10, 20, 30, 0}, 4); /* transparent: the colour under it stays */
        memcpy(deep + 3 * i, (const uint16_t[]){0xff00, 0x8000, 0x0100}, 6);
    }
    expect_png(grey, sizeof grey, 8, SPNG_COLOR_TYPE_GRAYSCALE, NULL, (const uint8_t[]){77, 77, 77});
    expect_png(indexed, sizeof indexed, 8, SPNG_COLOR_TYPE_INDEXED, &palette, (const uint8_t[]){200, 100, 50});
    expect_png(rgba, sizeof rgba, 8, SPNG_COLOR_TYPE_TRUECOLOR_ALPHA, NULL, (const uint8_t[]){10, 20, 30});
    expect_png(deep, sizeof deep, 16, SPNG_COLOR_TYPE_TRUECOLOR, NULL, (const uint8_t[]){0xff, 0x80, 0x01});
}

/* Every beginning of a file, and every byte changed: an error or a picture, never a crash. Returns how many failed. */
static size_t torment(const uint8_t *file, size_t len, bool cut)
{
    size_t failures = 0;
    for (size_t i = 0; i < len; i++) {
        struct image image;
        size_t size = cut ? i : len;
        uint8_t *copy = malloc(size ? size : 1); /* of exactly this size, so that ASan sees one byte too far */
        assert_non_null(copy);
        memcpy(copy, file, size);
        if (!cut) {
            copy[i] ^= (uint8_t)(1u << i % 8 | 0x40);
        }
        int rc = image_decode(copy, size, 16, &image, NULL);
        assert_true(rc == 0 || rc == ERR_DATA);
        assert_true((rc == 0) == (image.rgb != NULL));
        failures += rc != 0;
        image_free(&image);
        free(copy);
    }
    return failures;
}

static void cut_and_damaged_files_do_no_harm(void **state)
{
    (void)state;
    uint8_t rgb[W * H * 3];
    size_t len;
    paint(rgb, W, H, 5);
    uint8_t *jpeg = make_jpeg(rgb, W, H, TJPF_RGB, &len);
    assert_int_equal(torment(jpeg, len, true), len); /* half a picture is not taken for a whole one */
    size_t damaged = torment(jpeg, len, false);
    assert_true(damaged > 20 && damaged < len);
    tjFree(jpeg);
    uint8_t *png = make_png(rgb, sizeof rgb, 8, SPNG_COLOR_TYPE_TRUECOLOR, NULL, &len);
    /* Every byte is under a checksum; of the empty closing chunk libspng leaves that unread, four bytes. */
    assert_true(torment(png, len, true) >= len - 4);
    assert_true(torment(png, len, false) >= len - 4);
    free(png);
}

static uint32_t png_crc(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int k = 0; k < 8; k++) {
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
        }
    }
    return ~crc;
}

static void store_be(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* A header may promise gigabytes in a file of a hundred bytes. Every allocation is made to fail: the answer must still
 * be "bad data", so nothing was asked for. */
static void too_large_is_refused_before_memory_is_taken(void **state)
{
    (void)state;
    uint8_t rgb[W * H * 3];
    size_t len;
    struct image image;
    struct err err;
    paint(rgb, W, H, 5);
    uint8_t *png = make_png(rgb, sizeof rgb, 8, SPNG_COLOR_TYPE_TRUECOLOR, NULL, &len);
    store_be(png + 16, 60000);
    store_be(png + 20, 60000);
    store_be(png + 29, png_crc(png + 12, 17));
    mem_fail_after(1);
    int rc = image_decode(png, len, 32, &image, &err);
    mem_fail_after(0);
    assert_int_equal(rc, ERR_DATA);
    assert_non_null(strstr(err.text, "60000 x 60000"));
    free(png);

    uint8_t *jpeg = make_jpeg(rgb, W, H, TJPF_RGB, &len);
    size_t sof = 0;
    for (size_t i = 0; i + 1 < len && !sof; i++) {
        sof = jpeg[i] == 0xff && jpeg[i + 1] == 0xc0 ? i : 0;
    }
    assert_true(sof > 0);
    memset(jpeg + sof + 5, 0xfe, 4); /* 65,278 x 65,278 */
    mem_fail_after(1);
    rc = image_decode(jpeg, len, 32, &image, &err);
    mem_fail_after(0);
    assert_int_equal(rc, ERR_DATA);
    assert_non_null(strstr(err.text, "65278 x 65278"));
    tjFree(jpeg);
}

static void other_files_are_named_as_such(void **state)
{
    (void)state;
    struct image image;
    struct err err;
    assert_int_equal(image_decode((const uint8_t *)"GIF89a..........", 16, 32, &image, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "neither JPEG nor PNG"));
    assert_int_equal(image_decode((const uint8_t *)"", 0, 32, &image, &err), ERR_DATA);
    assert_null(image.rgb);
}

static void square_keeps_the_middle_and_the_mean(void **state)
{
    (void)state;
    uint8_t wide[8 * 4 * 3], out[4 * 4 * 3], small[3];
    struct image image = {8, 4, wide};
    for (size_t i = 0; i < sizeof wide; i++) {
        wide[i] = (uint8_t)(i * 7 % 251);
    }
    assert_int_equal(image_square(&image, 4, out), 0);
    for (size_t y = 0; y < 4; y++) { /* same size: columns 2 to 5, untouched */
        assert_memory_equal(out + y * 12, wide + y * 24 + 6, 12);
    }
    assert_int_equal(image_square(&image, 1, small), 0);
    for (size_t c = 0; c < 3; c++) {
        unsigned sum = 0;
        for (size_t i = 0; i < 16; i++) {
            sum += out[i * 3 + c];
        }
        assert_int_equal(small[c], (sum + 8) / 16);
    }
    assert_int_equal(image_square(&(struct image){0, 0, wide}, 4, out), ERR_DATA);
}

/* Whole-number weights must sum to one exactly: a plain picture stays plain at every size, also at the edges. */
static void square_of_a_plain_picture_is_plain(void **state)
{
    (void)state;
    uint8_t in[23 * 31 * 3], out[70 * 70 * 3];
    memset(in, 201, sizeof in);
    struct image image = {23, 31, in};
    for (uint32_t side = 1; side <= 70; side++) {
        memset(out, 0, sizeof out);
        assert_int_equal(image_square(&image, side, out), 0);
        for (size_t i = 0; i < (size_t)side * side * 3; i++) {
            assert_int_equal(out[i], 201);
        }
    }
}

static void enlarging_interpolates(void **state)
{
    (void)state;
    uint8_t in[2 * 2 * 3] = {0, 0, 0, 200, 200, 200, 0, 0, 0, 200, 200, 200}, out[8 * 8 * 3];
    struct image image = {2, 2, in};
    assert_int_equal(image_square(&image, 8, out), 0);
    static const uint8_t row[8] = {0, 0, 25, 75, 125, 175, 200, 200};
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(out[i * 3], row[i % 8]);
    }
}

static void writing_reports_what_fails(void **state)
{
    (void)state;
    uint8_t rgb[W * H * 3] = {0};
    struct err err;
    assert_int_equal(image_write_png("/nonexistent/x.png", rgb, W, H, &err), ERR_CANTCREATE);
    assert_non_null(strstr(err.text, "/nonexistent/x.png"));
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(image_write_png("/dev/full", rgb, W, H, &err), ERR_FULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jpeg_is_decoded),
        cmocka_unit_test(large_jpeg_is_decoded_at_a_scale),
        cmocka_unit_test(grey_and_cmyk_jpeg_become_rgb),
        cmocka_unit_test(every_kind_of_png_becomes_rgb),
        cmocka_unit_test(cut_and_damaged_files_do_no_harm),
        cmocka_unit_test(too_large_is_refused_before_memory_is_taken),
        cmocka_unit_test(other_files_are_named_as_such),
        cmocka_unit_test(square_keeps_the_middle_and_the_mean),
        cmocka_unit_test(square_of_a_plain_picture_is_plain),
        cmocka_unit_test(enlarging_interpolates),
        cmocka_unit_test(writing_reports_what_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
