/* Receiving a blob; transfer.h says how. The chunk's checksum has been judged by the frame decoder, so `received`
 * counts checked bytes only. */
#include "common/wire/transfer.h"

#include "common/base/mem.h"

#include <string.h>

static bool same_blob(const struct blob *a, const struct blob *b)
{
    return a->kind == b->kind && a->round == b->round && a->bytes == b->bytes && hash_equal(&a->hash, &b->hash);
}

int transfer_begin(struct transfer *transfer, const struct blob *blob)
{
    if (transfer->data && same_blob(&transfer->blob, blob)) {
        transfer->blob = *blob;
        return 0;
    }
    transfer_end(transfer);
    uint8_t *data = transfer->spare_bytes == blob->bytes ? transfer->spare : NULL;
    if (!data) {
        transfer_reset(transfer);
        data = blob->bytes > SIZE_MAX ? NULL : mem_new_aligned((size_t)blob->bytes, 1);
    }
    *transfer = (struct transfer){.data = data};
    if (!data) {
        return ERR_NOMEM;
    }
    transfer->blob = *blob;
    return 0;
}

int transfer_chunk(struct transfer *transfer, const struct msg *chunk, struct err *err)
{
    const struct msg_chunk *head = &chunk->chunk;
    const struct blob *blob = &transfer->blob;
    if (!transfer->data) {
        return err_set(err, ERR_PROTOCOL, "a chunk, but no transfer is under way");
    }
    if (head->kind != blob->kind || head->round != blob->round) {
        return err_set(err, ERR_PROTOCOL, "a chunk of %s %u; expected %s %u", blob_kind_name(head->kind), head->round,
                       blob_kind_name(blob->kind), blob->round);
    }
    if (head->offset != transfer->received) {
        return err_set(err, ERR_PROTOCOL, "a chunk of %s %u at byte %llu; expected byte %llu",
                       blob_kind_name(head->kind), head->round, (unsigned long long)head->offset,
                       (unsigned long long)transfer->received);
    }
    if (chunk->raw_len > blob->bytes - transfer->received) {
        return err_set(err, ERR_PROTOCOL, "a chunk of %u bytes where %llu are left of %s %u", chunk->raw_len,
                       (unsigned long long)(blob->bytes - transfer->received), blob_kind_name(head->kind), head->round);
    }
    if (chunk->raw_len > 0) {
        memcpy(transfer->data + transfer->received, chunk->raw, chunk->raw_len);
        transfer->received += chunk->raw_len;
    }
    return 0;
}

bool transfer_is_whole(const struct transfer *transfer)
{
    return transfer->data && transfer->received == transfer->blob.bytes;
}

int transfer_verify(const struct transfer *transfer, struct err *err)
{
    const struct blob *blob = &transfer->blob;
    if (!transfer_is_whole(transfer)) {
        return err_set(err, ERR_DATA, "%s %u is not whole: %llu of %llu bytes", blob_kind_name(blob->kind), blob->round,
                       (unsigned long long)transfer->received, (unsigned long long)blob->bytes);
    }
    struct hash128 hash = hash_of(transfer->data, (size_t)blob->bytes);
    if (!hash_equal(&hash, &blob->hash)) {
        char got[HASH_HEX], want[HASH_HEX];
        return err_set(err, ERR_DATA, "%s %u has hash %s; announced was %s", blob_kind_name(blob->kind), blob->round,
                       hash_hex(&hash, got), hash_hex(&blob->hash, want));
    }
    return 0;
}

uint8_t *transfer_take(struct transfer *transfer)
{
    uint8_t *data = transfer->data;
    mem_free(transfer->spare);
    *transfer = (struct transfer){0};
    return data;
}

void transfer_end(struct transfer *transfer)
{
    if (transfer->data) {
        mem_free(transfer->spare);
        *transfer = (struct transfer){.spare = transfer->data, .spare_bytes = transfer->blob.bytes};
    }
}

void transfer_reset(struct transfer *transfer)
{
    mem_free(transfer->data);
    mem_free(transfer->spare);
    *transfer = (struct transfer){0};
}
