/* The frame decoder and the header writer; the byte table and what makes a frame valid stand in frame.h.
 *
 * The decoder keeps one buffer: frame_feed appends to it, frame_next checks a frame where it lies and hands out
 * pointers into it, so a chunk is copied once on its way in. Frames are passed over by an offset and dropped together
 * at the next feed: a read full of small frames costs one move, not one each. */
#include "common/wire/frame.h"

#include "common/base/byteorder.h"
#include "common/base/hash.h"
#include "common/wire/msg.h"

#include <string.h>

/* A buffer that grew for chunks is given back once all of it is taken and no further chunk is to be expected (the last
 * frame was no full one, or the limits say so): a thousand clients that have uploaded and now wait must not hold a
 * thousand chunks' worth of memory. */
#define RELEASE_ABOVE_BYTES ((size_t)FRAME_READ_MAX / 4)

static size_t buffer_max(const struct frame_decoder *decoder)
{
    uint32_t most = decoder->started ? FRAME_SKIP_MAX : 0;
    for (int type = 1; type < FRAME_TYPES; type++) {
        most = decoder->limits->most[type] > most ? decoder->limits->most[type] : most;
    }
    size_t max = (size_t)FRAME_HEADER_BYTES + most + FRAME_READ_MAX;
    return decoder->in.len > max ? decoder->in.len : max; /* stricter limits may find more already here */
}

void frame_decoder_init(struct frame_decoder *decoder, const struct frame_limits *limits)
{
    *decoder = (struct frame_decoder){.limits = limits};
    buf_init(&decoder->in, buffer_max(decoder));
}

void frame_decoder_fini(struct frame_decoder *decoder)
{
    buf_fini(&decoder->in);
    *decoder = (struct frame_decoder){.failed = ERR_STATE};
}

void frame_decoder_limit(struct frame_decoder *decoder, const struct frame_limits *limits)
{
    decoder->limits = limits;
    decoder->in.max = buffer_max(decoder);
}

int frame_feed(struct frame_decoder *decoder, const void *data, size_t len)
{
    struct buf *in = &decoder->in;
    if (decoder->failed) {
        return decoder->failed;
    }
    buf_consume(in, decoder->taken);
    decoder->taken = 0;
    in->max = buffer_max(decoder);
    return buf_append(in, data, len);
}

uint32_t frame_wanted(const struct frame_decoder *decoder)
{
    return frame_pending(decoder) < FRAME_HEADER_BYTES ? 0 : load_u32(decoder->in.data + decoder->taken);
}

/* A stream's first frame is a greeting shorter than 66,326 bytes, so the length it begins with can be neither a TLS
 * record (16 03 01 and on reads as 66,326 or more) nor letters: an HTTP method, or what an HTTP or SSH server says. */
static enum frame_peer recognise(const uint8_t *bytes, size_t len)
{
    static const char *const methods[] = {"GET ", "HEAD", "POST", "PUT ", "DELE",
                                          "OPTI", "PATC", "CONN", "TRAC", "PRI "};
    if (len >= 3 && bytes[0] == 0x16 && bytes[1] == 0x03 && bytes[2] >= 1 && bytes[2] <= 4) {
        return FRAME_PEER_TLS;
    }
    for (size_t i = 0; len >= 4 && i < sizeof methods / sizeof methods[0]; i++) {
        if (memcmp(bytes, methods[i], 4) == 0) {
            return FRAME_PEER_HTTP;
        }
    }
    if (len >= 4 && (memcmp(bytes, "HTTP", 4) == 0 || memcmp(bytes, "SSH-", 4) == 0)) {
        return FRAME_PEER_SERVER;
    }
    return FRAME_PEER_STARLING;
}

static int judge_first_bytes(struct frame_decoder *decoder, const uint8_t *bytes, size_t len, struct err *err)
{
    decoder->peer = decoder->started ? FRAME_PEER_STARLING : recognise(bytes, len);
    switch (decoder->peer) {
    case FRAME_PEER_TLS:
        return err_set(err, ERR_PROTOCOL, "the peer speaks TLS; this port is plain");
    case FRAME_PEER_HTTP:
        return err_set(err, ERR_PROTOCOL, "the peer speaks HTTP; this port speaks Starling's own protocol");
    case FRAME_PEER_SERVER:
        return err_set(err, ERR_VERSION, "the peer speaks %s, not Starling's protocol; is the port right?",
                       bytes[0] == 'H' ? "HTTP" : "SSH");
    case FRAME_PEER_STARLING:
        break;
    }
    return 0;
}

static bool type_is_known(uint8_t type)
{
    return type > 0 && type < MSG_TYPE_END;
}

