/* Connections. What is sent is a real frame in a buffer; pieces of any size arrive later, in order, at the receiver's
 * frame decoder. A connection can be cut at any byte, with or without anybody being told. */
#include "tests/sim/world.h"

#define OUT_MAX ((size_t)16 << 20)

static uint32_t who_of(const struct link *link, uint32_t side)
{
    return side == SIDE_SERVER ? (uint32_t)WHO_SERVER : WHO_CLIENT + link->client;
}

static void link_schedule(struct world *world, uint32_t index, uint32_t side, uint64_t in_ms, enum happening kind,
                          int code)
{
    struct link *link = &world->links[index];
    uint32_t who = who_of(link, kind == HAPPEN_DELIVER ? 1 - side : side);
    schedule(
        world, in_ms,
        (struct entry){.kind = kind, .who = who, .link = index, .link_epoch = link->epoch, .side = side, .code = code});
}

static uint32_t latency_ms(struct world *world, const struct link *link)
{
    return link->slow               ? between(world, 200, 1200)
           : chance(world, 50) == 0 ? between(world, 200, 1000)
                                    : between(world, 1, 30);
}

static void free_if_done(struct world *world, uint32_t index)
{
    struct link *link = &world->links[index];
    if (!link->used || link->ends[0].open || link->ends[1].open) {
        return;
    }
    for (int side = 0; side < 2; side++) {
        frame_decoder_fini(&link->ends[side].decoder);
        buf_fini(&link->ends[side].out);
    }
    if (world->clients[link->client].link == index) {
        world->clients[link->client].link = LINKS_MAX;
    }
    link->used = false;
    link->epoch++;
}

uint32_t net_connect(struct world *world, uint32_t client)
{
    uint32_t index = 0;
    while (index < LINKS_MAX && world->links[index].used) {
        index++;
    }
    if (index == LINKS_MAX) {
        violate(world, "more than %d connections", LINKS_MAX);
        return LINKS_MAX;
    }
    struct link *link = &world->links[index];
    uint32_t epoch = link->epoch;
    *link = (struct link){.used = true, .epoch = epoch, .client = client};
    bool straggles = world->scenario.straggler && client + 1 == world->scenario.clients;
    link->slow = world->now_ms < world->faults_end_ms && chance(world, straggles ? 2 : 10) == 0;
    link->disturbed = link->slow || world->clients[client].process.paused || world->server.process.paused;
    for (int side = 0; side < 2; side++) {
        frame_decoder_init(&link->ends[side].decoder,
                           side == SIDE_SERVER ? &msg_limits_server_new : &msg_limits_client);
        buf_init(&link->ends[side].out, OUT_MAX);
    }
    link->ends[SIDE_CLIENT].open = true;
    schedule(world, latency_ms(world, link),
             (struct entry){.kind = HAPPEN_CONNECT, .link = index, .link_epoch = epoch, .who = WHO_WORLD});
    return index;
}

static void end_stream(struct world *world, uint32_t index, uint32_t side, int code)
{
    struct end *end = &world->links[index].ends[side];
    if (end->ends) {
        return;
    }
    end->ends = true;
    end->end_code = code;
    if (!end->moving) {
        end->moving = true;
        link_schedule(world, index, side, latency_ms(world, &world->links[index]), HAPPEN_DELIVER, 0);
    }
}

void net_send(struct world *world, uint32_t index, uint32_t side, struct msg *msg)
{
    struct link *link = &world->links[index];
    struct end *end = &link->ends[side];
    struct err err = {0};
    if (!link->used || !end->open || end->closing || end->mute || end->ends || link->dead) {
        return;
    }
    if (msg_encode(msg, &end->out, &err) != 0 || (msg->raw_len && buf_append(&end->out, msg->raw, msg->raw_len) != 0)) {
        violate(world, "a %s cannot be encoded: %s", msg_type_name(msg->type), err.text);
        return;
    }
    if (!end->moving) {
        end->moving = true;
        link_schedule(world, index, side, latency_ms(world, &world->links[index]), HAPPEN_DELIVER, 0);
    }
}

void net_close(struct world *world, uint32_t index, uint32_t side)
{
    struct link *link = &world->links[index];
    if (!link->used || !link->ends[side].open || link->ends[side].closing) {
        return;
    }
    link->ends[side].closing = true;
    end_stream(world, index, side, 0);
    link_schedule(world, index, side, between(world, 1, IDLE_MS / 12), HAPPEN_CLOSED, 0);
}

