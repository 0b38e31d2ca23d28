/* A session's shell: a trainer that takes its time, a disk that keeps what was saved, and a process that can die. */
#include "server/agg/norm.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <string.h>

uint64_t client_images(uint32_t index)
{
    return 10 + 7 * (uint64_t)index; /* the last ones have more than weight_cap */
}

static struct contribution *copy_of(const struct contribution *from)
{
    struct contribution *out = mem_new(1, sizeof *out);
    *out = *from;
    out->update = bytes_ref(from->update);
    out->features = from->features ? bytes_ref(from->features) : NULL;
    return out;
}

static void drop(struct contribution **contribution)
{
    if (*contribution) {
        contribution_fini(*contribution);
        mem_free(*contribution);
        *contribution = NULL;
    }
}

/* ---- start and end ---- */

void client_start(struct world *world, struct client *client)
{
    struct client_disk *disk = &client->disk;
    struct session_options options = {
        .instance = disk->instance,
        .role = ROLE_TRAINER,
        .seed = world->scenario.seed ^ client->index,
        .has_saved = disk->has_saved,
        .saved_run = disk->run,
        .saved_plan = disk->plan,
        .saved_round = disk->round,
        .pending = disk->pending && world->scenario.bug != BUG_PENDING_LOST ? copy_of(disk->pending) : NULL,
        .log = &world->log,
    };
    memcpy(options.name, client->name, sizeof options.name);
    struct err err = {0};
    world->speaker = client->name;
    if (session_new(&options, world->now_ms, &client->session, &err) != 0) {
        violate(world, "%s does not start: %s", client->name, err.text);
        return;
    }
    client->process.up = true;
    client->process.paused = false;
    client->stopping = client->cancelled = false;
    client->refused = 0;
}

static void forget(struct client *client)
{
    session_free(client->session);
    client->session = NULL;
    drop(&client->work);
    client->process.up = client->process.paused = false;
    client->process.epoch++;
    client->link = LINKS_MAX;
}

static void restart_later(struct world *world, struct client *client)
{
    uint32_t ms = chance(world, 2) ? between(world, 100, 3000) : between(world, 3000, 30000);
    schedule(world, ms, (struct entry){.kind = HAPPEN_CLIENT_START, .who = WHO_CLIENT + client->index});
}

void client_crash(struct world *world, struct client *client, bool restart)
{
    net_process_gone(world, WHO_CLIENT + client->index, chance(world, 5) == 0);
    forget(client);
    if (restart) {
        restart_later(world, client);
    }
}

static void copy_disk(struct client_disk *to, const struct client_disk *from)
{
    drop(&to->pending);
    *to = *from;
    to->pending = from->pending ? copy_of(from->pending) : NULL;
}

void client_put_back(struct world *world, struct client *client)
{
    if (!client->has_copy) {
        copy_disk(&client->copy, &client->disk);
        client->has_copy = true;
        return;
    }
    say(world, "fault", "the disk of %s is put back to round %u", client->name, client->copy.round);
    sight(world, "put_back");
    client_crash(world, client, true);
    copy_disk(&client->disk, &client->copy);
    client->has_copy = false;
    client->put_back = world->truth.durable + 1;
    for (uint32_t round = 0; round <= ROUNDS_MAX; round++) { /* it has what it had dropped again */
        world->truth.dropped[round][client->index] = false;
    }
}

void client_stop(struct world *world, struct client *client)
{
    if (!client->process.paused) {
        client->stopping = true;
        client_event(world, client, &(struct session_event){.kind = SESSION_STOP});
    }
}

void client_free(struct client *client)
{
    forget(client);
    drop(&client->disk.pending);
    drop(&client->copy.pending);
}

/* ---- the trainer ---- */

static void work_later(struct world *world, struct client *client, uint64_t in_ms, enum happening kind)
{
    schedule(world, in_ms,
             (struct entry){.kind = kind, .who = WHO_CLIENT + client->index, .code = (int)client->work_epoch});
}

/* A learning rate that is too high, say. The truth keeps what a repaired client makes. */
static void overheat(struct world *world, const struct client *client, struct contribution *work)
{
    if (world->scenario.hot && client->index == 0 && work->round == world->scenario.hot_round && !world->repaired) {
        struct bytes *hot = bytes_copy(work->update->data, work->update->len);
        float *numbers = (float *)(void *)hot->data;
        if (world->scenario.hot_long) {
            norm_scale(world->layout, world->scenario.hot_part, numbers, 20);
        } else {
            numbers[world->layout->total - 1] = 1e6f; /* All before it fits, and is added first. */
        }
        bytes_unref(work->update);
        work->update = hot;
        contribution_describe(work, &world->plan, world->layout);
    }
}

