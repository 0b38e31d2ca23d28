#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void violate(struct world *world, const char *format, ...)
{
    if (world->violation[0]) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(world->violation, sizeof world->violation, format, args);
    va_end(args);
    say(world, "VIOLATION", "%s", world->violation);
}

void say(struct world *world, const char *who, const char *format, ...)
{
    if (!world->scenario.verbose) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)printf("%8.3f %-10s ", (double)world->now_ms / 1000, who);
    (void)vprintf(format, args);
    (void)printf("\n");
    va_end(args);
}

const char *const sights[] = {
    /* of the server's log */
    "round_extended", "contribution_declined", "save_failed", "client_left", "upload_too_slow", "round_stuck",
    "still_waiting", "upload_slots", "spool_failed", "round_held", "round_recalled", "features_copied",
    /* of the clients' log */
    "queued", "dropped", "declined", "rejected", "stale", "work_failed",
    /* of the world */
    "killed_in_save", "killed_after_save", "durable_by_luck", "committed_by_welcome", "committed_by_round_end",
    "cancelled", "trained_again", "offered_again", "silent_for_idle_timeout", "refused", "disk_error", "clock_jumped",
    "repaired", "put_back", NULL};

void sight(struct world *world, const char *what)
{
    for (int i = 0; sights[i]; i++) {
        world->seen[i] += strcmp(sights[i], what) == 0;
    }
}

static void log_emit(void *ctx, enum log_level level, const char *event, const char *fields)
{
    struct world *world = ctx;
    sight(world, event);
    world->recalled |= strcmp(event, "round_recalled") == 0;
    world->stuck |= world->scenario.hot && strcmp(event, "round_stuck") == 0;
    say(world, world->speaker, "%-5s %s %s", log_level_name(level), event, fields);
}

uint32_t chance(struct world *world, uint32_t n)
{
    return rng_below(&world->rng, n);
}

uint32_t between(struct world *world, uint32_t least, uint32_t most)
{
    return least + rng_below(&world->rng, most - least + 1);
}

struct process *process_of(struct world *world, uint32_t who)
{
    return who == WHO_WORLD    ? NULL
           : who == WHO_SERVER ? &world->server.process
                               : &world->clients[who - WHO_CLIENT].process;
}

/* ---- the queue ---- */

static bool is_before(const struct entry *a, const struct entry *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void push(struct world *world, const struct entry *entry)
{
    if (world->queue_count == world->queue_room) {
        world->queue_room = world->queue_room ? 2 * world->queue_room : 256;
        world->queue = mem_resize(world->queue, world->queue_room, sizeof *world->queue);
    }
    size_t at = world->queue_count++;
    world->queue[at] = *entry;
    while (at > 0 && is_before(&world->queue[at], &world->queue[(at - 1) / 2])) {
        struct entry swap = world->queue[at];
        world->queue[at] = world->queue[(at - 1) / 2];
        world->queue[(at - 1) / 2] = swap;
        at = (at - 1) / 2;
    }
}

static struct entry pop(struct world *world)
{
    struct entry first = world->queue[0];
    world->queue[0] = world->queue[--world->queue_count];
    for (size_t at = 0;;) {
        size_t least = at, left = 2 * at + 1, right = left + 1;
        least = left < world->queue_count && is_before(&world->queue[left], &world->queue[least]) ? left : least;
        least = right < world->queue_count && is_before(&world->queue[right], &world->queue[least]) ? right : least;
        if (least == at) {
            return first;
        }
        struct entry swap = world->queue[at];
        world->queue[at] = world->queue[least];
        world->queue[least] = swap;
        at = least;
    }
}

void schedule(struct world *world, uint64_t in_ms, struct entry entry)
{
    struct process *process = process_of(world, entry.who);
    entry.at_ms = world->now_ms + in_ms;
    entry.order = world->order++;
    entry.epoch = process ? process->epoch : 0;
    push(world, &entry);
}

/* ---- the run ---- */

struct scenario scenario_of(uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed, RNG_TEST, 1, 0, 0);
    struct scenario s = {.seed = seed};
    s.clients = 2 + rng_below(&rng, CLIENTS_MAX - 2);
    s.rounds = 4;
    s.deadline_ms = 5000u << rng_below(&rng, 3);
    s.upload_slots = 1u << rng_below(&rng, 3);
    /* Half of the seeds require everybody, so that their outcome must be that of the undisturbed run. */
    s.min_clients = rng_below(&rng, 2) ? s.clients : 1 + rng_below(&rng, s.clients);
    s.features = rng_below(&rng, 4) != 0;
    s.straggler = s.min_clients < s.clients && rng_below(&rng, 2);
    s.one_dies = s.min_clients < s.clients && rng_below(&rng, 2);
    s.optimizer = rng_below(&rng, AGGREGATION_ADAM + 1);
    s.hot = rng_below(&rng, 6) == 0;
    /* No draw: what other seeds stand for stays. */
    bool many = s.min_clients >= 3;
    s.rule = seed % 3 != 1 || !many ? AGGREGATION_MEAN : seed % 2 ? AGGREGATION_MEDIAN : AGGREGATION_TRIMMED;
    s.hot_long = (seed >> 3) % 2;
    s.hot_part = (seed >> 4) % 2;
    s.copier = s.features && seed % 5 == 0;
    s.hot_round = s.hot_long && (seed >> 2) % 2 && s.min_clients >= 2 ? 1 : 2;
    return s;
}

