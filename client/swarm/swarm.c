/* The swarm's table of the conversation and the one dispatch; greeting.c, fetch.c and offer.c are its parts. */
#include "client/swarm/state.h"

#include "common/base/hash.h"
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BIT(type) (UINT32_C(1) << (type))
#define ANY_TIME  (BIT(MSG_REJECT) | BIT(MSG_ALIVE) | BIT(MSG_ROUND_END) | BIT(MSG_BYE))
#define ANSWERS   (BIT(MSG_GRANT) | BIT(MSG_QUEUED) | BIT(MSG_ACCEPTED) | BIT(MSG_DECLINED))
#define GREETING  (BIT(MSG_WELCOME) | BIT(MSG_REJECT) | BIT(MSG_BYE))

static const struct {
    const char *name;
    uint32_t expected; /* bits of enum msg_type; anything else is a protocol error */
} table[MEMBER_STATES] = {
    [MEMBER_AWAY] = {"AWAY", 0},
    [MEMBER_GREETING] = {"GREETING", GREETING},
    [MEMBER_GREETED] = {"GREETED", ANY_TIME},
    [MEMBER_READY] = {"READY", ANY_TIME | BIT(MSG_ROUND) | BIT(MSG_AGGREGATE)},
    [MEMBER_IN_LINE] = {"IN_LINE", ANY_TIME | BIT(MSG_ROUND)},
    [MEMBER_FETCHING] = {"FETCHING", ANY_TIME | BIT(MSG_ROUND) | BIT(MSG_CHUNK)},
    [MEMBER_OFFERING] = {"OFFERING", ANY_TIME | BIT(MSG_ROUND) | ANSWERS},
    [MEMBER_UPLOADING] = {"UPLOADING", ANY_TIME | BIT(MSG_ROUND) | ANSWERS},
    [MEMBER_DELIVERED] = {"DELIVERED", ANY_TIME | BIT(MSG_ROUND)},
};

void swarm_say(struct swarm *swarm, uint32_t client, struct msg msg)
{
    swarm->options.send(swarm->options.ctx, client, &msg);
    msg_fini(&msg);
}

int swarm_fail(const struct swarm *swarm, uint32_t client, struct err *err, int code, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return err_set(err, code, "%s-%u: %s", swarm->options.name, client, text);
}

struct swarm_round *swarm_round_of(struct swarm *swarm, uint32_t round)
{
    return swarm->rounds && round >= swarm->first && round <= swarm->last ? &swarm->rounds[round - swarm->first] : NULL;
}

static struct frame_limits limits_of(uint32_t types)
{
    struct frame_limits limits = msg_limits_client;
    for (uint32_t type = 0; type < FRAME_TYPES; type++) {
        limits.most[type] = types & BIT(type) ? limits.most[type] : 0;
    }
    return limits;
}

int swarm_new(const struct swarm_options *options, struct swarm **out)
{
    struct swarm *swarm = *out = mem_new(1, sizeof *swarm);
    if (!swarm) {
        return ERR_NOMEM;
    }
    size_t members = (size_t)options->clients + 1;
    swarm->options = *options;
    swarm->greeting_limits = limits_of(GREETING);
    swarm->talking_limits = limits_of(ANY_TIME | ANSWERS | BIT(MSG_ROUND) | BIT(MSG_CHUNK) | BIT(MSG_AGGREGATE));
    swarm->fetching_limits = swarm->talking_limits;
    swarm->talking_limits.chunks_end = true; /* thousands of clients must not hold a chunk's memory each */
    swarm->members = mem_new(members, sizeof *swarm->members);
    swarm->line = mem_new(members, sizeof *swarm->line);
    if (!swarm->members || !swarm->line) {
        swarm_free(swarm);
        *out = NULL;
        return ERR_NOMEM;
    }
    return 0;
}

void swarm_free(struct swarm *swarm)
{
    if (!swarm) {
        return;
    }
    for (uint32_t i = 0; swarm->members && i <= swarm->options.clients; i++) {
        hash_stream_free(swarm->members[i].hash);
    }
    mem_free(swarm->members);
    mem_free(swarm->line);
    mem_free(swarm->rounds);
    mem_free(swarm->kept);
    chain_fini(&swarm->chain);
    stream_fini(&swarm->stream);
    layout_free(swarm->layout);
    mem_free(swarm);
}

