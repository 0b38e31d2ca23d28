/* A scripted shell around a coordinator: connections with inboxes, jobs that run when the test says so, a disk that may
 * be full, a clock that the test moves. Everything that the coordinator sends is encoded as well, so that nothing
 * leaves it that the wire would refuse.
 *
 * A site is a client that does what it is told and nothing by itself. Its update is a function of its number and the
 * round; its feature rows carry its number in the first component. */
#ifndef STARLING_TESTS_WORLD_H
#define STARLING_TESTS_WORLD_H

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "server/session/coordinator.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PEERS = 64, INBOX = 64, SITES = 8, ROWS = 6, D = 8, IDLE_MS = 6000, DEADLINE_MS = 60000, UNIX_MS = 1700000000 };

struct connection {
    bool open, closing;
    uint32_t count;
    struct msg inbox[INBOX];
    bool undrained; /* a message was queued since the last DRAINED */
    bool shaking;   /* its handshake has begun */
    uint32_t pauses;
    uint64_t pause_ms; /* the latest */
};

struct world {
    struct plan plan;
    struct buf plan_bytes;
    struct layout *layout;
    struct coordinator *c;
    struct coordinator_options options;
    struct actions actions;
    struct log log;
    struct buf lines; /* the log: "event fields\n" */
    struct connection peers[PEERS];
    struct round_summary recorded; /* by the last of `records` jobs */
    uint32_t records;
    struct job *jobs[16];
    uint32_t jobs_count;
    bool hold_jobs;    /* jobs wait for run_jobs */
    bool hold_drained; /* DRAINED waits for drain() */
    int save_result;
    uint32_t saves, failures; /* of the disk */
    struct checkpoint disk;   /* the last durable state; owned */
    bool exited;
    int result;      /* of the exit */
    int step_result; /* of the latest step */
    uint64_t now;
};

/* ---- Log and disk ---- */

static inline void world_emit(void *ctx, enum log_level level, const char *event, const char *fields)
{
    struct world *w = ctx;
    (void)level;
    (void)buf_printf(&w->lines, "%s %s\n", event, fields);
}

static inline bool logged(struct world *w, const char *text)
{
    (void)buf_append(&w->lines, "", 1);
    w->lines.len--;
    return w->lines.data && strstr((const char *)w->lines.data, text) != NULL;
}

static inline void *copy_of(const void *data, size_t len)
{
    void *copy = mem_new(len, 1);
    assert_non_null(copy);
    if (len > 0) {
        memcpy(copy, data, len);
    }
    return copy;
}

static inline void disk_forget(struct checkpoint *disk)
{
    mem_free(disk->plan);
    mem_free(disk->params);
    mem_free(disk->bank);
    mem_free(disk->optimiser);
    mem_free(disk->counted);
    memset(disk, 0, sizeof *disk);
}

static inline void disk_keep(struct world *w, const struct checkpoint *from)
{
    disk_forget(&w->disk);
    w->disk = *from;
    w->disk.plan = copy_of(from->plan, from->plan_len);
    w->disk.params = copy_of(from->params, (size_t)w->layout->total * sizeof *from->params);
    w->disk.bank = copy_of(from->bank, (size_t)from->bank_len);
    w->disk.optimiser = copy_of(from->optimiser, (size_t)from->optimiser_len);
    w->disk.counted = copy_of(from->counted, from->counted_count * sizeof *from->counted);
}

/* ---- The loop ---- */

static inline void world_step(struct world *w, struct event event);

static inline void run_job(struct world *w)
{
    struct job *job = w->jobs[0];
    struct event event = {.kind = EVENT_JOB_DONE, .job = job};
    struct err reason = {0};
    w->jobs_count--;
    memmove(w->jobs, w->jobs + 1, w->jobs_count * sizeof(struct job *));
    if (job->kind == JOB_SAVE) {
        event.result = w->save_result;
        if (w->save_result == 0) {
            disk_keep(w, &job->checkpoint);
            w->saves++;
        } else {
            w->failures++;
            (void)err_set(&reason, w->save_result, "checkpoint-%06u: write: no \"space\"", job->checkpoint.round);
            event.reason = &reason;
        }
    } else if (job->kind == JOB_RECORD) {
        w->recorded = job->checkpoint.summary;
        w->records++;
    } else {
        job_run(job);
    }
    world_step(w, event);
}

