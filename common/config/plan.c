/* The plan's keys, with bounds and defaults, and its canonical form. The rows' order is the order of the canonical
 * bytes: moving or removing one changes the hash of every plan, and so does a new one unless it is marked as added;
 * then only plans that use it change, and runs that were begun without it go on. */
#include "common/config/plan.h"

#include "common/config/value.h"
#include "common/vec/fixed.h"

#include <math.h>
#include <string.h>

static const char *const blocks[] = {"basic", "bottleneck", NULL};
static const char *const stems[] = {"small", "large", NULL};
static const char *const encoders[] = {"momentum", "aggregated", NULL};
static const char *const velocities[] = {"reset", "keep", NULL};
static const char *const key_encoders[] = {"follow", "copy", "own", NULL};
static const char *const queue_starts[] = {"keep", "refill", "empty", NULL};
static const char *const optimizers[] = {"none", "momentum", "adam", NULL};
static const char *const rules[] = {"mean", "median", "trimmed", "krum", NULL};
static const char *const candidates[] = {"remote", "all", NULL};
static const char *const forms[] = {"entropy", "positives", NULL};
static const char *const numbers[] = {"f32", "f16", "int8", NULL};

#define AT(field)    .offset = offsetof(struct plan, field)
#define HOUR         3600000.0
#define ROWS_MOST    1048576
#define NOISE_LEAST  0.001 /* less protects nobody */
#define NUMBERS_MOST (UINT64_C(1) << 28)

