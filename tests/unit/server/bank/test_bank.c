/* Quotas, replacement, independence of the order of arrival, the bound on memory, and the bytes. */
#include "tests/unit/server/bank/bank_support.h"

#include "common/base/byteorder.h"
#include "common/base/rng.h"

static void rows_are_checked(void **state)
{
    (void)state;
    float rows[3 * DIMENSION];
    uint32_t row = 9;
    for (uint32_t i = 0; i < 3; i++) {
        mark(rows + i * DIMENSION, 1, 1, i);
    }
    assert_int_equal(bank_check(rows, 3, DIMENSION, &row), BANK_OK);
    rows[DIMENSION + 3] += 0.0005f; /* within the tolerance */
    assert_int_equal(bank_check(rows, 3, DIMENSION, &row), BANK_OK);
    rows[DIMENSION + 3] += 0.01f;
    assert_int_equal(bank_check(rows, 3, DIMENSION, &row), BANK_NOT_UNIT);
    assert_int_equal(row, 1);
    rows[DIMENSION + 3] = NAN;
    assert_int_equal(bank_check(rows, 3, DIMENSION, &row), BANK_NOT_FINITE);
    rows[DIMENSION + 3] = INFINITY;
    assert_int_equal(bank_check(rows, 3, DIMENSION, NULL), BANK_NOT_FINITE);
    rows[DIMENSION + 3] = 1e30f; /* finite, and so is its square in double */
    assert_int_equal(bank_check(rows, 3, DIMENSION, NULL), BANK_NOT_UNIT);
    memset(rows, 0, sizeof rows);
    assert_int_equal(bank_check(rows, 3, DIMENSION, NULL), BANK_NOT_UNIT);
}

static void each_owner_has_its_quota(void **state)
{
    (void)state;
    struct bank *bank;
    struct bank_intake *intake;
    assert_int_equal(bank_new(100, DIMENSION, &bank), 0);
    assert_int_equal(bank_intake_new(100, DIMENSION, &intake), 0);
    assert_int_equal(add(intake, 1, 1, 80), 0);
    turn(&bank, intake);
    assert_int_equal(find(bank, 1)->count, 80); /* alone: the whole bank is its quota */

    assert_int_equal(add(intake, 2, 2, 80), 0);
    assert_int_equal(add(intake, 3, 2, 10), 0);
    turn(&bank, intake);
    assert_int_equal(bank->owners_count, 3); /* 100 / 3 */
    assert_int_equal(find(bank, 1)->count, 33);
    assert_int_equal(find(bank, 2)->count, 33);
    assert_int_equal(find(bank, 3)->count, 10);
    assert_int_equal(bank->rows, 76);
    bank_free(bank);
    bank_intake_free(intake);
}

static void new_rows_replace_an_owners_older_ones_first(void **state)
{
    (void)state;
    struct bank *bank;
    struct bank_intake *intake;
    assert_int_equal(bank_new(20, DIMENSION, &bank), 0);
    assert_int_equal(bank_intake_new(20, DIMENSION, &intake), 0);
    (void)add(intake, 1, 1, 10);
    (void)add(intake, 2, 1, 10);
    turn(&bank, intake);
    (void)add(intake, 1, 2, 4);
    turn(&bank, intake);
    const struct bank_owner *one = find(bank, 1), *two = find(bank, 2);
    assert_int_equal(one->count, 10);
    assert_int_equal(two->count, 10); /* Nothing was taken from it. */
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(bank->rounds[one->first + i], i < 4 ? 2 : 1); /* newest first */
        assert_int_equal(number_of(bank, one->first + i), i < 4 ? i : i - 4);
        assert_int_equal(bank->rounds[two->first + i], 1);
        assert_int_equal(owner_of(bank, one->first + i), 1);
    }
    bank_free(bank);
    bank_intake_free(intake);
}