static inline void run_jobs(struct world *w)
{
    while (w->jobs_count > 0) {
        run_job(w);
    }
}

static inline void take_send(struct world *w, struct action *action)
{
    struct connection *to = &w->peers[action->peer];
    assert_true(to->open && !to->closing);
    struct buf bytes;
    struct err err;
    buf_init(&bytes, 16u << 20);
    if (msg_encode(&action->message, &bytes, &err) != 0) {
        fail_msg("%s cannot be encoded: %s", msg_type_name(action->message.type), err.text);
    }
    buf_fini(&bytes);
    if (action->message.type == MSG_ALIVE && to->count > 0 && to->inbox[to->count - 1].type == MSG_ALIVE) {
        to->count--; /* Only the latest matters. */
    }
    assert_true(to->count < INBOX);
    to->inbox[to->count++] = action->message;
    to->undrained = true;
    memset(&action->message, 0, sizeof action->message);
}

static inline void drain(struct world *w, uint32_t peer)
{
    if (w->peers[peer].undrained && w->peers[peer].open) {
        w->peers[peer].undrained = false;
        world_step(w, (struct event){.kind = EVENT_PEER_DRAINED, .peer = peer});
    }
}

static inline void world_step(struct world *w, struct event event)
{
    event.unix_ms = UNIX_MS;
    w->step_result = coordinator_step(w->c, &event, w->now, &w->actions);
    bool closed[PEERS] = {false};
    for (size_t i = 0; i < w->actions.count; i++) {
        struct action *action = &w->actions.items[i];
        if (action->kind == ACTION_SEND) {
            take_send(w, action);
        } else if (action->kind == ACTION_CLOSE) {
            assert_true(w->peers[action->peer].open && !w->peers[action->peer].closing);
            w->peers[action->peer].closing = closed[action->peer] = true;
        } else if (action->kind == ACTION_DROP) {
            assert_true(w->peers[action->peer].open);
            w->peers[action->peer].closing = closed[action->peer] = true;
        } else if (action->kind == ACTION_SHAKE) {
            assert_true(w->peers[action->peer].open && !w->peers[action->peer].shaking);
            w->peers[action->peer].shaking = true;
        } else if (action->kind == ACTION_PAUSE) {
            w->peers[action->peer].pauses++;
            w->peers[action->peer].pause_ms = action->pause_ms;
        } else if (action->kind == ACTION_JOB) {
            assert_true(w->jobs_count < sizeof w->jobs / sizeof w->jobs[0]);
            w->jobs[w->jobs_count++] = action->job;
        } else {
            assert_false(w->exited);
            w->exited = true;
            w->result = action->result;
        }
    }
    actions_clear(&w->actions);
    for (uint32_t peer = 0; peer < PEERS; peer++) {
        if (closed[peer]) {
            w->peers[peer].open = false;
            world_step(w, (struct event){.kind = EVENT_PEER_CLOSED, .peer = peer});
        } else if (!w->hold_drained) {
            drain(w, peer);
        }
    }
    if (!w->hold_jobs) {
        run_jobs(w);
    }
}

/* Moves the clock to `at`, with all ticks that are due on the way. */
static inline void advance_to(struct world *w, uint64_t at)
{
    uint64_t next;
    for (uint32_t i = 0; (next = coordinator_next_ms(w->c)) <= at; i++) {
        assert_true(i < 10000); /* What was due must not stay due. */
        w->now = next > w->now ? next : w->now;
        world_step(w, (struct event){.kind = EVENT_TICK});
    }
    w->now = at;
}

static inline void advance(struct world *w, uint64_t ms)
{
    advance_to(w, w->now + ms);
}

/* ---- Life ---- */

