/* Whole rounds: what everybody hears, what ends up in the model and in the bank, that the order of arrival leaves no
 * trace, that nobody gets its own features, and that a restart changes nothing. */
#include "server/bank/bank.h"
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];

static int set_up(void **state)
{
    (void)state;
    world_init(&w);
    for (uint32_t i = 0; i < SITES; i++) {
        site_init(&sites[i], i);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SITES; i++) {
        site_fini(&sites[i]);
    }
    world_fini(&w);
    return 0;
}

static void hear_end(uint32_t peer, uint32_t round, bool counted, bool finished)
{
    struct msg end = hear(&w, peer, MSG_ROUND_END);
    assert_int_equal(end.round_end.round, round);
    assert_int_equal(end.round_end.counted, counted);
    assert_int_equal(end.round_end.finished, finished);
}

static void check_model_of(const struct checkpoint *before, uint32_t round, uint32_t count)
{
    double weight = 0;
    for (uint32_t s = 0; s < count; s++) {
        weight += (double)sites[s].offer.offer.report.images;
    }
    for (uint64_t i = 0; i < w.layout->total; i++) {
        double mean = 0;
        for (uint32_t s = 0; s < count; s++) {
            mean += (double)sites[s].offer.offer.report.images * (double)sites[s].update[i];
        }
        assert_true(fabs((double)w.disk.params[i] - ((double)before->params[i] + mean / weight)) < 1e-6);
    }
    assert_int_equal(w.disk.round, round);
    assert_memory_equal(coordinator_params(w.c), w.disk.params, (size_t)w.layout->total * sizeof(float));
}

static void check_model(const struct checkpoint *before, uint32_t round)
{
    check_model_of(before, round, 3);
}

static void three_sites_three_rounds(void **state)
{
    (void)state;
    world_start(&w);
    assert_string_equal(coordinator_phase(w.c), "WAITING");
    for (uint32_t s = 0; s < 3; s++) {
        struct msg welcome = greet(&w, &sites[s]);
        assert_int_equal(welcome.welcome.round, 0);
        assert_false(welcome.welcome.has_counted);
        assert_true(hash_equal(&welcome.welcome.run, &w.disk.run));
        assert_int_equal(welcome.welcome.idle_timeout_ms, IDLE_MS);
        say(&w, s, ready_of(&w));
    }
    for (uint32_t round = 1; round <= 3; round++) {
        assert_string_equal(coordinator_phase(w.c), "OPEN");
        struct checkpoint before = w.disk;
        before.params = copy_of(w.disk.params, (size_t)w.layout->total * sizeof(float));
        for (uint32_t s = 0; s < 3; s++) {
            struct msg msg = w.peers[s].inbox[0];
            assert_int_equal(msg.type, MSG_ROUND);
            assert_int_equal(msg.round.round, round);
            assert_int_equal(msg.round.remaining_ms, DEADLINE_MS);
            assert_int_equal(msg.round.has_remote, round > 1);
            deliver(&w, &sites[s]);
        }
        check_model(&before, round);
        mem_free(before.params);
        assert_int_equal(w.disk.counted_count, 3);
        assert_string_equal(w.disk.counted[0].name, "site-0");
        assert_int_equal(w.disk.counted[0].round, round);
        assert_int_equal(w.disk.summary.accepted, 3);
        assert_int_equal(w.disk.summary.images, 10 + 13 + 16);
        assert_true(fabs(w.disk.summary.loss - (10 * 1.0 + 13 * 1.1 + 16 * 1.2) / 39) < 1e-12);
        assert_int_equal(w.disk.summary.closed_unix_ms, UNIX_MS);
        assert_int_equal(w.disk.summary.bytes_up, 3 * (w.layout->total * 4 + ROWS * D * 4));
        for (uint32_t s = 0; s < 3; s++) {
            hear_end(s, round, true, round == 3);
        }
    }
    assert_string_equal(coordinator_phase(w.c), "DONE");
    assert_int_equal(coordinator_round(w.c), 3);
    assert_int_equal(w.saves, 3);

    /* Whoever comes now is told that the run is done. */
    struct msg welcome = greet(&w, &sites[3]);
    assert_int_equal(welcome.welcome.round, 3);
    say(&w, 3, ready_of(&w));
    hear_end(3, 3, false, true);
    assert_true(logged(&w, "done rounds=3"));
}

