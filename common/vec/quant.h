/* Fewer bits for what travels: IEEE binary16, or 8-bit integers with scales. The same bits on every machine.
 *
 * f16: rounded to nearest, ties to even; what is beyond QUANT_F16_MAX becomes that. int8: scale = the largest |x| /
 * 127, q = x / scale rounded to nearest, ties to even. A scale is at most QUANT_SCALE_MAX, so that no q makes it
 * infinite, and 0 where it would be less than FLT_MIN.
 *
 * An update has one scale for each trained tensor, and one for each number of the BN statistics: the second moments of
 * channels lie orders of magnitude apart, and a variance E[x^2] - E[x]^2 of a quiet channel would be lost, or below
 * zero, at the step of the loudest one. They are a small part of a model. Rows of features have a scale each.
 *
 * Bytes, as proto/starling.proto's Element has them, little-endian: 2 a number; or 1 a number in order, then all scales
 * in order, an f32 each.
 *
 * Errors. f16: |x - x'| <= |x| / 2048 for 2^-14 <= |x| <= QUANT_F16_MAX, and <= 2^-25 below. int8: <= scale * (1/2 +
 * 2^-17) for 2^-119 <= largest <= 2^127. x - x' is itself an f32 then, so that nothing is lost where it is kept: x' is
 * 0 or lies between x / 2 and 2 * x (Sterbenz). */
#ifndef STARLING_VEC_QUANT_H
#define STARLING_VEC_QUANT_H

#include "common/vec/layout.h"

#define QUANT_F16_MAX   65504.0f
#define QUANT_SCALE_MAX 0x1.fp120f

enum quant { QUANT_F32, QUANT_F16, QUANT_INT8 };

uint32_t quant_f16(float x); /* x is finite */
float quant_f16_value(uint32_t half);
/* Of finite numbers. */
float quant_scale(const float *x, uint64_t count);

uint64_t quant_number_bytes(enum quant form); /* of one, without scales */
uint64_t quant_update_bytes(enum quant form, const struct layout *layout);
uint64_t quant_rows_bytes(enum quant form, uint64_t rows, uint32_t dimension);

enum quant_verdict { QUANT_OK, QUANT_LENGTH, QUANT_NOT_FINITE, QUANT_NOT_UNIT };

/* update: [total], and becomes what was not sent, x - x'. *tensor: the first with a number that is not finite; then
 * nothing has changed. */
enum quant_verdict quant_update_encode(enum quant form, const struct layout *layout, float *update, uint8_t *out,
                                       uint32_t *tensor);
/* out: [total]. Refused: another length, an f16 that is not finite, a scale that is none of 0 to QUANT_SCALE_MAX. (An
 * f32 is not looked at: what adds it up does that.) */
enum quant_verdict quant_update_decode(enum quant form, const struct layout *layout, const uint8_t *bytes, uint64_t len,
                                       float *out, uint32_t *tensor);

/* A row's numbers and, for int8, its scale. */
void quant_row_encode(enum quant form, const float *row, uint32_t dimension, uint8_t *numbers, uint8_t *scale);
/* *row: the first with a number that is not finite (f32: not looked at). */
enum quant_verdict quant_rows_encode(enum quant form, const float *rows, uint32_t count, uint32_t dimension,
                                     uint8_t *out, uint32_t *row);
/* Rows that were of unit length within 1e-3. f16 and int8: refused if they cannot have been, else made so again, since
 * rounding has changed it by up to sqrt(dimension) * scale / 2. f32: as they come, for the reader to check. */
enum quant_verdict quant_rows_decode(enum quant form, const uint8_t *bytes, uint64_t len, uint32_t count,
                                     uint32_t dimension, float *out, uint32_t *row);

#endif
