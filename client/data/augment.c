#include "client/data/augment.h"

#include "client/data/views/views.h"
#include "common/base/cpu.h"

#include <stddef.h>

const float image_mean[3] = {0.485f, 0.456f, 0.406f};
const float image_deviation[3] = {0.229f, 0.224f, 0.225f};

extern const views_fn views_portable;
#ifdef __x86_64__
extern const views_fn views_avx2, views_avx512;
#endif

views_fn views_variant(uint32_t i)
{
#ifdef __x86_64__
    if (i == 1) {
        return cpu_has_avx2() ? views_avx2 : NULL;
    }
    if (i == 2) {
        return cpu_has_avx2() && cpu_has_avx512() ? views_avx512 : NULL;
    }
#endif
    return i == 0 ? views_portable : NULL;
}

void augment_view(const struct augment_options *options, const uint8_t *in, uint32_t side, uint32_t size, uint64_t seed,
                  uint64_t epoch, uint64_t image, uint32_t view, float *out, float *scratch)
{
    uint32_t best = 0;
    while (views_variant(best + 1)) {
        best++;
    }
    views_variant(best)(options, in, side, size, seed, epoch, image, view, out, scratch);
}

void augment_plain(const uint8_t *in, uint32_t side, float *out)
{
    size_t n = (size_t)side * side;
    for (size_t c = 0; c < 3; c++) {
        float scale = 1 / (255 * image_deviation[c]), shift = -image_mean[c] / image_deviation[c];
        for (size_t i = 0; i < n; i++) {
            out[c * n + i] = (float)in[i * 3 + c] * scale + shift;
        }
    }
}
