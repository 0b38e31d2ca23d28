/* What a model file holds, as text and as JSON. */
#ifndef STARLING_TOOL_INSPECT_H
#define STARLING_TOOL_INSPECT_H

#include "common/base/buf.h"
#include "common/vec/modelfile.h"

struct json_t;

/* {run round plan_hash layout parameters tensors[{name shape}]}; NULL when out of memory. */
struct json_t *inspect_json(const struct model_info *info, const struct layout *layout);
int inspect_text(const struct model_info *info, const struct layout *layout, struct buf *out);

#endif
