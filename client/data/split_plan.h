/* Who gets which image: the pure part of `starling split`. */
#ifndef STARLING_DATA_SPLIT_PLAN_H
#define STARLING_DATA_SPLIT_PLAN_H

#include "common/base/err.h"

#include <stdint.h>

enum split_kind {
    SPLIT_IID,       /* shuffled and dealt: every client has about the same mix */
    SPLIT_CLASSES,   /* each client holds K classes, and each class is shared out among its holders */
    SPLIT_DIRICHLET, /* each class is shared out in proportions drawn from Dirichlet(alpha); small alpha: very uneven */
};
struct split_spec {
    enum split_kind kind;
    uint32_t classes_each; /* K */
    double alpha;
};

/* "iid", "classes:K", "dirichlet:A". ERR_USAGE. */
int split_parse(const char *text, struct split_spec *out, struct err *err);

#define SPLIT_NOBODY UINT32_MAX
/* client_of[i] in [0, clients), or SPLIT_NOBODY for images of classes that no client holds (clients * K < classes).
 * labels: [n] in [0, classes), NULL with classes = 0. Every client gets at least one image. ERR_DATA when the images do
 * not allow the split, ERR_NOMEM. */
int split_plan(const struct split_spec *spec, const uint32_t *labels, uint32_t n, uint32_t classes, uint32_t clients,
               uint64_t seed, uint32_t *client_of, struct err *err);

#endif