static inline void world_init(struct world *w)
{
    memset(w, 0, sizeof *w);
    config_defaults(&plan_set, &w->plan);
    w->plan.rounds = 3;
    w->plan.min_clients = 3;
    w->plan.round_deadline_ms = DEADLINE_MS;
    w->plan.seed = 11;
    w->plan.model = (struct model_spec){.stages = 1, .blocks = {1}, .width = 8, .input = 8, .features = D};
    w->plan.fusion.remote = 10;
    w->plan.fusion.upload = ROWS;
    w->options.upload_slots = 2;
    w->options.bank_capacity = 100;
    w->options.sessions_max = PEERS - 8;
    w->options.idle_timeout_ms = IDLE_MS;
    w->options.boot = hash_of("boot", 4);
    w->now = 1000;
    buf_init(&w->plan_bytes, MSG_PLAN_MAX);
    buf_init(&w->lines, 1u << 20);
    assert_int_equal(buf_reserve(&w->lines, 1u << 19), 0); /* the log must not fail when a test lets memory fail */
    w->log = (struct log){world_emit, w, LOG_LEVEL_DEBUG};
}

static inline void world_start(struct world *w)
{
    struct err err;
    if (!w->layout) {
        assert_int_equal(layout_new(&w->plan.model, &w->layout, NULL), 0);
        assert_int_equal(plan_encode(&w->plan, &w->plan_bytes), 0);
        struct checkpoint first = {.plan = w->plan_bytes.data, .plan_len = (uint32_t)w->plan_bytes.len};
        first.run = hash_of("run", 3);
        first.params = mem_new((size_t)w->layout->total, sizeof *first.params);
        params_init(w->layout, w->plan.seed, first.params);
        disk_keep(w, &first);
        mem_free(first.params);
    }
    w->options.plan = &w->plan;
    w->options.plan_bytes = w->plan_bytes.data;
    w->options.plan_len = (uint32_t)w->plan_bytes.len;
    w->options.layout = w->layout;
    w->options.log = &w->log;
    uint32_t known = w->disk.round > 0 ? 1 : 0;
    if (coordinator_new(&w->options, &w->disk, &w->disk.summary, known, w->now, &w->c, &err) != 0) {
        fail_msg("coordinator_new: %s", err.text);
    }
}

/* kill -9: what is not on the disk is gone. */
static inline void world_crash(struct world *w)
{
    coordinator_free(w->c);
    w->c = NULL;
    w->jobs_count = 0;
    for (uint32_t peer = 0; peer < PEERS; peer++) {
        for (uint32_t i = 0; i < w->peers[peer].count; i++) {
            msg_fini(&w->peers[peer].inbox[i]);
        }
        memset(&w->peers[peer], 0, sizeof w->peers[peer]);
    }
}

static inline void world_fini(struct world *w)
{
    world_crash(w);
    actions_fini(&w->actions);
    disk_forget(&w->disk);
    layout_free(w->layout);
    buf_fini(&w->plan_bytes);
    buf_fini(&w->lines);
}

/* ---- Peers ---- */

static inline void open_peer(struct world *w, uint32_t peer)
{
    assert_false(w->peers[peer].open);
    for (uint32_t i = 0; i < w->peers[peer].count; i++) {
        msg_fini(&w->peers[peer].inbox[i]);
    }
    w->peers[peer] = (struct connection){.open = true};
    world_step(w, (struct event){.kind = EVENT_PEER_OPENED, .peer = peer, .address = "127.0.0.1:5555"});
}

static inline void lose(struct world *w, uint32_t peer)
{
    struct err reason;
    (void)err_set(&reason, ERR_IO, "connection reset by peer");
    assert_true(w->peers[peer].open);
    w->peers[peer].open = false;
    world_step(w, (struct event){.kind = EVENT_PEER_CLOSED, .peer = peer, .reason = &reason});
}

static inline void say(struct world *w, uint32_t peer, struct msg msg)
{
    world_step(w, (struct event){.kind = EVENT_PEER_MESSAGE, .peer = peer, .message = &msg});
}

static inline struct msg take_first(struct connection *from)
{
    struct msg msg = from->inbox[0];
    from->count--;
    memmove(from->inbox, from->inbox + 1, from->count * sizeof *from->inbox);
    return msg;
}

/* Drops messages of this type at the head of the inbox. */
static inline uint32_t pass_over(struct world *w, uint32_t peer, uint8_t type)
{
    uint32_t count = 0;
    while (w->peers[peer].count > 0 && w->peers[peer].inbox[0].type == type) {
        struct msg msg = take_first(&w->peers[peer]);
        msg_fini(&msg);
        count++;
    }
    return count;
}

