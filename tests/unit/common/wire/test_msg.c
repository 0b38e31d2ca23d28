/* Messages: each type there and back, every bound of starling.proto, texts, and that the tables cover the .proto. The
 * hostile bytes are written by the small protobuf writer below, not by the encoder under test. */
#include "common/wire/msg.h"
#include "common/wire/msg_schema.h"
#include "tests/support/msg_samples.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define BUDGET ((size_t)1 << 20)

/* ---- A protobuf writer of our own ---- */

static void put_varint(struct buf *out, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        assert_int_equal(buf_append(out, &byte, 1), 0);
        value >>= 7;
    } while (value > 0);
}

static void put_number(struct buf *out, uint32_t tag, uint64_t value)
{
    put_varint(out, tag << 3);
    put_varint(out, value);
}

static void put_double(struct buf *out, uint32_t tag, double value)
{
    put_varint(out, tag << 3 | 1);
    assert_int_equal(buf_append(out, &value, sizeof value), 0);
}

static void put_bytes(struct buf *out, uint32_t tag, const void *data, size_t len)
{
    put_varint(out, tag << 3 | 2);
    put_varint(out, len);
    assert_int_equal(buf_append(out, data, len), 0);
}

static struct frame frame_of(uint8_t type, const struct buf *proto)
{
    static const uint8_t raw[] = "raw";
    bool chunk = type == MSG_CHUNK;
    return (struct frame){.type = type,
                          .proto = proto->data,
                          .proto_len = (uint32_t)proto->len,
                          .raw = chunk ? raw : NULL,
                          .raw_len = chunk ? 3 : 0};
}

/* The protobuf part of the sample. */
static void sample_proto(uint8_t type, struct buf *proto)
{
    struct msg msg;
    buf_init(proto, 1 << 24);
    sample_msg(type, &msg);
    assert_int_equal(msg_encode(&msg, proto, NULL), 0);
    buf_consume(proto, FRAME_HEADER_BYTES);
    msg_fini(&msg);
}

/* ---- There and back ---- */

static void test_round_trip(void **state)
{
    (void)state;
    for (uint8_t type = 1; type < MSG_TYPE_END; type++) {
        struct frame_limits any = {0};
        any.most[type] = 1 << 20;
        struct msg sent, received;
        struct err err = {0};
        struct buf bytes;
        buf_init(&bytes, 1 << 20);
        sample_msg(type, &sent);
        assert_int_equal(msg_encode(&sent, &bytes, &err), 0);
        assert_int_equal(buf_append(&bytes, sent.raw, sent.raw_len), 0);
        struct frame_decoder decoder;
        frame_decoder_init(&decoder, &any);
        assert_int_equal(frame_feed(&decoder, bytes.data, bytes.len), 0);
        struct frame frame;
        assert_int_equal(frame_next(&decoder, &frame, &err), 1);
        assert_int_equal(frame.flags, 0);
        if (msg_decode(&frame, BUDGET, &received, &err) != 0 || !sample_same(&sent, &received)) {
            fail_msg("%s does not come back: %s", msg_type_name(type), err.text);
        }
        if (type == MSG_CHUNK) {
            assert_ptr_equal(received.raw, frame.raw); /* not copied */
            assert_null(received.payload);
        }
        msg_fini(&received);
        msg_fini(&received);
        msg_fini(&sent);
        frame_decoder_fini(&decoder);
        buf_fini(&bytes);
    }
}

/* Everything optional left out, too. */
static void test_round_trip_bare(void **state)
{
    (void)state;
    static const struct msg bare[] = {
        {.type = MSG_HELLO, .hello = {.major = 1, .role = ROLE_OPERATOR}},
        {.type = MSG_WELCOME, .welcome = {.idle_timeout_ms = 1}},
        {.type = MSG_REJECT},
        {.type = MSG_ROUND, .round = {.model = SAMPLE_BLOB(BLOB_MODEL, 0, 0)}},
        {.type = MSG_PROGRESS},
        {.type = MSG_ALIVE},
        {.type = MSG_OFFER, .offer = {.update = SAMPLE_BLOB(BLOB_UPDATE, 0, 0)}},
        {.type = MSG_ROUND_END},
        {.type = MSG_BYE},
        {.type = MSG_STATUS},
        {.type = MSG_STATUS_REPLY},
    };
    for (size_t i = 0; i < sizeof bare / sizeof bare[0]; i++) {
        struct buf bytes;
        struct msg back;
        struct err err = {0};
        buf_init(&bytes, 4096);
        assert_int_equal(msg_encode(&bare[i], &bytes, &err), 0);
        buf_consume(&bytes, FRAME_HEADER_BYTES);
        struct frame frame = frame_of(bare[i].type, &bytes);
        if (msg_decode(&frame, BUDGET, &back, &err) != 0 || !sample_same(&bare[i], &back)) {
            fail_msg("bare %s does not come back: %s", msg_type_name(bare[i].type), err.text);
        }
        msg_fini(&back);
        buf_fini(&bytes);
    }
}

