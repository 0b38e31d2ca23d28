/* What goes wrong. Faults come until faults_end_ms; what they began (a pause, a full disk, a refusal) ends by itself.
 */
#include "tests/sim/world.h"

static struct client *any_client(struct world *world)
{
    return &world->clients[chance(world, world->scenario.clients)];
}

static void pause(struct world *world, uint32_t number, const char *who)
{
    struct process *process = process_of(world, number);
    if (process->up && !process->paused) {
        uint32_t ms = chance(world, 2) ? between(world, 10, IDLE_MS / 2) : between(world, IDLE_MS, 4 * IDLE_MS);
        process->paused = true;
        net_disturb(world, number);
        process->resume_ms = world->now_ms + ms;
        say(world, "fault", "%s stands still for %u ms", who, ms);
    }
}

static void cut_any(struct world *world)
{
    uint32_t first = chance(world, LINKS_MAX);
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        uint32_t at = (first + i) % LINKS_MAX;
        if (world->links[at].used && !world->links[at].dead) {
            bool silently = chance(world, 4) == 0;
            say(world, "fault", "the connection of %s %s", world->clients[world->links[at].client].name,
                silently ? "goes silent" : "is cut");
            net_cut(world, at, silently);
            return;
        }
    }
}

static void bad_disk(struct world *world)
{
    uint64_t until = world->now_ms + between(world, 500, 15000);
    uint32_t kind = chance(world, 3);
    if (kind == 0) {
        say(world, "fault", "the server's disk is full");
        world->server.full_until_ms = until;
    } else if (kind == 1) {
        say(world, "fault", "the server's disk has errors");
        world->server.shaky_until_ms = until;
    } else {
        struct client *client = any_client(world);
        say(world, "fault", "the disk of %s is full", client->name);
        client->disk.full_until_ms = until;
    }
}

static void server_fault(struct world *world)
{
    struct server *server = &world->server;
    if (!server->process.up) {
        return;
    }
    switch (chance(world, 6)) {
    case 0:
        say(world, "fault", "the server is killed");
        server_crash(world, true);
        break;
    case 1:
        say(world, "fault", "the server will die in its next save");
        server->die_in_save = true;
        break;
    case 2:
        say(world, "fault", "the server will die after its next save");
        server->die_after_save = true;
        break;
    case 3:
        pause(world, WHO_SERVER, "the server");
        break;
    case 4:
        say(world, "fault", "the server refuses connections");
        server->refuses_until_ms = world->now_ms + between(world, 100, 8000);
        break;
    default:
        say(world, "fault", "the server is asked to stop");
        server_stop(world);
        break;
    }
}

static void client_fault(struct world *world)
{
    struct client *client = any_client(world);
    if (!client->process.up) {
        return;
    }
    switch (chance(world, 5)) {
    case 0:
    case 1:
        say(world, "fault", "%s is killed", client->name);
        client_crash(world, client, true);
        break;
    case 2:
        pause(world, WHO_CLIENT + client->index, client->name);
        break;
    case 3:
        client_put_back(world, client);
        break;
    default:
        say(world, "fault", "%s is asked to stop", client->name);
        client_stop(world, client);
        break;
    }
}

/* Of the wall clock; time-outs must not know. What the monotonic clock jumps over is a pause. */
static void jump_clock(struct world *world)
{
    world->wall_ms = (int64_t)between(world, 0, 200000000) - 100000000;
    sight(world, "clock_jumped");
    say(world, "fault", "the wall clock is set to %lld ms off", (long long)world->wall_ms);
}

void faults_next(struct world *world)
{
    /* Each seed has its own weather. */
    uint32_t gap = 200u << (world->scenario.seed % 6);
    if (world->now_ms >= world->faults_end_ms) {
        return;
    }
    world->faults++;
    if (world->scenario.one_dies && world->faults == 3 && !world->clients[0].gone) {
        say(world, "fault", "%s is gone for good", world->clients[0].name);
        world->clients[0].gone = true;
        client_crash(world, &world->clients[0], false);
    }
    uint32_t kind = chance(world, 11);
    if (kind < 4) {
        cut_any(world);
    } else if (kind < 6) {
        client_fault(world);
    } else if (kind < 9) {
        server_fault(world);
    } else if (kind < 10) {
        bad_disk(world);
    } else {
        jump_clock(world);
    }
    schedule(world, between(world, gap / 2, gap * 2), (struct entry){.kind = HAPPEN_FAULT});
}
