/* The files in a client's state folder. Integers are little-endian, floats and doubles IEEE 754 in the same order.
 * Every file begins with the same 12 bytes and ends with its hash:
 *
 *   offset  bytes
 *        0      8  "STARLNGI" (instance), "STARLNGS" (state), "STARLNGP" (pending), "STARLNGE" (spent),
 *                  "STARLNGK" (secret)
 *        8      4  version: 2, pending 4
 *      ...         as below
 *             16  XXH3-128 of everything before, canonical (big-endian)
 *
 *   instance                       state, and the beginning of pending
 *       12      4  zero                12      4  round
 *       16     16  instance id         16     16  run id
 *                                      32     16  plan hash
 *                                      48      8  bytes of the carry
 *                                      56      4  round of the carry
 *                                      60      4  zero
 *                                  state only
 *                                      64         the carry
 *   pending only
 *       64     72  report: images, seen (8 each), steps, zero (4 each), loss, its contrastive and its matching term,
 *                  remote share, images a second, training time in ms (8 each)
 *      136     72  description of the update: kind, round, element, dimension, encoder, zero (4 each), count, bytes
 *                  (8 each), layout, hash (16 each)
 *      208     72  description of the features; all zero: there are none
 *      280     64  measures of the aggregated encoder and of the client's own, as watch_store has them
 *      344     40  privacy: releases, zero (4 each), epsilon and delta of the features, of the update (8 each); all
 *                  zero: the plan has no noise
 *      384         the update, the features, the carry
 *   spent
 *       12      4  releases
 *       16     16  run id
 *       32     16  their costs in all: of the features, of the updates (8 each)
 *   secret
 *       12      4  zero
 *       16     32  the secret
 *
 * A pending file of version 2 has no measures, and its parts follow at 280; one of version 3 has no privacy, and they
 * follow at 344.
 *
 * Valid if and only if (1) the first 12 bytes are these, (2) the length is what the sizes say, (3) the last 16 bytes
 * are the hash of all others, (4) in pending, the descriptions are sane (blob_check), of the right kinds and of this
 * round, and the figures of privacy are none below zero, (5) in spent, neither are the costs. */
#include "client/shell/files.h"

#include "common/base/byteorder.h"
#include "common/base/mem.h"

#include <math.h>
#include <string.h>

#define VERSION         2
#define PENDING_VERSION 4
#define INSTANCE_BYTES  32
#define SPENT_BYTES     48
#define SECRET_END      (16 + SECRET_BYTES)
#define STATE_BYTES     64
#define PENDING_BYTES   384
#define REPORT_AT       64
#define UPDATE_AT       136
#define FEATURES_AT     208
#define WATCH_AT        280
#define PRIVACY_AT      344
#define BLOB_BYTES      72
#define HASH_BYTES      16

/* No zero behind them. */
static const char instance_magic[8] = "STARLNGI", state_magic[8] = "STARLNGS", pending_magic[8] = "STARLNGP",
                  spent_magic[8] = "STARLNGE", secret_magic[8] = "STARLNGK";

void kept_carry_fini(struct kept_carry *carry)
{
    mem_free(carry->data);
    *carry = (struct kept_carry){0};
}

void kept_pending_fini(struct kept_pending *pending)
{
    contribution_fini(&pending->contribution);
    kept_carry_fini(&pending->carry);
    *pending = (struct kept_pending){0};
}

/* ---- Writing ---- */

static void store_magic(uint8_t *p, const char *magic)
{
    memcpy(p, magic, 8);
    store_u32(p + 8, magic == pending_magic ? PENDING_VERSION : VERSION);
}

static void store_front(uint8_t *p, const char *magic, uint32_t round, const struct hash128 *run,
                        const struct hash128 *plan_hash, const struct kept_carry *carry)
{
    store_magic(p, magic);
    store_u32(p + 12, round);
    memcpy(p + 16, run->bytes, 16);
    memcpy(p + 32, plan_hash->bytes, 16);
    store_u64(p + 48, carry->bytes);
    store_u32(p + 56, carry->round);
    store_u32(p + 60, 0);
}

static void store_report(uint8_t *p, const struct report *report)
{
    store_u64(p, report->images);
    store_u64(p + 8, report->seen);
    store_u32(p + 16, report->steps);
    store_u32(p + 20, 0);
    store_f64(p + 24, report->loss);
    store_f64(p + 32, report->loss_contrast);
    store_f64(p + 40, report->loss_matching);
    store_f64(p + 48, report->remote_share);
    store_f64(p + 56, report->images_per_second);
    store_u64(p + 64, report->train_ms);
}

