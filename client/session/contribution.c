/* One local round's result as the wire describes it. */
#include "client/session/state.h"
#include "common/base/mem.h"

static struct blob describe(uint32_t kind, uint32_t round, uint32_t form, uint64_t count, const struct bytes *bytes,
                            const struct layout *layout)
{
    return (struct blob){
        .kind = kind,
        .round = round,
        .element = element_of(form),
        .count = count,
        .bytes = bytes->len,
        .layout = layout->fingerprint,
        .hash = hash_of(bytes->data, bytes->len),
    };
}

void contribution_describe(struct contribution *contribution, const struct plan *plan, const struct layout *layout)
{
    uint32_t round = contribution->round, dimension = layout->spec.features;
    contribution->update_blob =
        describe(BLOB_UPDATE, round, plan->wire.update, layout->total, contribution->update, layout);
    contribution->features_blob = (struct blob){0};
    if (contribution->features) {
        uint64_t rows = contribution->features->len / quant_rows_bytes(plan->wire.features, 1, dimension);
        contribution->features_blob =
            describe(BLOB_FEATURES, round, plan->wire.features, rows * dimension, contribution->features, layout);
        contribution->features_blob.dimension = dimension;
        contribution->features_blob.encoder = plan->fusion.encoder;
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
