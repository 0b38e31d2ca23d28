/* How good are frozen features? Pure functions of feature rows and labels. */
#ifndef STARLING_NN_JUDGE_H
#define STARLING_NN_JUDGE_H

#include "common/base/err.h"

#include <stdint.h>

/* Weighted k-nearest neighbours by cosine (Wu et al., CVPR 2018): votes exp(cos / temperature). k is lowered to
 * train_n. Rows need not be normalised; zero rows count as equal to nothing. Labels in [0, classes).
 * *top1: share of test rows whose heaviest class is theirs; ties go to the lower class. ERR_NOMEM. */
int judge_knn(const float *train, const uint32_t *train_labels, uint32_t train_n, const float *test,
              const uint32_t *test_labels, uint32_t test_n, uint32_t d, uint32_t classes, uint32_t k, float temperature,
              double *top1, struct err *err);

/* Linear probe: softmax regression on features standardised by the training rows, minibatch SGD with momentum and a
 * cosine schedule, settings fixed and stated in judge.c; deterministic. *objective (NULL: not wanted): what it
 * minimised, over all training rows, where it stopped. */
int judge_linear(const float *train, const uint32_t *train_labels, uint32_t train_n, const float *test,
                 const uint32_t *test_labels, uint32_t test_n, uint32_t d, uint32_t classes, double *top1,
                 double *objective, struct err *err);

#endif
