/* Quantisers: error bounds over ordinary and adversarial numbers, nothing lost between what is sent and what is kept,
 * sums over many rounds that stay within one rest of the truth, and decoders that take nothing else. Each check is
 * shown to catch the mistake that it is for. */
#include "common/base/byteorder.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/vec/quant.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct layout *layout;
static float *update, *copy, *back;
static uint8_t *bytes;

static int set_up(void **state)
{
    (void)state;
    const struct model_spec spec = {.stages = 2, .blocks = {1, 1}, .width = 8, .input = 8, .features = 8};
    if (layout_new(&spec, &layout, NULL)) {
        return -1;
    }
    size_t n = (size_t)layout->total;
    update = mem_new_aligned(n, sizeof *update);
    copy = mem_new_aligned(n, sizeof *copy);
    back = mem_new_aligned(n, sizeof *back);
    bytes = mem_new(8 * n, 1);
    return update && copy && back && bytes ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    layout_free(layout);
    mem_free(update);
    mem_free(copy);
    mem_free(back);
    mem_free(bytes);
    return 0;
}

static float any_float(struct rng *rng)
{
    uint32_t bits = (uint32_t)rng_u64(rng);
    float x;
    bits = (bits >> 23 & 255) == 255 ? bits ^ 1u << 30 : bits;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- f16 ---- */

/* Constants by another implementation of binary16 (Python's struct, format e). */
static void f16_is_binary16(void **state)
{
    (void)state;
    static const struct {
        float x;
        uint32_t half;
    } golden[] = {
        {1.0f, 0x3c00},
        {-2.5f, 0xc100},
        {0x1.ffcp15f, 0x7bff},
        {65519.996f, 0x7bff},
        {65520.0f, 0x7bff},
        {-1e30f, 0xfbff},
        {FLT_MAX, 0x7bff},
        {0x1p-14f, 0x0400},
        {0x1.ff8p-15f, 0x03ff},
        {0x1.ffcp-15f, 0x0400},
        {0x1p-24f, 0x0001},
        {0x1p-25f, 0x0000},
        {0x1.000002p-25f, 0x0001},
        {0x1.8p-24f, 0x0002},
        {0x1.4p-23f, 0x0002},
        {1e-40f, 0x0000},
        {0x1.002p0f, 0x3c00},
        {0x1.006p0f, 0x3c02},
        {0x1.002002p0f, 0x3c01},
        {0.1f, 0x2e66},
        {0.333333333f, 0x3555},
        {1234.5678f, 0x64d3},
        {-0.0f, 0x8000},
        {0x1.ffep0f, 0x4000},
        {3.14159265f, 0x4248},
    };
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        assert_int_equal(quant_f16(golden[i].x), golden[i].half);
    }
    for (uint32_t half = 0; half < 0x10000; half++) {
        float x = quant_f16_value(half);
        bool finite = (half & 0x7c00) != 0x7c00;
        assert_int_equal(isfinite(x) != 0, finite);
        if (finite) {
            assert_int_equal(quant_f16(x), half);
        }
    }
}

static double f16_bound(float x)
{
    double magnitude = fabs((double)x);
    return magnitude < 0x1p-14 ? 0x1p-25 : magnitude / 2048;
}

static uint32_t truncated_f16(float x)
{
    uint32_t half = quant_f16(x);
    return fabsf(quant_f16_value(half)) > fabsf(x) ? half - 1 : half;
}

static void f16_is_within_half_a_step(void **state)
{
    (void)state;
    struct rng rng;
    uint32_t caught = 0;
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (uint32_t i = 0; i < 400000; i++) {
        float x = i % 2 ? any_float(&rng) : ldexpf(rng_normal(&rng), (int)rng_below(&rng, 36) - 26);
        float sent = quant_f16_value(quant_f16(x));
        if (fabsf(x) > QUANT_F16_MAX) {
            assert_true(fabsf(sent) == QUANT_F16_MAX && (sent > 0) == (x > 0));
            continue;
        }
        assert_true(fabs((double)x - (double)sent) <= f16_bound(x));
        assert_true((double)(x - sent) == (double)x - (double)sent); /* an f32 holds the rest */
        caught += fabs((double)x - (double)quant_f16_value(truncated_f16(x))) > f16_bound(x);
    }
    assert_true(caught > 1000);
}

