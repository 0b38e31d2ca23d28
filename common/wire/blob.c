/* Blob descriptions: what the wire itself can tell about one. Whether it fits the round and the layout is the sessions'
 * business. */
#include "common/wire/msg.h"

uint32_t element_of(uint32_t form)
{
    return form == QUANT_F32 ? ELEMENT_F32 : form == QUANT_F16 ? ELEMENT_F16 : ELEMENT_I8;
}

uint64_t element_capabilities(uint32_t form)
{
    return form == QUANT_F32 ? 0 : form == QUANT_F16 ? CAPABILITY_F16 : CAPABILITY_I8;
}

/* 0: unknown. */
static uint32_t element_bytes(uint32_t element)
{
    switch (element) {
    case ELEMENT_F32:
        return 4;
    case ELEMENT_F16:
    case ELEMENT_BF16:
        return 2;
    case ELEMENT_I8:
        return 1;
    default:
        return 0;
    }
}

static bool length_agrees(const struct blob *blob)
{
    uint64_t numbers = blob->count * element_bytes(blob->element);
    if (blob->element != ELEMENT_I8) {
        return blob->bytes == numbers;
    }
    uint64_t scales = blob->bytes > numbers ? blob->bytes - numbers : 0; /* one f32 for each, at most one a number */
    return scales > 0 && scales % 4 == 0 && scales / 4 <= blob->count;
}

static bool shape_agrees(const struct blob *blob)
{
    if (blob->kind == BLOB_MODEL || blob->kind == BLOB_UPDATE) {
        return blob->dimension == 0 && blob->encoder == 0;
    }
    return blob->dimension > 0 && blob->dimension <= BLOB_DIMENSION_MAX && blob->count % blob->dimension == 0 &&
           blob->encoder <= 255;
}

int blob_check(const struct blob *blob, struct err *err)
{
    if (blob->kind < BLOB_MODEL || blob->kind > BLOB_FEATURES) {
        return err_set(err, ERR_PROTOCOL, "a blob of unknown kind %u", blob->kind);
    }
    const char *name = blob_kind_name(blob->kind);
    if (element_bytes(blob->element) == 0) {
        return err_set(err, ERR_PROTOCOL, "a %s blob of unknown element type %u", name, blob->element);
    }
    if (blob->count == 0 || blob->count > BLOB_BYTES_MAX || blob->bytes > BLOB_BYTES_MAX || !length_agrees(blob)) {
        return err_set(err, ERR_PROTOCOL, "a %s blob of %llu bytes that claims %llu elements of %u bytes", name,
                       (unsigned long long)blob->bytes, (unsigned long long)blob->count, element_bytes(blob->element));
    }
    if (!shape_agrees(blob)) {
        return err_set(err, ERR_PROTOCOL, "a %s blob of %llu elements cannot have dimension %u and encoder %u", name,
                       (unsigned long long)blob->count, blob->dimension, blob->encoder);
    }
    return 0;
}