/* clang-format off */
const struct option plan_options[] = {
    {"rounds", OPTION_U32, AT(rounds), .least = 1, .most = 1000000, .standard = "50",
     .help = "Rounds in all."},
    {"min_clients", OPTION_U32, AT(min_clients), .least = 1, .most = 100000, .standard = "2",
     .help = "A round opens when this many clients are ready, and closes with a new model when at least as many "
             "contributed."},
    {"clients_per_round", OPTION_U32, AT(clients_per_round), .least = 0, .most = 100000, .standard = "0",
     .help = "Clients chosen for a round; 0: all that are ready."},
    {"round_deadline", OPTION_DURATION, AT(round_deadline_ms), .least = 100, .most = 168 * HOUR, .standard = "30m",
     .help = "A round closes at the latest after this time."},
    {"seed", OPTION_U64, AT(seed), .least = 0, .most = 0x1p64, .standard = "1",
     .help = "Names all random streams: first weights, views, order, samples."},
    {"local_epochs", OPTION_U32, AT(local_epochs), .least = 1, .most = 1000, .standard = "1",
     .help = "Passes of a client over its images in a round."},
    {"local_steps", OPTION_U32, AT(local_steps), .least = 0, .most = 1000000, .standard = "0",
     .help = "Steps of a client in a round, for rounds shorter than an epoch; 0: local_epochs counts."},
    {"batch", OPTION_U32, AT(batch), .least = 2, .most = 4096, .standard = "128",
     .help = "Images in a step."},
    {"bn_groups", OPTION_U32, AT(bn_groups), .least = 1, .most = 256, .standard = "4",
     .help = "Parts of the batch with batch normalisation statistics of their own; divides batch. Keys are "
             "shuffled between parts, as MoCo does between devices."},
    {"learning_rate", OPTION_F64, AT(learning_rate), .least = 0, .most = 10, .standard = "0.06",
     .help = "At the start; falls to zero over the rounds along a cosine."},
    {"sgd_momentum", OPTION_F64, AT(sgd_momentum), .least = 0, .most = 0.9999, .standard = "0.9",
     .help = "Of stochastic gradient descent."},
    {"weight_decay", OPTION_F64, AT(weight_decay), .least = 0, .most = 1, .standard = "0.0005",
     .help = "Of convolutions and linear layers; normalisation and biases have none."},
    {"temperature", OPTION_F64, AT(temperature), .least = 0.001, .most = 10, .standard = "0.1",
     .help = "Of the contrastive loss."},
    {"key_momentum", OPTION_F64, AT(key_momentum), .least = 0, .most = 1, .standard = "0.99",
     .help = "Share of the momentum encoder that a step keeps."},
    {"sgd_velocity", OPTION_CHOICE, AT(sgd_velocity), .choices = velocities, .standard = "keep",
     .help = "What a client's SGD begins a round with. reset: no velocity; keep: the one that its last round left, so "
             "that short rounds get up to speed.", .added = true},
    {"key_encoder", OPTION_CHOICE, AT(key_encoder), .choices = key_encoders, .standard = "follow",
     .help = "Where the momentum encoder of a round begins. follow: it has followed the aggregated encoders from round "
             "to round as it follows the trained one from step to step; copy: at the aggregated encoder; own: as the "
             "client's last round left it.",
     .added = true},
    {"queue", OPTION_U32, AT(queue), .least = 1, .most = ROWS_MOST, .standard = "4096",
     .help = "Key features of its own that a client keeps as negatives."},
    {"queue_start", OPTION_CHOICE, AT(queue_start), .choices = queue_starts, .standard = "keep",
     .help = "What the queue of a round begins with. keep: the keys of the client's last round; refill: new keys, by "
             "the momentum encoder as the round begins, of images drawn for it; empty: rows of random direction.",
     .added = true},
    {"weight_cap", OPTION_U32, AT(weight_cap), .least = 1, .most = FIXED_WEIGHT_MAX, .standard = "1000000",
     .help = "Most images that a client's contribution counts for."},

    {"aggregation.optimizer", OPTION_CHOICE, AT(aggregation.optimizer), .choices = optimizers, .standard = "none",
     .help = "What the server does with the averaged update. none: adds it; momentum: FedAvgM (Hsu et al. 2019); "
             "adam: FedAdam (Reddi et al. 2021). Statistics of batch normalisation are always averaged.",
     .added = true},
    {"aggregation.learning_rate", OPTION_F64, AT(aggregation.learning_rate), .least = 0, .most = 10, .standard = "1",
     .help = "Of the server's step along the averaged update; 1 adds it as it is. adam needs a small one: 0.01 moves "
             "a parameter by about 0.01 in a round.",
     .added = true},
    {"aggregation.momentum", OPTION_F64, AT(aggregation.momentum), .least = 0, .most = 0.9999, .standard = "0.9",
     .help = "Share of the server's step direction that a round keeps; beta1 of adam.", .added = true},
    {"aggregation.beta2", OPTION_F64, AT(aggregation.beta2), .least = 0, .most = 0.999999, .standard = "0.99",
     .help = "Share of the mean square of updates that a round keeps; of adam.", .added = true},
    {"aggregation.epsilon", OPTION_F64, AT(aggregation.epsilon), .least = 1e-12, .most = 1, .standard = "0.001",
     .help = "Added to the root of the mean square; of adam: the larger, the less it adapts.", .added = true},
    {"aggregation.rule", OPTION_CHOICE, AT(aggregation.rule), .choices = rules, .standard = "mean",
     .help = "What one update stands for all of a round. mean: weighted by images; median and trimmed: number by "
             "number, the middle or the mean without both ends; krum: the mean of those that lie nearest to the "
             "others. All but mean withstand some contributions that lie, count every client alike, and keep the "
             "updates of a round on the server's disk.",
     .added = true},
    {"aggregation.trim", OPTION_F64, AT(aggregation.trim), .least = 0.01, .most = 0.49, .standard = "0.2",
     .help = "Of trimmed: the share of clients that is cut at either end, rounded down.", .added = true},
    {"aggregation.byzantine", OPTION_U32, AT(aggregation.byzantine), .least = 1, .most = 1000, .standard = "1",
     .help = "Of krum: how many contributions may lie. min_clients must be 2 of these + 3 or more; as many clients more than "
             "min_clients keep rounds closing where lies are refused.",
     .added = true},
    {"aggregation.norm_limit", OPTION_F64, AT(aggregation.norm_limit), .least = 0, .most = 1e9, .standard = "100",
     .help = "An update longer than so many times the usual length is declined; 0: none is. Usual is the median of "
             "the last five rounds. Sites with many more images, hence steps, have longer updates. Statistics of "
             "batch normalisation have lengths of their own, which jump where sites differ: 15 times the usual was seen.",
     .added = true},
    {"aggregation.clip", OPTION_F64, AT(aggregation.clip), .least = 0, .most = 1e9, .standard = "0",
     .help = "An update longer than so many times the usual length is shortened to it; 0: none is.", .added = true},

    {"model.block", OPTION_CHOICE, AT(model.block), .choices = blocks, .standard = "basic",
     .help = "Residual block of the encoder."},
    {"model.blocks", OPTION_U32_LIST, AT(model.blocks), .size = MODEL_STAGES_MAX,
     .count_offset = offsetof(struct plan, model.stages),
     .least = 1, .most = 64, .standard = "[2, 2, 2, 2]",
     .help = "Blocks in each stage; [2, 2, 2, 2] is ResNet-18."},
    {"model.width", OPTION_U32, AT(model.width), .least = 4, .most = 512, .standard = "64",
     .help = "Channels of the first stage; each later one has twice as many."},
    {"model.stem", OPTION_CHOICE, AT(model.stem), .choices = stems, .standard = "small",
     .help = "small: 3x3, for images of 32 to 64 pixels; large: 7x7 with stride 2 and pooling."},
    {"model.input", OPTION_U32, AT(model.input), .least = 8, .most = 512, .standard = "32",
     .help = "Pixels a side of what the encoder sees."},
    {"model.features", OPTION_U32, AT(model.features), .least = 8, .most = 4096, .standard = "128",
     .help = "Width of the features that are contrasted and exchanged."},

    {"fusion.enabled", OPTION_BOOL, AT(fusion.enabled), .standard = "true",
     .help = "Features of other clients serve as negatives."},
    {"fusion.remote", OPTION_U32, AT(fusion.remote), .least = 0, .most = ROWS_MOST, .standard = "2048",
     .help = "Remote features that a client receives in a round."},
    {"fusion.share", OPTION_F64, AT(fusion.share), .least = 0, .most = 1, .standard = "0.5",
     .help = "Part of the negatives that is remote; 1: no local ones at all."},
    {"fusion.upload", OPTION_U32, AT(fusion.upload), .least = 0, .most = ROWS_MOST, .standard = "2048",
     .help = "Features that a client contributes in a round, at most; no more than it has images or, with encoder "
             "momentum, keys that the round made and its queue holds."},
    {"fusion.encoder", OPTION_CHOICE, AT(fusion.encoder), .choices = encoders, .standard = "momentum",
     .help = "What makes the shared features. momentum: the newest keys of the client's momentum encoder; "
             "aggregated: the model with which the round began, from unchanged images."},
    {"fusion.min_contributors", OPTION_U32, AT(fusion.min_contributors), .least = 1, .most = 100000, .standard = "1",
     .help = "A client receives features when at least so many others have some in the bank. With one other the owner "
             "of each row is known; with two, every second guess is right. Rounds go on without until there are so many.",
     .added = true},
    {"fusion.ttl", OPTION_U32, AT(fusion.ttl), .least = 0, .most = 1000000, .standard = "0",
     .help = "Rounds for which a feature is handed out; then the server forgets it. 0: until newer ones take its place.",
     .added = true},

    {"fusion.privacy.noise", OPTION_F64, AT(fusion.privacy.noise), .least = 0, .most = 1000, .standard = "0",
     .help = "Standard deviation of the Gaussian noise in each number of a feature, which has length 1, before it leaves "
             "its site; it is made a unit row again. 0: none. Replacing one image moves one row, by 2 at most, with "
             "encoder aggregated; with momentum it may move all, and epsilon is larger.", .added = true},
    {"fusion.privacy.delta", OPTION_F64, AT(fusion.privacy.delta), .least = 1e-15, .most = 0.1, .standard = "1e-05",
     .help = "For which the epsilon of the features is told.", .added = true},

    {"matching.enabled", OPTION_BOOL, AT(matching.enabled), .standard = "true",
     .help = "Neighbourhood matching pulls features to their nearest neighbours."},
    {"matching.form", OPTION_CHOICE, AT(matching.form), .choices = forms, .standard = "positives",
     .help = "positives: the candidates nearest to a feature's key are further positives; entropy: each feature "
             "decides for a neighbourhood."},
    {"matching.candidates", OPTION_CHOICE, AT(matching.candidates), .choices = candidates, .standard = "remote",
     .help = "Among what neighbours are looked for: remote features, or all: the client's own keys as well.",
     .added = true},
    {"matching.neighbours", OPTION_U32, AT(matching.neighbours), .least = 1, .most = 1024, .standard = "5",
     .help = "Nearest neighbours that count."},
    {"matching.weight", OPTION_F64, AT(matching.weight), .least = 0, .most = 100, .standard = "0.2",
     .help = "Of the matching loss beside the contrastive loss."},
    {"matching.temperature", OPTION_F64, AT(matching.temperature), .least = 0.001, .most = 10, .standard = "0.1",
     .help = "Of the matching loss."},
    {"matching.start_round", OPTION_U32, AT(matching.start_round), .least = 1, .most = 1000000, .standard = "15",
     .help = "First round with matching; neighbours mean nothing while features are random."},
    {"matching.ramp_rounds", OPTION_U32, AT(matching.ramp_rounds), .least = 0, .most = 1000000, .standard = "5",
     .help = "Rounds over which the weight grows to its full size."},

    {"augment.crop_least", OPTION_F64, AT(augment.crop_least), .least = 0.01, .most = 1, .standard = "0.2",
     .help = "Smallest part of the image's area that a random crop keeps."},
    {"augment.jitter", OPTION_F64, AT(augment.jitter), .least = 0, .most = 1, .standard = "0.4",
     .help = "Strength of the change of brightness, contrast and saturation; hue gets a quarter of it."},
    {"augment.jitter_probability", OPTION_F64, AT(augment.jitter_probability), .least = 0, .most = 1, .standard = "0.8",
     .help = "Share of views with changed colours."},
    {"augment.grey_probability", OPTION_F64, AT(augment.grey_probability), .least = 0, .most = 1, .standard = "0.2",
     .help = "Share of views without colours."},
    {"augment.blur_probability", OPTION_F64, AT(augment.blur_probability), .least = 0, .most = 1, .standard = "0",
     .help = "Share of blurred views; helps with large images."},
    {"augment.flip", OPTION_BOOL, AT(augment.flip), .standard = "true",
     .help = "Half of the views are mirrored left to right."},

    {"update.privacy.clip", OPTION_F64, AT(update.privacy.clip), .least = 0, .most = 1e6, .standard = "0",
     .help = "Greatest length (L2) of an update, statistics of batch normalisation included; a longer one is shortened "
             "to it at its site. 0: any. Where it is set a client's log tells how "
             "long they were (update_length).", .added = true},
    {"update.privacy.noise", OPTION_F64, AT(update.privacy.noise), .least = 0, .most = 1000, .standard = "0",
     .help = "Standard deviation of the Gaussian noise in each number of an update before it leaves its site, in units "
             "of clip. 0: none. Any other folder of images moves an update by 2 clip at most. With noise, losses and "
             "measures of features stay at the site as well.", .added = true},
    {"update.privacy.delta", OPTION_F64, AT(update.privacy.delta), .least = 1e-15, .most = 0.1, .standard = "1e-05",
     .help = "For which the epsilon of the updates is told.", .added = true},

    {"wire.update", OPTION_CHOICE, AT(wire.update), .choices = numbers, .standard = "f32",
     .help = "Numbers of the updates that clients send. What f16 or int8 leaves out of one update goes into the next. "
             "The model is sent in f32.", .added = true},
    {"wire.features", OPTION_CHOICE, AT(wire.features), .choices = numbers, .standard = "f32",
     .help = "Numbers of the features, those that clients send and those that they receive.", .added = true},
};
/* clang-format on */
const size_t plan_options_count = sizeof plan_options / sizeof plan_options[0];