/* ---- int8 ---- */

/* What is the matter with `sent` for `x`; NULL: nothing. */
static const char *fault_of(const float *x, const float *sent, uint32_t count, float scale)
{
    for (uint32_t i = 0; i < count; i++) {
        if (fabs((double)x[i] - (double)sent[i]) > (double)scale * (0.5 + 0x1p-17)) {
            return "it is off by more than half a step";
        }
        if ((double)(x[i] - sent[i]) != (double)x[i] - (double)sent[i]) {
            return "the rest is rounded";
        }
    }
    return NULL;
}

static void int8_is_within_half_a_step(void **state)
{
    (void)state;
    enum { N = 64 };
    struct rng rng;
    uint32_t caught = 0;
    rng_init(&rng, 2, RNG_TEST, 0, 0, 0);
    for (uint32_t round = 0; round < 20000; round++) {
        float x[N], largest = 0, sent[N], cut[N];
        uint8_t packed[N], scale_bytes[4];
        for (uint32_t i = 0; i < N; i++) { /* of one size; of all sizes; halves of a step */
            float even = ldexpf(rng_normal(&rng), (int)(round % 200) - 100);
            float tie = ldexpf((float)rng_below(&rng, 255) / 2, (int)(round % 97) - 50);
            float all = ldexpf(any_float(&rng), -1);
            x[i] = round % 3 == 0 ? even : round % 3 == 1 ? all : tie;
            largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
        }
        float scale = quant_scale(x, N), read;
        assert_true(scale == largest / 127);
        quant_row_encode(QUANT_INT8, x, N, packed, scale_bytes);
        uint32_t bits = load_u32(scale_bytes);
        memcpy(&read, &bits, sizeof read);
        assert_true(read == scale);
        for (uint32_t i = 0; i < N; i++) {
            sent[i] = (float)(int8_t)packed[i] * scale;
            cut[i] = (float)trunc((double)x[i] / (double)scale) * scale;
        }
        const char *fault = fault_of(x, sent, N, scale);
        if (fault) {
            fail_msg("round %u: %s", round, fault);
        }
        caught += fault_of(x, cut, N, scale) != NULL;
    }
    assert_true(caught > 10000);
    static const float zeros[3] = {0, -0.0f, 0}, ties[3] = {127, 2.5f, -3.5f}, tiny[2] = {0x1p-149f, 1e-37f};
    static const float most[2] = {FLT_MAX, -FLT_MAX};
    uint8_t packed[3], scale[4];
    assert_true(quant_scale(zeros, 3) == 0 && quant_scale(ties, 3) == 1 && quant_scale(tiny, 2) == 0);
    quant_row_encode(QUANT_INT8, zeros, 3, packed, scale);
    assert_memory_equal(packed, ((uint8_t[]){0, 0, 0}), 3);
    quant_row_encode(QUANT_INT8, tiny, 2, packed, scale);
    assert_memory_equal(packed, ((uint8_t[]){0, 0}), 2);
    quant_row_encode(QUANT_INT8, ties, 3, packed, scale);
    assert_memory_equal(packed, ((uint8_t[]){127, 2, 252}), 3); /* to the even one */
    quant_row_encode(QUANT_INT8, most, 2, packed, scale);
    assert_true(quant_scale(most, 2) == QUANT_SCALE_MAX && packed[0] == 127 && packed[1] == 129);
    assert_true(isfinite(-128 * QUANT_SCALE_MAX));
}

/* ---- Updates ---- */

static void draw_update(uint32_t round)
{
    struct rng rng;
    rng_init(&rng, 3, RNG_TEST, round, 0, 0);
    for (uint64_t i = 0; i < layout->total; i++) {
        update[i] = rng_normal(&rng) * ldexpf(0.01f, -(int)rng_below(&rng, 12));
    }
}

