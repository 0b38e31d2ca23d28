/* What clients download: the global model, broadcast by reference, and for each client its sample of the bank, which is
 * drawn again for each use, so that nothing of it is kept. */
#include "common/base/mem.h"
#include "server/session/state.h"

#include <string.h>

/* All who fetch the model share its memory; a piece of a sample is a copy for its reader alone. */
#define REMOTE_CHUNK_BYTES (256u << 10)

static struct blob describe(const struct coordinator *c, uint32_t kind, uint64_t count)
{
    return (struct blob){
        .kind = kind,
        .round = round_current(c),
        .element = ELEMENT_F32,
        .count = count,
        .bytes = count * sizeof(float),
        .layout = c->layout->fingerprint,
    };
}

void model_describe(struct coordinator *c)
{
    c->model_blob = describe(c, BLOB_MODEL, c->layout->total);
    c->model_blob.hash = c->model_hash;
}

static uint32_t draw_sample(struct coordinator *c, uint32_t member)
{
    if (!plan_shares_features(c->plan)) {
        return 0;
    }
    return bank_sample(c->bank, c->plan->seed, round_current(c), c->members[member].name, c->plan->fusion.remote,
                       c->sample);
}

static const float *row_at(const struct coordinator *c, uint32_t i)
{
    return c->bank->features + (size_t)c->sample[i] * c->bank->dimension;
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
    for (uint32_t i = 0; i < rows; i++) {
        hash_stream_add(stream, row_at(c, i), c->bank->dimension * sizeof(float));
    }
    *out = describe(c, BLOB_REMOTE, (uint64_t)rows * c->bank->dimension);
    out->dimension = c->bank->dimension;
    out->encoder = c->plan->fusion.encoder;
    out->hash = hash_stream_end(stream);
    hash_stream_free(stream);
    return 0;
}

/* Bytes [offset, offset + len) of the sample's rows, one behind the other. */
static struct bytes *gather(struct coordinator *c, uint32_t member, uint64_t offset, uint32_t len)
{
    struct bytes *bytes = bytes_new(len);
    if (!bytes) {
        return NULL;
    }
    (void)draw_sample(c, member);
    size_t row_bytes = c->bank->dimension * sizeof(float), done = 0;
    while (done < len) {
        size_t within = (size_t)((offset + done) % row_bytes), part = row_bytes - within;
        part = part < len - done ? part : len - done;
        const uint8_t *row = (const uint8_t *)row_at(c, (uint32_t)((offset + done) / row_bytes));
        memcpy(bytes->data + done, row + within, part);
        done += part;
    }
    return bytes;
}

void download_continue(struct coordinator *c, struct peer *peer)
{
    struct download *download = &peer->download;
    if (!download->active || peer->sending) {
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
    member->bytes_by_kind[download->kind] += len;
    c->bytes_down += len;
    peer_send(c, peer, &msg);
}
