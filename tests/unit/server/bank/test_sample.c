/* Samples: never one's own, without repeats, evenly spread, a function of what names them. The check that finds one's
 * own rows is itself checked against a sampler with a planted bug. */
#include "tests/unit/server/bank/bank_support.h"

#include "common/base/rng.h"

enum { OWNERS = 6, MOST = 64 };

/* Owner k has 3 + 5 k rows. */
static struct bank *make_bank(uint64_t seed)
{
    struct bank *bank;
    struct bank_intake *intake;
    struct rng rng;
    rng_init(&rng, seed, RNG_TEST, 0, 0, 0);
    assert_int_equal(bank_new(1000, DIMENSION, &bank), 0);
    assert_int_equal(bank_intake_new(1000, DIMENSION, &intake), 0);
    for (uint32_t owner = 0; owner < OWNERS; owner++) {
        assert_int_equal(add(intake, owner, 1, 3 + 5 * owner), 0);
    }
    turn(&bank, intake);
    bank_intake_free(intake);
    return bank;
}

typedef uint32_t (*sampler)(const struct bank *bank, uint64_t seed, uint32_t round, const char *receiver, uint32_t most,
                            uint32_t *out);

/* The bug: the receiver is told apart by the length of its name alone, so that none of them is left out. */
static uint32_t buggy_sample(const struct bank *bank, uint64_t seed, uint32_t round, const char *receiver,
                             uint32_t most, uint32_t *out)
{
    char other[NAME_MAX_BYTES];
    (void)snprintf(other, sizeof other, "%.*s?", (int)strlen(receiver) - 1, receiver);
    return bank_sample(bank, seed, round, other, most, out);
}

/* How many samples of many hold a row of their receiver. */
static uint32_t count_own(sampler sample)
{
    uint32_t bad = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct bank *bank = make_bank(seed);
        for (uint32_t owner = 0; owner < OWNERS; owner++) {
            char name[NAME_MAX_BYTES];
            uint32_t rows[MOST], most = 1 + (uint32_t)(seed % MOST);
            uint32_t count = sample(bank, seed, (uint32_t)seed % 7, name_of(owner, name), most, rows);
            bool own = false;
            for (uint32_t i = 0; i < count; i++) {
                own |= owner_of(bank, rows[i]) == owner;
            }
            bad += own;
        }
        bank_free(bank);
    }
    return bad;
}

static void never_ones_own(void **state)
{
    (void)state;
    assert_int_equal(count_own(bank_sample), 0);
    assert_true(count_own(buggy_sample) > 500); /* The check sees it. */
}

static void no_row_twice_and_as_many_as_asked(void **state)
{
    (void)state;
    struct bank *bank = make_bank(0);
    uint32_t available = bank->rows - (3 + 5 * 2);
    for (uint32_t most = 0; most <= available + 3; most++) {
        uint32_t rows[200], count = bank_sample(bank, 5, 1, "site-2", most, rows);
        bool seen[200] = {false};
        assert_int_equal(count, most < available ? most : available);
        for (uint32_t i = 0; i < count; i++) {
            assert_true(rows[i] < bank->rows);
            assert_false(seen[rows[i]]);
            seen[rows[i]] = true;
        }
    }
    bank_free(bank);
}

static void spread_evenly_as_far_as_rows_allow(void **state)
{
    (void)state;
    struct bank *bank = make_bank(0);
    for (uint32_t most = 0; most <= 64; most++) {
        uint32_t rows[MOST], per[OWNERS] = {0};
        uint32_t count = bank_sample(bank, 3, 9, "site-5", most, rows);
        for (uint32_t i = 0; i < count; i++) {
            per[owner_of(bank, rows[i])]++;
        }
        assert_int_equal(per[5], 0);
        for (uint32_t a = 0; a < 5; a++) { /* Nobody gives two fewer than another while it still has rows. */
            for (uint32_t b = 0; b < 5; b++) {
                assert_true(per[a] + 1 >= per[b] || per[a] == 3 + 5 * a);
            }
        }
    }
    bank_free(bank);
}

static void named_by_seed_round_and_receiver(void **state)
{
    (void)state;
    struct bank *bank = make_bank(0), *again = make_bank(1);
    uint32_t a[20], b[20];
    assert_int_equal(bank_sample(bank, 1, 2, "site-9", 20, a), 20); /* a stranger gets from everybody */
    assert_int_equal(bank_sample(again, 1, 2, "site-9", 20, b), 20);
    assert_memory_equal(a, b, sizeof a);
    (void)bank_sample(bank, 2, 2, "site-9", 20, b);
    assert_memory_not_equal(a, b, sizeof a);
    (void)bank_sample(bank, 1, 3, "site-9", 20, b);
    assert_memory_not_equal(a, b, sizeof a);
    (void)bank_sample(bank, 1, 2, "site-8", 20, b);
    assert_memory_not_equal(a, b, sizeof a);
    bank_free(bank);
    bank_free(again);
}

static bool holds_newest(const struct bank *bank, const uint32_t *rows, uint32_t count)
{
    uint32_t per[OWNERS] = {0};
    bool seen[200] = {false};
    for (uint32_t i = 0; i < count; i++) {
        seen[rows[i]] = true;
        per[owner_of(bank, rows[i])]++;
    }
    for (uint32_t i = 0; i < bank->owners_count; i++) {
        for (uint32_t r = 0; r < per[i]; r++) {
            if (!seen[bank->owners[i].first + r]) {
                return false;
            }
        }
    }
    return true;
}

