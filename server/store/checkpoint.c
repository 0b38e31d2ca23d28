/* The checkpoint file: everything of a durable state but the model's floats. Integers are little-endian, doubles are
 * IEEE 754 binary64 in the same order.
 *
 *   offset  bytes
 *        0      8  "STARLNGC"
 *        8      4  version, 3
 *       12      4  round
 *       16     16  run id
 *       32     16  layout fingerprint of the model
 *       48     16  XXH3-128 of the model's floats
 *       64      4  plan: bytes of the plan
 *       68      4  counted: entries of the table of counted contributions
 *       72      8  bank: bytes of the feature bank
 *       80     88  summary of the round: round, accepted, declined, zero (4 each); closed at (wall clock, ms), seconds,
 *                  images, loss, its contrastive and its matching term, remote share, bytes up, bytes down (8 each)
 *      168     64  measures of the round's features: of the aggregated encoder with which it began, of the clients'
 *                  own, as watch_store has them
 *      232      8  state: bytes of the state of aggregation.optimizer
 *      240     80  norms: the usual norm of updates' trained parameters in each of the last five rounds, newest first,
 *                  then that of their statistics; 0: none (8 each)
 *      320   plan  the plan's canonical bytes
 *              68 * counted  last counted round (4), name (64, zeros behind it)
 *            bank  the bank's bytes
 *           state  the optimiser's state, f32
 *              16  XXH3-128 of everything before, canonical (big-endian)
 *
 * Valid if and only if (1) magic and version are these, (2) the length is 320 + plan + 68 * counted + bank + state +
 * 16, (3) the last 16 bytes are the hash of all others, (4) every name is a name followed by zeros, (5) every norm is
 * finite and no less than 0. That the model file holds the announced floats is for the store to check. A checkpoint of
 * version 2 has no norms, and its plan begins at 240; one of version 1 has neither measures nor a state, and its plan
 * begins at 168. */
#include "server/store/checkpoint.h"

#include "common/base/byteorder.h"
#include "common/base/mem.h"

#include <math.h>
#include <string.h>

#define VERSION       3
#define FIXED_BYTES   320
#define FIXED_BYTES_2 240
#define FIXED_BYTES_1 168
#define STATE_AT      232
#define NORMS_AT      240
#define NORM_COUNT    ((size_t)CHECKPOINT_PARTS * CHECKPOINT_NORMS)
#define COUNTED_BYTES 68
#define NAME_BYTES    64
#define HASH_BYTES    16
#define HEAD_MAX      ((size_t)64 << 20) /* a plan, and counted contributions of 900,000 sites */

static const char magic[8] = "STARLNGC"; /* no zero behind it */

static void store_summary(uint8_t *p, const struct round_summary *summary)
{
    store_u32(p, summary->round);
    store_u32(p + 4, summary->accepted);
    store_u32(p + 8, summary->declined);
    store_u32(p + 12, 0);
    store_u64(p + 16, (uint64_t)summary->closed_unix_ms);
    store_f64(p + 24, summary->seconds);
    store_u64(p + 32, summary->images);
    store_f64(p + 40, summary->loss);
    store_f64(p + 48, summary->loss_contrast);
    store_f64(p + 56, summary->loss_matching);
    store_f64(p + 64, summary->remote_share);
    store_u64(p + 72, summary->bytes_up);
    store_u64(p + 80, summary->bytes_down);
    watch_store(p + 88, &summary->aggregate);
    watch_store(p + 88 + WATCH_BYTES, &summary->own);
}

static void load_summary(const uint8_t *p, bool measures, struct round_summary *summary)
{
    *summary = (struct round_summary){
        .round = load_u32(p),
        .accepted = load_u32(p + 4),
        .declined = load_u32(p + 8),
        .closed_unix_ms = (int64_t)load_u64(p + 16),
        .seconds = load_f64(p + 24),
        .images = load_u64(p + 32),
        .loss = load_f64(p + 40),
        .loss_contrast = load_f64(p + 48),
        .loss_matching = load_f64(p + 56),
        .remote_share = load_f64(p + 64),
        .bytes_up = load_u64(p + 72),
        .bytes_down = load_u64(p + 80),
    };
    if (measures) {
        summary->aggregate = watch_load(p + 88);
        summary->own = watch_load(p + 88 + WATCH_BYTES);
    }
}

