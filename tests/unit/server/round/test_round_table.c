/* The table of round.h, walked in full: every phase with every event, and then each guard by itself. */
#include "server/round/round.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define DEADLINE 1000u
#define DRAIN    50u

static const struct round_options standard = {.rounds = 2,
                                              .min_clients = 2,
                                              .deadline_ms = DEADLINE,
                                              .drain_ms = DRAIN,
                                              .seed = 7,
                                              .weight_cap = 100,
                                              .weight_max = 1000};

static uint64_t now;

static uint32_t step(struct round *round, enum round_event_kind kind, uint32_t member)
{
    struct round_event event = {kind, member};
    return round_step(round, &event, now);
}

/* Three members; 0 and 1 are what it takes. In OPEN both take part, and 2 is not ready. */
static void reach(struct round *round, enum round_phase phase, const struct round_options *options)
{
    now = 100;
    round_init(round, options, phase == ROUND_DONE ? options->rounds : 0, now);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(round_member_add(round, i), 0);
    }
    (void)step(round, ROUND_READY, 0);
    if (phase == ROUND_OPEN || phase == ROUND_AGGREGATING || phase == ROUND_SAVING) {
        assert_int_equal(step(round, ROUND_READY, 1), ROUND_DO_OPEN | ROUND_DO_INVITE);
        assert_int_equal(round->invited_count, 2);
    }
    if (phase == ROUND_AGGREGATING || phase == ROUND_SAVING) {
        assert_int_equal(step(round, ROUND_DELIVERED, 0), 0);
        assert_int_equal(step(round, ROUND_DELIVERED, 1), ROUND_DO_AGGREGATE);
    }
    if (phase == ROUND_SAVING) {
        assert_int_equal(step(round, ROUND_AGGREGATED, 0), ROUND_DO_SAVE);
    }
    if (phase == ROUND_DRAINING) {
        assert_int_equal(step(round, ROUND_STOP, 0), ROUND_DO_DRAIN);
    }
    assert_int_equal(round->phase, phase);
}

struct cell {
    uint32_t todo;
    enum round_phase next;
};
#define W  ROUND_WAITING
#define O  ROUND_OPEN
#define A  ROUND_AGGREGATING
#define S  ROUND_SAVING
#define D  ROUND_DONE
#define X  ROUND_DRAINING
#define OI (ROUND_DO_OPEN | ROUND_DO_INVITE)