/* Each owner gives its newest rows; a sample that took others is seen. */
static void newest_first(void **state)
{
    (void)state;
    struct bank *bank = make_bank(0);
    for (uint32_t round = 0; round < 50; round++) {
        uint32_t rows[MOST], count = bank_sample(bank, 1, round, "site-0", 10 + round, rows);
        assert_int_equal(count, 10 + round);
        assert_true(holds_newest(bank, rows, count));
        for (uint32_t i = 0; i < count; i++) {
            if (rows[i] == find(bank, 5)->first) {
                rows[i] += 27; /* its oldest */
            }
        }
        assert_false(holds_newest(bank, rows, count));
    }
    bank_free(bank);
}

/* The bug: rows as the bank has them, one owner after the other. */
static uint32_t sorted_sample(const struct bank *bank, uint64_t seed, uint32_t round, const char *receiver,
                              uint32_t most, uint32_t *out)
{
    uint32_t count = bank_sample(bank, seed, round, receiver, most, out);
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t k = i; k > 0 && out[k - 1] > out[k]; k--) {
            uint32_t row = out[k];
            out[k] = out[k - 1];
            out[k - 1] = row;
        }
    }
    return count;
}

/* How often the row after a row is of the same owner. Five owners give 8 rows each, so it is 7 in 39 times if the order
 * tells nothing. A sample's share has a variance of less than 0.18 / 39 * 2, so that 0.01 is 4.6 standard deviations of
 * the mean of 2,000: and the seeds are fixed. */
static double same_as_before(sampler sample)
{
    uint32_t same = 0, pairs = 0;
    struct bank *bank = make_bank(0);
    for (uint64_t seed = 0; seed < 2000; seed++) {
        uint32_t rows[MOST], count = sample(bank, seed, 3, "site-0", 40, rows);
        uint32_t before = OWNERS;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t owner = owner_of(bank, rows[i]);
            same += owner == before;
            pairs += i > 0;
            before = owner;
        }
    }
    bank_free(bank);
    return (double)same / pairs;
}

static void the_order_does_not_tell_the_owner(void **state)
{
    (void)state;
    const double chance = 7.0 / 39;
    assert_true(fabs(same_as_before(bank_sample) - chance) < 0.01);
    assert_true(same_as_before(sorted_sample) > 0.8);
}

enum { LIKE = 5, EACH = 8 };

/* Five owners of eight rows each; the rows that say they are owner k's belong to the one `turned` places on. */
static struct bank *make_turned(uint32_t turned)
{
    struct bank *bank;
    struct bank_intake *intake;
    assert_int_equal(bank_new(1000, DIMENSION, &bank), 0);
    assert_int_equal(bank_intake_new(1000, DIMENSION, &intake), 0);
    for (uint32_t owner = 0; owner < LIKE; owner++) {
        char name[NAME_MAX_BYTES];
        float features[EACH * DIMENSION];
        for (uint32_t i = 0; i < EACH; i++) {
            mark(features + (size_t)i * DIMENSION, owner, 1, i);
        }
        assert_int_equal(bank_intake_add(intake, name_of((owner + turned) % LIKE, name), 1, features, EACH), 0);
    }
    turn(&bank, intake);
    bank_intake_free(intake);
    return bank;
}

/* Rows change hands and nothing else does: the receiver gets the same bytes. A drawn order alone does not do: receivers
 * know the seed, and can undo it. */
static void what_is_sent_does_not_depend_on_whose_it_is(void **state)
{
    (void)state;
    for (uint32_t turned = 1; turned < LIKE; turned++) {
        struct bank *bank = make_turned(0), *other = make_turned(turned);
        uint32_t a[MOST], b[MOST];
        assert_int_equal(bank_sample(bank, 1, 2, "site-9", LIKE * EACH, a), LIKE * EACH);
        assert_int_equal(bank_sample(other, 1, 2, "site-9", LIKE * EACH, b), LIKE * EACH);
        for (uint32_t i = 0; i < LIKE * EACH; i++) {
            assert_memory_equal(bank->features + (size_t)a[i] * DIMENSION, other->features + (size_t)b[i] * DIMENSION,
                                DIMENSION * sizeof(float));
        }
        bank_free(bank);
        bank_free(other);
    }
}

static void others_are_counted(void **state)
{
    (void)state;
    struct bank *bank = make_bank(0), *empty;
    assert_int_equal(bank_others(bank, "site-3"), OWNERS - 1);
    assert_int_equal(bank_others(bank, "stranger"), OWNERS);
    assert_true(bank_has(bank, "site-3"));
    assert_false(bank_has(bank, "stranger") || bank_has(bank, "site-") || bank_has(bank, "site-33"));
    bank_free(bank);
    assert_int_equal(bank_new(10, DIMENSION, &empty), 0);
    assert_int_equal(bank_others(empty, "site-3"), 0);
    assert_false(bank_has(empty, "site-3"));
    bank_free(empty);
}

static void an_empty_bank_gives_nothing(void **state)
{
    (void)state;
    struct bank *bank;
    uint32_t rows[4];
    assert_int_equal(bank_new(10, DIMENSION, &bank), 0);
    assert_int_equal(bank_sample(bank, 1, 1, "site-1", 4, rows), 0);
    bank_free(bank);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_ones_own),
        cmocka_unit_test(no_row_twice_and_as_many_as_asked),
        cmocka_unit_test(spread_evenly_as_far_as_rows_allow),
        cmocka_unit_test(named_by_seed_round_and_receiver),
        cmocka_unit_test(newest_first),
        cmocka_unit_test(the_order_does_not_tell_the_owner),
        cmocka_unit_test(what_is_sent_does_not_depend_on_whose_it_is),
        cmocka_unit_test(others_are_counted),
        cmocka_unit_test(an_empty_bank_gives_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
