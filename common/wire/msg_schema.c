/* One row for each field of starling.proto, in the order of tags; the only file that sees generated code. A row's
 * bounds are the .proto's comments in numbers. */
#include "common/wire/msg_schema.h"

#include "common/wire/msg.h"
#include "proto/starling.pb-c.h"

/* One row a line. */
/* clang-format off */
#define AT(type, member)               offsetof(struct type, member)
#define SIZE(type, member)             sizeof(((struct type *)0)->member)
#define ROW(tag_, kind_, type, member) .tag = tag_, .kind = FIELD_##kind_, .offset = AT(type, member)

#define U32(tag, type, member)                       {ROW(tag, U32, type, member), .most = UINT32_MAX}
#define U32_IN(tag, type, member, low, high)         {ROW(tag, U32, type, member), .least = low, .most = high}
#define U32_IF(tag, type, member, flag) \
    {ROW(tag, U32, type, member), .most = UINT32_MAX, .present = 1 + AT(type, flag)}
#define U64(tag, type, member)                       {ROW(tag, U64, type, member), .most = UINT64_MAX}
#define MS(tag, type, member)                        {ROW(tag, MS, type, member), .most = MSG_MS_MAX}
#define MS_IN(tag, type, member, low, high)          {ROW(tag, MS, type, member), .least = low, .most = high}
#define MS_IF(tag, type, member, flag) \
    {ROW(tag, MS, type, member), .most = MSG_MS_MAX, .present = 1 + AT(type, flag)}
#define BOOL(tag, type, member)                      {ROW(tag, BOOL, type, member)}
#define F64(tag, type, member)                       {ROW(tag, F64, type, member)}
#define AMOUNT(tag, type, member)                    {ROW(tag, AMOUNT, type, member)}
#define TEXT(tag, type, member)                      {ROW(tag, TEXT, type, member), .size = SIZE(type, member)}
#define NAME(tag, type, member)                      {ROW(tag, NAME, type, member), .size = SIZE(type, member)}
#define HASH(tag, type, member)                      {ROW(tag, HASH, type, member)}
#define BYTES(tag, type, member, length, high) \
    {ROW(tag, BYTES, type, member), .count = AT(type, length), .most = high}
#define MESSAGE(tag, type, member, schema)           {ROW(tag, MESSAGE, type, member), .sub = &(schema)}
#define MESSAGE_IF(tag, type, member, flag, schema) \
    {ROW(tag, MESSAGE, type, member), .present = 1 + AT(type, flag), .sub = &(schema)}
#define MESSAGES(tag, type, member, number, high, schema) \
    {ROW(tag, MESSAGES, type, member), .count = AT(type, number), .most = high, .sub = &(schema)}