static void store_blob(uint8_t *p, const struct blob *blob)
{
    const uint32_t words[] = {blob->kind, blob->round, blob->element, blob->dimension, blob->encoder, 0};
    for (size_t i = 0; i < 6; i++) {
        store_u32(p + 4 * i, words[i]);
    }
    store_u64(p + 24, blob->count);
    store_u64(p + 32, blob->bytes);
    memcpy(p + 40, blob->layout.bytes, 16);
    memcpy(p + 56, blob->hash.bytes, 16);
}

static void store_privacy(uint8_t *p, const struct privacy *privacy)
{
    store_u32(p, privacy->releases);
    store_u32(p + 4, 0);
    store_f64(p + 8, privacy->features_epsilon);
    store_f64(p + 16, privacy->features_delta);
    store_f64(p + 24, privacy->update_epsilon);
    store_f64(p + 32, privacy->update_delta);
}

static void add_part(struct file_image *image, const void *data, size_t len)
{
    if (len > 0) {
        image->parts[image->count++] = (struct span){data, len};
    }
}

static int begin_file(struct file_image *out, const uint8_t *fixed, size_t len)
{
    out->count = 0;
    buf_init(&out->head, len);
    int rc = buf_append(&out->head, fixed, len);
    add_part(out, out->head.data, out->head.len);
    return rc;
}

static int end_file(struct file_image *image)
{
    struct hash_stream *stream = hash_stream_new();
    if (!stream) {
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < image->count; i++) {
        hash_stream_add(stream, image->parts[i].data, image->parts[i].len);
    }
    image->tail = hash_stream_end(stream);
    hash_stream_free(stream);
    add_part(image, image->tail.bytes, sizeof image->tail.bytes);
    return 0;
}

void file_image_fini(struct file_image *image)
{
    buf_fini(&image->head);
}

int files_encode_state(const struct kept_state *state, struct file_image *out)
{
    uint8_t fixed[STATE_BYTES];
    store_front(fixed, state_magic, state->round, &state->run, &state->plan_hash, &state->carry);
    int rc = begin_file(out, fixed, sizeof fixed);
    add_part(out, state->carry.data, state->carry.bytes);
    return rc ? rc : end_file(out);
}

int files_encode_pending(const struct kept_pending *pending, struct file_image *out)
{
    const struct contribution *contribution = &pending->contribution;
    uint8_t fixed[PENDING_BYTES] = {0};
    store_front(fixed, pending_magic, contribution->round, &pending->run, &pending->plan_hash, &pending->carry);
    store_report(fixed + REPORT_AT, &contribution->report);
    store_blob(fixed + UPDATE_AT, &contribution->update_blob);
    watch_store(fixed + WATCH_AT, &contribution->report.aggregate);
    watch_store(fixed + WATCH_AT + WATCH_BYTES, &contribution->report.own);
    store_privacy(fixed + PRIVACY_AT, &contribution->report.privacy);
    if (contribution->features) {
        store_blob(fixed + FEATURES_AT, &contribution->features_blob);
    }
    int rc = begin_file(out, fixed, sizeof fixed);
    add_part(out, contribution->update->data, contribution->update->len);
    if (contribution->features) {
        add_part(out, contribution->features->data, contribution->features->len);
    }
    add_part(out, pending->carry.data, pending->carry.bytes);
    return rc ? rc : end_file(out);
}

int files_encode_instance(const struct hash128 *instance, struct file_image *out)
{
    uint8_t fixed[INSTANCE_BYTES] = {0};
    store_magic(fixed, instance_magic);
    memcpy(fixed + 16, instance->bytes, 16);
    int rc = begin_file(out, fixed, sizeof fixed);
    return rc ? rc : end_file(out);
}

int files_encode_secret(const uint8_t secret[SECRET_BYTES], struct file_image *out)
{
    uint8_t fixed[SECRET_END] = {0};
    store_magic(fixed, secret_magic);
    memcpy(fixed + 16, secret, SECRET_BYTES);
    int rc = begin_file(out, fixed, sizeof fixed);
    return rc ? rc : end_file(out);
}

int files_encode_spent(const struct kept_spent *spent, struct file_image *out)
{
    uint8_t fixed[SPENT_BYTES];
    store_magic(fixed, spent_magic);
    store_u32(fixed + 12, spent->releases);
    memcpy(fixed + 16, spent->run.bytes, 16);
    store_f64(fixed + 32, spent->features);
    store_f64(fixed + 40, spent->updates);
    int rc = begin_file(out, fixed, sizeof fixed);
    return rc ? rc : end_file(out);
}

/* ---- Reading ---- */

/* Of the fixed part of a pending file, whose first 12 bytes are there. */
static size_t pending_bytes(const uint8_t *data)
{
    uint32_t version = load_u32(data + 8);
    return version == 2 ? WATCH_AT : version == 3 ? PRIVACY_AT : PENDING_BYTES;
}

