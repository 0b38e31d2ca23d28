#include "common/base/watch.h"

#include "common/base/byteorder.h"

#define RANK_MOST 65536.0

/* Comparisons with what is not a number are false, so that is not sane either. */
bool watch_is_sane(const struct watch *w)
{
    return w->alignment >= 0 && w->alignment < 4.1 && w->uniformity > -8.1 && w->uniformity < 0.1 &&
           w->deviation >= 0 && w->deviation < 1.1 && w->rank >= 1 && w->rank <= RANK_MOST;
}

void watch_store(uint8_t out[WATCH_BYTES], const struct watch *watch)
{
    const struct watch none = {0}, *w = watch->measured ? watch : &none;
    store_f64(out, w->alignment);
    store_f64(out + 8, w->uniformity);
    store_f64(out + 16, w->deviation);
    store_f64(out + 24, w->rank);
}

struct watch watch_load(const uint8_t in[WATCH_BYTES])
{
    struct watch watch = {true, load_f64(in), load_f64(in + 8), load_f64(in + 16), load_f64(in + 24)};
    return watch_is_sane(&watch) ? watch : (struct watch){0};
}
