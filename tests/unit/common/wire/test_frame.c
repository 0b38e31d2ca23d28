/* Frames: each condition of validity by itself, first bytes of other protocols, any cut of the stream, bounds on
 * memory. */
#include "common/base/byteorder.h"
#include "common/base/hash.h"
#include "common/wire/frame.h"
#include "tests/support/msg_samples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void append_frame(struct buf *out, uint8_t type, uint16_t flags, const void *proto, uint32_t proto_len,
                         const void *raw, uint32_t raw_len)
{
    uint8_t header[FRAME_HEADER_BYTES];
    frame_header(header, type, flags, proto, proto_len, raw, raw_len);
    assert_int_equal(buf_append(out, header, sizeof header), 0);
    assert_int_equal(buf_append(out, proto, proto_len), 0);
    assert_int_equal(buf_append(out, raw, raw_len), 0);
}

/* Sets the checksum of a single frame right again after the test has bent the header. */
static void mend(struct buf *frame)
{
    uint32_t crc = crc32c(0, frame->data, 12);
    store_u32(frame->data + 12, crc32c(crc, frame->data + FRAME_HEADER_BYTES, frame->len - FRAME_HEADER_BYTES));
}

static int decode_one(const struct frame_limits *limits, const struct buf *bytes, struct frame_decoder *decoder,
                      struct frame *frame, struct err *err)
{
    frame_decoder_init(decoder, limits);
    assert_int_equal(frame_feed(decoder, bytes->data, bytes->len), 0);
    return frame_next(decoder, frame, err);
}

static void test_header_bytes(void **state)
{
    (void)state;
    /* Written by hand from the byte table; a change here breaks every peer. */
    static const uint8_t want[12] = {5, 0, 0, 0, 1, MSG_CHUNK, 1, 0, 3, 0, 0, 0};
    uint8_t header[FRAME_HEADER_BYTES], whole[17];
    frame_header(header, MSG_CHUNK, FRAME_SKIPPABLE, "abc", 3, "de", 2);
    assert_memory_equal(header, want, 12);
    memcpy(whole, want, 12);
    memcpy(whole + 12, "abcde", 5);
    assert_int_equal(load_u32(header + 12), crc32c(0, whole, sizeof whole));
}

/* Three frames, and one of an unknown type between them. */
static void make_stream(struct buf *stream)
{
    buf_init(stream, 1 << 20);
    append_frame(stream, MSG_PROGRESS, 0, "first", 5, NULL, 0);
    append_frame(stream, MSG_CHUNK, 0, "head", 4, "raw bytes", 9);
    append_frame(stream, 200, FRAME_SKIPPABLE, "from the future", 15, NULL, 0);
    append_frame(stream, MSG_BYE, 0, "", 0, NULL, 0);
}

static void expect_stream(struct frame_decoder *decoder, const struct buf *stream, size_t cut)
{
    static const uint8_t types[] = {MSG_PROGRESS, MSG_CHUNK, MSG_BYE};
    static const char *const protos[] = {"first", "head", ""};
    size_t seen = 0, fed = 0;
    while (fed < stream->len) {
        size_t part = fed < cut ? cut : stream->len - fed;
        assert_int_equal(frame_feed(decoder, stream->data + fed, part), 0);
        fed += part;
        struct frame frame;
        struct err err;
        int rc;
        while ((rc = frame_next(decoder, &frame, &err)) == 1) {
            assert_true(seen < 3);
            assert_int_equal(frame.type, types[seen]);
            assert_int_equal(frame.proto_len, strlen(protos[seen]));
            assert_memory_equal(frame.proto, protos[seen], frame.proto_len);
            if (frame.type == MSG_CHUNK) {
                assert_int_equal(frame.raw_len, 9);
                assert_memory_equal(frame.raw, "raw bytes", 9);
            } else {
                assert_int_equal(frame.raw_len, 0);
            }
            seen++;
        }
        assert_int_equal(rc, 0);
    }
    assert_int_equal(seen, 3);
    assert_int_equal(decoder->skipped, 1);
    assert_int_equal(frame_pending(decoder), 0);
}

static void test_any_cut_gives_the_same_frames(void **state)
{
    (void)state;
    struct buf stream;
    make_stream(&stream);
    for (size_t cut = 0; cut < stream.len; cut++) {
        struct frame_decoder decoder;
        frame_decoder_init(&decoder, &msg_limits_server_trainer);
        expect_stream(&decoder, &stream, cut);
        frame_decoder_fini(&decoder);
    }
    /* Byte by byte. */
    struct frame_decoder decoder;
    frame_decoder_init(&decoder, &msg_limits_server_trainer);
    size_t seen = 0;
    for (size_t i = 0; i < stream.len; i++) {
        struct frame frame;
        assert_int_equal(frame_feed(&decoder, stream.data + i, 1), 0);
        int rc = frame_next(&decoder, &frame, NULL);
        assert_true(rc >= 0);
        seen += (size_t)rc;
    }
    assert_int_equal(seen, 3);
    frame_decoder_fini(&decoder);
    buf_fini(&stream);
}

