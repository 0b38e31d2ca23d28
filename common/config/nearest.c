/* Optimal string alignment distance (Levenshtein with swaps of neighbours) by three rows of the usual table: words are
 * short, so the rows live on the stack. */
#include "common/config/nearest.h"

#include <string.h>

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

uint32_t nearest_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > NEAREST_WORD_MAX || m > NEAREST_WORD_MAX) {
        return UINT32_MAX;
    }
    uint32_t rows[3][NEAREST_WORD_MAX + 1];
    uint32_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++) {
        last[j] = (uint32_t)j;
    }
    for (size_t i = 1; i <= n; i++) {
        row[0] = (uint32_t)i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = smaller(last[j - 1] + (a[i - 1] != b[j - 1]), smaller(last[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = smaller(row[j], before[j - 2] + 1);
            }
        }
        uint32_t *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[m];
}

void nearest_offer(struct nearest *nearest, const char *word, const char *candidate)
{
    uint32_t distance = nearest_distance(word, candidate);
    size_t bound = strlen(word) / 3;
    if (distance <= (bound ? bound : 1) && (!nearest->name || distance < nearest->distance)) {
        nearest->name = candidate;
        nearest->distance = distance;
    }
}