static void test_tables_cover_the_proto(void **state)
{
    (void)state;
    assert_null(schema_of(0));
    assert_null(schema_of(MSG_TYPE_END));
    assert_null(schema_of(255));
    for (uint8_t type = 1; type < MSG_TYPE_END; type++) {
        const struct schema *schema = schema_of(type);
        assert_int_equal(schema->count, schema->descriptor->n_fields);
        for (size_t i = 0; i < schema->count; i++) {
            assert_int_equal(schema->fields[i].tag, schema->descriptor->fields[i].id);
            const struct schema *sub = schema->fields[i].sub;
            if (sub) {
                assert_ptr_equal(sub->descriptor, schema->descriptor->fields[i].descriptor);
                assert_int_equal(sub->count, sub->descriptor->n_fields);
            }
        }
    }
}

static void test_truncated(void **state)
{
    (void)state;
    /* In these the last field on the wire is required, so that every cut loses something. */
    static const uint8_t strict[] = {MSG_FETCH,    MSG_CHUNK,    MSG_GRANT,     MSG_STATUS,
                                     MSG_ACCEPTED, MSG_DECLINED, MSG_ROUND_END, MSG_WELCOME};
    for (uint8_t type = 1; type < MSG_TYPE_END; type++) {
        struct buf proto;
        sample_proto(type, &proto);
        bool must_fail = memchr(strict, type, sizeof strict) != NULL;
        size_t whole = proto.len;
        for (proto.len = 0; proto.len < whole; proto.len++) {
            /* A copy of exactly this length, so that ASan sees a read past the end. */
            uint8_t *exact = mem_new(proto.len, 1);
            memcpy(exact, proto.data, proto.len);
            struct frame frame = frame_of(type, &proto);
            frame.proto = exact;
            struct msg msg;
            int rc = msg_decode(&frame, BUDGET, &msg, NULL);
            assert_true(rc == 0 || rc == ERR_PROTOCOL);
            assert_false(rc == 0 && (must_fail || proto.len == 0));
            if (rc < 0) {
                assert_int_equal(msg.type, 0);
            }
            msg_fini(&msg);
            mem_free(exact);
        }
        buf_fini(&proto);
    }
}

/* ---- Bounds ---- */

/* In protobuf the last of several equal fields counts: appending one overrides the sample's. */
static void expect(uint8_t type, const struct buf *extra, int want, const char *words)
{
    struct buf proto;
    sample_proto(type, &proto);
    assert_int_equal(buf_append(&proto, extra->data, extra->len), 0);
    struct frame frame = frame_of(type, &proto);
    struct msg msg;
    struct err err = {0};
    int rc = msg_decode(&frame, BUDGET, &msg, &err);
    if (rc != want || !strstr(err.text, words)) {
        fail_msg("%s: %s (%s), not %s (%s)", msg_type_name(type), err_name(rc), err.text, err_name(want), words);
    }
    msg_fini(&msg);
    buf_fini(&proto);
}

static void expect_number(uint8_t type, uint32_t tag, uint64_t value, int want, const char *words)
{
    struct buf extra;
    buf_init(&extra, 64);
    put_number(&extra, tag, value);
    expect(type, &extra, want, words);
    buf_fini(&extra);
}

