/* The swarm's conversation with a server that is played here: three clients, whole rounds, the observer at the end; and
 * each lie of the server that must end it. */
#include "tests/unit/client/swarm/swarm_support.h"

#include "client/swarm/swarm.h"

enum { CLIENTS = 3, OBSERVER = CLIENTS, IDLE_MS = 8000 };

/* What the server does wrong, in round 2 and to client 1 where it is about one. */
enum lie {
    HONEST,
    FLIPPED_BIT,   /* of the model, announced with its hash */
    WRONG_HASH,    /* of the model to client 1 */
    OTHER_MODEL,   /* announced to client 1 */
    SKIPPED_BYTES, /* a chunk that begins too late */
    LATE_GRANT,    /* from a byte behind the end */
    UNCOUNTED,     /* ROUND_END says that an accepted contribution is not in it */
    STRANGER,      /* one more contribution than the swarm made */
    LOST,          /* accepted, and not in the sum */
    NO_ANSWER,     /* ACCEPTED before anything was uploaded */
    OUT_OF_TURN,   /* GRANT to who has offered nothing */
    OLD_ROUND,     /* a round that has ended opens again */
    WRONG_END,     /* the observer's model is not what came of the last round */
};

struct server {
    struct plan plan;
    struct buf plan_bytes;
    struct layout *layout;
    struct swarm *swarm;
    struct summed sum;
    uint64_t now_us;
    struct msg said[CLIENTS + 1]; /* the last message of each */
    uint32_t messages[CLIENTS + 1];
    uint8_t *uploads[CLIENTS];
    uint64_t uploaded[CLIENTS];
    uint64_t fail_after; /* the swarm's n-th allocation in the next step fails; 0: none */
    int rc;
    struct err err;
};

static void take(void *ctx, uint32_t client, struct msg *msg)
{
    struct server *s = ctx;
    s->said[client] = *msg;
    s->said[client].payload = NULL;
    s->messages[client]++;
    if (msg->type == MSG_CHUNK && msg->chunk.kind == BLOB_UPDATE) {
        assert_int_equal(msg->chunk.offset, s->uploaded[client]);
        memcpy(s->uploads[client] + s->uploaded[client], msg->raw, msg->raw_len);
        s->uploaded[client] += msg->raw_len;
    }
}

static void open_swarm(struct server *s, const struct swarm_options *more)
{
    *s = (struct server){.now_us = 1000};
    struct swarm_options options = *more;
    options.clients = CLIENTS;
    options.send = take;
    options.ctx = s;
    (void)snprintf(options.name, sizeof options.name, "swarm");
    small_plan(&s->plan);
    buf_init(&s->plan_bytes, MSG_PLAN_MAX);
    assert_int_equal(plan_encode(&s->plan, &s->plan_bytes), 0);
    assert_int_equal(layout_new(&s->plan.model, &s->layout, NULL), 0);
    summed_init(&s->sum, s->layout, s->plan.seed);
    for (int i = 0; i < CLIENTS; i++) {
        s->uploads[i] = mem_new((size_t)s->layout->total, sizeof(float));
    }
    assert_int_equal(swarm_new(&options, &s->swarm), 0);
}

static void close_swarm(struct server *s)
{
    swarm_free(s->swarm);
    summed_fini(&s->sum);
    layout_free(s->layout);
    buf_fini(&s->plan_bytes);
    for (int i = 0; i < CLIENTS; i++) {
        mem_free(s->uploads[i]);
    }
}

/* Nothing more is told to a swarm that has failed. */
static void tell(struct server *s, uint32_t client, struct msg msg)
{
    s->now_us += 1000;
    if (s->rc == 0) {
        mem_fail_after(s->fail_after);
        s->rc = swarm_message(s->swarm, client, &msg, s->now_us, &s->err);
        mem_fail_after(0);
    }
}

