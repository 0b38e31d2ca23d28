/* The demo's plan: small enough that a laptop closes the first round within seconds, and that the encoder is visibly
 * better after minutes. --set has the last word. */
#include "client/tool/demo.h"

#define ROUNDS_DRAWN 40
#define ROUNDS_GIVEN 300

struct setting {
    const char *key, *value;
};

static const struct setting for_all[] = {
    {"model.width", "16"},
    {"model.blocks", "1,1,1,1"},
};
/* A site has few drawn images: small batches give it more steps for the same images, and a queue of more than a few
 * passes over its folder holds little but older keys of the same. */
static const struct setting for_drawn[] = {
    {"local_epochs", "2"}, {"batch", "32"}, {"bn_groups", "2"}, {"learning_rate", "0.12"}, {"queue", "512"},
};
/* Short rounds of small batches: for the same images seen they learn most (tests/experiments/README.md). */
static const struct setting for_given[] = {
    {"local_steps", "5"},
    {"batch", "32"},
    {"bn_groups", "1"},
    {"queue", "2048"},
};

static int apply(struct plan *plan, const struct setting *settings, size_t count, struct err *err)
{
    int code = 0;
    for (size_t i = 0; !code && i < count; i++) {
        code = config_set(&plan_set, "demo", settings[i].key, settings[i].value, plan, err);
    }
    return code;
}

static int apply_set(struct plan *plan, const struct demo_options *options, struct err *err)
{
    int code = 0;
    for (size_t i = 0; !code && options->set[i]; i++) {
        code = config_assign(&plan_set, "--set", options->set[i], plan, err);
    }
    return code;
}

int demo_plan(struct demo *demo, struct err *err)
{
    const struct demo_options *options = &demo->options;
    struct plan *plan = &demo->plan;
    bool drawn = !options->images;
    config_defaults(&plan_set, plan);
    int code = apply(plan, for_all, sizeof for_all / sizeof for_all[0], err);
    if (!code) {
        code = drawn ? apply(plan, for_drawn, sizeof for_drawn / sizeof for_drawn[0], err)
                     : apply(plan, for_given, sizeof for_given / sizeof for_given[0], err);
    }
    if (code) {
        return code;
    }
    plan->rounds = options->rounds ? options->rounds : drawn ? ROUNDS_DRAWN : ROUNDS_GIVEN;
    plan->seed = options->seed;
    plan->min_clients = options->clients;
    code = apply_set(plan, options, err);
    /* Neighbours mean nothing while features are random, but a run of any length should get to them; how long it is,
     * --set may have said. */
    plan->matching.start_round = 1 + plan->rounds / 3;
    plan->matching.ramp_rounds = plan->rounds / 6;
    code = code ? code : apply_set(plan, options, err);
    if (code) {
        return code;
    }
    if (plan->min_clients > options->clients) {
        return err_set(err, ERR_CONFIG, "min_clients is %u, but the demo starts %u clients", plan->min_clients,
                       options->clients);
    }
    demo->keep_every = demo_midway(plan) ? demo_midway(plan) : 1;
    return plan_check(plan, err);
}

uint32_t demo_midway(const struct plan *plan)
{
    return plan->rounds / 2;
}

/* What the samples of so many clients can take: a round of few steps brings few features, and the bank goes to disk
 * with each. */
static uint32_t bank_rows(const struct demo *demo)
{
    uint32_t clients = demo->options.clients, others = clients > 1 ? clients - 1 : 1;
    uint32_t each = (demo->plan.fusion.remote + others - 1) / others;
    return each > 0 ? clients * each : 1;
}

int demo_server_yaml(const struct demo *demo, const char *state, struct buf *out)
{
    static const char head[] =
        "# Written by `starling demo`; `starling-server --config` this file runs the same server.\n";
    const struct option_table table = {.prefix = "plan", .options = plan_options, .count = plan_options_count};
    const struct option_set nested = {.tables = &table, .count = 1};
    int code = buf_printf(out, "%slisten: \"127.0.0.1:0\"\nstate: \"", head);
    code = code ? code : buf_json_escape(out, state);
    code =
        code ? code : buf_printf(out, "\"\nkeep_every: %u\nbank:\n  capacity: %u\n", demo->keep_every, bank_rows(demo));
    return code ? code : config_print(&nested, &demo->plan, false, out);
}
