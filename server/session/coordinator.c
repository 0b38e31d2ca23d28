/* Events come in here, and become what happened to a peer, a job or the clock. */
#include "common/base/mem.h"
#include "server/session/state.h"

#include <stdio.h>
#include <string.h>

static int take_members(struct coordinator *c, const struct checkpoint *from)
{
    for (uint32_t i = 0; i < from->counted_count; i++) {
        uint32_t index = member_find(c, from->counted[i].name);
        int rc = index == NONE ? member_add(c, from->counted[i].name, &index) : 0;
        if (rc) {
            return rc;
        }
        c->members[index].has_counted = true;
        c->members[index].counted_round = from->counted[i].round;
    }
    return 0;
}

static int take_bank(struct coordinator *c, const struct checkpoint *from, struct err *err)
{
    uint32_t capacity = c->options.bank_capacity, dimension = c->plan->model.features;
    int rc = from->bank_len > 0 ? bank_decode(from->bank, from->bank_len, capacity, dimension, &c->bank, err)
                                : bank_new(capacity, dimension, &c->bank);
    return rc ? rc : bank_intake_new(capacity, dimension, &c->intake);
}

_Static_assert((int)OPTIMISER_NONE == (int)AGGREGATION_NONE && (int)OPTIMISER_MOMENTUM == (int)AGGREGATION_MOMENTUM &&
                   (int)OPTIMISER_ADAM == (int)AGGREGATION_ADAM,
               "the plan's optimizer is cast to the aggregate's");

_Static_assert((int)RULE_MEAN == (int)AGGREGATION_MEAN && (int)RULE_MEDIAN == (int)AGGREGATION_MEDIAN &&
                   (int)RULE_TRIMMED == (int)AGGREGATION_TRIMMED && (int)RULE_KRUM == (int)AGGREGATION_KRUM,
               "and so is its rule");
_Static_assert((int)NORM_PARTS == CHECKPOINT_PARTS && NORM_ROUNDS == CHECKPOINT_NORMS,
               "the checkpoint holds the history of norms");

static int take_model(struct coordinator *c, const struct checkpoint *from, struct err *err)
{
    const struct optimiser optimiser = {
        .kind = (enum optimiser_kind)c->plan->aggregation.optimizer,
        .learning_rate = c->plan->aggregation.learning_rate,
        .momentum = c->plan->aggregation.momentum,
        .beta2 = c->plan->aggregation.beta2,
        .epsilon = c->plan->aggregation.epsilon,
    };
    c->rule = (struct rule){
        .kind = (enum rule_kind)c->plan->aggregation.rule,
        .trim = c->plan->aggregation.trim,
        .byzantine = c->plan->aggregation.byzantine,
    };
    memcpy(c->norms, from->norms, sizeof c->norms);
    uint64_t bytes = optimiser_floats(&optimiser, c->layout) * sizeof(float);
    bool begins = from->round == 0 && from->optimiser_len == 0;
    if (!begins && from->optimiser_len != bytes) {
        return err_set(err, ERR_DATA,
                       "the checkpoint of round %u has %llu bytes of the state of the plan's aggregation.optimizer, "
                       "which has %llu; begin a new run with --new-run",
                       from->round, (unsigned long long)from->optimiser_len, (unsigned long long)bytes);
    }
    return agg_new(c->layout, from->params, &optimiser, begins ? NULL : (const float *)(const void *)from->optimiser,
                   &c->agg);
}

static int take_history(struct coordinator *c, const struct round_summary *history, uint32_t count)
{
    c->history = mem_new_aligned(HISTORY_ROOM, sizeof *c->history);
    if (!c->history) {
        return ERR_NOMEM;
    }
    c->history_count = count < MSG_HISTORY_MAX ? count : MSG_HISTORY_MAX;
    if (count > 0) {
        memcpy(c->history, history + (count - c->history_count), c->history_count * sizeof *history);
    }
    return 0;
}

/* Whether the run stands in an episode of collapse. The checkpoint's round may be missing from the history. */
static void take_alarm(struct coordinator *c, const struct checkpoint *from)
{
    for (uint32_t i = 0; i < c->history_count; i++) {
        (void)alarm_follow(c, &c->history[i]);
    }
    (void)alarm_follow(c, &from->summary);
}

