/* Who takes part, when a round closes, and what never happens whatever comes. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "server/round/round.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define DEADLINE 1000u

static uint64_t now;
static struct round_options options;

static int reset(void **state)
{
    (void)state;
    now = 5000;
    options = (struct round_options){.rounds = 10,
                                     .min_clients = 2,
                                     .deadline_ms = DEADLINE,
                                     .drain_ms = 50,
                                     .seed = 7,
                                     .weight_cap = 100,
                                     .weight_max = 1000};
    return 0;
}

static uint32_t step(struct round *round, enum round_event_kind kind, uint32_t member)
{
    struct round_event event = {kind, member};
    return round_step(round, &event, now);
}

static void start(struct round *round, uint32_t members)
{
    round_init(round, &options, 0, now);
    for (uint32_t i = 0; i < members; i++) {
        assert_int_equal(round_member_add(round, i), 0);
    }
}

/* Opens with members 0 and 1; others are there, not ready. */
static void open_two(struct round *round, uint32_t members)
{
    start(round, members);
    assert_int_equal(step(round, ROUND_READY, 0), 0);
    assert_int_equal(step(round, ROUND_READY, 1), ROUND_DO_OPEN | ROUND_DO_INVITE);
}

static void a_round_closes_when_all_have_delivered(void **state)
{
    (void)state;
    options.min_clients = 3;
    struct round round;
    start(&round, 3);
    (void)step(&round, ROUND_READY, 0);
    (void)step(&round, ROUND_READY, 1);
    assert_int_equal(step(&round, ROUND_READY, 2), ROUND_DO_OPEN | ROUND_DO_INVITE);
    assert_int_equal(step(&round, ROUND_DELIVERED, 2), 0);
    assert_int_equal(step(&round, ROUND_DELIVERED, 0), 0);
    assert_int_equal(step(&round, ROUND_DELIVERED, 0), 0); /* Twice is once. */
    assert_int_equal(round.phase, ROUND_OPEN);
    assert_int_equal(step(&round, ROUND_DELIVERED, 1), ROUND_DO_AGGREGATE);
    round_fini(&round);
}

static void a_lost_participant_is_waited_for_and_invited_again(void **state)
{
    (void)state;
    struct round round;
    open_two(&round, 2);
    (void)step(&round, ROUND_LOST, 1);
    assert_int_equal(step(&round, ROUND_DELIVERED, 0), 0);
    assert_int_equal(round_next_ms(&round), now + DEADLINE / 10);
    now += DEADLINE / 10 - 1;
    assert_int_equal(step(&round, ROUND_TICK, 0), 0);
    assert_true(round_owes(&round, 1));
    assert_int_equal(step(&round, ROUND_READY, 1), ROUND_DO_INVITE);
    assert_int_equal(round.invited_count, 1);
    assert_int_equal(round.invited[0], 1);
    assert_int_equal(step(&round, ROUND_DELIVERED, 1), ROUND_DO_AGGREGATE);
    round_fini(&round);
}

static void an_absent_participant_does_not_hold_the_round(void **state)
{
    (void)state;
    struct round round;
    /* Three take part, two are needed. */
    options.min_clients = 3;
    start(&round, 3);
    for (uint32_t i = 0; i < 3; i++) {
        (void)step(&round, ROUND_READY, i);
    }
    round.options.min_clients = 2;
    (void)step(&round, ROUND_LOST, 2);
    (void)step(&round, ROUND_DELIVERED, 0);
    assert_int_equal(step(&round, ROUND_DELIVERED, 1), 0);
    now += DEADLINE / 10;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_AGGREGATE);
    round_fini(&round);
}

