/* The frame decoder and, behind it, the messages, as a hostile peer reaches them.
 *
 * Input: byte 0 picks the reader's state and whether checksums are mended (a fuzzer does not guess a CRC), byte 1 the
 * size of the pieces; the rest is the stream. Must hold: the buffer stays within its bound, nothing follows a failure,
 * and the stream in pieces yields the frames that it yields at once. */
#include "common/base/byteorder.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/wire/msg.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())
#define STREAM_MAX         FRAME_READ_MAX

static void mend_checksums(uint8_t *stream, size_t len)
{
    for (size_t at = 0; len - at >= FRAME_HEADER_BYTES;) {
        uint32_t payload = load_u32(stream + at);
        if (payload > len - at - FRAME_HEADER_BYTES) {
            return;
        }
        uint32_t crc = crc32c(0, stream + at, 12);
        store_u32(stream + at + 12, crc32c(crc, stream + at + FRAME_HEADER_BYTES, payload));
        at += FRAME_HEADER_BYTES + payload;
    }
}

static void take_message(const struct frame *frame)
{
    struct msg msg;
    struct err err = {0};
    int rc = msg_decode(frame, MSG_BUDGET_SERVER, &msg, &err);
    REQUIRE(rc == 0 || (err.code == rc && err.text[0] != 0 && msg.type == 0));
    msg_fini(&msg);
}

/* Feeds all of it, `piece` bytes at a time, and returns a digest of the frames and of how it ended. */
static struct hash128 run(const struct frame_limits *limits, const uint8_t *stream, size_t len, size_t piece,
                          bool decode)
{
    struct frame_decoder decoder;
    struct buf log;
    int rc = 0;
    frame_decoder_init(&decoder, limits);
    buf_init(&log, SIZE_MAX / 2);
    for (size_t at = 0; at < len && rc >= 0;) {
        size_t part = len - at < piece ? len - at : piece;
        REQUIRE(frame_feed(&decoder, stream + at, part) == 0);
        at += part;
        struct frame frame;
        struct err err = {0};
        while ((rc = frame_next(&decoder, &frame, &err)) == 1) {
            struct hash128 hash = hash_of(frame.proto, (size_t)frame.proto_len + frame.raw_len);
            REQUIRE(frame.proto + frame.proto_len == frame.raw);
            REQUIRE((size_t)frame.proto_len + frame.raw_len <= limits->most[frame.type]);
            REQUIRE(buf_append(&log, &hash, sizeof hash) == 0 && buf_append(&log, &frame.type, 1) == 0);
            if (decode) {
                take_message(&frame);
            }
        }
        REQUIRE(rc == 0 || (err.code == rc && err.text[0] != 0));
        REQUIRE(decoder.in.cap <= decoder.in.max);
    }
    if (rc < 0) {
        struct frame frame;
        REQUIRE(frame_next(&decoder, &frame, NULL) == rc && frame_feed(&decoder, "x", 1) == rc);
    }
    REQUIRE(buf_append(&log, &rc, sizeof rc) == 0);
    struct hash128 digest = hash_of(log.data, log.len);
    buf_fini(&log);
    frame_decoder_fini(&decoder);
    return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct frame_limits *const limits[] = {&msg_limits_server_new, &msg_limits_server_trainer,
                                                        &msg_limits_server_operator, &msg_limits_client};
    if (size < 2 || size - 2 > STREAM_MAX) {
        return 0;
    }
    size_t len = size - 2;
    uint8_t *stream = mem_new(len, 1);
    if (!stream) {
        return 0;
    }
    memcpy(stream, data + 2, len);
    if (data[0] & 4) {
        mend_checksums(stream, len);
    }
    const struct frame_limits *reader = limits[data[0] & 3];
    struct hash128 whole = run(reader, stream, len, STREAM_MAX, true);
    struct hash128 pieces = run(reader, stream, len, data[1] ? data[1] : 1, false);
    REQUIRE(hash_equal(&whole, &pieces));
    mem_free(stream);
    return 0;
}