static void welcome(struct server *s, uint32_t client, uint32_t round)
{
    assert_int_equal(swarm_connected(s->swarm, client, s->now_us, &s->err), 0);
    assert_int_equal(s->said[client].type, MSG_HELLO);
    assert_int_equal(s->said[client].hello.role, client == OBSERVER ? ROLE_OBSERVER : ROLE_TRAINER);
    tell(s, client,
         (struct msg){.type = MSG_WELCOME,
                      .welcome = {.minor = PROTOCOL_MINOR_MOST,
                                  .plan = s->plan_bytes.data,
                                  .plan_len = (uint32_t)s->plan_bytes.len,
                                  .plan_hash = plan_hash(s->plan_bytes.data, s->plan_bytes.len),
                                  .round = round,
                                  .idle_timeout_ms = IDLE_MS}});
}

static void flip(float *number)
{
    uint32_t bits;
    memcpy(&bits, number, 4);
    bits ^= 1;
    memcpy(number, &bits, 4);
}

static struct blob model_blob(const struct server *s, uint32_t round)
{
    return (struct blob){.kind = BLOB_MODEL,
                         .round = round,
                         .element = ELEMENT_F32,
                         .count = s->layout->total,
                         .bytes = s->layout->total * sizeof(float),
                         .layout = s->layout->fingerprint,
                         .hash = hash_of(s->sum.model, s->layout->total * sizeof(float))};
}

/* In two pieces; `lie`: to this client. */
static void serve_model(struct server *s, uint32_t client, uint32_t round, enum lie lie)
{
    const uint8_t *bytes = (const uint8_t *)s->sum.model;
    uint32_t len = (uint32_t)(s->layout->total * sizeof(float)), first = len / 2 + 1;
    assert_true(s->rc || (s->said[client].type == MSG_FETCH && s->said[client].fetch.kind == BLOB_MODEL));
    struct msg msg = {.type = MSG_CHUNK, .chunk = {BLOB_MODEL, round, 0}, .raw = bytes, .raw_len = first};
    tell(s, client, msg);
    msg.chunk.offset = first + (lie == SKIPPED_BYTES);
    msg.raw = bytes + first;
    msg.raw_len = len - first;
    uint8_t *wrong = NULL;
    if (lie == WRONG_HASH) {
        wrong = mem_new(msg.raw_len, 1);
        msg.raw = wrong;
    }
    tell(s, client, msg);
    mem_free(wrong);
}

/* One contribution, from OFFER to ACCEPTED. */
static void absorb(struct server *s, uint32_t client, uint32_t round, enum lie lie)
{
    if (s->rc) {
        return;
    }
    assert_int_equal(s->said[client].type, MSG_OFFER);
    struct msg_offer offer = s->said[client].offer;
    assert_int_equal(offer.report.images, 1 + client);
    s->uploaded[client] = 0;
    if (lie != NO_ANSWER) {
        tell(
            s, client,
            (struct msg){.type = MSG_GRANT, .grant = {BLOB_UPDATE, round, lie == LATE_GRANT ? offer.update.bytes : 0}});
        assert_true(s->rc || s->uploaded[client] == offer.update.bytes);
        tell(s, client, (struct msg){.type = MSG_GRANT, .grant = {BLOB_FEATURES, round, 0}});
        assert_true(s->rc || s->said[client].chunk.kind == BLOB_FEATURES);
        struct hash128 hash = hash_of(s->uploads[client], (size_t)s->uploaded[client]);
        assert_true(s->rc || hash_equal(&hash, &offer.update.hash));
    }
    if (s->rc == 0 && lie != LOST && lie != NO_ANSWER) {
        summed_add(&s->sum, s->plan.wire.update, s->uploads[client], s->uploaded[client], offer.report.images);
    }
    tell(s, client, (struct msg){.type = MSG_ACCEPTED, .accepted.round = round});
}