/* A site whose certificate was revoked must not hold up the others until it counts as absent. */
static void nobody_waits_for_one_that_was_barred(void **state)
{
    (void)state;
    struct round round;
    options.min_clients = 3;
    start(&round, 3);
    for (uint32_t i = 0; i < 3; i++) {
        (void)step(&round, ROUND_READY, i);
    }
    round.options.min_clients = 2;
    (void)step(&round, ROUND_DELIVERED, 0);
    assert_int_equal(step(&round, ROUND_BARRED, 2), 0);
    assert_false(round_owes(&round, 2));
    assert_int_equal(step(&round, ROUND_READY, 2), ROUND_DO_INVITE); /* It was let in anew. */
    assert_true(round_owes(&round, 2));
    assert_int_equal(step(&round, ROUND_DELIVERED, 1), 0);
    assert_int_equal(step(&round, ROUND_BARRED, 2), ROUND_DO_AGGREGATE);
    round_fini(&round);
}

static void an_absent_one_that_comes_back_counts_again(void **state)
{
    (void)state;
    struct round round;
    open_two(&round, 2);
    (void)step(&round, ROUND_LOST, 1);
    now += DEADLINE / 2;
    (void)step(&round, ROUND_TICK, 0);
    assert_false(round_owes(&round, 1));
    assert_int_equal(step(&round, ROUND_DELIVERED, 0), 0); /* One of two: not enough to close. */
    assert_int_equal(step(&round, ROUND_READY, 1), ROUND_DO_INVITE);
    assert_true(round_owes(&round, 1));
    round_fini(&round);
}

static void the_deadline_closes_with_enough_and_extends_without(void **state)
{
    (void)state;
    struct round round;
    open_two(&round, 4);
    assert_int_equal(step(&round, ROUND_READY, 2), 0); /* A late joiner gets the next round. */
    assert_false(round.members[2].participant);
    (void)step(&round, ROUND_DELIVERED, 0);
    assert_int_equal(round_next_ms(&round), 5000 + DEADLINE);
    now = 5000 + DEADLINE;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_EXTEND | ROUND_DO_INVITE);
    assert_int_equal(round.extensions, 1);
    assert_int_equal(round.deadline_ms, now + DEADLINE);
    assert_int_equal(round.invited_count, 1);
    assert_int_equal(round.invited[0], 2); /* Now it is let in. */
    (void)step(&round, ROUND_DELIVERED, 2);
    assert_int_equal(round.phase, ROUND_OPEN);
    now += DEADLINE;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_AGGREGATE); /* 1 still owes; two are enough. */
    round_fini(&round);
}

static void an_extension_drops_the_absent(void **state)
{
    (void)state;
    struct round round;
    open_two(&round, 2);
    (void)step(&round, ROUND_LOST, 1);
    now += DEADLINE;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_EXTEND);
    assert_false(round.members[1].participant);
    assert_true(round.members[0].participant);
    /* It comes back as a late joiner, and is admitted at once, since one alone cannot close the round. */
    assert_int_equal(step(&round, ROUND_READY, 1), ROUND_DO_INVITE);
    assert_true(round.members[1].participant);
    round_fini(&round);
}

static void late_joiners_are_admitted_when_the_rest_cannot_be_enough(void **state)
{
    (void)state;
    struct round round;
    open_two(&round, 4);
    (void)step(&round, ROUND_READY, 3);
    (void)step(&round, ROUND_LOST, 0);
    assert_false(round.members[3].participant);
    now += DEADLINE / 10;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_INVITE);
    assert_int_equal(round.invited_count, 1);
    assert_int_equal(round.invited[0], 3);
    (void)step(&round, ROUND_DELIVERED, 3);
    assert_int_equal(step(&round, ROUND_DELIVERED, 1), ROUND_DO_AGGREGATE);
    round_fini(&round);
}