/* Several rounds, each batch in a shuffled order: the bytes are the same, and nothing ever exceeds the capacity. */
static void arrival_leaves_no_trace_and_capacity_holds(void **state)
{
    (void)state;
    enum { OWNERS = 9, ROUNDS = 4 };
    static const uint32_t capacities[] = {64, 20, 5, 1, 0}; /* also fewer rows than owners */
    for (size_t k = 0; k < sizeof capacities / sizeof capacities[0]; k++) {
        struct bank *reference = NULL;
        for (uint64_t seed = 0; seed < 8; seed++) {
            struct bank *bank;
            struct bank_intake *intake;
            assert_int_equal(bank_new(capacities[k], DIMENSION, &bank), 0);
            assert_int_equal(bank_intake_new(capacities[k], DIMENSION, &intake), 0);
            for (uint32_t round = 1; round <= ROUNDS; round++) {
                uint32_t order[OWNERS];
                for (uint32_t i = 0; i < OWNERS; i++) {
                    order[i] = i;
                }
                struct rng rng;
                rng_init(&rng, seed, RNG_TEST, round, 0, 0);
                rng_permute(&rng, order, OWNERS);
                for (uint32_t i = 0; i < OWNERS; i++) {
                    if ((order[i] + round) % 3 == 0) {
                        continue; /* not everybody contributes in every round */
                    }
                    assert_int_equal(add(intake, order[i], round, 1 + order[i] * 3), 0);
                    assert_true(bank_intake_rows(intake) <= capacities[k]);
                }
                turn(&bank, intake);
                assert_true(bank->rows <= capacities[k]);
                assert_true(capacities[k] == 0 || bank->rows > 0);
            }
            bank_intake_free(intake);
            if (reference) {
                assert_same_bank(bank, reference);
                bank_free(bank);
            } else {
                reference = bank;
            }
        }
        bank_free(reference);
    }
}

static void more_owners_than_rows_take_turns(void **state)
{
    (void)state;
    enum { OWNERS = 40, CAPACITY = 10, ROUNDS = 30 };
    struct bank *bank;
    struct bank_intake *intake;
    uint32_t stayed[OWNERS] = {0}, never = 0;
    assert_int_equal(bank_new(CAPACITY, DIMENSION, &bank), 0);
    assert_int_equal(bank_intake_new(CAPACITY, DIMENSION, &intake), 0);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        for (uint32_t owner = 0; owner < OWNERS; owner++) {
            (void)add(intake, owner, round, 3);
        }
        turn(&bank, intake);
        assert_int_equal(bank->rows, CAPACITY);
        assert_int_equal(bank->owners_count, CAPACITY);
        for (uint32_t i = 0; i < CAPACITY; i++) {
            assert_int_equal(bank->rounds[i], round); /* the newest stay */
            stayed[owner_of(bank, i)]++;
        }
    }
    for (uint32_t owner = 0; owner < OWNERS; owner++) {
        never += stayed[owner] == 0;
    }
    assert_true(never <= 2); /* (3/4)^30 is nearly nothing */
    bank_free(bank);
    bank_intake_free(intake);
}

/* ---- Bytes ---- */

static struct bank *sample_bank(uint32_t capacity)
{
    struct bank *bank;
    struct bank_intake *intake;
    assert_int_equal(bank_new(capacity, DIMENSION, &bank), 0);
    assert_int_equal(bank_intake_new(capacity, DIMENSION, &intake), 0);
    (void)add(intake, 1, 1, 6);
    (void)add(intake, 2, 1, 3);
    turn(&bank, intake);
    (void)add(intake, 1, 2, 2);
    turn(&bank, intake);
    bank_intake_free(intake);
    return bank;
}

