#include "client/nn/choices.h"

#include "client/nn/onednn/onednn.h"
#include "client/nn/simd/simd.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HEADER "starling kernels 1"

/* Relative to direct f32, root mean square over a pass's whole output. Winograd's F(4x4, 3x3) is off by about 1e-6 and
 * has no business beyond 1e-4; bf16 keeps 8 bits, so about 3e-3. */
static const double tolerance[2] = {1e-4, 1e-2};

/* What is less exact has to be clearly faster. */
#define CLEARLY 1.03

/* What a Winograd pass may take besides its maps. Transformed weights are up to four times as large as they were, and
 * the sums of their gradients too. */
#define WINOGRAD_BYTES_MOST ((size_t)24 << 20)

/* Weights are prepared once a step and serve all groups of the batch; no fewer than two are worth to be planned for. */
#define GROUPS 2

#define TRIALS (2 * CHOICE_METHODS)

#define RUNS         7
#define SECONDS_MOST 0.3 /* for one candidate, once it has run three times */

void choices_machine(char *out, size_t size)
{
    char line[256], name[128] = "unknown processor", library[96];
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            (void)snprintf(name, sizeof name, "%s", strchr(line, ':') + 2);
            name[strcspn(name, "\n")] = 0;
            break;
        }
    }
    if (file) {
        (void)fclose(file);
    }
    onednn_text(library, sizeof library);
    (void)snprintf(out, size, "%s; %s", name, library);
}

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
    uint64_t weights_count;
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
    if (rc == 0 && method != CONV_DIRECT && t->kernel->scratch + t->kernel->prepared > WINOGRAD_BYTES_MOST) {
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

static double distance(const struct trial *t, const struct trial *truth)
{
    uint64_t count, same;
    float *a = result(t, &count, NULL), *b = result(truth, &same, NULL);
    double off = 0, all = 0;
    for (uint64_t i = 0; a && b && i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        off += d * d;
        all += (double)b[i] * (double)b[i];
    }
    double out = a && b && all > 0 ? sqrt(off / all) : (double)INFINITY;
    mem_free(a);
    mem_free(b);
    return out;
}

/* Candidates take turns, so that a disturbance of the machine meets them alike; the best of each counts. */
static int race(struct trial *trials, uint32_t count, struct err *err)
{
    double begin = now();
    for (uint32_t run = 0; run < RUNS && (run < 3 || now() - begin < SECONDS_MOST * count); run++) {
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

static int measure(struct choice *choice, struct err *err)
{
    const struct conv_shape *shape = &choice->shape;
    uint64_t weights = (uint64_t)shape->dst.channels * shape->src.channels * shape->kernel * shape->kernel;
    struct problem problem = {random_floats(map_elements(&shape->src), 1), random_floats(map_elements(&shape->dst), 2),
                              random_floats(weights, 3), weights};
    struct trial trials[TRIALS] = {0};
    int rc = problem.src && problem.dst && problem.weights ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    rc = rc ? rc : trials_init(trials, choice, &problem, err);
    rc = rc ? rc : race(trials, TRIALS, err);
    for (int i = 0; i < TRIALS && rc == 0; i++) {
        bool right = trials[i].kernel && distance(&trials[i], &trials[0]) <= tolerance[i / CHOICE_METHODS];
        choice->time[i / CHOICE_METHODS][i % CHOICE_METHODS] =
            right ? (trials[i].best + trials[i].prepare / GROUPS) * 1e9 : 0;
    }
    for (int i = 0; i < TRIALS; i++) {
        trial_fini(&trials[i]);
    }
    mem_free(problem.src);
    mem_free(problem.dst);
    mem_free(problem.weights);
    return rc;
}

enum conv_method choice_best(const struct choice *choice, enum map_type type, bool winograd, double *ns)
{
    const double *time = choice->time[type];
    enum conv_method best = CONV_DIRECT;
    *ns = time[CONV_DIRECT];
    for (int method = CONV_WINOGRAD2; winograd && method < CHOICE_METHODS; method++) {
        if (time[method] > 0 && (*ns == 0 || time[method] * (best == CONV_DIRECT ? CLEARLY : 1) < *ns)) {
            best = (enum conv_method)method;
            *ns = time[method];
        }
    }
    return best;
}

static int append(struct choices *choices, const struct choice *choice, struct err *err)
{
    if (choices->count == choices->cap) {
        uint32_t cap = choices->cap ? choices->cap * 2 : 64;
        struct choice *grown = mem_resize(choices->all, cap, sizeof *grown);
        if (!grown) {
            return err_set(err, ERR_NOMEM, "out of memory");
        }
        choices->all = grown;
        choices->cap = cap;
    }
    choices->all[choices->count++] = *choice;
    return 0;
}

static bool same_map(const struct map *a, const struct map *b)
{
    return a->n == b->n && a->channels == b->channels && a->side == b->side && a->format == b->format &&
           a->type == b->type;
}

static const struct choice *known(const struct choices *choices, const struct conv_shape *shape, enum conv_pass pass)
{
    for (uint32_t i = 0; i < choices->count; i++) {
        const struct choice *c = &choices->all[i];
        if (c->pass == pass && c->shape.kernel == shape->kernel && c->shape.stride == shape->stride &&
            same_map(&c->shape.src, &shape->src) && same_map(&c->shape.dst, &shape->dst)) {
            return c;
        }
    }
    return NULL;
}

int choices_find(struct choices *choices, const struct conv_shape *shape, enum conv_pass pass,
                 const struct choice **out, struct err *err)
{
    *out = known(choices, shape, pass);
    if (*out) {
        return 0;
    }
    struct choice choice = {.shape = *shape, .pass = pass};
    int rc = measure(&choice, err);
    rc = rc ? rc : append(choices, &choice, err);
    if (rc == 0) {
        choices->measured++;
        *out = &choices->all[choices->count - 1];
    }
    return rc;
}

static const char *const pass_names[CONV_PASSES] = {"forward", "data", "weights"};
static const char *const format_names[] = {"planes", "pixels", "blocks"};

int choices_text(const struct choices *choices, struct buf *out)
{
    char machine[256];
    choices_machine(machine, sizeof machine);
    int rc =
        buf_printf(out,
                   HEADER "\n%s\n# pass, images, kernel, stride, channels in, pixels a side, layout, channels out, "
                          "pixels a side, layout; nanoseconds on f32 maps: direct, Winograd 2x2, 4x4; on bf16 maps\n",
                   machine);
    for (uint32_t i = 0; i < choices->count && rc == 0; i++) {
        const struct choice *c = &choices->all[i];
        const struct map *s = &c->shape.src, *d = &c->shape.dst;
        const double *f32 = c->time[MAP_F32], *bf16 = c->time[MAP_BF16];
        rc = buf_printf(out, "%s %u %u %u %u %u %s %u %u %s %.0f %.0f %.0f %.0f %.0f %.0f\n", pass_names[c->pass], s->n,
                        c->shape.kernel, c->shape.stride, s->channels, s->side, format_names[s->format], d->channels,
                        d->side, format_names[d->format], f32[0], f32[1], f32[2], bf16[0], bf16[1], bf16[2]);
    }
    return rc;
}

static int index_of(const char *word, const char *const *names, int count)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(word, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static bool parse_line(const char *line, struct choice *c)
{
    char pass[16], from[16], to[16];
    struct map *s = &c->shape.src, *d = &c->shape.dst;
    *c = (struct choice){0};
    double *f32 = c->time[MAP_F32], *bf16 = c->time[MAP_BF16];
    if (sscanf(line, "%15s %u %u %u %u %u %15s %u %u %15s %lf %lf %lf %lf %lf %lf", pass, &s->n, &c->shape.kernel,
               &c->shape.stride, &s->channels, &s->side, from, &d->channels, &d->side, to, &f32[0], &f32[1], &f32[2],
               &bf16[0], &bf16[1], &bf16[2]) != 16) {
        return false;
    }
    int p = index_of(pass, pass_names, CONV_PASSES), a = index_of(from, format_names, 3),
        b = index_of(to, format_names, 3);
    bool numbers = f32[0] > 0;
    for (int i = 0; i < TRIALS; i++) {
        numbers = numbers && c->time[i / CHOICE_METHODS][i % CHOICE_METHODS] >= 0;
    }
    if (p < 0 || a < 0 || b < 0 || !numbers) {
        return false;
    }
    c->pass = (enum conv_pass)p;
    d->n = s->n;
    s->format = (enum map_format)a;
    d->format = (enum map_format)b;
    return true;
}

int choices_parse(struct choices *choices, const char *text, struct err *err)
{
    char machine[256], line[256];
    choices_machine(machine, sizeof machine);
    for (uint32_t number = 0; *text; number++) {
        size_t length = strcspn(text, "\n");
        (void)snprintf(line, sizeof line, "%.*s", (int)(length < 255 ? length : 255), text);
        text += length + (text[length] == '\n');
        if ((number == 0 && strcmp(line, HEADER) != 0) || (number == 1 && strcmp(line, machine) != 0)) {
            return 0;
        }
        struct choice choice;
        if (number < 2 || !parse_line(line, &choice) || known(choices, &choice.shape, choice.pass)) {
            continue;
        }
        int rc = append(choices, &choice, err);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

void choices_fini(struct choices *choices)
{
    mem_free(choices->all);
    *choices = (struct choices){0};
}