static void nothing_is_lost_between_sent_and_rest(void **state)
{
    (void)state;
    uint32_t at;
    for (uint32_t form = QUANT_F32; form <= QUANT_INT8; form++) {
        draw_update(form);
        memcpy(copy, update, (size_t)layout->total * sizeof *update);
        uint64_t len = quant_update_bytes(form, layout);
        assert_int_equal(quant_update_encode(form, layout, update, bytes, &at), QUANT_OK);
        assert_int_equal(quant_update_decode(form, layout, bytes, len, back, &at), QUANT_OK);
        for (uint64_t i = 0; i < layout->total; i++) {
            assert_true((double)back[i] + (double)update[i] == (double)copy[i]);
            assert_true(form != QUANT_F32 || update[i] == 0);
        }
    }
    uint64_t statistics = layout->total - layout->trainable_end, trained = 0;
    for (uint32_t t = 0; t < layout->count; t++) {
        trained += layout->tensors[t].offset < layout->trainable_end;
    }
    assert_int_equal(quant_update_bytes(QUANT_F16, layout), 2 * layout->total);
    assert_int_equal(quant_update_bytes(QUANT_INT8, layout), layout->total + 4 * (trained + statistics));
}

/* The variance of a quiet channel beside a loud one, from moments that travelled. */
static void statistics_keep_the_quiet_channels(void **state)
{
    (void)state;
    uint32_t at, caught = 0;
    memset(update, 0, (size_t)layout->total * sizeof *update);
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        for (uint64_t i = 0; i < tensor->count; i++) {
            float mean = i == 0 ? 40.0f : 0.1f, variance = i == 0 ? 100.0f : 0.001f;
            float *to = update + tensor->offset + i;
            *to = tensor->kind == TENSOR_BN_MEAN ? mean : tensor->kind == TENSOR_BN_SQUARE ? variance + mean * mean : 0;
        }
    }
    memcpy(copy, update, (size_t)layout->total * sizeof *update);
    assert_int_equal(quant_update_encode(QUANT_INT8, layout, update, bytes, &at), QUANT_OK);
    assert_int_equal(quant_update_decode(QUANT_INT8, layout, bytes, quant_update_bytes(QUANT_INT8, layout), back, &at),
                     QUANT_OK);
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        if (tensor->kind != TENSOR_BN_SQUARE) {
            continue;
        }
        uint8_t packed[512], scale_bytes[4];
        assert_true(tensor->count <= sizeof packed);
        quant_row_encode(QUANT_INT8, copy + tensor->offset, (uint32_t)tensor->count, packed, scale_bytes);
        for (uint64_t i = 1; i < tensor->count; i++) {
            assert_true(fabsf(back[tensor->offset + i] - 0.011f) < 1e-6f);
            caught += packed[i] == 0; /* one scale a tensor: E[x^2] of 0, a variance below zero */
        }
    }
    assert_true(caught > 50);
}

/* The largest difference between what was learned and what was sent over the rounds, of those that move steadily;
 * *bound: what the last rest explains, and the rounding of one f32 addition a round. */
