/* Packed numbers. Input: byte 0 is the form (bits 0 and 1) and whether it is rows (bit 2); the rest are the bytes.
 *
 * Must hold: what is accepted of f16 and int8 is finite, and rows are of unit length; a wrong length is refused. */
#include "common/base/mem.h"
#include "common/vec/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

enum { DIMENSION = 8 };

static void check_rows(enum quant form, const uint8_t *bytes, size_t len)
{
    uint32_t rows = (uint32_t)(len / quant_rows_bytes(form, 1, DIMENSION)), row = 0;
    float *out = mem_new((size_t)rows * DIMENSION, sizeof *out);
    if (!out) {
        return;
    }
    enum quant_verdict verdict = quant_rows_decode(form, bytes, len, rows, DIMENSION, out, &row);
    REQUIRE((verdict == QUANT_LENGTH) == (len != quant_rows_bytes(form, rows, DIMENSION)));
    for (uint32_t r = 0; verdict == QUANT_OK && form != QUANT_F32 && r < rows; r++) {
        double squares = 0;
        for (uint32_t i = 0; i < DIMENSION; i++) {
            squares += (double)out[r * DIMENSION + i] * (double)out[r * DIMENSION + i];
        }
        REQUIRE(fabs(squares - 1) < 1e-6);
    }
    mem_free(out);
}

static void check_update(enum quant form, const uint8_t *bytes, size_t len)
{
    const struct model_spec spec = {.stages = 1, .blocks = {1}, .width = 4, .input = 8, .features = 8};
    struct layout *layout;
    uint32_t tensor = 0;
    if (layout_new(&spec, &layout, NULL)) {
        return;
    }
    float *out = mem_new((size_t)layout->total, sizeof *out);
    if (out) {
        enum quant_verdict verdict = quant_update_decode(form, layout, bytes, len, out, &tensor);
        REQUIRE((verdict == QUANT_LENGTH) == (len != quant_update_bytes(form, layout)));
        REQUIRE(tensor < layout->count);
        for (uint64_t i = 0; verdict == QUANT_OK && form != QUANT_F32 && i < layout->total; i++) {
            REQUIRE(isfinite(out[i]));
        }
    }
    mem_free(out);
    layout_free(layout);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 1 << 20 || (data[0] & 3) > QUANT_INT8) {
        return 0;
    }
    if (data[0] & 4) {
        check_rows(data[0] & 3, data + 1, size - 1);
    } else {
        check_update(data[0] & 3, data + 1, size - 1);
    }
    return 0;
}
