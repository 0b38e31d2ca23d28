/* The messages as plain structs, and the one place where they become protobuf and back (msg.c, by the tables of
 * msg_schema.c).
 *
 * proto/starling.proto is the specification; these structs mirror it, with fixed-size texts and checked numbers, so
 * that no other file knows generated code. What msg_decode returns has passed: presence of required fields, bounds,
 * UTF-8 and name rules, and the memory budget. */
#ifndef STARLING_WIRE_MSG_H
#define STARLING_WIRE_MSG_H

#include "common/base/bytes.h"
#include "common/base/hash.h"
#include "common/base/name.h"
#include "common/base/privacy.h"
#include "common/base/role.h"
#include "common/base/watch.h"
#include "common/vec/quant.h"
#include "common/wire/frame.h"

#include <stdbool.h>
#include <stdint.h>

#define PROTOCOL_MINOR_LEAST 1 /* within major FRAME_VERSION; HELLO and WELCOME agree on one */
#define PROTOCOL_MINOR_MOST  1

enum msg_type {
    MSG_HELLO = 1,
    MSG_WELCOME,
    MSG_REJECT,
    MSG_READY,
    MSG_ROUND,
    MSG_FETCH,
    MSG_CHUNK,
    MSG_PROGRESS,
    MSG_ALIVE,
    MSG_OFFER,
    MSG_GRANT,
    MSG_QUEUED,
    MSG_ACCEPTED,
    MSG_DECLINED,
    MSG_ROUND_END,
    MSG_BYE,
    MSG_STATUS,
    MSG_STATUS_REPLY,
    MSG_AGGREGATE,
    MSG_EVALUATED,
    MSG_ENROL,
    MSG_CERTIFICATE,
    MSG_TYPE_END
};
const char *msg_type_name(uint8_t type); /* "HELLO" */

/* Bits a peer can do beyond the base; unknown bits are ignored. */
enum capability {
    CAPABILITY_F16 = 1 << 0,
    CAPABILITY_BF16 = 1 << 1,
    CAPABILITY_I8 = 1 << 2,
    CAPABILITY_TLS = 1 << 3,
    CAPABILITY_EARLY_FEATURES = 1 << 4, /* a feature batch may be offered before the update */
};
#define CAPABILITIES_OURS (CAPABILITY_F16 | CAPABILITY_I8)

enum element { ELEMENT_F32 = 1, ELEMENT_F16, ELEMENT_BF16, ELEMENT_I8 };
const char *element_name(uint32_t element);   /* "int8" */
uint32_t element_of(uint32_t form);           /* what the numbers of a form (enum quant) are on the wire */
uint64_t element_capabilities(uint32_t form); /* what a peer that sends or reads them must have set */
enum blob_kind { BLOB_MODEL = 1, BLOB_REMOTE, BLOB_UPDATE, BLOB_FEATURES };
const char *blob_kind_name(uint32_t kind);

/* A blob is announced by its description and travels in chunks. */
struct blob {
    uint32_t kind; /* enum blob_kind */
    uint32_t round;
    uint32_t element;
    uint64_t count;     /* elements */
    uint32_t dimension; /* features: elements a row; others 0 */
    uint32_t encoder;   /* features: enum fusion_encoder of the plan; others 0 */
    uint64_t bytes;
    struct hash128 layout; /* fingerprint */
    struct hash128 hash;   /* XXH3-128 of the bytes */
};

struct report {      /* of one local round */
    uint64_t images; /* distinct images in the folder that were trained on: the weight */
    uint64_t seen;   /* images processed, with repeats */
    uint32_t steps;
    double loss;          /* mean of the total loss; a double that is not finite is not sent and arrives as 0 */
    double loss_contrast; /* its terms */
    double loss_matching;
    double remote_share; /* share of the negatives that were remote, as it was */
    double images_per_second;
    uint64_t train_ms;
    struct watch aggregate, own; /* of the encoder that came with the round; of the client's, after training it */
    struct privacy privacy;      /* with this contribution */
};

/* Bounds; msg_encode and msg_decode refuse what exceeds them. */
#define MSG_TEXT_MAX        256 /* with the zero; msg_encode cleans a text: what is no UTF-8 or a control becomes '?' */
#define MSG_PLAN_MAX        65536
#define MSG_MS_MAX          (UINT64_C(1) << 42) /* every duration; msg_encode clamps to it */
#define MSG_SECRET_BYTES    32
#define MSG_REQUEST_MAX     900 /* a PKCS #10 request of an EC key has 200 */
#define MSG_CERTIFICATE_MAX 4096
#define MSG_CLIENTS_MAX     16384 /* in one STATUS_REPLY */
#define MSG_HISTORY_MAX     4096  /* in one STATUS_REPLY */
#define BLOB_BYTES_MAX      (UINT64_C(1) << 32)
#define BLOB_DIMENSION_MAX  65536u

/* What one message may cost to decode: no message from a client needs more than the first, and the second lets a status
 * of MSG_CLIENTS_MAX clients through. */
