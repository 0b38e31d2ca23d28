/* A client that trains nothing and tells what it is told to, so that a test knows what honest ones and liars
 * contribute.
 *
 *   teller HOST PORT NAME VALUE IMAGES ROWS SEED [STATISTICS]
 *
 * Every number of its update is VALUE, or, of the statistics of batch normalisation, STATISTICS; ROWS feature rows,
 * none where it is 0, are drawn from SEED and are the same in each round. Comes back whenever the server says goodbye
 * or is gone, and ends with the run: exit 0. What it hears is printed, a line for each answer to a contribution. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/config/plan.h"
#include "common/wire/msg.h"

#include <math.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct teller {
    const char *host, *port, *name;
    float value, statistics;
    uint64_t images, seed;
    uint32_t rows;
    int fd;
    struct frame_decoder decoder;
    struct layout *layout;
    struct plan plan;
    float *update, *features;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "teller: %s\n", what);
    exit(1);
}

static void rest(void)
{
    const struct timespec time = {0, 200000000};
    (void)nanosleep(&time, NULL);
}

static bool send_all(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t done = 0; done < len;) {
        ssize_t n = send(fd, p + done, len - done, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

static bool tell(const struct teller *t, const struct msg *msg)
{
    struct buf out;
    struct err err;
    buf_init(&out, 1 << 20);
    if (msg_encode(msg, &out, &err) != 0) {
        die(err.text);
    }
    bool sent = send_all(t->fd, out.data, out.len) && send_all(t->fd, msg->raw, msg->raw_len);
    buf_fini(&out);
    return sent;
}

static bool dial(struct teller *t)
{
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
    if (getaddrinfo(t->host, t->port, &hints, &found) != 0) {
        die("no such address");
    }
    t->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool open = connect(t->fd, found->ai_addr, found->ai_addrlen) == 0;
    freeaddrinfo(found);
    return open;
}

/* The plan says how large everything is. */
static void prepare(struct teller *t, const struct msg_welcome *welcome)
{
    struct err err;
    struct rng rng;
    if (t->layout) {
        return;
    }
    if (plan_decode(welcome->plan, welcome->plan_len, &t->plan, &err) != 0 ||
        layout_new(&t->plan.model, &t->layout, &err) != 0) {
        die(err.text);
    }
    uint32_t dimension = t->plan.model.features;
    t->update = mem_new((size_t)t->layout->total, sizeof *t->update);
    t->features = mem_new((size_t)t->rows * dimension, sizeof *t->features);
    for (uint64_t i = 0; i < t->layout->total; i++) {
        t->update[i] = i < t->layout->trainable_end ? t->value : t->statistics;
    }
    rng_init(&rng, t->seed, RNG_TEST, 0, 0, 0);
    for (uint32_t r = 0; r < t->rows; r++) {
        float *row = t->features + (size_t)r * dimension, length = 0;
        for (uint32_t d = 0; d < dimension; d++) {
            row[d] = rng_range(&rng, -1, 1);
            length += row[d] * row[d];
        }
        for (uint32_t d = 0; d < dimension; d++) {
            row[d] /= sqrtf(length);
        }
    }
}

static struct blob describe(const struct teller *t, uint32_t kind, uint32_t round, const float *data, uint64_t count)
{
    return (struct blob){.kind = kind,
                         .round = round,
                         .element = element_of(QUANT_F32),
                         .count = count,
                         .bytes = count * sizeof *data,
                         .layout = t->layout->fingerprint,
                         .hash = hash_of(data, (size_t)count * sizeof *data)};
}

static bool offer(const struct teller *t, uint32_t round)
{
    struct msg msg = {.type = MSG_OFFER};
    msg.offer.round = round;
    msg.offer.report = (struct report){.images = t->images, .seen = t->images, .steps = 1, .loss = 1};
    msg.offer.update = describe(t, BLOB_UPDATE, round, t->update, t->layout->total);
    msg.offer.has_features = t->rows > 0;
    if (t->rows > 0) {
        uint32_t dimension = t->plan.model.features;
        msg.offer.features = describe(t, BLOB_FEATURES, round, t->features, (uint64_t)t->rows * dimension);
        msg.offer.features.dimension = dimension;
        msg.offer.features.encoder = t->plan.fusion.encoder;
    }
    return tell(t, &msg);
}

