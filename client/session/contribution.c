/* One local round's result as the wire describes it. */
#include "client/session/state.h"
#include "common/base/mem.h"

static struct blob describe(uint32_t kind, uint32_t round, const struct bytes *bytes, const struct layout *layout)
{
    return (struct blob){
        .kind = kind,
        .round = round,
        .element = ELEMENT_F32,
        .count = bytes->len / sizeof(float),
        .bytes = bytes->len,
        .layout = layout->fingerprint,
        .hash = hash_of(bytes->data, bytes->len),
    };
}

void contribution_describe(struct contribution *contribution, const struct layout *layout, uint32_t features_dimension,
                           uint32_t features_encoder)
{
    contribution->update_blob = describe(BLOB_UPDATE, contribution->round, contribution->update, layout);
    contribution->features_blob = (struct blob){0};
    if (contribution->features) {
        contribution->features_blob = describe(BLOB_FEATURES, contribution->round, contribution->features, layout);
        contribution->features_blob.dimension = features_dimension;
        contribution->features_blob.encoder = features_encoder;
    }
}

void contribution_fini(struct contribution *contribution)
{
    bytes_unref(contribution->update);
    bytes_unref(contribution->features);
    *contribution = (struct contribution){0};
}

void contribution_free(struct contribution *contribution)
{
    if (contribution) {
        contribution_fini(contribution);
        mem_free(contribution);
    }
}
