/* Walks a schema: from a protobuf-c message to our struct, and back. protobuf-c's own descriptor says where a field
 * lies in its struct and whether it is there. Both directions end in the same checks, so that nothing is sent that the
 * other side would refuse. */
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/name.h"
#include "common/base/text.h"
#include "common/wire/msg_schema.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* A field on both sides: its row, protobuf-c's description of it, and whose field it is (for messages to people). */
struct place {
    const struct field *field;
    const ProtobufCFieldDescriptor *theirs;
    const char *owner;
};

static struct place place_of(const struct schema *schema, size_t i)
{
    const struct field *field = &schema->fields[i];
    return (struct place){field, protobuf_c_message_descriptor_get_field(schema->descriptor, field->tag),
                          schema->descriptor->short_name};
}

static int refuse(const struct place *place, struct err *err, const char *what)
{
    return err_set(err, ERR_PROTOCOL, "%s.%s: %s", place->owner, place->theirs->name, what);
}

static uint64_t number_at(const struct field *field, const void *at)
{
    return field->kind == FIELD_U32 ? *(const uint32_t *)at : *(const uint64_t *)at;
}

/* One field of our struct, as it was read or as it is to be sent. `at` points to it. */
static int check_field(const struct place *place, const void *at, struct err *err)
{
    const struct field *field = place->field;
    switch (field->kind) {
    case FIELD_U32:
    case FIELD_U64:
    case FIELD_MS:
        if (number_at(field, at) < field->least || number_at(field, at) > field->most) {
            return err_set(err, ERR_PROTOCOL, "%s.%s: %llu is out of bounds (%llu to %llu)", place->owner,
                           place->theirs->name, (unsigned long long)number_at(field, at),
                           (unsigned long long)field->least, (unsigned long long)field->most);
        }
        return 0;
    case FIELD_F64:
    case FIELD_AMOUNT: {
        double value = *(const double *)at;
        if (!isfinite(value)) {
            return refuse(place, err, "not a finite number");
        }
        return field->kind == FIELD_AMOUNT && value < 0 ? refuse(place, err, "negative") : 0;
    }
    case FIELD_TEXT:
        return text_is_clean(at, strlen(at)) ? 0 : refuse(place, err, "no UTF-8, or with control characters");
    case FIELD_NAME:
        return *(const char *)at == 0 || name_is_valid(at) ? 0 : refuse(place, err, "no name ([A-Za-z0-9._-]{1,64})");
    case FIELD_BOOL:
    case FIELD_HASH:
    case FIELD_BYTES:
    case FIELD_MESSAGE:
    case FIELD_MESSAGES:
        break; /* any value; lengths are judged where they are known */
    }
    return 0;
}

/* ---- From the wire ---- */

static bool is_there(const struct place *place, const ProtobufCMessage *message)
{
    const char *base = (const char *)message;
    const ProtobufCFieldDescriptor *theirs = place->theirs;
    if (theirs->label == PROTOBUF_C_LABEL_REPEATED) {
        return *(const size_t *)(const void *)(base + theirs->quantifier_offset) > 0;
    }
    if (theirs->type == PROTOBUF_C_TYPE_STRING || theirs->type == PROTOBUF_C_TYPE_MESSAGE) {
        return *(const void *const *)(const void *)(base + theirs->offset) != NULL;
    }
    return theirs->label == PROTOBUF_C_LABEL_REQUIRED ||
           *(const protobuf_c_boolean *)(const void *)(base + theirs->quantifier_offset);
}

static int read_text(const struct place *place, const char *text, char *out, struct err *err)
{
    size_t len = strlen(text);
    if (len >= place->field->size) {
        return err_set(err, ERR_PROTOCOL, "%s.%s: %zu bytes; at most %zu are allowed", place->owner,
                       place->theirs->name, len, place->field->size - 1);
    }
    memcpy(out, text, len + 1);
    return 0;
}

static int read_bytes(const struct place *place, const ProtobufCBinaryData *from, char *base, struct err *err)
{
    const struct field *field = place->field;
    if (field->kind == FIELD_HASH) {
        if (from->len != sizeof(struct hash128)) {
            return err_set(err, ERR_PROTOCOL, "%s.%s: %zu bytes; must be 16", place->owner, place->theirs->name,
                           from->len);
        }
        memcpy(base + field->offset, from->data, from->len);
        return 0;
    }
    if (from->len > field->most) {
        return refuse(place, err, "too long");
    }
    if (from->len > 0) {
        uint8_t *copy = mem_new(from->len, 1);
        if (!copy) {
            return err_set(err, ERR_NOMEM, "out of memory for %s.%s", place->owner, place->theirs->name);
        }
        memcpy(copy, from->data, from->len);
        *(uint8_t **)(void *)(base + field->offset) = copy;
        *(uint32_t *)(void *)(base + field->count) = (uint32_t)from->len;
    }
    return 0;
}

