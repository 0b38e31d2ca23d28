/* The simulation's command line.
 *
 *   sim [--first N] [--seeds N]   runs seeds, and compares those that require every client with the undisturbed run
 *   sim --seed N [--verbose]      one seed, with everything that happens: to look into a failure
 *   sim --bugs                    plants each mistake, and expects the invariants to find it
 *
 * A run of 500 seeds or more must also have met every kind of trouble in the list of sights. */
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of all runs so far. */
struct totals {
    uint64_t runs, steps, faults, seen[SIGHTS_MAX];
};
struct outcome {
    bool known;
    struct hash128 result;
};

/* Runs one scenario; false, and the violation's text, when an invariant broke. */
static bool run(const struct scenario *scenario, struct hash128 *result, struct totals *totals, char violation[512])
{
    struct world *world = mem_new(1, sizeof *world);
    world_run(world, scenario);
    bool good = world->violation[0] == '\0';
    if (good && result) {
        *result = world_result(world);
    }
    totals->runs++;
    totals->steps += world->steps;
    totals->faults += world->faults;
    for (int i = 0; i < SIGHTS_MAX; i++) {
        totals->seen[i] += world->seen[i];
    }
    memcpy(violation, world->violation, sizeof world->violation);
    world_free(world);
    mem_free(world);
    return good;
}

/* The undisturbed run of the same plan, once for each plan. Its seed, hence its timing, is another one. */
static bool calm_result(const struct scenario *disturbed, struct hash128 *out)
{
    static struct outcome known[CLIENTS_MAX + 1][3][AGGREGATION_ADAM + 1][AGGREGATION_KRUM + 1];
    uint32_t features = disturbed->features + disturbed->copier;
    struct outcome *outcome = &known[disturbed->clients][features][disturbed->optimizer][disturbed->rule];
    struct scenario scenario = *disturbed;
    scenario.seed = 0;
    scenario.calm = true;
    scenario.hot = false;
    scenario.verbose = false;
    if (!outcome->known) {
        char violation[512];
        struct totals totals = {0};
        if (!run(&scenario, &outcome->result, &totals, violation)) {
            (void)printf("sim: the undisturbed run of %u clients: %s\n", scenario.clients, violation);
            return false;
        }
        outcome->known = true;
    }
    *out = outcome->result;
    return true;
}

static int run_seed(uint64_t seed, bool verbose, struct totals *totals)
{
    struct scenario scenario = scenario_of(seed);
    scenario.verbose = verbose;
    struct hash128 result, calm;
    char violation[512];
    if (!run(&scenario, &result, totals, violation)) {
        (void)printf("sim: seed %llu: %s\n", (unsigned long long)seed, violation);
        return 1;
    }
    if (scenario.min_clients == scenario.clients && (!calm_result(&scenario, &calm) || !hash_equal(&result, &calm))) {
        (void)printf("sim: seed %llu: the model is not that of the undisturbed run\n", (unsigned long long)seed);
        return 1;
    }
    return 0;
}

static const char *const bugs[BUG_COUNT] = {
    [BUG_COUNT_TWICE] = "a contribution is counted twice",
    [BUG_ANNOUNCE_EARLY] = "a round is announced before it is durable",
    [BUG_LYING_DISK] = "the disk says synced and is not",
    [BUG_OWN_FEATURES] = "a client gets its own features",
    [BUG_SERVER_NO_TICK] = "the server loses its timer",
    [BUG_CLIENT_NO_TICK] = "a client loses its timer",
    [BUG_STALE_UPDATE] = "a stale update is mixed in",
    [BUG_FORGETFUL_WELCOME] = "WELCOME forgets what counted",
    [BUG_EARLY_COMMIT] = "ACCEPTED is taken for durable",
    [BUG_LOST_MOMENTUM] = "a restart forgets the optimiser's state",
    [BUG_SLOT_LEAKED] = "an upload slot is not given back",
    [BUG_LOST_PLACE] = "a place in the line for a slot is lost",
    [BUG_WRONG_WEIGHT] = "a weight is off by one",
    [BUG_FORGOT_DELIVERED] = "the round forgets who has delivered",
    [BUG_JOB_END_LOST] = "the end of a job is lost",
    [BUG_NO_FOLDER_SYNC] = "the folder of a checkpoint is not synced",
    [BUG_ERROR_IGNORED] = "a failed save is taken for a good one",
    [BUG_PENDING_LOST] = "a restarted client forgets what it handed in",
    [BUG_REFUSAL_FORGOTTEN] = "a refusal for good is taken for damage",
    [BUG_REFUSED_STAYS] = "a refused update is not taken out of the sum",
    [BUG_NO_SLOTS] = "no upload slot may be in use any more",
    [BUG_WALL_CLOCK] = "the server measures time on the wall clock",
    [BUG_SPOOL_STALE] = "a stale update lies in the spool",
    [BUG_NORMS_LOST] = "a restart forgets how long updates were",
    [BUG_RECALLED_STAYS] = "a recalled round is not taken out of the sum",
    [BUG_STATISTICS_FREE] = "an update's statistics are not measured",
    [BUG_LEECH] = "a client that gave no features gets some",
    [BUG_COPIES_STAY] = "features of others are taken for a client's own",
};