int checkpoint_encode(const struct checkpoint *checkpoint, const struct checkpoint_model *model, struct buf *head,
                      struct hash128 *tail)
{
    uint8_t fixed[FIXED_BYTES];
    memcpy(fixed, magic, sizeof magic);
    store_u32(fixed + 8, VERSION);
    store_u32(fixed + 12, checkpoint->round);
    memcpy(fixed + 16, checkpoint->run.bytes, 16);
    memcpy(fixed + 32, model->layout.bytes, 16);
    memcpy(fixed + 48, model->hash.bytes, 16);
    store_u32(fixed + 64, checkpoint->plan_len);
    store_u32(fixed + 68, checkpoint->counted_count);
    store_u64(fixed + 72, checkpoint->bank_len);
    store_summary(fixed + 80, &checkpoint->summary);
    store_u64(fixed + STATE_AT, checkpoint->optimiser_len);
    for (size_t i = 0; i < NORM_COUNT; i++) {
        store_f64(fixed + NORMS_AT + 8 * i, checkpoint->norms[i / CHECKPOINT_NORMS][i % CHECKPOINT_NORMS]);
    }

    head->len = 0;
    head->max = HEAD_MAX;
    int rc = buf_append(head, fixed, sizeof fixed);
    rc = rc ? rc : buf_append(head, checkpoint->plan, checkpoint->plan_len);
    for (uint32_t i = 0; i < checkpoint->counted_count && rc == 0; i++) {
        uint8_t entry[COUNTED_BYTES] = {0};
        store_u32(entry, checkpoint->counted[i].round);
        memcpy(entry + 4, checkpoint->counted[i].name, strnlen(checkpoint->counted[i].name, NAME_BYTES));
        rc = buf_append(head, entry, sizeof entry);
    }
    struct hash_stream *stream = rc ? NULL : hash_stream_new();
    if (!stream) {
        return rc ? rc : ERR_NOMEM;
    }
    hash_stream_add(stream, head->data, head->len);
    if (checkpoint->bank_len > 0) {
        hash_stream_add(stream, checkpoint->bank, (size_t)checkpoint->bank_len);
    }
    if (checkpoint->optimiser_len > 0) {
        hash_stream_add(stream, checkpoint->optimiser, (size_t)checkpoint->optimiser_len);
    }
    *tail = hash_stream_end(stream);
    hash_stream_free(stream);
    return 0;
}

static bool has_measures(const uint8_t *data)
{
    return load_u32(data + 8) > 1;
}

/* Of what stands before the plan. */
static size_t fixed_bytes(const uint8_t *data)
{
    uint32_t version = load_u32(data + 8);
    return version > 2 ? FIXED_BYTES : version > 1 ? FIXED_BYTES_2 : FIXED_BYTES_1;
}

static uint64_t state_bytes(const uint8_t *data)
{
    return has_measures(data) ? load_u64(data + STATE_AT) : 0;
}

/* Conditions (1) to (3). */
static int check_frame(const uint8_t *data, size_t len, struct err *err)
{
    if (len < FIXED_BYTES_1 + HASH_BYTES) {
        return err_set(err, ERR_DATA, "truncated: %zu bytes", len);
    }
    if (memcmp(data, magic, sizeof magic) != 0) {
        return err_set(err, ERR_DATA, "no checkpoint: the first bytes are wrong");
    }
    uint32_t version = load_u32(data + 8);
    if (version < 1 || version > VERSION) {
        return err_set(err, ERR_DATA, "version %u, this program reads versions up to %d", version, VERSION);
    }
    if (len < fixed_bytes(data) + HASH_BYTES) {
        return err_set(err, ERR_DATA, "truncated: %zu bytes", len);
    }
    uint64_t rest = len - fixed_bytes(data) - HASH_BYTES, bank = load_u64(data + 72);
    uint64_t tables = load_u32(data + 64) + (uint64_t)load_u32(data + 68) * COUNTED_BYTES;
    if (tables > rest || bank > rest - tables || state_bytes(data) != rest - tables - bank) {
        return err_set(err, ERR_DATA, "%zu bytes do not agree with the sizes in the header", len);
    }
    struct hash128 hash = hash_of(data, len - HASH_BYTES);
    if (memcmp(hash.bytes, data + len - HASH_BYTES, HASH_BYTES) != 0) {
        return err_set(err, ERR_DATA, "damaged: the checksum does not match");
    }
    return 0;
}