static void set_plan(struct world *world)
{
    struct plan *plan = &world->plan;
    config_defaults(&plan_set, plan);
    plan->rounds = world->scenario.rounds;
    plan->min_clients = world->scenario.min_clients;
    plan->round_deadline_ms = world->scenario.deadline_ms;
    plan->seed = 77;
    plan->batch = 8;
    plan->bn_groups = 2;
    plan->model.width = 4;
    plan->model.stages = 1;
    plan->model.blocks[0] = 1;
    plan->model.input = 8;
    plan->model.features = FEATURES;
    plan->fusion.enabled = plan->matching.enabled = world->scenario.features;
    plan->fusion.upload = world->scenario.copier ? JUDGED_ROWS : UPLOAD_ROWS;
    plan->fusion.remote = world->scenario.copier ? JUDGED_ROWS : REMOTE_ROWS;
    plan->weight_cap = 40;
    plan->aggregation.rule = world->scenario.rule;
    plan->aggregation.trim = 0.34;
    plan->aggregation.norm_limit = 5;
    plan->aggregation.optimizer = world->scenario.optimizer;
    plan->aggregation.learning_rate = world->scenario.optimizer == AGGREGATION_ADAM ? 0.01 : 1;
    buf_init(&world->plan_bytes, MSG_PLAN_MAX);
    struct err err = {0};
    if (plan_check(plan, &err) != 0 || plan_encode(plan, &world->plan_bytes) != 0 ||
        layout_new(&plan->model, &world->layout, &err) != 0) {
        violate(world, "the plan: %s", err.text);
    }
}

static void begin(struct world *world, const struct scenario *scenario)
{
    *world = (struct world){.scenario = *scenario, .speaker = "world"};
    world->log = (struct log){.emit = log_emit, .ctx = world, .least = LOG_LEVEL_DEBUG};
    rng_init(&world->rng, scenario->seed, RNG_TEST, 2, 0, 0);
    memset(&world->run, 0x52, sizeof world->run);
    set_plan(world);
    world->now_ms = 1;
    world->faults_end_ms = scenario->calm ? 0 : between(world, 30000, 120000);
    world->latest_ms = world->faults_end_ms + scenario->rounds * (uint64_t)(4 * scenario->deadline_ms + 20 * IDLE_MS);
    world->latest_ms += scenario->hot ? 4 * scenario->deadline_ms + 20 * IDLE_MS : 0;
    simdisk_init(&world->server.disk);
    server_start(world);
    for (uint32_t i = 0; i < scenario->clients; i++) {
        struct client *client = &world->clients[i];
        client->index = i;
        client->link = LINKS_MAX;
        (void)snprintf(client->name, sizeof client->name, "site-%c", 'a' + (int)i);
        memset(&client->disk.instance, (int)(i + 1), sizeof client->disk.instance);
        schedule(world, between(world, 0, 500), (struct entry){.kind = HAPPEN_CLIENT_START, .who = WHO_CLIENT + i});
    }
    if (!scenario->calm) {
        schedule(world, between(world, 100, 5000), (struct entry){.kind = HAPPEN_FAULT});
    }
}

static void perform(struct world *world, const struct entry *entry)
{
    if (entry->who == WHO_WORLD) {
        if (entry->kind == HAPPEN_FAULT) {
            faults_next(world);
        } else {
            net_happens(world, entry);
        }
        return;
    }
    switch (entry->kind) {
    case HAPPEN_SERVER_START:
    case HAPPEN_JOB_BEGIN:
    case HAPPEN_JOB_DONE:
        server_happens(world, entry);
        break;
    case HAPPEN_CLIENT_START:
    case HAPPEN_PREPARED:
    case HAPPEN_TRAIN_STEP:
    case HAPPEN_TRAIN_END:
    case HAPPEN_TRAINED:
        client_happens(world, &world->clients[entry->who - WHO_CLIENT], entry);
        break;
    default:
        net_happens(world, entry);
        break;
    }
}