static void announced_only_when_durable(void **state)
{
    (void)state;
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
    deliver(&w, &sites[0]);
    deliver(&w, &sites[1]);
    w.hold_jobs = true;
    (void)hear(&w, 2, MSG_ROUND);
    train(&w, &sites[2], 1);
    say(&w, 2, sites[2].offer);
    answer_grants(&w, &sites[2]);
    run_job(&w); /* ABSORB */
    (void)hear(&w, 2, MSG_ACCEPTED);
    assert_string_equal(coordinator_phase(w.c), "AGGREGATING");
    run_job(&w); /* AGGREGATE */
    assert_string_equal(coordinator_phase(w.c), "SAVING");
    assert_int_equal(w.jobs[0]->kind, JOB_SAVE);
    assert_int_equal(coordinator_round(w.c), 0);
    for (uint32_t s = 0; s < 3; s++) {
        hear_nothing(&w, s); /* Not a word before the disk has it. */
    }
    assert_memory_equal(coordinator_params(w.c), w.disk.params, (size_t)w.layout->total * sizeof(float));
    run_job(&w); /* SAVE */
    for (uint32_t s = 0; s < 3; s++) {
        hear_end(s, 1, true, false);
        (void)hear(&w, s, MSG_ROUND);
    }
}

/* All six orders of arrival give the same checkpoint, byte for byte. */
static void the_order_of_arrival_leaves_no_trace(void **state)
{
    (void)state;
    static const uint32_t orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    struct checkpoint first = {0};
    for (uint32_t o = 0; o < 6; o++) {
        struct world *fresh = &w;
        if (o > 0) {
            world_fini(fresh);
            world_init(fresh);
        }
        world_start(fresh);
        for (uint32_t i = 0; i < 3; i++) { /* They also connect in this order. */
            join(fresh, &sites[orders[o][i]]);
        }
        for (uint32_t round = 1; round <= 3; round++) {
            for (uint32_t i = 0; i < 3; i++) {
                deliver(fresh, &sites[orders[o][(i + round) % 3]]);
            }
            for (uint32_t s = 0; s < 3; s++) {
                hear_end(s, round, true, round == 3);
            }
        }
        if (o == 0) {
            first = w.disk;
            memset(&w.disk, 0, sizeof w.disk);
            continue;
        }
        assert_memory_equal(w.disk.params, first.params, (size_t)w.layout->total * sizeof(float));
        assert_int_equal(w.disk.bank_len, first.bank_len);
        assert_memory_equal(w.disk.bank, first.bank, (size_t)first.bank_len);
        assert_memory_equal(w.disk.counted, first.counted, first.counted_count * sizeof *first.counted);
        assert_memory_equal(&w.disk.summary, &first.summary, sizeof first.summary);
    }
    disk_forget(&first);
}

/* ---- Remote features ---- */

/* How many of these rows are the site's own. */
static uint32_t count_own(const float *rows, uint64_t count, uint32_t number)
{
    uint32_t own = 0;
    for (uint64_t i = 0; i < count; i++) {
        own += (uint32_t)lrintf(rows[i * D] * 64) == number + 1;
    }
    return own;
}

static void nobody_gets_its_own_features(void **state)
{
    (void)state;
    uint32_t rows_seen = 0;
    for (uint64_t seed = 0; seed < 25; seed++) {
        world_fini(&w);
        world_init(&w);
        w.plan.seed = seed;
        w.plan.min_clients = 4;
        w.plan.fusion.remote = 1 + (uint32_t)seed;
        w.plan.fusion.enabled = seed % 2 == 0; /* Matching alone needs them as well. */
        world_start(&w);
        for (uint32_t s = 0; s < 4; s++) {
            join(&w, &sites[s]);
        }
        for (uint32_t round = 1; round <= 3; round++) {
            for (uint32_t s = 0; s < 4; s++) {
                struct msg msg = w.peers[s].inbox[0];
                assert_int_equal(msg.round.has_remote, round > 1);
                if (round > 1) {
                    struct blob blob = msg.round.remote;
                    struct msg head = hear(&w, s, MSG_ROUND);
                    uint8_t *data = fetch(&w, s, &blob, 0);
                    struct hash128 hash = hash_of(data, (size_t)blob.bytes);
                    assert_true(hash_equal(&hash, &blob.hash));
                    uint64_t rows = blob.count / D, others = 3 * ROWS * (round - 1); /* older ones stay within quota */
                    assert_int_equal(rows, w.plan.fusion.remote < others ? w.plan.fusion.remote : others);
                    assert_int_equal(count_own((const float *)(const void *)data, rows, s), 0);
                    rows_seen += (uint32_t)rows;
                    mem_free(data);
                    w.peers[s].inbox[w.peers[s].count++] = head;
                }
                deliver(&w, &sites[s]);
            }
            for (uint32_t s = 0; s < 4; s++) {
                hear_end(s, round, true, round == 3);
            }
        }
    }
    assert_true(rows_seen > 1000);
    /* The check finds what it looks for. */
    train(&w, &sites[2], 1);
    assert_int_equal(count_own(sites[2].features, ROWS, 2), ROWS);
    assert_int_equal(count_own(sites[2].features, ROWS, 1), 0);
}

