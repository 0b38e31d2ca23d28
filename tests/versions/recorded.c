/* A conversation as a version of Starling held it, against the one that is built here.
 *
 *     recorded FILE              the server answers the recorded clients as it did, and the clients the recorded server
 *     recorded --planted FILE    changes that must be noticed are, and one that must not be is not
 *     recorded --record FILE     holds the conversation with both sides as they are, and writes it
 *
 * Three trainers, an observer, a stranger under a name that is taken and an operator, real sessions on both sides but
 * for the last two; one contribution is not finite. Time is simulated and everything that is drawn is fixed, so both
 * sides say the same every time.
 *
 * The server gets the plan that the recorded one had. The same means: frame by frame the same types, the same raw
 * bytes, and every field that was recorded has its recorded value. Fields that were not there may come in: older
 * readers skip them. Texts for people and what a version says of itself (`free_fields`) may change.
 *
 * The file: "STARCONV", then records of 16 bytes, little-endian, each followed by its bytes:
 *
 *   offset  bytes
 *        0      4  peer
 *        4      4  what: 0 opened, 1 a frame of the client's, 2 a frame of the server's, 3 closed by the client
 *        8      4  when, in ms
 *       12      4  length of what follows */
#include "client/session/session.h"
#include "common/base/byteorder.h"
#include "common/base/disk.h"
#include "tests/unit/server/session/world.h"

enum {
    CLIENTS = 4,
    WATCHER = 3,
    STRANGER = 4,
    OPERATOR = 5,
    PARTIES = 6,
    FRAMES_MAX = 4096,
    TRAIN_MS = 2000,
    END_MS = 120000
};
enum what { OPENED, FROM_CLIENT, FROM_SERVER, CLOSED };

static const char magic[8] = "STARCONV";

/* ---- Records ---- */

struct record {
    uint32_t peer, what;
    uint64_t at_ms;
    const uint8_t *bytes;
    uint32_t len;
};

static bool next_record(const uint8_t **at, const uint8_t *end, struct record *out)
{
    if (end - *at < 16) {
        return false;
    }
    *out = (struct record){load_u32(*at), load_u32(*at + 4), load_u32(*at + 8), *at + 16, load_u32(*at + 12)};
    if (out->peer >= PARTIES || out->what > CLOSED || out->len > end - *at - 16) {
        return false;
    }
    *at += 16 + out->len;
    return true;
}

static void put_record(struct buf *out, uint32_t peer, enum what what, uint64_t at_ms, const struct buf *frame)
{
    uint8_t head[16];
    store_u32(head, peer);
    store_u32(head + 4, what);
    store_u32(head + 8, (uint32_t)at_ms);
    store_u32(head + 12, frame ? (uint32_t)frame->len : 0);
    assert_int_equal(buf_append(out, head, sizeof head), 0);
    if (frame) {
        assert_int_equal(buf_append(out, frame->data, frame->len), 0);
    }
}

/* ---- Frames ---- */

static void encode_frame(const struct msg *msg, struct buf *out)
{
    buf_init(out, 8u << 20);
    assert_int_equal(msg_encode(msg, out, NULL), 0);
    assert_int_equal(buf_append(out, msg->raw, msg->raw_len), 0);
}

/* A frame that may come, as its reader's state has it. *decoder is the caller's, and holds what the frame points to. */
static bool read_frame(struct frame_decoder *decoder, const struct frame_limits *limits, const uint8_t *bytes,
                       size_t len, struct frame *out)
{
    frame_decoder_init(decoder, limits);
    for (size_t at = 0; at < len;) {
        size_t part = len - at < FRAME_READ_MAX ? len - at : FRAME_READ_MAX;
        int rc = frame_feed(decoder, bytes + at, part);
        at += part;
        rc = rc ? rc : frame_next(decoder, out, NULL);
        if (rc != 0) {
            return rc == 1 && at == len;
        }
    }
    return false;
}

/* Whole and undamaged, whoever may read it. */
static bool read_frame_of_any(struct frame_decoder *decoder, const uint8_t *bytes, size_t len, struct frame *out)
{
    static struct frame_limits all;
    for (uint32_t type = 1; type < MSG_TYPE_END; type++) {
        all.most[type] = 8u << 20;
    }
    return read_frame(decoder, &all, bytes, len, out);
}

