/* Messages to frames and back. Decoding: protobuf-c unpacks through an allocator with a budget, then the schema's walk
 * copies and checks (msg_fields.c). Encoding: the walk checks and builds, protobuf-c packs straight behind the header.
 *
 * A failed decode leaves *out zeroed; a failed encode leaves the buffer as it was. */
#include "common/wire/msg.h"

#include "common/base/mem.h"
#include "common/wire/msg_schema.h"

#include <string.h>

/* What protobuf-c takes for one message, counted with what malloc adds. Nothing is given back to the count: it unpacks
 * in one go, so the sum is at most a little above the peak, and a bound is a bound. */
struct budget {
    size_t left;
    bool exceeded, exhausted; /* by the budget, by the machine */
};
#define ALLOCATION_OVERHEAD_BYTES 32

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;
    if (budget->exceeded || size > budget->left || budget->left - size < ALLOCATION_OVERHEAD_BYTES) {
        budget->exceeded = true;
        return NULL;
    }
    budget->left -= size + ALLOCATION_OVERHEAD_BYTES;
    void *memory = mem_new(size, 1);
    budget->exhausted |= !memory;
    return memory;
}

static void budget_free(void *data, void *memory)
{
    (void)data;
    mem_free(memory);
}

static int unpack(const struct schema *schema, const struct frame *frame, struct budget *budget,
                  ProtobufCAllocator *allocator, ProtobufCMessage **message, struct err *err)
{
    *allocator = (ProtobufCAllocator){budget_alloc, budget_free, budget};
    *message = protobuf_c_message_unpack(schema->descriptor, allocator, frame->proto_len, frame->proto);
    if (*message) {
        return 0;
    }
    const char *name = msg_type_name(frame->type);
    if (budget->exceeded) {
        return err_set(err, ERR_LIMIT, "a %s message of %u bytes needs more memory than one message may take", name,
                       frame->proto_len);
    }
    if (budget->exhausted) {
        return err_set(err, ERR_NOMEM, "out of memory for a %s message", name);
    }
    return err_set(err, ERR_PROTOCOL, "a %s message that is malformed or lacks a required field", name);
}

/* Which frame part belongs to which type; the same for both directions. */
static int check_raw(uint8_t type, const uint8_t *raw, uint32_t raw_len, struct err *err)
{
    if (type != MSG_CHUNK) {
        return raw_len == 0 ? 0 : err_set(err, ERR_PROTOCOL, "a %s message with raw bytes", msg_type_name(type));
    }
    if (!raw || raw_len == 0 || raw_len > FRAME_CHUNK_MAX) {
        return err_set(err, ERR_PROTOCOL, "a chunk of %u bytes; 1 to %u are allowed", raw_len, FRAME_CHUNK_MAX);
    }
    return 0;
}

/* All messages lie at one place: members of one union. */
#define BODY_OFFSET offsetof(struct msg, hello)

int msg_decode(const struct frame *frame, size_t budget_bytes, struct msg *out, struct err *err)
{
    *out = (struct msg){0};
    const struct schema *schema = schema_of(frame->type);
    if (!schema) {
        return err_set(err, ERR_PROTOCOL, "a message of unknown type %u", frame->type);
    }
    int rc = check_raw(frame->type, frame->raw, frame->raw_len, err);
    if (rc < 0) {
        return rc;
    }
    struct budget budget = {.left = budget_bytes};
    ProtobufCAllocator allocator;
    ProtobufCMessage *message;
    rc = unpack(schema, frame, &budget, &allocator, &message, err);
    if (rc < 0) {
        return rc;
    }
    out->type = frame->type;
    rc = fields_read(schema, message, (char *)out + BODY_OFFSET, err);
    protobuf_c_message_free_unpacked(message, &allocator);
    if (rc < 0) {
        msg_fini(out);
        return rc;
    }
    if (frame->type == MSG_CHUNK) {
        out->raw = frame->raw;
        out->raw_len = frame->raw_len;
    }
    return 0;
}

int msg_encode(const struct msg *msg, struct buf *out, struct err *err)
{
    const struct schema *schema = schema_of(msg->type);
    if (!schema) {
        return err_set(err, ERR_PROTOCOL, "a message of unknown type %u", msg->type);
    }
    struct scratch *scratch = NULL;
    ProtobufCMessage *message;
    int rc = check_raw(msg->type, msg->raw, msg->raw_len, err);
    if (rc == 0) {
        rc = fields_build(schema, (const char *)msg + BODY_OFFSET, &scratch, &message, err);
    }
    if (rc < 0) {
        goto done;
    }
    size_t len = protobuf_c_message_get_packed_size(message);
    rc = len <= UINT32_MAX - FRAME_CHUNK_MAX ? buf_reserve(out, FRAME_HEADER_BYTES + len) : ERR_LIMIT;
    if (rc < 0) {
        (void)err_set(err, rc, "no room for a %s message of %zu bytes", msg_type_name(msg->type), len);
        goto done;
    }
    uint8_t *header = out->data + out->len;
    (void)protobuf_c_message_pack(message, header + FRAME_HEADER_BYTES);
    frame_header(header, msg->type, 0, header + FRAME_HEADER_BYTES, (uint32_t)len, msg->raw, msg->raw_len);
    out->len += FRAME_HEADER_BYTES + len;
done:
    scratch_free(&scratch);
    return rc;
}

void msg_fini(struct msg *msg)
{
    if (msg->type == MSG_WELCOME) {
        mem_free(msg->welcome.plan);
    } else if (msg->type == MSG_STATUS_REPLY) {
        mem_free(msg->status_reply.clients);
        mem_free(msg->status_reply.history);
    } else if (msg->type == MSG_ENROL) {
        mem_free(msg->enrol.secret);
        mem_free(msg->enrol.request);
    } else if (msg->type == MSG_CERTIFICATE) {
        mem_free(msg->certificate.certificate);
        mem_free(msg->certificate.authority);
    }
    bytes_unref(msg->payload);
    *msg = (struct msg){0};
}
