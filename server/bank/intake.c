/* Batches that wait for the end of the round, and the merge that makes the next snapshot of them.
 *
 * The intake holds one batch an owner, in order of name. While the k-th owner arrives, nobody can keep more than
 * capacity / k rows in the end, so every batch is cut to that: the intake never holds more than `capacity` rows. */
#include "server/bank/bank.h"

#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct batch {
    char owner[NAME_MAX_BYTES];
    uint32_t round, rows;
    float *features;
};

struct bank_intake {
    uint32_t capacity, dimension;
    uint32_t count, room;
    struct batch *batches; /* in order of owner */
};

int bank_intake_new(uint32_t capacity, uint32_t dimension, struct bank_intake **out)
{
    *out = mem_new(1, sizeof **out);
    if (!*out) {
        return ERR_NOMEM;
    }
    (*out)->capacity = capacity;
    (*out)->dimension = dimension;
    return 0;
}

void bank_intake_clear(struct bank_intake *intake)
{
    for (uint32_t i = 0; i < intake->count; i++) {
        mem_free(intake->batches[i].features);
    }
    intake->count = 0;
}

void bank_intake_free(struct bank_intake *intake)
{
    if (intake) {
        bank_intake_clear(intake);
        mem_free(intake->batches);
        mem_free(intake);
    }
}

uint32_t bank_intake_rows(const struct bank_intake *intake)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < intake->count; i++) {
        rows += intake->batches[i].rows;
    }
    return rows;
}

/* Decides between owners of equally new rows where there are more owners than rows. Changes with the round, so that no
 * name is favoured for ever. */
static uint64_t lot(const char *owner, uint32_t round)
{
    struct hash128 hash = hash_of(owner, strlen(owner));
    uint64_t name;
    memcpy(&name, hash.bytes, sizeof name);
    return rng_mix(name ^ rng_mix(round));
}

static void cut(struct bank_intake *intake, uint32_t quota)
{
    for (uint32_t i = 0; i < intake->count; i++) {
        struct batch *batch = &intake->batches[i];
        if (batch->rows > quota) {
            batch->rows = quota;
            size_t floats = (size_t)quota * intake->dimension;
            float *shorter = mem_resize(batch->features, floats, sizeof *shorter);
            batch->features = shorter ? shorter : batch->features;
        }
    }
}

static void remove_at(struct bank_intake *intake, uint32_t at)
{
    mem_free(intake->batches[at].features);
    intake->count--;
    memmove(&intake->batches[at], &intake->batches[at + 1], (intake->count - at) * sizeof *intake->batches);
}

/* With as many owners as rows, the newcomer or the one with the highest lot goes. */
static bool make_way(struct bank_intake *intake, const char *owner, uint32_t round)
{
    uint32_t highest = 0;
    for (uint32_t i = 1; i < intake->count; i++) {
        if (lot(intake->batches[i].owner, round) > lot(intake->batches[highest].owner, round)) {
            highest = i;
        }
    }
    if (intake->count == 0 || lot(owner, round) > lot(intake->batches[highest].owner, round)) {
        return false;
    }
    remove_at(intake, highest);
    return true;
}

int bank_intake_add(struct bank_intake *intake, const char *owner, uint32_t round, const float *features, uint32_t rows)
{
    if (intake->count == intake->room) {
        uint32_t room = intake->room ? 2 * intake->room : 16;
        struct batch *batches = mem_resize(intake->batches, room, sizeof *batches);
        if (!batches) {
            return ERR_NOMEM;
        }
        intake->batches = batches;
        intake->room = room;
    }
    uint32_t owners = intake->count < intake->capacity ? intake->count + 1 : intake->count;
    uint32_t quota = owners ? intake->capacity / owners : 0;
    rows = rows < quota ? rows : quota;
    float *copy = mem_new((size_t)rows * intake->dimension, sizeof *copy);
    if (!copy) {
        return ERR_NOMEM;
    }
    if (intake->count >= intake->capacity && !make_way(intake, owner, round)) {
        mem_free(copy);
        return 0;
    }
    memcpy(copy, features, (size_t)rows * intake->dimension * sizeof *copy);
    cut(intake, quota);
    uint32_t at = intake->count;
    while (at > 0 && strcmp(intake->batches[at - 1].owner, owner) > 0) {
        at--;
    }
    memmove(&intake->batches[at + 1], &intake->batches[at], (intake->count - at) * sizeof *intake->batches);
    intake->count++;
    intake->batches[at] = (struct batch){.round = round, .rows = rows, .features = copy};
    memcpy(intake->batches[at].owner, owner, strlen(owner) + 1);
    return 0;
}

/* ---- The merge ---- */

/* An owner of the next snapshot, with where its rows come from; either may be NULL. */
struct source {
    const char *name;
    const struct batch *batch;
    const struct bank_owner *old;
    uint32_t newest; /* round of its newest row */
    uint64_t lot;
    bool stays;
};