/* ---- What is the same ---- */

static const struct {
    uint8_t type, field;
} free_fields[] = {
    {MSG_HELLO, 3},         /* minor_most */
    {MSG_HELLO, 4},         /* capabilities */
    {MSG_HELLO, 8},         /* software */
    {MSG_WELCOME, 2},       /* capabilities */
    {MSG_REJECT, 2},        /* text */
    {MSG_REJECT, 5},        /* minor_most */
    {MSG_ALIVE, 3},         /* waits_for */
    {MSG_DECLINED, 3},      /* text */
    {MSG_BYE, 2},           /* text */
    {MSG_STATUS_REPLY, 3},  /* software */
    {MSG_STATUS_REPLY, 7},  /* waits_for */
    {MSG_STATUS_REPLY, 13}, /* peak_rss_bytes */
};

static bool is_free(uint8_t type, uint64_t field)
{
    for (size_t i = 0; i < sizeof free_fields / sizeof free_fields[0]; i++) {
        if (free_fields[i].type == type && free_fields[i].field == field) {
            return true;
        }
    }
    return false;
}

struct field {
    uint64_t number, kind;
    const uint8_t *value;
    size_t len;
};

static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            return true;
        }
    }
    return false;
}

static bool read_field(const uint8_t **at, const uint8_t *end, struct field *out)
{
    uint64_t key, len = 0;
    if (!read_varint(at, end, &key) || key >> 3 == 0) {
        return false;
    }
    *out = (struct field){.number = key >> 3, .kind = key & 7, .value = *at};
    if (out->kind == 0) {
        bool whole = read_varint(at, end, &len);
        out->len = (size_t)(*at - out->value);
        return whole;
    }
    if (out->kind == 2 && !read_varint(at, end, &len)) {
        return false;
    }
    len = out->kind == 1 ? 8 : out->kind == 5 ? 4 : len;
    if (out->kind > 2 && out->kind != 5) {
        return false;
    }
    if (len > (uint64_t)(end - *at)) {
        return false;
    }
    out->value = *at;
    out->len = (size_t)len;
    *at += len;
    return true;
}

/* Whether all fields of `old` stand in `new` in their order; a message within a message likewise. type 0: within. */
static bool fields_kept(uint8_t type, const uint8_t *old, size_t old_len, const uint8_t *new, size_t new_len)
{
    const uint8_t *old_end = old + old_len, *new_end = new + new_len;
    struct field was, is;
    while (old < old_end) {
        if (!read_field(&old, old_end, &was)) {
            return false;
        }
        if (is_free(type, was.number)) {
            continue;
        }
        do {
            if (new >= new_end || !read_field(&new, new_end, &is)) {
                return false;
            }
        } while (is.number != was.number);
        bool equal = was.kind == is.kind && was.len == is.len && memcmp(was.value, is.value, was.len) == 0;
        if (!equal &&
            (was.kind != 2 || is.kind != 2 || was.len == 0 || !fields_kept(0, was.value, was.len, is.value, is.len))) {
            return false;
        }
    }
    return true;
}

/* What one side says, in order: what was recorded is compared with what is said now. */
struct track {
    struct record old[FRAMES_MAX];
    struct buf new[FRAMES_MAX];
    uint32_t old_count, new_count;
};

static void add_new(struct track *track, const struct buf *frame)
{
    assert_true(track->new_count < FRAMES_MAX);
    struct buf *copy = &track->new[track->new_count++];
    buf_init(copy, frame->len);
    assert_int_equal(buf_append(copy, frame->data, frame->len), 0);
}

static bool same_frame(const struct record *old, const struct buf *new)
{
    struct frame_decoder a, b;
    struct frame was, is;
    bool same = read_frame_of_any(&a, old->bytes, old->len, &was);
    same = read_frame_of_any(&b, new->data, new->len, &is) && same;
    same = same && was.type == is.type && was.raw_len == is.raw_len &&
           (was.raw_len == 0 || memcmp(was.raw, is.raw, was.raw_len) == 0) &&
           fields_kept(was.type, was.proto, was.proto_len, is.proto, is.proto_len);
    frame_decoder_fini(&a);
    frame_decoder_fini(&b);
    return same;
}