static void a_declined_one_is_not_waited_for_and_is_asked_again_at_the_deadline(void **state)
{
    (void)state;
    struct round round;
    open_two(&round, 3);
    (void)step(&round, ROUND_DELIVERED, 0);
    (void)step(&round, ROUND_DECLINED, 1);
    assert_false(round_owes(&round, 1));
    assert_int_equal(step(&round, ROUND_READY, 2), ROUND_DO_INVITE); /* 0 alone is not enough. */
    now += DEADLINE;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_EXTEND | ROUND_DO_INVITE);
    assert_int_equal(round.invited_count, 1);
    assert_int_equal(round.invited[0], 1);
    (void)step(&round, ROUND_DELIVERED, 1); /* A good one after a bad one counts. */
    assert_int_equal(round_count(&round).delivered, 2);
    round_fini(&round);
}

/* It uploads again when the deadline comes: what gets into the sum must be counted, so it may not be dropped. */
static void a_declined_one_that_offers_again_is_waited_for(void **state)
{
    (void)state;
    options.clients_per_round = 2;
    struct round round;
    open_two(&round, 4);
    (void)step(&round, ROUND_DECLINED, 1);
    assert_false(round_owes(&round, 1));
    (void)step(&round, ROUND_OFFERED, 1);
    assert_true(round_owes(&round, 1));
    (void)step(&round, ROUND_READY, 2);
    (void)step(&round, ROUND_READY, 3);
    now += DEADLINE;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_EXTEND);
    assert_true(round.members[1].participant);
    round_fini(&round);
}

/* What would come again as it was is not asked for again: not at a deadline, nor when seats are free. */
static void the_refused_are_not_asked_again_and_the_round_says_that_it_is_stuck(void **state)
{
    (void)state;
    struct round round;
    open_two(&round, 3);
    assert_int_equal(step(&round, ROUND_ABSORBING, 0), 0);
    assert_int_equal(step(&round, ROUND_REFUSED, 0), ROUND_DO_STUCK); /* 1 alone is not enough, and 2 is away. */
    assert_string_equal(round_state(&round), "STUCK");
    assert_int_equal(round.since_ms, now);
    assert_int_equal(step(&round, ROUND_REFUSED, 1), 0); /* told once */
    now += DEADLINE;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_EXTEND);
    assert_int_equal(round_count(&round).refused, 2);
    assert_int_equal(round_count(&round).participants, 0);
    assert_true(round.stuck);

    /* Another client is one of two; a repaired one comes anew: then there are enough that can. */
    assert_int_equal(step(&round, ROUND_READY, 2), ROUND_DO_INVITE);
    assert_true(round.stuck);
    (void)step(&round, ROUND_LOST, 0);
    now += 5;
    assert_int_equal(step(&round, ROUND_READY, 0), ROUND_DO_INVITE);
    assert_string_equal(round_state(&round), "OPEN");
    assert_int_equal(round.since_ms, now);
    assert_int_equal(step(&round, ROUND_REFUSED, 0), ROUND_DO_STUCK); /* It was not repaired. */
    assert_int_equal(step(&round, ROUND_OFFERED, 0), 0);              /* It has another one. */
    assert_int_equal(step(&round, ROUND_DELIVERED, 0), 0);
    assert_int_equal(step(&round, ROUND_DELIVERED, 2), ROUND_DO_AGGREGATE);
    assert_false(round.stuck);
    round_fini(&round);
}

static void the_refused_do_not_hold_a_round_that_has_enough(void **state)
{
    (void)state;
    struct round round;
    start(&round, 3);
    options.min_clients = round.options.min_clients = 3;
    (void)step(&round, ROUND_READY, 0);
    (void)step(&round, ROUND_READY, 1);
    assert_int_equal(step(&round, ROUND_READY, 2), ROUND_DO_OPEN | ROUND_DO_INVITE);
    round.options.min_clients = 2;
    assert_int_equal(step(&round, ROUND_REFUSED, 1), 0);
    assert_int_equal(step(&round, ROUND_DELIVERED, 0), 0);
    assert_int_equal(step(&round, ROUND_DELIVERED, 2), ROUND_DO_AGGREGATE);
    (void)step(&round, ROUND_AGGREGATED, 0);
    assert_int_equal(step(&round, ROUND_SAVED, 0), ROUND_DO_END | ROUND_DO_OPEN | ROUND_DO_INVITE);
    assert_int_equal(round.invited_count, 3); /* The next round has another model: all are asked. */
    round_fini(&round);
}

