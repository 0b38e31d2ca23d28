/* Images are cut into chunks of one fixed size, whatever their number and that of the threads, so that every image
 * meets the same primitives: the result's bits depend on the image and the parameters alone. */
#include "client/nn/embedder.h"

#include "client/nn/net.h"
#include "client/nn/workers.h"
#include "common/base/mem.h"

#include <string.h>

#define CHUNK 32u

struct place {
    struct net *net;
    float *images;   /* [CHUNK, 3, input, input] */
    float *backbone; /* [CHUNK, c] */
    float *features; /* [CHUNK, d] */
};

struct embedder {
    const struct layout *layout;
    struct net_plan *plan;
    struct net_weights *weights;
    float *native; /* parameters */
    uint32_t threads;
    struct workers *workers;
    struct place *places;
    /* of the call that runs */
    uint32_t n;
    void (*fetch)(void *ctx, uint32_t i, float *image);
    void *ctx;
    float *backbone, *features;
};

static size_t image_floats(const struct embedder *embedder)
{
    return (size_t)3 * embedder->layout->spec.input * embedder->layout->spec.input;
}

static int new_place(struct embedder *embedder, struct place *place, struct err *err)
{
    place->images = mem_new_aligned(CHUNK * image_floats(embedder), sizeof(float));
    place->backbone = mem_new_aligned((size_t)CHUNK * embedder->layout->backbone, sizeof(float));
    place->features = mem_new_aligned((size_t)CHUNK * embedder->layout->spec.features, sizeof(float));
    if (!place->images || !place->backbone || !place->features) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    return net_new(embedder->plan, NET_EVAL, NULL, &place->net, err);
}

static int load(struct embedder *embedder, const float *params, struct err *err)
{
    static const struct compute compute = {.backend = COMPUTE_AUTO, .precision = COMPUTE_F32};
    int rc = net_plan_new(embedder->layout, CHUNK, false, &compute, &embedder->plan, err);
    if (rc != 0) {
        return rc;
    }
    embedder->native = mem_new_aligned(embedder->plan->total, sizeof *embedder->native);
    if (!embedder->native) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    if ((rc = net_pack(embedder->plan, params, embedder->native, err)) ||
        (rc = net_weights_new(embedder->plan, NET_EVAL, NULL, &embedder->weights, err))) {
        return rc;
    }
    net_weights_set(embedder->weights, embedder->native);
    for (uint32_t i = 0; i < net_weights_items(embedder->weights) && rc == 0; i++) {
        rc = net_weights_prepare(embedder->weights, i, err);
    }
    return rc;
}

int embedder_new(const struct layout *layout, const float *params, uint32_t threads, struct embedder **out,
                 struct err *err)
{
    *out = NULL;
    if (threads == 0) {
        return err_set(err, ERR_CONFIG, "threads must be at least 1");
    }
    struct embedder *embedder = mem_new(1, sizeof *embedder);
    if (!embedder) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    embedder->layout = layout;
    embedder->threads = threads;
    embedder->places = mem_new(threads, sizeof *embedder->places);
    int rc = embedder->places ? load(embedder, params, err) : err_set(err, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < threads && rc == 0; i++) {
        rc = new_place(embedder, &embedder->places[i], err);
    }
    rc = rc ? rc : workers_new(threads, &embedder->workers, err);
    if (rc != 0) {
        embedder_free(embedder);
        return rc;
    }
    *out = embedder;
    return 0;
}

void embedder_free(struct embedder *embedder)
{
    if (!embedder) {
        return;
    }
    workers_free(embedder->workers);
    for (uint32_t i = 0; embedder->places && i < embedder->threads; i++) {
        struct place *place = &embedder->places[i];
        net_free(place->net);
        mem_free(place->images);
        mem_free(place->backbone);
        mem_free(place->features);
    }
    mem_free(embedder->places);
    net_weights_free(embedder->weights);
    net_plan_free(embedder->plan);
    mem_free(embedder->native);
    mem_free(embedder);
}

static int embed_chunk(void *ctx, uint32_t worker, uint32_t item, struct err *err)
{
    struct embedder *embedder = ctx;
    struct place *place = &embedder->places[worker];
    uint32_t c = embedder->layout->backbone, d = embedder->layout->spec.features, first = item * CHUNK;
    uint32_t count = embedder->n - first < CHUNK ? embedder->n - first : CHUNK;
    size_t image = image_floats(embedder);
    for (uint32_t i = 0; i < count; i++) {
        embedder->fetch(embedder->ctx, first + i, place->images + i * image);
    }
    memset(place->images + count * image, 0, (CHUNK - count) * image * sizeof *place->images);
    int rc = net_forward(place->net, embedder->weights, place->images, place->backbone,
                         embedder->features ? place->features : NULL, NULL, err);
    if (rc == 0 && embedder->backbone) {
        memcpy(embedder->backbone + (size_t)first * c, place->backbone, (size_t)count * c * sizeof(float));
    }
    if (rc == 0 && embedder->features) {
        memcpy(embedder->features + (size_t)first * d, place->features, (size_t)count * d * sizeof(float));
    }
    return rc;
}

int embedder_run(struct embedder *embedder, uint32_t n, void (*fetch)(void *ctx, uint32_t i, float *image), void *ctx,
                 float *backbone, float *features, struct err *err)
{
    embedder->n = n;
    embedder->fetch = fetch;
    embedder->ctx = ctx;
    embedder->backbone = backbone;
    embedder->features = features;
    return workers_run(embedder->workers, n / CHUNK + (n % CHUNK != 0), embed_chunk, embedder, err);
}
