/* See quant.h. Everything runs over runs of numbers that share a scale: a tensor, a statistic, a row. f16 is converted
 * by integer arithmetic, because not every processor has the instruction; int8 divides in double, where no quotient of
 * two f32 is mistaken for a tie. */
#include "common/vec/quant.h"

#include "common/base/byteorder.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define UNIT_SLACK     1e-3
#define UNIT_SCALE_MAX 0.008f /* a little more than 1 / 127 */

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static bool all_finite(const float *x, uint64_t count)
{
    bool finite = true;
    for (uint64_t i = 0; i < count; i++) {
        finite &= fabsf(x[i]) <= FLT_MAX; /* false for NaN */
    }
    return finite;
}

/* ---- One number ---- */

/* value / 2^shift, to nearest, ties to even. */
static uint32_t shift_rounded(uint32_t value, uint32_t shift)
{
    uint32_t kept = value >> shift, rest = value & ((1u << shift) - 1), half = 1u << (shift - 1);
    return kept + (rest > half || (rest == half && (kept & 1)));
}

uint32_t quant_f16(float x)
{
    uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    uint32_t exponent = magnitude >> 23, half;
    if (exponent < 102) { /* below 2^-25, half of the least number */
        half = 0;
    } else if (exponent < 113) { /* below 2^-14: multiples of 2^-24 */
        half = shift_rounded((magnitude & 0x7fffff) | 0x800000, 126 - exponent);
    } else { /* a carry out of the fraction raises the exponent, as it should */
        half = shift_rounded(magnitude - (112u << 23), 13);
    }
    return sign | (half < 0x7bff ? half : 0x7bff);
}

float quant_f16_value(uint32_t half)
{
    uint32_t sign = (half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 0x3ff;
    if (exponent == 0) {
        float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return float_of(sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13);
}

float quant_scale(const float *x, uint64_t count)
{
    float largest = 0;
    for (uint64_t i = 0; i < count; i++) {
        float value = fabsf(x[i]);
        largest = value > largest ? value : largest;
    }
    float scale = largest / 127;
    return scale < FLT_MIN ? 0 : scale < QUANT_SCALE_MAX ? scale : QUANT_SCALE_MAX;
}

/* ---- Numbers that share a scale ---- */

/* rest, which may be x: becomes x - x'; NULL: nobody wants it. */
static void encode_run(enum quant form, const float *x, uint64_t count, uint8_t *numbers, uint8_t *scale_bytes,
                       float *rest)
{
    float scale = form == QUANT_INT8 ? quant_scale(x, count) : 0;
    if (form == QUANT_INT8) {
        store_u32(scale_bytes, bits_of(scale));
    }
    for (uint64_t i = 0; i < count; i++) {
        float sent = x[i];
        if (form == QUANT_F32) {
            store_u32(numbers + 4 * i, bits_of(x[i]));
        } else if (form == QUANT_F16) {
            uint32_t half = quant_f16(x[i]);
            store_u16(numbers + 2 * i, half);
            sent = quant_f16_value(half);
        } else {
            double q = scale > 0 ? rint((double)x[i] / (double)scale) : 0;
            q = q > 127 ? 127 : q < -127 ? -127 : q; /* only beyond QUANT_SCALE_MAX */
            numbers[i] = (uint8_t)(int8_t)q;
            sent = (float)q * scale;
        }
        if (rest) {
            rest[i] = x[i] - sent;
        }
    }
}

/* False: something that is no number, or no scale. */
static bool decode_run(enum quant form, const uint8_t *numbers, const uint8_t *scale_bytes, uint64_t count, float *out)
{
    if (form == QUANT_F32) {
        memcpy(out, numbers, count * sizeof *out);
        return true;
    }
    if (form == QUANT_F16) {
        for (uint64_t i = 0; i < count; i++) {
            out[i] = quant_f16_value(load_u16(numbers + 2 * i));
        }
        return all_finite(out, count);
    }
    float scale = float_of(load_u32(scale_bytes));
    if (!(scale >= 0 && scale <= QUANT_SCALE_MAX)) { /* NaN is neither */
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        out[i] = (float)(int8_t)numbers[i] * scale;
    }
    return true;
}

uint64_t quant_number_bytes(enum quant form)
{
    return form == QUANT_F32 ? 4 : form == QUANT_F16 ? 2 : 1;
}

static uint64_t bytes_for(enum quant form, uint64_t count, uint64_t scales)
{
    return count * quant_number_bytes(form) + (form == QUANT_INT8 ? 4 * scales : 0);
}

/* ---- Updates ---- */

/* A scale for the whole tensor, or for each number of statistics. */
static uint64_t run_of(const struct layout *layout, const struct tensor *tensor)
{
    return tensor->offset < layout->trainable_end ? tensor->count : 1;
}

uint64_t quant_update_bytes(enum quant form, const struct layout *layout)
{
    uint64_t scales = 0;
    for (uint32_t t = 0; t < layout->count; t++) {
        scales += layout->tensors[t].count / run_of(layout, &layout->tensors[t]);
    }
    return bytes_for(form, layout->total, scales);
}

enum quant_verdict quant_update_encode(enum quant form, const struct layout *layout, float *update, uint8_t *out,
                                       uint32_t *tensor)
{
    for (uint32_t t = 0; t < layout->count; t++) {
        if (!all_finite(update + layout->tensors[t].offset, layout->tensors[t].count)) {
            *tensor = t;
            return QUANT_NOT_FINITE;
        }
    }
    uint8_t *scale = out + layout->total * quant_number_bytes(form);
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *of = &layout->tensors[t];
        uint64_t run = run_of(layout, of);
        for (uint64_t at = of->offset; at < of->offset + of->count; at += run) {
            encode_run(form, update + at, run, out + at * quant_number_bytes(form), scale, update + at);
            scale += form == QUANT_INT8 ? 4 : 0;
        }
    }
    return QUANT_OK;
}

enum quant_verdict quant_update_decode(enum quant form, const struct layout *layout, const uint8_t *bytes, uint64_t len,
                                       float *out, uint32_t *tensor)
{
    *tensor = 0;
    if (len != quant_update_bytes(form, layout)) {
        return QUANT_LENGTH;
    }
    const uint8_t *scale = bytes + layout->total * quant_number_bytes(form);
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *of = &layout->tensors[t];
        uint64_t run = run_of(layout, of);
        for (uint64_t at = of->offset; at < of->offset + of->count; at += run) {
            if (!decode_run(form, bytes + at * quant_number_bytes(form), scale, run, out + at)) {
                *tensor = t;
                return QUANT_NOT_FINITE;
            }
            scale += form == QUANT_INT8 ? 4 : 0;
        }
    }
    return QUANT_OK;
}