static void play_round(struct server *s, uint32_t round, enum lie lie)
{
    if (lie == FLIPPED_BIT) {
        flip(&s->sum.model[77]);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct msg msg = {.type = MSG_ROUND, .round = {.round = round, .model = model_blob(s, round)}};
        msg.round.model.hash.bytes[0] ^= lie == OTHER_MODEL && i == 1;
        tell(s, i, msg);
        if (lie == OUT_OF_TURN && i == 1) {
            tell(s, i, (struct msg){.type = MSG_GRANT, .grant = {BLOB_UPDATE, round, 0}});
        }
        serve_model(s, i, round, i == 1 ? lie : HONEST);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        absorb(s, i, round, i == 1 ? lie : HONEST);
    }
    if (s->rc == 0) {
        summed_close(&s->sum);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        tell(s, i,
             (struct msg){.type = MSG_ROUND_END,
                          .round_end = {.round = round,
                                        .accepted = CLIENTS + (lie == STRANGER),
                                        .counted = !(i == 1 && lie == UNCOUNTED),
                                        .finished = round == s->plan.rounds}});
    }
    if (lie == OLD_ROUND) {
        tell(s, 1, (struct msg){.type = MSG_ROUND, .round = {.round = round, .model = model_blob(s, round)}});
    }
}

/* Three of five rounds and the observer. Returns how it ended. */
static int play(enum lie lie, struct err *err)
{
    struct server server, *s = &server;
    open_swarm(s, &(struct swarm_options){.rounds = 3});
    for (uint32_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(swarm_welcomed(s->swarm), i);
        welcome(s, i, 0);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(s->said[i].type, MSG_READY);
    }
    for (uint32_t round = 1; round <= 3; round++) {
        play_round(s, round, round == 2 ? lie : HONEST);
    }
    if (s->rc == 0) {
        uint32_t count;
        const struct swarm_round *rounds = swarm_rounds(s->swarm, &count);
        assert_int_equal(swarm_phase(s->swarm), SWARM_LEAVING);
        assert_int_equal(swarm_compared(s->swarm), 3);
        assert_int_equal(count, 3);
        assert_int_equal(rounds[1].accepted, 3);
        assert_int_equal(rounds[1].slots, 1);
        assert_int_equal(rounds[1].down, 3 * s->layout->total * sizeof(float));
        assert_int_equal(rounds[1].up, rounds[1].down + 3 * 20 * 8 * sizeof(float));
        assert_true(rounds[1].accepted_us > rounds[1].opened_us);
        welcome(s, OBSERVER, 3);
        assert_int_equal(s->said[OBSERVER].type, MSG_READY);
        if (lie == WRONG_END) {
            flip(&s->sum.model[5]);
        }
        tell(s, OBSERVER, (struct msg){.type = MSG_AGGREGATE, .aggregate = {3, model_blob(s, 4)}});
        serve_model(s, OBSERVER, 4, HONEST);
        assert_true(s->rc || swarm_phase(s->swarm) == SWARM_DONE);
    }
    *err = s->err;
    int rc = s->rc;
    close_swarm(s);
    return rc;
}

static void test_whole_rounds(void **state)
{
    (void)state;
    struct err err;
    if (play(HONEST, &err)) {
        fail_msg("%s", err.text);
    }
}

static void test_each_lie_ends_it(void **state)
{
    (void)state;
    static const struct {
        enum lie lie;
        int code;
        const char *says;
    } lies[] = {
        {FLIPPED_BIT, ERR_FAILED, "the model of round 2 is wrong: number 77 is "},
        {WRONG_HASH, ERR_DATA, "swarm-1: the model of round 2 is not what was announced"},
        {OTHER_MODEL, ERR_PROTOCOL, "swarm-1: round 2 announces another model"},
        {SKIPPED_BYTES, ERR_PROTOCOL, "swarm-1: "},
        {LATE_GRANT, ERR_PROTOCOL, "which was not offered"},
        {UNCOUNTED, ERR_FAILED, "swarm-1: was accepted in round 2, which then did not count"},
        {STRANGER, ERR_FAILED, "round 2 counted 4 contributions, of which the swarm made 3"},
        {LOST, ERR_FAILED, "the model of round 3 is wrong: number 0 is "},
        {NO_ANSWER, ERR_PROTOCOL, "ACCEPTED for round 2, which was not uploaded"},
        {OUT_OF_TURN, ERR_PROTOCOL, "the server sent GRANT to a client that is FETCHING"},
        {OLD_ROUND, ERR_PROTOCOL, "swarm-1: round 2 opens"},
        {WRONG_END, ERR_FAILED, "the model of round 4 is wrong: number 5 is "},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct err err = {0};
        int rc = play(lies[i].lie, &err);
        if (rc != lies[i].code || !strstr(err.text, lies[i].says)) {
            fail_msg("lie %d: %d, \"%s\"", (int)lies[i].lie, rc, err.text);
        }
    }
}