static int take_state(struct coordinator *c, const struct checkpoint *from, struct err *err)
{
    const struct plan *plan = c->plan;
    uint64_t idle = c->options.idle_timeout_ms;
    struct round_options options = {
        .rounds = plan->rounds,
        .min_clients = plan->min_clients,
        .clients_per_round = plan->clients_per_round,
        .deadline_ms = plan->round_deadline_ms,
        .drain_ms = idle / 6,
        .seed = plan->seed,
        .weight_cap = plan->weight_cap,
        .weight_max = FIXED_WEIGHT_MAX,
    };
    round_init(&c->round, &options, from->round, c->now_ms);
    c->plan_bytes = mem_new(c->options.plan_len, 1);
    c->sample = mem_new(plan->fusion.remote, sizeof *c->sample);
    c->packed_row = mem_new(plan->model.features + 1, sizeof(float)); /* no form is longer */
    c->slots = mem_new(c->options.upload_slots, sizeof *c->slots);
    pace_init(&c->pace, c->options.upload_slots, idle / 12);
    c->jobs = mem_new((size_t)c->options.upload_slots + 3, sizeof(struct job *));
    if (!c->plan_bytes || !c->sample || !c->packed_row || !c->slots || !c->jobs) {
        return ERR_NOMEM;
    }
    memcpy(c->plan_bytes, c->options.plan_bytes, c->options.plan_len);
    c->plan_len = c->options.plan_len;
    c->plan_hash = plan_hash(c->plan_bytes, c->plan_len);
    c->run = from->run;
    c->accepted = from->summary.accepted;
    c->model_hash = hash_of(from->params, (size_t)c->layout->total * sizeof *from->params);
    int rc = take_model(c, from, err);
    rc = rc ? rc : take_bank(c, from, err);
    return rc ? rc : take_members(c, from);
}

int coordinator_new(const struct coordinator_options *options, const struct checkpoint *from,
                    const struct round_summary *history, uint32_t history_count, uint64_t now_ms,
                    struct coordinator **out, struct err *err)
{
    *out = NULL;
    if (options->upload_slots == 0 || options->idle_timeout_ms < 24) {
        return err_set(err, ERR_CONFIG, "the coordinator needs an upload slot and an idle_timeout of 24 ms or more");
    }
    if (options->handshakes_max > HANDSHAKES_MOST) {
        return err_set(err, ERR_CONFIG, "the coordinator has places for %u handshakes at most", HANDSHAKES_MOST);
    }
    if (options->plan->aggregation.rule != AGGREGATION_MEAN && !options->spool) {
        return err_set(err, ERR_CONFIG, "the plan's aggregation.rule needs a spool");
    }
    struct coordinator *c = mem_new(1, sizeof *c);
    if (!c) {
        return err_set(err, ERR_NOMEM, "out of memory for the coordinator");
    }
    c->options = *options;
    c->plan = options->plan;
    c->layout = options->layout;
    c->log = options->log;
    uint64_t seed;
    memcpy(&seed, &options->boot, sizeof seed);
    log_limit_init(&c->peers_log, c->log, seed);
    c->started_ms = c->now_ms = now_ms;
    int rc = take_state(c, from, err);
    rc = rc ? rc : take_history(c, history, history_count);
    if (rc) {
        if (rc == ERR_NOMEM) {
            (void)err_set(err, rc, "out of memory for a model of %llu numbers", (unsigned long long)c->layout->total);
        }
        coordinator_free(c);
        return rc;
    }
    take_alarm(c, from);
    remind_set(c);
    char run[HASH_HEX], text[MSG_TEXT_MAX];
    waits_for(c, text);
    log_event(c->log, LOG_LEVEL_INFO, "coordinator_started", "run=%s round=%u of=%u bank_rows=%u waits_for=\"%s\"",
              hash_hex(&c->run, run), c->round.durable, c->plan->rounds, c->bank->rows, text);
    *out = c;
    return 0;
}

void coordinator_free(struct coordinator *c)
{
    if (!c) {
        return;
    }
    for (uint32_t i = 0; i < c->peers_room; i++) {
        mem_free(c->peers[i]);
    }
    for (uint32_t i = 0; c->slots && i < c->options.upload_slots; i++) {
        transfer_reset(&c->slots[i].update);
        transfer_reset(&c->slots[i].features);
    }
    bytes_unref(c->aggregate.next);
    bytes_unref(c->aggregate.next_state);
    bank_free(c->aggregate.next_bank);
    mem_free(c->aggregate.bank_bytes);
    mem_free(c->aggregate.names);
    mem_free(c->aggregate.kept);
    mem_free(c->counted);
    mem_free(c->peers);
    mem_free(c->slots);
    mem_free(c->jobs);
    mem_free(c->members);
    mem_free(c->queue);
    mem_free(c->lengths);
    mem_free(c->history);
    mem_free(c->sample);
    mem_free(c->packed_row);
    mem_free(c->plan_bytes);
    bank_free(c->bank);
    bank_intake_free(c->intake);
    agg_free(c->agg);
    round_fini(&c->round);
    mem_free(c);
}