/* The event comes for member 1 (which in WAITING is the one that is missing), 1 ms after the phase was reached. */
/* clang-format off */
static const struct cell cells[ROUND_EVENTS][ROUND_PHASES] = {
    /*                    WAITING               OPEN                    AGGREGATING        SAVING                   DONE                  DRAINING */
    [ROUND_READY]      = {{OI, O},              {ROUND_DO_INVITE, O},   {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_LOST]       = {{0, W},               {0, O},                 {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_BARRED]     = {{0, W},               {0, O},                 {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_OFFERED]    = {{0, W},               {0, O},                 {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_ABSORBING]  = {{0, W},               {0, O},                 {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_DELIVERED]  = {{0, W},               {0, O},                 {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_DECLINED]   = {{0, W},               {0, O},                 {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_REFUSED]    = {{0, W},               {ROUND_DO_STUCK, O},    {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_RECALLED]   = {{0, W},               {0, O},                 {0, O},            {0, S},                  {0, D},               {0, X}},
    [ROUND_AGGREGATED] = {{0, W},               {0, O},                 {ROUND_DO_SAVE, S},{0, S},                  {0, D},               {0, X}},
    [ROUND_SAVED]      = {{0, W},               {0, O},                 {0, A},            {ROUND_DO_END | OI, O},  {0, D},               {0, X}},
    [ROUND_FAILED]     = {{0, W},               {0, O},                 {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_TICK]       = {{0, W},               {0, O},                 {0, A},            {0, S},                  {0, D},               {0, X}},
    [ROUND_STOP]       = {{ROUND_DO_DRAIN, X},  {ROUND_DO_DRAIN, X},    {0, A},            {0, S},                  {ROUND_DO_DRAIN, X},  {0, X}},
    [ROUND_DRAINED]    = {{0, W},               {0, O},                 {0, A},            {0, S},                  {0, D},               {ROUND_DO_EXIT, X}},
};
/* clang-format on */

static void every_phase_with_every_event(void **state)
{
    (void)state;
    for (int event = 0; event < ROUND_EVENTS; event++) {
        for (int phase = 0; phase < ROUND_PHASES; phase++) {
            struct round round;
            reach(&round, (enum round_phase)phase, &standard);
            now++;
            uint32_t todo = step(&round, (enum round_event_kind)event, 1);
            const struct cell *cell = &cells[event][phase];
            if (todo != cell->todo || round.phase != cell->next) {
                fail_msg("%s in %s: actions 0x%x -> %s; the table says 0x%x -> %s",
                         round_event_name((enum round_event_kind)event), round_phase_name((enum round_phase)phase),
                         todo, round_phase_name(round.phase), cell->todo, round_phase_name(cell->next));
            }
            round_fini(&round);
        }
    }
}

/* An event that the table ignores leaves no trace at all. */
static void ignored_events_change_nothing(void **state)
{
    (void)state;
    static const struct {
        enum round_phase phase;
        enum round_event_kind event;
    } ignored[] = {
        {W, ROUND_OFFERED},    {W, ROUND_ABSORBING},  {W, ROUND_DELIVERED},  {W, ROUND_DECLINED},
        {W, ROUND_AGGREGATED}, {W, ROUND_SAVED},      {W, ROUND_FAILED},     {W, ROUND_DRAINED},
        {O, ROUND_AGGREGATED}, {O, ROUND_SAVED},      {O, ROUND_FAILED},     {O, ROUND_DRAINED},
        {A, ROUND_OFFERED},    {A, ROUND_ABSORBING},  {A, ROUND_DELIVERED},  {A, ROUND_DECLINED},
        {A, ROUND_SAVED},      {A, ROUND_DRAINED},    {S, ROUND_OFFERED},    {S, ROUND_ABSORBING},
        {S, ROUND_DELIVERED},  {S, ROUND_DECLINED},   {S, ROUND_AGGREGATED}, {S, ROUND_DRAINED},
        {D, ROUND_DELIVERED},  {D, ROUND_AGGREGATED}, {D, ROUND_SAVED},      {D, ROUND_FAILED},
        {D, ROUND_DRAINED},    {X, ROUND_OFFERED},    {X, ROUND_DELIVERED},  {X, ROUND_AGGREGATED},
        {X, ROUND_SAVED},      {X, ROUND_FAILED},     {X, ROUND_STOP},       {W, ROUND_REFUSED},
        {A, ROUND_REFUSED},    {S, ROUND_REFUSED},    {D, ROUND_REFUSED},    {X, ROUND_REFUSED},
        {W, ROUND_RECALLED},   {O, ROUND_RECALLED},   {S, ROUND_RECALLED},   {D, ROUND_RECALLED},
    };
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++) {
        struct round round;
        reach(&round, ignored[i].phase, &standard);
        struct round before = round;
        struct round_member members[3];
        memcpy(members, round.members, sizeof members);
        assert_int_equal(step(&round, ignored[i].event, 1), 0);
        before.invited_count = 0;
        assert_memory_equal(&round, &before, sizeof round);
        assert_memory_equal(round.members, members, sizeof members);
        round_fini(&round);
    }
}

/* ---- Guards ---- */

static void saved_last_round_finishes(void **state)
{
    (void)state;
    struct round_options options = standard;
    options.rounds = 1;
    struct round round;
    reach(&round, S, &options);
    assert_int_equal(step(&round, ROUND_SAVED, 0), ROUND_DO_END | ROUND_DO_FINISH);
    assert_int_equal(round.phase, D);
    assert_int_equal(round.durable, 1);
    assert_int_equal(round_next_ms(&round), UINT64_MAX);
    round_fini(&round);
}

static void saved_without_enough_clients_waits(void **state)
{
    (void)state;
    struct round round;
    reach(&round, S, &standard);
    (void)step(&round, ROUND_LOST, 1);
    assert_int_equal(step(&round, ROUND_SAVED, 0), ROUND_DO_END | ROUND_DO_WAIT);
    assert_int_equal(round.phase, W);
    assert_int_equal(step(&round, ROUND_READY, 2), OI);
    assert_int_equal(round.durable, 1);
    round_fini(&round);
}

static void stop_finishes_the_save_first(void **state)
{
    (void)state;
    struct round round;
    reach(&round, A, &standard);
    assert_int_equal(step(&round, ROUND_STOP, 0), 0);
    assert_int_equal(step(&round, ROUND_AGGREGATED, 0), ROUND_DO_SAVE);
    assert_int_equal(step(&round, ROUND_STOP, 0), 0);
    assert_int_equal(step(&round, ROUND_SAVED, 0), ROUND_DO_END | ROUND_DO_DRAIN);
    assert_int_equal(round.phase, X);
    assert_int_equal(round.durable, 1);
    round_fini(&round);
}

static void stop_gives_up_after_a_failed_save(void **state)
{
    (void)state;
    for (int early = 0; early < 2; early++) {
        struct round round;
        reach(&round, S, &standard);
        if (early) { /* The failure is known already: one more attempt, at once. */
            assert_int_equal(step(&round, ROUND_FAILED, 0), 0);
            assert_int_equal(step(&round, ROUND_STOP, 0), ROUND_DO_SAVE);
        } else {
            assert_int_equal(step(&round, ROUND_STOP, 0), 0);
        }
        assert_int_equal(step(&round, ROUND_FAILED, 0), ROUND_DO_DRAIN);
        assert_int_equal(round.phase, X);
        assert_int_equal(round.durable, 0);
        round_fini(&round);
    }
}

static void failures_are_retried_with_growing_pauses(void **state)
{
    (void)state;
    static const uint64_t pauses[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};
    static const enum round_phase phases[] = {A, S};
    for (int p = 0; p < 2; p++) {
        struct round round;
        reach(&round, phases[p], &standard);
        for (size_t i = 0; i < sizeof pauses / sizeof pauses[0]; i++) {
            assert_int_equal(step(&round, ROUND_FAILED, 0), 0);
            assert_int_equal(round_next_ms(&round), now + pauses[i]);
            now += pauses[i] - 1;
            assert_int_equal(step(&round, ROUND_TICK, 0), 0);
            now += 1;
            assert_int_equal(step(&round, ROUND_TICK, 0), phases[p] == S ? ROUND_DO_SAVE : ROUND_DO_AGGREGATE);
            assert_int_equal(round_next_ms(&round), UINT64_MAX);
        }
        assert_int_equal(round.phase, phases[p]);
        round_fini(&round);
    }
}

/* All owe again what they had delivered, and have a whole deadline for it. */
static void a_recalled_round_begins_anew(void **state)
{
    (void)state;
    struct round round;
    reach(&round, A, &standard);
    now += DEADLINE / 2;
    assert_int_equal(step(&round, ROUND_RECALLED, 0), 0);
    assert_int_equal(round.phase, O);
    assert_int_equal(round_next_ms(&round), now + DEADLINE);
    assert_true(round_owes(&round, 0) && round_owes(&round, 1));
    assert_int_equal(step(&round, ROUND_DELIVERED, 1), 0);
    assert_int_equal(step(&round, ROUND_DELIVERED, 0), ROUND_DO_AGGREGATE);
    round_fini(&round);
}

/* A round does not open before there is room for all that it would invite. */
static void a_round_without_room_is_held(void **state)
{
    (void)state;
    static const uint64_t pauses[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};
    struct round round;
    reach(&round, W, &standard);
    round.room = 1;
    assert_int_equal(step(&round, ROUND_READY, 1), 0);
    assert_true(round.held && round.phase == W);
    for (size_t i = 0; i < sizeof pauses / sizeof pauses[0]; i++) {
        assert_int_equal(round_next_ms(&round), now + pauses[i]);
        now += pauses[i];
        assert_int_equal(step(&round, ROUND_TICK, 0), 0);
    }
    round.room = 2;
    assert_int_equal(step(&round, ROUND_READY, 2), 0); /* Three are ready now. */
    assert_int_equal(step(&round, ROUND_LOST, 2), OI);
    assert_false(round.held);
    round_fini(&round);

    reach(&round, S, &standard); /* After a round that was saved likewise, and it ends when there are too few. */
    round.room = 1;
    assert_int_equal(step(&round, ROUND_SAVED, 0), ROUND_DO_END | ROUND_DO_WAIT);
    assert_true(round.held);
    assert_int_equal(step(&round, ROUND_LOST, 1), 0);
    assert_false(round.held);
    assert_int_equal(round_next_ms(&round), UINT64_MAX);
    round_fini(&round);

    struct round_options few = standard;
    few.clients_per_round = 2;
    reach(&round, W, &few);
    round.room = 2;
    assert_int_equal(step(&round, ROUND_READY, 1), OI);
    round_fini(&round);
}

static void draining_ends_by_itself(void **state)
{
    (void)state;
    struct round round;
    reach(&round, X, &standard);
    assert_int_equal(round_next_ms(&round), now + DRAIN);
    now += DRAIN;
    assert_int_equal(step(&round, ROUND_TICK, 0), ROUND_DO_EXIT);
    assert_int_equal(step(&round, ROUND_DRAINED, 0), 0); /* Only once. */
    assert_int_equal(step(&round, ROUND_TICK, 0), 0);
    assert_int_equal(round_next_ms(&round), UINT64_MAX);
    round_fini(&round);
}

static void starts_done_when_nothing_is_left(void **state)
{
    (void)state;
    struct round round;
    round_init(&round, &standard, 2, now);
    assert_int_equal(round.phase, D);
    round_fini(&round);
    round_init(&round, &standard, 1, now);
    assert_int_equal(round.phase, W);
    round_fini(&round);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_phase_with_every_event),
        cmocka_unit_test(ignored_events_change_nothing),
        cmocka_unit_test(saved_last_round_finishes),
        cmocka_unit_test(saved_without_enough_clients_waits),
        cmocka_unit_test(stop_finishes_the_save_first),
        cmocka_unit_test(stop_gives_up_after_a_failed_save),
        cmocka_unit_test(failures_are_retried_with_growing_pauses),
        cmocka_unit_test(a_recalled_round_begins_anew),
        cmocka_unit_test(a_round_without_room_is_held),
        cmocka_unit_test(draining_ends_by_itself),
        cmocka_unit_test(starts_done_when_nothing_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