static void begin_training(struct world *world, struct client *client, struct session_action *action)
{
    check_train(world, client, action);
    if (client->work) {
        violate(world, "%s is to train two rounds at once", client->name);
        return;
    }
    client->work = train(world, client->index, action->round, (const float *)(const void *)action->model,
                         (const float *)(const void *)action->remote, action->remote_rows);
    overheat(world, client, client->work);
    client->cancelled = false;
    client->work_epoch++;
    uint32_t ms = chance(world, 8) ? between(world, 100, 4000) : between(world, 4000, 3 * IDLE_MS);
    if (world->scenario.straggler && client->index + 1 == world->scenario.clients) {
        ms = between(world, world->scenario.deadline_ms * 3 / 4, world->scenario.deadline_ms * 5 / 4);
    }
    work_later(world, client, ms / 2, HAPPEN_TRAIN_STEP);
    work_later(world, client, ms, HAPPEN_TRAIN_END);
}

static void cancel_training(struct world *world, struct client *client)
{
    sight(world, "cancelled");
    client->cancelled = true;
    client->work_epoch++;
    work_later(world, client, between(world, 0, 300), HAPPEN_TRAIN_END);
}

static void fail_training(struct world *world, struct client *client, int code)
{
    struct err err;
    (void)err_set(&err, code, "%s", err_meaning(code));
    drop(&client->work);
    client_event(world, client, &(struct session_event){.kind = SESSION_WORK_FAILED, .reason = &err});
}

/* The result is saved, unless that fails; the session hears of it a little later. */
static void end_training(struct world *world, struct client *client)
{
    if (client->cancelled && chance(world, 2)) {
        fail_training(world, client, ERR_CANCELLED);
    } else if (world->now_ms < client->disk.full_until_ms) {
        fail_training(world, client, chance(world, 2) ? ERR_FULL : ERR_IO);
    } else {
        drop(&client->disk.pending);
        client->disk.pending = copy_of(client->work);
        client->work_epoch++;
        work_later(world, client, between(world, 0, 50), HAPPEN_TRAINED);
    }
}

static void tell_trained(struct world *world, struct client *client)
{
    struct contribution *work = client->work;
    client->work = NULL;
    client_event(world, client, &(struct session_event){.kind = SESSION_TRAINED, .contribution = work});
}

void client_happens(struct world *world, struct client *client, const struct entry *entry)
{
    if (entry->kind == HAPPEN_CLIENT_START) {
        client_start(world, client);
    } else if (entry->kind == HAPPEN_PREPARED) {
        client_event(world, client,
                     &(struct session_event){.kind = SESSION_PREPARED, .images = client_images(client->index)});
    } else if (!client->work || entry->code != (int)client->work_epoch) {
        return; /* of a training that was cancelled */
    } else if (entry->kind == HAPPEN_TRAIN_STEP) {
        client_event(world, client,
                     &(struct session_event){.kind = SESSION_PROGRESS, .step = 1, .steps = 2, .loss = 1.0});
    } else if (entry->kind == HAPPEN_TRAIN_END) {
        end_training(world, client);
    } else {
        tell_trained(world, client);
    }
}

/* ---- actions ---- */

static void commit(struct world *world, struct client *client, uint32_t round)
{
    struct client_disk *disk = &client->disk;
    if (!disk->pending || disk->pending->round != round) {
        violate(world, "%s commits round %u, which it does not hold", client->name, round);
        return;
    }
    check_commit(world, client->index, round);
    disk->round = round;
    drop(&disk->pending);
}

static void roll_back(struct world *world, struct client *client, uint32_t round)
{
    if (!client->disk.pending || client->disk.pending->round != round) {
        violate(world, "%s drops round %u, which it does not hold", client->name, round);
        return;
    }
    check_drop(world, client->index, round);
    drop(&client->disk.pending);
}

