/* Actions: how they are collected, and the messages that more than one file sends. */
#include "common/base/mem.h"
#include "server/session/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAME_FIELD_MAX (NAME_MAX_BYTES + sizeof "name= ")

void actions_clear(struct actions *actions)
{
    for (size_t i = 0; i < actions->count; i++) {
        if (actions->items[i].kind == ACTION_SEND) {
            msg_fini(&actions->items[i].message);
        }
    }
    actions->count = 0;
}

void actions_fini(struct actions *actions)
{
    actions_clear(actions);
    mem_free(actions->items);
    memset(actions, 0, sizeof *actions);
}

/* NULL when out of memory. */
static struct action *emit(struct coordinator *c, enum action_kind kind, uint32_t peer)
{
    struct actions *out = c->out;
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? 2 * out->capacity : 16;
        struct action *items = mem_resize(out->items, capacity, sizeof *items);
        if (!items) {
            c->nomem = true;
            return NULL;
        }
        out->items = items;
        out->capacity = capacity;
    }
    struct action *action = &out->items[out->count++];
    memset(action, 0, sizeof *action);
    action->kind = kind;
    action->peer = peer;
    return action;
}

void peer_doom(struct coordinator *c, struct peer *peer)
{
    if (!peer->doomed && peer->state != PEER_CLOSING) {
        peer->doomed = true;
        c->doomed++;
    }
}

/* How many messages an honest client sends for one of ours: two FETCHes, the same again for damaged downloads, OFFER,
 * and the chunks at the ends of its blobs. A GRANT pays for nothing, or OFFERs would pay for themselves. */
static uint64_t asked_for(uint8_t type)
{
    return type == MSG_ROUND || type == MSG_AGGREGATE ? 16 : 0;
}

void peer_send(struct coordinator *c, struct peer *peer, struct msg *msg)
{
    struct action *action = peer->doomed || peer->state == PEER_CLOSING ? NULL : emit(c, ACTION_SEND, peer->number);
    if (!action) {
        msg_fini(msg);
        peer_doom(c, peer);
        return;
    }
    messages_pay(peer, asked_for(msg->type));
    action->message = *msg;
    memset(msg, 0, sizeof *msg);
}

void peer_pause(struct coordinator *c, const struct peer *peer, uint64_t pause_ms)
{
    struct action *action = emit(c, ACTION_PAUSE, peer->number);
    if (action) { /* else it is not slowed, this once */
        action->pause_ms = pause_ms;
    }
}

bool peer_drop(struct coordinator *c, const struct peer *peer)
{
    return emit(c, ACTION_DROP, peer->number) != NULL;
}

bool peer_shake(struct coordinator *c, const struct peer *peer)
{
    return emit(c, ACTION_SHAKE, peer->number) != NULL;
}

/* "name=site-a ", or nothing: a stranger has none. */
static const char *name_field(const struct coordinator *c, const struct peer *peer, char out[NAME_FIELD_MAX])
{
    const char *name = peer->member == NONE ? peer->name : c->members[peer->member].name;
    (void)snprintf(out, NAME_FIELD_MAX, name[0] ? "name=%s " : "%s", name);
    return out;
}

const struct log *log_of_address(struct coordinator *c, const char *address, const char *event)
{
    return log_limit_take_of(&c->peers_log, event, address, address_group(address), c->now_ms);
}

const struct log *log_of_member(struct coordinator *c, uint32_t member, const char *event)
{
    return log_limit_take(&c->peers_log, event, c->members[member].name, c->now_ms);
}

const struct log *log_of_peer(struct coordinator *c, const struct peer *peer, const char *event)
{
    return peer->member == NONE ? log_of_address(c, peer->address, event) : log_of_member(c, peer->member, event);
}

void peer_reject(struct coordinator *c, struct peer *peer, enum reject_code code, uint64_t retry_after_ms,
                 const char *format, ...)
{
    struct msg msg = {.type = MSG_REJECT};
    msg.reject.code = code;
    msg.reject.retry = retry_after_ms > 0;
    msg.reject.retry_after_ms = retry_after_ms;
    msg.reject.minor_least = PROTOCOL_MINOR_LEAST;
    msg.reject.minor_most = PROTOCOL_MINOR_MOST;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(msg.reject.text, sizeof msg.reject.text, format, args);
    va_end(args);
    char text[MSG_TEXT_MAX], name[NAME_FIELD_MAX];
    c->strangers.told.rejected++;
    log_event(log_of_peer(c, peer, "client_rejected"), LOG_LEVEL_WARN, "client_rejected",
              "%saddress=%s code=%u reason=\"%s\"", name_field(c, peer, name), peer->address, code,
              log_quotable(msg.reject.text, text, sizeof text));
    peer_send(c, peer, &msg);
    peer_doom(c, peer);
}