static const struct option_table plan_table = {
    .prefix = "", .options = plan_options, .count = sizeof plan_options / sizeof plan_options[0]};
const struct option_set plan_set = {.tables = &plan_table, .count = 1};

/* The fewest contributions with which the rule can leave any of them out; as rule_least (server/agg/rule.h) has it. */
static uint32_t least_clients(const struct plan *plan)
{
    switch (plan->aggregation.rule) {
    case AGGREGATION_MEDIAN:
        return 3;
    case AGGREGATION_TRIMMED:
        return (uint32_t)ceil(1 / plan->aggregation.trim - 1e-9);
    case AGGREGATION_KRUM:
        return 2 * plan->aggregation.byzantine + 3;
    default:
        return 1;
    }
}

static int check_noise(const char *key, double noise, struct err *err)
{
    return noise > 0 && noise < NOISE_LEAST
               ? err_set(err, ERR_CONFIG, "%s: %g protects nobody; 0, or %g and more", key, noise, NOISE_LEAST)
               : 0;
}

static int check_privacy(const struct plan *plan, struct err *err)
{
    if (plan->update.privacy.noise > 0 && !(plan->update.privacy.clip > 0)) {
        return err_set(err, ERR_CONFIG,
                       "update.privacy.noise: noise for updates of any length protects none; set "
                       "update.privacy.clip");
    }
    int rc = check_noise("fusion.privacy.noise", plan->fusion.privacy.noise, err);
    return rc ? rc : check_noise("update.privacy.noise", plan->update.privacy.noise, err);
}

