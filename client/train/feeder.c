/* The feeder: two slots of one batch each. While the trainer reads one, the threads fill the other.
 *
 * The unit of work is one image of one batch (both views). Units are numbered, and handed out in order as long as their
 * batch lies less than two ahead of what the trainer gave back. Which thread makes a view does not matter: a view is a
 * function of its name. One lock guards the counters; views are written outside it, each to its own place. */
#include "client/train/feeder.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <assert.h>
#include <pthread.h>

#define THREADS_MAX 64

int feeder_order_init(struct feeder_order *order, uint64_t seed, uint32_t count)
{
    *order = (struct feeder_order){.seed = seed, .epoch = UINT64_MAX, .count = count};
    order->images = mem_new(count, sizeof *order->images);
    return order->images ? 0 : ERR_NOMEM;
}

void feeder_order_fini(struct feeder_order *order)
{
    mem_free(order->images);
    order->images = NULL;
}

struct feeder_place feeder_order_at(struct feeder_order *order, uint64_t position)
{
    uint64_t epoch = position / order->count;
    if (epoch != order->epoch) {
        struct rng rng;
        rng_init(&rng, order->seed, RNG_ORDER, epoch, 0, 0);
        rng_permutation(&rng, order->images, order->count);
        order->epoch = epoch;
    }
    return (struct feeder_place){.image = order->images[position % order->count], .epoch = epoch};
}

struct slot {
    float *views;     /* [2, batch, 3, size, size] */
    uint32_t *images; /* [batch] */
    uint64_t *epochs; /* [batch] */
    uint32_t done;    /* images whose views are written */
};

struct feeder {
    struct feeder_options options;
    size_t view_floats;
    struct slot slots[2];
    float *scratch; /* [threads, AUGMENT_SCRATCH(size)] */
    pthread_mutex_t lock;
    pthread_cond_t work, ready;
    /* Under the lock: */
    struct feeder_order order;
    uint64_t issued;   /* units handed out */
    uint32_t given;    /* batches given to the trainer */
    uint32_t returned; /* batches the trainer is done with */
    uint32_t joined;   /* threads that took a number */
    bool quit;
    pthread_t threads[THREADS_MAX];
    uint32_t started;
};

/* Under the lock: the next unit's slot and place in it, NULL when the threads must wait. */
static struct slot *take_unit(struct feeder *feeder, uint32_t *index)
{
    uint32_t batch = feeder->options.batch;
    uint64_t step = feeder->issued / batch;
    if (step >= feeder->options.steps || step >= (uint64_t)feeder->returned + 2) {
        return NULL;
    }
    struct slot *slot = &feeder->slots[step % 2];
    *index = (uint32_t)(feeder->issued % batch);
    if (*index == 0) {
        slot->done = 0;
    }
    struct feeder_place place = feeder_order_at(&feeder->order, feeder->options.position + feeder->issued);
    slot->images[*index] = place.image;
    slot->epochs[*index] = place.epoch;
    feeder->issued++;
    return slot;
}

static void make_views(const struct feeder *feeder, struct slot *slot, uint32_t index, float *scratch)
{
    const struct feeder_options *o = &feeder->options;
    uint32_t image = slot->images[index];
    for (uint32_t view = 0; view < 2; view++) {
        augment_view(&o->augment, dataset_pixels(o->dataset, image), dataset_side(o->dataset), o->size, o->seed,
                     slot->epochs[index], image, view,
                     slot->views + ((size_t)view * o->batch + index) * feeder->view_floats, scratch);
    }
}