/* ---- Rows ---- */

uint64_t quant_rows_bytes(enum quant form, uint64_t rows, uint32_t dimension)
{
    return bytes_for(form, rows * dimension, rows);
}

void quant_row_encode(enum quant form, const float *row, uint32_t dimension, uint8_t *numbers, uint8_t *scale)
{
    encode_run(form, row, dimension, numbers, scale, NULL);
}

enum quant_verdict quant_rows_encode(enum quant form, const float *rows, uint32_t count, uint32_t dimension,
                                     uint8_t *out, uint32_t *row)
{
    uint64_t row_bytes = dimension * quant_number_bytes(form);
    uint8_t *scales = out + count * row_bytes;
    for (uint32_t r = 0; r < count; r++) {
        const float *from = rows + (uint64_t)r * dimension;
        if (form != QUANT_F32 && !all_finite(from, dimension)) {
            *row = r;
            return QUANT_NOT_FINITE;
        }
        encode_run(form, from, dimension, out + r * row_bytes, form == QUANT_INT8 ? scales + 4ull * r : NULL, NULL);
    }
    return QUANT_OK;
}

/* Whether a row of unit length can have become this one; then it is of unit length again. Summed in order, in double.
 */
static bool make_unit(enum quant form, float scale, uint32_t dimension, float *row)
{
    double slack = UNIT_SLACK + (form == QUANT_F16 ? 1.0 / 1024 : sqrt(dimension) * (double)scale / 2);
    double squares = 0;
    if (scale > UNIT_SCALE_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < dimension; i++) {
        squares += (double)row[i] * (double)row[i];
    }
    double length = sqrt(squares);
    if (fabs(length - 1) > slack || length < 0.5) {
        return false;
    }
    for (uint32_t i = 0; i < dimension; i++) {
        row[i] = (float)((double)row[i] / length);
    }
    return true;
}

enum quant_verdict quant_rows_decode(enum quant form, const uint8_t *bytes, uint64_t len, uint32_t count,
                                     uint32_t dimension, float *out, uint32_t *row)
{
    *row = 0;
    if (len != quant_rows_bytes(form, count, dimension)) {
        return QUANT_LENGTH;
    }
    uint64_t row_bytes = dimension * quant_number_bytes(form);
    const uint8_t *scales = bytes + count * row_bytes;
    for (uint32_t r = 0; r < count; r++) {
        const uint8_t *scale = form == QUANT_INT8 ? scales + 4ull * r : NULL;
        float *to = out + (uint64_t)r * dimension;
        *row = r;
        if (!decode_run(form, bytes + r * row_bytes, scale, dimension, to)) {
            return QUANT_NOT_FINITE;
        }
        if (form != QUANT_F32 && !make_unit(form, scale ? float_of(load_u32(scale)) : 0, dimension, to)) {
            return QUANT_NOT_UNIT;
        }
    }
    return QUANT_OK;
}
