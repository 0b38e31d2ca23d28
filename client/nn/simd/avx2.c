/* Compiled with -mavx2; the processor is asked before it is called. */
#ifdef __AVX2__
#define SIMD_NAME simd_avx2
#include "client/nn/simd/body.h"
#endif
