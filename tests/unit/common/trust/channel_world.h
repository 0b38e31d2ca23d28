/* Two channels whose bytes a test carries to and fro: whole, in pieces, damaged, cut. Every piece is a block of memory
 * of its own, so that reading past it is noticed. */
#ifndef TESTS_CHANNEL_WORLD_H
#define TESTS_CHANNEL_WORLD_H

#include "common/trust/internal.h"
#include "tests/support/tls_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* ---- The world ---- */

static struct tls_world ours, theirs; /* two federations */

static inline int group_setup(void **state)
{
    (void)state;
    tls_world_init(&ours);
    tls_world_init(&theirs);
    return 0;
}

static inline int group_teardown(void **state)
{
    (void)state;
    tls_world_fini(&ours);
    tls_world_fini(&theirs);
    return 0;
}

/* One end: a channel, what it has read, and how it failed. */
struct end {
    struct channel *channel;
    struct buf got;
    int rc;
    struct err err;
};

struct pair {
    struct end server, client;
};

static uint32_t dice_state = 1;

static inline uint32_t dice(uint32_t sides)
{
    dice_state = dice_state * 1664525u + 1013904223u;
    return (dice_state >> 8) % sides;
}

static inline void end_init(struct end *end, struct tls_setup *setup)
{
    *end = (struct end){0};
    buf_init(&end->got, 64u << 20);
    assert_int_equal(channel_new(setup, &end->channel, &end->err), 0);
}

static inline void end_fini(struct end *end)
{
    channel_free(end->channel);
    buf_fini(&end->got);
}

static inline void pair_init(struct pair *pair, struct tls_setup *server, struct tls_setup *client)
{
    end_init(&pair->server, server);
    end_init(&pair->client, client);
}

static inline void pair_fini(struct pair *pair)
{
    end_fini(&pair->server);
    end_fini(&pair->client);
}

/* Bytes from the network for one end; stops at the first failure. */
static inline void hear(struct end *end, const void *data, size_t len)
{
    static uint8_t plain[5000]; /* no multiple of a record */
    size_t got = 1;
    if (len == 0 || end->rc < 0) {
        return;
    }
    uint8_t *copy = malloc(len);
    assert_non_null(copy);
    memcpy(copy, data, len);
    channel_input(end->channel, copy, len);
    while (got > 0 && end->rc == 0) {
        end->rc = channel_read(end->channel, plain, sizeof plain, &got, &end->err);
        assert_int_equal(buf_append(&end->got, plain, got), 0);
    }
    assert_true(end->rc == 0 || (end->err.code == end->rc && end->err.text[0]));
    free(copy);
}

/* Takes all that an end has to send. */
static inline size_t take(struct end *from, uint8_t *out, size_t room)
{
    struct buf *output = channel_output(from->channel);
    size_t len = output->len;
    assert_true(len <= room);
    if (len > 0) {
        memcpy(out, output->data, len);
    }
    buf_consume(output, len);
    return len;
}

static inline bool carry(struct end *from, struct end *to, size_t piece)
{
    static uint8_t flight[2 << 20];
    size_t len = take(from, flight, sizeof flight);
    for (size_t at = 0; at < len;) {
        size_t n = piece ? piece : 1 + dice(700);
        n = n < len - at ? n : len - at;
        hear(to, flight + at, n);
        at += n;
    }
    return len > 0;
}

/* Until nobody has anything to say. 0: pieces of random sizes. */
static inline void converse(struct pair *pair, size_t piece)
{
    while (carry(&pair->client, &pair->server, piece) | carry(&pair->server, &pair->client, piece)) {
    }
}

#define WHOLE ((size_t)1 << 30)

static inline void assert_peer(const struct end *end, const char *name, uint32_t role)
{
    const struct trust_subject *peer = channel_peer(end->channel);
    assert_true(channel_is_open(end->channel));
    if (name) {
        assert_non_null(peer);
        assert_string_equal(peer->name, name);
        assert_int_equal(peer->role, role);
    } else {
        assert_null(peer);
    }
}

static inline struct tls_setup *good_server(void)
{
    return tls_server_of(&ours, "coordinator", TRUST_SERVER, 0);
}

static inline struct tls_setup *good_client(void)
{
    return tls_client_of(&ours, "site-a", TRUST_TRAINER, 0);
}

#endif
