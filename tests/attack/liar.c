/* A client that lies: the real starling-client, with three calls wrapped at link time (CMakeLists.txt), so that it
 * trains, speaks and restarts as the real one does, and only what it hands over is another thing.
 *
 *   STARLING_LIE="KIND[:NUMBER] NAME...[; KIND[:NUMBER] NAME...]"     sites that are not named are honest
 *   STARLING_LIE_OUT=DIR                                              where told, spy and witness write
 *
 *   scale:X     the update X times
 *   flip[:X]    the update -X times (1)
 *   stats:X     of the update the statistics of batch normalisation alone X times
 *   nan         a NaN in the middle of the update
 *   noise:X     Gaussian noise of X times the update's length in place of it
 *   constant    all features are one unit vector, the same in all rounds
 *   copy        the features that it last received from others in place of its own
 *   witness     tells the truth and writes down which image each of its features shows: for scoring what a spy guesses
 *   spy:N       tells the truth and keeps, every N rounds, the features that it received and the key encoder that all
 *               sites have in common
 *
 * DIR/told gets a line "NAME ROUND KIND" for each lie that was told, so that a measurement can see that it was one. A
 * witness writes DIR/NAME/own-ROUND.npy and .txt (paths, row by row), a spy DIR/NAME/remote-ROUND.npy and
 * key-ROUND.starling. Updates are lied about as floats: the plan's wire.update must be f32. */
#include "client/nn/moco.h"
#include "client/tool/npy.h"
#include "client/train/train.h"
#include "common/base/byteorder.h"
#include "common/base/disk.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/vec/modelfile.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORD_MAX  256
#define PATHS_MAX ((size_t)64 << 20)

enum kind {
    KIND_HONEST,
    KIND_SCALE,
    KIND_FLIP,
    KIND_STATS,
    KIND_NAN,
    KIND_NOISE,
    KIND_CONSTANT,
    KIND_COPY,
    KIND_WITNESS,
    KIND_SPY,
    KINDS
};
static const char *const kinds[KINDS] = {
    [KIND_HONEST] = "honest",   [KIND_SCALE] = "scale", [KIND_FLIP] = "flip",         [KIND_STATS] = "stats",
    [KIND_NAN] = "nan",         [KIND_NOISE] = "noise", [KIND_CONSTANT] = "constant", [KIND_COPY] = "copy",
    [KIND_WITNESS] = "witness", [KIND_SPY] = "spy",
};

/* One trainer a process. */
static struct {
    enum kind kind;
    float number;
    char name[WORD_MAX], out[DISK_PATH_MAX];
    const struct plan *plan;
    const struct layout *layout;
    const struct dataset *dataset;
    uint32_t *shown; /* images of this round's steps, in order */
    size_t count, capacity;
    float *received; /* features of others, as they last came */
    uint32_t received_rows;
} liar;

int __real_trainer_new(const struct plan *plan, const struct layout *layout, const struct dataset *dataset,
                       const struct trainer_options *options, struct trainer **out, struct err *err);
int __wrap_trainer_new(const struct plan *plan, const struct layout *layout, const struct dataset *dataset,
                       const struct trainer_options *options, struct trainer **out, struct err *err);
int __real_train_round(struct trainer *trainer, const struct train_job *job, struct train_progress *progress,
                       struct train_result *out, struct err *err);
int __wrap_train_round(struct trainer *trainer, const struct train_job *job, struct train_progress *progress,
                       struct train_result *out, struct err *err);
int __real_moco_step(struct moco *moco, const uint32_t *images, const float *view1, const float *view2,
                     float learning_rate, struct moco_step *out, struct err *err);
int __wrap_moco_step(struct moco *moco, const uint32_t *images, const float *view1, const float *view2,
                     float learning_rate, struct moco_step *out, struct err *err);

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for a lie");
}

/* ---- What it was told to tell ---- */

static int parse_kind(const char *word, struct err *err)
{
    size_t len = strcspn(word, ":");
    for (int k = 1; k < KINDS; k++) {
        if (strlen(kinds[k]) == len && memcmp(word, kinds[k], len) == 0) {
            char *end = NULL;
            liar.kind = (enum kind)k;
            liar.number = word[len] ? strtof(word + len + 1, &end) : 1;
            return end && (*end || end == word + len + 1)
                       ? err_set(err, ERR_USAGE, "STARLING_LIE: \"%s\" ends with no number", word)
                       : 0;
        }
    }
    return err_set(err, ERR_USAGE, "STARLING_LIE: there is no lie \"%s\"", word);
}