#define MSG_BUDGET_SERVER ((size_t)64 << 10)
#define MSG_BUDGET_CLIENT ((size_t)32 << 20)

struct msg_hello {
    uint32_t major, minor_least, minor_most;
    uint64_t capabilities;
    uint32_t role;
    char name[NAME_MAX_BYTES]; /* operators may leave it empty */
    struct hash128 instance;   /* random per state folder, tells two clients of one name apart */
    char software[32];         /* "starling 0.1.0" */
    bool has_saved;
    struct hash128 saved_run, saved_plan;
    uint32_t saved_round;
};
struct msg_welcome {
    uint32_t minor;
    uint64_t capabilities;
    struct hash128 run, boot; /* boot: random per server start */
    uint8_t *plan;            /* canonical bytes; owned by the msg */
    uint32_t plan_len;
    struct hash128 plan_hash;
    uint32_t round; /* last durable round */
    bool has_counted;
    uint32_t counted_round;   /* the last durable round that counted this client's contribution */
    uint64_t idle_timeout_ms; /* the server's; the client's heartbeats follow it */
};
enum reject_code {
    REJECT_VERSION = 1,
    REJECT_NAME_IN_USE,
    REJECT_LAYOUT,
    REJECT_RUN,
    REJECT_PLAN,
    REJECT_ROLE,
    REJECT_FULL,
    REJECT_STOPPING,
    REJECT_PROTOCOL,
    REJECT_ACCESS,
};
struct msg_reject {
    uint32_t code;
    char text[MSG_TEXT_MAX];
    bool retry;
    uint64_t retry_after_ms;
    uint32_t minor_least, minor_most; /* the server's, with REJECT_VERSION */
};
struct msg_ready {
    struct hash128 layout;
    uint64_t images;
    bool withholds_features;
};
struct msg_round {
    uint32_t round;
    uint64_t remaining_ms;
    struct blob model;
    bool has_remote;
    struct blob remote;
};
struct msg_fetch {
    uint32_t kind, round; /* which blob: BLOB_MODEL or BLOB_REMOTE of this round */
    uint64_t offset;
};
struct msg_chunk { /* raw bytes follow in the frame */
    uint32_t kind, round;
    uint64_t offset;
};
struct msg_progress {
    uint32_t round, step, steps;
    double loss, images_per_second;
};
struct msg_alive {
    uint32_t round;
    uint64_t remaining_ms; /* of the round; 0 when none is open */
    char waits_for[MSG_TEXT_MAX];
};
struct msg_offer {
    uint32_t round;
    struct report report;
    struct blob update;
    bool has_features;
    struct blob features;
};
struct msg_grant {
    uint32_t kind, round;
    uint64_t offset;
};
enum queued_reason {
    QUEUED_TAKEN,   /* all slots are */
    QUEUED_STALLED, /* a slot was lost: nothing came */
    QUEUED_SLOW,    /* ... less came than upload_rate */
    QUEUED_LONG,    /* ... it took too long in all */
};
const char *queued_reason_name(uint32_t reason); /* "stalled" */
struct msg_queued {
    uint32_t round, place;
    uint32_t reason;
};
struct msg_accepted {
    uint32_t round;
};
enum decline_reason {
    DECLINE_STALE = 1, /* the round is closed */
    DECLINE_NOT_FINITE,
    DECLINE_RANGE,
    DECLINE_NORM,
    DECLINE_LAYOUT,
    DECLINE_HASH,
    DECLINE_LENGTH,
    DECLINE_WEIGHT,
    DECLINE_FEATURES,
    DECLINE_NOT_SELECTED,
};
const char *decline_reason_name(uint32_t reason); /* "stale" */
/* Whether the same round, trained again from the same model and images, would be declined again for this reason. */
bool decline_repeats(uint32_t reason);
struct msg_declined {
    uint32_t round, reason;
    char text[MSG_TEXT_MAX];
};
struct msg_round_end { /* durable from here on */
    uint32_t round;
    uint32_t accepted;
    bool counted;  /* this client's contribution is in it */
    bool finished; /* the run is done */
};
struct msg_bye {
    uint32_t code; /* 0: normal, else -enum err_code of the sender's reason */
    char text[MSG_TEXT_MAX];
};

struct status_client {
    char name[NAME_MAX_BYTES];
    uint32_t role;
    char state[24];
    uint64_t last_seen_ms; /* ago */
    bool connected;
    uint32_t step, steps;
    double loss, images_per_second;
    uint64_t bytes_up, bytes_down;
    uint64_t bytes_by_kind[5];   /* indexed by enum blob_kind; payload of chunks over the run of this server process */
    struct watch aggregate, own; /* of its latest contribution that was accepted */
    bool withholds_features;     /* it gives none, and gets none */
    struct privacy privacy;      /* as the latest accepted report said */
};
struct status_round {
    uint32_t round;
    double seconds;
    uint32_t accepted, declined;
    double loss, loss_contrast, loss_matching, remote_share;
    uint64_t bytes_up, bytes_down;
    struct watch aggregate, own;
    bool has_knn;
    double knn_top1; /* of the round's model, as an observer found it */
};
struct msg_aggregate { /* to observers */
    uint32_t round;    /* the durable one */
    struct blob model; /* as the next round begins with it, and numbered as that round's */
};
struct msg_evaluated { /* an observer's answer */
    uint32_t round;
    double knn_top1; /* share of its test images that were named right */
    uint64_t images; /* test images, at least 1 */
};

