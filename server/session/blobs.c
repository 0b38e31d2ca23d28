/* What clients download: the global model, always f32 and broadcast by reference, and for each client its sample of the
 * bank, which is drawn again, and packed as wire.features says, for each use, so that nothing of it is kept. */
#include "common/base/mem.h"
#include "server/session/state.h"

#include <string.h>

/* All who fetch the model share its memory; a piece of a sample is a copy for its reader alone. */
#define REMOTE_CHUNK_BYTES (256u << 10)

static struct blob describe(const struct coordinator *c, uint32_t kind, uint32_t form, uint64_t count, uint64_t bytes)
{
    return (struct blob){
        .kind = kind,
        .round = round_current(c),
        .element = element_of(form),
        .count = count,
        .bytes = bytes,
        .layout = c->layout->fingerprint,
    };
}

void model_describe(struct coordinator *c)
{
    c->model_blob = describe(c, BLOB_MODEL, QUANT_F32, c->layout->total, c->layout->total * sizeof(float));
    c->model_blob.hash = c->model_hash;
}

bool member_withholds(const struct coordinator *c, uint32_t member)
{
    return c->members[member].withholds || c->members[member].gave_none;
}

/* Rows of others are for those who have given some themselves: by the bank, so that a restarted server knows it too. */
static uint32_t draw_sample(struct coordinator *c, uint32_t member)
{
    const char *name = c->members[member].name;
    if (!plan_shares_features(c->plan) || member_withholds(c, member) || !bank_has(c->bank, name) ||
        bank_others(c->bank, name) < c->plan->fusion.min_contributors) {
        return 0;
    }
    return bank_sample(c->bank, c->plan->seed, round_current(c), name, c->plan->fusion.remote, c->sample);
}

/* The sample's bytes are the numbers of its rows, then, for int8, their scales. A piece is either; it ends before the
 * next one begins. */
struct piece {
    const uint8_t *data;
    size_t len;
};

/* The piece that holds byte `offset`, from there on. */
static struct piece piece_at(const struct coordinator *c, uint32_t rows, uint64_t offset)
{
    uint32_t form = c->plan->wire.features, dimension = c->bank->dimension;
    uint64_t row_bytes = dimension * quant_number_bytes(form), numbers = rows * row_bytes;
    uint64_t within = offset < numbers ? offset % row_bytes : (offset - numbers) % 4;
    uint64_t row = offset < numbers ? offset / row_bytes : (offset - numbers) / 4;
    uint8_t *scale = c->packed_row + row_bytes;
    quant_row_encode(form, c->bank->features + (size_t)c->sample[row] * dimension, dimension, c->packed_row, scale);
    return offset < numbers ? (struct piece){c->packed_row + within, (size_t)(row_bytes - within)}
                            : (struct piece){scale + within, (size_t)(4 - within)};
}

int remote_describe(struct coordinator *c, uint32_t member, struct blob *out, bool *exists)
{
    uint32_t rows = draw_sample(c, member);
    *exists = rows > 0;
    if (rows == 0) {
        return 0;
    }
    struct hash_stream *stream = hash_stream_new();
    if (!stream) {
        return ERR_NOMEM;
    }
    uint32_t form = c->plan->wire.features;
    uint64_t bytes = quant_rows_bytes(form, rows, c->bank->dimension);
    for (uint64_t offset = 0; offset < bytes;) {
        struct piece piece = piece_at(c, rows, offset);
        hash_stream_add(stream, piece.data, piece.len);
        offset += piece.len;
    }
    *out = describe(c, BLOB_REMOTE, form, (uint64_t)rows * c->bank->dimension, bytes);
    out->dimension = c->bank->dimension;
    out->encoder = c->plan->fusion.encoder;
    out->hash = hash_stream_end(stream);
    hash_stream_free(stream);
    return 0;
}