static bool quiet; /* changes are planted: what is noticed is not printed */

static bool same_track(const char *who, uint32_t peer, const struct track *track)
{
    for (uint32_t i = 0; i < track->old_count || i < track->new_count; i++) {
        const char *was = i < track->old_count ? msg_type_name(track->old[i].bytes[5]) : "nothing";
        const char *is = i < track->new_count ? msg_type_name(track->new[i].data[5]) : "nothing";
        if (i >= track->old_count || i >= track->new_count || !same_frame(&track->old[i], &track->new[i])) {
            if (!quiet) {
                (void)fprintf(stderr, "%s, connection %u, frame %u: %s was recorded, %s is said now%s\n", who, peer, i,
                              was, is, strcmp(was, is) == 0 ? ", with other fields" : "");
            }
            return false;
        }
    }
    return true;
}

static void track_fini(struct track *track)
{
    for (uint32_t i = 0; i < track->new_count; i++) {
        buf_fini(&track->new[i]);
    }
    *track = (struct track){0};
}

/* ---- The server ---- */

static struct world w;
static uint64_t idle_ms = IDLE_MS;
static struct track from_server[PARTIES], from_client[PARTIES];

static void server_begin(const struct plan *plan)
{
    world_init(&w);
    if (plan) {
        w.plan = *plan;
    } else {
        w.plan.rounds = 2;
        w.plan.min_clients = 2;
        w.plan.batch = 8;
        w.plan.bn_groups = 2;
        w.plan.model.width = 4;
    }
    w.options.upload_slots = 1;
    w.options.idle_timeout_ms = idle_ms;
    w.now = 0;
    world_start(&w);
}

/* Everything that it said since the last time; `out` NULL: into the tracks. */
static void take_said(struct buf *out, void (*tell)(uint32_t peer, const struct buf *frame))
{
    for (uint32_t peer = 0; peer < PARTIES; peer++) {
        while (w.peers[peer].count > 0) {
            struct msg msg = take_first(&w.peers[peer]);
            struct buf frame;
            encode_frame(&msg, &frame);
            msg_fini(&msg);
            if (out) {
                put_record(out, peer, FROM_SERVER, w.now, &frame);
                tell(peer, &frame);
            } else {
                add_new(&from_server[peer], &frame);
            }
            buf_fini(&frame);
        }
    }
}

static void server_hears(uint32_t peer, const uint8_t *bytes, size_t len)
{
    const struct frame_limits *limits = coordinator_limits(w.c, peer);
    struct frame_decoder decoder;
    struct frame frame;
    struct msg msg;
    if (!w.peers[peer].open) {
        return;
    }
    bool good = read_frame(&decoder, limits ? limits : &msg_limits_server_new, bytes, len, &frame);
    if (good && msg_decode(&frame, MSG_BUDGET_SERVER, &msg, NULL) == 0) {
        say(&w, peer, msg);
        msg_fini(&msg);
    } else {
        lose(&w, peer);
    }
    frame_decoder_fini(&decoder);
}

/* ---- The clients ---- */

struct client {
    uint32_t number;
    struct session *session;
    struct session_actions actions;
    uint64_t now_ms;
    uint64_t ready_ms; /* when what it works on is ready; 0: it works on nothing */
    uint32_t round;
    bool evaluates, connects, closes, exits;
    struct plan plan;
    const struct layout *layout;
    void (*say)(uint32_t peer, const struct buf *frame);
};
static struct client clients[CLIENTS];

static void client_event(struct client *client, struct session_event event);