/* Three sites, so that each has two others. Site 3 comes for round 3, and everybody has three from round 4 on; it too,
 * which has given none before. */
static void features_wait_for_contributors(void **state)
{
    (void)state;
    w.plan.rounds = 5;
    w.plan.fusion.min_contributors = 3;
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
    for (uint32_t round = 1; round <= 5; round++) {
        uint32_t here = round < 3 ? 3 : 4;
        for (uint32_t s = 0; s < here; s++) {
            struct msg msg = hear(&w, s, MSG_ROUND);
            assert_int_equal(msg.round.round, round);
            assert_int_equal(msg.round.has_remote, round >= 4);
        }
        if (round == 2) {
            join(&w, &sites[3]);
        }
        for (uint32_t s = 0; s < here; s++) {
            train(&w, &sites[s], round);
            say(&w, s, sites[s].offer);
            answer_grants(&w, &sites[s]);
            (void)hear(&w, s, MSG_ACCEPTED);
        }
        for (uint32_t s = 0; s < (round < 2 ? 3 : 4); s++) {
            hear_end(s, round, s < here, round == 5);
        }
    }
}

static void features_are_forgotten_after_their_time(void **state)
{
    (void)state;
    w.plan.rounds = 6;
    w.plan.fusion.ttl = 2;
    w.plan.fusion.remote = 8 * ROWS;
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
    for (uint32_t round = 1; round <= 6; round++) {
        uint32_t rounds = round - 1 < 2 ? round - 1 : 2; /* whose rows are handed out */
        for (uint32_t s = 0; s < 3; s++) {
            struct msg msg = hear(&w, s, MSG_ROUND);
            assert_int_equal(msg.round.has_remote ? msg.round.remote.count / D : 0, 2 * ROWS * rounds);
            train(&w, &sites[s], round);
            say(&w, s, sites[s].offer);
            answer_grants(&w, &sites[s]);
            (void)hear(&w, s, MSG_ACCEPTED);
        }
        for (uint32_t s = 0; s < 3; s++) {
            hear_end(s, round, true, round == 6);
        }
        struct bank *kept; /* nor does the disk hold older ones */
        assert_int_equal(bank_decode(w.disk.bank, w.disk.bank_len, 1000, D, &kept, NULL), 0);
        for (uint32_t r = 0; r < kept->rows; r++) {
            assert_true(kept->rounds[r] + 2 > round);
        }
        bank_free(kept);
    }
}

/* Site 1 says that it withholds its features; site 2 does not say so and gives none all the same. The others get what
 * site 0 and each other gave, and site 2 gets some again in the round after it has given. */
static void who_gives_none_gets_none(void **state)
{
    (void)state;
    w.plan.rounds = 5;
    w.plan.min_clients = 4;
    world_start(&w);
    for (uint32_t s = 0; s < 4; s++) {
        struct msg ready = ready_of(&w);
        ready.ready.withholds_features = s == 1;
        (void)greet(&w, &sites[s]);
        say(&w, s, ready);
    }
    for (uint32_t round = 1; round <= 5; round++) {
        for (uint32_t s = 0; s < 4; s++) {
            struct msg msg = hear(&w, s, MSG_ROUND);
            bool gets = round > 1 && s != 1 && (s != 2 || round == 5);
            assert_int_equal(msg.round.has_remote, gets);
            if (gets) {
                uint8_t *data = fetch(&w, s, &msg.round.remote, 0);
                uint64_t rows = msg.round.remote.count / D;
                assert_int_equal(count_own((const float *)(const void *)data, rows, 1), 0);
                mem_free(data);
            }
        }
        struct msg keep;
        struct msg_status_reply status = status_of(&w, &keep);
        for (uint32_t s = 0; s < 4; s++) {
            assert_int_equal(status.clients[s].withholds_features, s == 1 || (s == 2 && round > 1 && round < 5));
        }
        msg_fini(&keep);
        for (uint32_t s = 0; s < 4; s++) {
            train(&w, &sites[s], round);
            if (s == 1 || (s == 2 && round < 4)) {
                sites[s].rows = 0;
                describe_offer(&w, &sites[s], round);
            }
            say(&w, s, sites[s].offer);
            answer_grants(&w, &sites[s]);
            (void)hear(&w, s, MSG_ACCEPTED);
        }
        for (uint32_t s = 0; s < 4; s++) {
            hear_end(s, round, true, round == 5);
        }
    }
}

