/* The number of upload slots, over simulated links: sites with a rate each, a server with one for all. */
#include "server/session/pace.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { STEP_MS = 20, WINDOW_MS = 5000, SITES_MAX = 64 };
#define MIB 1048576.0

struct links {
    uint32_t sites;
    double site, server; /* bytes a second */
    double bytes;        /* of an upload */
};

struct outcome {
    double seconds;
    uint32_t most, last; /* slots */
    uint32_t trials;     /* times that the number grew */
};

struct upload {
    double left, chunk; /* bytes that are to come, and that have come of the chunk under way */
};

/* Moves one upload on; chunks count when they are whole. */
static void move(struct pace *pace, struct upload *upload, double bytes)
{
    upload->left -= bytes;
    upload->chunk += bytes;
    while (upload->chunk >= MIB) {
        upload->chunk -= MIB;
        pace_chunk(pace, (uint32_t)MIB);
    }
}

/* One round: all sites offer at once. */
static struct outcome upload_all(struct pace *pace, const struct links *links)
{
    struct upload active[SITES_MAX];
    struct outcome out = {0};
    uint32_t running = 0, waiting = links->sites;
    uint64_t now = 1000;
    while (running + waiting > 0) {
        uint32_t slots = pace->slots;
        if (pace_step(pace, waiting > 0, now) && pace->slots > slots) {
            out.trials++;
        }
        for (; waiting > 0 && running < pace->slots; waiting--) {
            active[running++] = (struct upload){.left = links->bytes};
        }
        out.most = pace->slots > out.most ? pace->slots : out.most;
        double rate = fmin(links->site, links->server / running);
        for (uint32_t i = 0; i < running; i++) {
            move(pace, &active[i], rate * STEP_MS / 1000);
            if (active[i].left <= 0) {
                active[i--] = active[--running];
            }
        }
        now += STEP_MS;
        assert_true(pace->slots >= 1 && pace->slots <= pace->most);
        assert_true(!pace->running || pace_next_ms(pace) > pace->since_ms);
    }
    out.seconds = (double)(now - 1000) / 1000;
    out.last = pace->slots;
    return out;
}

static const struct links slow_sites = {20, 1e6, 100e6, 46e6}; /* 1 MB/s each, 46 MB to send */

/* What the fixed number of two would need, for comparison. */
static void two_slots_are_slow_where_the_sites_links_are(void **state)
{
    (void)state;
    struct pace pace;
    pace_init(&pace, 2, WINDOW_MS);
    struct outcome fixed = upload_all(&pace, &slow_sites);
    assert_true(fixed.seconds > 459);
    pace_init(&pace, 8, WINDOW_MS);
    struct outcome adapted = upload_all(&pace, &slow_sites);
    assert_int_equal(adapted.most, 8);
    assert_true(adapted.seconds < 150);
    pace_round(&pace);
    assert_int_equal(pace.slots, 8); /* and from there on: 20 sites are three rows of 8 */
    assert_true(upload_all(&pace, &slow_sites).seconds < 1.01 * 3 * 46);
    pace_round(&pace); /* nothing was tried, so it must show again */
    assert_int_equal(pace.slots, 4);
    assert_true(upload_all(&pace, &slow_sites).seconds < 1.1 * 3 * 46);
}

static void a_full_link_gets_no_more_than_trials(void **state)
{
    (void)state;
    const struct links links = {20, 10e6, 10e6, 46e6};
    struct pace pace;
    pace_init(&pace, 64, WINDOW_MS);
    struct outcome out = upload_all(&pace, &links);
    assert_int_equal(out.most, 4);
    assert_int_equal(out.last, 2);
    assert_true(out.trials >= 1 && out.trials <= 92 / 50 + 1);
    assert_true(out.seconds < 92.5);
}

/* The number that the server's link can feed, or its double while that is tried. */
static void it_stops_where_the_link_is_full(void **state)
{
    (void)state;
    const struct links links = {60, 1e6, 8e6, 23e6};
    struct pace pace;
    pace_init(&pace, 64, WINDOW_MS);
    struct outcome out = upload_all(&pace, &links);
    assert_int_equal(out.most, 16);
    assert_true(out.seconds < 1.15 * 60 * 23 / 8);
}

static void what_is_not_needed_any_more_is_given_back(void **state)
{
    (void)state;
    const struct links fast = {20, 100e6, 100e6, 46e6};
    struct pace pace;
    pace_init(&pace, 16, WINDOW_MS);
    assert_int_equal(upload_all(&pace, &slow_sites).last, 16);
    for (int round = 0; round < 3; round++) {
        pace_round(&pace);
        (void)upload_all(&pace, &fast);
    }
    pace_round(&pace);
    assert_int_equal(pace.slots, 2);
}

/* A chunk in twelve seconds from each: nothing may be made of a window in which none, or one, happens to arrive. */
static void the_grain_of_chunks_is_no_rate(void **state)
{
    (void)state;
    const struct links links = {4, 100e3, 100e3, 3e6};
    struct pace pace;
    pace_init(&pace, 4, WINDOW_MS);
    struct outcome out = upload_all(&pace, &links);
    assert_true(out.trials <= 2);
    assert_true(out.seconds < 121);
}

/* Windows in which nobody waits tell nothing: whoever uploads alone cannot use a second slot. */
static void nobody_waits(void **state)
{
    (void)state;
    struct pace pace;
    pace_init(&pace, 8, 1000);
    uint64_t now = 0;
    for (int i = 0; i < 100; i++, now += 100) {
        pace_chunk(&pace, 1000000);
        assert_false(pace_step(&pace, false, now));
        assert_true(pace_next_ms(&pace) == UINT64_MAX);
    }
    assert_false(pace_step(&pace, true, now)); /* somebody does: a window begins, without what came before */
    assert_int_equal(pace.bytes, 0);
    assert_int_equal(pace_next_ms(&pace), now + 1000);
    assert_false(pace_step(&pace, true, now + 1000)); /* too few chunks to judge by: six windows at most */
    assert_int_equal(pace_next_ms(&pace), now + 6000);
    assert_true(pace_step(&pace, true, now + 6000)); /* all stand still: another one is welcome */
    assert_int_equal(pace.slots, 4);
}

static void the_least(void **state)
{
    (void)state;
    struct pace pace;
    pace_init(&pace, 1, 0);
    (void)upload_all(&pace, &(struct links){5, 1e6, 100e6, 5e6});
    assert_int_equal(pace.slots, 1);
    pace_round(&pace);
    assert_int_equal(pace.slots, 1);
    pace_init(&pace, 3, WINDOW_MS); /* no power of two */
    assert_int_equal(upload_all(&pace, &slow_sites).most, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_slots_are_slow_where_the_sites_links_are),
        cmocka_unit_test(a_full_link_gets_no_more_than_trials),
        cmocka_unit_test(it_stops_where_the_link_is_full),
        cmocka_unit_test(what_is_not_needed_any_more_is_given_back),
        cmocka_unit_test(the_grain_of_chunks_is_no_rate),
        cmocka_unit_test(nobody_waits),
        cmocka_unit_test(the_least),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
