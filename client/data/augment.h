/* Augmented views (SimCLR, Chen et al., ICML 2020; MoCo v2): random resized crop, flip, colour jitter in random order
 * (brightness, contrast, saturation, hue), grey, Gaussian blur, normalisation. A view is a function of (options,
 * pixels, seed, epoch, image, view) and of nothing else. */
#ifndef STARLING_DATA_AUGMENT_H
#define STARLING_DATA_AUGMENT_H

#include <stdbool.h>
#include <stdint.h>

struct augment_options {
    float crop_least; /* smallest crop area, as a share */
    float jitter;     /* brightness, contrast, saturation in 1 +- jitter, hue within +- jitter / 4 turns */
    float jitter_probability, grey_probability, blur_probability;
    bool flip;
};

/* Channel means and deviations of ImageNet, the field's usual constants. */
extern const float image_mean[3], image_deviation[3];

#define AUGMENT_SIZE_MIN 8
/* size >= AUGMENT_SIZE_MIN, side <= 16 * size. in: [side, side, 3] uint8; out: [3, size, size] normalised floats;
 * scratch: [AUGMENT_SCRATCH(size)] floats. */
#define AUGMENT_SCRATCH(size) ((size_t)(size) * (size)*8)
void augment_view(const struct augment_options *options, const uint8_t *in, uint32_t side, uint32_t size, uint64_t seed,
                  uint64_t epoch, uint64_t image, uint32_t view, float *out, float *scratch);
/* No augmentation: normalised only. side == size. out: [3, side, side]. */
void augment_plain(const uint8_t *in, uint32_t side, float *out);

#endif