/* The next message of the inbox, which must be of this type; heartbeats in between are passed over. The caller finis
 * what it owns. */
static inline struct msg hear(struct world *w, uint32_t peer, uint8_t type)
{
    struct connection *from = &w->peers[peer];
    if (type != MSG_ALIVE) {
        (void)pass_over(w, peer, MSG_ALIVE);
    }
    if (from->count == 0) {
        fail_msg("peer %u heard nothing, %s was expected", peer, msg_type_name(type));
    }
    struct msg msg = take_first(from);
    if (msg.type != type) {
        fail_msg("peer %u heard %s (%s), %s was expected", peer, msg_type_name(msg.type),
                 msg.type == MSG_REJECT     ? msg.reject.text
                 : msg.type == MSG_DECLINED ? msg.declined.text
                                            : "",
                 msg_type_name(type));
    }
    return msg;
}

static inline void hear_nothing(struct world *w, uint32_t peer)
{
    (void)pass_over(w, peer, MSG_ALIVE);
    if (w->peers[peer].count > 0) {
        fail_msg("peer %u heard %s", peer, msg_type_name(w->peers[peer].inbox[0].type));
    }
}

static inline struct msg hear_declined(struct world *w, uint32_t peer, enum decline_reason reason)
{
    struct msg msg = hear(w, peer, MSG_DECLINED);
    if (msg.declined.reason != reason) {
        fail_msg("declined as %s (%s), not as %s", decline_reason_name(msg.declined.reason), msg.declined.text,
                 decline_reason_name(reason));
    }
    return msg;
}

static inline struct msg hear_reject(struct world *w, uint32_t peer, enum reject_code code)
{
    struct msg msg = hear(w, peer, MSG_REJECT);
    if (msg.reject.code != code) {
        fail_msg("rejected with %u (%s), not with %u", msg.reject.code, msg.reject.text, code);
    }
    assert_false(w->peers[peer].open);
    return msg;
}

/* The answer to what may not be said: the connection ends, and the client may come back. */
static inline struct msg hear_fault(struct world *w, uint32_t peer)
{
    struct msg msg = hear(w, peer, MSG_BYE);
    assert_int_equal(msg.bye.code, -ERR_PROTOCOL);
    assert_false(w->peers[peer].open);
    return msg;
}

/* ---- Sites ---- */

struct site {
    uint32_t number, peer;
    char name[NAME_MAX_BYTES];
    struct msg offer;
    float *update, *features;
    uint32_t rows;
    uint8_t *packed_update, *packed_features; /* as they travel; NULL: as they lie above */
};

static inline void site_init(struct site *site, uint32_t number)
{
    memset(site, 0, sizeof *site);
    site->number = number;
    site->peer = number;
    (void)snprintf(site->name, sizeof site->name, "site-%u", number);
}

static inline void site_fini(struct site *site)
{
    mem_free(site->update);
    mem_free(site->features);
    mem_free(site->packed_update);
    mem_free(site->packed_features);
    site->update = site->features = NULL;
    site->packed_update = site->packed_features = NULL;
}

/* As many as a test has, by their numbers. */
static inline void sites_init(struct site *sites, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        site_init(&sites[i], i);
    }
}

static inline void sites_fini(struct site *sites, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        site_fini(&sites[i]);
    }
}

static inline struct msg hello_of(const struct site *site)
{
    struct msg msg = {.type = MSG_HELLO};
    msg.hello.major = FRAME_VERSION;
    msg.hello.minor_least = PROTOCOL_MINOR_LEAST;
    msg.hello.minor_most = PROTOCOL_MINOR_MOST;
    msg.hello.capabilities = CAPABILITIES_OURS;
    msg.hello.role = ROLE_TRAINER;
    (void)snprintf(msg.hello.name, sizeof msg.hello.name, "%s", site->name);
    msg.hello.instance = hash_of(site->name, strlen(site->name));
    return msg;
}

static inline struct msg ready_of(const struct world *w)
{
    struct msg msg = {.type = MSG_READY};
    msg.ready.layout = w->layout->fingerprint;
    msg.ready.images = 100;
    return msg;
}

