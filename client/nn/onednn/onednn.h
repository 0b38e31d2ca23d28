/* What oneDNN can do on this processor; the convolutions themselves stand behind conv.h. */
#ifndef STARLING_NN_ONEDNN_H
#define STARLING_NN_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>

/* Whether the program was built with it. The others answer false or "none" where it was not. */
bool onednn_present(void);
bool onednn_has_avx512(void); /* as oneDNN sees it: DNNL_MAX_CPU_ISA counts */
bool onednn_has_bf16(void);
/* "oneDNN 2.6.3, AVX-512 with bf16": what measured choices depend on besides the processor. */
void onednn_text(char *out, size_t size);
/* oneDNN was built with OpenMP and asks it how many threads to use, when a primitive is made and when it runs. The
 * calling thread's answer becomes one: parallelism is the workers' business. */
void onednn_single_thread(void);
/* out [n, n] = a * b, all row-major, with as many threads as are given: the machine's matrix rate, for benchmarks. */
void onednn_sgemm(size_t n, const float *a, const float *b, float *out, int threads);

#endif