/* The clause in which this site is named, if any. */
static int parse_lie(const char *name, struct err *err)
{
    const char *said = getenv("STARLING_LIE"), *out = getenv("STARLING_LIE_OUT");
    char text[4096], *rest = text, *clause;
    (void)snprintf(text, sizeof text, "%s", said ? said : "");
    (void)snprintf(liar.name, sizeof liar.name, "%s", name);
    (void)snprintf(liar.out, sizeof liar.out, "%s", out ? out : "");
    while ((clause = strsep(&rest, ";")) != NULL) {
        char *words = clause, *word, *kind = NULL;
        while ((word = strsep(&words, " ")) != NULL) {
            if (!*word) {
                continue;
            }
            if (!kind) {
                kind = word;
            } else if (strcmp(word, name) == 0) {
                return parse_kind(kind, err);
            }
        }
    }
    return 0;
}

static bool lies_about_update(void)
{
    return liar.kind >= KIND_SCALE && liar.kind <= KIND_NOISE;
}

int __wrap_trainer_new(const struct plan *plan, const struct layout *layout, const struct dataset *dataset,
                       const struct trainer_options *options, struct trainer **out, struct err *err)
{
    *out = NULL;
    int rc = parse_lie(options->name, err);
    if (rc == 0 && lies_about_update() && plan->wire.update != QUANT_F32) {
        rc = err_set(err, ERR_CONFIG, "STARLING_LIE: it is about floats, and the plan's wire.update is not f32");
    }
    if (rc == 0 && liar.kind != KIND_HONEST && !liar.out[0]) {
        rc = err_set(err, ERR_USAGE, "STARLING_LIE_OUT: name a folder");
    }
    liar.plan = plan;
    liar.layout = layout;
    liar.dataset = dataset;
    return rc ? rc : __real_trainer_new(plan, layout, dataset, options, out, err);
}

/* ---- Lies ---- */

static void fill_noise(float *update, uint32_t round)
{
    double squares = 0;
    struct hash128 hash = hash_of(liar.name, strlen(liar.name)); /* liars draw apart */
    struct rng rng;
    rng_init(&rng, load_u64(hash.bytes), RNG_TEST, round, 0, 0);
    for (uint64_t i = 0; i < liar.layout->total; i++) {
        squares += (double)update[i] * (double)update[i];
    }
    float each = liar.number * (float)sqrt(squares / (double)liar.layout->total);
    for (uint64_t i = 0; i < liar.layout->total; i++) {
        update[i] = each * rng_normal(&rng);
    }
}

static void lie_about_update(float *update, uint32_t round)
{
    float factor = liar.kind == KIND_FLIP ? -liar.number : liar.number;
    if (liar.kind == KIND_NAN) {
        update[liar.layout->total / 2] = (float)NAN;
    } else if (liar.kind == KIND_NOISE) {
        fill_noise(update, round);
    } else {
        uint64_t first = liar.kind == KIND_STATS ? liar.layout->trainable_end : 0;
        for (uint64_t i = first; i < liar.layout->total; i++) {
            update[i] *= factor;
        }
    }
}

/* Returns whether there was anything to lie about. */
static bool lie_about_features(struct train_result *result)
{
    uint32_t d = liar.plan->model.features, rows = result->feature_rows;
    if (liar.kind == KIND_CONSTANT) {
        for (size_t i = 0; i < (size_t)rows * d; i++) {
            result->features[i] = i % d == 0 ? 1 : 0;
        }
        return rows > 0;
    }
    rows = rows < liar.received_rows ? rows : liar.received_rows;
    if (rows > 0) {
        memcpy(result->features, liar.received, (size_t)rows * d * sizeof *result->features);
        result->feature_rows = rows;
    }
    return rows > 0;
}

static int remember(const struct train_job *job, struct err *err)
{
    size_t floats = (size_t)job->remote_rows * liar.plan->model.features;
    if (job->remote_rows == 0) {
        return 0;
    }
    mem_free(liar.received);
    liar.received_rows = job->remote_rows;
    liar.received = mem_new(floats, sizeof *liar.received);
    if (!liar.received) {
        liar.received_rows = 0;
        return no_memory(err);
    }
    memcpy(liar.received, job->remote, floats * sizeof *liar.received);
    return 0;
}

/* ---- Files ---- */

static int tell(uint32_t round, struct err *err)
{
    char path[DISK_PATH_MAX], line[WORD_MAX + 32];
    int n = snprintf(line, sizeof line, "%s %u %s\n", liar.name, round, kinds[liar.kind]);
    int rc = disk_make_folder(&disk_posix, liar.out, err);
    if (rc) {
        return rc;
    }
    int file = disk_join(path, liar.out, "told") ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    bool written = file >= 0 && write(file, line, (size_t)n) == n;
    if (file >= 0) {
        (void)close(file);
    }
    return written ? 0 : err_set(err, ERR_CANTCREATE, "%s: cannot write", path);
}

