/* The aggregate: the global model of the open round, and the exact sum of what was added to it.
 *
 * Memory: the global model, a 64-bit sum (two models), and, between agg_finish and agg_adopt, the next model: four
 * models; and, where the optimiser has a state (optimiser.h), this one and, in between, the next. The global model lies
 * in reference-counted bytes, as little-endian f32, so that the memory that is broadcast is the memory that is computed
 * with.
 *
 * Guarantees: an update is added as a whole or not at all; the sum, hence the next model, is the same bits for every
 * order of arrival (common/vec/fixed.h). agg_add, agg_check, agg_take_back, agg_apply, agg_finish and agg_restart may
 * run on another thread than the rest, one call at a time. */
#ifndef STARLING_AGG_AGG_H
#define STARLING_AGG_AGG_H

#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/vec/fixed.h"
#include "common/vec/layout.h"
#include "server/agg/optimiser.h"
#include "server/agg/rule.h"

struct agg;

/* Copies params ([layout->total]), optimiser and state (NULL: before the first round); keeps layout by reference.
 * ERR_NOMEM. */
int agg_new(const struct layout *layout, const float *params, const struct optimiser *optimiser, const float *state,
            struct agg **out);
void agg_free(struct agg *agg);

struct bytes *agg_model(const struct agg *agg); /* borrowed */
const float *agg_params(const struct agg *agg); /* the same memory */
uint64_t agg_weight(const struct agg *agg);     /* of all that was added */

/* Adds weight times the update ([layout->total]); one that is refused leaves no trace. *tensor (may be NULL) is the
 * first offending tensor. The caller bounds the sum of weights by FIXED_WEIGHT_MAX. */
enum fixed_verdict agg_add(struct agg *agg, const float *update, uint64_t weight, uint32_t *tensor);
/* Whether agg_add would take the update. */
enum fixed_verdict agg_check(const struct agg *agg, const float *update, uint32_t *tensor);
/* Undoes, to the bit, one agg_add of this update and weight since agg_restart. */
void agg_take_back(struct agg *agg, const float *update, uint64_t weight);

/* In place of agg_add: the sum becomes what a rule (rule.h) makes of all updates of the round, which agg_check took, so
 * that agg_finish finds it there as if it were their mean. May be tried again. Errors: those of rule_apply. */
int agg_apply(struct agg *agg, const struct rule *rule, const struct updates *updates, bool *kept, struct err *err);

/* What the optimiser makes of global model and weighted mean: *next, with one reference, and its state then,
 * *next_state (NULL: it has none). Sum and state stay as they are until agg_adopt, so that this may be tried again and
 * counts once. The weight must not be 0. ERR_NOMEM. */
int agg_finish(const struct agg *agg, struct bytes **next, struct bytes **next_state);
/* Empties the sum, and gives it the resolution that `next` asks for. */
void agg_restart(struct agg *agg, const struct bytes *next);
/* `next`, for which the sum was restarted, becomes the global model, and next_state the optimiser's state; their
 * references move. */
void agg_adopt(struct agg *agg, struct bytes *next, struct bytes *next_state);

#endif