static void bytes_come_back(void **state)
{
    (void)state;
    struct bank *bank = sample_bank(30), *back, *empty;
    uint8_t *bytes;
    uint64_t len;
    assert_int_equal(bank_encode(bank, &bytes, &len), 0);
    assert_int_equal(len, 24 + 72 * 2 + 11 * 4 + 11 * 4 * DIMENSION);
    assert_int_equal(bank_decode(bytes, len, 30, DIMENSION, &back, NULL), 0);
    assert_int_equal(back->capacity, 30);
    assert_same_bank(bank, back);
    bank_free(back);

    /* A lowered capacity: the quotas of the smaller bank hold. */
    assert_int_equal(bank_decode(bytes, len, 6, DIMENSION, &back, NULL), 0);
    assert_int_equal(back->rows, 6);
    assert_int_equal(find(back, 1)->count, 3);
    assert_int_equal(back->rounds[0], 2);
    bank_free(back);
    mem_free(bytes);
    bank_free(bank);

    assert_int_equal(bank_new(30, DIMENSION, &empty), 0);
    assert_int_equal(bank_encode(empty, &bytes, &len), 0);
    assert_int_equal(bank_decode(bytes, len, 30, DIMENSION, &back, NULL), 0);
    assert_int_equal(back->rows, 0);
    bank_free(back);
    bank_free(empty);
    mem_free(bytes);
}

static void damaged_bytes_are_refused(void **state)
{
    (void)state;
    struct bank *bank = sample_bank(30), *back = bank;
    uint8_t *bytes, kept;
    uint64_t len;
    struct err err;
    assert_int_equal(bank_encode(bank, &bytes, &len), 0);
    for (uint64_t cut = 0; cut < len; cut++) {
        assert_int_equal(bank_decode(bytes, cut, 30, DIMENSION, &back, &err), ERR_DATA);
        assert_null(back);
    }
    assert_int_equal(bank_decode(bytes, len, 30, DIMENSION + 1, &back, &err), ERR_DATA);

    const uint64_t owners = 24, rounds = owners + 2 * 72, rows = rounds + 11 * 4;
    const struct {
        uint64_t at;
        uint8_t value;
        const char *says;
    } damages[] = {
        {0, 'X', "version"},        {4, 2, "version"},
        {20, 1, "version"},         {8, 5, "plan says"},
        {12, 3, "do not hold"},     {16, 12, "do not hold"},
        {owners + 2, 0, "behind"},  {owners + 63, 'x', "behind"},
        {owners, ' ', "name"},      {owners + 5, '3', "name"},
        {owners + 64, 9, "claims"}, {owners + 64, 0, "claims"},
        {owners + 64, 7, "owners"}, {owners + 68, 1, "claims"},
        {rounds + 4, 3, "newer"},   {rows + 3, 0x7f, "unit"},
    };
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        kept = bytes[damages[i].at];
        bytes[damages[i].at] = damages[i].value;
        assert_int_equal(bank_decode(bytes, len, 30, DIMENSION, &back, &err), ERR_DATA);
        assert_null(back);
        if (!strstr(err.text, damages[i].says)) {
            fail_msg("damage %zu: \"%s\" does not say \"%s\"", i, err.text, damages[i].says);
        }
        bytes[damages[i].at] = kept;
    }
    mem_free(bytes);
    bank_free(bank);
}

