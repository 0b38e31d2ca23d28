/* The coordinator's shell: its actions become sends, jobs and exits; its disk is simulated, its store is the real one.
 */
#include "tests/sim/world.h"

#include <string.h>

/* ---- start and end ---- */

static int first_state(struct world *world, struct checkpoint *out, struct err *err)
{
    out->plan = mem_new(world->plan_bytes.len, 1);
    memcpy(out->plan, world->plan_bytes.data, world->plan_bytes.len);
    out->plan_len = (uint32_t)world->plan_bytes.len;
    out->params = mem_new_aligned(world->layout->total, sizeof(float));
    params_init(world->layout, world->plan.seed, out->params);
    out->run = world->run;
    return store_save(world->server.store, world->layout, out, err);
}

/* Jumps of the wall clock stay within 100,000 s either way. */
uint64_t server_clock_ms(const struct world *world)
{
    bool wrong = world->scenario.bug == BUG_WALL_CLOCK;
    return world->now_ms + (wrong ? (uint64_t)(INT64_C(200000000) + world->wall_ms) : 0);
}

void server_start(struct world *world)
{
    struct server *server = &world->server;
    struct checkpoint state = {0};
    struct err err = {0};
    bool found = false;
    world->speaker = "server";
    server->disk.full = false;
    bool spools = world->scenario.rule != AGGREGATION_MEAN;
    int rc = store_open(&server->disk.disk, "state", 0, &world->log, &server->store, &err);
    rc = rc ? rc : spool_open(&server->disk.disk, "state", spools, &server->spool, &err);
    rc = rc ? rc
            : store_load(server->store, world->layout, world->plan_bytes.data, (uint32_t)world->plan_bytes.len, false,
                         &state, &found, &err);
    if (rc == 0 && !found) {
        rc = world->truth.started ? err_set(&err, ERR_DATA, "the state is gone") : first_state(world, &state, &err);
    }
    if (rc == 0) {
        check_durable(world, &state);
        if (world->scenario.bug == BUG_LOST_MOMENTUM && state.optimiser_len > 0) {
            memset(state.optimiser, 0, (size_t)state.optimiser_len);
        }
        if (world->scenario.bug == BUG_NORMS_LOST) {
            memset(state.norms, 0, sizeof state.norms);
        }
        struct coordinator_options options = {
            .plan = &world->plan,
            .plan_bytes = world->plan_bytes.data,
            .plan_len = (uint32_t)world->plan_bytes.len,
            .layout = world->layout,
            .upload_slots = world->scenario.upload_slots,
            .bank_capacity = 2 * world->plan.fusion.upload + 1,
            .sessions_max = LINKS_MAX,
            .idle_timeout_ms = IDLE_MS,
            .upload_rate = 500,
            .spool = spools ? &server->spool : NULL,
            .log = &world->log,
        };
        memset(&options.boot, (int)chance(world, 256), sizeof options.boot);
        rc = coordinator_new(&options, &state, NULL, 0, server_clock_ms(world), &server->coordinator, &err);
    }
    checkpoint_fini(&state);
    if (rc) {
        violate(world, "the server does not start: %s", err.text);
    }
    server->process.up = rc == 0;
    server->process.paused = false;
    server->stopping = false;
}

static void forget(struct server *server)
{
    coordinator_free(server->coordinator);
    server->coordinator = NULL;
    store_close(server->store);
    server->store = NULL;
    server->jobs_count = 0;
    server->job_running = server->die_in_save = server->die_after_save = false;
    server->process.up = server->process.paused = false;
    server->process.epoch++;
}

/* kill -9, or the machine goes down: then the disk loses what was not synced. */
void server_crash(struct world *world, bool restart)
{
    struct server *server = &world->server;
    net_process_gone(world, WHO_SERVER, chance(world, 8) == 0);
    forget(server);
    if (chance(world, 2)) {
        simdisk_crash(&server->disk, &world->rng);
    }
    server->disk.dies_after = UINT64_MAX;
    if (restart) {
        schedule(world, between(world, 100, 12000), (struct entry){.kind = HAPPEN_SERVER_START, .who = WHO_SERVER});
    }
}