static inline struct msg greet(struct world *w, const struct site *site)
{
    open_peer(w, site->peer);
    say(w, site->peer, hello_of(site));
    struct msg welcome = hear(w, site->peer, MSG_WELCOME);
    assert_int_equal(welcome.welcome.plan_len, w->plan_bytes.len);
    assert_memory_equal(welcome.welcome.plan, w->plan_bytes.data, w->plan_bytes.len);
    struct msg owner = welcome;
    msg_fini(&owner);
    welcome.welcome.plan = NULL;
    return welcome;
}

static inline void join(struct world *w, const struct site *site)
{
    (void)greet(w, site);
    say(w, site->peer, ready_of(w));
}

static inline const uint8_t *travels(const struct site *site, uint32_t kind)
{
    if (kind == BLOB_UPDATE) {
        return site->packed_update ? site->packed_update : (const uint8_t *)site->update;
    }
    return site->packed_features ? site->packed_features : (const uint8_t *)site->features;
}

/* Packs as the plan says; the floats become what the packed ones mean. */
static inline void pack_site(const struct world *w, struct site *site)
{
    const struct plan *plan = &w->plan;
    uint32_t at;
    mem_free(site->packed_update);
    mem_free(site->packed_features);
    site->packed_update = site->packed_features = NULL;
    if (plan->wire.update != QUANT_F32) {
        uint64_t bytes = quant_update_bytes(plan->wire.update, w->layout);
        site->packed_update = mem_new((size_t)bytes, 1);
        assert_int_equal(quant_update_encode(plan->wire.update, w->layout, site->update, site->packed_update, &at),
                         QUANT_OK);
        assert_int_equal(
            quant_update_decode(plan->wire.update, w->layout, site->packed_update, bytes, site->update, &at), QUANT_OK);
    }
    if (plan->wire.features != QUANT_F32 && site->rows > 0) {
        uint64_t bytes = quant_rows_bytes(plan->wire.features, site->rows, D);
        site->packed_features = mem_new((size_t)bytes, 1);
        assert_int_equal(
            quant_rows_encode(plan->wire.features, site->features, site->rows, D, site->packed_features, &at),
            QUANT_OK);
        assert_int_equal(
            quant_rows_decode(plan->wire.features, site->packed_features, bytes, site->rows, D, site->features, &at),
            QUANT_OK);
    }
}

static inline struct blob describe_blob(const struct world *w, const struct site *site, uint32_t kind, uint32_t round,
                                        uint32_t form, uint64_t count, uint64_t bytes)
{
    return (struct blob){.kind = kind,
                         .round = round,
                         .element = element_of(form),
                         .count = count,
                         .bytes = bytes,
                         .layout = w->layout->fingerprint,
                         .hash = hash_of(travels(site, kind), (size_t)bytes)};
}

static inline void describe_offer(const struct world *w, struct site *site, uint32_t round)
{
    struct msg_offer *offer = &site->offer.offer;
    uint32_t update = w->plan.wire.update, features = w->plan.wire.features;
    pack_site(w, site);
    site->offer.type = MSG_OFFER;
    offer->round = round;
    offer->update =
        describe_blob(w, site, BLOB_UPDATE, round, update, w->layout->total, quant_update_bytes(update, w->layout));
    offer->has_features = site->rows > 0;
    if (site->rows > 0) {
        offer->features = describe_blob(w, site, BLOB_FEATURES, round, features, (uint64_t)site->rows * D,
                                        quant_rows_bytes(features, site->rows, D));
        offer->features.dimension = D;
        offer->features.encoder = w->plan.fusion.encoder;
    }
}

/* Trains: fills update, features, report and offer. */
static inline void train(const struct world *w, struct site *site, uint32_t round)
{
    site_fini(site);
    struct rng rng;
    rng_init(&rng, site->number, RNG_TEST, round, 0, 0);
    site->update = mem_new_aligned((size_t)w->layout->total, sizeof(float));
    site->features = mem_new_aligned((size_t)ROWS * D, sizeof(float));
    site->rows = ROWS;
    for (uint64_t i = 0; i < w->layout->total; i++) {
        site->update[i] = rng_range(&rng, -0.01f, 0.01f);
    }
    for (uint32_t i = 0; i < ROWS; i++) {
        float *row = site->features + (size_t)i * D;
        row[0] = (float)(site->number + 1) / 64;
        row[1] = (float)(round % 32) / 64;
        row[2] = (float)i / 64;
        row[3] = sqrtf(1 - row[0] * row[0] - row[1] * row[1] - row[2] * row[2]);
    }
    memset(&site->offer, 0, sizeof site->offer);
    site->offer.offer.report = (struct report){.images = 10 + 3 * site->number,
                                               .seen = 100,
                                               .steps = 5,
                                               .loss = 1.0 + 0.1 * site->number,
                                               .loss_contrast = 0.9 + 0.1 * site->number,
                                               .loss_matching = 0.1,
                                               .remote_share = 0.5};
    describe_offer(w, site, round);
}