/* Conditions 1 to 3, from the header alone. *skip: valid so far, to be passed over. */
static int judge_header(const struct frame_decoder *decoder, const uint8_t *header, bool *skip, struct err *err)
{
    uint32_t payload = load_u32(header);
    uint8_t version = header[4], type = header[5];
    uint32_t flags = load_u16(header + 6), proto = load_u32(header + 8);
    if (version != FRAME_VERSION) {
        return err_set(err, ERR_VERSION, "the peer speaks protocol version %u; this side speaks %u", version,
                       FRAME_VERSION);
    }
    uint32_t most = type < FRAME_TYPES ? decoder->limits->most[type] : 0;
    *skip = most == 0 && decoder->started && !type_is_known(type) && (flags & FRAME_SKIPPABLE);
    if (*skip) {
        most = FRAME_SKIP_MAX;
    } else if (most == 0) {
        return err_set(err, ERR_STATE, "a message of type %u (%s) is not allowed now", type, msg_type_name(type));
    }
    if (payload > most) {
        return err_set(err, ERR_LIMIT, "a %s message of %u bytes; at most %u are allowed now", msg_type_name(type),
                       payload, most);
    }
    if (proto > payload) {
        return err_set(err, ERR_PROTOCOL, "a %s message whose protobuf part (%u bytes) is longer than its payload (%u)",
                       msg_type_name(type), proto, payload);
    }
    if (!*skip && type != MSG_CHUNK && proto != payload) {
        return err_set(err, ERR_PROTOCOL, "a %s message with raw bytes; only CHUNK has any", msg_type_name(type));
    }
    if (type == MSG_CHUNK && (payload - proto > FRAME_CHUNK_MAX || proto > FRAME_CHUNK_PROTO_MAX)) {
        return err_set(err, ERR_LIMIT, "a CHUNK of %u protobuf and %u raw bytes; at most %u and %u are allowed", proto,
                       payload - proto, FRAME_CHUNK_PROTO_MAX, FRAME_CHUNK_MAX);
    }
    return 0;
}

/* Condition 4. */
static bool checksum_holds(const uint8_t *header, uint32_t payload)
{
    uint32_t crc = crc32c(0, header, 12);
    return crc32c(crc, header + FRAME_HEADER_BYTES, payload) == load_u32(header + 12);
}

/* 1: *frame is set, or *skip. 0: more bytes are needed. */
static int take(struct frame_decoder *decoder, struct frame *frame, bool *skip, struct err *err)
{
    size_t len = frame_pending(decoder);
    if (len == 0) {
        return 0;
    }
    const uint8_t *header = decoder->in.data + decoder->taken;
    int rc = judge_first_bytes(decoder, header, len, err);
    if (rc < 0 || len < FRAME_HEADER_BYTES) {
        return rc;
    }
    rc = judge_header(decoder, header, skip, err);
    if (rc < 0) {
        return rc;
    }
    uint32_t payload = load_u32(header), proto = load_u32(header + 8);
    if (len - FRAME_HEADER_BYTES < payload) {
        return 0;
    }
    if (!checksum_holds(header, payload)) {
        return err_set(err, ERR_PROTOCOL, "a %s message whose checksum does not hold", msg_type_name(header[5]));
    }
    decoder->taken += FRAME_HEADER_BYTES + payload;
    decoder->started = true;
    *frame = (struct frame){
        .type = header[5],
        .flags = (uint16_t)load_u16(header + 6),
        .proto = header + FRAME_HEADER_BYTES,
        .proto_len = proto,
        .raw = header + FRAME_HEADER_BYTES + proto,
        .raw_len = payload - proto,
    };
    return 1;
}

static void release(struct frame_decoder *decoder)
{
    bool streaming = decoder->streaming && !decoder->limits->chunks_end;
    if (!streaming && frame_pending(decoder) == 0 && decoder->in.cap > RELEASE_ABOVE_BYTES) {
        size_t max = decoder->in.max;
        buf_fini(&decoder->in);
        buf_init(&decoder->in, max);
        decoder->taken = 0;
    }
}

int frame_next(struct frame_decoder *decoder, struct frame *frame, struct err *err)
{
    *frame = (struct frame){0};
    if (decoder->failed) {
        return err_set(err, decoder->failed, "the stream has already failed");
    }
    bool skip = false;
    int rc = take(decoder, frame, &skip, err);
    while (rc == 1 && skip) {
        decoder->skipped++;
        *frame = (struct frame){0};
        skip = false;
        rc = take(decoder, frame, &skip, err);
    }
    if (rc < 0) {
        decoder->failed = rc;
    } else if (rc == 0) {
        release(decoder);
    } else {
        decoder->streaming = frame->raw_len == FRAME_CHUNK_MAX;
    }
    return rc;
}

void frame_header(uint8_t out[FRAME_HEADER_BYTES], uint8_t type, uint16_t flags, const void *proto, uint32_t proto_len,
                  const void *raw, uint32_t raw_len)
{
    store_u32(out, proto_len + raw_len);
    out[4] = FRAME_VERSION;
    out[5] = type;
    store_u16(out + 6, flags);
    store_u32(out + 8, proto_len);
    uint32_t crc = crc32c(0, out, 12);
    crc = crc32c(crc, proto, proto_len);
    store_u32(out + 12, crc32c(crc, raw, raw_len));
}
