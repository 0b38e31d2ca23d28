/* The model file's reader. Input: byte 0 says whether the content hash at the end is mended (a fuzzer does not guess
 * one); the rest is the file.
 *
 * Must hold: outputs are NULL on failure, and a file that is accepted is byte for byte what the writer makes of it. */
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/vec/modelfile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

static void check_accepted(const uint8_t *file, size_t len, const struct model_info *info, const struct layout *layout,
                           const float *params)
{
    struct buf head;
    struct hash128 tail;
    size_t floats = (size_t)layout->total * sizeof *params;
    buf_init(&head, SIZE_MAX / 2);
    REQUIRE(modelfile_encode(info, layout, params, &head, &tail) == 0);
    REQUIRE(head.len + floats + sizeof tail == len);
    REQUIRE(memcmp(file, head.data, head.len) == 0);
    REQUIRE(memcmp(file + head.len, params, floats) == 0);
    REQUIRE(memcmp(file + head.len + floats, &tail, sizeof tail) == 0);
    buf_fini(&head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 1 << 20) {
        return 0;
    }
    size_t len = size - 1;
    uint8_t *file = mem_new(len, 1);
    if (!file) {
        return 0;
    }
    memcpy(file, data + 1, len);
    if ((data[0] & 1) && len >= sizeof(struct hash128)) {
        struct hash128 hash = hash_of(file, len - sizeof hash);
        memcpy(file + len - sizeof hash, &hash, sizeof hash);
    }
    struct model_info info;
    struct layout *layout = NULL;
    float *params = NULL;
    struct err err = {0};
    int rc = modelfile_decode(file, len, &info, &layout, &params, &err);
    if (rc == 0) {
        check_accepted(file, len, &info, layout, params);
    } else {
        REQUIRE(!layout && !params && err.code == rc && err.text[0] != 0);
    }
    layout_free(layout);
    mem_free(params);
    mem_free(file);
    return 0;
}