/* A function of who and when. The second trainer's first contribution is not finite. */
static struct contribution *contribution_of(const struct client *client)
{
    const struct plan *plan = &client->plan;
    uint64_t total = client->layout->total, rows = plan->fusion.upload;
    struct contribution *out = mem_new(1, sizeof *out);
    out->round = client->round;
    out->report = (struct report){.images = 100 + client->number,
                                  .seen = 100 + client->number,
                                  .steps = 12,
                                  .loss = 1.5,
                                  .loss_contrast = 1.25,
                                  .loss_matching = 0.25,
                                  .remote_share = client->round > 1 ? 0.5 : 0,
                                  .images_per_second = 50,
                                  .train_ms = TRAIN_MS,
                                  .aggregate = {true, 0.5, -2, 0.25, 6},
                                  .own = {true, 0.25, -2.5, 0.5, 7}};
    out->update = bytes_new((size_t)total * sizeof(float));
    out->features = bytes_new((size_t)(rows * plan->model.features) * sizeof(float));
    float *update = (float *)(void *)out->update->data, *features = (float *)(void *)out->features->data;
    for (uint64_t i = 0; i < total; i++) {
        update[i] = (float)(i % 17 + client->number) * 0x1p-12f;
    }
    if (client->number == 1 && client->round == 1) {
        update[3] = NAN;
    }
    memset(features, 0, out->features->len);
    for (uint64_t i = 0; i < rows; i++) {
        features[i * plan->model.features + (i + client->number) % plan->model.features] = 1;
    }
    contribution_describe(out, plan, client->layout);
    return out;
}

static void client_act(struct client *client, struct session_action *action)
{
    struct buf frame;
    switch (action->kind) {
    case SESSION_CONNECT:
        client->connects = true;
        break;
    case SESSION_SEND:
        encode_frame(&action->message, &frame);
        client->say(client->number, &frame);
        buf_fini(&frame);
        break;
    case SESSION_CLOSE:
        client->closes = true;
        break;
    case SESSION_PREPARE:
        client->plan = *action->plan;
        client->layout = action->layout;
        client_event(client, (struct session_event){.kind = SESSION_PREPARED, .images = 100 + client->number});
        break;
    case SESSION_TRAIN:
    case SESSION_EVALUATE:
        client->round = action->round;
        client->evaluates = action->kind == SESSION_EVALUATE;
        client->ready_ms = client->now_ms + TRAIN_MS;
        client_event(client, (struct session_event){
                                 .kind = SESSION_PROGRESS, .step = 3, .steps = 12, .loss = 2, .images_per_second = 50});
        break;
    case SESSION_EXIT:
        client->exits = true;
        break;
    default:
        break;
    }
}

static void client_event(struct client *client, struct session_event event)
{
    struct session_actions actions = {0};
    assert_int_equal(session_step(client->session, &event, client->now_ms, &actions), 0);
    for (size_t i = 0; i < actions.count; i++) {
        client_act(client, &actions.items[i]);
    }
    bool drained = actions.count > 0;
    session_actions_clear(&actions);
    session_actions_fini(&actions);
    if (drained && !client->connects && !client->closes && !client->exits) {
        client_event(client, (struct session_event){.kind = SESSION_DRAINED});
    }
}

static void client_begin(uint32_t number, void (*say_it)(uint32_t peer, const struct buf *frame))
{
    static const char *const names[CLIENTS] = {"site-a", "site-b", "site-c", "watcher"};
    struct session_options options = {.role = number == WATCHER ? ROLE_OBSERVER : ROLE_TRAINER, .seed = 1 + number};
    options.instance = hash_of(names[number], strlen(names[number]));
    (void)snprintf(options.name, sizeof options.name, "%s", names[number]);
    clients[number] = (struct client){.number = number, .say = say_it};
    assert_int_equal(session_new(&options, 0, &clients[number].session, NULL), 0);
}

static uint64_t client_next_ms(const struct client *client)
{
    uint64_t next = client->exits ? UINT64_MAX : session_next_ms(client->session);
    return client->ready_ms != 0 && client->ready_ms < next ? client->ready_ms : next;
}

/* Everything of its own that is due up to then. */
static void client_run(struct client *client, uint64_t until_ms)
{
    for (uint32_t i = 0; client_next_ms(client) <= until_ms && i < 1000; i++) {
        uint64_t next = client_next_ms(client);
        client->now_ms = next > client->now_ms ? next : client->now_ms;
        if (client->ready_ms != 0 && client->ready_ms <= client->now_ms) {
            client->ready_ms = 0;
            client_event(client, client->evaluates ? (struct session_event){.kind = SESSION_EVALUATED, .knn_top1 = 0.75}
                                                   : (struct session_event){.kind = SESSION_TRAINED,
                                                                            .contribution = contribution_of(client)});
        } else {
            client_event(client, (struct session_event){.kind = SESSION_TICK});
        }
    }
    client->now_ms = until_ms > client->now_ms ? until_ms : client->now_ms;
}

