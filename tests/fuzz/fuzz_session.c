/* The server's side of the conversation: any message in any state, between all else that can happen to a coordinator.
 *
 * Input: a script of steps, three bytes each: what (its low five bits, so that letters do), who (the low three bits: a
 * connection) and how.
 *
 *   o  opens the connection          l  it is lost                 m  any message: how is its type, then one byte of
 *   h  HELLO                         y  READY                         length and so much protobuf
 *   f  FETCH                         t  trains and sends OFFER     c  CHUNKs, as granted or in disorder
 *   p  PROGRESS                      e  EVALUATED                  s  STATUS        b  BYE
 *   w  time passes                   j  jobs, writes and the disk: held, let go, failing
 *   k  kill -9 and start again       x  stop
 *
 * Every message is encoded, judged by the limits of the state it comes in, and decoded, as behind a socket. Must hold,
 * beside what tests/unit/server/session/world.h asserts of every step: nothing is announced that is not durable, a
 * durable model is finite, a client is listed once, and no step fails. */
#include "tests/unit/server/session/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

enum { USED = 8, STEPS_MAX = 300, GRANTS_MAX = 8 };

struct party {
    struct site site;
    bool granted;
    struct msg_grant grant;
};

static struct world w;
static struct party parties[USED];
static uint32_t durable; /* as the disk had it at the latest look */

/* ---- What was said ---- */

static void check_heard(struct party *party, const struct msg *msg)
{
    switch (msg->type) {
    case MSG_WELCOME:
        REQUIRE(msg->welcome.round <= w.disk.round && msg->welcome.counted_round <= w.disk.round);
        break;
    case MSG_ROUND:
        REQUIRE(msg->round.round <= w.disk.round + 1 && msg->round.model.bytes == w.layout->total * sizeof(float));
        REQUIRE(!msg->round.has_remote || msg->round.remote.count <= (uint64_t)w.plan.fusion.remote * D);
        break;
    case MSG_ROUND_END:
        REQUIRE(msg->round_end.round <= w.disk.round);
        break;
    case MSG_AGGREGATE:
        REQUIRE(msg->aggregate.round <= w.disk.round);
        break;
    case MSG_GRANT:
        party->granted = true;
        party->grant = msg->grant;
        break;
    default:
        break;
    }
}

static void check_durable(void)
{
    REQUIRE(w.step_result == 0);
    REQUIRE(w.disk.round == durable || w.disk.round == durable + 1);
    if (w.disk.round == durable) {
        return;
    }
    durable = w.disk.round;
    for (uint64_t i = 0; i < w.layout->total; i++) {
        REQUIRE(isfinite(w.disk.params[i]));
    }
    uint32_t counted = 0;
    for (uint32_t i = 0; i < w.disk.counted_count; i++) {
        counted += w.disk.counted[i].round == durable;
        for (uint32_t k = 0; k < i; k++) {
            REQUIRE(strcmp(w.disk.counted[i].name, w.disk.counted[k].name) != 0);
        }
    }
    REQUIRE(counted == w.disk.summary.accepted && w.disk.summary.round == durable);
}

static void listen_to_all(void)
{
    for (uint32_t i = 0; i < PEERS; i++) {
        while (w.peers[i].count > 0) {
            struct msg msg = take_first(&w.peers[i]);
            check_heard(&parties[i % USED], &msg);
            msg_fini(&msg);
        }
    }
    check_durable();
}

/* ---- Saying ---- */

/* As the shell: whoever sends what is no frame or no message loses the connection. */
static void hear_bytes(uint32_t peer, const struct buf *bytes)
{
    const struct frame_limits *limits = coordinator_limits(w.c, peer);
    struct frame_decoder decoder;
    struct frame frame;
    struct msg msg;
    frame_decoder_init(&decoder, limits ? limits : &msg_limits_server_new);
    for (size_t at = 0; at < bytes->len;) {
        size_t part = bytes->len - at < FRAME_READ_MAX ? bytes->len - at : FRAME_READ_MAX;
        REQUIRE(frame_feed(&decoder, bytes->data + at, part) == 0);
        at += part;
        int rc = frame_next(&decoder, &frame, NULL);
        rc = rc == 1 ? msg_decode(&frame, MSG_BUDGET_SERVER, &msg, NULL) : rc == 0 && at < bytes->len ? 1 : ERR_FAILED;
        if (rc == 0) {
            say(&w, peer, msg);
            msg_fini(&msg);
        } else if (rc < 0) {
            lose(&w, peer);
            break;
        }
    }
    frame_decoder_fini(&decoder);
    listen_to_all();
}

/* What the sender's own checks refuse is not sent. */
static void send_msg(uint32_t peer, struct msg msg)
{
    struct buf bytes;
    if (!w.peers[peer].open) {
        return;
    }
    buf_init(&bytes, 8u << 20);
    if (msg_encode(&msg, &bytes, NULL) == 0 && buf_append(&bytes, msg.raw, msg.raw_len) == 0) {
        hear_bytes(peer, &bytes);
    }
    buf_fini(&bytes);
}