enum { JUDGED = 16 }; /* so many rows that the bank looks at them */

/* In directions that say whose they are, and of which round. */
static void make_rows(struct site *site, uint32_t owner, uint32_t round)
{
    struct rng rng;
    rng_init(&rng, owner, RNG_TEST, round, 1, 0);
    mem_free(site->features);
    site->features = mem_new_aligned((size_t)JUDGED * D, sizeof(float));
    site->rows = JUDGED;
    for (uint32_t i = 0; i < JUDGED; i++) {
        float *row = site->features + (size_t)i * D, length = 0;
        for (uint32_t d = 0; d < D; d++) {
            row[d] = rng_normal(&rng);
            length += row[d] * row[d];
        }
        for (uint32_t d = 0; d < D; d++) {
            row[d] /= sqrtf(length);
        }
    }
    describe_offer(&w, site, round);
}

/* How many rows of the bank are this owner's, and of this round. */
static uint32_t banked(const char *owner, uint32_t round)
{
    struct bank *bank;
    uint32_t found = 0;
    assert_int_equal(bank_decode(w.disk.bank, w.disk.bank_len, 1000, D, &bank, NULL), 0);
    for (uint32_t o = 0; o < bank->owners_count; o++) {
        const struct bank_owner *of = &bank->owners[o];
        for (uint32_t r = of->first; r < of->first + of->count && strcmp(of->name, owner) == 0; r++) {
            found += bank->rounds[r] == round;
        }
    }
    bank_free(bank);
    return found;
}

/* Site 3 hands on what site 1 gave a round before, in rounds 2, 3 and 5: its update counts, and its features are
 * nowhere. So it gets none before it has given its own, nor do the others, who need three that did; and the rows of
 * those have the bank to themselves. */
static void copied_features_are_dropped(void **state)
{
    (void)state;
    w.plan.rounds = 6;
    w.plan.min_clients = 4;
    w.plan.fusion.min_contributors = 3;
    w.plan.fusion.upload = JUDGED;
    w.options.bank_capacity = 3 * JUDGED;
    world_start(&w);
    for (uint32_t s = 0; s < 4; s++) {
        join(&w, &sites[s]);
    }
    for (uint32_t round = 1; round <= 6; round++) {
        bool copies = round == 2 || round == 3 || round == 5;
        struct checkpoint before = w.disk;
        before.params = copy_of(w.disk.params, (size_t)w.layout->total * sizeof(float));
        for (uint32_t s = 0; s < 4; s++) {
            assert_int_equal(hear(&w, s, MSG_ROUND).round.has_remote, round >= 5);
        }
        for (uint32_t s = 0; s < 4; s++) {
            train(&w, &sites[s], round);
            make_rows(&sites[s], s == 3 && copies ? 1 : s, s == 3 && copies ? round - 1 : round);
            sites[s].rows = s == 3 && round == 1 ? 0 : sites[s].rows;
            describe_offer(&w, &sites[s], round);
            say(&w, s, sites[s].offer);
            answer_grants(&w, &sites[s]);
            (void)hear(&w, s, MSG_ACCEPTED);
        }
        check_model_of(&before, round, 4);
        mem_free(before.params);
        assert_int_equal(w.disk.summary.accepted, 4);
        uint32_t quota = 3u * JUDGED / (round < 4 ? 3 : 4);
        assert_int_equal(banked("site-2", round), quota);
        assert_int_equal(banked("site-3", round), copies || round == 1 ? 0 : quota);
        char text[128];
        (void)snprintf(text, sizeof text, "features_copied name=site-3 round=%u rows=16 looked_at=16 near=%u", round,
                       quota);
        assert_int_equal(logged(&w, text), copies);
        for (uint32_t s = 0; s < 4; s++) {
            hear_end(s, round, true, round == 6);
        }
    }
    assert_false(logged(&w, "features_copied name=site-1"));
}

/* Site 3 comes in round 1 and takes part from round 2 on; what it offers does not count before round 4. The sample that
 * it does not get is not there to be fetched. (The mistake is planted in tests/sim.) */
