/* The checkpoint's reader. Input: byte 0 says whether the hash at the end is mended (a fuzzer does not guess one); the
 * rest is the file.
 *
 * Must hold: nothing is left behind on failure, and what is accepted is canonical after one encoding: it decodes again,
 * to the same bytes. (A file of an older version is written again as one of the newest.) */
#include "common/base/mem.h"
#include "server/store/checkpoint.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

static void encode(const struct checkpoint *checkpoint, const struct checkpoint_model *model, struct buf *out)
{
    struct hash128 tail;
    buf_init(out, SIZE_MAX / 2);
    REQUIRE(checkpoint_encode(checkpoint, model, out, &tail) == 0);
    out->max = SIZE_MAX / 2;
    REQUIRE(buf_append(out, checkpoint->bank, (size_t)checkpoint->bank_len) == 0);
    REQUIRE(buf_append(out, checkpoint->optimiser, (size_t)checkpoint->optimiser_len) == 0);
    REQUIRE(buf_append(out, &tail, sizeof tail) == 0);
}

static void check_accepted(const struct checkpoint *checkpoint, const struct checkpoint_model *model)
{
    struct checkpoint again;
    struct checkpoint_model again_model;
    struct buf once, twice;
    encode(checkpoint, model, &once);
    REQUIRE(checkpoint_decode(once.data, once.len, &again, &again_model, NULL) == 0);
    encode(&again, &again_model, &twice);
    REQUIRE(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    for (uint32_t i = 0; i < again.counted_count; i++) {
        REQUIRE(name_is_valid(again.counted[i].name));
    }
    checkpoint_fini(&again);
    buf_fini(&once);
    buf_fini(&twice);
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
    struct checkpoint checkpoint;
    struct checkpoint_model model;
    struct err err = {0};
    int rc = checkpoint_decode(file, len, &checkpoint, &model, &err);
    if (rc == 0) {
        check_accepted(&checkpoint, &model);
        checkpoint_fini(&checkpoint);
    } else {
        REQUIRE(err.code == rc && err.text[0] != 0);
        REQUIRE(!checkpoint.plan && !checkpoint.bank && !checkpoint.optimiser && !checkpoint.counted);
    }
    mem_free(file);
    return 0;
}
