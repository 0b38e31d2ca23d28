/* The bytes that a swarm sends; stream.h says which. */
#include "client/swarm/stream.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>

#define STEP 0x1p-20f

int stream_sign(uint32_t client)
{
    return client % 3 == 2;
}

uint32_t stream_images(uint32_t client)
{
    return 1 + client % 7;
}

static void choose_numbers(const struct layout *layout, int8_t *numbers)
{
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        for (uint64_t i = 0; i < tensor->count; i++) {
            uint64_t at = tensor->offset + i, drawn = rng_mix(at);
            bool extreme = i == 0 || at >= layout->trainable_end;
            numbers[at] = (int8_t)(extreme ? (drawn & 1 ? 127 : -127) : (int)(drawn % 255) - 127);
        }
    }
}

static int encode_update(struct stream *stream, uint32_t form, int sign, float *room, struct err *err)
{
    const struct layout *layout = stream->layout;
    uint32_t at;
    stream->update[sign] = bytes_new((size_t)quant_update_bytes(form, layout));
    if (!stream->update[sign]) {
        return err_set(err, ERR_NOMEM, "out of memory for an update");
    }
    for (uint64_t i = 0; i < layout->total; i++) {
        room[i] = (float)(sign ? -stream->numbers[i] : stream->numbers[i]) * STEP;
    }
    (void)quant_update_encode((enum quant)form, layout, room, stream->update[sign]->data, &at);
    for (uint64_t i = 0; i < layout->total; i++) {
        if (form != QUANT_F32 && room[i] != 0) { /* what was rounded away */
            return err_set(err, ERR_FAILED, "number %llu of the update does not travel exactly", (unsigned long long)i);
        }
    }
    return 0;
}

static int encode_updates(struct stream *stream, uint32_t form, struct err *err)
{
    float *room = mem_new_aligned((size_t)stream->layout->total, sizeof *room);
    int rc = room ? 0 : err_set(err, ERR_NOMEM, "out of memory for an update");
    for (int sign = 0; sign < 2 && rc == 0; sign++) {
        rc = encode_update(stream, form, sign, room, err);
    }
    mem_free(room);
    return rc;
}

/* Directions drawn at random, as an encoder's features lie: no two of them near each other. */
static void draw_rows(float *rows, uint32_t count, uint32_t dimension)
{
    for (uint32_t r = 0; r < count; r++) {
        float *row = rows + (size_t)r * dimension;
        double squares = 0;
        for (uint32_t d = 0; d < dimension; d++) {
            row[d] = (float)((double)(rng_mix((uint64_t)r * dimension + d) >> 11) * 0x1p-52 - 1);
            squares += (double)row[d] * (double)row[d];
        }
        for (uint32_t d = 0; d < dimension; d++) {
            row[d] = (float)((double)row[d] / sqrt(squares));
        }
    }
}

static int encode_features(struct stream *stream, uint32_t form, uint32_t rows, uint32_t dimension, struct err *err)
{
    float *room = mem_new_aligned((size_t)rows * dimension, sizeof *room);
    uint32_t at;
    stream->features = bytes_new((size_t)quant_rows_bytes(form, rows, dimension));
    if (room && stream->features) {
        draw_rows(room, rows, dimension);
        (void)quant_rows_encode((enum quant)form, room, rows, dimension, stream->features->data, &at);
    }
    mem_free(room);
    return room && stream->features ? 0 : err_set(err, ERR_NOMEM, "out of memory for %u features", rows);
}

static struct blob describe(const struct stream *stream, uint32_t kind, uint32_t form, uint64_t count,
                            const struct bytes *bytes)
{
    return (struct blob){
        .kind = kind,
        .element = element_of(form),
        .count = count,
        .bytes = bytes->len,
        .layout = stream->layout->fingerprint,
        .hash = hash_of(bytes->data, bytes->len),
    };
}

int stream_init(struct stream *stream, const struct plan *plan, const struct layout *layout, uint32_t rows,
                struct err *err)
{
    uint32_t most = plan_shares_features(plan) ? plan->fusion.upload : 0, dimension = plan->model.features;
    if (rows > most) {
        return err_set(err, ERR_USAGE, "--features %u: a client of this plan uploads at most %u (fusion.upload)", rows,
                       most);
    }
    *stream = (struct stream){.layout = layout, .numbers = mem_new((size_t)layout->total, 1)};
    int rc = stream->numbers ? 0 : err_set(err, ERR_NOMEM, "out of memory for an update");
    if (rc == 0) {
        choose_numbers(layout, stream->numbers);
        rc = encode_updates(stream, plan->wire.update, err);
    }
    if (rc == 0 && rows > 0) {
        rc = encode_features(stream, plan->wire.features, rows, dimension, err);
    }
    if (rc) {
        stream_fini(stream);
        return rc;
    }
    for (int sign = 0; sign < 2; sign++) {
        stream->update_blob[sign] =
            describe(stream, BLOB_UPDATE, plan->wire.update, layout->total, stream->update[sign]);
    }
    if (rows > 0) {
        stream->features_blob =
            describe(stream, BLOB_FEATURES, plan->wire.features, (uint64_t)rows * dimension, stream->features);
        stream->features_blob.dimension = dimension;
        stream->features_blob.encoder = plan->fusion.encoder;
    }
    return 0;
}

void stream_fini(struct stream *stream)
{
    mem_free(stream->numbers);
    bytes_unref(stream->update[0]);
    bytes_unref(stream->update[1]);
    bytes_unref(stream->features);
    *stream = (struct stream){0};
}
