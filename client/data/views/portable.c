#define VIEWS_NAME views_portable
#include "client/data/views/body.h"
