/* The race between the methods of a pass. The clock is read here although this room computes: what is measured are our
 * own kernels, and nothing but the choice between them depends on it. */
#include "client/nn/choices.h"

#include "client/nn/onednn/onednn.h"
#include "client/nn/simd/simd.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <string.h>
#include <time.h>

/* Relative to direct f32, root mean square over a pass's whole output. Winograd's F(4x4, 3x3) is off by about 1e-6 and
 * has no business beyond 1e-4; bf16 keeps 8 bits, so about 3e-3. */
static const double tolerance[2] = {1e-4, 1e-2};

/* Weights are prepared once a step and serve all groups of the batch; no fewer than two are worth to be planned for. */
#define GROUPS 2

#define TRIALS (2 * CHOICE_METHODS)

#define RUNS         7
#define SECONDS_MOST 1.0 /* for all candidates of a pass, once each has run three times */

/* One candidate with its data. */
struct trial {
    struct conv_shape shape;
    enum conv_pass pass;
    struct conv_format *format;
    struct conv_kernel *kernel;
    void *a, *b, *out, *scratch, *prepared;
    const void *weights;
    double best, prepare; /* seconds */
};

/* f32 random numbers behind all candidates of a pass, in the maps' own order. */
struct problem {
    float *src, *dst, *weights;
};

static float *random_floats(uint64_t count, uint64_t stream)
{
    float *out = mem_new_aligned(count, sizeof *out);
    struct rng rng;
    rng_init(&rng, 1, RNG_CHOICE, stream, 0, 0);
    for (uint64_t i = 0; out && i < count; i++) {
        out[i] = rng_range(&rng, -1, 1);
    }
    return out;
}