/* Contributions that come too late are not in the sum, and the swarm knows it. */
static void test_a_deadline(void **state)
{
    (void)state;
    struct server server, *s = &server;
    open_swarm(s, &(struct swarm_options){.rounds = 2});
    for (uint32_t i = 0; i < CLIENTS; i++) {
        welcome(s, i, 0);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        tell(s, i, (struct msg){.type = MSG_ROUND, .round = {.round = 1, .model = model_blob(s, 1)}});
    }
    serve_model(s, 1, 1, HONEST); /* client 0, the keeper, never gets its model */
    serve_model(s, 2, 1, HONEST);
    absorb(s, 1, 1, HONEST);
    tell(s, 2, (struct msg){.type = MSG_QUEUED, .queued = {1, 1}});
    tell(s, 2, (struct msg){.type = MSG_DECLINED, .declined = {.round = 1, .reason = DECLINE_STALE}});
    summed_close(&s->sum);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        tell(s, i, (struct msg){.type = MSG_ROUND_END, .round_end = {1, 1, i == 1, false}});
    }
    play_round(s, 2, HONEST);
    if (s->rc) {
        fail_msg("%s", s->err.text);
    }
    uint32_t count;
    const struct swarm_round *rounds = swarm_rounds(s->swarm, &count);
    assert_int_equal(count, 2);
    assert_int_equal(rounds[0].accepted, 1);
    assert_int_equal(rounds[0].declined, 1);
    assert_int_equal(swarm_compared(s->swarm), 1); /* round 2's, which includes what became of round 1 */
    close_swarm(s);
}

/* The next ROUND of one client comes before the last words about the round before to another. */
static void test_words_that_cross(void **state)
{
    (void)state;
    struct server server, *s = &server;
    open_swarm(s, &(struct swarm_options){.rounds = 2});
    for (uint32_t i = 0; i < CLIENTS; i++) {
        welcome(s, i, 0);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        tell(s, i, (struct msg){.type = MSG_ROUND, .round = {.round = 1, .model = model_blob(s, 1)}});
        serve_model(s, i, 1, HONEST);
    }
    for (uint32_t i = 0; i < 2; i++) {
        absorb(s, i, 1, HONEST);
    }
    tell(s, 2, (struct msg){.type = MSG_GRANT, .grant = {BLOB_UPDATE, 1, 0}});
    tell(s, 2, (struct msg){.type = MSG_GRANT, .grant = {BLOB_FEATURES, 1, 0}});
    summed_add(&s->sum, s->plan.wire.update, s->uploads[2], s->uploaded[2], 3);
    summed_close(&s->sum);
    tell(s, 0, (struct msg){.type = MSG_ROUND_END, .round_end = {1, 3, true, false}});
    tell(s, 0, (struct msg){.type = MSG_ROUND, .round = {.round = 2, .model = model_blob(s, 2)}});
    serve_model(s, 0, 2, HONEST);
    assert_int_equal(s->said[0].type, MSG_OFFER);
    assert_int_equal(swarm_compared(s->swarm), 1); /* what round 1 came to is not known yet */
    tell(s, 2, (struct msg){.type = MSG_ACCEPTED, .accepted.round = 1});
    assert_int_equal(swarm_compared(s->swarm), 1); /* it is, but comparing waits until nobody is being measured */
    absorb(s, 0, 2, HONEST);
    tell(s, 0, (struct msg){.type = MSG_ROUND_END, .round_end = {2, 1, true, true}});
    assert_int_equal(swarm_compared(s->swarm), 2);
    assert_int_equal(s->rc, 0);
    close_swarm(s);
}