/* One entry; that of a paused process waits for its end. */
static void perform_next(struct world *world)
{
    struct entry entry = pop(world);
    world->now_ms = entry.at_ms > world->now_ms ? entry.at_ms : world->now_ms;
    struct process *process = process_of(world, entry.who);
    if (process && process->epoch != entry.epoch) {
        return;
    }
    if (process && process->paused) {
        entry.at_ms = process->resume_ms;
        push(world, &entry); /* keeps its order */
        return;
    }
    perform(world, &entry);
}

static void resume(struct world *world)
{
    for (uint32_t who = WHO_SERVER; who < WHO_CLIENT + world->scenario.clients; who++) {
        struct process *process = process_of(world, who);
        if (process->paused && world->now_ms >= process->resume_ms) {
            process->paused = false;
            say(world, "world", "process %u goes on", who);
        }
    }
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool is_running(const struct process *process)
{
    return process->up && !process->paused;
}

static uint64_t client_next_ms(const struct world *world, const struct client *client)
{
    bool lost = world->scenario.bug == BUG_CLIENT_NO_TICK && client->index == 0 && world->now_ms > 2000;
    return is_running(&client->process) && !lost ? session_next_ms(client->session) : UINT64_MAX;
}

static uint64_t server_next_ms(const struct world *world)
{
    bool lost = world->scenario.bug == BUG_SERVER_NO_TICK && world->now_ms > 2000;
    uint64_t next =
        is_running(&world->server.process) && !lost ? coordinator_next_ms(world->server.coordinator) : UINT64_MAX;
    return next == UINT64_MAX ? next : next - server_clock_ms(world) + world->now_ms;
}

static uint64_t next_ms(const struct world *world)
{
    uint64_t next = world->queue_count ? world->queue[0].at_ms : UINT64_MAX;
    next = earlier(next, earlier(server_next_ms(world), net_next_ms(world)));
    for (uint32_t i = 0; i < world->scenario.clients; i++) {
        const struct client *client = &world->clients[i];
        next = earlier(next, client_next_ms(world, client));
        next = client->process.paused ? earlier(next, client->process.resume_ms) : next;
    }
    return world->server.process.paused ? earlier(next, world->server.process.resume_ms) : next;
}

static void tick(struct world *world)
{
    if (server_next_ms(world) <= world->now_ms) {
        server_event(world, &(struct event){.kind = EVENT_TICK});
    }
    for (uint32_t i = 0; i < world->scenario.clients; i++) {
        struct client *client = &world->clients[i];
        if (client_next_ms(world, client) <= world->now_ms) {
            client_event(world, client, &(struct session_event){.kind = SESSION_TICK});
        }
    }
}

static bool is_over(const struct world *world)
{
    bool over = true;
    for (uint32_t i = 0; i < world->scenario.clients; i++) {
        over = over && (world->clients[i].finished || world->clients[i].gone);
    }
    return over;
}

/* Somebody has read what the server says of the stuck round, and mends the client. */
static void repair(struct world *world)
{
    struct client *client = &world->clients[0];
    if (world->stuck && !world->repaired && client->process.up && chance(world, 20) == 0) {
        sight(world, "repaired");
        say(world, "world", "%s is repaired, and started again", client->name);
        world->repaired = true;
        client_crash(world, client, true);
    }
}

void world_run(struct world *world, const struct scenario *scenario)
{
    begin(world, scenario);
    while (!world->violation[0] && !is_over(world)) {
        uint64_t next = next_ms(world);
        if (next > world->latest_ms || ++world->steps > 2000000) {
            violate(world, "nobody moves on: round %u of %u is durable after %llu steps, the server is %s",
                    world->truth.durable, world->scenario.rounds, (unsigned long long)world->steps,
                    world->server.process.up ? coordinator_phase(world->server.coordinator) : "down");
            break;
        }
        world->now_ms = next > world->now_ms ? next : world->now_ms;
        resume(world);
        /* What is due at one moment comes in any order: timers before data, or after it. */
        if (chance(world, 2)) {
            tick(world);
        }
        while (!world->violation[0] && world->queue_count && world->queue[0].at_ms <= world->now_ms) {
            perform_next(world);
        }
        tick(world);
        net_check_idle(world);
        repair(world);
    }
    if (!world->violation[0]) {
        check_end(world);
    }
}

struct hash128 world_result(const struct world *world)
{
    return hash_of(world->truth.params[world->truth.durable], world->layout->total * sizeof(float));
}

void world_free(struct world *world)
{
    for (uint32_t i = 0; i < world->scenario.clients; i++) {
        client_free(&world->clients[i]);
    }
    server_free(world);
    net_free(world);
    check_free(world);
    simdisk_fini(&world->server.disk);
    layout_free(world->layout);
    buf_fini(&world->plan_bytes);
    mem_free(world->queue);
}