/* Rows of rounds 1 to 6 for owner 1, of 1 and 2 for owner 2, of 6 for owner 3. */
static void old_rows_expire(void **state)
{
    (void)state;
    for (uint32_t oldest = 0; oldest <= 7; oldest++) {
        struct bank *bank, *again;
        struct bank_intake *intake;
        assert_int_equal(bank_new(100, DIMENSION, &bank), 0);
        assert_int_equal(bank_intake_new(100, DIMENSION, &intake), 0);
        for (uint32_t round = 1; round <= 6; round++) {
            (void)add(intake, 1, round, 2);
            (void)(round <= 2 && add(intake, 2, round, 3));
            (void)(round == 6 && add(intake, 3, round, 4));
            turn(&bank, intake);
        }
        uint32_t before = oldest ? oldest - 1 : 0, second = before < 2 ? 3 * (2 - before) : 0;
        bank_expire(bank, oldest);
        assert_int_equal(bank->rows, 2 * (6 - before) + second + (before < 6 ? 4 : 0));
        assert_int_equal(bank->owners_count, before == 6 ? 0 : second ? 3 : 2);
        for (uint32_t i = 0; i < bank->owners_count; i++) {
            const struct bank_owner *owner = &bank->owners[i];
            for (uint32_t r = owner->first; r < owner->first + owner->count; r++) {
                char name[NAME_MAX_BYTES];
                assert_true(bank->rounds[r] >= oldest);
                assert_string_equal(owner->name, name_of(owner_of(bank, r), name));
            }
        }
        uint8_t *bytes; /* and it is a bank still */
        uint64_t len;
        assert_int_equal(bank_encode(bank, &bytes, &len), 0);
        assert_int_equal(bank_decode(bytes, len, 100, DIMENSION, &again, NULL), 0);
        assert_same_bank(bank, again);
        for (uint32_t a = 0; a < bank->rows; a++) { /* ranked alike, so that a restarted server samples alike */
            for (uint32_t b = 0; b < a; b++) {
                assert_int_equal(bank->rank[a] < bank->rank[b], again->rank[a] < again->rank[b]);
            }
        }
        mem_free(bytes);
        bank_free(again);
        bank_free(bank);
        bank_intake_free(intake);
    }
}

static void want_of_memory_leaves_everything_as_it_was(void **state)
{
    (void)state;
    struct bank *bank = sample_bank(30), *next = NULL;
    struct bank_intake *intake;
    assert_int_equal(bank_intake_new(30, DIMENSION, &intake), 0);
    float row[DIMENSION];
    mark(row, 5, 3, 0);
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_after(n);
        assert_int_equal(bank_intake_add(intake, "site-5", 3, row, 1), ERR_NOMEM);
        mem_fail_after(0);
        assert_int_equal(bank_intake_rows(intake), 0);
    }
    assert_int_equal(bank_intake_add(intake, "site-5", 3, row, 1), 0);
    uint64_t n = 0;
    while (!next) {
        mem_fail_after(++n);
        int rc = bank_merge(bank, intake, &next);
        mem_fail_after(0);
        assert_int_equal(rc, next ? 0 : ERR_NOMEM);
        assert_int_equal(bank_intake_rows(intake), 1);
    }
    uint8_t *bytes;
    uint64_t len;
    mem_fail_after(1);
    assert_int_equal(bank_encode(next, &bytes, &len), ERR_NOMEM);
    mem_fail_after(0);
    assert_int_equal(bank_encode(next, &bytes, &len), 0);
    struct bank *back = NULL;
    for (n = 0; !back;) { /* with trimming, which allocates most */
        mem_fail_after(++n);
        int rc = bank_decode(bytes, len, 6, DIMENSION, &back, NULL);
        mem_fail_after(0);
        assert_int_equal(rc, back ? 0 : ERR_NOMEM);
    }
    assert_true(n > 5);
    struct bank_intake *none;
    struct bank *nothing;
    mem_fail_after(1);
    assert_int_equal(bank_intake_new(1, 1, &none), ERR_NOMEM);
    assert_int_equal(bank_new(1, 1, &nothing), ERR_NOMEM);
    mem_fail_after(0);
    mem_free(bytes);
    bank_free(back);
    bank_free(next);
    bank_free(bank);
    bank_intake_free(intake);
    bank_intake_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_checked),
        cmocka_unit_test(each_owner_has_its_quota),
        cmocka_unit_test(new_rows_replace_an_owners_older_ones_first),
        cmocka_unit_test(arrival_leaves_no_trace_and_capacity_holds),
        cmocka_unit_test(more_owners_than_rows_take_turns),
        cmocka_unit_test(bytes_come_back),
        cmocka_unit_test(damaged_bytes_are_refused),
        cmocka_unit_test(old_rows_expire),
        cmocka_unit_test(want_of_memory_leaves_everything_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
