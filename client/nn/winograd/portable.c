#define WINOGRAD_NAME winograd_portable
#include "client/nn/winograd/body.h"