static void test_truncated_is_never_a_frame(void **state)
{
    (void)state;
    for (uint8_t type = 1; type < MSG_TYPE_END; type++) {
        struct msg msg;
        struct buf bytes;
        struct frame_limits any = {0};
        any.most[type] = 1 << 20;
        buf_init(&bytes, 1 << 20);
        sample_msg(type, &msg);
        assert_int_equal(msg_encode(&msg, &bytes, NULL), 0);
        assert_int_equal(buf_append(&bytes, msg.raw, msg.raw_len), 0);
        for (size_t len = 0; len < bytes.len; len++) {
            struct buf part = bytes;
            part.len = len;
            struct frame_decoder decoder;
            struct frame frame;
            assert_int_equal(decode_one(&any, &part, &decoder, &frame, NULL), 0);
            assert_int_equal(frame_pending(&decoder), len);
            frame_decoder_fini(&decoder);
        }
        buf_fini(&bytes);
        msg_fini(&msg);
    }
}

static void test_each_flipped_bit_is_noticed(void **state)
{
    (void)state;
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    append_frame(&bytes, MSG_CHUNK, 0, "head", 4, "some raw bytes", 14);
    for (size_t bit = 0; bit < bytes.len * 8; bit++) {
        struct frame_decoder decoder;
        struct frame frame;
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(decode_one(&msg_limits_server_trainer, &bytes, &decoder, &frame, NULL), 1);
        frame_decoder_fini(&decoder);
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    buf_fini(&bytes);
}

/* Each row bends one frame and mends its checksum, so that only the condition named can fail. */
static void expect_refused(const char *what, int code, const char *words, void (*bend)(struct buf *frame))
{
    struct buf bytes;
    buf_init(&bytes, 4 << 20);
    append_frame(&bytes, MSG_BYE, 0, "bye bye", 7, NULL, 0);
    bend(&bytes);
    mend(&bytes);
    struct frame_decoder decoder;
    struct frame frame;
    struct err err;
    bytes.len = bytes.len > 40 ? 40 : bytes.len; /* the header decides: the payload need not be there */
    int rc = decode_one(&msg_limits_server_trainer, &bytes, &decoder, &frame, &err);
    if (rc != code || !strstr(err.text, words)) {
        fail_msg("%s: %s (%s)", what, err_name(rc), err.text);
    }
    /* Sticky, and nothing more is taken in. */
    assert_int_equal(frame_next(&decoder, &frame, &err), code);
    assert_int_equal(frame_feed(&decoder, "x", 1), code);
    frame_decoder_fini(&decoder);
    buf_fini(&bytes);
}

static void bend_version(struct buf *frame)
{
    frame->data[4] = 2;
}
static void bend_type_of_other_state(struct buf *frame)
{
    frame->data[5] = MSG_WELCOME;
    frame->data[6] = FRAME_SKIPPABLE; /* a type that we know may not hide behind the flag */
}
static void bend_type_unknown(struct buf *frame)
{
    frame->data[5] = 99;
}
static void bend_type_zero(struct buf *frame)
{
    frame->data[5] = 0;
}
static void bend_length(struct buf *frame)
{
    store_u32(frame->data, msg_limits_server_trainer.most[MSG_BYE] + 1);
    store_u32(frame->data + 8, msg_limits_server_trainer.most[MSG_BYE] + 1);
}
static void bend_skippable_length(struct buf *frame)
{
    frame->data[5] = 99;
    frame->data[6] = FRAME_SKIPPABLE;
    store_u32(frame->data, 900); /* short enough: it is refused for its place */
}
static void bend_proto_longer(struct buf *frame)
{
    store_u32(frame->data + 8, 8);
}
static void bend_raw(struct buf *frame)
{
    store_u32(frame->data + 8, 6);
}
static void bend_chunk_raw(struct buf *frame)
{
    frame->data[5] = MSG_CHUNK;
    store_u32(frame->data, FRAME_CHUNK_MAX + 8);
    store_u32(frame->data + 8, 7);
}
static void bend_chunk_proto(struct buf *frame)
{
    frame->data[5] = MSG_CHUNK;
    store_u32(frame->data, FRAME_CHUNK_MAX);
    store_u32(frame->data + 8, FRAME_CHUNK_PROTO_MAX + 1);
}

static void test_each_condition(void **state)
{
    (void)state;
    expect_refused("version", ERR_VERSION, "version 2; this side speaks 1", bend_version);
    expect_refused("type of another state", ERR_STATE, "WELCOME", bend_type_of_other_state);
    expect_refused("unknown type", ERR_STATE, "99", bend_type_unknown);
    expect_refused("type 0", ERR_STATE, "type 0", bend_type_zero);
    expect_refused("length", ERR_LIMIT, "BYE", bend_length);
    expect_refused("a skippable first frame", ERR_STATE, "99", bend_skippable_length);
    expect_refused("protobuf part longer than payload", ERR_PROTOCOL, "longer", bend_proto_longer);
    expect_refused("raw bytes", ERR_PROTOCOL, "only CHUNK", bend_raw);
    expect_refused("raw bytes of a chunk", ERR_LIMIT, "1048577", bend_chunk_raw);
    expect_refused("protobuf part of a chunk", ERR_LIMIT, "1025", bend_chunk_proto);
}

static void test_checksum(void **state)
{
    (void)state;
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    append_frame(&bytes, MSG_BYE, 0, "bye bye", 7, NULL, 0);
    bytes.data[18] ^= 1;
    struct frame_decoder decoder;
    struct frame frame;
    struct err err;
    assert_int_equal(decode_one(&msg_limits_server_new, &bytes, &decoder, &frame, &err), ERR_PROTOCOL);
    assert_non_null(strstr(err.text, "checksum"));
    frame_decoder_fini(&decoder);
    buf_fini(&bytes);
}

static void test_other_protocols_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        enum frame_peer peer;
        const char *words;
        int code;
    } rows[] = {
        {"\x16\x03\x01", 3, FRAME_PEER_TLS, "TLS", ERR_PROTOCOL},
        {"\x16\x03\x03\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00\x00", 18, FRAME_PEER_TLS, "TLS",
         ERR_PROTOCOL},
        {"GET / HTTP/1.1\r\n\r\n", 18, FRAME_PEER_HTTP, "HTTP", ERR_PROTOCOL},
        {"POST", 4, FRAME_PEER_HTTP, "HTTP", ERR_PROTOCOL},
        {"PRI * HTTP/2.0\r\n", 16, FRAME_PEER_HTTP, "HTTP", ERR_PROTOCOL},
        {"HTTP/1.1 400 Bad Request\r\n\r\n", 28, FRAME_PEER_SERVER, "HTTP, not Starling's", ERR_VERSION},
        {"SSH-2.0-OpenSSH_9.2\r\n", 21, FRAME_PEER_SERVER, "SSH, not Starling's", ERR_VERSION},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct frame_decoder decoder;
        struct frame frame;
        struct err err;
        frame_decoder_init(&decoder, &msg_limits_server_new);
        assert_int_equal(frame_feed(&decoder, rows[i].bytes, rows[i].len), 0);
        assert_int_equal(frame_next(&decoder, &frame, &err), rows[i].code);
        assert_non_null(strstr(err.text, rows[i].words));
        assert_int_equal(decoder.peer, rows[i].peer);
        frame_decoder_fini(&decoder);
    }
}