int swarm_connected(struct swarm *swarm, uint32_t client, uint64_t now_us, struct err *err)
{
    const struct swarm_options *options = &swarm->options;
    struct msg msg = {.type = MSG_HELLO};
    struct msg_hello *hello = &msg.hello;
    swarm->now_us = now_us;
    hello->major = FRAME_VERSION;
    hello->minor_least = PROTOCOL_MINOR_LEAST;
    hello->minor_most = PROTOCOL_MINOR_MOST;
    hello->capabilities = CAPABILITIES_OURS;
    hello->role = client == options->clients ? ROLE_OBSERVER : ROLE_TRAINER;
    hello->instance = options->instance;
    (void)snprintf(hello->name, sizeof hello->name, "%s-%u", options->name, client);
    (void)snprintf(hello->software, sizeof hello->software, "starling " STARLING_VERSION);
    if (!name_is_valid(hello->name)) {
        return err_set(err, ERR_USAGE, "--name: a client's name is of A-Z a-z 0-9 . _ -");
    }
    swarm->members[client].state = MEMBER_GREETING;
    swarm_say(swarm, client, msg);
    return 0;
}

static int on_queued(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    struct member *member = &swarm->members[client];
    if (msg->queued.round != member->open.round) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL, "QUEUED for round %u, which was not offered",
                          msg->queued.round);
    }
    swarm->uploading -= member->upload != 0; /* a slot was taken away again */
    member->state = MEMBER_OFFERING;
    member->upload = 0;
    return 0;
}

static int handle(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    switch (msg->type) {
    case MSG_WELCOME:
        return swarm_on_welcome(swarm, client, msg, err);
    case MSG_REJECT:
        return swarm_on_reject(swarm, client, msg, err);
    case MSG_ROUND:
        return swarm_on_round(swarm, client, msg, err);
    case MSG_AGGREGATE:
        return swarm_on_aggregate(swarm, client, msg, err);
    case MSG_CHUNK:
        return swarm_on_chunk(swarm, client, msg, err);
    case MSG_ALIVE: /* that it came is its meaning */
        swarm->beats++;
        return 0;
    case MSG_GRANT:
        return swarm_on_grant(swarm, client, msg, err);
    case MSG_QUEUED:
        return on_queued(swarm, client, msg, err);
    case MSG_ACCEPTED:
        return swarm_on_accepted(swarm, client, msg, err);
    case MSG_DECLINED:
        return swarm_on_declined(swarm, client, msg, err);
    case MSG_ROUND_END:
        return swarm_on_round_end(swarm, client, msg, err);
    default:
        return swarm_fail(swarm, client, err, ERR_UNAVAILABLE, "the server said goodbye: %s", msg->bye.text);
    }
}

int swarm_message(struct swarm *swarm, uint32_t client, const struct msg *msg, uint64_t now_us, struct err *err)
{
    struct member *member = &swarm->members[client];
    uint32_t round = msg_answer_round(msg);
    swarm->now_us = now_us;
    if (swarm->phase != SWARM_RUNNING && client < swarm->options.clients) {
        return 0; /* it has nothing more to do here */
    }
    if (member->state > MEMBER_GREETING && round != 0 && round <= member->ended_round) {
        return 0; /* has crossed the end of its round */
    }
    if (msg->type >= MSG_TYPE_END || !(table[member->state].expected & BIT(msg->type))) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL, "the server sent %s to a client that is %s",
                          msg_type_name(msg->type), table[member->state].name);
    }
    int rc = handle(swarm, client, msg, err);
    rc = rc ? rc : swarm_settle(swarm, err);
    return rc ? rc : swarm_go_on(swarm, err);
}

void swarm_beat(struct swarm *swarm, uint64_t now_us)
{
    for (uint32_t i = 0; i <= swarm->options.clients; i++) {
        struct member *member = &swarm->members[i];
        if (member->state >= MEMBER_GREETED && now_us >= member->beat_us) {
            member->beat_us = now_us + swarm->idle_timeout_ms * 1000 / 4;
            swarm_say(swarm, i, (struct msg){.type = MSG_PROGRESS});
        }
    }
}

/* ---- Asking ---- */

enum swarm_phase swarm_phase(const struct swarm *swarm)
{
    return swarm->phase;
}

uint32_t swarm_welcomed(const struct swarm *swarm)
{
    return swarm->welcomed;
}

uint64_t swarm_idle_timeout_ms(const struct swarm *swarm)
{
    return swarm->idle_timeout_ms;
}

const struct plan *swarm_plan(const struct swarm *swarm)
{
    return swarm->layout ? &swarm->plan : NULL;
}

const struct layout *swarm_layout(const struct swarm *swarm)
{
    return swarm->layout;
}

uint32_t swarm_compared(const struct swarm *swarm)
{
    return swarm->compared;
}

uint64_t swarm_beats(const struct swarm *swarm)
{
    return swarm->beats;
}

const struct swarm_round *swarm_rounds(const struct swarm *swarm, uint32_t *count)
{
    *count = swarm->closed;
    return swarm->rounds;
}

const struct frame_limits *swarm_limits(const struct swarm *swarm, uint32_t client)
{
    enum member_state state = swarm->members[client].state;
    return state <= MEMBER_GREETING   ? &swarm->greeting_limits
           : state == MEMBER_FETCHING ? &swarm->fetching_limits
                                      : &swarm->talking_limits;
}
