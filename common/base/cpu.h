/* What the processor has, for code that is compiled once for each instruction set. False on other architectures. */
#ifndef STARLING_BASE_CPU_H
#define STARLING_BASE_CPU_H

#include <stdbool.h>

bool cpu_has_avx2(void);
bool cpu_has_avx512(void); /* F, BW, VL and DQ: what avx512.c files are compiled for */

#endif