struct msg_enrol {   /* over TLS */
    uint8_t *secret; /* of a token, MSG_SECRET_BYTES; none: the certificate of this connection is to be renewed */
    uint32_t secret_len;
    uint8_t *request; /* PKCS #10, DER; both owned by the msg */
    uint32_t request_len;
};
struct msg_certificate {  /* DER; both owned by the msg */
    uint8_t *certificate; /* the client's */
    uint32_t certificate_len;
    uint8_t *authority; /* the CA's */
    uint32_t authority_len;
};

struct msg_status {
    uint32_t history; /* most recent rounds wanted, at most 4096 */
};
struct status_strangers { /* counts since the server began, beside `waiting` */
    bool told;            /* servers of earlier builds do not */
    uint32_t waiting;
    uint64_t refused, refused_address, made_way, silent, rejected, broken, faults, slowed, over_quota, forgotten;
    uint64_t lines_suppressed;
};
struct msg_status_reply {
    struct hash128 run, plan_hash;
    char software[32];
    uint32_t round, rounds;
    char state[24];
    char waits_for[MSG_TEXT_MAX];
    uint64_t remaining_ms;
    uint64_t waited_ms; /* how long it has been in this state */
    uint64_t uptime_ms;
    uint64_t bank_rows, bank_capacity;
    uint32_t bank_contributors;
    uint64_t peak_rss_bytes;
    char alarm[MSG_TEXT_MAX]; /* empty: none */
    struct status_strangers strangers;
    uint32_t clients_count, history_count;
    struct status_client *clients; /* owned by the msg */
    struct status_round *history;  /* oldest first; owned by the msg */
};

struct msg {
    uint8_t type; /* enum msg_type */
    union {
        struct msg_hello hello;
        struct msg_welcome welcome;
        struct msg_reject reject;
        struct msg_ready ready;
        struct msg_round round;
        struct msg_fetch fetch;
        struct msg_chunk chunk;
        struct msg_progress progress;
        struct msg_alive alive;
        struct msg_offer offer;
        struct msg_grant grant;
        struct msg_queued queued;
        struct msg_accepted accepted;
        struct msg_declined declined;
        struct msg_round_end round_end;
        struct msg_bye bye;
        struct msg_status status;
        struct msg_status_reply status_reply;
        struct msg_aggregate aggregate;
        struct msg_evaluated evaluated;
        struct msg_enrol enrol;
        struct msg_certificate certificate;
    };
    /* CHUNK only. Decoded: points into the frame. To send: `payload` holds a reference, raw points into it. */
    const uint8_t *raw;
    uint32_t raw_len;
    struct bytes *payload; /* owned reference or NULL */
};

/* The round that an answer of the server is about; 0 for messages that cannot be stale. */
uint32_t msg_answer_round(const struct msg *msg);

/* Decodes a frame. `budget` bounds the memory that protobuf-c may take (a small payload can ask for thirty times its
 * size). ERR_PROTOCOL (malformed, missing or out of bounds, text that is no UTF-8), ERR_LIMIT (budget), ERR_NOMEM. */
int msg_decode(const struct frame *frame, size_t budget, struct msg *out, struct err *err);
/* Appends header and protobuf part to `out`; for CHUNK the checksum covers raw, which the caller sends after it. */
int msg_encode(const struct msg *msg, struct buf *out, struct err *err);
/* Frees what the msg owns (plan, clients, history, keys' bytes, payload). Safe on a zeroed msg, and twice. */
void msg_fini(struct msg *msg);

/* Limits by the reader's state; see PROTOCOL.md for the table. */
extern const struct frame_limits msg_limits_server_new; /* server, nothing said yet: HELLO, BYE */
extern const struct frame_limits
    msg_limits_server_stranger; /* server with TLS, who comes without a certificate: ENROL, BYE */
extern const struct frame_limits msg_limits_server_trainer;   /* server, after a trainer's HELLO */
extern const struct frame_limits msg_limits_server_uploading; /* likewise, while it holds a slot */
extern const struct frame_limits msg_limits_server_observer; /* server, after an observer's: as a trainer's, but what it
                                                                found instead of contributions */
extern const struct frame_limits msg_limits_server_operator; /* server, after an operator's HELLO: STATUS, BYE */
extern const struct frame_limits msg_limits_client;          /* client, and `starling status` */

/* Whether a description is sane by itself: known kind and element, count and bytes that agree, within 4 GiB; features
 * have a dimension that divides the count, others have neither dimension nor encoder. ERR_PROTOCOL. */
int blob_check(const struct blob *blob, struct err *err);

#endif