void net_cut(struct world *world, uint32_t index, bool silently)
{
    struct link *link = &world->links[index];
    link->disturbed = true;
    for (uint32_t side = 0; side < 2; side++) {
        struct end *end = &link->ends[side];
        end->out.len = end->out.len ? chance(world, (uint32_t)end->out.len + 1) : 0;
        end->mute = true; /* Whoever is not told finds out by the silence. */
        if (!silently && chance(world, 5) != 0) {
            end_stream(world, index, side, ERR_TEMPFAIL);
        }
    }
    link->dead = silently;
}

void net_disturb(struct world *world, uint32_t who)
{
    for (uint32_t index = 0; index < LINKS_MAX; index++) {
        struct link *link = &world->links[index];
        link->disturbed |= link->used && (who_of(link, SIDE_CLIENT) == who || who_of(link, SIDE_SERVER) == who);
    }
}

/* A process has died: its ends are gone. Silently: with the machine, so that nobody sends a reset. */
void net_process_gone(struct world *world, uint32_t who, bool silently)
{
    for (uint32_t index = 0; index < LINKS_MAX; index++) {
        struct link *link = &world->links[index];
        for (uint32_t side = 0; side < 2 && link->used; side++) {
            if (who_of(link, side) != who || !link->ends[side].open) {
                continue;
            }
            struct end *end = &link->ends[side];
            link->disturbed = true;
            end->open = false;
            end->out.len = end->out.len ? chance(world, (uint32_t)end->out.len + 1) : 0;
            if (silently) {
                link->dead = true;
            } else {
                end_stream(world, index, side, ERR_TEMPFAIL);
            }
            free_if_done(world, index);
        }
    }
}

/* ---- what happens ---- */

static void tell(struct world *world, uint32_t index, uint32_t side, enum happening kind, const struct msg *msg,
                 const struct err *reason)
{
    struct link *link = &world->links[index];
    if (side == SIDE_SERVER) {
        enum event_kind event = kind == HAPPEN_SERVER_OPENED ? EVENT_PEER_OPENED
                                : kind == HAPPEN_DELIVER     ? EVENT_PEER_MESSAGE
                                : kind == HAPPEN_DRAINED     ? EVENT_PEER_DRAINED
                                                             : EVENT_PEER_CLOSED;
        server_event(world,
                     &(struct event){.kind = event, .peer = index, .address = "sim", .message = msg, .reason = reason});
        if (link->used && world->server.process.up) {
            frame_decoder_limit(&link->ends[side].decoder, coordinator_limits(world->server.coordinator, index));
        }
        return;
    }
    struct client *client = &world->clients[link->client];
    enum session_event_kind event = kind == HAPPEN_CLIENT_CONNECTED ? SESSION_CONNECTED
                                    : kind == HAPPEN_DELIVER        ? SESSION_MESSAGE
                                    : kind == HAPPEN_DRAINED        ? SESSION_DRAINED
                                                                    : SESSION_CLOSED;
    client_event(world, client, &(struct session_event){.kind = event, .message = msg, .reason = reason});
    if (link->used && client->process.up) {
        frame_decoder_limit(&link->ends[side].decoder, session_limits(client->session));
    }
}

static void close_end(struct world *world, uint32_t index, uint32_t side, const struct err *reason)
{
    struct link *link = &world->links[index];
    if (!link->ends[side].open) {
        return;
    }
    link->ends[side].open = false;
    if (side == SIDE_CLIENT && world->clients[link->client].link == index) {
        world->clients[link->client].link = LINKS_MAX;
    }
    end_stream(world, index, side, ERR_TEMPFAIL);
    tell(world, index, side, HAPPEN_CLOSED, NULL, reason);
    free_if_done(world, index);
}

static void fail_end(struct world *world, uint32_t index, uint32_t side, int code, const char *text)
{
    struct err err;
    (void)err_set(&err, code, "%s", text);
    close_end(world, index, side, &err);
}

/* Whole frames in what has arrived, one by one; any of them may end the connection. */
static void read_frames(struct world *world, uint32_t index, uint32_t side)
{
    struct link *link = &world->links[index];
    uint32_t epoch = link->epoch;
    struct frame frame;
    struct err err = {0};
    int rc = 0;
    while (!world->violation[0] && link->used && link->epoch == epoch && link->ends[side].open &&
           !link->ends[side].closing && (rc = frame_next(&link->ends[side].decoder, &frame, &err)) == 1) {
        struct msg msg;
        rc = msg_decode(&frame, side == SIDE_SERVER ? MSG_BUDGET_SERVER : MSG_BUDGET_CLIENT, &msg, &err);
        if (rc < 0) {
            break;
        }
        say(world, world->clients[link->client].name, "%s %s", side == SIDE_SERVER ? "->" : "<-",
            msg_type_name(msg.type));
        tell(world, index, side, HAPPEN_DELIVER, &msg, NULL);
        msg_fini(&msg);
    }
    if (rc < 0) {
        /* Real peers never send what the other may not read. */
        violate(world, "%s reads what it may not: %s", side == SIDE_SERVER ? "the server" : "a client", err.text);
    }
}

