/* Want of memory: every allocation of a whole run fails once, and the run comes to the same end. Whoever it hits is
 * closed and comes back; nothing is lost, nothing counts twice, and nothing leaks. */
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];

/* From the step or job number `strike_from` on, allocation number `strike_at` fails, and all later ones of that step or
 * job; once. 0: never. */
static uint64_t strike_at, strike_from, calls;
static bool struck;

static bool strike(void)
{
    bool now = strike_at > 0 && !struck && ++calls >= strike_from;
    if (now) {
        mem_fail_after(strike_at);
    }
    return now;
}

/* A site that helps itself: it connects, answers what it hears, and begins again when it was closed. */
struct mind {
    bool connected, has_trained, ended;
    uint32_t trained, counted;
    uint64_t retry_ms;
};
static struct mind minds[SITES];

/* One step of the coordinator in which the countdown may strike. Like the shell, this closes the event's peer when the
 * step says that there was no memory. */
static void step(struct event event)
{
    event.unix_ms = UNIX_MS;
    (void)strike();
    int rc = coordinator_step(w.c, &event, w.now, &w.actions);
    mem_fail_after(0);
    struck |= rc == ERR_NOMEM;
    for (size_t i = 0; i < w.actions.count; i++) {
        struct action *action = &w.actions.items[i];
        if (action->kind == ACTION_SEND) {
            take_send(&w, action);
        } else if (action->kind == ACTION_CLOSE) {
            w.peers[action->peer].closing = true;
        } else if (action->kind == ACTION_JOB) {
            w.jobs[w.jobs_count++] = action->job;
        } else {
            w.exited = true;
        }
    }
    actions_clear(&w.actions);
    if (rc == ERR_NOMEM && event.kind <= EVENT_PEER_DRAINED && w.peers[event.peer].open) {
        w.peers[event.peer].closing = true;
    }
}

static void react(uint32_t s)
{
    struct mind *mind = &minds[s];
    struct msg msg = take_first(&w.peers[s]), reply = {0};
    switch (msg.type) {
    case MSG_WELCOME:
        if (msg.welcome.has_counted) {
            mind->counted = msg.welcome.counted_round;
        }
        reply = ready_of(&w);
        break;
    case MSG_ROUND:
        if (mind->trained != msg.round.round) {
            train(&w, &sites[s], msg.round.round);
            mind->trained = msg.round.round;
        }
        reply = sites[s].offer;
        break;
    case MSG_ROUND_END:
        if (msg.round_end.counted) {
            mind->counted = msg.round_end.round;
        }
        mind->ended = msg.round_end.finished;
        break;
    case MSG_GRANT: {
        const uint8_t *data = travels(&sites[s], msg.grant.kind);
        const struct blob *blob =
            msg.grant.kind == BLOB_UPDATE ? &sites[s].offer.offer.update : &sites[s].offer.offer.features;
        reply.type = MSG_CHUNK;
        reply.chunk = (struct msg_chunk){msg.grant.kind, msg.grant.round, msg.grant.offset};
        reply.raw = data + msg.grant.offset;
        reply.raw_len = (uint32_t)(blob->bytes - msg.grant.offset);
        break;
    }
    default:
        break;
    }
    msg_fini(&msg);
    if (reply.type) {
        step((struct event){.kind = EVENT_PEER_MESSAGE, .peer = s, .message = &reply});
    }
}

/* One thing that happens next; false: nothing is left to happen before the clock moves. */
static bool happen(void)
{
    for (uint32_t s = 0; s < 3; s++) {
        struct connection *peer = &w.peers[s];
        if (peer->open && peer->closing) {
            peer->open = minds[s].connected = false;
            minds[s].retry_ms = w.now + 500;
            step((struct event){.kind = EVENT_PEER_CLOSED, .peer = s});
            return true;
        }
        if (peer->open && peer->count > 0) {
            react(s);
            return true;
        }
        if (peer->open && peer->undrained) {
            peer->undrained = false;
            step((struct event){.kind = EVENT_PEER_DRAINED, .peer = s});
            return true;
        }
        if (!peer->open && !minds[s].ended && w.now >= minds[s].retry_ms) {
            while (peer->count > 0) {
                struct msg msg = take_first(peer);
                msg_fini(&msg);
            }
            *peer = (struct connection){.open = true};
            step((struct event){.kind = EVENT_PEER_OPENED, .peer = s, .address = "10.0.0.1:1"});
            struct msg hello = hello_of(&sites[s]);
            step((struct event){.kind = EVENT_PEER_MESSAGE, .peer = s, .message = &hello});
            return true;
        }
    }
    if (w.jobs_count > 0) {
        struct job *job = w.jobs[0];
        w.jobs_count--;
        memmove(w.jobs, w.jobs + 1, w.jobs_count * sizeof(struct job *));
        if (job->kind == JOB_SAVE) {
            disk_keep(&w, &job->checkpoint);
            w.saves++;
        } else {
            struck |= strike(); /* Whether it hit can be seen by what follows only. */
            job_run(job);
            mem_fail_after(0);
        }
        step((struct event){.kind = EVENT_JOB_DONE, .job = job});
        return true;
    }
    return false;
}

