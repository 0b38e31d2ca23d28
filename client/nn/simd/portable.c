#define SIMD_NAME simd_portable
#include "client/nn/simd/body.h"