/* A seat that only a refused one holds is free. */
static void the_refused_give_their_seats_up(void **state)
{
    (void)state;
    options.weight_cap = options.weight_max = 1000;
    struct round round;
    open_two(&round, 3);
    (void)step(&round, ROUND_READY, 2);
    assert_int_equal(step(&round, ROUND_REFUSED, 0), ROUND_DO_INVITE);
    assert_false(round.members[0].participant);
    assert_true(round.members[2].participant);
    assert_false(round.stuck);
    round_fini(&round);
}

static void an_absorption_holds_the_round_open(void **state)
{
    (void)state;
    struct round round;
    open_two(&round, 3);
    (void)step(&round, ROUND_DELIVERED, 0);
    (void)step(&round, ROUND_ABSORBING, 1);
    (void)step(&round, ROUND_LOST, 1);
    now += 2 * DEADLINE; /* Away for long, past the deadline: the bytes are here all the same. */
    assert_int_equal(step(&round, ROUND_TICK, 0), 0);
    assert_int_equal(round_next_ms(&round), UINT64_MAX);
    assert_int_equal(step(&round, ROUND_DELIVERED, 1), ROUND_DO_AGGREGATE);
    round_fini(&round);
}

static void one_that_has_its_contribution_already_joins_if_there_is_room(void **state)
{
    (void)state;
    struct round round;
    open_two(&round, 4);
    assert_int_equal(step(&round, ROUND_OFFERED, 2), 0); /* Not ready: no. */
    assert_false(round.members[2].participant);
    (void)step(&round, ROUND_READY, 2);
    assert_int_equal(step(&round, ROUND_OFFERED, 2), 0);
    assert_true(round.members[2].participant);
    round_fini(&round);

    options.clients_per_round = 2;
    open_two(&round, 4);
    (void)step(&round, ROUND_READY, 2);
    (void)step(&round, ROUND_OFFERED, 2);
    assert_false(round.members[2].participant);
    round_fini(&round);
}

/* The choice depends on names and the round's number, not on who came first. Names "a".."h"; arrival in two orders. */
static void the_choice_does_not_depend_on_arrival(void **state)
{
    (void)state;
    enum { COUNT = 8, CHOSEN = 3 };
    options.min_clients = COUNT;
    options.clients_per_round = CHOSEN;
    uint32_t picked[2][10] = {{0}};
    for (uint32_t order = 0; order < 2; order++) {
        struct round round;
        round_init(&round, &options, 0, now);
        char name_of[COUNT];
        for (uint32_t i = 0; i < COUNT; i++) { /* index i has name 'a' + i, or reversed; place in the order of names */
            name_of[i] = (char)(order ? 'a' + COUNT - 1 - i : 'a' + i);
            assert_int_equal(round_member_add(&round, order ? 0 : i), 0);
        }
        uint32_t todo = 0;
        for (uint32_t i = 0; i < COUNT; i++) {
            todo = step(&round, ROUND_READY, i);
        }
        for (uint32_t n = 0; n < 10; n++) {
            assert_true(todo & ROUND_DO_OPEN);
            assert_int_equal(round.invited_count, CHOSEN);
            for (uint32_t i = 0; i < CHOSEN; i++) {
                picked[order][n] |= 1u << (name_of[round.invited[i]] - 'a');
                assert_true(i == 0 || name_of[round.invited[i - 1]] < name_of[round.invited[i]]);
            }
            round.options.min_clients = CHOSEN;
            uint32_t invited[CHOSEN];
            memcpy(invited, round.invited, sizeof invited);
            for (uint32_t i = 0; i < CHOSEN; i++) {
                (void)step(&round, ROUND_DELIVERED, invited[i]);
            }
            (void)step(&round, ROUND_AGGREGATED, 0);
            todo = step(&round, ROUND_SAVED, 0);
        }
        round_fini(&round);
    }
    assert_memory_equal(picked[0], picked[1], sizeof picked[0]);
    uint32_t differing = 0, ever = 0;
    for (uint32_t n = 0; n < 10; n++) {
        differing += n > 0 && picked[0][n] != picked[0][n - 1];
        ever |= picked[0][n];
    }
    assert_true(differing >= 5); /* It is a choice, and another one each round. */
    assert_true(__builtin_popcount(ever) >= 6);
}

