/* The model file. Integers and floats are little-endian.
 *
 *   offset  bytes
 *        0      8  "STARLNGM"
 *        8      4  version, 1
 *       12      4  head: where the floats begin, a multiple of 64
 *       16     16  run id
 *       32     16  plan hash
 *       48     16  layout fingerprint
 *       64      4  round
 *       68     40  model: block, stages, blocks[4], width, stem, input, features, 4 bytes each
 *      108      4  table: bytes of the tensor table
 *      112      8  total: floats in all
 *      120      8  zero
 *      128  table  the tensor table as text, one line "name kind 64x3x3x3 offset" a tensor, the offset in floats from
 *                  the first one; zeros up to head
 *     head  4 * total  the floats
 *             16  XXH3-128 of everything before, canonical (big-endian)
 *
 * Valid if and only if (1) magic and version are these, (2) the length is head + 4 * total + 16 and head is 128 +
 * table, rounded up to 64, (3) the last 16 bytes are the hash of all others, (4) the model is one that layout_new
 * accepts and its layout has this total, fingerprint and table, to the byte, (5) padding and reserved bytes are zero
 * and (6) every float is finite. A reader that does not know Starling needs `head` and the table alone. */
#include "common/vec/modelfile.h"

#include "common/base/buf.h"
#include "common/base/byteorder.h"
#include "common/base/mem.h"

#include <math.h>
#include <string.h>

#define MAGIC       "STARLNGM"
#define VERSION     1
#define FIXED_BYTES 128
#define HEAD_MAX    (LAYOUT_TABLE_MAX + FIXED_BYTES)
#define HASH_BYTES  16
#define FILE_MAX    (HEAD_MAX + (size_t)LAYOUT_TOTAL_MAX * 4 + HASH_BYTES)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "floats are written as they lie in memory");
_Static_assert(sizeof(float) == 4, "floats are IEEE 754 binary32");

static void store_spec(uint8_t *p, const struct model_spec *spec)
{
    store_u32(p, spec->block);
    store_u32(p + 4, spec->stages);
    for (size_t i = 0; i < MODEL_STAGES_MAX; i++) {
        store_u32(p + 8 + 4 * i, spec->blocks[i]);
    }
    store_u32(p + 24, spec->width);
    store_u32(p + 28, spec->stem);
    store_u32(p + 32, spec->input);
    store_u32(p + 36, spec->features);
}

static void load_spec(const uint8_t *p, struct model_spec *spec)
{
    spec->block = load_u32(p);
    spec->stages = load_u32(p + 4);
    for (size_t i = 0; i < MODEL_STAGES_MAX; i++) {
        spec->blocks[i] = load_u32(p + 8 + 4 * i);
    }
    spec->width = load_u32(p + 24);
    spec->stem = load_u32(p + 28);
    spec->input = load_u32(p + 32);
    spec->features = load_u32(p + 36);
}

/* The head that belongs to this layout, to the byte; run, plan hash and round are the file's own. */
static int build_head(const struct model_info *info, const struct layout *layout, struct buf *head)
{
    uint8_t fixed[FIXED_BYTES] = {0};
    static const uint8_t zeros[64];
    int rc = buf_append(head, fixed, sizeof fixed);
    rc = rc ? rc : layout_table(layout, head);
    if (rc) {
        return rc;
    }
    size_t table = head->len - FIXED_BYTES, padding = (64 - head->len % 64) % 64;
    rc = buf_append(head, zeros, padding);
    if (rc) {
        return rc;
    }
    uint8_t *p = head->data;
    memcpy(p, MAGIC, 8);
    store_u32(p + 8, VERSION);
    store_u32(p + 12, (uint32_t)head->len);
    memcpy(p + 16, info->run.bytes, 16);
    memcpy(p + 32, info->plan_hash.bytes, 16);
    memcpy(p + 48, layout->fingerprint.bytes, 16);
    store_u32(p + 64, info->round);
    store_spec(p + 68, &layout->spec);
    store_u32(p + 108, (uint32_t)table);
    store_u64(p + 112, layout->total);
    return 0;
}

int modelfile_encode(const struct model_info *info, const struct layout *layout, const float *params, struct buf *head,
                     struct hash128 *tail)
{
    head->len = 0;
    int rc = build_head(info, layout, head);
    struct hash_stream *stream = rc ? NULL : hash_stream_new();
    if (!stream) {
        return rc ? rc : ERR_NOMEM;
    }
    hash_stream_add(stream, head->data, head->len);
    hash_stream_add(stream, params, (size_t)layout->total * 4);
    *tail = hash_stream_end(stream);
    hash_stream_free(stream);
    return 0;
}

int modelfile_save(const struct disk *disk, const char *path, const struct model_info *info,
                   const struct layout *layout, const float *params, struct err *err)
{
    struct buf head;
    struct hash128 tail;
    buf_init(&head, HEAD_MAX);
    int rc = modelfile_encode(info, layout, params, &head, &tail);
    if (rc) {
        (void)err_set(err, rc, "%s: %s", path, err_meaning(rc));
    } else {
        const struct span parts[] = {
            {head.data, head.len}, {params, (size_t)layout->total * 4}, {tail.bytes, sizeof tail.bytes}};
        rc = disk_save(disk, path, parts, sizeof parts / sizeof parts[0], err);
    }
    buf_fini(&head);
    return rc;
}

