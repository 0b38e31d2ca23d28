/* The plan: everything that all sites must agree on. The server sends its canonical bytes and their hash in WELCOME;
 * a client that does not know a key refuses the plan. */
#ifndef STARLING_CONFIG_PLAN_H
#define STARLING_CONFIG_PLAN_H

#include "common/base/hash.h"
#include "common/config/config.h"
#include "common/vec/layout.h"
#include "common/vec/quant.h"

enum fusion_encoder {
    FUSION_ENCODER_MOMENTUM,   /* the site's own momentum encoder, as in the paper; of its newest keys, which is ours */
    FUSION_ENCODER_AGGREGATED, /* the aggregated encoder as the round began (ours): one space for all features */
};
enum aggregation_optimizer { AGGREGATION_NONE, AGGREGATION_MOMENTUM, AGGREGATION_ADAM };
enum aggregation_rule { AGGREGATION_MEAN, AGGREGATION_MEDIAN, AGGREGATION_TRIMMED, AGGREGATION_KRUM };
enum sgd_velocity { SGD_VELOCITY_RESET, SGD_VELOCITY_KEEP };
enum key_encoder { KEY_ENCODER_FOLLOW, KEY_ENCODER_COPY, KEY_ENCODER_OWN };
enum queue_start { QUEUE_START_KEEP, QUEUE_START_REFILL, QUEUE_START_EMPTY };
enum matching_candidates { MATCHING_CANDIDATES_REMOTE, MATCHING_CANDIDATES_ALL };
enum matching_form { MATCHING_FORM_ENTROPY, MATCHING_FORM_POSITIVES };

struct plan {
    uint32_t rounds;
    uint32_t min_clients;
    uint32_t clients_per_round; /* 0: all that are ready */
    uint64_t round_deadline_ms;
    uint64_t seed;
    uint32_t local_epochs;
    uint32_t local_steps; /* 0: local_epochs counts; else steps per round */
    uint32_t batch;
    uint32_t bn_groups; /* divides batch */
    double learning_rate, sgd_momentum, weight_decay;
    double temperature, key_momentum;
    uint32_t sgd_velocity; /* enum sgd_velocity: what a round begins with */
    uint32_t key_encoder;  /* enum key_encoder: where that of a round begins */
    uint32_t queue;        /* K, local keys kept as negatives */
    uint32_t queue_start;  /* enum queue_start: what the queue of a round begins with */
    uint32_t weight_cap;   /* most images a site's update counts for */
    struct {
        uint32_t optimizer; /* enum aggregation_optimizer */
        double learning_rate, momentum, beta2, epsilon;
        uint32_t rule;           /* enum aggregation_rule */
        double trim;             /* of trimmed: the share that is cut at either end */
        uint32_t byzantine;      /* of krum: f */
        double norm_limit, clip; /* times the usual norm; 0: none */
    } aggregation;
    struct model_spec model;
    struct {
        bool enabled;
        uint32_t remote;           /* M, remote features a client receives per round */
        double share;              /* part of the negatives that is remote */
        uint32_t upload;           /* features a client uploads per round, at most */
        uint32_t encoder;          /* enum fusion_encoder */
        uint32_t min_contributors; /* other clients whose features a sample has at least */
        uint32_t ttl;              /* rounds for which a feature is handed out; 0: no end */
        struct {
            double noise, delta;
        } privacy;
    } fusion;
    struct {
        bool enabled;
        uint32_t form;       /* enum matching_form */
        uint32_t candidates; /* enum matching_candidates */
        uint32_t neighbours;
        double weight, temperature;
        uint32_t start_round, ramp_rounds;
    } matching;
    struct {
        double crop_least; /* smallest area of a random resized crop */
        double jitter;     /* strength of brightness, contrast, saturation; hue gets a quarter of it */
        double jitter_probability, grey_probability, blur_probability;
        bool flip;
    } augment;
    struct {
        struct {
            double clip, noise, delta;
        } privacy;
    } update;
    struct { /* enum quant; the model is always f32 */
        uint32_t update, features;
    } wire;
};

extern const struct option plan_options[];
extern const size_t plan_options_count;

/* The plan alone, at offset 0 with no prefix. */
extern const struct option_set plan_set;

/* Whether features travel at all: either of their uses is on. */
static inline bool plan_shares_features(const struct plan *plan)
{
    return plan->fusion.enabled || plan->matching.enabled;
}

static inline bool plan_has_noise(const struct plan *plan)
{
    return plan->fusion.privacy.noise > 0 || plan->update.privacy.noise > 0;
}

/* Losses and measures tell of the images and have no noise: where the update has some they stay at the site. */
static inline bool plan_hides_measures(const struct plan *plan)
{
    return plan->update.privacy.noise > 0;
}

/* What bounds of single keys cannot say: bn_groups divides batch, clients_per_round >= min_clients, the model makes a
 * network, FIXED_WEIGHT_MAX is not exceeded, ... ERR_CONFIG and the sentence. */
int plan_check(const struct plan *plan, struct err *err);
/* Canonical bytes: config_print_canonical, in the table's order. */
int plan_encode(const struct plan *plan, struct buf *out);
/* Strict: unknown keys are refused, missing ones too, but for those that were added to the table later. */
int plan_decode(const uint8_t *text, size_t len, struct plan *out, struct err *err);
struct hash128 plan_hash(const uint8_t *canonical, size_t len);
/* "learning_rate: 0.06 -> 0.03, rounds: 50 -> 80": what differs between two plans, for messages. */
int plan_difference(const struct plan *from, const struct plan *to, struct buf *out);

#endif
