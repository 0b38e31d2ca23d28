/* The images of a folder and their classes, found without decoding any. */
#ifndef STARLING_TOOL_LISTING_H
#define STARLING_TOOL_LISTING_H

#include "client/data/scan.h"

struct listing {
    struct scan scan;
    const char **paths; /* [count] of what begins like an image; relative, bytewise order */
    uint32_t count;
    struct classes classes; /* of these paths */
};

/* ERR_DATA with the path: a folder that is missing or holds no JPEG or PNG image. Outputs are safe for listing_fini. */
int listing_find(const char *folder, struct listing *out, struct err *err);
void listing_fini(struct listing *listing);

#endif