static void test_numbers(void **state)
{
    (void)state;
    expect_number(MSG_HELLO, 1, 0, ERR_PROTOCOL, "Hello.major");
    expect_number(MSG_HELLO, 1, 2, 0, ""); /* another version is the session's to answer, with both ranges */
    expect_number(MSG_HELLO, 3, 0, ERR_PROTOCOL, "no range");
    expect_number(MSG_HELLO, 5, 0, ERR_PROTOCOL, "Hello.role");
    expect_number(MSG_HELLO, 5, 4, ERR_PROTOCOL, "Hello.role");
    expect_number(MSG_HELLO, 5, UINT64_MAX, ERR_PROTOCOL, "Hello.role");
    expect_number(MSG_WELCOME, 9, 0, ERR_PROTOCOL, "Welcome.idle_timeout_ms");
    expect_number(MSG_WELCOME, 9, 604800001, ERR_PROTOCOL, "Welcome.idle_timeout_ms");
    expect_number(MSG_REJECT, 1, 4711, 0, ""); /* a code that we do not know */
    expect_number(MSG_REJECT, 1, 65536, ERR_PROTOCOL, "Reject.code");
    expect_number(MSG_REJECT, 3, MSG_MS_MAX + 1, ERR_PROTOCOL, "Reject.retry_after_ms");
    expect_number(MSG_FETCH, 1, BLOB_UPDATE, ERR_PROTOCOL, "Fetch.kind");
    expect_number(MSG_FETCH, 1, 0, ERR_PROTOCOL, "Fetch.kind");
    expect_number(MSG_GRANT, 1, BLOB_REMOTE, ERR_PROTOCOL, "Grant.kind");
    expect_number(MSG_GRANT, 1, 5, ERR_PROTOCOL, "Grant.kind");
    expect_number(MSG_CHUNK, 1, 5, ERR_PROTOCOL, "Chunk.kind");
    expect_number(MSG_DECLINED, 2, 4711, 0, "");
    expect_number(MSG_DECLINED, 2, 65536, ERR_PROTOCOL, "Declined.reason");
    expect_number(MSG_BYE, 1, 65536, ERR_PROTOCOL, "Bye.code");
    expect_number(MSG_EVALUATED, 1, 0, ERR_PROTOCOL, "Evaluated.round");
    expect_number(MSG_EVALUATED, 3, 0, ERR_PROTOCOL, "Evaluated.images");
    expect_number(MSG_STATUS, 1, 4096, 0, "");
    expect_number(MSG_STATUS, 1, 4097, ERR_PROTOCOL, "Status.history");
    expect_number(MSG_STATUS, 999, 1, 0, ""); /* a field of the future */
}

