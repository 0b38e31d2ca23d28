/* Handshakes of TLS. A stranger's begins with its first bytes, which stay unread in the kernel until it has a place
 * here; the place is free again when its certificate says who it is, when it is welcomed, or when it is gone.
 *
 * What OpenSSL keeps for half a handshake, some 44 KB, is twenty times what a stranger costs that is silent, so there
 * are fewer places than for strangers, and whoever stops in the middle must not keep others out. When all are taken a
 * newcomer takes one of the address that has most: at once, if that has more than its own would; else the first to have
 * begun there makes way, once it had idle_timeout / 60 and half a second, more than a handshake takes: many honest ones
 * that come at once must not put each other out. Until then it waits, and the latest to come is the first to be served:
 * who has waited for long has mostly given up, or never meant it. */
#include "server/session/state.h"

#include <string.h>

#define NOMEM_MS 100u

static uint64_t grace_ms(const struct coordinator *c)
{
    uint64_t wanted = c->options.idle_timeout_ms / 60;
    return wanted > HANDSHAKE_LEAST_MS ? wanted : HANDSHAKE_LEAST_MS;
}

static uint32_t places_of(const struct strangers *s, uint64_t group)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->shaking_count; i++) {
        count += s->shaking[i]->group == group;
    }
    return count;
}

/* Of the address that has most, the first to have begun; *most: how many that has. */
static struct peer *first_of_most(const struct strangers *s, uint32_t *most)
{
    struct peer *first = NULL;
    *most = 0;
    for (uint32_t i = 0; i < s->shaking_count; i++) {
        uint32_t count = places_of(s, s->shaking[i]->group);
        first = count > *most ? s->shaking[i] : first;
        *most = count > *most ? count : *most;
    }
    return first;
}

/* Whether there is a place for it, also one that somebody had: `out`, of an address that has `most`. */
static bool make_place(struct coordinator *c, const struct peer *peer, struct peer *out, uint32_t most)
{
    struct strangers *s = &c->strangers;
    if (s->shaking_count < c->options.handshakes_max) {
        return true;
    }
    bool fairer = most > places_of(s, peer->group) + 1;
    if (!out || (!fairer && c->now_ms - out->shaking_ms < grace_ms(c)) || !peer_drop(c, out)) {
        return false;
    }
    s->told.made_way++;
    stranger_remove(c, out); /* its places are free now, not when the shell has closed it */
    return true;
}

void handshake_knock(struct coordinator *c, struct peer *peer)
{
    if (peer->stranger && !peer->knocks) {
        peer->knocks = true;
        c->strangers.knocking++;
    }
}

void handshake_end(struct coordinator *c, struct peer *peer)
{
    struct strangers *s = &c->strangers;
    s->knocking -= peer->knocks;
    peer->knocks = false;
    for (uint32_t i = 0; i < s->shaking_count; i++) {
        if (s->shaking[i] == peer) {
            s->shaking_count--;
            memmove(s->shaking + i, s->shaking + i + 1, (s->shaking_count - i) * sizeof(struct peer *));
            return;
        }
    }
}

/* Who finds no place may be of the crowd, and behind it waits somebody for whom the crowd makes way: all are tried. */
void handshakes_fill(struct coordinator *c)
{
    struct strangers *s = &c->strangers;
    uint32_t most = 0;
    struct peer *out = s->knocking > 0 ? first_of_most(s, &most) : NULL;
    for (struct peer *peer = s->newest; peer && s->knocking > 0; peer = peer->older) {
        if (!peer->knocks || !make_place(c, peer, out, most)) {
            continue;
        }
        if (!peer_shake(c, peer)) {
            return;
        }
        peer->knocks = false;
        s->knocking--;
        peer->shaking_ms = c->now_ms;
        s->shaking[s->shaking_count++] = peer;
        out = first_of_most(s, &most);
    }
}

uint64_t handshakes_next_ms(const struct coordinator *c)
{
    uint32_t most;
    const struct peer *out = c->strangers.knocking > 0 ? first_of_most(&c->strangers, &most) : NULL;
    uint64_t next = out ? out->shaking_ms + grace_ms(c) : UINT64_MAX;
    return next > c->now_ms ? next : c->now_ms + NOMEM_MS; /* It could not be dropped for want of memory. */
}