static void leave(struct world *world, struct client *client, const struct session_action *action)
{
    bool wanted = client->stopping;
    say(world, client->name, "exits with %d: %s", action->exit_code, action->reason.text);
    if (action->exit_code != 0) {
        violate(world, "%s exits with %d: %s", client->name, action->exit_code, action->reason.text);
    }
    client->finished = !wanted;
    /* What was said is still written; the socket then closes by itself. */
    net_process_gone(world, WHO_CLIENT + client->index, false);
    forget(client);
    if (wanted) {
        restart_later(world, client);
    }
}

/* The planted mistakes of what a client says. */
static void spoil(struct world *world, const struct client *client, struct msg *msg)
{
    if (world->scenario.bug != BUG_STALE_UPDATE || client->index != 0 || world->truth.durable != 1) {
        return;
    }
    struct bytes *old = world->truth.update[1][0];
    if (msg->type == MSG_OFFER && old) {
        msg->offer.update.hash = hash_of(old->data, old->len);
    } else if (msg->type == MSG_CHUNK && msg->chunk.kind == BLOB_UPDATE && old) {
        bytes_unref(msg->payload);
        msg->payload = bytes_ref(old);
        msg->raw = old->data + msg->chunk.offset;
    }
}

static void check_bye(struct world *world, const struct client *client, const struct msg *msg)
{
    if (msg->type != MSG_BYE) {
        return;
    }
    if (msg->bye.code == (uint32_t)-ERR_PROTOCOL) {
        violate(world, "%s sees a protocol error: %s", client->name, msg->bye.text);
    } else if (msg->bye.code == (uint32_t)-ERR_TEMPFAIL && client->link != LINKS_MAX) {
        check_silence(world, client->link, client->name);
    }
}

static void carry_out(struct world *world, struct client *client, struct session_action *action)
{
    switch (action->kind) {
    case SESSION_CONNECT:
        if (client->link != LINKS_MAX) {
            violate(world, "%s connects while it is connected", client->name);
        } else {
            client->link = net_connect(world, client->index);
            client->refused = 0;
        }
        break;
    case SESSION_SEND:
        check_bye(world, client, &action->message);
        if (action->message.type == MSG_OFFER) {
            check_offer(world, client->index, action->message.offer.round);
        }
        spoil(world, client, &action->message);
        if (client->link != LINKS_MAX) {
            net_send(world, client->link, SIDE_CLIENT, &action->message);
        }
        break;
    case SESSION_CLOSE:
        if (client->link != LINKS_MAX) {
            net_close(world, client->link, SIDE_CLIENT);
        }
        break;
    case SESSION_PREPARE:
        client->disk.has_saved = true;
        client->disk.run = action->run;
        client->disk.plan = action->plan_hash;
        schedule(world, between(world, 10, 800),
                 (struct entry){.kind = HAPPEN_PREPARED, .who = WHO_CLIENT + client->index});
        break;
    case SESSION_TRAIN:
        begin_training(world, client, action);
        break;
    case SESSION_EVALUATE: /* nobody observes here */
        break;
    case SESSION_CANCEL:
        cancel_training(world, client);
        break;
    case SESSION_COMMIT:
        commit(world, client, action->round);
        break;
    case SESSION_DROP:
        roll_back(world, client, action->round);
        break;
    case SESSION_EXIT:
        leave(world, client, action);
        break;
    }
}

void client_event(struct world *world, struct client *client, struct session_event *event)
{
    if (!client->process.up) {
        if (event->kind == SESSION_TRAINED) {
            drop(&event->contribution);
        }
        return;
    }
    struct msg forged = {.type = MSG_ROUND_END};
    if (world->scenario.bug == BUG_EARLY_COMMIT && event->kind == SESSION_MESSAGE &&
        event->message->type == MSG_ACCEPTED) {
        forged.round_end = (struct msg_round_end){.round = event->message->accepted.round, .counted = true};
        event->message = &forged;
    }
    world->speaker = client->name;
    world->hearing = event->kind == SESSION_MESSAGE ? event->message->type : 0;
    if (world->hearing == MSG_DECLINED &&
        (event->message->declined.reason == DECLINE_RANGE || event->message->declined.reason == DECLINE_NORM)) {
        client->refused = event->message->declined.round;
    }
    struct session_actions actions = {0};
    if (session_step(client->session, event, world->now_ms, &actions) != 0) {
        violate(world, "session_step failed");
    }
    for (size_t i = 0; i < actions.count && client->process.up; i++) {
        carry_out(world, client, &actions.items[i]);
    }
    session_actions_fini(&actions);
    if (client->process.up) {
        inside_check_client(world, client);
    }
}