#define SCHEMA(variable, type, proto, check_)                                                                          \
    static const struct schema variable = {&starling__##proto##__descriptor, sizeof(struct type), variable##_fields,   \
                                           sizeof variable##_fields / sizeof variable##_fields[0], check_}

#define CODE_MAX     65535
#define IDLE_MOST_MS (UINT64_C(7) * 24 * 3600 * 1000)

/* Our numbers are the wire's. */
#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours)
SAME(ROLE_OPERATOR, STARLING__ROLE__ROLE_OPERATOR);
SAME(CAPABILITY_EARLY_FEATURES, STARLING__CAPABILITY__CAPABILITY_EARLY_FEATURES);
SAME(ELEMENT_I8, STARLING__ELEMENT__ELEMENT_I8);
SAME(BLOB_MODEL, STARLING__BLOB_KIND__BLOB_MODEL);
SAME(BLOB_REMOTE, STARLING__BLOB_KIND__BLOB_REMOTE);
SAME(BLOB_UPDATE, STARLING__BLOB_KIND__BLOB_UPDATE);
SAME(BLOB_FEATURES, STARLING__BLOB_KIND__BLOB_FEATURES);
SAME(REJECT_ACCESS, STARLING__REJECT_CODE__REJECT_ACCESS);
SAME(DECLINE_NOT_SELECTED, STARLING__DECLINE_REASON__DECLINE_NOT_SELECTED);

/* ---- Parts ---- */

static int check_blob(const void *in, struct err *err)
{
    return blob_check(in, err);
}

static const struct field blob_fields[] = {
    U32_IN(1, blob, kind, BLOB_MODEL, BLOB_FEATURES),
    U32(2, blob, round),
    U32_IN(3, blob, element, ELEMENT_F32, ELEMENT_I8),
    U64(4, blob, count),
    U32_IN(5, blob, dimension, 0, BLOB_DIMENSION_MAX),
    U32_IN(6, blob, encoder, 0, 255),
    U64(7, blob, bytes),
    HASH(8, blob, layout),
    HASH(9, blob, hash),
};
SCHEMA(blob, blob, blob, check_blob);

static int check_watch(const void *in, struct err *err)
{
    return watch_is_sane(in) ? 0 : err_set(err, ERR_PROTOCOL, "Watch: no measures of unit features");
}

static const struct field watch_fields[] = {
    AMOUNT(1, watch, alignment),
    F64(2, watch, uniformity),
    AMOUNT(3, watch, deviation),
    AMOUNT(4, watch, rank),
};
SCHEMA(watch, watch, watch, check_watch);

static int check_privacy(const void *in, struct err *err)
{
    const struct privacy *privacy = in;
    return privacy->features_delta <= 1 && privacy->update_delta <= 1
               ? 0
               : err_set(err, ERR_PROTOCOL, "Privacy: a delta of more than 1");
}

static const struct field privacy_fields[] = {
    U32_IN(1, privacy, releases, 1, UINT32_MAX),
    AMOUNT(2, privacy, features_epsilon),
    AMOUNT(3, privacy, features_delta),
    AMOUNT(4, privacy, update_epsilon),
    AMOUNT(5, privacy, update_delta),
};
SCHEMA(privacy, privacy, privacy, check_privacy);

static const struct field report_fields[] = {
    U64(1, report, images),
    U64(2, report, seen),
    U32(3, report, steps),
    F64(4, report, loss),
    F64(5, report, loss_contrast),
    F64(6, report, loss_matching),
    AMOUNT(7, report, remote_share),
    AMOUNT(8, report, images_per_second),
    MS(9, report, train_ms),
    MESSAGE_IF(10, report, aggregate, aggregate.measured, watch),
    MESSAGE_IF(11, report, own, own.measured, watch),
    MESSAGE_IF(12, report, privacy, privacy.counted, privacy),
};
SCHEMA(report, report, report, NULL);

/* ---- Opening ---- */

static const struct field saved_fields[] = {
    HASH(1, msg_hello, saved_run),
    HASH(2, msg_hello, saved_plan),
    U32(3, msg_hello, saved_round),
};
SCHEMA(saved, msg_hello, hello__saved, NULL);

static int check_hello(const void *in, struct err *err)
{
    const struct msg_hello *hello = in;
    if (hello->name[0] == 0 && hello->role != ROLE_OPERATOR) {
        return err_set(err, ERR_PROTOCOL, "Hello.name: a %s needs a name", role_name(hello->role));
    }
    if (hello->minor_least > hello->minor_most) {
        return err_set(err, ERR_PROTOCOL, "Hello: minor versions %u to %u are no range", hello->minor_least,
                       hello->minor_most);
    }
    return 0;
}

static const struct field hello_fields[] = {
    U32_IN(1, msg_hello, major, 1, UINT32_MAX),
    U32(2, msg_hello, minor_least),
    U32(3, msg_hello, minor_most),
    U64(4, msg_hello, capabilities),
    U32_IN(5, msg_hello, role, ROLE_TRAINER, ROLE_OPERATOR),
    NAME(6, msg_hello, name),
    HASH(7, msg_hello, instance),
    TEXT(8, msg_hello, software),
    {.tag = 9, .kind = FIELD_MESSAGE, .offset = 0, .present = 1 + AT(msg_hello, has_saved), .sub = &saved},
};
SCHEMA(hello, msg_hello, hello, check_hello);

static const struct field welcome_fields[] = {
    U32(1, msg_welcome, minor),
    U64(2, msg_welcome, capabilities),
    HASH(3, msg_welcome, run),
    HASH(4, msg_welcome, boot),
    BYTES(5, msg_welcome, plan, plan_len, MSG_PLAN_MAX),
    HASH(6, msg_welcome, plan_hash),
    U32(7, msg_welcome, round),
    U32_IF(8, msg_welcome, counted_round, has_counted),
    MS_IN(9, msg_welcome, idle_timeout_ms, 1, IDLE_MOST_MS),
};
SCHEMA(welcome, msg_welcome, welcome, NULL);

static const struct field reject_fields[] = {
    U32_IN(1, msg_reject, code, 0, CODE_MAX),
    TEXT(2, msg_reject, text),
    MS_IF(3, msg_reject, retry_after_ms, retry),
    U32(4, msg_reject, minor_least),
    U32(5, msg_reject, minor_most),
};
SCHEMA(reject, msg_reject, reject, NULL);

static const struct field ready_fields[] = {
    HASH(1, msg_ready, layout),
    U64(2, msg_ready, images),
    BOOL(3, msg_ready, withholds_features),
};
SCHEMA(ready, msg_ready, ready, NULL);

/* ---- A round ---- */

static int check_round(const void *in, struct err *err)
{
    const struct msg_round *round = in;
    if (round->model.kind != BLOB_MODEL || (round->has_remote && round->remote.kind != BLOB_REMOTE)) {
        return err_set(err, ERR_PROTOCOL, "Round: a blob of a wrong kind");
    }
    return 0;
}

static const struct field round__fields[] = {
    U32(1, msg_round, round),
    MS(2, msg_round, remaining_ms),
    MESSAGE(3, msg_round, model, blob),
    MESSAGE_IF(4, msg_round, remote, has_remote, blob),
};
SCHEMA(round_, msg_round, round, check_round);

static const struct field fetch_fields[] = {
    U32_IN(1, msg_fetch, kind, BLOB_MODEL, BLOB_REMOTE),
    U32(2, msg_fetch, round),
    U64(3, msg_fetch, offset),
};
SCHEMA(fetch, msg_fetch, fetch, NULL);

static const struct field chunk_fields[] = {
    U32_IN(1, msg_chunk, kind, BLOB_MODEL, BLOB_FEATURES),
    U32(2, msg_chunk, round),
    U64(3, msg_chunk, offset),
};
SCHEMA(chunk, msg_chunk, chunk, NULL);

static const struct field progress_fields[] = {
    U32(1, msg_progress, round),
    U32(2, msg_progress, step),
    U32(3, msg_progress, steps),
    F64(4, msg_progress, loss),
    AMOUNT(5, msg_progress, images_per_second),
};
SCHEMA(progress, msg_progress, progress, NULL);

static const struct field alive_fields[] = {
    U32(1, msg_alive, round),
    MS(2, msg_alive, remaining_ms),
    TEXT(3, msg_alive, waits_for),
};
SCHEMA(alive, msg_alive, alive, NULL);

static int check_offer(const void *in, struct err *err)
{
    const struct msg_offer *offer = in;
    if (offer->update.kind != BLOB_UPDATE || (offer->has_features && offer->features.kind != BLOB_FEATURES)) {
        return err_set(err, ERR_PROTOCOL, "Offer: a blob of a wrong kind");
    }
    return 0;
}

static const struct field offer_fields[] = {
    U32(1, msg_offer, round),
    MESSAGE(2, msg_offer, report, report),
    MESSAGE(3, msg_offer, update, blob), /* optional in the .proto, for CAPABILITY_EARLY_FEATURES; version 1 needs it */
    MESSAGE_IF(4, msg_offer, features, has_features, blob),
};
SCHEMA(offer, msg_offer, offer, check_offer);

static const struct field grant_fields[] = {
    U32_IN(1, msg_grant, kind, BLOB_UPDATE, BLOB_FEATURES),
    U32(2, msg_grant, round),
    U64(3, msg_grant, offset),
};
SCHEMA(grant, msg_grant, grant, NULL);

static const struct field queued_fields[] = {
    U32(1, msg_queued, round),
    U32(2, msg_queued, place),
    U32(3, msg_queued, reason),
};
SCHEMA(queued, msg_queued, queued, NULL);

static const struct field accepted_fields[] = {
    U32(1, msg_accepted, round),
};
SCHEMA(accepted, msg_accepted, accepted, NULL);

static const struct field declined_fields[] = {
    U32(1, msg_declined, round),
    U32_IN(2, msg_declined, reason, 0, CODE_MAX),
    TEXT(3, msg_declined, text),
};
SCHEMA(declined, msg_declined, declined, NULL);

static const struct field round_end_fields[] = {
    U32(1, msg_round_end, round),
    U32(2, msg_round_end, accepted),
    BOOL(3, msg_round_end, counted),
    BOOL(4, msg_round_end, finished),
};
SCHEMA(round_end, msg_round_end, round_end, NULL);

static const struct field bye_fields[] = {
    U32_IN(1, msg_bye, code, 0, CODE_MAX),
    TEXT(2, msg_bye, text),
};
SCHEMA(bye, msg_bye, bye, NULL);

/* ---- Observers ---- */

static int check_aggregate(const void *in, struct err *err)
{
    const struct msg_aggregate *aggregate = in;
    return aggregate->model.kind == BLOB_MODEL ? 0 : err_set(err, ERR_PROTOCOL, "Aggregate: a blob of a wrong kind");
}

static const struct field aggregate_fields[] = {
    U32(1, msg_aggregate, round),
    MESSAGE(2, msg_aggregate, model, blob),
};
SCHEMA(aggregate, msg_aggregate, aggregate, check_aggregate);

static int check_evaluated(const void *in, struct err *err)
{
    const struct msg_evaluated *evaluated = in;
    return evaluated->knn_top1 <= 1 ? 0 : err_set(err, ERR_PROTOCOL, "Evaluated.knn_top1: more than 1");
}

static const struct field evaluated_fields[] = {
    U32_IN(1, msg_evaluated, round, 1, UINT32_MAX),
    AMOUNT(2, msg_evaluated, knn_top1),
    {ROW(3, U64, msg_evaluated, images), .least = 1, .most = UINT64_MAX},
};
SCHEMA(evaluated, msg_evaluated, evaluated, check_evaluated);

/* ---- Certificates ---- */

static int check_enrol(const void *in, struct err *err)
{
    const struct msg_enrol *enrol = in;
    if (enrol->secret_len != 0 && enrol->secret_len != MSG_SECRET_BYTES) {
        return err_set(err, ERR_PROTOCOL, "Enrol.secret: %u bytes; must be %d", enrol->secret_len, MSG_SECRET_BYTES);
    }
    return enrol->request_len > 0 ? 0 : err_set(err, ERR_PROTOCOL, "Enrol.request: empty");
}

static const struct field enrol_fields[] = {
    BYTES(1, msg_enrol, secret, secret_len, MSG_SECRET_BYTES),
    BYTES(2, msg_enrol, request, request_len, MSG_REQUEST_MAX),
};
SCHEMA(enrol, msg_enrol, enrol, check_enrol);

static int check_certificate(const void *in, struct err *err)
{
    const struct msg_certificate *certificate = in;
    return certificate->certificate_len > 0 && certificate->authority_len > 0
               ? 0
               : err_set(err, ERR_PROTOCOL, "Certificate: empty");
}

static const struct field certificate_fields[] = {
    BYTES(1, msg_certificate, certificate, certificate_len, MSG_CERTIFICATE_MAX),
    BYTES(2, msg_certificate, authority, authority_len, MSG_CERTIFICATE_MAX),
};
SCHEMA(certificate, msg_certificate, certificate, check_certificate);

/* ---- Status ---- */

static const struct field status_fields[] = {
    U32_IN(1, msg_status, history, 0, MSG_HISTORY_MAX),
};
SCHEMA(status, msg_status, status, NULL);

static const struct field status_client_fields[] = {
    NAME(1, status_client, name),
    U32_IN(2, status_client, role, ROLE_TRAINER, ROLE_OPERATOR),
    TEXT(3, status_client, state),
    MS(4, status_client, last_seen_ms),
    BOOL(5, status_client, connected),
    U32(6, status_client, step),
    U32(7, status_client, steps),
    F64(8, status_client, loss),
    AMOUNT(9, status_client, images_per_second),
    U64(10, status_client, bytes_up),
    U64(11, status_client, bytes_down),
    U64(12, status_client, bytes_by_kind[BLOB_MODEL]),
    U64(13, status_client, bytes_by_kind[BLOB_REMOTE]),
    U64(14, status_client, bytes_by_kind[BLOB_UPDATE]),
    U64(15, status_client, bytes_by_kind[BLOB_FEATURES]),
    MESSAGE_IF(16, status_client, aggregate, aggregate.measured, watch),
    MESSAGE_IF(17, status_client, own, own.measured, watch),
    BOOL(18, status_client, withholds_features),
    MESSAGE_IF(19, status_client, privacy, privacy.counted, privacy),
};
SCHEMA(status_client, status_client, status_client, NULL);

static const struct field status_round_fields[] = {
    U32(1, status_round, round),
    AMOUNT(2, status_round, seconds),
    U32(3, status_round, accepted),
    U32(4, status_round, declined),
    F64(5, status_round, loss),
    F64(6, status_round, loss_contrast),
    F64(7, status_round, loss_matching),
    AMOUNT(8, status_round, remote_share),
    U64(9, status_round, bytes_up),
    U64(10, status_round, bytes_down),
    MESSAGE_IF(11, status_round, aggregate, aggregate.measured, watch),
    MESSAGE_IF(12, status_round, own, own.measured, watch),
    {ROW(13, AMOUNT, status_round, knn_top1), .present = 1 + AT(status_round, has_knn)},
};
SCHEMA(status_round, status_round, status_round, NULL);

static const struct field status_strangers_fields[] = {
    U32(1, status_strangers, waiting),
    U64(2, status_strangers, refused),
    U64(3, status_strangers, refused_address),
    U64(4, status_strangers, made_way),
    U64(5, status_strangers, silent),
    U64(6, status_strangers, rejected),
    U64(7, status_strangers, broken),
    U64(8, status_strangers, faults),
    U64(9, status_strangers, slowed),
    U64(10, status_strangers, over_quota),
    U64(11, status_strangers, forgotten),
    U64(12, status_strangers, lines_suppressed),
};
SCHEMA(status_strangers, status_strangers, status_strangers, NULL);

static const struct field status_reply_fields[] = {
    HASH(1, msg_status_reply, run),
    HASH(2, msg_status_reply, plan_hash),
    TEXT(3, msg_status_reply, software),
    U32(4, msg_status_reply, round),
    U32(5, msg_status_reply, rounds),
    TEXT(6, msg_status_reply, state),
    TEXT(7, msg_status_reply, waits_for),
    MS(8, msg_status_reply, remaining_ms),
    MS(9, msg_status_reply, uptime_ms),
    U64(10, msg_status_reply, bank_rows),
    U64(11, msg_status_reply, bank_capacity),
    U32(12, msg_status_reply, bank_contributors),
    U64(13, msg_status_reply, peak_rss_bytes),
    MESSAGES(14, msg_status_reply, clients, clients_count, MSG_CLIENTS_MAX, status_client),
    MESSAGES(15, msg_status_reply, history, history_count, MSG_HISTORY_MAX, status_round),
    TEXT(16, msg_status_reply, alarm),
    MS(17, msg_status_reply, waited_ms),
    MESSAGE_IF(24, msg_status_reply, strangers, strangers.told, status_strangers),
};
SCHEMA(status_reply, msg_status_reply, status_reply, NULL);

/* clang-format on */

const struct schema *schema_of(uint8_t type)
{
    static const struct schema *const schemas[] = {
        [MSG_HELLO] = &hello,         [MSG_WELCOME] = &welcome,
        [MSG_REJECT] = &reject,       [MSG_READY] = &ready,
        [MSG_ROUND] = &round_,        [MSG_FETCH] = &fetch,
        [MSG_CHUNK] = &chunk,         [MSG_PROGRESS] = &progress,
        [MSG_ALIVE] = &alive,         [MSG_OFFER] = &offer,
        [MSG_GRANT] = &grant,         [MSG_QUEUED] = &queued,
        [MSG_ACCEPTED] = &accepted,   [MSG_DECLINED] = &declined,
        [MSG_ROUND_END] = &round_end, [MSG_BYE] = &bye,
        [MSG_STATUS] = &status,       [MSG_STATUS_REPLY] = &status_reply,
        [MSG_AGGREGATE] = &aggregate, [MSG_EVALUATED] = &evaluated,
        [MSG_ENROL] = &enrol,         [MSG_CERTIFICATE] = &certificate,
    };
    return type < MSG_TYPE_END ? schemas[type] : NULL;
}