static void who_never_gave_gets_none(void **state)
{
    (void)state;
    w.plan.rounds = 5;
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
    for (uint32_t round = 1; round <= 5; round++) {
        uint32_t here = round == 1 ? 3 : 4;
        for (uint32_t s = 0; s < here; s++) {
            assert_int_equal(hear(&w, s, MSG_ROUND).round.has_remote, round > 1 && (s != 3 || round == 5));
        }
        if (round == 3) {
            say(&w, 3, (struct msg){.type = MSG_FETCH, .fetch = {BLOB_REMOTE, 3, 0}});
            (void)hear_fault(&w, 3);
        }
        if (round == 1 || round == 3) {
            join(&w, &sites[3]);
        }
        if (round == 3) {
            assert_false(hear(&w, 3, MSG_ROUND).round.has_remote);
        }
        for (uint32_t s = 0; s < here; s++) {
            bool counts = s != 3 || round >= 4;
            train(&w, &sites[s], round);
            sites[s].offer.offer.report.images = counts ? 10 : 0;
            say(&w, s, sites[s].offer);
            if (counts) {
                answer_grants(&w, &sites[s]);
                (void)hear(&w, s, MSG_ACCEPTED);
            } else {
                (void)hear_declined(&w, s, DECLINE_WEIGHT);
            }
        }
        for (uint32_t s = 0; s < 4; s++) {
            hear_end(s, round, s < here && (s != 3 || round >= 4), round == 5);
        }
    }
}

static void a_sample_cannot_be_fetched_by_who_gives_none(void **state)
{
    (void)state;
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        struct msg ready = ready_of(&w);
        ready.ready.withholds_features = s == 1;
        (void)greet(&w, &sites[s]);
        say(&w, s, ready);
    }
    for (uint32_t s = 0; s < 3; s++) {
        deliver(&w, &sites[s]);
    }
    hear_end(1, 1, true, false);
    assert_false(hear(&w, 1, MSG_ROUND).round.has_remote);
    say(&w, 1, (struct msg){.type = MSG_FETCH, .fetch = {BLOB_REMOTE, 2, 0}});
    (void)hear_fault(&w, 1);
}

static void no_features_without_fusion_and_matching(void **state)
{
    (void)state;
    w.plan.fusion.enabled = w.plan.matching.enabled = false;
    w.plan.min_clients = 1;
    world_start(&w);
    join(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], 1);
    say(&w, 0, sites[0].offer);
    (void)hear_declined(&w, 0, DECLINE_FEATURES);
    sites[0].rows = 0;
    describe_offer(&w, &sites[0], 1);
    say(&w, 0, sites[0].offer);
    answer_grants(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ACCEPTED);
    hear_end(0, 1, true, false);
    struct msg round = hear(&w, 0, MSG_ROUND);
    assert_false(round.round.has_remote);
    say(&w, 0, (struct msg){.type = MSG_FETCH, .fetch = {BLOB_REMOTE, 2, 0}});
    (void)hear_fault(&w, 0);
}

/* ---- Downloads ---- */