/* In mid-stream the same bytes are an ordinary frame: a chunk's frame may well be 66,326 bytes long. */
static void test_first_bytes_are_judged_once(void **state)
{
    (void)state;
    static uint8_t raw[0x10316 - 4];
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    append_frame(&bytes, MSG_BYE, 0, NULL, 0, NULL, 0);
    size_t second = bytes.len;
    append_frame(&bytes, MSG_CHUNK, 0, "head", 4, raw, sizeof raw);
    assert_memory_equal(bytes.data + second, "\x16\x03\x01", 3);
    struct frame_decoder decoder;
    struct frame frame;
    assert_int_equal(decode_one(&msg_limits_server_trainer, &bytes, &decoder, &frame, NULL), 1);
    assert_int_equal(frame_next(&decoder, &frame, NULL), 1);
    assert_int_equal(frame.raw_len, sizeof raw);
    frame_decoder_fini(&decoder);
    buf_fini(&bytes);
}

static void test_state_changes_between_frames(void **state)
{
    (void)state;
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    append_frame(&bytes, MSG_HELLO, 0, "h", 1, NULL, 0);
    append_frame(&bytes, MSG_READY, 0, "r", 1, NULL, 0);
    append_frame(&bytes, MSG_HELLO, 0, "h", 1, NULL, 0);
    struct frame_decoder decoder;
    struct frame frame;
    assert_int_equal(decode_one(&msg_limits_server_new, &bytes, &decoder, &frame, NULL), 1);
    frame_decoder_limit(&decoder, &msg_limits_server_trainer);
    assert_int_equal(frame_next(&decoder, &frame, NULL), 1);
    assert_int_equal(frame.type, MSG_READY);
    assert_int_equal(frame_next(&decoder, &frame, NULL), ERR_STATE); /* a second HELLO */
    frame_decoder_fini(&decoder);
    buf_fini(&bytes);
}

