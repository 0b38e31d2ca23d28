/* The header of a .npy file, always 128 bytes, so that the floats start aligned:
 *
 *   offset  size  field
 *        0     6  "\x93NUMPY"
 *        6     2  version, 1 and 0
 *        8     2  length of the rest of the header, little-endian: 118
 *       10   118  a Python dict literal, padded with spaces, ending with a newline
 *
 * The longest dict, with two numbers of 20 digits, has 104 bytes. */
#include "client/tool/npy.h"

#include "common/base/byteorder.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void npy_header(uint64_t rows, uint64_t columns, uint8_t out[NPY_HEADER_BYTES])
{
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    store_u16(out + 8, NPY_HEADER_BYTES - 10);
    char dict[NPY_HEADER_BYTES];
    int n = snprintf(dict, sizeof dict,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu64 "), }", rows, columns);
    memset(out + 10, ' ', NPY_HEADER_BYTES - 10);
    memcpy(out + 10, dict, (size_t)n);
    out[NPY_HEADER_BYTES - 1] = '\n';
}