static void client_connected(struct client *client)
{
    client->connects = false;
    client_event(client, (struct session_event){.kind = SESSION_CONNECTED});
}

static void client_hears(struct client *client, const uint8_t *bytes, size_t len)
{
    struct frame_decoder decoder;
    struct frame frame;
    struct msg msg;
    if (client->exits || client->closes) {
        return;
    }
    if (read_frame(&decoder, session_limits(client->session), bytes, len, &frame) &&
        msg_decode(&frame, MSG_BUDGET_CLIENT, &msg, NULL) == 0) {
        client_event(client, (struct session_event){.kind = SESSION_MESSAGE, .message = &msg});
        msg_fini(&msg);
    }
    frame_decoder_fini(&decoder);
}

static void client_end(struct client *client)
{
    session_free(client->session);
    *client = (struct client){0};
}

/* ---- Recording ---- */

static struct buf recorded;
static struct queued {
    uint32_t peer;
    struct buf frame;
} line[64]; /* of clients' frames on their way */
static uint32_t line_count;

static void line_up(uint32_t peer, const struct buf *frame)
{
    assert_true(line_count < 64);
    line[line_count].peer = peer;
    buf_init(&line[line_count].frame, frame->len);
    assert_int_equal(buf_append(&line[line_count++].frame, frame->data, frame->len), 0);
}

static void deliver_recorded(uint32_t peer, const struct buf *frame)
{
    if (peer < CLIENTS) {
        client_run(&clients[peer], w.now); /* its own first, as in a replay */
        client_hears(&clients[peer], frame->data, frame->len);
    }
}

/* Until nobody has anything to say at this moment. */
static void talk(void)
{
    do {
        take_said(&recorded, deliver_recorded);
        while (line_count > 0) {
            struct queued first = line[0];
            memmove(line, line + 1, --line_count * sizeof *line);
            put_record(&recorded, first.peer, FROM_CLIENT, w.now, &first.frame);
            server_hears(first.peer, first.frame.data, first.frame.len);
            buf_fini(&first.frame);
            take_said(&recorded, deliver_recorded);
        }
        for (uint32_t i = 0; i < CLIENTS; i++) {
            if (clients[i].connects) {
                put_record(&recorded, i, OPENED, w.now, NULL);
                open_peer(&w, i);
                client_connected(&clients[i]);
            }
            if (clients[i].closes && w.peers[i].open) {
                put_record(&recorded, i, CLOSED, w.now, NULL);
                lose(&w, i);
            }
        }
    } while (line_count > 0);
}

static void say_scripted(uint32_t peer, struct msg msg)
{
    struct buf frame;
    encode_frame(&msg, &frame);
    line_up(peer, &frame);
    buf_fini(&frame);
    talk();
}

static void open_scripted(uint32_t peer, uint32_t role, const char *name)
{
    struct msg hello = {.type = MSG_HELLO};
    hello.hello = (struct msg_hello){.major = FRAME_VERSION,
                                     .minor_least = PROTOCOL_MINOR_LEAST,
                                     .minor_most = PROTOCOL_MINOR_MOST,
                                     .role = role,
                                     .instance = hash_of("another", 7)};
    (void)snprintf(hello.hello.name, sizeof hello.hello.name, "%s", name);
    put_record(&recorded, peer, OPENED, w.now, NULL);
    open_peer(&w, peer);
    say_scripted(peer, hello);
}

static void record(void)
{
    bool stranger_came = false;
    buf_init(&recorded, 64u << 20);
    assert_int_equal(buf_append(&recorded, magic, sizeof magic), 0);
    server_begin(NULL);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_begin(i, line_up);
    }
    while (w.now < END_MS) {
        uint64_t next = coordinator_next_ms(w.c);
        bool over = true;
        for (uint32_t i = 0; i < CLIENTS; i++) {
            uint64_t own = client_next_ms(&clients[i]);
            next = own < next ? own : next;
            over = over && clients[i].exits;
        }
        if (over) {
            break;
        }
        advance_to(&w, next > w.now ? next : w.now);
        for (uint32_t i = 0; i < CLIENTS; i++) {
            client_run(&clients[i], w.now);
        }
        talk();
        if (!stranger_came && coordinator_round(w.c) == 1) {
            stranger_came = true;
            open_scripted(STRANGER, ROLE_TRAINER, "site-a");
        }
    }
    open_scripted(OPERATOR, ROLE_OPERATOR, "");
    say_scripted(OPERATOR, (struct msg){.type = MSG_STATUS, .status = {.history = 10}});
    say_scripted(OPERATOR, (struct msg){.type = MSG_BYE});
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_end(&clients[i]);
    }
    world_fini(&w);
}