static int path_of(const char *what, uint32_t round, const char *ending, char out[DISK_PATH_MAX], struct err *err)
{
    char folder[DISK_PATH_MAX], name[64];
    (void)snprintf(name, sizeof name, "%s-%06u.%s", what, round, ending);
    return disk_join(folder, liar.out, liar.name) || disk_join(out, folder, name)
               ? err_set(err, ERR_CANTCREATE, "STARLING_LIE_OUT: the path is too long")
               : disk_make_folder(&disk_posix, folder, err);
}

static int save_rows(const char *what, uint32_t round, const float *rows, uint32_t count, struct err *err)
{
    char path[DISK_PATH_MAX];
    uint8_t header[NPY_HEADER_BYTES];
    npy_header(count, liar.plan->model.features, header);
    const struct span parts[] = {{header, sizeof header}, {rows, sizeof *rows * count * liar.plan->model.features}};
    int rc = path_of(what, round, "npy", path, err);
    return rc ? rc : disk_save(&disk_posix, path, parts, 2, err);
}

/* Features are the keys of the last steps, newest first (train.c). */
static int bear_witness(const struct train_job *job, const struct train_result *result, struct err *err)
{
    char path[DISK_PATH_MAX];
    struct buf text;
    buf_init(&text, PATHS_MAX);
    int rc = result->feature_rows <= liar.count
                 ? save_rows("own", job->round, result->features, result->feature_rows, err)
                 : err_set(err, ERR_STATE, "more features than images were seen");
    for (uint32_t i = 0; rc == 0 && i < result->feature_rows; i++) {
        rc = buf_printf(&text, "%s\n", dataset_path(liar.dataset, liar.shown[liar.count - 1 - i]));
        rc = rc ? no_memory(err) : 0;
    }
    const struct span part = {text.data, text.len};
    rc = rc ? rc : path_of("own", job->round, "txt", path, err);
    rc = rc ? rc : disk_save(&disk_posix, path, &part, 1, err);
    buf_fini(&text);
    return rc;
}

/* The carry holds the key encoder as the round began, which is the same at all sites (nn/moco.h). */
static int spy(const struct train_job *job, const struct train_result *result, struct err *err)
{
    if (liar.number >= 1 && job->round % (uint32_t)liar.number != 0) {
        return 0;
    }
    char path[DISK_PATH_MAX];
    const struct model_info info = {.round = job->round, .spec = liar.layout->spec};
    const float *key = (const float *)result->carry + (size_t)liar.plan->queue * (liar.plan->model.features + 1);
    int rc = job->remote_rows ? save_rows("remote", job->round, job->remote, job->remote_rows, err) : 0;
    rc = rc ? rc : path_of("key", job->round, "starling", path, err);
    return rc ? rc : modelfile_save(&disk_posix, path, &info, liar.layout, key, err);
}

/* ---- The seams ---- */

int __wrap_moco_step(struct moco *moco, const uint32_t *images, const float *view1, const float *view2,
                     float learning_rate, struct moco_step *out, struct err *err)
{
    uint32_t batch = liar.plan->batch;
    if (liar.kind == KIND_WITNESS) {
        if (liar.count + batch > liar.capacity) {
            size_t capacity = 2 * (liar.count + batch);
            uint32_t *more = mem_resize(liar.shown, capacity, sizeof *more);
            if (!more) {
                return no_memory(err);
            }
            liar.shown = more;
            liar.capacity = capacity;
        }
        memcpy(liar.shown + liar.count, images, batch * sizeof *images);
        liar.count += batch;
    }
    return __real_moco_step(moco, images, view1, view2, learning_rate, out, err);
}

int __wrap_train_round(struct trainer *trainer, const struct train_job *job, struct train_progress *progress,
                       struct train_result *out, struct err *err)
{
    bool told = true;
    liar.count = 0;
    int rc = liar.kind == KIND_COPY ? remember(job, err) : 0;
    rc = rc ? rc : __real_train_round(trainer, job, progress, out, err);
    if (rc || liar.kind == KIND_HONEST) {
        return rc;
    }
    if (lies_about_update()) {
        lie_about_update(out->update, job->round);
    } else if (liar.kind == KIND_WITNESS) {
        rc = bear_witness(job, out, err);
    } else if (liar.kind == KIND_SPY) {
        rc = spy(job, out, err);
    } else {
        told = lie_about_features(out);
    }
    rc = rc || !told ? rc : tell(job->round, err);
    if (rc) {
        train_result_fini(out);
    }
    return rc;
}