/* Once somebody has been greeted, unknown frames are passed over, up to FRAME_SKIP_MAX. */
static void test_skipping_begins_after_the_greeting(void **state)
{
    (void)state;
    static uint8_t raw[FRAME_SKIP_MAX + 1];
    for (uint32_t len = FRAME_SKIP_MAX; len <= FRAME_SKIP_MAX + 1; len++) {
        struct buf bytes;
        struct err err;
        buf_init(&bytes, 1 << 20);
        append_frame(&bytes, MSG_BYE, 0, NULL, 0, NULL, 0);
        append_frame(&bytes, 30, FRAME_SKIPPABLE, raw, len, NULL, 0);
        append_frame(&bytes, MSG_BYE, 0, NULL, 0, NULL, 0);
        struct frame_decoder decoder;
        struct frame frame;
        assert_int_equal(decode_one(&msg_limits_server_trainer, &bytes, &decoder, &frame, NULL), 1);
        assert_int_equal(frame_next(&decoder, &frame, &err), len == FRAME_SKIP_MAX ? 1 : ERR_LIMIT);
        assert_int_equal(decoder.skipped, len == FRAME_SKIP_MAX);
        frame_decoder_fini(&decoder);
        buf_fini(&bytes);
    }
}

/* A peer whose announced lengths are within limits makes the decoder hold one frame and one read, no more; and after
 * the chunks the memory goes back. */
static void test_memory_is_bounded(void **state)
{
    (void)state;
    static uint8_t raw[FRAME_CHUNK_MAX];
    struct buf bytes;
    buf_init(&bytes, 8 << 20);
    for (int i = 0; i < 3; i++) {
        append_frame(&bytes, MSG_CHUNK, 0, "head", 4, raw, sizeof raw);
    }
    append_frame(&bytes, MSG_PROGRESS, 0, "p", 1, NULL, 0);
    struct frame_decoder decoder;
    struct frame frame;
    size_t chunks = 0, most = 0;
    frame_decoder_init(&decoder, &msg_limits_server_trainer);
    for (size_t at = 0; at < bytes.len;) {
        size_t part = bytes.len - at < FRAME_READ_MAX ? bytes.len - at : FRAME_READ_MAX;
        assert_int_equal(frame_feed(&decoder, bytes.data + at, part), 0);
        at += part;
        while (frame_next(&decoder, &frame, NULL) == 1) {
            chunks += frame.type == MSG_CHUNK;
        }
        most = decoder.in.cap > most ? decoder.in.cap : most;
    }
    assert_int_equal(chunks, 3);
    assert_true(most >= FRAME_CHUNK_MAX);
    assert_true(most <= FRAME_HEADER_BYTES + FRAME_CHUNK_MAX + FRAME_CHUNK_PROTO_MAX + FRAME_READ_MAX);
    assert_int_equal(decoder.in.cap, 0); /* the last frame was no full chunk, so no more are expected */
    frame_decoder_fini(&decoder);

    /* After a full chunk the limits say whether another is to be expected. */
    size_t chunk = FRAME_HEADER_BYTES + 4 + sizeof raw;
    frame_decoder_init(&decoder, &msg_limits_server_uploading);
    for (size_t at = 0; at < chunk; at += chunk / 7) {
        size_t part = chunk - at < chunk / 7 ? chunk - at : chunk / 7;
        assert_int_equal(frame_feed(&decoder, bytes.data + at, part), 0);
        (void)frame_next(&decoder, &frame, NULL);
    }
    assert_int_equal(frame_next(&decoder, &frame, NULL), 0);
    assert_true(decoder.in.cap >= FRAME_CHUNK_MAX);
    frame_decoder_limit(&decoder, &msg_limits_server_trainer);
    assert_int_equal(frame_next(&decoder, &frame, NULL), 0);
    assert_int_equal(decoder.in.cap, 0);
    frame_decoder_fini(&decoder);

    frame_decoder_init(&decoder, &msg_limits_server_new); /* nothing said yet: next to nothing is held */
    assert_int_equal(frame_feed(&decoder, raw, FRAME_READ_MAX), 0);
    assert_int_equal(frame_feed(&decoder, raw, FRAME_READ_MAX),
                     ERR_LIMIT); /* a caller that does not alternate with next */
    frame_decoder_fini(&decoder);
    buf_fini(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_bytes),
        cmocka_unit_test(test_any_cut_gives_the_same_frames),
        cmocka_unit_test(test_truncated_is_never_a_frame),
        cmocka_unit_test(test_each_flipped_bit_is_noticed),
        cmocka_unit_test(test_each_condition),
        cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_other_protocols_are_named),
        cmocka_unit_test(test_first_bytes_are_judged_once),
        cmocka_unit_test(test_state_changes_between_frames),
        cmocka_unit_test(test_skipping_begins_after_the_greeting),
        cmocka_unit_test(test_memory_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
