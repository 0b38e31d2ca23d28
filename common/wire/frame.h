/* Frames: how messages lie on a byte stream. Sans-I/O: bytes come in, frames come out; nobody here owns a socket.
 *
 *   offset size  field (little-endian)
 *   0      4     payload length in bytes, the header excluded
 *   4      1     major protocol version
 *   5      1     message type (enum msg_type)
 *   6      2     flags; bit 0: whoever does not know the type may skip it
 *   8      4     length of the protobuf part; the rest of the payload is raw bytes (only CHUNK may have any)
 *   12     4     crc32c of header bytes 0..11 and the payload
 *
 * A frame is valid if and only if (1) the version is ours, (2) its type is allowed in the reader's state and its length
 * within that state's limit, both judged from the header alone, before anything is allocated, (3) protobuf length <=
 * payload length, with equality unless the type is CHUNK, (4) the checksum holds. */
#ifndef STARLING_WIRE_FRAME_H
#define STARLING_WIRE_FRAME_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define FRAME_HEADER_BYTES    16
#define FRAME_VERSION         1
#define FRAME_SKIPPABLE       1u
#define FRAME_CHUNK_MAX       (1u << 20) /* raw bytes in one CHUNK */
#define FRAME_CHUNK_PROTO_MAX 1024u      /* protobuf part of one CHUNK */
#define FRAME_SKIP_MAX        (1u << 16) /* payload of a frame of an unknown, skippable type */
#define FRAME_READ_MAX        (1u << 16) /* bytes in one call of frame_feed */
#define FRAME_TYPES           32         /* types are 1..31 */

/* The longest payload of each type that may come now; 0: the type may not come. */
struct frame_limits {
    uint32_t most[FRAME_TYPES];
    bool chunks_end; /* after a full chunk no other is to be expected soon */
};

struct frame {
    uint8_t type;
    uint16_t flags;
    const uint8_t *proto; /* valid until the next call on the decoder */
    uint32_t proto_len;
    const uint8_t *raw;
    uint32_t raw_len;
};

/* Who the first bytes of a stream gave away. */
enum frame_peer { FRAME_PEER_STARLING, FRAME_PEER_TLS, FRAME_PEER_HTTP, FRAME_PEER_SERVER };

struct frame_decoder {
    struct buf in;
    size_t taken; /* bytes of `in` that the frames since the last feed used */
    const struct frame_limits *limits;
    uint64_t skipped; /* frames of unknown, skippable types */
    bool streaming;   /* the last frame was a full chunk: the next is likely one too */
    bool started;     /* a whole frame has come: what follows is no longer judged as a first byte, and may be skipped */
    enum frame_peer peer; /* set with the failure */
    int failed;           /* sticky: after an error the stream has no meaning */
};

void frame_decoder_init(struct frame_decoder *decoder, const struct frame_limits *limits);
void frame_decoder_fini(struct frame_decoder *decoder);
/* The state changed: other limits from the next frame on. */
void frame_decoder_limit(struct frame_decoder *decoder, const struct frame_limits *limits);
/* Adds bytes from the network. A caller alternates feed (at most FRAME_READ_MAX) with next until it yields no frame, so
 * the buffer holds at most one frame and one read. ERR_NOMEM, ERR_LIMIT. */
int frame_feed(struct frame_decoder *decoder, const void *data, size_t len);
/* 1: *frame is set. 0: more bytes are needed. Negative: the connection must be closed; err says why. A TLS or HTTP
 * first byte is named, and so are an HTTP or SSH server's (ERR_VERSION, since it will be the same one next time).
 * ERR_PROTOCOL (malformed, checksum), ERR_VERSION, ERR_STATE (type not allowed now), ERR_LIMIT. */
int frame_next(struct frame_decoder *decoder, struct frame *frame, struct err *err);

/* Bytes of a frame that is not whole yet; nonzero when the stream ends: the peer broke off. */
static inline size_t frame_pending(const struct frame_decoder *decoder)
{
    return decoder->in.len - decoder->taken;
}

/* The payload of the frame that is not whole yet; 0 while its header is not. */
uint32_t frame_wanted(const struct frame_decoder *decoder);

/* Writes the 16 header bytes of a frame whose payload is proto followed by raw. */
void frame_header(uint8_t out[FRAME_HEADER_BYTES], uint8_t type, uint16_t flags, const void *proto, uint32_t proto_len,
                  const void *raw, uint32_t raw_len);

#endif
