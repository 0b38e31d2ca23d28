/* The message decoder alone. Input: byte 0 is the type, the rest the protobuf part.
 *
 * Must hold: what is decoded can be encoded, and that decodes to the same again: the two directions agree on every
 * check, so nothing that this program accepts would be refused when it is passed on. */
#include "common/wire/msg.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

static int decode(uint8_t type, const uint8_t *proto, size_t len, struct msg *msg)
{
    static const uint8_t raw[] = "raw";
    struct frame frame = {.type = type, .proto = proto, .proto_len = (uint32_t)len};
    if (type == MSG_CHUNK) {
        frame.raw = raw;
        frame.raw_len = sizeof raw;
    }
    return msg_decode(&frame, MSG_BUDGET_CLIENT, msg, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct msg first, second;
    struct buf once, twice;
    if (size < 1 || size > 1 << 20 || decode(data[0], data + 1, size - 1, &first) != 0) {
        return 0;
    }
    buf_init(&once, SIZE_MAX / 2);
    buf_init(&twice, SIZE_MAX / 2);
    REQUIRE(msg_encode(&first, &once, NULL) == 0);
    REQUIRE(decode(data[0], once.data + FRAME_HEADER_BYTES, once.len - FRAME_HEADER_BYTES, &second) == 0);
    REQUIRE(msg_encode(&second, &twice, NULL) == 0);
    REQUIRE(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    msg_fini(&first);
    msg_fini(&second);
    buf_fini(&once);
    buf_fini(&twice);
    return 0;
}