static int read_messages(const struct place *place, size_t count, ProtobufCMessage *const *from, char *base,
                         struct err *err)
{
    const struct field *field = place->field;
    if (count > field->most) {
        return refuse(place, err, "too many");
    }
    char *items = mem_new(count, field->sub->size);
    if (!items) {
        return err_set(err, ERR_NOMEM, "out of memory for %zu %s.%s", count, place->owner, place->theirs->name);
    }
    *(void **)(void *)(base + field->offset) = items;
    *(uint32_t *)(void *)(base + field->count) = (uint32_t)count;
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = fields_read(field->sub, from[i], items + i * field->sub->size, err);
    }
    return rc;
}

static int read_field(const struct place *place, const ProtobufCMessage *message, char *base, struct err *err)
{
    const struct field *field = place->field;
    const void *from = (const char *)message + place->theirs->offset;
    void *to = base + field->offset;
    switch (field->kind) {
    case FIELD_U32:
        memcpy(to, from, sizeof(uint32_t)); /* enums are ints there; a negative one is out of every bound here */
        return 0;
    case FIELD_U64:
    case FIELD_MS:
    case FIELD_F64:
    case FIELD_AMOUNT:
        memcpy(to, from, 8);
        return 0;
    case FIELD_BOOL:
        *(bool *)to = *(const protobuf_c_boolean *)from != 0;
        return 0;
    case FIELD_TEXT:
    case FIELD_NAME:
        return read_text(place, *(const char *const *)from, to, err);
    case FIELD_HASH:
    case FIELD_BYTES:
        return read_bytes(place, from, base, err);
    case FIELD_MESSAGE:
        return fields_read(field->sub, *(const ProtobufCMessage *const *)from, to, err);
    case FIELD_MESSAGES: {
        size_t count;
        memcpy(&count, (const char *)message + place->theirs->quantifier_offset, sizeof count);
        return read_messages(place, count, *(ProtobufCMessage *const *const *)from, base, err);
    }
    }
    return 0;
}

