/* Features that lie: repeats and copies, what an honest cohort, a collapsed one and sites with the same images are
 * taken for, and how much of the bank one client can get. */
#include "common/base/rng.h"
#include "server/bank/screen.h"
#include "tests/unit/server/bank/bank_support.h"

enum { WIDE = 32, ROWS = 100 };

static struct rng rng;

/* `spread` 0: every row lies in one place. */
static void draw(float *rows, uint32_t count, float spread)
{
    for (uint32_t r = 0; r < count; r++) {
        float *row = rows + (size_t)r * WIDE, length = 0;
        for (uint32_t d = 0; d < WIDE; d++) {
            row[d] = (d == 0 ? 1 : 0) + spread * rng_range(&rng, -1, 1);
            length += row[d] * row[d];
        }
        for (uint32_t d = 0; d < WIDE; d++) {
            row[d] /= sqrtf(length);
        }
    }
}

/* A little noise, so that no bit is the same. */
static void blur(float *to, const float *from, uint32_t count)
{
    for (uint32_t i = 0; i < count * WIDE; i++) {
        to[i] = from[i] * (1 + 1e-4f * rng_range(&rng, -1, 1));
    }
}

struct cohort {
    struct bank *bank;
    struct bank_intake *intake;
    float *rows; /* [ROWS, WIDE] scratch */
};

static int set_up(void **state)
{
    struct cohort *c = mem_new(1, sizeof *c);
    rng_init(&rng, 3, RNG_TEST, 0, 0, 0);
    assert_int_equal(bank_new(1000, WIDE, &c->bank), 0);
    assert_int_equal(bank_intake_new(1000, WIDE, &c->intake), 0);
    c->rows = mem_new((size_t)4 * ROWS * WIDE, sizeof *c->rows);
    *state = c;
    return 0;
}

static int tear_down(void **state)
{
    struct cohort *c = *state;
    bank_free(c->bank);
    bank_intake_free(c->intake);
    mem_free(c->rows);
    mem_free(c);
    return 0;
}

static void contribute(struct cohort *c, const char *owner, uint32_t round)
{
    assert_int_equal(bank_intake_add(c->intake, owner, round, c->rows, ROWS), 0);
}

static const float *first_of(const struct bank *bank, const char *owner)
{
    for (uint32_t o = 0; o < bank->owners_count; o++) {
        if (strcmp(bank->owners[o].name, owner) == 0) {
            return bank->features + (size_t)bank->owners[o].first * bank->dimension;
        }
    }
    fail();
    return NULL;
}

/* Three honest sites. */
static void fill(struct cohort *c, float spread)
{
    static const char *const names[] = {"a", "b", "c"};
    for (int n = 0; n < 3; n++) {
        draw(c->rows, ROWS, spread);
        contribute(c, names[n], 1);
    }
    turn(&c->bank, c->intake);
}

static void honest_rows_are_neither(void **state)
{
    struct cohort *c = *state;
    struct screen screen;
    fill(c, 1);
    draw(c->rows, ROWS, 1);
    assert_false(screen_copies(c->bank, "a", c->rows, ROWS, &screen));
    assert_int_equal(screen.looked, SCREEN_LOOKS);
    assert_int_equal(screen.copied, 0);
    assert_int_equal(screen_repeats(c->rows, ROWS, WIDE), ROWS);
    /* Its own rows of a round before are its own. */
    blur(c->rows, first_of(c->bank, "a"), ROWS);
    assert_false(screen_copies(c->bank, "a", c->rows, ROWS, &screen));
    assert_true(screen_copies(c->bank, "d", c->rows, ROWS, &screen)); /* and nobody else's: the planted mistake */
}

static void copies_are_found(void **state)
{
    struct cohort *c = *state;
    struct screen screen;
    fill(c, 1);
    for (uint32_t share = 0; share <= ROWS; share += 10) { /* so many rows of b's, the others its own */
        draw(c->rows, ROWS, 1);
        for (uint32_t r = 0; r < ROWS; r++) {
            if (r % 10 < share / 10) {
                blur(c->rows + (size_t)r * WIDE, first_of(c->bank, "b") + (size_t)r * WIDE, 1);
            }
        }
        bool copies = screen_copies(c->bank, "a", c->rows, ROWS, &screen);
        assert_true(share < 40 ? !copies || share > 20 : copies);
    }
    assert_int_equal(screen.copied, SCREEN_LOOKS);
    assert_int_equal(screen.sample, SCREEN_LOOKS);
    assert_int_equal(screen.common, 0);
    assert_false(screen_copies(c->bank, "a", c->rows, SCREEN_LEAST - 1, &screen)); /* too few to tell */
    assert_true(screen_copies(c->bank, "a", c->rows, SCREEN_LEAST, &screen));
    /* Scaled within what passes for unit length, it is found all the same. */
    for (uint32_t i = 0; i < ROWS * WIDE; i++) {
        c->rows[i] *= 0.9992f;
    }
    assert_int_equal(bank_check(c->rows, ROWS, WIDE, NULL), BANK_OK);
    assert_true(screen_copies(c->bank, "a", c->rows, ROWS, &screen));
}

/* Rows that differ in their first numbers alone, and in length as far as both may: the cosine says what is near. (A
 * bound of 1.5e-4 for the squared distance of heads in screen.c, too small for the lengths, is what this must catch.)
 */