void server_stop(struct world *world)
{
    if (!world->server.stopping && !world->server.process.paused) {
        world->server.stopping = true;
        server_event(world, &(struct event){.kind = EVENT_STOP});
    }
}

void server_free(struct world *world)
{
    forget(&world->server);
}

/* ---- jobs ---- */

static void begin_job(struct world *world)
{
    struct server *server = &world->server;
    if (server->job_running || server->jobs_count == 0) {
        return;
    }
    server->job_running = true;
    schedule(world, between(world, 1, 60), (struct entry){.kind = HAPPEN_JOB_BEGIN, .who = WHO_SERVER});
}

/* What the disk has against the operations that come now. */
static void trouble_disk(struct world *world)
{
    struct server *server = &world->server;
    server->disk.full = world->now_ms < server->full_until_ms;
    server->disk.fails_at = UINT64_MAX;
    if (world->now_ms < server->shaky_until_ms) {
        server->disk.fails_at = server->disk.operations + chance(world, 24);
        sight(world, "disk_error");
    }
}

static void save(struct world *world, const struct job *job)
{
    struct server *server = &world->server;
    trouble_disk(world);
    server->disk.syncs_nothing = world->scenario.bug == BUG_LYING_DISK && job->checkpoint.round == 2;
    server->disk.syncs_no_folder = world->scenario.bug == BUG_NO_FOLDER_SYNC && job->checkpoint.round == 2;
    if (server->die_in_save) {
        server->disk.dies_after = server->disk.operations + chance(world, 24);
    }
    server->job_result = store_save(server->store, world->layout, &job->checkpoint, &server->job_reason);
    server->disk.fails_at = UINT64_MAX;
    if (server->job_result == 0) {
        check_durable(world, &job->checkpoint);
        (void)spool_clear(&server->spool, NULL);
    } else if (world->scenario.bug == BUG_ERROR_IGNORED) {
        server->job_result = 0;
    }
    check_image(world);
}

static void run_job(struct world *world, struct job *job)
{
    struct server *server = &world->server;
    server->job_result = 0;
    server->job_reason = (struct err){0};
    inside_plant_job(world, job);
    if (job->kind != JOB_SAVE) {
        if (world->scenario.rule != AGGREGATION_MEAN) {
            trouble_disk(world);
        }
        job_run(job);
        server->disk.fails_at = UINT64_MAX;
        inside_plant_result(world, job);
        if (job->kind == JOB_ABSORB && world->scenario.bug == BUG_COUNT_TWICE && !world->planted &&
            !world->scenario.features) {
            world->planted = true;
            job_run(job);
        }
    } else if (world->scenario.bug != BUG_ANNOUNCE_EARLY || job->checkpoint.round != 2) {
        save(world, job);
    }
    if (job->kind == JOB_SAVE && (server->die_in_save || server->die_after_save)) {
        sight(world, server->die_in_save ? "killed_in_save" : "killed_after_save");
        server_crash(world, true);
        return;
    }
    uint32_t ms = job->kind == JOB_SAVE && chance(world, 4) == 0 ? between(world, 200, 4000) : between(world, 0, 200);
    schedule(world, ms, (struct entry){.kind = HAPPEN_JOB_DONE, .who = WHO_SERVER});
}

static void end_job(struct world *world)
{
    struct server *server = &world->server;
    struct job *job = server->jobs[0];
    server->jobs_count--;
    memmove(server->jobs, server->jobs + 1, server->jobs_count * sizeof server->jobs[0]);
    server->job_running = false;
    if (world->scenario.bug == BUG_JOB_END_LOST && job->kind == JOB_ABSORB && !world->planted) {
        world->planted = true;
    } else {
        server_event(world, &(struct event){.kind = EVENT_JOB_DONE,
                                            .job = job,
                                            .result = server->job_result,
                                            .reason = &server->job_reason});
    }
    if (server->process.up) {
        begin_job(world);
    }
}

