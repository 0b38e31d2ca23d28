/* Compiled for AVX-512 F, BW, VL and DQ; the processor is asked before it is called. */
#ifdef __AVX512DQ__
#define VIEWS_NAME views_avx512
#include "client/data/views/body.h"
#endif