static void deliver(struct world *world, uint32_t index, uint32_t from)
{
    struct link *link = &world->links[index];
    struct end *end = &link->ends[from];
    uint32_t to = 1 - from, epoch = link->epoch;
    end->moving = false;
    if (link->dead) {
        end->out.len = 0;
        return;
    }
    size_t len = end->out.len < FRAME_READ_MAX ? end->out.len : FRAME_READ_MAX;
    if (len > 1 && (link->slow || chance(world, 3) == 0)) {
        len = 1 + chance(world, (uint32_t)len);
    }
    uint8_t piece[FRAME_READ_MAX];
    for (size_t i = 0; i < len; i++) {
        piece[i] = end->out.data[i];
    }
    buf_consume(&end->out, len);
    bool last = end->out.len == 0;
    if (link->ends[to].open && !link->ends[to].closing && len > 0) {
        link->ends[to].heard_ms = world->now_ms;
        if (frame_feed(&link->ends[to].decoder, piece, len) != 0) {
            violate(world, "the decoder takes no more bytes");
        }
        read_frames(world, index, to);
        if (!link->used || link->epoch != epoch) {
            return;
        }
    }
    if (!last || (end->out.len > 0 && !end->moving)) {
        end->moving = true;
        link_schedule(world, index, from, !link->slow && chance(world, 4) ? 0 : latency_ms(world, link), HAPPEN_DELIVER,
                      0);
    } else if (end->ends && !end->moving) {
        fail_end(world, index, to, end->end_code ? end->end_code : 0,
                 end->end_code ? "the connection broke" : "closed by the peer");
    } else if (end->open && !end->closing && len > 0) {
        link_schedule(world, index, from, 0, HAPPEN_DRAINED, 0);
    }
}

static void arrive(struct world *world, uint32_t index)
{
    struct link *link = &world->links[index];
    struct server *server = &world->server;
    if (!link->ends[SIDE_CLIENT].open || link->ends[SIDE_CLIENT].closing) {
        return;
    }
    if (!server->process.up || world->now_ms < server->refuses_until_ms) {
        sight(world, "refused");
        link_schedule(world, index, SIDE_CLIENT, latency_ms(world, link), HAPPEN_CLOSED, ERR_UNAVAILABLE);
        return;
    }
    link->ends[SIDE_SERVER].open = true;
    link->ends[SIDE_SERVER].heard_ms = world->now_ms;
    link_schedule(world, index, SIDE_SERVER, 0, HAPPEN_SERVER_OPENED, 0);
    link_schedule(world, index, SIDE_CLIENT, latency_ms(world, link), HAPPEN_CLIENT_CONNECTED, 0);
}

void net_happens(struct world *world, const struct entry *entry)
{
    struct link *link = &world->links[entry->link];
    if (!link->used || link->epoch != entry->link_epoch) {
        return;
    }
    struct end *end = &link->ends[entry->side];
    switch (entry->kind) {
    case HAPPEN_CONNECT:
        arrive(world, entry->link);
        break;
    case HAPPEN_DELIVER:
        deliver(world, entry->link, entry->side);
        break;
    case HAPPEN_CLOSED:
        fail_end(world, entry->link, entry->side, entry->code, entry->code ? "refused" : "closed");
        break;
    default: /* OPENED, CONNECTED, DRAINED */
        if (end->open && !end->closing) {
            tell(world, entry->link, entry->side, entry->kind, NULL, NULL);
        }
        break;
    }
}

uint64_t net_next_ms(const struct world *world)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < LINKS_MAX && world->server.process.up && !world->server.process.paused; i++) {
        const struct end *end = &world->links[i].ends[SIDE_SERVER];
        if (world->links[i].used && end->open && !end->closing && end->heard_ms + IDLE_MS < next) {
            next = end->heard_ms + IDLE_MS;
        }
    }
    return next;
}

void net_check_idle(struct world *world)
{
    while (net_next_ms(world) <= world->now_ms && !world->violation[0]) {
        for (uint32_t i = 0; i < LINKS_MAX; i++) {
            struct end *end = &world->links[i].ends[SIDE_SERVER];
            if (world->links[i].used && end->open && !end->closing && end->heard_ms + IDLE_MS <= world->now_ms) {
                sight(world, "silent_for_idle_timeout");
                check_silence(world, i, "the server");
                fail_end(world, i, SIDE_SERVER, ERR_TEMPFAIL, "nothing came for idle_timeout");
            }
        }
    }
}

void net_free(struct world *world)
{
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        world->links[i].ends[0].open = world->links[i].ends[1].open = false;
        free_if_done(world, i);
    }
}
