/* Frames of 1 MiB chunks, as models and updates travel: written, read, and the same bytes through a bare pair of
 * sockets on loopback, a thread at either end. */
#include "client/tool/bench.h"
#include "client/tool/cli.h"
#include "common/base/bytes.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/wire/msg.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX 4096

struct wire {
    uint8_t *stream; /* one frame: header, protobuf part, raw bytes */
    size_t len;
    struct msg chunk;
    double seconds; /* of each part */
};

static int make_chunk(struct wire *wire, struct err *err)
{
    struct buf head;
    buf_init(&head, HEAD_MAX);
    wire->chunk = (struct msg){.type = MSG_CHUNK,
                               .chunk = {BLOB_MODEL, 1, 0},
                               .raw_len = FRAME_CHUNK_MAX,
                               .payload = bytes_new(FRAME_CHUNK_MAX)};
    wire->stream = mem_new(HEAD_MAX + FRAME_CHUNK_MAX, 1);
    int rc = wire->chunk.payload && wire->stream ? 0 : err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    if (rc == 0) {
        for (size_t i = 0; i < FRAME_CHUNK_MAX; i++) {
            wire->chunk.payload->data[i] = (uint8_t)rng_mix(i);
        }
        wire->chunk.raw = wire->chunk.payload->data;
        rc = msg_encode(&wire->chunk, &head, err);
    }
    if (rc == 0) {
        memcpy(wire->stream, head.data, head.len);
        memcpy(wire->stream + head.len, wire->chunk.raw, FRAME_CHUNK_MAX);
        wire->len = head.len + FRAME_CHUNK_MAX;
    }
    buf_fini(&head);
    return rc;
}

/* As conn_send does it: the raw bytes are not copied. */
static int encode(struct wire *wire, double *rate, struct err *err)
{
    struct buf head;
    uint64_t frames = 0;
    int rc = 0;
    double begin = bench_now(), now = begin;
    buf_init(&head, HEAD_MAX);
    for (; rc == 0 && now - begin < wire->seconds; now = bench_now(), frames++) {
        head.len = 0;
        rc = msg_encode(&wire->chunk, &head, err);
    }
    buf_fini(&head);
    *rate = (double)frames * (double)wire->len / (now - begin);
    return rc;
}

static int read_frame(struct frame_decoder *decoder, const struct wire *wire, struct err *err)
{
    struct frame frame;
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < wire->len; at += FRAME_READ_MAX) {
        size_t len = wire->len - at < FRAME_READ_MAX ? wire->len - at : FRAME_READ_MAX;
        rc = frame_feed(decoder, wire->stream + at, len);
        rc = rc ? err_set(err, rc, "%s", err_meaning(rc)) : frame_next(decoder, &frame, err);
    }
    struct msg msg = {0};
    rc = rc == 1 ? msg_decode(&frame, MSG_BUDGET_SERVER, &msg, err) : rc;
    msg_fini(&msg);
    return rc;
}

/* As a connection does it: in pieces of a read. */
static int decode(struct wire *wire, double *rate, struct err *err)
{
    struct frame_decoder decoder;
    uint64_t frames = 0;
    int rc = 0;
    double begin = bench_now(), now = begin;
    frame_decoder_init(&decoder, &msg_limits_server_trainer);
    for (; rc == 0 && now - begin < wire->seconds; now = bench_now(), frames++) {
        rc = read_frame(&decoder, wire, err);
    }
    frame_decoder_fini(&decoder);
    *rate = (double)frames * (double)wire->len / (now - begin);
    return rc;
}

/* ---- Bare sockets ---- */

struct sender {
    const struct wire *wire;
    int fd;
};

static void *send_pieces(void *argument)
{
    struct sender *sender = argument;
    double end = bench_now() + sender->wire->seconds;
    bool open = true;
    while (open && bench_now() < end) {
        for (size_t at = 0; open && at < sender->wire->len;) {
            ssize_t sent = send(sender->fd, sender->wire->stream + at, sender->wire->len - at, MSG_NOSIGNAL);
            open = sent > 0;
            at += open ? (size_t)sent : 0;
        }
    }
    (void)shutdown(sender->fd, SHUT_WR);
    return NULL;
}

/* fd[0] connected to fd[1]; -1 where it failed. */
static int connect_pair(int fd[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = listener >= 0 && fd[0] >= 0 && bind(listener, (struct sockaddr *)&address, len) == 0 &&
              listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&address, &len) == 0 &&
              connect(fd[0], (struct sockaddr *)&address, len) == 0;
    fd[1] = ok ? accept(listener, NULL, NULL) : -1;
    int code = errno;
    if (listener >= 0) {
        (void)close(listener);
    }
    errno = code;
    return fd[1] >= 0 ? 0 : -1;
}

static int loopback(struct wire *wire, double *rate, struct err *err)
{
    static uint8_t room[FRAME_READ_MAX];
    int fd[2] = {-1, -1}, rc = 0;
    pthread_t thread;
    struct sender sender = {.wire = wire};
    uint64_t bytes = 0;
    if (connect_pair(fd)) {
        rc = err_set(err, ERR_IO, "cannot connect two sockets on 127.0.0.1: %s", strerror(errno));
    }
    sender.fd = fd[0];
    double begin = bench_now();
    if (rc == 0 && pthread_create(&thread, NULL, send_pieces, &sender) == 0) {
        for (ssize_t got; (got = recv(fd[1], room, sizeof room, 0)) > 0;) {
            bytes += (uint64_t)got;
        }
        *rate = (double)bytes / (bench_now() - begin);
        (void)pthread_join(thread, NULL);
    } else if (rc == 0) {
        rc = err_set(err, ERR_FAILED, "cannot start a thread");
    }
    for (int i = 0; i < 2; i++) {
        if (fd[i] >= 0) {
            (void)close(fd[i]);
        }
    }
    return rc;
}

int bench_wire(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling bench wire [--seconds S]",
        .about =
            "Times writing and reading frames of 1 MiB (one thread each) and the same bytes through a bare pair of "
            "sockets on loopback, and prints one JSON object: encode_bytes_per_second, decode_bytes_per_second, "
            "loopback_bytes_per_second.",
        .examples = "  starling bench wire\n",
    };
    uint32_t seconds = 3;
    bool json = false;
    const struct flag flags[] = {
        {"seconds", FLAG_U32, &seconds, "S", "how long to measure (3)", 1, 600, false},
        {"json", FLAG_SWITCH, &json, NULL, "for symmetry: the output is JSON in any case", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    struct wire wire = {.seconds = seconds / 3.0};
    struct err err;
    double write = 0, read = 0, bare = 0;
    int rc = make_chunk(&wire, &err);
    rc = rc ? rc : encode(&wire, &write, &err);
    rc = rc ? rc : decode(&wire, &read, &err);
    rc = rc ? rc : loopback(&wire, &bare, &err);
    exit_code = rc ? cli_fail(&err)
                   : cli_print_json(json_pack("{s:f, s:f, s:f, s:I}", "encode_bytes_per_second", write,
                                              "decode_bytes_per_second", read, "loopback_bytes_per_second", bare,
                                              "frame_bytes", (json_int_t)wire.len));
    msg_fini(&wire.chunk);
    mem_free(wire.stream);
    return exit_code;
}
