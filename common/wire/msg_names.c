/* Names of the wire's numbers, for logs and people. A number from outside may be anything: "unknown" then. Beside them,
 * what both sides derive from a message. */
#include "common/wire/msg.h"

#define NAME_AT(table, index)                                                                                          \
    ((index) < sizeof(table) / sizeof((table)[0]) && (table)[index] ? (table)[index] : "unknown")

const char *msg_type_name(uint8_t type)
{
    static const char *const names[] = {
        [MSG_HELLO] = "HELLO",         [MSG_WELCOME] = "WELCOME",
        [MSG_REJECT] = "REJECT",       [MSG_READY] = "READY",
        [MSG_ROUND] = "ROUND",         [MSG_FETCH] = "FETCH",
        [MSG_CHUNK] = "CHUNK",         [MSG_PROGRESS] = "PROGRESS",
        [MSG_ALIVE] = "ALIVE",         [MSG_OFFER] = "OFFER",
        [MSG_GRANT] = "GRANT",         [MSG_QUEUED] = "QUEUED",
        [MSG_ACCEPTED] = "ACCEPTED",   [MSG_DECLINED] = "DECLINED",
        [MSG_ROUND_END] = "ROUND_END", [MSG_BYE] = "BYE",
        [MSG_STATUS] = "STATUS",       [MSG_STATUS_REPLY] = "STATUS_REPLY",
        [MSG_AGGREGATE] = "AGGREGATE", [MSG_EVALUATED] = "EVALUATED",
        [MSG_ENROL] = "ENROL",         [MSG_CERTIFICATE] = "CERTIFICATE",
    };
    return NAME_AT(names, type);
}

const char *blob_kind_name(uint32_t kind)
{
    static const char *const names[] = {
        [BLOB_MODEL] = "model",
        [BLOB_REMOTE] = "remote",
        [BLOB_UPDATE] = "update",
        [BLOB_FEATURES] = "features",
    };
    return NAME_AT(names, kind);
}

const char *element_name(uint32_t element)
{
    static const char *const names[] = {
        [ELEMENT_F32] = "f32", [ELEMENT_F16] = "f16", [ELEMENT_BF16] = "bf16", [ELEMENT_I8] = "int8"};
    return NAME_AT(names, element);
}

const char *decline_reason_name(uint32_t reason)
{
    static const char *const names[] = {
        [DECLINE_STALE] = "stale",       [DECLINE_NOT_FINITE] = "not finite",
        [DECLINE_RANGE] = "range",       [DECLINE_NORM] = "norm",
        [DECLINE_LAYOUT] = "layout",     [DECLINE_HASH] = "hash",
        [DECLINE_LENGTH] = "length",     [DECLINE_WEIGHT] = "weight",
        [DECLINE_FEATURES] = "features", [DECLINE_NOT_SELECTED] = "not selected",
    };
    return NAME_AT(names, reason);
}

const char *queued_reason_name(uint32_t reason)
{
    static const char *const names[] = {
        [QUEUED_TAKEN] = "taken", [QUEUED_STALLED] = "stalled", [QUEUED_SLOW] = "slow", [QUEUED_LONG] = "long"};
    return NAME_AT(names, reason);
}

bool decline_repeats(uint32_t reason)
{
    switch (reason) {
    case DECLINE_NOT_FINITE:
    case DECLINE_RANGE:
    case DECLINE_NORM:
    case DECLINE_LAYOUT:
    case DECLINE_LENGTH:
    case DECLINE_WEIGHT:
    case DECLINE_FEATURES:
        return true;
    default:
        return false;
    }
}

uint32_t msg_answer_round(const struct msg *msg)
{
    switch (msg->type) {
    case MSG_CHUNK:
        return msg->chunk.round;
    case MSG_GRANT:
        return msg->grant.round;
    case MSG_QUEUED:
        return msg->queued.round;
    case MSG_ACCEPTED:
        return msg->accepted.round;
    case MSG_DECLINED:
        return msg->declined.round;
    default:
        return 0;
    }
}
