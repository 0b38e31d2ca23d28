/* Strangers: connections that have not been welcomed, from the moment they are open until WELCOME, or until they are
 * gone. One that was turned away and lingers is still one.
 *
 * They cost an open file each, so there are places for few of them: strangers_per_address for what one host can send
 * from, strangers_max for all hosts. Members do not need these places, and whoever says HELLO at once needs one for a
 * round trip. When there is no place a newcomer takes one: of the address that has most, if that has more than its own;
 * else of who has been there longest (of its own address, where that is what is full), once that one had
 * idle_timeout / 60. So a flood keeps out its own addresses alone, and those who sit on all places, each from an
 * address of its own, keep nobody out for longer than that.
 *
 * The list is in order of arrival, so that the first to wait too long for its HELLO stands in front. */
#include "server/session/state.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define FIRST_64_BITS 8

uint64_t address_group(const char *address)
{
    static const uint8_t v4_in_v6[12] = {[10] = 0xff, [11] = 0xff};
    char host[64];
    uint8_t v4[4], v6[16];
    bool bracketed = address[0] == '[';
    const char *end = strrchr(address, bracketed ? ']' : ':');
    size_t len = end ? (size_t)(end - address) - bracketed : 0;
    if (len == 0 || len >= sizeof host) {
        return 0;
    }
    memcpy(host, address + bracketed, len);
    host[len] = '\0';
    host[strcspn(host, "%")] = '\0'; /* the interface of a link-local address */
    uint64_t group = 0;
    if (inet_pton(AF_INET6, host, v6) == 1 && memcmp(v6, v4_in_v6, sizeof v4_in_v6) != 0) {
        for (int i = 0; i < FIRST_64_BITS; i++) {
            group = group << 8 | v6[i];
        }
        return group == 0 ? UINT64_MAX : group; /* ::1; no global address begins with all ones */
    }
    if (inet_pton(AF_INET6, host, v6) == 1) {
        memcpy(v4, v6 + 12, sizeof v4);
    } else if (inet_pton(AF_INET, host, v4) != 1) {
        return 0;
    }
    return (uint64_t)v4[0] << 24 | (uint64_t)v4[1] << 16 | (uint64_t)v4[2] << 8 |
           v4[3]; /* no group of IPv6 is so small */
}

void stranger_add(struct coordinator *c, struct peer *peer)
{
    struct strangers *s = &c->strangers;
    peer->stranger = true;
    peer->rank = 0;
    for (const struct peer *other = s->oldest; other; other = other->newer) {
        peer->rank += other->group == peer->group;
    }
    peer->newer = NULL;
    peer->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = peer;
    s->newest = peer;
    s->count++;
}

void stranger_remove(struct coordinator *c, struct peer *peer)
{
    struct strangers *s = &c->strangers;
    if (!peer->stranger) {
        return;
    }
    handshake_end(c, peer);
    peer->stranger = false;
    *(peer->older ? &peer->older->newer : &s->oldest) = peer->newer;
    *(peer->newer ? &peer->newer->older : &s->newest) = peer->older;
    s->count--;
}

static void refuse(struct coordinator *c, const char *address, bool of_address, const char *why)
{
    c->strangers.told.refused++;
    c->strangers.told.refused_address += of_address;
    log_event(log_of_address(c, address, "connection_refused"), LOG_LEVEL_WARN, "connection_refused",
              "address=%s reason=\"%s\"", address, why);
}

const char *coordinator_admit(struct coordinator *c, const char *address, uint64_t now_ms, uint32_t *instead)
{
    static const char no_place[] = "too many connections wait to be welcomed";
    static const char no_place_for_address[] = "too many connections from this address wait to be welcomed";
    struct strangers *s = &c->strangers;
    uint64_t group = address_group(address), grace_ms = c->options.idle_timeout_ms / 60;
    uint32_t alike = 0;
    struct peer *of_address = NULL, *crowded = NULL;
    *instead = NONE;
    c->now_ms = now_ms;
    for (struct peer *peer = s->newest; peer; peer = peer->older) {
        alike += peer->group == group;
        of_address = peer->group == group ? peer : of_address;
        crowded = !crowded || peer->rank > crowded->rank ? peer : crowded;
    }
    bool address_full = alike >= c->options.strangers_per_address, full = s->count >= c->options.strangers_max;
    bool fairer = full && !address_full && crowded && crowded->rank > alike;
    struct peer *out = address_full ? of_address : fairer ? crowded : full ? s->oldest : NULL;
    if ((address_full || full) && !fairer && (!out || now_ms - out->opened_ms < grace_ms)) {
        const char *why = address_full ? no_place_for_address : no_place;
        refuse(c, address, address_full, why);
        return why;
    }
    if (out) {
        s->told.made_way++;
        *instead = out->number;
        stranger_remove(c, out); /* its place is free now, not when the shell has closed it */
    }
    return NULL;
}

/* The first that still waits for its HELLO. */
static struct peer *first_silent(const struct coordinator *c)
{
    struct peer *peer = c->strangers.oldest;
    while (peer && peer->state != PEER_NEW) {
        peer = peer->newer;
    }
    return peer;
}

static uint64_t greeting_ms(const struct coordinator *c)
{
    return c->options.idle_timeout_ms / 6;
}

void strangers_tick(struct coordinator *c)
{
    struct peer *next;
    for (struct peer *peer = first_silent(c); peer && c->now_ms - peer->opened_ms >= greeting_ms(c); peer = next) {
        next = peer->newer;
        if (peer->state == PEER_NEW && !peer->doomed) {
            c->strangers.told.silent++;
            log_event(c->log, LOG_LEVEL_DEBUG, "peer_silent", "address=%s", peer->address);
            peer_bye(c, peer, ERR_TEMPFAIL, "no HELLO came");
        }
    }
}

uint64_t strangers_next_ms(const struct coordinator *c)
{
    const struct peer *peer = first_silent(c);
    return peer ? peer->opened_ms + greeting_ms(c) : UINT64_MAX;
}