/* ---- Replaying ---- */

static void collect(uint32_t peer, const struct buf *frame)
{
    add_new(&from_client[peer], frame);
}

static void replay_server(const struct record *r)
{
    if (r->what == FROM_SERVER) {
        return;
    }
    if (r->at_ms > w.now && r->at_ms <= END_MS) {
        advance_to(&w, r->at_ms);
    }
    if (r->what == OPENED && !w.peers[r->peer].open) {
        open_peer(&w, r->peer);
    } else if (r->what == FROM_CLIENT) {
        server_hears(r->peer, r->bytes, r->len);
    } else if (r->what == CLOSED && w.peers[r->peer].open) {
        lose(&w, r->peer);
    }
    take_said(NULL, NULL);
}

static void replay_client(const struct record *r)
{
    if (r->peer >= CLIENTS) {
        return;
    }
    struct client *client = &clients[r->peer];
    if (r->at_ms <= END_MS) {
        client_run(client, r->at_ms);
    }
    if (r->what == OPENED && client->connects) {
        client_connected(client);
    } else if (r->what == FROM_SERVER) {
        client_hears(client, r->bytes, r->len);
    }
}

/* The plan that the server had: its defaults may be others by now. */
static bool recorded_plan(const uint8_t *at, const uint8_t *end, struct plan *out)
{
    struct record r;
    struct frame_decoder decoder;
    struct frame frame;
    struct msg msg = {0};
    bool found = false;
    while (!found && next_record(&at, end, &r)) {
        if (r.what == FROM_SERVER && read_frame_of_any(&decoder, r.bytes, r.len, &frame)) {
            found = frame.type == MSG_WELCOME && msg_decode(&frame, MSG_BUDGET_CLIENT, &msg, NULL) == 0;
        }
        if (r.what == FROM_SERVER) {
            frame_decoder_fini(&decoder);
        }
    }
    found = found && plan_decode(msg.welcome.plan, msg.welcome.plan_len, out, NULL) == 0;
    msg_fini(&msg);
    return found;
}

static bool replay(const uint8_t *bytes, size_t len)
{
    const uint8_t *at = bytes + sizeof magic, *end = bytes + len;
    bool whole = len > sizeof magic && memcmp(bytes, magic, sizeof magic) == 0, same = true;
    struct record r;
    struct plan plan;
    if (!whole || !recorded_plan(at, end, &plan)) {
        if (!quiet) {
            (void)fprintf(stderr, "no conversation, or none whose plan can be read\n");
        }
        return false;
    }
    server_begin(&plan);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_begin(i, collect);
    }
    while (whole && at < end) {
        whole = next_record(&at, end, &r);
        if (!whole) {
            break;
        }
        if (r.what == FROM_CLIENT || r.what == FROM_SERVER) {
            struct track *track = r.what == FROM_CLIENT ? &from_client[r.peer] : &from_server[r.peer];
            assert_true(track->old_count < FRAMES_MAX);
            track->old[track->old_count++] = r;
            struct frame_decoder decoder;
            struct frame frame;
            whole = read_frame_of_any(&decoder, r.bytes, r.len, &frame);
            frame_decoder_fini(&decoder);
            if (!whole && !quiet) {
                (void)fprintf(stderr, "a frame of connection %u is damaged\n", r.peer);
            }
        }
        replay_server(&r);
        replay_client(&r);
    }
    for (uint32_t peer = 0; peer < PARTIES; peer++) {
        same = same && same_track("the server", peer, &from_server[peer]);
        if (peer < CLIENTS) { /* the others are scripts */
            same = same && same_track("the client", peer, &from_client[peer]);
            client_end(&clients[peer]);
        }
    }
    for (uint32_t peer = 0; peer < PARTIES; peer++) {
        track_fini(&from_server[peer]);
        track_fini(&from_client[peer]);
    }
    world_fini(&w);
    return whole && same;
}

