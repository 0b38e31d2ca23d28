#ifndef STARLING_TOOL_IMPORT_CIFAR_H
#define STARLING_TOOL_IMPORT_CIFAR_H

#include "common/base/err.h"

#include <stdint.h>

struct import_cifar_options {
    const char *archive; /* cifar-10-binary.tar.gz or cifar-100-binary.tar.gz */
    const char *out;     /* new or empty */
};
struct import_cifar_result {
    uint32_t classes;
    uint64_t train, test; /* images */
};

/* out/train/<class>/NNNN.png and out/test/<class>/NNNN.png. The whole archive is judged before anything is written:
 * ERR_DATA when it is damaged or not one of the two. ERR_CANTCREATE, ERR_FULL, ERR_IO, ERR_NOMEM. */
int import_cifar_run(const struct import_cifar_options *options, struct import_cifar_result *out, struct err *err);

#endif
