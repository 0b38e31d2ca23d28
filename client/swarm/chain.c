/* The expected models; chain.h says what makes them exact. */
#include "client/swarm/chain.h"

#include "common/base/mem.h"
#include "common/vec/fixed.h"

#include <string.h>

#define STEP_BITS 20

int chain_init(struct chain *chain, const struct stream *stream, uint64_t seed, uint32_t round)
{
    *chain = (struct chain){.stream = stream, .round = round, .known = round == 1};
    chain->model = mem_new_aligned((size_t)stream->layout->total, sizeof *chain->model);
    if (!chain->model) {
        return ERR_NOMEM;
    }
    if (chain->known) {
        params_init(stream->layout, seed, chain->model);
    }
    return 0;
}

void chain_fini(struct chain *chain)
{
    mem_free(chain->model);
    chain->model = NULL;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The steps of the server's sum are fine enough for 2^-20. They would not be for a model of very large numbers. */
static int check_steps(const struct layout *layout, const float *model, struct err *err)
{
    int32_t *shifts = mem_new(layout->count, sizeof *shifts);
    int rc = shifts ? 0 : err_set(err, ERR_NOMEM, "out of memory for a comparison");
    if (rc == 0) {
        fixed_shifts(layout, model, shifts);
    }
    for (uint32_t t = 0; t < layout->count && rc == 0; t++) {
        if (shifts[t] < STEP_BITS) {
            rc = err_set(err, ERR_DATA, "the numbers of %s are too large for a swarm: what it adds would be rounded",
                         layout->tensors[t].name);
        }
    }
    mem_free(shifts);
    return rc;
}

int chain_judge(struct chain *chain, const float *got, struct err *err)
{
    const struct layout *layout = chain->stream->layout;
    for (uint64_t i = 0; chain->known && i < layout->total; i++) {
        if (bits_of(got[i]) != bits_of(chain->model[i])) {
            return err_set(err, ERR_FAILED, "the model of round %u is wrong: number %llu is %a, expected %a",
                           chain->round, (unsigned long long)i, (double)got[i], (double)chain->model[i]);
        }
    }
    if (!chain->known) {
        memcpy(chain->model, got, (size_t)layout->total * sizeof *got);
        chain->known = true;
    }
    return check_steps(layout, got, err);
}

void chain_advance(struct chain *chain, uint64_t plus, uint64_t minus)
{
    double net = plus > minus ? (double)(plus - minus) : -(double)(minus - plus), weight = (double)(plus + minus);
    for (uint64_t i = 0; chain->known && i < chain->stream->layout->total; i++) {
        double sum = net * ((double)chain->stream->numbers[i] * 0x1p-20);
        double mean = sum == 0 ? 0 : sum / weight; /* a whole number has no -0 */
        chain->model[i] = (float)((double)chain->model[i] + mean);
    }
    chain->round++;
}