static double drift(uint32_t form, uint32_t rounds, bool feedback, double *bound)
{
    size_t n = (size_t)layout->total;
    double *learned = mem_new(n, sizeof *learned), *sent = mem_new(n, sizeof *sent), *slack = mem_new(n, sizeof *slack);
    double worst = 0;
    uint32_t at;
    memset(copy, 0, n * sizeof *copy); /* the rest */
    for (uint32_t round = 0; round < rounds; round++) {
        draw_update(round);
        for (size_t i = 0; i < n; i++) {
            update[i] = i % 2 ? ldexpf((float)(i % 1000) + 0.37f, -20) : update[i]; /* half move steadily */
            learned[i] += (double)update[i];
            update[i] += feedback ? copy[i] : 0;
            slack[i] += fabs((double)update[i]) * 0x1p-24;
        }
        assert_int_equal(quant_update_encode(form, layout, update, bytes, &at), QUANT_OK);
        assert_int_equal(quant_update_decode(form, layout, bytes, quant_update_bytes(form, layout), back, &at),
                         QUANT_OK);
        memcpy(copy, update, n * sizeof *copy);
        for (size_t i = 0; i < n; i++) {
            sent[i] += (double)back[i];
        }
    }
    *bound = 0;
    for (size_t i = 0; i < n; i++) {
        double off = fabs(learned[i] - sent[i]), explained = fabs((double)copy[i]) + slack[i];
        assert_true(!feedback || off <= explained + 1e-15);
        *bound = explained > *bound ? explained : *bound;
        worst = i % 2 && off > worst ? off : worst;
    }
    mem_free(learned);
    mem_free(sent);
    mem_free(slack);
    return worst;
}

static void feedback_keeps_the_long_run_sum(void **state)
{
    (void)state;
    for (uint32_t form = QUANT_F16; form <= QUANT_INT8; form++) {
        double bound, few = drift(form, 7, true, &bound), many = drift(form, 210, true, &bound);
        assert_true(many <= bound && many < 4 * few);
        double few_without = drift(form, 7, false, &bound), many_without = drift(form, 210, false, &bound);
        /* It grows with the rounds, as 210 / 7. */
        assert_true(many_without > 20 * few_without && many_without > 20 * many);
    }
}

static void updates_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    uint32_t at, last = layout->count - 1;
    for (size_t i = 0; i < 3; i++) {
        for (uint32_t form = QUANT_F16; form <= QUANT_INT8; form++) {
            draw_update(0);
            update[layout->tensors[last].offset] = bad[i];
            memcpy(copy, update, (size_t)layout->total * sizeof *copy);
            assert_int_equal(quant_update_encode(form, layout, update, bytes, &at), QUANT_NOT_FINITE);
            assert_int_equal(at, last);
            assert_memory_equal(update, copy, (size_t)layout->total * sizeof *copy);
        }
    }
    draw_update(0);
    uint64_t len = quant_update_bytes(QUANT_F16, layout);
    assert_int_equal(quant_update_encode(QUANT_F16, layout, update, bytes, &at), QUANT_OK);
    assert_int_equal(quant_update_decode(QUANT_F16, layout, bytes, len - 1, back, &at), QUANT_LENGTH);
    store_u16(bytes + 2 * layout->tensors[3].offset, 0x7c00);
    assert_int_equal(quant_update_decode(QUANT_F16, layout, bytes, len, back, &at), QUANT_NOT_FINITE);
    assert_int_equal(at, 3);

    static const uint32_t scales[] = {0x7f800000, 0x7fc00000, 0xff800000, 0xbf800000, 0x80000001, 0x7f7fffff};
    len = quant_update_bytes(QUANT_INT8, layout);
    assert_int_equal(quant_update_encode(QUANT_INT8, layout, update, bytes, &at), QUANT_OK);
    assert_int_equal(quant_update_decode(QUANT_INT8, layout, bytes, len + 4, back, &at), QUANT_LENGTH);
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        store_u32(bytes + layout->total + 4, scales[i]);
        assert_int_equal(quant_update_decode(QUANT_INT8, layout, bytes, len, back, &at), QUANT_NOT_FINITE);
        assert_int_equal(at, 1);
    }
    store_u32(bytes + layout->total + 4, 0);
    assert_int_equal(quant_update_decode(QUANT_INT8, layout, bytes, len, back, &at), QUANT_OK);
}

/* ---- Rows ---- */

enum { ROWS = 200, D = 128 };

static double length_of(const float *row)
{
    double squares = 0;
    for (uint32_t i = 0; i < D; i++) {
        squares += (double)row[i] * (double)row[i];
    }
    return sqrt(squares);
}