void server_happens(struct world *world, const struct entry *entry)
{
    struct server *server = &world->server;
    if (entry->kind == HAPPEN_SERVER_START) {
        server_start(world);
    } else if (entry->kind == HAPPEN_JOB_BEGIN) {
        run_job(world, server->jobs[0]);
    } else {
        end_job(world);
    }
}

/* ---- actions ---- */

/* The planted mistakes of what the server says. */
static void spoil(struct world *world, uint32_t link, struct msg *msg)
{
    uint32_t client = world->links[link].client;
    if (world->scenario.bug == BUG_FORGETFUL_WELCOME && msg->type == MSG_WELCOME) {
        msg->welcome.has_counted = false;
        msg->welcome.counted_round = 0;
    }
    if (world->scenario.bug != BUG_OWN_FEATURES || world->truth.durable != 2 || client != 0) {
        return;
    }
    float own[JUDGED_ROWS * FEATURES] = {0};
    for (uint32_t i = 0; i < world->plan.fusion.remote; i++) {
        features_row(own + i * FEATURES, client, 2, i % world->plan.fusion.upload);
    }
    if (msg->type == MSG_ROUND && msg->round.has_remote) {
        msg->round.remote.hash = hash_of(own, msg->round.remote.bytes);
    } else if (msg->type == MSG_CHUNK && msg->chunk.kind == BLOB_REMOTE) {
        bytes_unref(msg->payload);
        msg->payload = bytes_copy(own, msg->raw_len);
        msg->raw = msg->payload->data;
    }
}

static void carry_out(struct world *world, struct action *action)
{
    struct server *server = &world->server;
    switch (action->kind) {
    case ACTION_SEND:
        check_said(world, world->links[action->peer].client, &action->message);
        spoil(world, action->peer, &action->message);
        net_send(world, action->peer, SIDE_SERVER, &action->message);
        break;
    case ACTION_CLOSE:
        net_close(world, action->peer, SIDE_SERVER);
        break;
    case ACTION_DROP: /* the sim's connections have no TLS */
    case ACTION_SHAKE:
        violate(world, "the server says something of TLS to who has none");
        break;
    case ACTION_PAUSE: /* whose messages all come at once, as after a stall; no client of the sim sends so many */
        sight(world, "client_slowed");
        break;
    case ACTION_JOB:
        server->jobs[server->jobs_count++] = action->job;
        begin_job(world);
        break;
    case ACTION_EXIT:
        say(world, "server", "exits with %s", err_name(action->result));
        net_process_gone(world, WHO_SERVER, false);
        forget(server);
        schedule(world, between(world, 100, 5000), (struct entry){.kind = HAPPEN_SERVER_START, .who = WHO_SERVER});
        break;
    }
}

void server_event(struct world *world, struct event *event)
{
    struct server *server = &world->server;
    if (!server->process.up) {
        return;
    }
    world->speaker = "server";
    event->unix_ms = (int64_t)world->now_ms + world->wall_ms;
    struct actions actions = {0};
    server->disk.full = world->now_ms < server->full_until_ms;
    if (coordinator_step(server->coordinator, event, server_clock_ms(world), &actions) != 0) {
        violate(world, "coordinator_step failed");
    }
    for (size_t i = 0; i < actions.count && server->process.up; i++) {
        carry_out(world, &actions.items[i]);
    }
    actions_fini(&actions);
    if (server->process.up) {
        inside_plant(world);
        inside_check(world);
        if (event->kind == EVENT_TICK && coordinator_next_ms(server->coordinator) <= server_clock_ms(world)) {
            violate(world, "what was due at the server is still due after it was called");
        }
    }
}