int plan_check(const struct plan *plan, struct err *err)
{
    if (plan->clients_per_round != 0 && plan->clients_per_round < plan->min_clients) {
        return err_set(err, ERR_CONFIG, "clients_per_round: %u is less than min_clients, %u", plan->clients_per_round,
                       plan->min_clients);
    }
    if (plan->bn_groups == 0 || plan->batch % plan->bn_groups != 0 || plan->batch / plan->bn_groups < 2) {
        return err_set(err, ERR_CONFIG, "bn_groups: a batch of %u makes no %u equal groups of two images or more",
                       plan->batch, plan->bn_groups);
    }
    if (plan->aggregation.optimizer == AGGREGATION_ADAM && plan->aggregation.learning_rate > 0.1) {
        return err_set(
            err, ERR_CONFIG,
            "aggregation.learning_rate: adam moves each parameter by about as much in a round, and %g is too "
            "much; 0.1 or less",
            plan->aggregation.learning_rate);
    }
    uint32_t rule = plan->aggregation.rule, least = least_clients(plan);
    if (plan->min_clients < least) {
        return err_set(err, ERR_CONFIG,
                       "aggregation.rule: %s withstands nothing in a round of fewer than %u contributions, and "
                       "min_clients is %u; raise min_clients, or choose another rule",
                       rules[rule], least, plan->min_clients);
    }
    double limit = plan->aggregation.norm_limit, clip = plan->aggregation.clip;
    if ((limit > 0 && limit < 1) || (clip > 0 && clip < 1) || (limit > 0 && clip > limit)) {
        return err_set(err, ERR_CONFIG,
                       "aggregation.norm_limit, %g, and aggregation.clip, %g: 0, or 1 or more, and what is clipped "
                       "must not be declined first",
                       limit, clip);
    }
    const struct {
        const char *key;
        uint32_t rows;
    } held[] = {{"queue", plan->queue}, {"fusion.remote", plan->fusion.remote}, {"fusion.upload", plan->fusion.upload}};
    for (size_t i = 0; i < sizeof held / sizeof held[0]; i++) {
        if ((uint64_t)held[i].rows * plan->model.features > NUMBERS_MOST) {
            return err_set(err, ERR_CONFIG, "%s: %u rows of model.features, %u, are more than 1 GiB; lower either",
                           held[i].key, held[i].rows, plan->model.features);
        }
    }
    if (plan->fusion.min_contributors > 1 && plan->fusion.min_contributors > plan->fusion.remote) {
        return err_set(err, ERR_CONFIG,
                       "fusion.min_contributors: %u clients cannot have part in fusion.remote, %u rows",
                       plan->fusion.min_contributors, plan->fusion.remote);
    }
    if (plan->weight_cap > FIXED_WEIGHT_MAX) {
        return err_set(err, ERR_CONFIG, "weight_cap: %u is more than %llu", plan->weight_cap,
                       (unsigned long long)FIXED_WEIGHT_MAX);
    }
    int rc = check_privacy(plan, err);
    if (rc) {
        return rc;
    }
    struct layout *layout;
    rc = layout_new(&plan->model, &layout, err);
    if (rc) {
        (void)err_prefix(err, "model");
    }
    layout_free(layout);
    return rc;
}

