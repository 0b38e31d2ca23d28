/* Charts as SVG text: lines over one axis, and dots in the plane. Colours are Okabe and Ito's, told apart by most eyes,
 * and then repeated, lines with other dashes. */
#ifndef STARLING_TOOL_CHART_H
#define STARLING_TOOL_CHART_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct chart_line {
    const char *name;
    const double *x, *y; /* [count]; a point that is not finite is left out */
    uint32_t count;
};
struct chart {
    const char *title, *x_label, *y_label;
    bool log_x; /* x > 0 then */
    const struct chart_line *lines;
    uint32_t lines_count;
};
int chart_lines(const struct chart *chart, struct buf *out);

struct chart_panel {
    const char *title;
    const uint32_t *group;    /* [dots] which name each dot has */
    const char *const *names; /* [groups] */
    uint32_t groups;
};
/* The same dots once a panel, side by side. x, y: [dots]. */
int chart_dots(const char *title, const float *x, const float *y, uint32_t dots, const struct chart_panel *panels,
               uint32_t panels_count, struct buf *out);

#endif