static bool is_cost(double x)
{
    return isfinite(x) && x >= 0;
}

/* Conditions (1) and (3), and that the fixed part is there. */
static int check_file(const uint8_t *data, size_t len, const char *magic, size_t fixed, struct err *err)
{
    if (len < fixed + HASH_BYTES) {
        return err_set(err, ERR_DATA, "truncated: %zu bytes", len);
    }
    if (memcmp(data, magic, 8) != 0) {
        return err_set(err, ERR_DATA, "the first bytes are wrong");
    }
    uint32_t version = load_u32(data + 8), newest = magic == pending_magic ? PENDING_VERSION : VERSION;
    if (version < VERSION || version > newest) {
        return err_set(err, ERR_DATA, "version %u, this program reads versions up to %u", version, newest);
    }
    struct hash128 hash = hash_of(data, len - HASH_BYTES);
    if (memcmp(hash.bytes, data + len - HASH_BYTES, HASH_BYTES) != 0) {
        return err_set(err, ERR_DATA, "damaged: the checksum does not match");
    }
    return 0;
}

/* The bytes that the front says the carry has; as many as no file has when it says nonsense. */
static uint64_t claimed_carry(const uint8_t *data)
{
    uint64_t bytes = load_u64(data + 48);
    return bytes > FILES_MAX ? FILES_MAX : bytes;
}

static int load_carry(const uint8_t *front, const uint8_t *bytes, size_t len, struct kept_carry *out, struct err *err)
{
    void *data = len ? mem_new_aligned(len, 1) : NULL;
    *out = (struct kept_carry){0};
    if (len && !data) {
        return err_set(err, ERR_NOMEM, "no memory for %zu bytes of a site's own state", len);
    }
    if (len) {
        memcpy(data, bytes, len);
    }
    *out = (struct kept_carry){.round = load_u32(front + 56), .data = data, .bytes = len};
    return 0;
}

static void load_report(const uint8_t *p, struct report *out)
{
    *out = (struct report){
        .images = load_u64(p),
        .seen = load_u64(p + 8),
        .steps = load_u32(p + 16),
        .loss = load_f64(p + 24),
        .loss_contrast = load_f64(p + 32),
        .loss_matching = load_f64(p + 40),
        .remote_share = load_f64(p + 48),
        .images_per_second = load_f64(p + 56),
        .train_ms = load_u64(p + 64),
    };
}

static void load_blob(const uint8_t *p, struct blob *out)
{
    *out = (struct blob){
        .kind = load_u32(p),
        .round = load_u32(p + 4),
        .element = load_u32(p + 8),
        .dimension = load_u32(p + 12),
        .encoder = load_u32(p + 16),
        .count = load_u64(p + 24),
        .bytes = load_u64(p + 32),
    };
    memcpy(out->layout.bytes, p + 40, 16);
    memcpy(out->hash.bytes, p + 56, 16);
}

static int load_privacy(const uint8_t *p, struct privacy *out, struct err *err)
{
    *out = (struct privacy){.counted = load_u32(p) > 0,
                            .releases = load_u32(p),
                            .features_epsilon = load_f64(p + 8),
                            .features_delta = load_f64(p + 16),
                            .update_epsilon = load_f64(p + 24),
                            .update_delta = load_f64(p + 32)};
    bool sane = is_cost(out->features_epsilon) && is_cost(out->features_delta) && is_cost(out->update_epsilon) &&
                is_cost(out->update_delta);
    sane = sane && (out->counted || (out->features_epsilon == 0 && out->update_epsilon == 0));
    return sane ? 0 : err_set(err, ERR_DATA, "the figures of privacy are impossible");
}

static int check_blob(const struct blob *blob, uint32_t kind, uint32_t round, struct err *err)
{
    if (blob_check(blob, err)) {
        return err_set(err, ERR_DATA, "the description of the %s is impossible", blob_kind_name(kind));
    }
    if (blob->kind != kind || blob->round != round) {
        return err_set(err, ERR_DATA, "the %s is described as a %s of round %u", blob_kind_name(kind),
                       blob_kind_name(blob->kind), blob->round);
    }
    return 0;
}

int files_decode_state(const uint8_t *data, size_t len, struct kept_state *out, struct err *err)
{
    *out = (struct kept_state){0};
    int rc = check_file(data, len, state_magic, STATE_BYTES, err);
    if (rc == 0 && claimed_carry(data) != len - STATE_BYTES - HASH_BYTES) {
        rc = err_set(err, ERR_DATA, "%zu bytes do not agree with the size of the carry", len);
    }
    rc = rc ? rc : load_carry(data, data + STATE_BYTES, len - STATE_BYTES - HASH_BYTES, &out->carry, err);
    if (rc == 0) {
        out->round = load_u32(data + 12);
        memcpy(out->run.bytes, data + 16, 16);
        memcpy(out->plan_hash.bytes, data + 32, 16);
    }
    return rc;
}