static uint32_t unite(const struct bank *bank, const struct bank_intake *intake, struct source *sources)
{
    uint32_t count = 0, i = 0, j = 0;
    while (i < bank->owners_count || j < intake->count) {
        const struct bank_owner *old = i < bank->owners_count ? &bank->owners[i] : NULL;
        const struct batch *batch = j < intake->count ? &intake->batches[j] : NULL;
        int order = !old ? 1 : !batch ? -1 : strcmp(old->name, batch->owner);
        struct source *source = &sources[count++];
        *source = (struct source){.old = order <= 0 ? old : NULL, .batch = order >= 0 ? batch : NULL, .stays = true};
        source->name = source->batch ? source->batch->owner : source->old->name;
        source->newest = source->batch ? source->batch->round : bank->rounds[source->old->first];
        source->lot = lot(source->name, source->newest);
        i += order <= 0;
        j += order >= 0;
    }
    return count;
}

static int by_rank(const void *a, const void *b)
{
    const struct source *x = *(const struct source *const *)a, *y = *(const struct source *const *)b;
    if (x->newest != y->newest) {
        return x->newest > y->newest ? -1 : 1;
    }
    if (x->lot != y->lot) {
        return x->lot < y->lot ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

/* More owners than rows: only the first `capacity` by rank stay. */
static int thin(struct source *sources, uint32_t *count, uint32_t capacity)
{
    if (*count <= capacity) {
        return 0;
    }
    struct source **ranked = mem_new(*count, sizeof(struct source *));
    if (!ranked) {
        return ERR_NOMEM;
    }
    for (uint32_t i = 0; i < *count; i++) {
        ranked[i] = &sources[i];
    }
    qsort(ranked, *count, sizeof(struct source *), by_rank);
    for (uint32_t i = capacity; i < *count; i++) {
        ranked[i]->stays = false;
    }
    mem_free(ranked);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *count; i++) {
        if (sources[i].stays) {
            sources[kept++] = sources[i];
        }
    }
    *count = kept;
    return 0;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Copies a source's rows behind those that are there: new ones, then old ones, up to the quota. */
static void take(struct bank *next, const struct bank *bank, const struct source *source, uint32_t quota)
{
    struct bank_owner *owner = &next->owners[next->owners_count++];
    memcpy(owner->name, source->name, strlen(source->name) + 1);
    owner->first = next->rows;
    size_t dimension = next->dimension;
    uint32_t fresh = source->batch ? least(source->batch->rows, quota) : 0;
    for (uint32_t r = 0; r < fresh; r++) {
        next->rounds[next->rows + r] = source->batch->round;
    }
    if (fresh > 0) {
        memcpy(next->features + next->rows * dimension, source->batch->features, fresh * dimension * sizeof(float));
    }
    next->rows += fresh;
    uint32_t kept = source->old ? least(source->old->count, quota - fresh) : 0;
    if (kept > 0) {
        uint32_t first = source->old->first;
        memcpy(next->rounds + next->rows, bank->rounds + first, kept * sizeof *next->rounds);
        memcpy(next->features + next->rows * dimension, bank->features + first * dimension,
               kept * dimension * sizeof(float));
    }
    next->rows += kept;
    owner->count = fresh + kept;
    next->owners_count -= owner->count == 0; /* An empty batch makes no owner. */
}

int bank_merge(const struct bank *bank, const struct bank_intake *intake, struct bank **out)
{
    *out = NULL;
    struct bank *next = NULL;
    struct source *sources = mem_new((size_t)bank->owners_count + intake->count, sizeof *sources);
    if (!sources || bank_new(intake->capacity, intake->dimension, &next) != 0) {
        goto nomem;
    }
    uint32_t count = unite(bank, intake, sources);
    if (thin(sources, &count, next->capacity) != 0) {
        goto nomem;
    }
    uint32_t quota = count ? next->capacity / count : 0;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t has =
            (sources[i].batch ? sources[i].batch->rows : 0) + (uint64_t)(sources[i].old ? sources[i].old->count : 0);
        rows += has < quota ? has : quota;
    }
    next->owners = mem_new(count, sizeof *next->owners);
    next->rounds = mem_new((size_t)rows, sizeof *next->rounds);
    next->features = mem_new_aligned((size_t)rows * next->dimension, sizeof *next->features);
    if (!next->owners || !next->rounds || !next->features) {
        goto nomem;
    }
    for (uint32_t i = 0; i < count; i++) {
        take(next, bank, &sources[i], quota);
    }
    if (bank_rank(next) != 0) {
        goto nomem;
    }
    mem_free(sources);
    *out = next;
    return 0;
nomem:
    mem_free(sources);
    bank_free(next);
    return ERR_NOMEM;
}
