/* Sharing images out among clients.
 *
 * All three kinds begin with the images in a shuffled order and then walk class by class. A split is made once, on one
 * machine, and its result is folders; so, other than for views and weights, libm (log, exp, sqrt) may be used here. */
#include "client/data/split_plan.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define DIRICHLET_ATTEMPTS 1000

enum stream { STREAM_IMAGES, STREAM_CLASSES, STREAM_DIRICHLET };

int split_parse(const char *text, struct split_spec *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    char *end = NULL;
    if (strcmp(text, "iid") == 0) {
        return 0;
    }
    if (strncmp(text, "classes:", 8) == 0 && text[8] >= '0' && text[8] <= '9') {
        errno = 0;
        unsigned long k = strtoul(text + 8, &end, 10);
        if (!errno && *end == '\0' && k >= 1 && k <= UINT32_MAX) {
            out->kind = SPLIT_CLASSES;
            out->classes_each = (uint32_t)k;
            return 0;
        }
    }
    if (strncmp(text, "dirichlet:", 10) == 0 && text[10] >= '0' && text[10] <= '9') {
        double alpha = strtod(text + 10, &end);
        if (*end == '\0' && alpha >= 1e-3 && alpha <= 1e6) {
            out->kind = SPLIT_DIRICHLET;
            out->alpha = alpha;
            return 0;
        }
    }
    return err_set(err, ERR_USAGE,
                   "split \"%s\" is none of iid, classes:K (K from 1) and dirichlet:A (A from 0.001 to 1000000)", text);
}

struct split {
    const struct split_spec *spec;
    const uint32_t *labels;
    uint32_t n, classes, clients;
    uint64_t seed;
    uint32_t *client_of;
    uint32_t *order;   /* [n] images, shuffled */
    uint32_t *holders; /* [clients] of one class */
    double *shares;    /* [clients] of one class */
    uint32_t *held;    /* [clients] images */
};

static void split_iid(struct split *split)
{
    for (uint32_t i = 0; i < split->n; i++) {
        split->client_of[split->order[i]] = i % split->clients;
    }
}

/* Clients take K classes each, one after the other, from a shuffled circle of all classes: no client takes one twice,
 * and two classes differ by at most one in their number of holders. */
static int split_classes(struct split *split, struct err *err)
{
    uint32_t each = split->spec->classes_each, *circle = mem_new(split->classes, sizeof *circle);
    if (!circle) {
        return err_set(err, ERR_NOMEM, "no memory for %u classes", split->classes);
    }
    struct rng rng;
    rng_init(&rng, split->seed, RNG_SPLIT, STREAM_CLASSES, 0, 0);
    rng_permutation(&rng, circle, split->classes);
    for (uint32_t place = 0; place < split->classes; place++) {
        uint32_t holders = 0, dealt = 0;
        for (uint32_t client = 0; client < split->clients; client++) {
            uint32_t begin = (uint32_t)((uint64_t)client * each % split->classes);
            if ((place + split->classes - begin) % split->classes < each) {
                split->holders[holders++] = client;
            }
        }
        for (uint32_t i = 0; i < split->n; i++) {
            uint32_t image = split->order[i];
            if (split->labels[image] == circle[place]) {
                split->client_of[image] = holders ? split->holders[dealt++ % holders] : SPLIT_NOBODY;
            }
        }
    }
    mem_free(circle);
    return 0;
}

/* log of a Gamma(alpha, 1) variate: Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables", ACM TOMS
 * 2000; for alpha < 1 theirs at alpha + 1 times U^(1/alpha), in logs since that power leaves the range of a double. */
static double log_gamma_draw(struct rng *rng, double alpha)
{
    double shape = alpha < 1 ? alpha + 1 : alpha, d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double radius = sqrt(-2 * log((double)rng_float(rng) + 0x1p-25));
        double x = radius * cos(6.283185307179586 * (double)rng_float(rng));
        double v = 1 + c * x, u = (double)rng_float(rng) + 0x1p-25;
        if (v <= 0) {
            continue;
        }
        v = v * v * v;
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v)) {
            double boost = alpha < 1 ? log((double)rng_float(rng) + 0x1p-25) / alpha : 0;
            return log(d) + log(v) + boost;
        }
    }
}

