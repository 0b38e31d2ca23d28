#include "client/nn/choices.h"

#include "client/nn/onednn/onednn.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is less exact has to be clearly faster. */
#define CLEARLY 1.03

#define TRIALS (2 * CHOICE_METHODS)

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

/* A few megabytes a map tell which method is the fastest, and do not take minutes. */
#define MEASURED_BYTES ((size_t)4 << 20)
#define MEASURED_LEAST 4u

static struct conv_shape measured_shape(const struct conv_shape *shape)
{
    const struct map *larger = map_bytes(&shape->src) > map_bytes(&shape->dst) ? &shape->src : &shape->dst;
    size_t each = map_bytes(larger) / larger->n, most = MEASURED_BYTES / (each ? each : 1);
    struct conv_shape out = *shape;
    most = most > MEASURED_LEAST ? most : MEASURED_LEAST;
    out.src.n = out.dst.n = shape->src.n < most ? shape->src.n : (uint32_t)most;
    return out;
}

int choices_find(struct choices *choices, const struct conv_shape *wanted, enum conv_pass pass,
                 const struct choice **out, struct err *err)
{
    struct choice choice = {.shape = measured_shape(wanted), .pass = pass};
    *out = known(choices, &choice.shape, pass);
    if (*out) {
        return 0;
    }
    if (choices->cancel && __atomic_load_n(choices->cancel, __ATOMIC_RELAXED)) {
        return err_set(err, ERR_CANCELLED, "cancelled while kernels were measured");
    }
    int rc = choice_measure(&choice, err);
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
    int rc = buf_printf(out,
                        CHOICES_HEADER
                        "\n%s\n# pass, images, kernel, stride, channels in, pixels a side, layout, channels out, "
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
        if ((number == 0 && strcmp(line, CHOICES_HEADER) != 0) || (number == 1 && strcmp(line, machine) != 0)) {
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