int fields_read(const struct schema *schema, const ProtobufCMessage *message, void *out, struct err *err)
{
    char *base = out;
    for (size_t i = 0; i < schema->count; i++) {
        struct place place = place_of(schema, i);
        bool there = is_there(&place, message);
        if (place.field->present) {
            *(bool *)(void *)(base + place.field->present - 1) = there;
        } else if (!there && place.field->kind == FIELD_MESSAGE) {
            return refuse(&place, err, "missing");
        }
        int rc = there ? read_field(&place, message, base, err) : 0;
        if (rc == 0 && there) {
            rc = check_field(&place, base + place.field->offset, err);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return schema->check ? schema->check(out, err) : 0;
}

/* ---- To the wire ---- */

static void *scratch_new(struct scratch **scratch, size_t size)
{
    struct scratch *block = mem_new(1, sizeof *block + sizeof(uint64_t) + size);
    if (!block) {
        return NULL;
    }
    block->next = *scratch;
    *scratch = block;
    return (char *)block + sizeof *block + sizeof(uint64_t); /* 16 bytes on: aligned for anything */
}

void scratch_free(struct scratch **scratch)
{
    while (*scratch) {
        struct scratch *block = *scratch;
        *scratch = block->next;
        mem_free(block);
    }
}

/* Whether an optional field goes on the wire. */
static bool is_wanted(const struct place *place, const char *base)
{
    const struct field *field = place->field;
    const void *at = base + field->offset;
    if (field->present) {
        return *(const bool *)(const void *)(base + field->present - 1);
    }
    if (place->theirs->label == PROTOBUF_C_LABEL_REQUIRED) {
        return true;
    }
    switch (field->kind) {
    case FIELD_U32:
    case FIELD_U64:
    case FIELD_MS:
        return number_at(field, at) != 0;
    case FIELD_F64:
    case FIELD_AMOUNT:
        return isfinite(*(const double *)at) && fpclassify(*(const double *)at) != FP_ZERO;
    case FIELD_TEXT:
    case FIELD_NAME:
        return *(const char *)at != 0;
    case FIELD_BYTES:
    case FIELD_MESSAGES:
        return *(const uint32_t *)(const void *)(base + field->count) > 0;
    case FIELD_BOOL:
    case FIELD_HASH:
    case FIELD_MESSAGE:
        break;
    }
    return true;
}

static int build_text(const struct place *place, const char *text, struct scratch **scratch, char **out,
                      struct err *err)
{
    size_t size = place->field->size, len = strnlen(text, size - 1); /* never past the array, zero or not */
    *out = scratch_new(scratch, size);
    if (!*out) {
        return err_set(err, ERR_NOMEM, "out of memory for %s.%s", place->owner, place->theirs->name);
    }
    if (place->field->kind == FIELD_TEXT) {
        text_clean(text, len, *out);
    } else {
        memcpy(*out, text, len);
    }
    return check_field(place, *out, err);
}

static int build_messages(const struct place *place, const char *base, size_t count, struct scratch **scratch,
                          ProtobufCMessage ***out, struct err *err)
{
    const struct field *field = place->field;
    if (count > field->most) {
        return refuse(place, err, "too many");
    }
    const char *items = *(const char *const *)(const void *)(base + field->offset);
    *out = scratch_new(scratch, count * sizeof **out);
    if (!*out) {
        return err_set(err, ERR_NOMEM, "out of memory for %zu %s.%s", count, place->owner, place->theirs->name);
    }
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = fields_build(field->sub, items + i * field->sub->size, scratch, &(*out)[i], err);
    }
    return rc;
}

static int build_field(const struct place *place, const char *base, struct scratch **scratch, ProtobufCMessage *message,
                       struct err *err)
{
    const struct field *field = place->field;
    const void *from = base + field->offset;
    char *to = (char *)message + place->theirs->offset;
    switch (field->kind) {
    case FIELD_U32:
        memcpy(to, from, sizeof(uint32_t));
        return check_field(place, from, err);
    case FIELD_MS: {
        uint64_t value = number_at(field, from);
        value = value > field->most ? field->most : value;
        memcpy(to, &value, sizeof value);
        return check_field(place, &value, err);
    }
    case FIELD_U64:
    case FIELD_F64:
    case FIELD_AMOUNT:
        memcpy(to, from, 8);
        return check_field(place, from, err);
    case FIELD_BOOL:
        *(protobuf_c_boolean *)(void *)to = *(const bool *)from;
        return 0;
    case FIELD_TEXT:
    case FIELD_NAME:
        return build_text(place, from, scratch, (char **)(void *)to, err);
    case FIELD_HASH:
        *(ProtobufCBinaryData *)(void *)to = (ProtobufCBinaryData){sizeof(struct hash128), (uint8_t *)(uintptr_t)from};
        return 0;
    case FIELD_BYTES: {
        uint32_t len = *(const uint32_t *)(const void *)(base + field->count);
        *(ProtobufCBinaryData *)(void *)to = (ProtobufCBinaryData){len, *(uint8_t *const *)from};
        return len <= field->most ? 0 : refuse(place, err, "too long");
    }
    case FIELD_MESSAGE:
        return fields_build(field->sub, from, scratch, (ProtobufCMessage **)(void *)to, err);
    case FIELD_MESSAGES: {
        size_t count = *(const uint32_t *)(const void *)(base + field->count);
        memcpy((char *)message + place->theirs->quantifier_offset, &count, sizeof count);
        return build_messages(place, base, count, scratch, (ProtobufCMessage ***)(void *)to, err);
    }
    }
    return 0;
}

int fields_build(const struct schema *schema, const void *in, struct scratch **scratch, ProtobufCMessage **message,
                 struct err *err)
{
    const ProtobufCMessageDescriptor *descriptor = schema->descriptor;
    ProtobufCMessage *built = scratch_new(scratch, descriptor->sizeof_message);
    if (!built) {
        return err_set(err, ERR_NOMEM, "out of memory for a %s message", descriptor->short_name);
    }
    protobuf_c_message_init(descriptor, built);
    for (size_t i = 0; i < schema->count; i++) {
        struct place place = place_of(schema, i);
        if (!is_wanted(&place, in)) {
            continue;
        }
        int rc = build_field(&place, in, scratch, built, err);
        if (rc < 0) {
            return rc;
        }
        const ProtobufCFieldDescriptor *theirs = place.theirs;
        bool pointer = theirs->type == PROTOBUF_C_TYPE_STRING || theirs->type == PROTOBUF_C_TYPE_MESSAGE;
        if (theirs->label == PROTOBUF_C_LABEL_OPTIONAL && !pointer) {
            *(protobuf_c_boolean *)(void *)((char *)built + theirs->quantifier_offset) = 1;
        }
    }
    *message = built;
    return schema->check ? schema->check(in, err) : 0;
}