static void dirichlet_draw(struct rng *rng, double alpha, double *shares, uint32_t n)
{
    double most = -HUGE_VAL, sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        shares[i] = log_gamma_draw(rng, alpha);
        most = shares[i] > most ? shares[i] : most;
    }
    for (uint32_t i = 0; i < n; i++) {
        shares[i] = exp(shares[i] - most);
        sum += shares[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        shares[i] /= sum;
    }
}

static void share_class(struct split *split, uint32_t class)
{
    uint32_t size = 0, dealt = 0, client = 0;
    for (uint32_t i = 0; i < split->n; i++) {
        size += split->labels[i] == class;
    }
    double until = split->shares[0]; /* of the class, cumulated */
    for (uint32_t i = 0; i < split->n; i++) {
        uint32_t image = split->order[i];
        if (split->labels[image] == class) {
            while (client + 1 < split->clients && dealt + 0.5 > until * size) {
                until += split->shares[++client];
            }
            split->client_of[image] = client;
            dealt++;
        }
    }
}

static bool everyone_has_some(struct split *split)
{
    memset(split->held, 0, split->clients * sizeof *split->held);
    for (uint32_t i = 0; i < split->n; i++) {
        if (split->client_of[i] != SPLIT_NOBODY) {
            split->held[split->client_of[i]]++;
        }
    }
    for (uint32_t c = 0; c < split->clients; c++) {
        if (split->held[c] == 0) {
            return false;
        }
    }
    return true;
}

/* Drawn anew until no client is left without images. */
static void split_dirichlet(struct split *split)
{
    for (uint32_t attempt = 0; attempt < DIRICHLET_ATTEMPTS; attempt++) {
        for (uint32_t class = 0; class < split->classes; class ++) {
            struct rng rng;
            rng_init(&rng, split->seed, RNG_SPLIT, STREAM_DIRICHLET, class, attempt);
            dirichlet_draw(&rng, split->spec->alpha, split->shares, split->clients);
            share_class(split, class);
        }
        if (everyone_has_some(split)) {
            return;
        }
    }
}

static int check(const struct split_spec *spec, uint32_t n, uint32_t classes, uint32_t clients, struct err *err)
{
    if (clients == 0) {
        return err_set(err, ERR_USAGE, "a split needs at least one client");
    }
    if (n < clients) {
        return err_set(err, ERR_DATA, "%u images are too few for %u clients", n, clients);
    }
    if (spec->kind != SPLIT_IID && classes == 0) {
        return err_set(err, ERR_DATA, "the images lie in no class folders: only iid can split them");
    }
    if (spec->kind == SPLIT_CLASSES && spec->classes_each > classes) {
        return err_set(err, ERR_DATA, "%u classes for each client, but there are only %u", spec->classes_each, classes);
    }
    return 0;
}

int split_plan(const struct split_spec *spec, const uint32_t *labels, uint32_t n, uint32_t classes, uint32_t clients,
               uint64_t seed, uint32_t *client_of, struct err *err)
{
    struct split split = {.spec = spec,
                          .labels = labels,
                          .n = n,
                          .classes = classes,
                          .clients = clients,
                          .seed = seed,
                          .client_of = client_of};
    int rc = check(spec, n, classes, clients, err);
    if (rc) {
        return rc;
    }
    split.order = mem_new(n, sizeof *split.order);
    split.holders = mem_new(clients, sizeof *split.holders);
    split.shares = mem_new(clients, sizeof *split.shares);
    split.held = mem_new(clients, sizeof *split.held);
    if (!split.order || !split.holders || !split.shares || !split.held) {
        rc = err_set(err, ERR_NOMEM, "no memory to split %u images", n);
        goto done;
    }
    struct rng rng;
    rng_init(&rng, seed, RNG_SPLIT, STREAM_IMAGES, 0, 0);
    rng_permutation(&rng, split.order, n);
    if (spec->kind == SPLIT_IID) {
        split_iid(&split);
    } else if (spec->kind == SPLIT_CLASSES) {
        rc = split_classes(&split, err);
    } else {
        split_dirichlet(&split);
    }
    if (rc == 0 && !everyone_has_some(&split)) {
        rc = err_set(err, ERR_DATA, "a client would hold no image: take fewer clients, more images or a milder split");
    }
done:
    mem_free(split.order);
    mem_free(split.holders);
    mem_free(split.shares);
    mem_free(split.held);
    return rc;
}
