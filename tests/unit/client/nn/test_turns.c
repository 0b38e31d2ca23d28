/* The order of groups at a shared sum, and what a failure does to those before and after it. */
#include "tests/unit/client/nn/nn_support.h"

#include "client/nn/turns.h"

#include <pthread.h>
#include <stdatomic.h>

struct group {
    struct turns *turns;
    uint32_t number;
    _Atomic int state; /* 0 not begun, 1 has its turn, 2 was refused */
    pthread_t thread;
};

static void *wait_for_turn(void *arg)
{
    struct group *group = arg;
    atomic_store(&group->state, turns_begin(group->turns, group->number, 1) ? 1 : 2);
    return NULL;
}

static void start(struct group *group, struct turns *turns, uint32_t number)
{
    *group = (struct group){.turns = turns, .number = number};
    assert_int_equal(pthread_create(&group->thread, NULL, wait_for_turn, group), 0);
}

static void until_waiting(struct turns *turns, uint32_t count)
{
    for (uint32_t waiting = 0; waiting != count;) {
        (void)pthread_mutex_lock(&turns->lock);
        waiting = turns->waiting;
        (void)pthread_mutex_unlock(&turns->lock);
    }
}

static int join(struct group *group)
{
    assert_int_equal(pthread_join(group->thread, NULL), 0);
    return atomic_load(&group->state);
}

static void groups_follow_each_other(void **state)
{
    (void)state;
    struct turns turns;
    struct group one, two;
    assert_int_equal(turns_init(&turns, 3, NULL), 0);
    for (int round = 0; round < 2; round++) {
        turns_reset(&turns);
        start(&two, &turns, 2);
        start(&one, &turns, 1);
        until_waiting(&turns, 2);
        assert_int_equal(atomic_load(&one.state), 0);
        assert_true(turns_begin(&turns, 0, 1));
        turns_end(&turns, 0); /* another part: nobody's turn */
        until_waiting(&turns, 2);
        turns_end(&turns, 1);
        assert_int_equal(join(&one), 1);
        assert_int_equal(atomic_load(&two.state), 0);
        turns_end(&turns, 1);
        assert_int_equal(join(&two), 1);
    }
    turns_fini(&turns);
}

/* Group 1 fails: group 2 and 3 are told, whether they wait already or come later; group 0 goes on. */
static void a_failure_stops_later_groups(void **state)
{
    (void)state;
    struct turns turns;
    struct group two;
    assert_int_equal(turns_init(&turns, 2, NULL), 0);
    start(&two, &turns, 2);
    until_waiting(&turns, 1);
    turns_give_up(&turns, 1);
    assert_int_equal(join(&two), 2);
    assert_false(turns_begin(&turns, 3, 0));
    assert_true(turns_begin(&turns, 0, 0));
    turns_give_up(&turns, 5); /* the lowest counts */
    assert_false(turns_begin(&turns, 3, 0));
    turns_reset(&turns);
    assert_true(turns_begin(&turns, 0, 1));
    turns_fini(&turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_follow_each_other),
        cmocka_unit_test(a_failure_stops_later_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