/* Bytes [offset, offset + len) of the sample. */
static struct bytes *gather(struct coordinator *c, uint32_t member, uint64_t offset, uint32_t len)
{
    struct bytes *bytes = bytes_new(len);
    if (!bytes) {
        return NULL;
    }
    uint32_t rows = draw_sample(c, member);
    for (size_t done = 0; done < len;) {
        struct piece piece = piece_at(c, rows, offset + done);
        size_t part = piece.len < len - done ? piece.len : len - done;
        memcpy(bytes->data + done, piece.data, part);
        done += part;
    }
    return bytes;
}

/* The size alone: a sample's hash costs a look at all of its bytes. */
static uint64_t blob_bytes(struct coordinator *c, const struct peer *peer, uint32_t kind)
{
    return kind == BLOB_MODEL
               ? c->model_blob.bytes
               : quant_rows_bytes(c->plan->wire.features, draw_sample(c, peer->member), c->bank->dimension);
}

/* What a site fetches in a round: the model and, at the most, a whole sample, which is far more than a small model. */
static uint64_t round_bytes(const struct coordinator *c)
{
    uint64_t sample = quant_rows_bytes(c->plan->wire.features, c->plan->fusion.remote, c->bank->dimension);
    return c->model_blob.bytes + (plan_shares_features(c->plan) ? sample : 0);
}

static void end_over_quota(struct coordinator *c, struct peer *peer)
{
    static const char reason[] = "it has downloaded this round's quota, the bytes of 16 models and samples";
    c->strangers.told.over_quota++;
    log_event(log_of_member(c, peer->member, "over_quota"), LOG_LEVEL_WARN, "over_quota",
              "name=%s address=%s round=%u reason=\"%s\"", c->members[peer->member].name, peer->address,
              round_current(c), reason);
    peer_bye(c, peer, ERR_TEMPFAIL, reason);
}

static bool judge(struct coordinator *c, struct peer *peer)
{
    struct download *download = &peer->download;
    download->bytes = blob_bytes(c, peer, download->kind);
    download->judged = true;
    if (download->bytes == 0 || download->offset > download->bytes) {
        download->active = false;
        peer_fault(c, peer, "FETCH of %s %u from byte %llu; it has %llu", blob_kind_name(download->kind),
                   round_current(c), (unsigned long long)download->offset, (unsigned long long)download->bytes);
    } else if (quota_of(c, &c->members[peer->member])->down >= TRANSFERS_PER_ROUND * round_bytes(c)) {
        download->active = false;
        end_over_quota(c, peer);
    }
    return download->active;
}

void download_continue(struct coordinator *c, struct peer *peer)
{
    struct download *download = &peer->download;
    if (!download->active || peer->sending || !(download->judged || judge(c, peer))) {
        return;
    }
    uint64_t left = download->bytes - download->offset;
    uint32_t most = download->kind == BLOB_MODEL ? FRAME_CHUNK_MAX : REMOTE_CHUNK_BYTES;
    uint32_t len = left < most ? (uint32_t)left : most;
    if (len == 0) {
        download->active = false;
        return;
    }
    struct msg msg = {.type = MSG_CHUNK, .raw_len = len};
    msg.chunk = (struct msg_chunk){download->kind, round_current(c), download->offset};
    if (download->kind == BLOB_MODEL) {
        msg.payload = bytes_ref(agg_model(c->agg));
        msg.raw = msg.payload->data + download->offset;
        peer->holds = round_current(c);
    } else {
        msg.payload = gather(c, peer->member, download->offset, len);
        if (!msg.payload) {
            peer_nomem(c, peer, "a chunk of remote features");
            return;
        }
        msg.raw = msg.payload->data;
    }
    download->offset += len;
    peer->sending = true;
    struct member *member = &c->members[peer->member];
    member->bytes_down += len;
    quota_of(c, member)->down += len;
    member->bytes_by_kind[download->kind] += len;
    c->bytes_down += len;
    peer_send(c, peer, &msg);
}
