/* The queue and the draw of negatives. */
#include "tests/unit/client/nn/nn_support.h"

#include "client/nn/negatives.h"

#define ROWS 10u
#define D    4u

/* Rows that say who they are: row i is (i, i, i, i). */
static float *named_rows(uint32_t n, float first)
{
    float *rows = test_floats((size_t)n * D);
    for (size_t i = 0; i < (size_t)n * D; i++) {
        rows[i] = first + (float)(i / D);
    }
    return rows;
}

static void oldest_keys_leave_first(void **state)
{
    (void)state;
    struct queue queue;
    float *keys = named_rows(25, 0);
    assert_int_equal(queue_init(&queue, ROWS, D, NULL), 0);
    queue_reset(&queue, 1);
    float start = queue_row(&queue, 4)[0];
    queue_push(&queue, keys, NULL, 4);
    assert_true(queue_row(&queue, 0)[0] == start); /* the first four random rows went */
    assert_true(queue_row(&queue, 9)[0] == 3.0f);
    for (uint32_t i = 4; i < 13; i += 3) {
        queue_push(&queue, keys + (size_t)i * D, NULL, 3); /* across the seam of the ring */
    }
    for (uint32_t i = 0; i < ROWS; i++) {
        assert_true(queue_row(&queue, i)[0] == (float)(3 + i));
    }
    queue_push(&queue, keys, NULL, 25); /* more than fit */
    for (uint32_t i = 0; i < ROWS; i++) {
        assert_true(queue_row(&queue, i)[D - 1] == (float)(15 + i));
    }
    queue_fini(&queue);
    mem_free(keys);
}

static void the_start_is_a_function_of_the_seed(void **state)
{
    (void)state;
    struct queue a, b, c;
    assert_int_equal(queue_init(&a, ROWS, D, NULL), 0);
    queue_reset(&a, 1);
    assert_int_equal(queue_init(&b, ROWS, D, NULL), 0);
    queue_reset(&b, 1);
    assert_int_equal(queue_init(&c, ROWS, D, NULL), 0);
    queue_reset(&c, 2);
    assert_memory_equal(a.data, b.data, ROWS * D * sizeof(float));
    assert_true(memcmp(a.data, c.data, ROWS * D * sizeof(float)) != 0);
    assert_int_equal(queue_check_rows(a.data, ROWS, D, "start", NULL), 0);
    queue_fini(&a);
    queue_fini(&b);
    queue_fini(&c);
}

/* How often each row of n is among `count` drawn, over many steps; and never twice in one. */
static void draws_are_fair_and_without_replacement(void **state)
{
    (void)state;
    enum { REMOTE = 20, STEPS = 4000 };
    struct queue queue;
    struct negatives negatives;
    float *keys = named_rows(ROWS, 100), *remote = named_rows(REMOTE, 0);
    uint32_t seen[110] = {0};
    assert_int_equal(queue_init(&queue, ROWS, D, NULL), 0);
    queue_reset(&queue, 1);
    uint32_t images[ROWS];
    for (uint32_t i = 0; i < ROWS; i++) {
        images[i] = 1000 + i;
    }
    queue_push(&queue, keys, images, ROWS);
    assert_int_equal(negatives_init(&negatives, ROWS, REMOTE, D, NULL), 0);
    for (uint64_t step = 0; step < STEPS; step++) {
        negatives_draw(&negatives, &queue, remote, REMOTE, 0.4f, 9, step);
        assert_int_equal(negatives.remote, 4);
        assert_int_equal(negatives.local, 6);
        bool here[110] = {false};
        for (size_t i = 0; i < ROWS; i++) {
            size_t name = (size_t)negatives.data[i * D];
            assert_true(name < 110 && (name >= 100) == (i >= 4)); /* remote ones first */
            assert_int_equal(negatives.image[i], i >= 4 ? 900 + name : QUEUE_NO_IMAGE);
            assert_false(here[name]);
            here[name] = true;
            seen[name]++;
        }
    }
    for (size_t i = 0; i < REMOTE; i++) { /* expected 800, standard deviation 25 */
        assert_true(seen[i] > 675 && seen[i] < 925);
    }
    for (size_t i = 100; i < 110; i++) { /* expected 2400, standard deviation 31 */
        assert_true(seen[i] > 2245 && seen[i] < 2555);
    }
    negatives_fini(&negatives);
    queue_fini(&queue);
    mem_free(keys);
    mem_free(remote);
}

static void all_of_them_are_taken_in_order(void **state)
{
    (void)state;
    struct queue queue;
    struct negatives negatives;
    float *keys = named_rows(ROWS, 100), *remote = named_rows(5, 0);
    assert_int_equal(queue_init(&queue, ROWS, D, NULL), 0);
    queue_reset(&queue, 1);
    queue_push(&queue, keys, NULL, ROWS);
    assert_int_equal(negatives_init(&negatives, ROWS, 5, D, NULL), 0);
    negatives_draw(&negatives, &queue, NULL, 0, 1, 9, 0);
    assert_int_equal(negatives.local, ROWS);
    assert_memory_equal(negatives.data, keys, ROWS * D * sizeof(float));
    negatives_draw(&negatives, &queue, remote, 5, 0.5f, 9, 0);
    assert_memory_equal(negatives.data, remote, 5 * D * sizeof(float));
    assert_int_equal(negatives.local, 5);
    negatives_draw(&negatives, &queue, remote, 5, 1, 9, 0); /* remote only, though they are few */
    assert_int_equal(negatives.remote, 5);
    assert_int_equal(negatives.local, 0);
    negatives_fini(&negatives);
    queue_fini(&queue);
    mem_free(keys);
    mem_free(remote);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oldest_keys_leave_first),
        cmocka_unit_test(the_start_is_a_function_of_the_seed),
        cmocka_unit_test(draws_are_fair_and_without_replacement),
        cmocka_unit_test(all_of_them_are_taken_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