static void the_cosine_alone_decides(void **state)
{
    struct cohort *c = *state;
    for (int far = 0; far <= 1; far++) {
        draw(c->rows, ROWS, 1);
        for (uint32_t i = 0; i < ROWS * WIDE; i++) {
            c->rows[i] *= 0.9991f;
        }
        contribute(c, "b", 1 + (uint32_t)far);
        for (uint32_t r = 0; r < ROWS; r++) {
            float *row = c->rows + (size_t)r * WIDE, x = row[0], y = row[1];
            double cosine = far ? SCREEN_COSINE - 1e-5 : SCREEN_COSINE + 1e-5, sine = sqrt(1 - cosine * cosine);
            for (uint32_t d = 0; d < WIDE; d++) {
                row[d] = (float)(1.0009 / 0.9991 * cosine * (double)row[d]);
            }
            row[0] -= (float)(1.0009 * sine) * y / hypotf(x, y); /* at a right angle to what it was */
            row[1] += (float)(1.0009 * sine) * x / hypotf(x, y);
        }
        assert_int_equal(bank_check(c->rows, ROWS, WIDE, NULL), BANK_OK);
        turn(&c->bank, c->intake);
        struct screen screen;
        assert_int_equal(screen_copies(c->bank, "a", c->rows, ROWS, &screen), !far);
        assert_int_equal(screen.copied, far ? 0 : SCREEN_LOOKS);
    }
}

/* Everybody's rows lie in one place: nobody copies, and each gets in with what it has to say. */
static void a_collapsed_cohort_is_not_locked_out(void **state)
{
    struct cohort *c = *state;
    struct screen screen;
    fill(c, 1e-4f);
    draw(c->rows, ROWS, 1e-4f);
    assert_false(screen_copies(c->bank, "a", c->rows, ROWS, &screen));
    assert_int_equal(screen.copied, SCREEN_LOOKS);
    assert_int_equal(screen.common, SCREEN_LOOKS);
    assert_int_equal(screen_repeats(c->rows, ROWS, WIDE), 1);
}

/* Two sites alone, whose encoder has collapsed: there is no third to compare with. */
static void nor_are_two_sites(void **state)
{
    struct cohort *c = *state;
    struct screen screen;
    draw(c->rows, ROWS, 1e-4f);
    contribute(c, "b", 1);
    turn(&c->bank, c->intake);
    draw(c->rows, ROWS, 1e-4f);
    assert_false(screen_copies(c->bank, "a", c->rows, ROWS, &screen));
}

/* Two that hold the same images, and an encoder that hardly moves any more. */
static void the_same_images_are_no_copy(void **state)
{
    struct cohort *c = *state;
    struct screen screen;
    draw(c->rows, ROWS, 1);
    contribute(c, "a", 1);
    contribute(c, "b", 1);
    turn(&c->bank, c->intake);
    blur(c->rows, first_of(c->bank, "a"), ROWS);
    assert_false(screen_copies(c->bank, "a", c->rows, ROWS, &screen));
    assert_int_equal(screen.copied, SCREEN_LOOKS);
}

static void repeats_are_dropped(void **state)
{
    struct cohort *c = *state;
    for (uint32_t times = 1; times <= 4; times++) { /* each row so often */
        draw(c->rows, ROWS, 1);
        float *all = mem_new((size_t)ROWS * times * WIDE, sizeof *all);
        for (uint32_t r = 0; r < ROWS * times; r++) {
            blur(all + (size_t)r * WIDE, c->rows + (size_t)(r / times) * WIDE, 1);
        }
        assert_int_equal(screen_repeats(all, ROWS * times, WIDE), ROWS);
        for (uint32_t r = 0; r < ROWS; r++) { /* one of each, in order */
            assert_true(fabsf(all[(size_t)r * WIDE + 1] - c->rows[(size_t)r * WIDE + 1]) < 1e-3f);
        }
        mem_free(all);
    }
    /* A few are let be: an image may be there twice. */
    draw(c->rows, ROWS, 1);
    blur(c->rows + (size_t)50 * WIDE, c->rows, 5);
    assert_int_equal(screen_repeats(c->rows, ROWS, WIDE), ROWS);
    /* And a batch that is too small to tell. */
    draw(c->rows, SCREEN_LEAST - 1, 0);
    assert_int_equal(screen_repeats(c->rows, SCREEN_LEAST - 1, WIDE), SCREEN_LEAST - 1);
    assert_int_equal(screen_repeats(c->rows, 0, WIDE), 0);
}

/* However much one client sends, the others have their share: quotas are the bank's own. */
static void one_client_cannot_fill_the_bank(void **state)
{
    struct cohort *c = *state;
    struct bank_intake *intake;
    struct bank *bank;
    assert_int_equal(bank_new(100, WIDE, &bank), 0);
    assert_int_equal(bank_intake_new(100, WIDE, &intake), 0);
    for (uint32_t round = 1; round <= 5; round++) {
        static const char *const names[] = {"honest-1", "honest-2", "honest-3", "greedy"};
        for (int n = 0; n < 4; n++) {
            draw(c->rows, 4 * ROWS, 1);
            assert_int_equal(bank_intake_add(intake, names[n], round, c->rows, n == 3 ? 4 * ROWS : 5), 0);
        }
        turn(&bank, intake);
        for (uint32_t o = 0; o < bank->owners_count; o++) {
            assert_int_equal(bank->owners[o].count, strcmp(bank->owners[o].name, "greedy") == 0 ? 25
                                                    : 5 * round < 25                            ? 5 * round
                                                                                                : 25);
        }
    }
    bank_free(bank);
    bank_intake_free(intake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(honest_rows_are_neither, set_up, tear_down),
        cmocka_unit_test_setup_teardown(copies_are_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_cosine_alone_decides, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_collapsed_cohort_is_not_locked_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nor_are_two_sites, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_same_images_are_no_copy, set_up, tear_down),
        cmocka_unit_test_setup_teardown(repeats_are_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_client_cannot_fill_the_bank, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