static void weights_are_bounded_when_the_round_opens(void **state)
{
    (void)state;
    options.weight_cap = 1000;
    options.weight_max = 1000;
    struct round round;
    open_two(&round, 4);
    assert_int_equal(round.weight_bound, 500);
    /* Both seats are taken: nobody else can be admitted without breaking the bound, until an absent one gives way. */
    (void)step(&round, ROUND_READY, 2);
    (void)step(&round, ROUND_OFFERED, 2);
    assert_false(round.members[2].participant);
    (void)step(&round, ROUND_LOST, 0);
    now += DEADLINE / 10;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_INVITE);
    assert_false(round.members[0].participant);
    assert_true(round.members[2].participant);
    round_fini(&round);

    options.weight_cap = 100;
    open_two(&round, 2);
    assert_int_equal(round.weight_bound, 100);
    round_fini(&round);
}

/* Every move in the order, against a plain list. */
static void a_forgotten_member_gives_its_index_to_another(void **state)
{
    (void)state;
    for (uint32_t from = 0; from < 5; from++) {
        for (uint32_t to = 0; to < 5; to++) {
            struct round round;
            start(&round, 5);
            (void)step(&round, ROUND_READY, from);
            (void)step(&round, ROUND_LOST, from);
            now += 1;
            uint32_t others[4], count = 0;
            for (uint32_t i = 0; i < 5; i++) {
                if (i != from) {
                    others[count++] = i;
                }
            }
            round_member_reuse(&round, from, to);
            assert_int_equal(round.count, 5);
            count = 0;
            for (uint32_t i = 0; i < 5; i++) {
                assert_int_equal(round.order[i], i == to ? from : others[count++]);
            }
            assert_int_equal(round.members[from].lost_ms, 0);
            round_fini(&round);
        }
    }
}

static void growing_survives_want_of_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 3; n++) {
        struct round round;
        round_init(&round, &options, 0, now);
        mem_fail_after(n);
        assert_int_equal(round_member_add(&round, 0), -1);
        mem_fail_after(0);
        assert_int_equal(round.count, 0);
        assert_int_equal(round_member_add(&round, 0), 0);
        round_fini(&round);
    }
}

/* ---- A long random walk ---- */

static void check(const struct round *round, uint32_t todo)
{
    struct round_tally tally = round_count(round);
    if (todo & ROUND_DO_AGGREGATE) {
        assert_true(tally.delivered >= round->options.min_clients);
        for (uint32_t i = 0; i < round->count; i++) {
            assert_false(round->members[i].participant && round->members[i].absorbing);
        }
    }
    if (todo & ROUND_DO_INVITE) {
        assert_true(round->invited_count > 0);
    }
    assert_true(!round->stuck || (round->phase == ROUND_OPEN && tally.refused > 0));
    for (uint32_t i = 0; i < round->invited_count; i++) {
        const struct round_member *member = &round->members[round->invited[i]];
        assert_true(member->ready && member->participant && !member->delivered && !member->refused);
    }
    if (round->phase == ROUND_OPEN) {
        assert_true(tally.participants * round->weight_bound <= round->options.weight_max);
        if (round->options.clients_per_round) {
            assert_true(tally.delivered + tally.owing <= round->count);
        }
    }
}