static void rows_are_of_unit_length_again(void **state)
{
    (void)state;
    static float rows[ROWS * D], out[ROWS * D];
    static uint8_t packed[ROWS * D * 4];
    uint32_t at, was_off = 0;
    struct rng rng;
    rng_init(&rng, 5, RNG_TEST, 0, 0, 0);
    for (uint32_t r = 0; r < ROWS; r++) {
        float *row = rows + r * D;
        for (uint32_t i = 0; i < D; i++) {
            row[i] = rng_normal(&rng) * (i == 0 ? (float)(r % 40) : 1); /* up to nearly one number alone */
        }
        float length = (float)length_of(row);
        for (uint32_t i = 0; i < D; i++) {
            row[i] /= length;
        }
    }
    assert_int_equal(quant_rows_bytes(QUANT_INT8, ROWS, D), ROWS * (D + 4));
    for (uint32_t form = QUANT_F16; form <= QUANT_INT8; form++) {
        uint64_t len = quant_rows_bytes(form, ROWS, D);
        assert_int_equal(quant_rows_encode(form, rows, ROWS, D, packed, &at), QUANT_OK);
        assert_int_equal(quant_rows_decode(form, packed, len, ROWS, D, out, &at), QUANT_OK);
        for (uint32_t r = 0; r < ROWS; r++) {
            double cosine = 0, raw = 0;
            for (uint32_t i = 0; i < D; i++) {
                cosine += (double)rows[r * D + i] * (double)out[r * D + i];
                double q = (double)(int8_t)packed[r * D + i] * (double)quant_scale(rows + r * D, D);
                raw += q * q;
            }
            assert_true(fabs(length_of(out + r * D) - 1) < 1e-6);
            assert_true(cosine > (form == QUANT_F16 ? 0.999999 : 0.996));
            was_off += form == QUANT_INT8 && fabs(sqrt(raw) - 1) > 1e-3;
        }
        assert_int_equal(quant_rows_decode(form, packed, len - 1, ROWS, D, out, &at), QUANT_LENGTH);
    }
    assert_true(was_off > 5); /* without, the server would refuse them */
}

static void rows_that_cannot_have_been_unit_are_refused(void **state)
{
    (void)state;
    float row[D] = {1}, out[D];
    uint8_t packed[4 * D];
    uint32_t at;
    for (uint32_t form = QUANT_F16; form <= QUANT_INT8; form++) {
        uint64_t len = quant_rows_bytes(form, 1, D);
        static const float lengths[] = {0, 1e-30f, 0.5f, 1.2f, 100};
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            row[0] = lengths[i];
            assert_int_equal(quant_rows_encode(form, row, 1, D, packed, &at), QUANT_OK);
            assert_int_equal(quant_rows_decode(form, packed, len, 1, D, out, &at), QUANT_NOT_UNIT);
        }
        row[0] = NAN;
        assert_int_equal(quant_rows_encode(form, row, 1, D, packed, &at), QUANT_NOT_FINITE);
    }
    memset(packed, 0, D);
    store_u32(packed + D, 0x7f800000);
    assert_int_equal(quant_rows_decode(QUANT_INT8, packed, D + 4, 1, D, out, &at), QUANT_NOT_FINITE);
    store_u32(packed + D, 0x40000000); /* a step of 2 explains any length, but is none of a unit row */
    packed[0] = 1;
    assert_int_equal(quant_rows_decode(QUANT_INT8, packed, D + 4, 1, D, out, &at), QUANT_NOT_UNIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_is_binary16),
        cmocka_unit_test(f16_is_within_half_a_step),
        cmocka_unit_test(int8_is_within_half_a_step),
        cmocka_unit_test(nothing_is_lost_between_sent_and_rest),
        cmocka_unit_test(statistics_keep_the_quiet_channels),
        cmocka_unit_test(feedback_keeps_the_long_run_sum),
        cmocka_unit_test(updates_that_are_no_numbers_are_refused),
        cmocka_unit_test(rows_are_of_unit_length_again),
        cmocka_unit_test(rows_that_cannot_have_been_unit_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