static int load_contribution(const uint8_t *data, size_t len, struct contribution *out, struct err *err)
{
    static const uint8_t none[BLOB_BYTES];
    bool has_features = memcmp(data + FEATURES_AT, none, BLOB_BYTES) != 0;
    out->round = load_u32(data + 12);
    load_report(data + REPORT_AT, &out->report);
    size_t parts_at = pending_bytes(data);
    if (parts_at >= PRIVACY_AT) {
        out->report.aggregate = watch_load(data + WATCH_AT);
        out->report.own = watch_load(data + WATCH_AT + WATCH_BYTES);
    }
    load_blob(data + UPDATE_AT, &out->update_blob);
    load_blob(data + FEATURES_AT, &out->features_blob);
    int rc = check_blob(&out->update_blob, BLOB_UPDATE, out->round, err);
    if (rc == 0 && parts_at >= PENDING_BYTES) {
        rc = load_privacy(data + PRIVACY_AT, &out->report.privacy, err);
    }
    if (rc == 0 && has_features) {
        rc = check_blob(&out->features_blob, BLOB_FEATURES, out->round, err);
    }
    if (rc) {
        return rc;
    }
    uint64_t update = out->update_blob.bytes, features = out->features_blob.bytes;
    if (claimed_carry(data) + update + features != len - parts_at - HASH_BYTES) {
        return err_set(err, ERR_DATA, "%zu bytes do not agree with the sizes of the parts", len);
    }
    out->update = bytes_copy(data + parts_at, (size_t)update);
    out->features = has_features ? bytes_copy(data + parts_at + update, (size_t)features) : NULL;
    if (!out->update || (has_features && !out->features)) {
        return err_set(err, ERR_NOMEM, "no memory for a contribution of %zu bytes", len);
    }
    return 0;
}

int files_decode_pending(const uint8_t *data, size_t len, struct kept_pending *out, struct err *err)
{
    *out = (struct kept_pending){0};
    int rc = check_file(data, len, pending_magic, len < 12 ? PENDING_BYTES : pending_bytes(data), err);
    rc = rc ? rc : load_contribution(data, len, &out->contribution, err);
    if (rc == 0) {
        size_t carry = (size_t)claimed_carry(data);
        rc = load_carry(data, data + len - HASH_BYTES - carry, carry, &out->carry, err);
        memcpy(out->run.bytes, data + 16, 16);
        memcpy(out->plan_hash.bytes, data + 32, 16);
    }
    if (rc) {
        kept_pending_fini(out);
    }
    return rc;
}

int files_decode_instance(const uint8_t *data, size_t len, struct hash128 *out, struct err *err)
{
    *out = (struct hash128){0};
    int rc = check_file(data, len, instance_magic, INSTANCE_BYTES, err);
    if (rc == 0 && len != INSTANCE_BYTES + HASH_BYTES) {
        rc = err_set(err, ERR_DATA, "too long: %zu bytes", len);
    }
    if (rc == 0) {
        memcpy(out->bytes, data + 16, 16);
    }
    return rc;
}

int files_decode_secret(const uint8_t *data, size_t len, uint8_t out[SECRET_BYTES], struct err *err)
{
    memset(out, 0, SECRET_BYTES);
    int rc = check_file(data, len, secret_magic, SECRET_END, err);
    if (rc == 0 && len != SECRET_END + HASH_BYTES) {
        rc = err_set(err, ERR_DATA, "too long: %zu bytes", len);
    }
    if (rc == 0) {
        memcpy(out, data + 16, SECRET_BYTES);
    }
    return rc;
}

int files_decode_spent(const uint8_t *data, size_t len, struct kept_spent *out, struct err *err)
{
    *out = (struct kept_spent){0};
    int rc = check_file(data, len, spent_magic, SPENT_BYTES, err);
    if (rc == 0 && len != SPENT_BYTES + HASH_BYTES) {
        rc = err_set(err, ERR_DATA, "too long: %zu bytes", len);
    }
    if (rc) {
        return rc;
    }
    struct kept_spent spent = {
        .releases = load_u32(data + 12), .features = load_f64(data + 32), .updates = load_f64(data + 40)};
    memcpy(spent.run.bytes, data + 16, 16);
    if (!is_cost(spent.features) || !is_cost(spent.updates)) {
        return err_set(err, ERR_DATA, "the costs are impossible");
    }
    *out = spent;
    return 0;
}