static void a_large_model_comes_in_chunks_and_can_be_resumed(void **state)
{
    (void)state;
    w.plan.model = (struct model_spec){.stages = 2, .blocks = {1, 1}, .width = 64, .input = 8, .features = D};
    w.plan.min_clients = 1;
    world_start(&w);
    join(&w, &sites[0]);
    struct blob blob = hear(&w, 0, MSG_ROUND).round.model;
    assert_true(blob.bytes > FRAME_CHUNK_MAX);
    uint8_t *data = fetch(&w, 0, &blob, 0);
    assert_memory_equal(data, coordinator_params(w.c), (size_t)blob.bytes);
    struct hash128 hash = hash_of(data, (size_t)blob.bytes);
    assert_true(hash_equal(&hash, &blob.hash));
    mem_free(data);

    /* One chunk is under way at a time, by reference, whatever the client asks for. */
    w.hold_drained = true;
    struct msg ask = {.type = MSG_FETCH};
    ask.fetch = (struct msg_fetch){BLOB_MODEL, 1, 0};
    say(&w, 0, ask);
    say(&w, 0, ask);
    ask.fetch.offset = 100;
    say(&w, 0, ask);
    assert_int_equal(w.peers[0].count, 1);
    struct msg chunk = hear(&w, 0, MSG_CHUNK);
    assert_ptr_equal(chunk.raw, coordinator_params(w.c));
    msg_fini(&chunk);
    drain(&w, 0);
    chunk = hear(&w, 0, MSG_CHUNK);
    assert_int_equal(chunk.chunk.offset, 100); /* the latest wish */
    msg_fini(&chunk);
    w.hold_drained = false;
    drain(&w, 0);
    (void)pass_over(&w, 0, MSG_CHUNK);

    /* A lost connection: from where it was. */
    lose(&w, 0);
    join(&w, &sites[0]);
    struct blob again = hear(&w, 0, MSG_ROUND).round.model;
    assert_true(hash_equal(&again.hash, &blob.hash));
    data = fetch(&w, 0, &again, FRAME_CHUNK_MAX);
    assert_memory_equal(data + FRAME_CHUNK_MAX, (const uint8_t *)coordinator_params(w.c) + FRAME_CHUNK_MAX,
                        (size_t)(blob.bytes - FRAME_CHUNK_MAX));
    mem_free(data);
    ask.fetch.offset = blob.bytes; /* It has everything. */
    say(&w, 0, ask);
    hear_nothing(&w, 0);
    ask.fetch.round = 2; /* Not open. */
    say(&w, 0, ask);
    hear_nothing(&w, 0);
    ask.fetch = (struct msg_fetch){BLOB_MODEL, 1, blob.bytes + 1};
    say(&w, 0, ask);
    (void)hear_fault(&w, 0);
    join(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ROUND);
    ask.fetch = (struct msg_fetch){BLOB_UPDATE, 1, 0};
    say(&w, 0, ask);
    (void)hear_fault(&w, 0);
}

/* Rows of 32 bytes, more than a MiB of them: chunks end within rows, and a resume may begin within one. */
static void remote_rows_are_cut_anywhere(void **state)
{
    (void)state;
    enum { MANY = 40000 };
    w.plan.min_clients = 2;
    w.plan.fusion.upload = w.plan.fusion.remote = MANY;
    w.options.bank_capacity = 2 * MANY;
    world_start(&w);
    for (uint32_t s = 0; s < 2; s++) {
        join(&w, &sites[s]);
    }
    for (uint32_t s = 0; s < 2; s++) {
        (void)hear(&w, s, MSG_ROUND);
        train(&w, &sites[s], 1);
        mem_free(sites[s].features);
        sites[s].features = mem_new((size_t)MANY * D, sizeof(float));
        sites[s].rows = MANY;
        struct rng rng;
        rng_init(&rng, s, RNG_TEST, 0, 0, 0);
        for (uint32_t i = 0; i < MANY; i++) {
            float *row = sites[s].features + (size_t)i * D;
            float length = 0;
            for (uint32_t d = 1; d < D; d++) { /* Rows of many directions: repeats would be dropped. */
                row[d] = rng_range(&rng, -1, 1);
                length += row[d] * row[d];
            }
            row[0] = (float)(s + 1) / 64;
            for (uint32_t d = 1; d < D; d++) {
                row[d] *= sqrtf((1 - row[0] * row[0]) / length);
            }
        }
        describe_offer(&w, &sites[s], 1);
        say(&w, s, sites[s].offer);
        answer_grants(&w, &sites[s]);
        (void)hear(&w, s, MSG_ACCEPTED);
    }
    hear_end(0, 1, true, false);
    struct blob blob = hear(&w, 0, MSG_ROUND).round.remote;
    assert_int_equal(blob.bytes, MANY * D * 4);
    uint8_t *whole = fetch(&w, 0, &blob, 0), *rest = fetch(&w, 0, &blob, 13);
    struct hash128 hash = hash_of(whole, (size_t)blob.bytes);
    assert_true(hash_equal(&hash, &blob.hash));
    assert_memory_equal(whole + 13, rest + 13, (size_t)blob.bytes - 13);
    assert_int_equal(count_own((const float *)(const void *)whole, MANY, 0), 0);
    mem_free(whole);
    mem_free(rest);
}

/* ---- Crash and restart ---- */

enum disturbance { CALM, SAVE_FAILS, KILLED, MOMENTUM_FORGOTTEN, DISTURBANCES };

/* Three rounds with momentum. The third has a save that fails three times, or the server is killed before it; planted
 * is a restart that does not find the momentum. */