/* A run of two rounds. */
static void run(uint32_t form, uint64_t at, uint64_t from)
{
    world_init(&w);
    w.plan.wire.update = w.plan.wire.features = form;
    w.plan.rounds = 2;
    w.plan.aggregation.optimizer = AGGREGATION_MOMENTUM;
    w.options.upload_slots = 2;
    memset(minds, 0, sizeof minds);
    world_start(&w);
    strike_at = at;
    strike_from = from;
    calls = 0;
    struck = false;
    for (uint32_t i = 0; strcmp(coordinator_phase(w.c), "DONE") != 0; i++) {
        if (i >= 20000) {
            fail_msg("allocation %u of call %u: no end, in %s, after\n%.3000s", (unsigned)at, (unsigned)from,
                     coordinator_phase(w.c), (const char *)w.lines.data + (w.lines.len > 700 ? w.lines.len - 700 : 0));
        }
        if (!happen()) {
            uint64_t next = coordinator_next_ms(w.c);
            for (uint32_t s = 0; s < 3; s++) {
                if (!w.peers[s].open && minds[s].retry_ms < next) {
                    next = minds[s].retry_ms;
                }
            }
            assert_true(next != UINT64_MAX);
            w.now = next > w.now ? next : w.now + 1;
            step((struct event){.kind = EVENT_TICK});
        }
    }
    assert_int_equal(w.saves, 2);
    assert_int_equal(w.disk.round, 2);
    assert_int_equal(w.disk.counted_count, 3);
}

static void fail_each_allocation_once(uint32_t form)
{
    for (uint32_t s = 0; s < 3; s++) {
        site_init(&sites[s], s);
    }
    run(form, 0, 0);
    struct checkpoint undisturbed = w.disk;
    memset(&w.disk, 0, sizeof w.disk);
    world_fini(&w);
    uint32_t hit = 0;
    for (uint64_t from = 1; from < 90; from += from < 30 ? 1 : 3) {
        for (uint64_t at = 1; at <= 5; at++) {
            run(form, at, from);
            hit += struck;
            assert_memory_equal(w.disk.params, undisturbed.params, (size_t)w.layout->total * sizeof(float));
            assert_int_equal(w.disk.bank_len, undisturbed.bank_len);
            assert_memory_equal(w.disk.bank, undisturbed.bank, (size_t)undisturbed.bank_len);
            assert_memory_equal(w.disk.optimiser, undisturbed.optimiser, (size_t)undisturbed.optimiser_len);
            world_fini(&w);
        }
    }
    assert_true(hit > 50);
    disk_forget(&undisturbed);
    for (uint32_t s = 0; s < 3; s++) {
        site_fini(&sites[s]);
    }
}

static void every_allocation_may_fail_once(void **state)
{
    (void)state;
    fail_each_allocation_once(QUANT_F32);
    fail_each_allocation_once(QUANT_INT8);
}

static void a_start_without_memory_says_so(void **state)
{
    (void)state;
    world_init(&w);
    w.plan.aggregation.optimizer = AGGREGATION_ADAM;
    world_start(&w);
    struct coordinator *c = NULL;
    struct err err;
    uint64_t n = 0;
    struct checkpoint from = w.disk;
    struct counted counted = {"site-1", 0};
    from.counted = &counted;
    from.counted_count = 1;
    while (!c) {
        mem_fail_after(++n);
        int rc = coordinator_new(&w.options, &from, NULL, 0, 0, &c, &err);
        mem_fail_after(0);
        assert_int_equal(rc, c ? 0 : ERR_NOMEM);
    }
    assert_true(n > 10);
    coordinator_free(c);
    world_fini(&w);
}

/* The shell's promise and ours: a STATUS that does not fit closes the operator, and nobody else. */
static void only_the_one_it_hits_is_closed(void **state)
{
    (void)state;
    world_init(&w);
    w.plan.min_clients = 2;
    world_start(&w);
    for (uint32_t s = 0; s < 2; s++) {
        site_init(&sites[s], s);
        join(&w, &sites[s]);
    }
    struct msg keep;
    (void)status_of(&w, &keep);
    msg_fini(&keep);
    struct msg ask = {.type = MSG_STATUS, .status = {.history = 5}};
    mem_fail_after(1);
    struct event event = {.kind = EVENT_PEER_MESSAGE, .peer = PEERS - 1, .message = &ask};
    int rc = coordinator_step(w.c, &event, w.now, &w.actions);
    mem_fail_after(0);
    assert_int_equal(rc, ERR_NOMEM);
    for (size_t i = 0; i < w.actions.count; i++) {
        assert_int_equal(w.actions.items[i].peer, PEERS - 1);
    }
    actions_clear(&w.actions);
    assert_true(logged(&w, "out_of_memory"));
    world_step(&w, (struct event){.kind = EVENT_PEER_CLOSED, .peer = PEERS - 1});
    deliver(&w, &sites[0]);
    deliver(&w, &sites[1]);
    assert_int_equal(w.disk.round, 1);
    world_fini(&w);
    site_fini(&sites[0]);
    site_fini(&sites[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail_once),
        cmocka_unit_test(a_start_without_memory_says_so),
        cmocka_unit_test(only_the_one_it_hits_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