static void send_any(uint32_t peer, uint8_t type, const uint8_t *proto, uint32_t len)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct buf bytes;
    if (!w.peers[peer].open) {
        return;
    }
    buf_init(&bytes, 8u << 20);
    frame_header(header, type, 0, proto, len, NULL, 0);
    REQUIRE(buf_append(&bytes, header, sizeof header) == 0 && buf_append(&bytes, proto, len) == 0);
    hear_bytes(peer, &bytes);
    buf_fini(&bytes);
}

static void send_hello(uint32_t peer, uint8_t how)
{
    static const uint32_t roles[] = {ROLE_TRAINER, ROLE_OBSERVER, ROLE_OPERATOR, 7};
    struct site *site = &parties[peer].site;
    (void)snprintf(site->name, sizeof site->name, "site-%u", how & 7u);
    struct msg msg = hello_of(site);
    msg.hello.role = roles[how >> 3 & 3];
    msg.hello.instance.bytes[0] ^= how & 32 ? 1 : 0;
    if (how & 64) {
        msg.hello.has_saved = true;
        msg.hello.saved_run = hash_of(how & 128 ? "other" : "run", how & 128 ? 5 : 3);
        msg.hello.saved_plan = hash_of(w.plan_bytes.data, w.plan_bytes.len);
        msg.hello.saved_round = w.disk.round;
    }
    send_msg(peer, msg);
}

static void send_ready(uint32_t peer, uint8_t how)
{
    struct msg msg = ready_of(&w);
    msg.ready.layout.bytes[0] ^= how & 1;
    msg.ready.images = how >> 1;
    send_msg(peer, msg);
}

static uint32_t some_round(unsigned how)
{
    const uint32_t rounds[] = {w.disk.round + 1, w.disk.round, w.disk.round + 2, UINT32_MAX};
    return rounds[how & 3];
}

static void send_fetch(uint32_t peer, uint8_t how)
{
    const uint64_t whole = w.layout->total * sizeof(float);
    const uint64_t offsets[] = {0, 1, whole / 2, whole - 1, whole, whole + 1, UINT64_MAX, (uint64_t)how};
    struct msg msg = {.type = MSG_FETCH};
    msg.fetch = (struct msg_fetch){1 + (how & 3u), some_round(how >> 2), offsets[how >> 5]};
    send_msg(peer, msg);
}

static void send_offer(uint32_t peer, uint8_t how)
{
    struct site *site = &parties[peer].site;
    struct msg_offer *offer = &site->offer.offer;
    train(&w, site, some_round(how & 1 ? 1 : how & 2 ? 2 : 0));
    if (how & 4) {
        site->rows = 0;
    }
    if (how & 8) {
        site->update[w.layout->total - 1] = NAN;
    }
    if (how & 16) {
        site->update[0] = 1e30f;
    }
    if (how & 32) {
        site->features[D] = 3;
    }
    uint64_t images = offer->report.images;
    describe_offer(&w, site, offer->round);
    offer->report.images = (how & 192) == 64 ? 0 : images;
    if ((how & 192) == 128) {
        offer->update.hash.bytes[3] ^= 1;
    }
    if ((how & 192) == 192) {
        offer->update.count--;
        offer->update.bytes -= 4;
    }
    send_msg(peer, site->offer);
}

static void send_chunk(uint32_t peer, uint32_t kind, uint32_t round, uint64_t offset, const uint8_t *raw, uint32_t len)
{
    struct msg msg = {.type = MSG_CHUNK, .raw = raw, .raw_len = len};
    msg.chunk = (struct msg_chunk){kind, round, offset};
    send_msg(peer, msg);
}

static uint64_t bytes_of(const struct site *site, uint32_t kind)
{
    return kind == BLOB_UPDATE ? w.layout->total * sizeof(float) : (uint64_t)site->rows * D * sizeof(float);
}

