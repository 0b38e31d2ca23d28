/* WELCOME or REJECT, READY. The first welcome says which plan and run the swarm is of; all others must say the same. */
#include "client/swarm/state.h"

#include "common/base/mem.h"

/* What the plan must be for the closed form of chain.h to hold, and for the swarm to be enough for a round. */
static int check_plan(const struct swarm *swarm, const struct msg_welcome *welcome, struct err *err)
{
    const struct plan *plan = &swarm->plan;
    uint32_t left = plan->rounds - (welcome->round < plan->rounds ? welcome->round : plan->rounds);
    if (swarm->options.idle) {
        return 0;
    }
    if (left == 0 || swarm->options.rounds > left) {
        return err_set(err, ERR_CONFIG, "the run has %u of its %u rounds left (--new-run at the server begins another)",
                       left, plan->rounds);
    }
    if (plan->min_clients > swarm->options.clients) {
        return err_set(err, ERR_CONFIG, "a round of this plan needs %u clients (min_clients); the swarm has %u",
                       plan->min_clients, swarm->options.clients);
    }
    if (plan->aggregation.optimizer != AGGREGATION_NONE || plan->aggregation.learning_rate != 1) {
        return err_set(err, ERR_CONFIG,
                       "the swarm knows what a plain average must be; set aggregation.optimizer to none and its "
                       "learning_rate to 1");
    }
    if (plan->aggregation.rule != AGGREGATION_MEAN || plan->aggregation.clip != 0) {
        return err_set(err, ERR_CONFIG,
                       "the swarm knows what a plain average must be; set aggregation.rule to mean and "
                       "aggregation.clip to 0");
    }
    return 0;
}

static int begin(struct swarm *swarm, const struct msg_welcome *welcome, struct err *err)
{
    const struct plan *plan = &swarm->plan;
    uint32_t most = plan_shares_features(plan) ? plan->fusion.upload : 0;
    uint32_t rows = swarm->options.rows_given ? swarm->options.rows : most;
    swarm->first = welcome->round + 1;
    swarm->last = swarm->options.rounds ? welcome->round + swarm->options.rounds : plan->rounds;
    swarm->rounds = mem_new(swarm->last - welcome->round, sizeof *swarm->rounds);
    if (!swarm->rounds) {
        return err_set(err, ERR_NOMEM, "out of memory for %u rounds", swarm->last - welcome->round);
    }
    for (uint32_t round = swarm->first; round <= swarm->last; round++) {
        swarm_round_of(swarm, round)->round = round;
    }
    int rc = stream_init(&swarm->stream, plan, swarm->layout, rows, err);
    if (rc == 0 && chain_init(&swarm->chain, &swarm->stream, plan->seed, swarm->first)) {
        rc = err_set(err, ERR_NOMEM, "out of memory for a model");
    }
    return rc;
}

static int take_first(struct swarm *swarm, const struct msg_welcome *welcome, struct err *err)
{
    int rc = plan_decode(welcome->plan, welcome->plan_len, &swarm->plan, err);
    rc = rc ? rc : layout_new(&swarm->plan.model, &swarm->layout, err);
    if (rc && rc != ERR_NOMEM) {
        (void)err_prefix(err, "the server's plan is not for this version");
        return err->code = ERR_MISMATCH;
    }
    swarm->run = welcome->run;
    swarm->boot = welcome->boot;
    swarm->plan_hash = welcome->plan_hash;
    swarm->idle_timeout_ms = welcome->idle_timeout_ms;
    rc = rc ? rc : check_plan(swarm, welcome, err);
    return rc || swarm->options.idle ? rc : begin(swarm, welcome, err);
}

static int check_welcome(const struct swarm *swarm, uint32_t client, const struct msg_welcome *welcome, struct err *err)
{
    if (welcome->minor < PROTOCOL_MINOR_LEAST || welcome->minor > PROTOCOL_MINOR_MOST) {
        return swarm_fail(swarm, client, err, ERR_VERSION, "the server chose protocol %d.%u", FRAME_VERSION,
                          welcome->minor);
    }
    struct hash128 hash = welcome->plan ? plan_hash(welcome->plan, welcome->plan_len) : (struct hash128){0};
    if (!welcome->plan || !hash_equal(&hash, &welcome->plan_hash)) {
        return swarm_fail(swarm, client, err, ERR_PROTOCOL, "a WELCOME without a plan, or with another one's hash");
    }
    if (swarm->layout &&
        (!hash_equal(&swarm->run, &welcome->run) || !hash_equal(&swarm->boot, &welcome->boot) ||
         !hash_equal(&swarm->plan_hash, &welcome->plan_hash) || swarm->idle_timeout_ms != welcome->idle_timeout_ms)) {
        return swarm_fail(swarm, client, err, ERR_MISMATCH, "was welcomed to another run, plan or start of the server");
    }
    uint32_t ended = client == swarm->options.clients ? swarm->last : swarm->first - 1;
    if (swarm->layout && !swarm->options.idle && welcome->round != ended) {
        return swarm_fail(swarm, client, err, ERR_FAILED, "round %u has ended, not %u: does somebody else contribute?",
                          welcome->round, ended);
    }
    return 0;
}

static void get_ready(struct swarm *swarm, uint32_t client)
{
    bool observes = client == swarm->options.clients;
    swarm->members[client].state = MEMBER_READY;
    swarm_say(
        swarm, client,
        (struct msg){.type = MSG_READY,
                     .ready = {.layout = swarm->layout->fingerprint, .images = observes ? 1 : stream_images(client)}});
}

int swarm_on_welcome(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    const struct msg_welcome *welcome = &msg->welcome;
    struct member *member = &swarm->members[client];
    int rc = check_welcome(swarm, client, welcome, err);
    rc = rc || swarm->layout ? rc : take_first(swarm, welcome, err);
    if (rc) {
        return rc;
    }
    uint64_t beat_us = swarm->idle_timeout_ms * 1000 / 4;
    member->state = MEMBER_GREETED;
    member->ended_round = welcome->round;
    member->beat_us = swarm->now_us + beat_us / 2 + beat_us / 2 * (client % 64) / 64; /* not all at the same moment */
    if (client == swarm->options.clients) {
        get_ready(swarm, client);
        return 0;
    }
    swarm->welcomed++;
    if (swarm->welcomed == swarm->options.clients && !swarm->options.idle) {
        for (uint32_t i = 0; i < swarm->options.clients; i++) {
            get_ready(swarm, i);
        }
    }
    return 0;
}

int swarm_on_reject(struct swarm *swarm, uint32_t client, const struct msg *msg, struct err *err)
{
    const struct msg_reject *reject = &msg->reject;
    int code = reject->code == REJECT_VERSION    ? ERR_VERSION
               : reject->code == REJECT_PROTOCOL ? ERR_PROTOCOL
               : reject->code == REJECT_ACCESS   ? ERR_ACCESS
               : reject->code == REJECT_LAYOUT   ? ERR_MISMATCH
               : reject->code == REJECT_PLAN     ? ERR_MISMATCH
                                                 : ERR_UNAVAILABLE;
    return swarm_fail(swarm, client, err, code, "the server refused: %s", reject->text);
}
