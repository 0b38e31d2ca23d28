/* The files of a client's state folder. Input: byte 0 is the file (bits 0 and 1: state, pending, instance, spent) and
 * whether the hash at the end is mended (bit 2; a fuzzer does not guess one); with bit 3 it is the secret. The rest are
 * the bytes.
 *
 * Must hold: nothing is left behind on failure, and what is accepted is canonical after one encoding: it decodes again,
 * to the same bytes. (A pending file of an older version is written again as one of the newest.) */
#include "client/shell/files.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

union kept {
    struct kept_state state;
    struct kept_pending pending;
    struct hash128 instance;
    struct kept_spent spent;
    uint8_t secret[SECRET_BYTES];
};

static int decode(unsigned file, const uint8_t *bytes, size_t len, union kept *out, struct err *err)
{
    return file == 0   ? files_decode_state(bytes, len, &out->state, err)
           : file == 1 ? files_decode_pending(bytes, len, &out->pending, err)
           : file == 2 ? files_decode_instance(bytes, len, &out->instance, err)
           : file == 3 ? files_decode_spent(bytes, len, &out->spent, err)
                       : files_decode_secret(bytes, len, out->secret, err);
}

static void encode(unsigned file, const union kept *kept, struct buf *out)
{
    struct file_image image;
    buf_init(out, SIZE_MAX / 2);
    REQUIRE((file == 0   ? files_encode_state(&kept->state, &image)
             : file == 1 ? files_encode_pending(&kept->pending, &image)
             : file == 2 ? files_encode_instance(&kept->instance, &image)
             : file == 3 ? files_encode_spent(&kept->spent, &image)
                         : files_encode_secret(kept->secret, &image)) == 0);
    for (size_t i = 0; i < image.count; i++) {
        REQUIRE(buf_append(out, image.parts[i].data, image.parts[i].len) == 0);
    }
    file_image_fini(&image);
}

static void fini(unsigned file, union kept *kept)
{
    if (file == 0) {
        kept_carry_fini(&kept->state.carry);
    } else if (file == 1) {
        kept_pending_fini(&kept->pending);
    }
}

static void check_accepted(unsigned file, union kept *kept)
{
    union kept again;
    struct buf once, twice;
    if (file == 1) {
        const struct contribution *contribution = &kept->pending.contribution;
        REQUIRE(blob_check(&contribution->update_blob, NULL) == 0);
        REQUIRE(!contribution->features || blob_check(&contribution->features_blob, NULL) == 0);
    }
    encode(file, kept, &once);
    REQUIRE(decode(file, once.data, once.len, &again, NULL) == 0);
    encode(file, &again, &twice);
    REQUIRE(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    fini(file, &again);
    buf_fini(&once);
    buf_fini(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 1 << 20) {
        return 0;
    }
    unsigned file = data[0] & 8 ? 4 : data[0] & 3;
    size_t len = size - 1;
    uint8_t *bytes = mem_new(len, 1);
    if (!bytes) {
        return 0;
    }
    memcpy(bytes, data + 1, len);
    if ((data[0] & 4) && len >= sizeof(struct hash128)) {
        struct hash128 hash = hash_of(bytes, len - sizeof hash);
        memcpy(bytes + len - sizeof hash, &hash, sizeof hash);
    }
    union kept kept, nothing;
    struct err err = {0};
    memset(&nothing, 0, sizeof nothing);
    int rc = decode(file, bytes, len, &kept, &err);
    if (rc == 0) {
        check_accepted(file, &kept);
        fini(file, &kept);
    } else {
        REQUIRE(err.code == rc && err.text[0] != 0);
        REQUIRE(file != 0 || !kept.state.carry.data);
        REQUIRE(file != 1 || (!kept.pending.carry.data && !kept.pending.contribution.update));
    }
    mem_free(bytes);
    return 0;
}