static void test_idle_clients_beat(void **state)
{
    (void)state;
    struct server server, *s = &server;
    open_swarm(s, &(struct swarm_options){.idle = true});
    for (uint32_t i = 0; i < CLIENTS; i++) {
        welcome(s, i, 0);
        assert_int_equal(s->said[i].type, MSG_HELLO); /* and nothing after it */
        assert_int_equal(s->messages[i], 1);
    }
    uint64_t then_us = s->now_us;
    for (uint64_t t = 0; t <= 3 * IDLE_MS * 1000; t += 100000) {
        swarm_beat(s->swarm, then_us + t);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(s->said[i].type, MSG_PROGRESS);
        assert_in_range(s->messages[i], 1 + 11, 1 + 13); /* one in a quarter of the time-out */
    }
    tell(s, 1, (struct msg){.type = MSG_ALIVE});
    tell(s, 1, (struct msg){.type = MSG_ROUND_END, .round_end = {1, 2, false, false}});
    assert_int_equal(swarm_beats(s->swarm), 1);
    assert_int_equal(s->rc, 0);
    close_swarm(s);
}

/* Each allocation of the first welcome, and of the first fetch, in turn. */
static void test_no_memory(void **state)
{
    (void)state;
    uint64_t n, failures[2] = {0, 0};
    int rc = ERR_NOMEM;
    for (n = 1; rc; n++) {
        struct server server = {0}, *s = &server;
        open_swarm(s, &(struct swarm_options){.rounds = 3});
        s->fail_after = n;
        welcome(s, 0, 0);
        rc = s->rc;
        assert_true(rc == 0 || rc == ERR_NOMEM);
        failures[0] += rc != 0;
        close_swarm(s);
    }
    for (n = 1, rc = ERR_NOMEM; rc; n++) {
        struct server server = {0}, *s = &server;
        open_swarm(s, &(struct swarm_options){.rounds = 3});
        for (uint32_t i = 0; i < CLIENTS; i++) {
            welcome(s, i, 0);
        }
        s->fail_after = n;
        tell(s, 0, (struct msg){.type = MSG_ROUND, .round = {.round = 1, .model = model_blob(s, 1)}});
        rc = s->rc;
        assert_true(rc == 0 || rc == ERR_NOMEM);
        failures[1] += rc != 0;
        close_swarm(s);
    }
    assert_in_range(failures[0], 8, 1000);
    assert_in_range(failures[1], 1, 10);
}

static void refuse(struct server *s, void (*change)(struct plan *plan), int code, const char *says)
{
    open_swarm(s, &(struct swarm_options){.rounds = 0});
    change(&s->plan);
    buf_consume(&s->plan_bytes, s->plan_bytes.len);
    assert_int_equal(plan_encode(&s->plan, &s->plan_bytes), 0);
    welcome(s, 0, 2);
    assert_int_equal(s->rc, code);
    assert_non_null(strstr(s->err.text, says));
    close_swarm(s);
}

static void with_momentum(struct plan *plan)
{
    plan->aggregation.optimizer = AGGREGATION_MOMENTUM;
}

static void with_many(struct plan *plan)
{
    plan->min_clients = CLIENTS + 1;
}

static void with_few_rounds(struct plan *plan)
{
    plan->rounds = 2;
}

static void test_plans_that_are_refused(void **state)
{
    (void)state;
    struct server server;
    refuse(&server, with_momentum, ERR_CONFIG, "aggregation.optimizer");
    refuse(&server, with_many, ERR_CONFIG, "min_clients");
    refuse(&server, with_few_rounds, ERR_CONFIG, "0 of its 2 rounds left");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_rounds),      cmocka_unit_test(test_each_lie_ends_it),
        cmocka_unit_test(test_a_deadline),        cmocka_unit_test(test_words_that_cross),
        cmocka_unit_test(test_idle_clients_beat), cmocka_unit_test(test_plans_that_are_refused),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