/* Chunks of `size` bytes from `offset` up to `end`. */
static inline void upload_part(struct world *w, const struct site *site, uint32_t kind, uint64_t offset, uint64_t end,
                               uint32_t size)
{
    const uint8_t *data = travels(site, kind);
    while (offset < end) {
        uint32_t len = end - offset < size ? (uint32_t)(end - offset) : size;
        struct msg msg = {.type = MSG_CHUNK, .raw = data + offset, .raw_len = len};
        msg.chunk = (struct msg_chunk){kind, site->offer.offer.round, offset};
        say(w, site->peer, msg);
        offset += len;
    }
}

/* Answers GRANTs until there are none. */
static inline void answer_grants(struct world *w, const struct site *site)
{
    (void)pass_over(w, site->peer, MSG_ALIVE);
    while (w->peers[site->peer].count > 0 && w->peers[site->peer].inbox[0].type == MSG_GRANT) {
        struct msg msg = hear(w, site->peer, MSG_GRANT);
        uint64_t end =
            msg.grant.kind == BLOB_UPDATE ? site->offer.offer.update.bytes : site->offer.offer.features.bytes;
        upload_part(w, site, msg.grant.kind, msg.grant.offset, end, FRAME_CHUNK_MAX);
    }
}

/* ROUND was heard: trains, offers, uploads, hears ACCEPTED. */
static inline void deliver(struct world *w, struct site *site)
{
    struct msg round = hear(w, site->peer, MSG_ROUND);
    train(w, site, round.round.round);
    say(w, site->peer, site->offer);
    answer_grants(w, site);
    (void)hear(w, site->peer, MSG_ACCEPTED);
}

/* Fetches a whole blob; the result is the caller's. */
static inline uint8_t *fetch(struct world *w, uint32_t peer, const struct blob *blob, uint64_t offset)
{
    uint8_t *data = mem_new((size_t)blob->bytes, 1);
    struct msg msg = {.type = MSG_FETCH};
    msg.fetch = (struct msg_fetch){blob->kind, blob->round, offset};
    say(w, peer, msg);
    while (offset < blob->bytes) {
        struct msg chunk = hear(w, peer, MSG_CHUNK);
        assert_int_equal(chunk.chunk.kind, blob->kind);
        assert_int_equal(chunk.chunk.round, blob->round);
        assert_int_equal(chunk.chunk.offset, offset);
        assert_true(chunk.raw_len <= FRAME_CHUNK_MAX && offset + chunk.raw_len <= blob->bytes);
        memcpy(data + offset, chunk.raw, chunk.raw_len);
        offset += chunk.raw_len;
        msg_fini(&chunk);
    }
    return data;
}

static inline struct msg_status_reply status_of(struct world *w, struct msg *keep)
{
    uint32_t peer = PEERS - 1;
    if (!w->peers[peer].open) {
        struct msg msg = {.type = MSG_HELLO};
        msg.hello = (struct msg_hello){.major = FRAME_VERSION,
                                       .minor_least = PROTOCOL_MINOR_LEAST,
                                       .minor_most = PROTOCOL_MINOR_MOST,
                                       .role = ROLE_OPERATOR};
        open_peer(w, peer);
        say(w, peer, msg);
        struct msg welcome = hear(w, peer, MSG_WELCOME);
        msg_fini(&welcome);
    }
    say(w, peer, (struct msg){.type = MSG_STATUS, .status = {.history = 4096}});
    *keep = hear(w, peer, MSG_STATUS_REPLY);
    return keep->status_reply;
}

#endif