static void send_chunks(uint32_t peer, uint8_t how)
{
    static const uint8_t noise[300] = {1, 2, 3};
    struct party *party = &parties[peer];
    if (!party->site.update || !party->granted) {
        send_chunk(peer, 1 + (how & 3u), some_round(how >> 2), how >> 4, noise, sizeof noise);
        return;
    }
    for (uint32_t i = 0; i < GRANTS_MAX && party->granted; i++) {
        const struct msg_grant grant = party->grant;
        uint64_t whole = bytes_of(&party->site, grant.kind);
        party->granted = false;
        if (grant.offset >= whole) {
            return;
        }
        const uint8_t *from = travels(&party->site, grant.kind) + grant.offset;
        uint32_t len = (uint32_t)(whole - grant.offset);
        switch (how & 7) {
        case 0: /* as it should be */
            send_chunk(peer, grant.kind, grant.round, grant.offset, from, len);
            break;
        case 1: /* in two pieces */
            send_chunk(peer, grant.kind, grant.round, grant.offset, from, len / 2);
            send_chunk(peer, grant.kind, grant.round, grant.offset + len / 2, from + len / 2, len - len / 2);
            break;
        case 2: /* half of it; the grant stands */
            send_chunk(peer, grant.kind, grant.round, grant.offset, from, len / 2);
            party->granted = true;
            party->grant.offset += len / 2;
            return;
        case 3: /* out of order */
            send_chunk(peer, grant.kind, grant.round, grant.offset + 1, from, len - 1);
            break;
        case 4: /* past the end */
            send_chunk(peer, grant.kind, grant.round, whole - 4, noise, 8);
            break;
        case 5: /* another blob */
            send_chunk(peer, grant.kind ^ 7, grant.round, grant.offset, from, len);
            break;
        case 6: /* of another round */
            send_chunk(peer, grant.kind, grant.round + 1, grant.offset, from, len);
            break;
        default: /* other bytes */
            send_chunk(peer, grant.kind, grant.round, grant.offset, noise, len < sizeof noise ? len : sizeof noise);
            break;
        }
    }
}

/* ---- The rest of the world ---- */

static void set_world(uint8_t how)
{
    w.hold_jobs = how & 1;
    w.hold_drained = how & 2;
    w.save_result = how & 4 ? ERR_FULL : 0;
    if (!w.hold_jobs) {
        run_jobs(&w);
    } else if ((how & 8) && w.jobs_count > 0) {
        run_job(&w);
    }
    for (uint32_t peer = 0; peer < USED && !w.hold_drained; peer++) {
        drain(&w, peer);
    }
    listen_to_all();
}

static void start_again(void)
{
    world_crash(&w);
    w.exited = false;
    for (uint32_t i = 0; i < USED; i++) {
        parties[i].granted = false;
    }
    world_start(&w);
}

static void stop(void)
{
    world_step(&w, (struct event){.kind = EVENT_STOP});
    listen_to_all();
}

/* Returns how many bytes behind the step belong to it. */
static size_t take_step(uint8_t what, uint32_t peer, uint8_t how, const uint8_t *more, size_t left)
{
    bool open = w.peers[peer].open;
    struct msg msg = {0};
    switch (what & 31) {
    case 'o' & 31:
        if (!open) {
            parties[peer].granted = false;
            open_peer(&w, peer);
        }
        break;
    case 'l' & 31:
        if (open) {
            lose(&w, peer);
        }
        break;
    case 'h' & 31:
        send_hello(peer, how);
        break;
    case 'y' & 31:
        send_ready(peer, how);
        break;
    case 'f' & 31:
        send_fetch(peer, how);
        break;
    case 't' & 31:
        send_offer(peer, how);
        break;
    case 'c' & 31:
        send_chunks(peer, how);
        break;
    case 'p' & 31:
        msg.type = MSG_PROGRESS;
        msg.progress = (struct msg_progress){some_round(how), how >> 2, 40, 1.5, 100};
        send_msg(peer, msg);
        break;
    case 'e' & 31:
        msg.type = MSG_EVALUATED;
        msg.evaluated = (struct msg_evaluated){some_round(how), 0.5, 1 + how};
        send_msg(peer, msg);
        break;
    case 's' & 31:
        msg.type = MSG_STATUS;
        msg.status.history = how;
        send_msg(peer, msg);
        break;
    case 'b' & 31:
        msg.type = MSG_BYE;
        msg.bye.code = how;
        send_msg(peer, msg);
        break;
    case 'w' & 31:
        advance(&w, (uint64_t)how * 64);
        break;
    case 'j' & 31:
        set_world(how);
        break;
    case 'k' & 31:
        start_again();
        break;
    case 'x' & 31:
        stop();
        break;
    case 'm' & 31:
        if (left > 0) {
            size_t len = more[0] < left - 1 ? more[0] : left - 1;
            send_any(peer, how & 31, more + 1, (uint32_t)len);
            return 1 + len;
        }
        break;
    default:
        break;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    world_init(&w);
    w.plan.min_clients = 2;
    w.plan.round_deadline_ms = 20000;
    w.options.upload_slots = 1;
    w.options.sessions_max = USED - 2;
    for (uint32_t i = 0; i < USED; i++) {
        parties[i] = (struct party){0};
        site_init(&parties[i].site, i);
    }
    durable = 0;
    world_start(&w);
    size_t at = 0;
    for (uint32_t steps = 0; size - at >= 3 && steps < STEPS_MAX && !w.exited; steps++) {
        at += 3;
        at += take_step(data[at - 3], data[at - 2] & (USED - 1), data[at - 1], data + at, size - at);
        listen_to_all();
        w.lines.len = 0;
    }
    world_fini(&w);
    for (uint32_t i = 0; i < USED; i++) {
        site_fini(&parties[i].site);
    }
    return 0;
}