/* Conditions (1) to (3): what can be said before the model is looked at. */
static int check_frame(const uint8_t *data, size_t len, struct err *err)
{
    if (len < 8 || memcmp(data, MAGIC, 8) != 0) {
        return err_set(err, ERR_DATA, "not a Starling model file (its first bytes are wrong)");
    }
    if (len < FIXED_BYTES + HASH_BYTES) {
        return err_set(err, ERR_DATA, "truncated: %zu bytes are less than a header", len);
    }
    if (load_u32(data + 8) != VERSION) {
        return err_set(err, ERR_DATA, "model file version %u, this program reads version %u", load_u32(data + 8),
                       VERSION);
    }
    uint64_t head = load_u32(data + 12), table = load_u32(data + 108), total = load_u64(data + 112);
    if (total > LAYOUT_TOTAL_MAX || head > HEAD_MAX || head != (FIXED_BYTES + table + 63) / 64 * 64) {
        return err_set(err, ERR_DATA, "the header's sizes are impossible");
    }
    uint64_t want = head + total * 4 + HASH_BYTES;
    if (len != want) {
        return err_set(err, ERR_DATA, "%s: %zu bytes, the header says %llu", len < want ? "truncated" : "too long", len,
                       (unsigned long long)want);
    }
    struct hash128 hash = hash_of(data, len - HASH_BYTES);
    if (memcmp(hash.bytes, data + len - HASH_BYTES, HASH_BYTES) != 0) {
        return err_set(err, ERR_DATA, "damaged: the content hash does not match");
    }
    return 0;
}

/* Conditions (4) and (5): the head must be the one that we would write for this model. */
static int check_head(const uint8_t *data, const struct model_info *info, const struct layout *layout, struct err *err)
{
    if (memcmp(data + 48, layout->fingerprint.bytes, 16) != 0 || load_u64(data + 112) != layout->total) {
        return err_set(err, ERR_DATA, "the layout does not belong to the model in the header");
    }
    struct buf head;
    buf_init(&head, HEAD_MAX);
    int rc = build_head(info, layout, &head);
    if (rc) {
        rc = err_set(err, rc, "%s", err_meaning(rc));
    } else if (head.len != load_u32(data + 12) || memcmp(head.data, data, head.len) != 0) {
        rc = err_set(err, ERR_DATA, "the tensor table does not belong to the model in the header");
    }
    buf_fini(&head);
    return rc;
}

static int load_params(const uint8_t *data, const struct layout *layout, float **params, struct err *err)
{
    float *values = mem_new_aligned((size_t)layout->total, sizeof *values);
    if (!values) {
        return err_set(err, ERR_NOMEM, "out of memory for %llu parameters", (unsigned long long)layout->total);
    }
    memcpy(values, data, (size_t)layout->total * 4);
    for (uint64_t i = 0; i < layout->total; i++) {
        if (!isfinite(values[i])) {
            mem_free(values);
            return err_set(err, ERR_DATA, "parameter %llu is not finite", (unsigned long long)i);
        }
    }
    *params = values;
    return 0;
}

int modelfile_decode(const uint8_t *data, size_t len, struct model_info *info, struct layout **layout, float **params,
                     struct err *err)
{
    *info = (struct model_info){0};
    *layout = NULL;
    *params = NULL;
    int rc = check_frame(data, len, err);
    if (rc) {
        return rc;
    }
    memcpy(info->run.bytes, data + 16, 16);
    memcpy(info->plan_hash.bytes, data + 32, 16);
    info->round = load_u32(data + 64);
    load_spec(data + 68, &info->spec);
    rc = layout_new(&info->spec, layout, err);
    if (rc == ERR_CONFIG) {
        rc = ERR_DATA;
        if (err) {
            err->code = rc;
            (void)err_prefix(err, "the model in the header");
        }
    }
    rc = rc ? rc : check_head(data, info, *layout, err);
    rc = rc ? rc : load_params(data + load_u32(data + 12), *layout, params, err);
    if (rc) {
        layout_free(*layout);
        *layout = NULL;
        *info = (struct model_info){0};
    }
    return rc;
}

int modelfile_load(const struct disk *disk, const char *path, struct model_info *info, struct layout **layout,
                   float **params, struct err *err)
{
    uint8_t *data;
    size_t len;
    *info = (struct model_info){0};
    *layout = NULL;
    *params = NULL;
    int rc = disk_load(disk, path, FILE_MAX, &data, &len, err);
    if (rc) {
        return rc;
    }
    rc = modelfile_decode(data, len, info, layout, params, err);
    mem_free(data);
    if (rc) {
        (void)err_prefix(err, "%s", path);
    }
    return rc;
}
