/* Batches made ahead: the right images in the right order, the same for any number of threads. */
#include "tests/unit/client/data/data_support.h"

#include "client/train/feeder.h"

#define IMAGES 10u
#define SIDE   8u
#define BATCH  4u
#define STEPS  9u
#define VIEW   ((size_t)3 * SIDE * SIDE)

struct world {
    struct scratch scratch;
    struct dataset *dataset;
    struct feeder_options options;
};

static int setup(void **state)
{
    struct world *w = mem_new(1, sizeof *w);
    assert_non_null(w);
    scratch_open(&w->scratch);
    for (uint32_t i = 0; i < IMAGES; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%u.png", i);
        put_png(&w->scratch, name, SIDE, SIDE, i);
    }
    struct dataset_options options = {.folder = w->scratch.path, .side = SIDE, .threads = 1};
    assert_int_equal(dataset_open(&options, &w->dataset, NULL), 0);
    w->options = (struct feeder_options){.dataset = w->dataset,
                                         .augment = {.crop_least = 0.3f, .flip = true},
                                         .batch = BATCH,
                                         .size = SIDE,
                                         .threads = 1,
                                         .seed = 5,
                                         .position = 7,
                                         .steps = STEPS};
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    dataset_close(w->dataset);
    scratch_close(&w->scratch);
    mem_free(w);
    return 0;
}

static void the_order_is_one_permutation_after_the_other(void **state)
{
    (void)state;
    struct feeder_order order;
    uint32_t first[IMAGES];
    unsigned moved = 0;
    assert_int_equal(feeder_order_init(&order, 3, IMAGES), 0);
    for (uint64_t epoch = 0; epoch < 4; epoch++) {
        uint32_t seen = 0;
        for (uint32_t i = 0; i < IMAGES; i++) {
            struct feeder_place place = feeder_order_at(&order, epoch * IMAGES + i);
            assert_int_equal(place.epoch, epoch);
            seen |= 1u << place.image;
            if (epoch == 0) {
                first[i] = place.image;
            } else {
                moved += first[i] != place.image;
            }
        }
        assert_int_equal(seen, (1u << IMAGES) - 1);
    }
    assert_true(moved > 15);
    /* Any place can be asked for directly. */
    assert_int_equal(feeder_order_at(&order, 4).image, first[4]);
    feeder_order_fini(&order);
}

/* All batches of a run, and what they should be, made here one by one. */
static float *collect(const struct feeder_options *options, uint32_t images[STEPS * BATCH])
{
    struct feeder *feeder;
    float *all = mem_new((size_t)2 * STEPS * BATCH, VIEW * sizeof(float));
    assert_non_null(all);
    assert_int_equal(feeder_new(options, &feeder, NULL), 0);
    for (size_t step = 0; step < STEPS; step++) {
        struct feeder_batch batch = feeder_next(feeder);
        memcpy(all + 2 * step * BATCH * VIEW, batch.view1, BATCH * VIEW * sizeof(float));
        memcpy(all + (2 * step + 1) * BATCH * VIEW, batch.view2, BATCH * VIEW * sizeof(float));
        memcpy(images + step * BATCH, batch.images, BATCH * sizeof *images);
    }
    feeder_free(feeder);
    return all;
}

static void batches_hold_the_views_that_their_names_say(void **state)
{
    struct world *w = *state;
    struct feeder_order order;
    float view[VIEW], scratch[AUGMENT_SCRATCH(SIDE)];
    assert_int_equal(feeder_order_init(&order, w->options.seed, IMAGES), 0);
    for (uint32_t threads = 1; threads <= 5; threads += 2) {
        w->options.threads = threads;
        uint32_t images[STEPS * BATCH];
        float *all = collect(&w->options, images);
        for (size_t i = 0; i < STEPS * BATCH; i++) {
            struct feeder_place place = feeder_order_at(&order, w->options.position + i);
            assert_int_equal(images[i], place.image);
            for (uint32_t v = 0; v < 2; v++) {
                augment_view(&w->options.augment, dataset_pixels(w->dataset, place.image), SIDE, SIDE, w->options.seed,
                             place.epoch, place.image, v, view, scratch);
                assert_memory_equal(all + ((2 * (i / BATCH) + v) * BATCH + i % BATCH) * VIEW, view, sizeof view);
            }
        }
        mem_free(all);
    }
    feeder_order_fini(&order);
}

static void it_can_be_ended_at_any_step(void **state)
{
    struct world *w = *state;
    w->options.threads = 3;
    for (uint32_t taken = 0; taken <= STEPS; taken++) {
        struct feeder *feeder;
        assert_int_equal(feeder_new(&w->options, &feeder, NULL), 0);
        for (uint32_t step = 0; step < taken; step++) {
            (void)feeder_next(feeder);
        }
        feeder_free(feeder); /* and does not hang */
    }
}

static void a_batch_larger_than_the_folder_repeats_images(void **state)
{
    struct world *w = *state;
    struct feeder *feeder;
    w->options.batch = 3 * IMAGES;
    w->options.position = 0;
    w->options.steps = 2;
    assert_int_equal(feeder_new(&w->options, &feeder, NULL), 0);
    const float *view1 = feeder_next(feeder).view1;
    for (size_t i = 0; i < w->options.batch; i++) { /* images repeat, views do not */
        for (size_t k = 0; k < i; k++) {
            assert_memory_not_equal(view1 + i * VIEW, view1 + k * VIEW, VIEW * sizeof(float));
        }
    }
    feeder_free(feeder);
}

static void running_out_of_memory_is_an_error(void **state)
{
    struct world *w = *state;
    unsigned failures = 0;
    for (uint64_t n = 1;; n++) {
        struct feeder *feeder;
        mem_fail_after(n);
        int rc = feeder_new(&w->options, &feeder, NULL);
        mem_fail_after(0);
        if (rc == 0) {
            feeder_free(feeder);
            break;
        }
        assert_int_equal(rc, ERR_NOMEM);
        assert_null(feeder);
        failures++;
    }
    assert_int_equal(failures, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_is_one_permutation_after_the_other),
        cmocka_unit_test_setup_teardown(batches_hold_the_views_that_their_names_say, setup, teardown),
        cmocka_unit_test_setup_teardown(it_can_be_ended_at_any_step, setup, teardown),
        cmocka_unit_test_setup_teardown(a_batch_larger_than_the_folder_repeats_images, setup, teardown),
        cmocka_unit_test_setup_teardown(running_out_of_memory_is_an_error, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