static void whatever_comes_the_rules_hold(void **state)
{
    (void)state;
    enum { MEMBERS = 12, STEPS = 4000 };
    uint32_t closed = 0, extended = 0, stuck = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct rng rng;
        rng_init(&rng, seed, RNG_TEST, 0, 0, 0);
        options.min_clients = 1 + rng_below(&rng, 4);
        options.clients_per_round = rng_below(&rng, 2) ? options.min_clients + rng_below(&rng, 4) : 0;
        options.rounds = 1000;
        options.weight_max = 60 + rng_below(&rng, 1000);
        struct round round;
        uint32_t members = seed % 2 ? MEMBERS : 4; /* With few of them, rounds get stuck. */
        start(&round, members);
        for (uint32_t i = 0; i < STEPS; i++) {
            now += rng_below(&rng, 30);
            enum round_event_kind kind = (enum round_event_kind)rng_below(&rng, ROUND_EVENTS);
            if (kind == ROUND_STOP || kind == ROUND_DRAINED) { /* Would end the walk; here: what moves it on. */
                kind = round.phase == ROUND_AGGREGATING ? ROUND_AGGREGATED
                       : round.phase == ROUND_SAVING    ? ROUND_SAVED
                                                        : ROUND_READY;
            }
            uint32_t todo = step(&round, kind, rng_below(&rng, members));
            check(&round, todo);
            closed += (todo & ROUND_DO_AGGREGATE) != 0;
            extended += (todo & ROUND_DO_EXTEND) != 0;
            stuck += (todo & ROUND_DO_STUCK) != 0;
            uint64_t next = round_next_ms(&round);
            if (next != UINT64_MAX && next > now && rng_below(&rng, 4) == 0) {
                now = next; /* What is due happens, and is then no longer due. */
                check(&round, step(&round, ROUND_TICK, 0));
                assert_true(round_next_ms(&round) > now);
            }
        }
        round_fini(&round);
    }
    assert_true(closed > 200); /* The walk saw what it is about. */
    assert_true(extended > 20);
    assert_true(stuck > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_round_closes_when_all_have_delivered, reset),
        cmocka_unit_test_setup(a_lost_participant_is_waited_for_and_invited_again, reset),
        cmocka_unit_test_setup(an_absent_participant_does_not_hold_the_round, reset),
        cmocka_unit_test_setup(nobody_waits_for_one_that_was_barred, reset),
        cmocka_unit_test_setup(an_absent_one_that_comes_back_counts_again, reset),
        cmocka_unit_test_setup(the_deadline_closes_with_enough_and_extends_without, reset),
        cmocka_unit_test_setup(an_extension_drops_the_absent, reset),
        cmocka_unit_test_setup(late_joiners_are_admitted_when_the_rest_cannot_be_enough, reset),
        cmocka_unit_test_setup(a_declined_one_is_not_waited_for_and_is_asked_again_at_the_deadline, reset),
        cmocka_unit_test_setup(a_declined_one_that_offers_again_is_waited_for, reset),
        cmocka_unit_test_setup(the_refused_are_not_asked_again_and_the_round_says_that_it_is_stuck, reset),
        cmocka_unit_test_setup(the_refused_do_not_hold_a_round_that_has_enough, reset),
        cmocka_unit_test_setup(the_refused_give_their_seats_up, reset),
        cmocka_unit_test_setup(an_absorption_holds_the_round_open, reset),
        cmocka_unit_test_setup(one_that_has_its_contribution_already_joins_if_there_is_room, reset),
        cmocka_unit_test_setup(the_choice_does_not_depend_on_arrival, reset),
        cmocka_unit_test_setup(weights_are_bounded_when_the_round_opens, reset),
        cmocka_unit_test_setup(a_forgotten_member_gives_its_index_to_another, reset),
        cmocka_unit_test_setup(growing_survives_want_of_memory, reset),
        cmocka_unit_test_setup(whatever_comes_the_rules_hold, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