static bool upload(const struct teller *t, const struct msg_grant *grant)
{
    bool update = grant->kind == BLOB_UPDATE;
    const uint8_t *data = (const uint8_t *)(update ? t->update : t->features);
    uint64_t bytes = (update ? t->layout->total : (uint64_t)t->rows * t->plan.model.features) * sizeof(float);
    bool sent = true;
    for (uint64_t at = grant->offset; sent && at < bytes; at += FRAME_CHUNK_MAX) {
        uint64_t left = bytes - at;
        struct msg msg = {.type = MSG_CHUNK, .raw = data + at};
        msg.raw_len = left < FRAME_CHUNK_MAX ? (uint32_t)left : FRAME_CHUNK_MAX;
        msg.chunk = (struct msg_chunk){grant->kind, grant->round, at};
        sent = tell(t, &msg);
    }
    return sent;
}

static bool greet(const struct teller *t)
{
    struct msg msg = {.type = MSG_HELLO};
    msg.hello.major = FRAME_VERSION;
    msg.hello.minor_least = PROTOCOL_MINOR_LEAST;
    msg.hello.minor_most = PROTOCOL_MINOR_MOST;
    msg.hello.capabilities = CAPABILITIES_OURS;
    msg.hello.role = ROLE_TRAINER;
    (void)snprintf(msg.hello.name, sizeof msg.hello.name, "%s", t->name);
    msg.hello.instance = hash_of(t->name, strlen(t->name));
    return tell(t, &msg);
}

/* False: the conversation is over. */
static bool hear(struct teller *t, const struct msg *msg)
{
    struct msg answer = {0};
    switch (msg->type) {
    case MSG_WELCOME:
        prepare(t, &msg->welcome);
        answer.type = MSG_READY;
        answer.ready = (struct msg_ready){.layout = t->layout->fingerprint, .images = t->images};
        return tell(t, &answer);
    case MSG_ROUND:
        return offer(t, msg->round.round);
    case MSG_GRANT:
        return upload(t, &msg->grant);
    case MSG_ALIVE:
        answer.type = MSG_PROGRESS;
        answer.progress = (struct msg_progress){.round = msg->alive.round, .step = 1, .steps = 1};
        return tell(t, &answer);
    case MSG_DECLINED:
        (void)printf("declined round=%u reason=%s %s\n", msg->declined.round, decline_reason_name(msg->declined.reason),
                     msg->declined.text);
        return true;
    case MSG_ROUND_END:
        (void)printf("ended round=%u counted=%d\n", msg->round_end.round, msg->round_end.counted);
        if (msg->round_end.finished) {
            exit(0);
        }
        return true;
    case MSG_REJECT:
        die(msg->reject.text);
        return false;
    default:
        return msg->type != MSG_BYE;
    }
}

static void talk(struct teller *t)
{
    uint8_t bytes[65536];
    struct frame frame;
    struct err err;
    bool more = greet(t);
    frame_decoder_init(&t->decoder, &msg_limits_client);
    while (more) {
        ssize_t n = recv(t->fd, bytes, sizeof bytes, 0);
        more = n > 0 && frame_feed(&t->decoder, bytes, (size_t)n) == 0;
        while (more && frame_next(&t->decoder, &frame, &err) == 1) {
            struct msg msg;
            if (msg_decode(&frame, 32u << 20, &msg, &err) != 0) {
                die(err.text);
            }
            more = hear(t, &msg);
            msg_fini(&msg);
        }
    }
    frame_decoder_fini(&t->decoder);
}

int main(int argc, char **argv)
{
    if (argc != 8 && argc != 9) {
        die("usage: teller HOST PORT NAME VALUE IMAGES ROWS SEED [STATISTICS]");
    }
    struct teller t = {.host = argv[1],
                       .port = argv[2],
                       .name = argv[3],
                       .value = strtof(argv[4], NULL),
                       .statistics = strtof(argv[argc == 9 ? 8 : 4], NULL),
                       .images = strtoull(argv[5], NULL, 10),
                       .rows = (uint32_t)strtoul(argv[6], NULL, 10),
                       .seed = strtoull(argv[7], NULL, 10)};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    for (;;) {
        if (dial(&t)) {
            talk(&t);
        }
        (void)close(t.fd);
        rest();
    }
}
