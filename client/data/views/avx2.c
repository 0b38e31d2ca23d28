/* Compiled with -mavx2; the processor is asked before it is called. */
#ifdef __AVX2__
#define VIEWS_NAME views_avx2
#include "client/data/views/body.h"
#endif
