/* In place of the other files of this folder where the program is built without oneDNN. */
#include "client/nn/conv.h"
#include "client/nn/onednn/onednn.h"

#include <stdio.h>

bool onednn_present(void)
{
    return false;
}

bool onednn_has_avx512(void)
{
    return false;
}

bool onednn_has_bf16(void)
{
    return false;
}

void onednn_text(char *out, size_t size)
{
    (void)snprintf(out, size, "no oneDNN");
}

void onednn_single_thread(void)
{
}

void onednn_sgemm(size_t n, const float *a, const float *b, float *out, int threads)
{
    (void)n, (void)a, (void)b, (void)out, (void)threads;
}

const struct conv_backend *conv_onednn(void)
{
    return NULL;
}
