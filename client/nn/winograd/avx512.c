/* Compiled for AVX-512 F, BW, VL and DQ; the processor is asked before it is called. */
#ifdef __AVX512DQ__
#define WINOGRAD_NAME winograd_avx512
#include "client/nn/winograd/body.h"
#endif
