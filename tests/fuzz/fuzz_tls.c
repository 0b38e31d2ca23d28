/* TLS as a stranger and somebody on the way reach it.
 *
 * Input: byte 0 says what the rest is, byte 1 the size of the pieces in which bytes arrive.
 *   0  bytes for a server     1  bytes for a client that has a certificate     2  bytes for a client that joins
 *   3  edits of a conversation, three bytes each: how far to go in the stream (low six bits times four) and in which
 *      direction (bit 6); what to do there: 0 changes the byte, 1 leaves it out, 2 says it twice, 3 puts one before it;
 *      and with what
 *
 * Must hold: bytes alone open nothing, whoever is open knows the right peer and has heard what was said, a failure has
 * a sentence and is final, what is to be sent is bounded, and pieces are judged as the whole. */
#include "tests/support/tls_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

enum { SERVER, CLIENT, JOINING, SETUPS, INPUT_MAX = 1 << 16, OUTPUT_MAX = 1 << 14, WORDS = 5 };

static struct tls_setup *setups[SETUPS];

static void prepare(void)
{
    struct tls_world world;
    if (!setups[SERVER]) {
        tls_world_init(&world);
        setups[SERVER] = tls_server_of(&world, "coordinator", TRUST_SERVER, 0);
        setups[CLIENT] = tls_client_of(&world, "site-a", TRUST_TRAINER, 0);
        setups[JOINING] = tls_joining(world.pin);
        tls_world_fini(&world);
    }
}

struct end {
    struct channel *channel;
    int rc;
    size_t heard;
};

static void check(struct end *end, const char *peer)
{
    const struct trust_subject *subject = channel_peer(end->channel);
    if (channel_is_open(end->channel)) {
        REQUIRE(subject && peer && strcmp(subject->name, peer) == 0);
    } else {
        REQUIRE(!subject && end->heard == 0 && !channel_has_ended(end->channel));
    }
    REQUIRE(channel_output(end->channel)->len <= OUTPUT_MAX);
}

/* Bytes arrive, in a block of their own. */
static void hear(struct end *end, const uint8_t *bytes, size_t len, const char *peer)
{
    static const char said[] = "words";
    uint8_t plain[WORDS];
    size_t got = 1;
    if (end->rc < 0 || len == 0) {
        return;
    }
    uint8_t *copy = malloc(len);
    REQUIRE(copy != NULL);
    memcpy(copy, bytes, len);
    channel_input(end->channel, copy, len);
    while (end->rc == 0 && got > 0) {
        struct err err = {0};
        end->rc = channel_read(end->channel, plain, sizeof plain, &got, &err);
        REQUIRE(end->rc == 0 || (err.code == end->rc && err.text[0]));
        REQUIRE(end->heard + got <= WORDS && memcmp(plain, said + end->heard, got) == 0);
        end->heard += got;
    }
    free(copy);
    check(end, peer);
    if (end->rc < 0) {
        REQUIRE(channel_read(end->channel, plain, sizeof plain, &got, NULL) < 0 && got == 0);
        REQUIRE(channel_write(end->channel, "x", 1, NULL) < 0);
    }
}

static void end_init(struct end *end, int which)
{
    *end = (struct end){0};
    REQUIRE(channel_new(setups[which], &end->channel, NULL) == 0);
}

/* ---- Bytes of a stranger ---- */

static int hear_all(int which, const uint8_t *bytes, size_t len, size_t piece)
{
    struct end end;
    end_init(&end, which);
    for (size_t at = 0; at < len; at += piece) {
        hear(&end, bytes + at, len - at < piece ? len - at : piece, NULL);
    }
    channel_free(end.channel);
    return end.rc;
}

/* ---- Somebody on the way ---- */

struct editor {
    const uint8_t *edits;
    size_t len, used;
    size_t passed[2]; /* of the stream in each direction, since the last edit */
};

/* What arrives of bytes[0, len), whose direction is `way`. */
static size_t edit(struct editor *editor, int way, const uint8_t *bytes, size_t len, uint8_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        const uint8_t *next = editor->used + 3 <= editor->len ? editor->edits + editor->used : NULL;
        uint8_t byte = bytes[i];
        if (!next || (next[0] >> 6 & 1) != way || editor->passed[way]++ < (size_t)(next[0] & 63) * 4) {
            out[n++] = byte;
            continue;
        }
        editor->used += 3;
        editor->passed[way] = 0;
        switch (next[1] & 3) {
        case 0:
            out[n++] = byte ^ next[2];
            break;
        case 1:
            break;
        case 2:
            out[n++] = byte;
            out[n++] = byte;
            break;
        default:
            out[n++] = next[2];
            out[n++] = byte;
            break;
        }
    }
    return n;
}

static void converse(const uint8_t *edits, size_t len, size_t piece)
{
    static const char *const peers[] = {"coordinator", "site-a"}; /* as each end must know the other */
    static uint8_t bytes[2 * OUTPUT_MAX];
    struct editor editor = {.edits = edits, .len = len};
    struct end ends[2]; /* the client, and the server */
    bool said[2] = {false, false};
    end_init(&ends[0], CLIENT);
    end_init(&ends[1], SERVER);
    for (int turn = 0; turn < 8; turn++) {
        int way = turn & 1;
        struct end *from = &ends[way], *to = &ends[1 - way];
        if (channel_is_open(from->channel) && from->rc == 0 && !said[way]) {
            REQUIRE(channel_write(from->channel, "words", WORDS, NULL) == 0);
            channel_end(from->channel);
            said[way] = true;
        }
        struct buf *output = channel_output(from->channel);
        REQUIRE(output->len <= OUTPUT_MAX);
        size_t n = output->len > 0 ? edit(&editor, way, output->data, output->len, bytes) : 0;
        buf_consume(output, output->len);
        for (size_t at = 0; at < n; at += piece) {
            hear(to, bytes + at, n - at < piece ? n - at : piece, peers[1 - way]);
        }
    }
    for (int i = 0; i < 2; i++) {
        REQUIRE(!channel_has_ended(ends[i].channel) || ends[i].heard == WORDS);
        REQUIRE(editor.used > 0 || (ends[i].rc == 0 && channel_has_ended(ends[i].channel)));
        channel_free(ends[i].channel);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > INPUT_MAX) {
        return 0;
    }
    prepare();
    size_t piece = data[1] ? data[1] : INPUT_MAX;
    int what = data[0] & 3;
    if (what == SETUPS) {
        converse(data + 2, size - 2, piece);
    } else {
        REQUIRE(hear_all(what, data + 2, size - 2, INPUT_MAX) == hear_all(what, data + 2, size - 2, piece));
    }
    return 0;
}