static void send_heartbeats(struct coordinator *c)
{
    if (c->welcomed == 0 || c->now_ms < c->alive_ms) {
        return;
    }
    c->alive_ms = c->now_ms + c->options.idle_timeout_ms / 4;
    bool open = c->round.phase == ROUND_OPEN;
    struct msg alive = {.type = MSG_ALIVE};
    alive.alive.round = open ? round_current(c) : c->round.durable;
    alive.alive.remaining_ms = open ? remaining_ms(c) : 0;
    waits_for(c, alive.alive.waits_for);
    for (uint32_t i = 0; i < c->round.count; i++) {
        struct peer *peer = member_peer(c, i);
        if (peer) {
            struct msg msg = alive;
            peer_send(c, peer, &msg);
        }
    }
}

static void tick(struct coordinator *c)
{
    strangers_tick(c);
    slots_tick(c);
    if (c->now_ms >= round_next_ms(&c->round)) {
        round_apply(c, ROUND_TICK, 0);
    }
    remind_tick(c);
    log_limit_tick(&c->peers_log, c->now_ms);
    send_heartbeats(c);
}

int coordinator_step(struct coordinator *c, const struct event *event, uint64_t now_ms, struct actions *out)
{
    struct peer *peer = event->kind <= EVENT_PEER_CLOSED ? peer_at(c, event->peer) : NULL;
    c->out = out;
    c->now_ms = now_ms;
    c->unix_ms = event->unix_ms;
    c->nomem = false;
    switch (event->kind) {
    case EVENT_PEER_OPENED:
        peer_opened(c, event->peer, event->address);
        break;
    case EVENT_PEER_KNOCKED:
        if (peer) {
            handshake_knock(c, peer);
        }
        break;
    case EVENT_PEER_IDENTIFIED:
        if (peer) {
            peer_identified(c, peer, event->identity);
        }
        break;
    case EVENT_PEER_MESSAGE:
        if (peer) {
            dispatch(c, peer, event->message);
        }
        break;
    case EVENT_PEER_DRAINED:
        if (peer) {
            peer->sending = false;
            peer->holds = 0;
            download_continue(c, peer);
            status_continue(c, peer);
        }
        break;
    case EVENT_PEER_BARRED:
        if (peer) {
            peer->barred = true;
        }
        break;
    case EVENT_PEER_CLOSED:
        if (peer) {
            peer_closed(c, peer, event->reason);
        }
        break;
    case EVENT_JOB_DONE:
        job_done(c, event->job, event->result, event->reason);
        break;
    case EVENT_TICK:
        tick(c);
        break;
    case EVENT_STOP:
        round_apply(c, ROUND_STOP, 0);
        break;
    }
    slots_pace(c);
    handshakes_fill(c);
    flush_due(c);
    remind_set(c);
    c->out = NULL;
    return c->nomem ? ERR_NOMEM : 0;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t coordinator_next_ms(const struct coordinator *c)
{
    if (c->jobs_count > 0 || c->closes_due > 0 || c->exit_due) {
        return c->now_ms + 100; /* There was no memory to hand it out; the next step tries again. */
    }
    uint64_t next = earlier(round_next_ms(&c->round), strangers_next_ms(c));
    next = earlier(next, handshakes_next_ms(c));
    next = earlier(next, earlier(slots_next_ms(c), pace_next_ms(&c->pace)));
    next = earlier(next, earlier(c->reminder.due_ms, log_limit_next_ms(&c->peers_log)));
    return c->welcomed > 0 ? earlier(next, c->alive_ms) : next;
}

const struct log *coordinator_log(struct coordinator *c, uint32_t peer, const char *event)
{
    const struct peer *known = peer_at(c, peer);
    return known ? log_of_peer(c, known, event) : log_of_address(c, "?", event);
}

const struct frame_limits *coordinator_limits(const struct coordinator *c, uint32_t peer)
{
    const struct peer *known = peer_at(c, peer);
    return !known                           ? &msg_limits_server_new
           : known->state == PEER_UPLOADING ? &msg_limits_server_uploading
                                            : known->limits;
}

void coordinator_set_usage(struct coordinator *c, uint64_t peak_rss_bytes)
{
    c->peak_rss_bytes = peak_rss_bytes;
}

const char *coordinator_phase(const struct coordinator *c)
{
    return round_state(&c->round);
}

uint32_t coordinator_round(const struct coordinator *c)
{
    return c->round.durable;
}

const float *coordinator_params(const struct coordinator *c)
{
    return agg_params(c->agg);
}