int plan_encode(const struct plan *plan, struct buf *out)
{
    return config_print_canonical(&plan_set, plan, out);
}

int plan_decode(const uint8_t *text, size_t len, struct plan *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    int rc = config_parse_complete(&plan_set, "plan", text, len, out, err);
    if (rc == 0 && (rc = plan_check(out, err)) != 0) {
        (void)err_prefix(err, "plan");
    }
    return rc;
}

struct hash128 plan_hash(const uint8_t *canonical, size_t len)
{
    return hash_of(canonical, len);
}

int plan_difference(const struct plan *from, const struct plan *to, struct buf *out)
{
    struct buf a, b;
    buf_init(&a, 4096);
    buf_init(&b, 4096);
    int rc = 0;
    bool first = true;
    for (size_t i = 0; rc == 0 && i < plan_options_count; i++) {
        a.len = b.len = 0;
        rc = value_print(&plan_options[i], from, &a);
        rc = rc ? rc : value_print(&plan_options[i], to, &b);
        if (rc == 0 && (a.len != b.len || memcmp(a.data, b.data, a.len) != 0)) {
            rc = buf_printf(out, "%s%s: %.*s -> %.*s", first ? "" : ", ", plan_options[i].key, (int)a.len,
                            (const char *)a.data, (int)b.len, (const char *)b.data);
            first = false;
        }
    }
    buf_fini(&a);
    buf_fini(&b);
    return rc;
}