static void test_doubles(void **state)
{
    (void)state;
    static const struct {
        uint8_t type;
        uint32_t tag;
        double value;
        int want;
        const char *words;
    } rows[] = {
        {MSG_PROGRESS, 4, -3.5, 0, ""},
        {MSG_PROGRESS, 4, (double)NAN, ERR_PROTOCOL, "Progress.loss"},
        {MSG_PROGRESS, 4, (double)INFINITY, ERR_PROTOCOL, "Progress.loss"},
        {MSG_PROGRESS, 5, -1, ERR_PROTOCOL, "Progress.images_per_second"},
        {MSG_EVALUATED, 2, 0, 0, ""},
        {MSG_EVALUATED, 2, 1, 0, ""},
        {MSG_EVALUATED, 2, 1.01, ERR_PROTOCOL, "Evaluated.knn_top1"},
        {MSG_EVALUATED, 2, -0.01, ERR_PROTOCOL, "Evaluated.knn_top1"},
        {MSG_EVALUATED, 2, (double)NAN, ERR_PROTOCOL, "Evaluated.knn_top1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf extra;
        buf_init(&extra, 64);
        put_double(&extra, rows[i].tag, rows[i].value);
        expect(rows[i].type, &extra, rows[i].want, rows[i].words);
        buf_fini(&extra);
    }
    /* A sender with a loss that has run away still gets its heartbeat out. */
    struct msg msg = {.type = MSG_PROGRESS, .progress = {7, 3, 40, (double)NAN, (double)INFINITY}}, back;
    struct buf bytes;
    buf_init(&bytes, 256);
    assert_int_equal(msg_encode(&msg, &bytes, NULL), 0);
    buf_consume(&bytes, FRAME_HEADER_BYTES);
    struct frame frame = frame_of(MSG_PROGRESS, &bytes);
    assert_int_equal(msg_decode(&frame, BUDGET, &back, NULL), 0);
    assert_true(fpclassify(back.progress.loss) == FP_ZERO && fpclassify(back.progress.images_per_second) == FP_ZERO);
    assert_int_equal(back.progress.step, 3);
    buf_fini(&bytes);
}

static void test_texts(void **state)
{
    (void)state;
    static const char longest[65] = "0123456789012345678901234567890123456789012345678901234567890123";
    static const struct {
        uint8_t type;
        uint32_t tag;
        const char *text;
        int want;
        const char *words;
    } rows[] = {
        {MSG_HELLO, 6, longest, 0, ""},
        {MSG_HELLO, 6, "01234567890123456789012345678901234567890123456789012345678901234", ERR_PROTOCOL, "Hello.name"},
        {MSG_HELLO, 6, "", ERR_PROTOCOL, "needs a name"},
        {MSG_HELLO, 6, "a b", ERR_PROTOCOL, "Hello.name"},
        {MSG_HELLO, 6, "\xc3\xa9", ERR_PROTOCOL, "Hello.name"},
        {MSG_HELLO, 6, "<script>", ERR_PROTOCOL, "Hello.name"},
        {MSG_HELLO, 8, "0123456789012345678901234567890", 0, ""},
        {MSG_HELLO, 8, "01234567890123456789012345678901", ERR_PROTOCOL, "Hello.software"},
        {MSG_BYE, 2, "z\xc3\xa4h", 0, ""},
        {MSG_BYE, 2, "z\xe4h", ERR_PROTOCOL, "Bye.text"},
        {MSG_BYE, 2, "\x1b[2J", ERR_PROTOCOL, "Bye.text"},
        {MSG_BYE, 2, "two\nlines", ERR_PROTOCOL, "Bye.text"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf extra;
        buf_init(&extra, 512);
        put_bytes(&extra, rows[i].tag, rows[i].text, strlen(rows[i].text));
        expect(rows[i].type, &extra, rows[i].want, rows[i].words);
        buf_fini(&extra);
    }
    char most[MSG_TEXT_MAX + 1];
    memset(most, 'x', sizeof most);
    for (size_t len = MSG_TEXT_MAX - 1; len <= MSG_TEXT_MAX; len++) {
        struct buf extra;
        buf_init(&extra, 512);
        put_bytes(&extra, 2, most, len);
        expect(MSG_BYE, &extra, len < MSG_TEXT_MAX ? 0 : ERR_PROTOCOL, len < MSG_TEXT_MAX ? "" : "Bye.text");
        buf_fini(&extra);
    }
}

static void test_hash_lengths(void **state)
{
    (void)state;
    static const uint8_t data[17];
    for (size_t len = 0; len <= 17; len++) {
        struct buf extra;
        buf_init(&extra, 64);
        put_bytes(&extra, 1, data, len);
        expect(MSG_READY, &extra, len == 16 ? 0 : ERR_PROTOCOL, len == 16 ? "" : "Ready.layout");
        buf_fini(&extra);
    }
}

static void test_plan_length(void **state)
{
    (void)state;
    uint8_t *plan = mem_new(MSG_PLAN_MAX + 1, 1);
    for (size_t len = MSG_PLAN_MAX; len <= MSG_PLAN_MAX + 1; len++) {
        struct buf extra;
        buf_init(&extra, 1 << 20);
        put_bytes(&extra, 5, plan, len);
        expect(MSG_WELCOME, &extra, len <= MSG_PLAN_MAX ? 0 : ERR_PROTOCOL, len <= MSG_PLAN_MAX ? "" : "Welcome.plan");
        buf_fini(&extra);
    }
    mem_free(plan);
}

/* A Round around a hand-written blob, of which `skip` is left out and `tag` has `value`. */
static int decode_round(uint32_t skip, uint32_t tag, uint64_t value, struct err *err)
{
    static const uint64_t numbers[] = {[1] = BLOB_MODEL, [2] = 7, [3] = ELEMENT_F32, [4] = 100, [7] = 400};
    static const uint8_t hash[16];
    struct buf blob, round;
    buf_init(&blob, 4096);
    buf_init(&round, 4096);
    for (uint32_t i = 1; i <= 9; i++) {
        uint64_t number = i == tag ? value : i < 8 ? numbers[i] : 0;
        if (i == skip || ((i == 5 || i == 6) && i != tag)) {
            continue;
        }
        if (i < 8) {
            put_number(&blob, i, number);
        } else {
            put_bytes(&blob, i, hash, sizeof hash);
        }
    }
    put_number(&round, 1, 7);
    put_number(&round, 2, 1000);
    put_bytes(&round, 3, blob.data, blob.len);
    struct frame frame = frame_of(MSG_ROUND, &round);
    struct msg msg;
    int rc = msg_decode(&frame, BUDGET, &msg, err);
    msg_fini(&msg);
    buf_fini(&blob);
    buf_fini(&round);
    return rc;
}

static void test_blobs_inside(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(decode_round(0, 0, 0, &err), 0);
    for (uint32_t tag = 1; tag <= 9; tag++) {
        assert_int_equal(decode_round(tag, 0, 0, &err), tag == 5 || tag == 6 ? 0 : ERR_PROTOCOL);
    }
    assert_int_equal(decode_round(0, 1, BLOB_REMOTE, &err), ERR_PROTOCOL);
    assert_int_equal(decode_round(0, 1, BLOB_UPDATE, &err), ERR_PROTOCOL);
    assert_non_null(strstr(err.text, "wrong kind"));
    assert_int_equal(decode_round(0, 1, 77, &err), ERR_PROTOCOL);
    assert_int_equal(decode_round(0, 3, 5, &err), ERR_PROTOCOL);
    assert_int_equal(decode_round(0, 4, 101, &err), ERR_PROTOCOL);
    assert_int_equal(decode_round(0, 5, 10, &err), ERR_PROTOCOL); /* a model has no dimension */
    assert_int_equal(decode_round(0, 7, UINT64_MAX, &err), ERR_PROTOCOL);
    assert_int_equal(decode_round(3, 0, 0, &err), ERR_PROTOCOL);
}

/* Measures that no unit rows have. The last of a field counts, so the sample's are overruled one at a time. */
static void test_measures_in_a_report(void **state)
{
    (void)state;
    static const struct {
        uint32_t tag;
        double value;
        int want;
    } rows[] = {{1, 2, 0},   {1, 5, ERR_PROTOCOL},   {2, 1, ERR_PROTOCOL}, {2, -9, ERR_PROTOCOL},
                {3, 1.0, 0}, {3, 1.5, ERR_PROTOCOL}, {4, 0, ERR_PROTOCOL}, {4, 1e9, ERR_PROTOCOL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (uint32_t which = 10; which <= 11; which++) {
            struct buf watch, report, extra;
            buf_init(&watch, 256);
            buf_init(&report, 256);
            buf_init(&extra, 256);
            put_double(&watch, rows[i].tag, rows[i].value);
            for (uint32_t tag = 1; tag <= 9; tag = tag == 3 ? 9 : tag + 1) {
                put_number(&report, tag, 1);
            }
            put_bytes(&report, which, watch.data, watch.len);
            put_bytes(&extra, 2, report.data, report.len);
            expect(MSG_OFFER, &extra, rows[i].want, rows[i].want ? "unit features" : "");
            buf_fini(&watch);
            buf_fini(&report);
            buf_fini(&extra);
        }
    }
}

/* Version 1 needs the update; the .proto lets later versions offer features alone. */
static void test_offer_without_update(void **state)
{
    (void)state;
    struct buf proto, report;
    buf_init(&proto, 4096);
    buf_init(&report, 4096);
    put_number(&report, 1, 1);
    put_number(&report, 2, 1);
    put_number(&report, 3, 1);
    put_number(&report, 9, 1);
    put_number(&proto, 1, 7);
    put_bytes(&proto, 2, report.data, report.len);
    struct frame frame = frame_of(MSG_OFFER, &proto);
    struct msg msg;
    struct err err = {0};
    assert_int_equal(msg_decode(&frame, BUDGET, &msg, &err), ERR_PROTOCOL);
    assert_non_null(strstr(err.text, "Offer.update"));
    buf_fini(&proto);
    buf_fini(&report);
}

static void test_raw_bytes(void **state)
{
    (void)state;
    struct buf proto;
    struct msg msg;
    sample_proto(MSG_CHUNK, &proto);
    struct frame frame = frame_of(MSG_CHUNK, &proto);
    frame.raw_len = 0;
    assert_int_equal(msg_decode(&frame, BUDGET, &msg, NULL), ERR_PROTOCOL);
    frame.raw_len = FRAME_CHUNK_MAX + 1;
    assert_int_equal(msg_decode(&frame, BUDGET, &msg, NULL), ERR_PROTOCOL);
    buf_fini(&proto);
    sample_proto(MSG_QUEUED, &proto);
    frame = frame_of(MSG_QUEUED, &proto);
    frame.raw_len = 1;
    assert_int_equal(msg_decode(&frame, BUDGET, &msg, NULL), ERR_PROTOCOL);
    frame = frame_of(MSG_TYPE_END, &proto);
    assert_int_equal(msg_decode(&frame, BUDGET, &msg, NULL), ERR_PROTOCOL);
    buf_fini(&proto);
}

/* ---- The sender's side ---- */

static void test_sender_refuses_and_cleans(void **state)
{
    (void)state;
    struct buf bytes;
    struct err err = {0};
    buf_init(&bytes, 1 << 20);
    assert_int_equal(buf_append(&bytes, "before", 6), 0);
    struct msg msg;
    sample_msg(MSG_HELLO, &msg);
    strcpy(msg.hello.name, "a b");
    assert_int_equal(msg_encode(&msg, &bytes, &err), ERR_PROTOCOL);
    assert_non_null(strstr(err.text, "Hello.name"));
    sample_msg(MSG_OFFER, &msg);
    msg.offer.update.bytes++;
    assert_int_equal(msg_encode(&msg, &bytes, &err), ERR_PROTOCOL);
    sample_msg(MSG_OFFER, &msg);
    msg.offer.features = msg.offer.update;
    assert_int_equal(msg_encode(&msg, &bytes, &err), ERR_PROTOCOL);
    assert_non_null(strstr(err.text, "wrong kind"));
    msg = (struct msg){.type = MSG_CHUNK, .chunk = {BLOB_UPDATE, 1, 0}};
    assert_int_equal(msg_encode(&msg, &bytes, &err), ERR_PROTOCOL);
    msg = (struct msg){.type = 77};
    assert_int_equal(msg_encode(&msg, &bytes, &err), ERR_PROTOCOL);
    assert_int_equal(bytes.len, 6); /* as it was */

    /* An error's sentence may be cut inside a character, and quote anything. */
    msg = (struct msg){.type = MSG_BYE, .bye.code = 1};
    memset(msg.bye.text, 'x', sizeof msg.bye.text); /* no zero at all */
    msg.bye.text[3] = '\n';
    msg.bye.text[sizeof msg.bye.text - 2] = '\xc3';
    assert_int_equal(msg_encode(&msg, &bytes, &err), 0);
    buf_consume(&bytes, 6 + FRAME_HEADER_BYTES);
    struct frame frame = frame_of(MSG_BYE, &bytes);
    struct msg back;
    assert_int_equal(msg_decode(&frame, BUDGET, &back, &err), 0);
    assert_int_equal(strlen(back.bye.text), MSG_TEXT_MAX - 1);
    assert_int_equal(back.bye.text[3], '?');
    assert_int_equal(back.bye.text[MSG_TEXT_MAX - 2], '?');
    buf_fini(&bytes);

    /* "No deadline" is the longest one. */
    msg = (struct msg){.type = MSG_ALIVE, .alive.remaining_ms = UINT64_MAX};
    buf_init(&bytes, 1000);
    assert_int_equal(msg_encode(&msg, &bytes, &err), 0);
    buf_consume(&bytes, FRAME_HEADER_BYTES);
    frame = frame_of(MSG_ALIVE, &bytes);
    assert_int_equal(msg_decode(&frame, BUDGET, &back, &err), 0);
    assert_int_equal(back.alive.remaining_ms, MSG_MS_MAX);
    buf_fini(&bytes);

    buf_init(&bytes, 20); /* no room for the frame */
    sample_msg(MSG_READY, &msg);
    assert_int_equal(msg_encode(&msg, &bytes, &err), ERR_LIMIT);
    assert_int_equal(bytes.len, 0);
    buf_fini(&bytes);
}

/* ---- Limits ---- */

static const struct blob biggest = {.kind = BLOB_MODEL,
                                    .round = UINT32_MAX,
                                    .element = ELEMENT_F32,
                                    .count = UINT64_C(1) << 30,
                                    .bytes = UINT64_C(1) << 32};

static void make_biggest(uint8_t type, struct msg *msg)
{
    sample_msg(type, msg);
    switch (type) {
    case MSG_HELLO:
        memset(msg->hello.name, 'n', sizeof msg->hello.name - 1);
        memset(msg->hello.software, 's', sizeof msg->hello.software - 1);
        msg->hello.capabilities = UINT64_MAX;
        msg->hello.major = msg->hello.minor_least = msg->hello.minor_most = msg->hello.saved_round = UINT32_MAX;
        break;
    case MSG_WELCOME:
        mem_free(msg->welcome.plan);
        msg->welcome.plan = mem_new(MSG_PLAN_MAX, 1);
        msg->welcome.plan_len = MSG_PLAN_MAX;
        msg->welcome.capabilities = UINT64_MAX;
        msg->welcome.minor = msg->welcome.round = msg->welcome.counted_round = UINT32_MAX;
        break;
    case MSG_REJECT:
        memset(msg->reject.text, 'x', sizeof msg->reject.text - 1);
        msg->reject.retry_after_ms = UINT64_MAX;
        msg->reject.minor_least = msg->reject.minor_most = UINT32_MAX;
        break;
    case MSG_ROUND:
        msg->round.model = msg->round.remote = biggest;
        msg->round.remote.kind = BLOB_REMOTE;
        msg->round.remote.dimension = BLOB_DIMENSION_MAX;
        msg->round.remote.encoder = 255;
        break;
    case MSG_AGGREGATE:
        msg->aggregate.round = UINT32_MAX;
        msg->aggregate.model = biggest;
        break;
    case MSG_EVALUATED:
        msg->evaluated = (struct msg_evaluated){UINT32_MAX, 1, UINT64_MAX};
        break;
    case MSG_OFFER:
        msg->offer.report = (struct report){UINT64_MAX,
                                            UINT64_MAX,
                                            UINT32_MAX,
                                            1,
                                            1,
                                            1,
                                            1,
                                            1,
                                            UINT64_MAX,
                                            {true, 1, -1, 1, 1},
                                            {true, 1, -1, 1, 1},
                                            {true, UINT32_MAX, 1, 1, 1, 1}};
        msg->offer.update = msg->offer.features = biggest;
        msg->offer.update.kind = BLOB_UPDATE;
        msg->offer.features.kind = BLOB_FEATURES;
        msg->offer.features.dimension = BLOB_DIMENSION_MAX;
        msg->offer.features.encoder = 255;
        break;
    case MSG_ALIVE:
        memset(msg->alive.waits_for, 'x', sizeof msg->alive.waits_for - 1);
        break;
    case MSG_DECLINED:
        memset(msg->declined.text, 'x', sizeof msg->declined.text - 1);
        break;
    case MSG_BYE:
        memset(msg->bye.text, 'x', sizeof msg->bye.text - 1);
        break;
    case MSG_CHUNK:
        msg->chunk.offset = UINT64_MAX;
        bytes_unref(msg->payload);
        msg->payload = bytes_new(FRAME_CHUNK_MAX);
        msg->raw = msg->payload->data;
        msg->raw_len = FRAME_CHUNK_MAX;
        break;
    default:
        break; /* a few numbers: within the smallest limit with room to spare */
    }
}

static void make_biggest_status(struct msg_status_reply *reply)
{
    memset(reply->alarm, 'x', sizeof reply->alarm - 1);
    mem_free(reply->clients);
    mem_free(reply->history);
    reply->clients_count = MSG_CLIENTS_MAX;
    reply->history_count = MSG_HISTORY_MAX;
    reply->clients = mem_new(reply->clients_count, sizeof *reply->clients);
    reply->history = mem_new(reply->history_count, sizeof *reply->history);
    const struct watch measures = {true, 1, -1, 1, 1};
    for (size_t i = 0; i < reply->clients_count; i++) {
        struct status_client *client = &reply->clients[i];
        *client = (struct status_client){.role = ROLE_TRAINER,
                                         .last_seen_ms = MSG_MS_MAX,
                                         .step = UINT32_MAX,
                                         .steps = UINT32_MAX,
                                         .loss = 1,
                                         .images_per_second = 1,
                                         .bytes_up = UINT64_MAX,
                                         .bytes_down = UINT64_MAX,
                                         .bytes_by_kind = {0, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX},
                                         .aggregate = measures,
                                         .own = measures,
                                         .withholds_features = true,
                                         .privacy = {true, UINT32_MAX, 1, 1, 1, 1}};
        memset(client->name, 'n', sizeof client->name - 1);
        memset(client->state, 's', sizeof client->state - 1);
    }
    for (size_t i = 0; i < reply->history_count; i++) {
        reply->history[i] = (struct status_round){UINT32_MAX, 1,          UINT32_MAX, UINT32_MAX, 1,        1,    1,
                                                  1,          UINT64_MAX, UINT64_MAX, measures,   measures, true, 1};
    }
}

/* The longest message of a type passes every state that lets the type in, within the memory that the state grants. */
static void test_biggest_fit(void **state)
{
    (void)state;
    static const struct {
        const struct frame_limits *limits;
        size_t budget;
    } readers[] = {{&msg_limits_server_new, MSG_BUDGET_SERVER},
                   {&msg_limits_server_trainer, MSG_BUDGET_SERVER},
                   {&msg_limits_server_observer, MSG_BUDGET_SERVER},
                   {&msg_limits_server_operator, MSG_BUDGET_SERVER},
                   {&msg_limits_client, MSG_BUDGET_CLIENT}};
    for (uint8_t type = 1; type < MSG_TYPE_END; type++) {
        struct msg msg, back;
        struct buf bytes;
        struct err err = {0};
        buf_init(&bytes, 16 << 20);
        make_biggest(type, &msg);
        if (type == MSG_STATUS_REPLY) {
            make_biggest_status(&msg.status_reply);
        }
        assert_int_equal(msg_encode(&msg, &bytes, &err), 0);
        buf_consume(&bytes, FRAME_HEADER_BYTES);
        bool somewhere = false;
        for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++) {
            uint32_t most = readers[i].limits->most[type];
            if (most == 0) {
                continue;
            }
            somewhere = true;
            struct frame frame = frame_of(type, &bytes);
            if (bytes.len + msg.raw_len > most || msg_decode(&frame, readers[i].budget, &back, &err) != 0) {
                fail_msg("%s of %zu bytes; reader %zu takes %u: %s", msg_type_name(type), bytes.len, i, most, err.text);
            }
            msg_fini(&back);
        }
        assert_true(somewhere);
        msg_fini(&msg);
        buf_fini(&bytes);
    }
}

static void test_names(void **state)
{
    (void)state;
    for (uint8_t type = 1; type < MSG_TYPE_END; type++) {
        assert_string_not_equal(msg_type_name(type), "unknown");
    }
    assert_string_equal(msg_type_name(MSG_TYPE_END), "unknown");
    assert_string_equal(msg_type_name(0), "unknown");
    assert_string_equal(role_name(ROLE_OPERATOR), "operator");
    assert_string_equal(role_name(UINT32_MAX), "unknown");
    assert_string_equal(blob_kind_name(BLOB_FEATURES), "features");
    assert_string_equal(blob_kind_name(5), "unknown");
    assert_string_equal(decline_reason_name(DECLINE_STALE), "stale");
    assert_string_equal(decline_reason_name(DECLINE_NOT_SELECTED), "not selected");
    assert_string_equal(decline_reason_name(0), "unknown");
}

/* What PROTOCOL.md prints as numbers. */
static void test_numbers_of_the_specification(void **state)
{
    (void)state;
    assert_int_equal(-ERR_NOMEM, 1);
    assert_int_equal(-ERR_STATE, 5);
    assert_int_equal(-ERR_IO, 11);
    assert_int_equal(-ERR_PROTOCOL, 14);
    assert_int_equal(-ERR_VERSION, 15);
    assert_int_equal(-ERR_CONFIG, 17);
    assert_int_equal(msg_limits_server_new.most[MSG_HELLO], 1024);
    assert_int_equal(msg_limits_server_new.most[MSG_READY], 0);
    assert_int_equal(msg_limits_server_trainer.most[MSG_HELLO], 0);
    assert_int_equal(msg_limits_server_trainer.most[MSG_CHUNK], 1049600);
    assert_int_equal(msg_limits_server_trainer.most[MSG_STATUS], 0);
    assert_int_equal(msg_limits_server_operator.most[MSG_STATUS], 256);
    assert_int_equal(msg_limits_server_operator.most[MSG_CHUNK], 0);
    assert_int_equal(msg_limits_client.most[MSG_WELCOME], 66560);
    assert_int_equal(msg_limits_client.most[MSG_STATUS_REPLY], 8388608);
    assert_int_equal(msg_limits_client.most[MSG_OFFER], 0);
    /* No greeting is as long as the first bytes of a TLS record would say. */
    assert_true(msg_limits_server_new.most[MSG_HELLO] < 0x10316);
    assert_true(MSG_PLAN_MAX + 512 < 0x10316);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_round_trip_bare),
        cmocka_unit_test(test_tables_cover_the_proto),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_hash_lengths),
        cmocka_unit_test(test_plan_length),
        cmocka_unit_test(test_blobs_inside),
        cmocka_unit_test(test_measures_in_a_report),
        cmocka_unit_test(test_offer_without_update),
        cmocka_unit_test(test_raw_bytes),
        cmocka_unit_test(test_sender_refuses_and_cleans),
        cmocka_unit_test(test_biggest_fit),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_numbers_of_the_specification),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