/* Condition (5). */
static int load_norms(const uint8_t *data, struct checkpoint *out, struct err *err)
{
    for (size_t i = 0; load_u32(data + 8) > 2 && i < NORM_COUNT; i++) {
        double norm = load_f64(data + NORMS_AT + 8 * i);
        if (!(isfinite(norm) && norm >= 0)) {
            return err_set(err, ERR_DATA, "a norm of updates is %g", norm);
        }
        out->norms[i / CHECKPOINT_NORMS][i % CHECKPOINT_NORMS] = norm;
    }
    return 0;
}

/* Condition (4). */
static int load_counted(const uint8_t *p, struct counted *out, struct err *err)
{
    out->round = load_u32(p);
    memcpy(out->name, p + 4, NAME_BYTES);
    out->name[NAME_BYTES] = '\0';
    size_t len = strlen(out->name);
    for (size_t i = len; i < NAME_BYTES; i++) {
        if (out->name[i] != '\0') {
            return err_set(err, ERR_DATA, "a counted contribution's name is followed by other bytes");
        }
    }
    return name_is_valid(out->name) ? 0 : err_set(err, ERR_DATA, "a counted contribution has no valid name");
}

/* A copy with at least one byte, so that an empty part is no NULL. */
static uint8_t *copy(const uint8_t *data, size_t len)
{
    uint8_t *bytes = mem_new(len + 1, 1);
    if (bytes) {
        memcpy(bytes, data, len);
    }
    return bytes;
}

int checkpoint_decode(const uint8_t *data, size_t len, struct checkpoint *out, struct checkpoint_model *model,
                      struct err *err)
{
    *out = (struct checkpoint){0};
    int rc = check_frame(data, len, err);
    if (rc) {
        return rc;
    }
    out->round = load_u32(data + 12);
    memcpy(out->run.bytes, data + 16, 16);
    memcpy(model->layout.bytes, data + 32, 16);
    memcpy(model->hash.bytes, data + 48, 16);
    out->plan_len = load_u32(data + 64);
    out->counted_count = load_u32(data + 68);
    out->bank_len = load_u64(data + 72);
    load_summary(data + 80, has_measures(data), &out->summary);
    out->optimiser_len = state_bytes(data);
    rc = load_norms(data, out, err);
    if (rc) {
        return rc;
    }

    const uint8_t *plan = data + fixed_bytes(data), *counted = plan + out->plan_len;
    const uint8_t *bank = counted + (size_t)out->counted_count * COUNTED_BYTES;
    out->plan = copy(plan, out->plan_len);
    out->bank = copy(bank, (size_t)out->bank_len);
    out->optimiser = copy(bank + out->bank_len, (size_t)out->optimiser_len);
    out->counted = mem_new(out->counted_count, sizeof *out->counted);
    if (!out->plan || !out->bank || !out->optimiser || !out->counted) {
        rc = err_set(err, ERR_NOMEM, "out of memory for a checkpoint of %zu bytes", len);
    }
    for (uint32_t i = 0; i < out->counted_count && rc == 0; i++) {
        rc = load_counted(counted + (size_t)i * COUNTED_BYTES, &out->counted[i], err);
    }
    if (rc) {
        checkpoint_fini(out);
    }
    return rc;
}

void checkpoint_fini(struct checkpoint *checkpoint)
{
    mem_free(checkpoint->plan);
    mem_free(checkpoint->params);
    mem_free(checkpoint->bank);
    mem_free(checkpoint->optimiser);
    mem_free(checkpoint->counted);
    *checkpoint = (struct checkpoint){0};
}
