/* The header of a NumPy file of format 1.0: a float32 array [rows, columns], row-major. */
#ifndef STARLING_TOOL_NPY_H
#define STARLING_TOOL_NPY_H

#include <stddef.h>
#include <stdint.h>

#define NPY_HEADER_BYTES 128
void npy_header(uint64_t rows, uint64_t columns, uint8_t out[NPY_HEADER_BYTES]);

#endif