static void *as_type(const struct map *map, const float *data)
{
    void *out = mem_new_aligned(map_bytes(map), 1);
    if (out && map->type == MAP_BF16) {
        simd()->to_bf16(out, data, map_elements(map));
    } else if (out) {
        memcpy(out, data, map_bytes(map));
    }
    return out;
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void trial_fini(struct trial *t)
{
    if (t->kernel) {
        t->kernel->backend->kernel_free(t->kernel);
    }
    if (t->format) {
        t->format->backend->format_free(t->format);
    }
    mem_free(t->a);
    mem_free(t->b);
    mem_free(t->out);
    mem_free(t->scratch);
    mem_free(t->prepared);
    *t = (struct trial){0};
}

static int trial_init(struct trial *t, const struct conv_shape *shape, enum conv_pass pass, enum conv_method method,
                      const struct problem *problem, struct err *err)
{
    *t = (struct trial){.shape = *shape, .pass = pass};
    int rc = conv_onednn()->format_new(shape, true, &t->format, err);
    rc = rc ? rc : conv_kernel_new(t->format, shape, pass, method, &t->kernel, err);
    if (rc == 0 && method != CONV_DIRECT && t->kernel->scratch + t->kernel->prepared > CHOICE_BYTES_MOST) {
        rc = err_set(err, ERR_CONFIG, "this method takes too much memory");
    }
    if (rc != 0) {
        trial_fini(t);
        return rc;
    }
    bool by_weights = pass == CONV_BACKWARD_WEIGHTS;
    t->a = pass == CONV_BACKWARD_DATA ? as_type(&shape->dst, problem->dst) : as_type(&shape->src, problem->src);
    t->b = by_weights ? as_type(&shape->dst, problem->dst) : mem_new_aligned(t->format->floats, sizeof(float));
    t->out = mem_new_aligned(by_weights                   ? t->format->floats * sizeof(float)
                             : pass == CONV_BACKWARD_DATA ? map_bytes(&shape->src)
                                                          : map_bytes(&shape->dst),
                             1);
    t->scratch = mem_new_aligned(t->kernel->scratch, 1);
    t->prepared = mem_new_aligned(t->kernel->prepared, 1);
    if (!t->a || !t->b || !t->out || !t->scratch || !t->prepared) {
        trial_fini(t);
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    t->weights = t->b;
    if (!by_weights) {
        rc = t->format->backend->pack(t->format, problem->weights, t->b, err);
        if (rc == 0 && t->kernel->prepared) {
            rc = t->kernel->backend->prepare(t->kernel, t->b, t->prepared, err);
            double begin = now(); /* again, now that the memory is there */
            rc = rc ? rc : t->kernel->backend->prepare(t->kernel, t->b, t->prepared, err);
            t->prepare = now() - begin;
            t->weights = t->prepared;
        }
    }
    if (rc != 0) {
        trial_fini(t);
    }
    return rc;
}

static int time_once(struct trial *t, struct err *err)
{
    double begin = now();
    int rc = t->kernel->backend->run(t->kernel, t->a, t->weights, t->out, t->scratch, err);
    double seconds = now() - begin;
    t->best = t->best == 0 || seconds < t->best ? seconds : t->best;
    return rc;
}

/* The output as floats, in an order that does not depend on the candidate. */
static float *result(const struct trial *t, uint64_t *count, struct err *err)
{
    const struct map *map = t->pass == CONV_BACKWARD_DATA ? &t->shape.src : &t->shape.dst;
    bool by_weights = t->pass == CONV_BACKWARD_WEIGHTS;
    uint64_t plain = (uint64_t)t->shape.dst.channels * t->shape.src.channels * t->shape.kernel * t->shape.kernel;
    *count = by_weights ? plain : map_elements(map);
    float *out = mem_new_aligned(*count, sizeof *out);
    if (out && by_weights && t->format->backend->unpack(t->format, t->out, out, err) != 0) {
        mem_free(out);
        return NULL;
    }
    for (uint64_t i = 0; out && !by_weights && i < *count; i++) {
        uint32_t bits = map->type == MAP_BF16 ? (uint32_t)((uint16_t *)t->out)[i] << 16 : 0;
        memcpy(&out[i], map->type == MAP_BF16 ? (void *)&bits : (void *)((float *)t->out + i), sizeof out[i]);
    }
    return out;
}

/* How far a result is from the truth, as a share of the truth's norm. */
static int distance(const struct trial *t, const struct trial *truth, double *out, struct err *err)
{
    uint64_t count, same;
    float *a = result(t, &count, err), *b = result(truth, &same, err);
    double off = 0, all = 0;
    int rc = a && b ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    for (uint64_t i = 0; rc == 0 && i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        off += d * d;
        all += (double)b[i] * (double)b[i];
    }
    *out = all > 0 ? sqrt(off / all) : (double)INFINITY;
    mem_free(a);
    mem_free(b);
    return rc;
}

/* Candidates take turns, so that a disturbance of the machine meets them alike; the best of each counts. */
static int race(struct trial *trials, uint32_t count, struct err *err)
{
    double begin = now();
    for (uint32_t run = 0; run < RUNS && (run < 3 || now() - begin < SECONDS_MOST); run++) {
        for (uint32_t i = 0; i < count; i++) {
            int rc = trials[i].kernel ? time_once(&trials[i], err) : 0;
            if (rc != 0) {
                return rc;
            }
        }
    }
    return 0;
}

/* One trial for each type and method that exists here; trials[0] is direct f32, the truth. */
static int trials_init(struct trial trials[TRIALS], const struct choice *choice, const struct problem *problem,
                       struct err *err)
{
    for (int type = MAP_F32; type <= (onednn_has_bf16() ? MAP_BF16 : MAP_F32); type++) {
        struct conv_shape shape = choice->shape;
        shape.src.type = shape.dst.type = (enum map_type)type;
        for (int method = CONV_DIRECT; method < CHOICE_METHODS; method++) {
            int rc = trial_init(&trials[type * CHOICE_METHODS + method], &shape, choice->pass, (enum conv_method)method,
                                problem, err);
            if (rc != 0 && (rc != ERR_CONFIG || (type == MAP_F32 && method == CONV_DIRECT))) {
                return rc;
            }
        }
    }
    return 0;
}

int choice_measure(struct choice *choice, struct err *err)
{
    const struct conv_shape *shape = &choice->shape;
    uint64_t weights = (uint64_t)shape->dst.channels * shape->src.channels * shape->kernel * shape->kernel;
    struct problem problem = {random_floats(map_elements(&shape->src), 1), random_floats(map_elements(&shape->dst), 2),
                              random_floats(weights, 3)};
    struct trial trials[TRIALS] = {0};
    int rc = problem.src && problem.dst && problem.weights ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    rc = rc ? rc : trials_init(trials, choice, &problem, err);
    rc = rc ? rc : race(trials, TRIALS, err);
    for (int i = 0; i < TRIALS && rc == 0; i++) {
        double off = 0;
        rc = trials[i].kernel ? distance(&trials[i], &trials[0], &off, err) : 0;
        bool right = trials[i].kernel && off <= tolerance[i / CHOICE_METHODS];
        /* Whole nanoseconds, as they are kept: the next start decides on the same numbers. */
        choice->time[i / CHOICE_METHODS][i % CHOICE_METHODS] =
            right ? fmax(1, round((trials[i].best + trials[i].prepare / GROUPS) * 1e9)) : 0;
    }
    for (int i = 0; i < TRIALS; i++) {
        trial_fini(&trials[i]);
    }
    mem_free(problem.src);
    mem_free(problem.dst);
    mem_free(problem.weights);
    return rc;
}