void peer_fault(struct coordinator *c, struct peer *peer, const char *format, ...)
{
    char text[MSG_TEXT_MAX], quoted[MSG_TEXT_MAX], name[NAME_FIELD_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (peer->state == PEER_NEW) {
        peer_reject(c, peer, REJECT_PROTOCOL, 0, "%s", text);
        return;
    }
    c->strangers.told.faults++;
    log_event(log_of_peer(c, peer, "protocol_error"), LOG_LEVEL_WARN, "protocol_error", "%saddress=%s reason=\"%s\"",
              name_field(c, peer, name), peer->address, log_quotable(text, quoted, sizeof quoted));
    peer_bye(c, peer, ERR_PROTOCOL, text);
}

void peer_bye(struct coordinator *c, struct peer *peer, int code, const char *text)
{
    struct msg msg = {.type = MSG_BYE};
    msg.bye.code = (uint32_t)-code;
    (void)snprintf(msg.bye.text, sizeof msg.bye.text, "%s", text);
    peer_send(c, peer, &msg);
    peer_doom(c, peer);
}

void peer_nomem(struct coordinator *c, struct peer *peer, const char *what)
{
    char name[NAME_FIELD_MAX];
    c->nomem = true;
    log_event(c->log, LOG_LEVEL_ERROR, "out_of_memory", "%saddress=%s for=\"%s\"", name_field(c, peer, name),
              peer->address, what);
    peer_bye(c, peer, ERR_TEMPFAIL, "the server is out of memory; try again");
}

void send_declined(struct coordinator *c, struct peer *peer, uint32_t round, uint32_t reason, const char *format, ...)
{
    struct msg msg = {.type = MSG_DECLINED};
    msg.declined.round = round;
    msg.declined.reason = reason;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(msg.declined.text, sizeof msg.declined.text, format, args);
    va_end(args);
    char text[MSG_TEXT_MAX], name[NAME_FIELD_MAX];
    log_event(log_of_peer(c, peer, "contribution_declined"), LOG_LEVEL_WARN, "contribution_declined",
              "%sround=%u reason=\"%s\" text=\"%s\"", name_field(c, peer, name), round, decline_reason_name(reason),
              log_quotable(msg.declined.text, text, sizeof text));
    peer_send(c, peer, &msg);
    c->declined += round == round_current(c);
    if (decline_repeats(reason)) {
        memcpy(c->refusal, text, sizeof c->refusal);
    }
}

void send_accepted(struct coordinator *c, struct peer *peer, uint32_t round)
{
    struct msg msg = {.type = MSG_ACCEPTED};
    msg.accepted.round = round;
    peer_send(c, peer, &msg);
}

void send_round_end(struct coordinator *c, struct peer *peer, uint32_t round)
{
    const struct member *member = &c->members[peer->member];
    struct msg msg = {.type = MSG_ROUND_END};
    msg.round_end.round = round;
    msg.round_end.accepted = round == c->round.durable ? c->accepted : 0;
    msg.round_end.counted = member->has_counted && member->counted_round == round;
    msg.round_end.finished = c->round.durable >= c->plan->rounds;
    peer_send(c, peer, &msg);
}

void send_aggregate(struct coordinator *c, struct peer *peer)
{
    struct msg msg = {.type = MSG_AGGREGATE};
    model_describe(c);
    msg.aggregate.round = c->round.durable;
    msg.aggregate.model = c->model_blob;
    peer_send(c, peer, &msg);
}

void job_submit(struct coordinator *c, struct job *job)
{
    c->jobs[c->jobs_count++] = job;
    c->jobs_running++;
}

static void close_peers(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->peers_room && c->closes_due > 0; i++) {
        struct peer *peer = c->peers[i];
        if (peer && peer->close_due) {
            if (!emit(c, ACTION_CLOSE, peer->number)) {
                return;
            }
            peer->close_due = false;
            c->closes_due--;
        }
    }
}

static void detach_doomed(struct coordinator *c)
{
    while (c->doomed > 0) { /* Letting one go may doom another: what follows from it may not fit into memory. */
        for (uint32_t i = 0; i < c->peers_room && c->doomed > 0; i++) {
            struct peer *peer = c->peers[i];
            if (peer && peer->doomed) {
                peer->doomed = false;
                c->doomed--;
                c->sessions -= peer->state != PEER_NEW;
                peer_detach(c, peer, "closed by the server");
                peer->state = PEER_CLOSING;
                peer->close_due = true;
                c->closes_due++;
            }
        }
    }
}

void flush_due(struct coordinator *c)
{
    detach_doomed(c);
    if (c->round.phase == ROUND_DRAINING && !c->round.exited && c->peers_open == 0 && c->jobs_running == 0) {
        round_apply(c, ROUND_DRAINED, 0);
    }
    close_peers(c);
    while (c->jobs_count > 0) {
        struct action *action = emit(c, ACTION_JOB, NONE);
        if (!action) {
            return;
        }
        action->job = c->jobs[0];
        c->jobs_count--;
        memmove(c->jobs, c->jobs + 1, c->jobs_count * sizeof(struct job *));
    }
    if (c->exit_due) {
        struct action *action = emit(c, ACTION_EXIT, NONE);
        if (action) {
            action->result = c->result;
            c->exit_due = false;
        }
    }
}