static void three_rounds_with_momentum(enum disturbance disturbance)
{
    w.plan.aggregation.optimizer = AGGREGATION_MOMENTUM;
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
    for (uint32_t round = 1; round <= 3; round++) {
        size_t bytes = (size_t)w.layout->trainable_end * sizeof(float);
        struct checkpoint before = w.disk;
        before.params = copy_of(w.disk.params, (size_t)w.layout->total * sizeof(float));
        if (round == 3 && disturbance >= KILLED) {
            world_crash(&w);
            assert_int_equal(w.disk.optimiser_len, bytes);
            if (disturbance == MOMENTUM_FORGOTTEN) {
                memset(w.disk.optimiser, 0, bytes);
            }
            world_start(&w);
            for (uint32_t s = 0; s < 3; s++) {
                join(&w, &sites[s]);
            }
        }
        w.save_result = round == 3 && disturbance == SAVE_FAILS ? ERR_FULL : 0;
        for (uint32_t s = 0; s < 3; s++) {
            deliver(&w, &sites[s]);
        }
        if (w.save_result) {
            advance(&w, 1000 + 2000);
            assert_int_equal(w.failures, 3);
            w.save_result = 0;
            advance(&w, 4000);
        }
        if (round == 1) { /* the momentum begins at zero */
            check_model(&before, 1);
        }
        mem_free(before.params);
        for (uint32_t s = 0; s < 3; s++) {
            hear_end(s, round, true, round == 3);
        }
    }
    assert_int_equal(w.disk.round, 3);
}

static void momentum_is_durable_and_counts_once(void **state)
{
    (void)state;
    struct checkpoint calm = {0};
    for (enum disturbance disturbance = CALM; disturbance < DISTURBANCES; disturbance++) {
        three_rounds_with_momentum(disturbance);
        if (disturbance == CALM) {
            calm = w.disk;
            memset(&w.disk, 0, sizeof w.disk);
        } else {
            bool same = memcmp(w.disk.params, calm.params, (size_t)w.layout->total * sizeof(float)) == 0 &&
                        memcmp(w.disk.optimiser, calm.optimiser, (size_t)calm.optimiser_len) == 0;
            assert_int_equal(same, disturbance < MOMENTUM_FORGOTTEN);
        }
        world_fini(&w);
        world_init(&w);
    }
    disk_forget(&calm);
}

static void a_state_of_another_optimiser_is_refused(void **state)
{
    (void)state;
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        join(&w, &sites[s]);
    }
    for (uint32_t s = 0; s < 3; s++) {
        deliver(&w, &sites[s]);
    }
    assert_int_equal(w.disk.optimiser_len, 0); /* none: no bytes */
    world_crash(&w);
    w.plan.aggregation.optimizer = AGGREGATION_ADAM;
    struct err err;
    assert_int_equal(coordinator_new(&w.options, &w.disk, NULL, 0, w.now, &w.c, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "aggregation.optimizer"));
    assert_null(w.c);
    w.plan.aggregation.optimizer = AGGREGATION_NONE;
}

/* Killed while round 2 is open and half delivered: nothing of it is left, the sites offer again what they have, and the
 * end is the same as without the crash. */
static void a_restart_changes_nothing(void **state)
{
    (void)state;
    struct checkpoint undisturbed = {0};
    for (int crash = 0; crash < 2; crash++) {
        if (crash) {
            world_fini(&w);
            world_init(&w);
        }
        world_start(&w);
        for (uint32_t s = 0; s < 3; s++) {
            join(&w, &sites[s]);
        }
        for (uint32_t s = 0; s < 3; s++) {
            deliver(&w, &sites[s]);
        }
        struct blob remote = {0};
        for (uint32_t s = 0; s < 3; s++) {
            hear_end(s, 1, true, false);
        }
        remote = w.peers[1].inbox[0].round.remote;
        deliver(&w, &sites[0]);
        if (crash) {
            world_crash(&w);
            world_start(&w);
            assert_int_equal(coordinator_round(w.c), 1);
            for (uint32_t s = 0; s < 3; s++) {
                struct msg welcome = greet(&w, &sites[s]);
                assert_true(welcome.welcome.has_counted);
                assert_int_equal(welcome.welcome.counted_round, 1);
                say(&w, s, ready_of(&w));
            }
            struct msg round = hear(&w, 0, MSG_ROUND); /* It has its contribution still, and offers it again. */
            assert_int_equal(round.round.round, 2);
            say(&w, 0, sites[0].offer);
            answer_grants(&w, &sites[0]);
            (void)hear(&w, 0, MSG_ACCEPTED);
            struct blob again = w.peers[1].inbox[0].round.remote;
            assert_memory_equal(&again, &remote, sizeof remote); /* the same sample */
        }
        deliver(&w, &sites[1]);
        deliver(&w, &sites[2]);
        for (uint32_t s = 0; s < 3; s++) {
            hear_end(s, 2, true, false);
        }
        if (!crash) {
            undisturbed = w.disk;
            memset(&w.disk, 0, sizeof w.disk);
        }
    }
    assert_int_equal(w.disk.round, 2);
    assert_memory_equal(w.disk.params, undisturbed.params, (size_t)w.layout->total * sizeof(float));
    assert_memory_equal(w.disk.bank, undisturbed.bank, (size_t)undisturbed.bank_len);
    disk_forget(&undisturbed);
}

