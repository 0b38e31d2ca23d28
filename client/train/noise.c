#include "client/train/noise.h"

#include "common/base/mem.h"
#include "common/base/privacy.h"

#include <math.h>

#define WORDS 1024 /* asked of the source at a time; even */

/* Standard normal numbers, two from two words (Box and Muller 1958). */
struct normals {
    const struct noise_source *source;
    uint64_t words[WORDS];
    size_t used;
    double spare;
    bool has_spare;
};

static struct normals *normals_new(const struct noise_source *source)
{
    struct normals *normals = mem_new(1, sizeof *normals);
    if (normals) {
        normals->source = source;
        normals->used = WORDS;
    }
    return normals;
}

static int normals_next(struct normals *normals, double *out)
{
    if (normals->has_spare) {
        *out = normals->spare;
        normals->has_spare = false;
        return 0;
    }
    if (normals->used == WORDS) {
        int rc = normals->source->fill(normals->source->ctx, normals->words, sizeof normals->words);
        if (rc) {
            return rc;
        }
        normals->used = 0;
    }
    /* In (0, 1], as fine as 2^-63 near 0, so that tails reach 9.3; in [0, 1). */
    double first = (double)((normals->words[normals->used] >> 1) + 1) * 0x1p-63;
    double second = (double)(normals->words[normals->used + 1] >> 11) * 0x1p-53;
    double length = sqrt(-2 * log(first)), angle = 2 * 3.141592653589793 * second;
    normals->used += 2;
    normals->spare = length * sin(angle);
    normals->has_spare = true;
    *out = length * cos(angle);
    return 0;
}

static double length_of(const float *x, uint64_t n)
{
    double square = 0;
    for (uint64_t i = 0; i < n; i++) {
        square += (double)x[i] * (double)x[i];
    }
    return sqrt(square);
}

static double shrink(double length, double most)
{
    return length > most ? most / length : 1;
}

static int source_failed(int rc, struct err *err)
{
    return err_set(err, rc, "the noise of the plan's privacy could not be drawn: %s", err_meaning(rc));
}

/* `noisy`: room for a row in double, so that it is rounded once. */
static int noise_row(struct normals *normals, double noise, float *row, double *noisy, uint32_t d)
{
    double scale = shrink(length_of(row, d), 1), square = 0;
    for (uint32_t i = 0; i < d; i++) {
        double normal;
        int rc = normals_next(normals, &normal);
        if (rc) {
            return rc;
        }
        noisy[i] = scale * (double)row[i] + noise * normal;
        square += noisy[i] * noisy[i];
    }
    if (square == 0) { /* Has no direction. */
        noisy[0] = square = 1;
    }
    for (uint32_t i = 0; i < d; i++) {
        row[i] = (float)(noisy[i] / sqrt(square));
    }
    return 0;
}

int noise_rows(const struct noise_source *source, double noise, float *rows, uint32_t count, uint32_t d,
               struct err *err)
{
    for (uint32_t r = 0; r < count; r++) {
        if (!isfinite(length_of(rows + (size_t)r * d, d))) {
            return err_set(err, ERR_DATA, "feature %u holds a number that is not finite", r);
        }
    }
    struct normals *normals = normals_new(source);
    double *noisy = mem_new(d, sizeof *noisy);
    int rc = normals && noisy ? 0 : err_set(err, ERR_NOMEM, "no memory for the noise of features");
    for (uint32_t r = 0; r < count && rc == 0; r++) {
        rc = noise_row(normals, noise, rows + (size_t)r * d, noisy, d);
        rc = rc ? source_failed(rc, err) : 0;
    }
    mem_free(normals);
    mem_free(noisy);
    return rc;
}

int noise_update(const struct noise_source *source, double clip, double noise, float *x, uint64_t n, double *length,
                 struct err *err)
{
    *length = length_of(x, n);
    if (!isfinite(*length)) {
        return err_set(err, ERR_DATA, "the update holds a number that is not finite; is the learning rate too high?");
    }
    struct normals *normals = normals_new(source);
    if (!normals) {
        return err_set(err, ERR_NOMEM, "no memory for the noise of an update");
    }
    double scale = shrink(*length, clip);
    int rc = 0;
    for (uint64_t i = 0; i < n && rc == 0; i++) {
        double normal = 0;
        rc = noise > 0 ? normals_next(normals, &normal) : 0;
        x[i] = (float)(scale * (double)x[i] + noise * clip * normal);
    }
    mem_free(normals);
    return rc ? source_failed(rc, err) : 0;
}

double noise_rows_cost(const struct plan *plan, uint32_t count)
{
    double noise = plan->fusion.privacy.noise;
    double moving = plan->fusion.encoder == FUSION_ENCODER_AGGREGATED ? 1 : sqrt((double)count);
    return noise > 0 && count > 0 ? privacy_rho(2 * moving, noise) : 0;
}

double noise_update_cost(const struct plan *plan)
{
    return plan->update.privacy.noise > 0 ? privacy_rho(2, plan->update.privacy.noise) : 0;
}
