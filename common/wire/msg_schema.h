/* The bridge between msg.h and starling.proto as data: for each message a table of fields, one row a field, which says
 * where it lies in our struct and what it must satisfy. msg_fields.c walks these tables in both directions, so that a
 * field is described once. Inside common/wire only; the generated code is seen by msg_schema.c alone. */
#ifndef STARLING_WIRE_MSG_SCHEMA_H
#define STARLING_WIRE_MSG_SCHEMA_H

#include "common/base/err.h"

#include <protobuf-c/protobuf-c.h>

#include <stddef.h>
#include <stdint.h>

enum field_kind {
    FIELD_U32,      /* uint32_t, also for enums; within [least, most] */
    FIELD_U64,      /* uint64_t; within [least, most] */
    FIELD_MS,       /* uint64_t, a duration; clamped to most when sent */
    FIELD_BOOL,     /* bool */
    FIELD_F64,      /* double; left out when not finite */
    FIELD_AMOUNT,   /* double >= 0; likewise */
    FIELD_TEXT,     /* char[size]; cleaned when sent */
    FIELD_NAME,     /* char[size]; empty or a valid name */
    FIELD_HASH,     /* struct hash128 */
    FIELD_BYTES,    /* uint8_t *, owned, with a uint32_t length at `count`; at most `most` */
    FIELD_MESSAGE,  /* a struct in place, described by `sub` */
    FIELD_MESSAGES, /* an owned array of structs, with a uint32_t count at `count`; at most `most` */
};

struct schema;
struct field {
    uint32_t tag;
    enum field_kind kind;
    size_t offset; /* in our struct */
    size_t size;
    size_t count;
    size_t present; /* 1 + offset of the bool that says whether it is there; 0: none. A number or text without one is
                       left out when zero, if the .proto lets it; a message without one must be there */
    uint64_t least, most;
    const struct schema *sub;
};
struct schema {
    const ProtobufCMessageDescriptor *descriptor;
    size_t size; /* of our struct */
    const struct field *fields;
    size_t count;
    int (*check)(const void *in, struct err *err); /* what single fields cannot say; may be NULL */
};

/* NULL for an unknown type. */
const struct schema *schema_of(uint8_t type);

/* Copies a message to our struct and checks it. `out` starts zeroed; what it owns after a failure is the caller's to
 * free. ERR_PROTOCOL, ERR_NOMEM. */
int fields_read(const struct schema *schema, const ProtobufCMessage *message, void *out, struct err *err);

/* Memory for a message that is being built; freed together. */
struct scratch {
    struct scratch *next;
};
/* The other way: checks our struct and builds a message that points into it and into *scratch, which the caller frees
 * (also after a failure). ERR_PROTOCOL, ERR_NOMEM. */
int fields_build(const struct schema *schema, const void *in, struct scratch **scratch, ProtobufCMessage **message,
                 struct err *err);
void scratch_free(struct scratch **scratch);

#endif