/* A contribution that comes before its round is open (others are still missing) waits for it. */
static void an_offer_may_come_before_its_round(void **state)
{
    (void)state;
    world_start(&w);
    join(&w, &sites[0]);
    train(&w, &sites[0], 1);
    say(&w, 0, sites[0].offer);
    assert_int_equal(hear(&w, 0, MSG_QUEUED).queued.place, 1);
    join(&w, &sites[1]);
    hear_nothing(&w, 0);
    join(&w, &sites[2]);
    (void)hear(&w, 0, MSG_ROUND);
    answer_grants(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ACCEPTED);
}

/* After a restart the round opens with whoever is there; one that comes later with its work done is let in. */
static void a_late_one_with_its_work_done_joins(void **state)
{
    (void)state;
    w.plan.min_clients = 2;
    world_start(&w);
    join(&w, &sites[0]);
    join(&w, &sites[1]);
    join(&w, &sites[2]);
    hear_nothing(&w, 2);
    train(&w, &sites[2], 1);
    say(&w, 2, sites[2].offer);
    answer_grants(&w, &sites[2]);
    (void)hear(&w, 2, MSG_ACCEPTED);
    deliver(&w, &sites[0]);
    deliver(&w, &sites[1]);
    hear_end(2, 1, true, false);
    assert_int_equal(w.disk.counted_count, 3);
}

static void clients_per_round_holds_for_offers_too(void **state)
{
    (void)state;
    w.plan.min_clients = 2;
    w.plan.clients_per_round = 2;
    world_start(&w);
    for (uint32_t s = 0; s < 3; s++) {
        train(&w, &sites[s], 1);
    }
    join(&w, &sites[0]);
    say(&w, 0, sites[0].offer);
    (void)hear(&w, 0, MSG_QUEUED);
    join(&w, &sites[1]);
    (void)hear(&w, 0, MSG_ROUND);
    join(&w, &sites[2]);
    say(&w, 2, sites[2].offer);
    (void)hear_declined(&w, 2, DECLINE_NOT_SELECTED);
    answer_grants(&w, &sites[0]);
    (void)hear(&w, 0, MSG_ACCEPTED);
}

static void done_at_start(void **state)
{
    (void)state;
    w.plan.rounds = 1;
    w.plan.min_clients = 1;
    world_start(&w);
    join(&w, &sites[0]);
    deliver(&w, &sites[0]);
    hear_end(0, 1, true, true);
    world_crash(&w);
    world_start(&w);
    assert_string_equal(coordinator_phase(w.c), "DONE");
    join(&w, &sites[0]);
    hear_end(0, 1, true, true);
    struct msg keep;
    struct msg_status_reply status = status_of(&w, &keep);
    assert_string_equal(status.state, "DONE");
    assert_int_equal(status.history_count, 1);
    msg_fini(&keep);
}

int main(int argc, char **argv)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(three_sites_three_rounds),
        TEST(announced_only_when_durable),
        TEST(the_order_of_arrival_leaves_no_trace),
        TEST(nobody_gets_its_own_features),
        TEST(features_wait_for_contributors),
        TEST(features_are_forgotten_after_their_time),
        TEST(who_gives_none_gets_none),
        TEST(copied_features_are_dropped),
        TEST(who_never_gave_gets_none),
        TEST(a_sample_cannot_be_fetched_by_who_gives_none),
        TEST(no_features_without_fusion_and_matching),
        TEST(a_large_model_comes_in_chunks_and_can_be_resumed),
        TEST(remote_rows_are_cut_anywhere),
        TEST(a_restart_changes_nothing),
        TEST(momentum_is_durable_and_counts_once),
        TEST(a_state_of_another_optimiser_is_refused),
        TEST(an_offer_may_come_before_its_round),
        TEST(a_late_one_with_its_work_done_joins),
        TEST(clients_per_round_holds_for_offers_too),
        TEST(done_at_start),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