static void *feeder_work(void *argument)
{
    struct feeder *feeder = argument;
    (void)pthread_mutex_lock(&feeder->lock);
    float *scratch = feeder->scratch + AUGMENT_SCRATCH(feeder->options.size) * feeder->joined++;
    while (!feeder->quit) {
        uint32_t index;
        struct slot *slot = take_unit(feeder, &index);
        if (!slot) {
            (void)pthread_cond_wait(&feeder->work, &feeder->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&feeder->lock);
        make_views(feeder, slot, index, scratch);
        (void)pthread_mutex_lock(&feeder->lock);
        if (++slot->done == feeder->options.batch) {
            (void)pthread_cond_signal(&feeder->ready);
        }
    }
    (void)pthread_mutex_unlock(&feeder->lock);
    return NULL;
}

uint64_t feeder_memory(uint32_t batch, uint32_t size)
{
    return (uint64_t)2 * 2 * batch * 3 * size * size * sizeof(float); /* slots, views */
}

static int take_memory(struct feeder *feeder)
{
    const struct feeder_options *o = &feeder->options;
    feeder->view_floats = (size_t)3 * o->size * o->size;
    feeder->scratch = mem_new_aligned(o->threads, AUGMENT_SCRATCH(o->size) * sizeof(float));
    for (int i = 0; i < 2; i++) {
        feeder->slots[i].views = mem_new_aligned((size_t)2 * o->batch, feeder->view_floats * sizeof(float));
        feeder->slots[i].images = mem_new(o->batch, sizeof *feeder->slots[i].images);
        feeder->slots[i].epochs = mem_new(o->batch, sizeof *feeder->slots[i].epochs);
        if (!feeder->slots[i].views || !feeder->slots[i].images || !feeder->slots[i].epochs) {
            return ERR_NOMEM;
        }
    }
    int rc = feeder_order_init(&feeder->order, o->seed, dataset_count(o->dataset));
    return feeder->scratch ? rc : ERR_NOMEM;
}

static void release_memory(struct feeder *feeder)
{
    feeder_order_fini(&feeder->order);
    for (int i = 0; i < 2; i++) {
        mem_free(feeder->slots[i].views);
        mem_free(feeder->slots[i].images);
        mem_free(feeder->slots[i].epochs);
    }
    mem_free(feeder->scratch);
    mem_free(feeder);
}

int feeder_new(const struct feeder_options *options, struct feeder **out, struct err *err)
{
    *out = NULL;
    struct feeder *feeder = mem_new(1, sizeof *feeder);
    if (!feeder) {
        return err_set(err, ERR_NOMEM, "no memory for batches of views");
    }
    feeder->options = *options;
    feeder->options.threads = options->threads < 1             ? 1
                              : options->threads > THREADS_MAX ? THREADS_MAX
                                                               : options->threads;
    if (take_memory(feeder)) {
        release_memory(feeder);
        return err_set(err, ERR_NOMEM, "no memory for two batches of %u pairs of views", options->batch);
    }
    /* On Linux the default kinds of these three need no resources and cannot fail. */
    (void)pthread_mutex_init(&feeder->lock, NULL);
    (void)pthread_cond_init(&feeder->work, NULL);
    (void)pthread_cond_init(&feeder->ready, NULL);
    while (feeder->started < feeder->options.threads &&
           pthread_create(&feeder->threads[feeder->started], NULL, feeder_work, feeder) == 0) {
        feeder->started++;
    }
    if (feeder->started == 0) {
        feeder_free(feeder);
        return err_set(err, ERR_FAILED, "cannot start a thread that makes views");
    }
    *out = feeder;
    return 0;
}

void feeder_free(struct feeder *feeder)
{
    if (!feeder) {
        return;
    }
    (void)pthread_mutex_lock(&feeder->lock);
    feeder->quit = true;
    (void)pthread_cond_broadcast(&feeder->work);
    (void)pthread_mutex_unlock(&feeder->lock);
    for (uint32_t i = 0; i < feeder->started; i++) {
        (void)pthread_join(feeder->threads[i], NULL);
    }
    (void)pthread_cond_destroy(&feeder->ready);
    (void)pthread_cond_destroy(&feeder->work);
    (void)pthread_mutex_destroy(&feeder->lock);
    release_memory(feeder);
}

struct feeder_batch feeder_next(struct feeder *feeder)
{
    const struct feeder_options *o = &feeder->options;
    (void)pthread_mutex_lock(&feeder->lock);
    assert(feeder->given < o->steps);
    struct slot *slot = &feeder->slots[feeder->given % 2];
    if (feeder->given > 0) {
        feeder->returned++;
        (void)pthread_cond_broadcast(&feeder->work);
    }
    while (feeder->issued < ((uint64_t)feeder->given + 1) * o->batch || slot->done < o->batch) {
        (void)pthread_cond_wait(&feeder->ready, &feeder->lock);
    }
    feeder->given++;
    (void)pthread_mutex_unlock(&feeder->lock);
    return (struct feeder_batch){slot->images, slot->views, slot->views + feeder->view_floats * o->batch};
}