/* ---- Planted changes ---- */

/* One bit of the frame at `at`; mended: in the last byte of its protobuf part, and the checksum agrees. */
static void change(uint8_t *frame, uint32_t len, uint32_t at, bool mended)
{
    if (!mended) {
        frame[at % len] ^= 1;
        return;
    }
    frame[FRAME_HEADER_BYTES + load_u32(frame + 8) - 1] ^= 1;
    uint32_t crc = crc32c(0, frame, 12);
    store_u32(frame + 12, crc32c(crc, frame + FRAME_HEADER_BYTES, load_u32(frame)));
}

/* Whether its last field may change. */
static bool ends_free(const uint8_t *frame)
{
    const uint8_t *at = frame + FRAME_HEADER_BYTES, *end = at + load_u32(frame + 8);
    struct field last = {0};
    while (at < end && read_field(&at, end, &last)) {
    }
    return is_free(frame[5], last.number);
}

/* A field more is the same conversation, a field less is not. */
static bool judges_fields(const uint8_t *frame)
{
    static const uint8_t field_1000[] = {0xc0, 0x3e, 0x01};
    struct buf more;
    uint32_t len = load_u32(frame + 8);
    buf_init(&more, 8u << 20);
    assert_int_equal(buf_append(&more, frame + FRAME_HEADER_BYTES, len), 0);
    assert_int_equal(buf_append(&more, field_1000, sizeof field_1000), 0);
    bool good = fields_kept(frame[5], more.data, len, more.data, more.len) &&
                !fields_kept(frame[5], more.data, more.len, more.data, len);
    buf_fini(&more);
    return good;
}

static int plant(uint8_t *bytes, size_t len)
{
    uint32_t planted = 0, missed = 0, number = 0;
    const uint8_t *at = bytes + sizeof magic;
    struct record r;
    quiet = true;
    idle_ms = IDLE_MS + 1000;
    planted++;
    missed += replay(bytes, len); /* another server */
    idle_ms = IDLE_MS;
    while (next_record(&at, bytes + len, &r)) {
        if (r.what != FROM_CLIENT && r.what != FROM_SERVER) {
            continue;
        }
        uint8_t *frame = bytes + (r.bytes - bytes);
        missed += !judges_fields(frame);
        bool compared = r.what == FROM_SERVER || r.peer < CLIENTS;
        for (int mended = 0; mended <= (compared && load_u32(frame + 8) > 0 && !ends_free(frame)); mended++) {
            uint32_t where = number++ * 7919;
            change(frame, r.len, where, mended);
            planted++;
            if (replay(bytes, len)) {
                missed++;
                (void)fprintf(stderr, "not noticed: byte %u of %s, connection %u%s\n", where % r.len,
                              msg_type_name(frame[5]), r.peer, mended ? ", mended" : "");
            }
            change(frame, r.len, where, mended);
        }
    }
    quiet = false;
    printf("%u changes planted, %u not noticed\n", planted, missed);
    return missed > 0 || planted < 50;
}

int main(int argc, char **argv)
{
    struct err err;
    uint8_t *bytes;
    size_t len;
    bool records = argc == 3 && strcmp(argv[1], "--record") == 0;
    bool plants = argc == 3 && strcmp(argv[1], "--planted") == 0;
    if (argc != 2 && !records && !plants) {
        (void)fprintf(stderr, "usage: recorded [--planted | --record] FILE\n");
        return 64;
    }
    if (records) {
        record();
        const struct span all = {recorded.data, recorded.len};
        int failed = disk_save(&disk_posix, argv[2], &all, 1, &err);
        buf_fini(&recorded);
        if (failed) {
            (void)fprintf(stderr, "%s\n", err.text);
            return 73;
        }
    }
    if (disk_load(&disk_posix, argv[argc - 1], 64u << 20, &bytes, &len, &err) != 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 74;
    }
    int rc = replay(bytes, len) ? 0 : 1;
    if (rc == 0 && plants) {
        rc = plant(bytes, len);
    }
    mem_free(bytes);
    return rc;
}