/* Seeds that found a mistake of the product, before it was mended; with it back they find it again. A change of what
 * the simulation draws asks for them to be found anew: put the mistake back, and look for the first seed that fails. */
static const struct {
    uint64_t seed;
    const char *found;
} remembered[] = {
    {534, "a contribution that an earlier process left was refused, and the client was never asked again"},
    {1232, "a contribution older than the last that counted, in a folder that was put back, was committed"},
};

/* A planted mistake must be found within this many seeds. */
#define BUG_SEEDS 100

static int find_bug(enum bug bug)
{
    char violation[512];
    struct totals totals = {0};
    for (uint64_t seed = 1; seed <= BUG_SEEDS; seed++) {
        struct scenario scenario = scenario_of(seed);
        scenario.bug = bug;
        if (!run(&scenario, NULL, &totals, violation)) {
            (void)printf("sim: planted: %s; found by seed %llu: %s\n", bugs[bug], (unsigned long long)seed, violation);
            return 0;
        }
    }
    (void)printf("sim: planted: %s; NOT found by %d seeds\n", bugs[bug], BUG_SEEDS);
    return 1;
}

/* A simulation that no longer meets what it was made for must not pass in silence. */
static int report(const struct totals *totals)
{
    int missing = 0;
    (void)printf("sim: %llu seeds, %llu faults, %llu steps\nsim: met", (unsigned long long)totals->runs,
                 (unsigned long long)totals->faults, (unsigned long long)totals->steps);
    for (int i = 0; sights[i]; i++) {
        (void)printf(" %s=%llu", sights[i], (unsigned long long)totals->seen[i]);
    }
    (void)printf("\n");
    for (int i = 0; sights[i] && totals->runs >= 500; i++) {
        if (totals->seen[i] == 0) {
            (void)printf("sim: never met: %s\n", sights[i]);
            missing++;
        }
    }
    return missing;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text ? text : "", &end, 10);
    if (!text || *end || end == text) {
        (void)fprintf(stderr, "usage: sim [--first N] [--seeds N] | --seed N [--verbose] | --bugs\n");
        exit(64);
    }
    return value;
}

int main(int argc, char **argv)
{
    uint64_t first = 1, count = 500;
    struct totals totals = {0};
    bool verbose = false, plant = false;
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--verbose") == 0) {
            verbose = true;
        } else if (strcmp(argv[i], "--bugs") == 0) {
            plant = true;
        } else if (strcmp(argv[i], "--seed") == 0) {
            first = number(next);
            count = 1;
            i++;
        } else if (strcmp(argv[i], "--first") == 0) {
            first = number(next);
            i++;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            count = number(next);
            i++;
        } else {
            (void)number(NULL);
        }
    }
    int failed = 0;
    for (int bug = BUG_NONE + 1; plant && bug < BUG_COUNT; bug++) {
        failed += find_bug((enum bug)bug);
    }
    for (uint64_t seed = first; !plant && seed < first + count; seed++) {
        failed += run_seed(seed, verbose, &totals);
    }
    for (size_t i = 0; !plant && count > 1 && i < sizeof remembered / sizeof remembered[0]; i++) {
        if (run_seed(remembered[i].seed, verbose, &totals)) {
            (void)printf("sim: seed %llu: once %s\n", (unsigned long long)remembered[i].seed, remembered[i].found);
            failed++;
        }
    }
    if (!plant) {
        failed += report(&totals);
    }
    (void)printf("sim: %s\n", failed ? "FAILED" : "passed");
    return failed ? 1 : 0;
}
