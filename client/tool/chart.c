#include "client/tool/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH     760.0
#define HEIGHT    440.0
#define LEFT      64.0
#define RIGHT     190.0 /* for the names */
#define TOP       44.0
#define BOTTOM    52.0
#define PANEL     430.0
#define TICKS_MAX 20
#define COLOURS   (sizeof colours / sizeof colours[0])

static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
                                      "#56b4e9", "#000000", "#999999", "#b3a100", "#7a4fbf"};
static const char *const dashes[] = {"none", "6 3", "2 3"};

/* Text between tags. */
static int escape(const char *text, struct buf *out)
{
    int rc = 0;
    for (; rc == 0 && *text; text++) {
        const char *as = (unsigned char)*text < 0x20 ? "?"
                         : *text == '<'              ? "&lt;"
                         : *text == '>'              ? "&gt;"
                         : *text == '&'              ? "&amp;"
                                                     : NULL;
        rc = as ? buf_append(out, as, strlen(as)) : buf_append(out, text, 1);
    }
    return rc;
}

static int label(double x, double y, const char *anchor, const char *text, struct buf *out)
{
    int rc = buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    rc = rc ? rc : escape(text, out);
    return rc ? rc : buf_printf(out, "</text>\n");
}

static int head(double width, double height, const char *title, struct buf *out)
{
    int rc = buf_printf(out,
                        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f "
                        "%.0f\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n"
                        "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
                        width, height, width, height);
    return rc ? rc : label(width / 2, 22, "middle", title, out);
}

struct axis {
    double least, most; /* in what is drawn: logarithms on a logarithmic axis */
    double from, to;    /* pixels */
    bool log;
};

static double place(const struct axis *axis, double value)
{
    double v = axis->log ? log10(value) : value;
    return axis->from + (v - axis->least) / (axis->most - axis->least) * (axis->to - axis->from);
}

static bool drawn(const struct chart *chart, double x, double y)
{
    return isfinite(x) && isfinite(y) && (!chart->log_x || x > 0);
}

static void find_range(const struct chart *chart, struct axis *x, struct axis *y)
{
    *x = (struct axis){.least = INFINITY, .most = -INFINITY, .from = LEFT, .to = WIDTH - RIGHT, .log = chart->log_x};
    *y = (struct axis){.least = INFINITY, .most = -INFINITY, .from = HEIGHT - BOTTOM, .to = TOP};
    for (uint32_t l = 0; l < chart->lines_count; l++) {
        for (uint32_t i = 0; i < chart->lines[l].count; i++) {
            double at = chart->lines[l].x[i], value = chart->lines[l].y[i];
            if (drawn(chart, at, value)) {
                at = chart->log_x ? log10(at) : at;
                x->least = fmin(x->least, at);
                x->most = fmax(x->most, at);
                y->least = fmin(y->least, value);
                y->most = fmax(y->most, value);
            }
        }
    }
    struct axis *both[] = {x, y};
    for (uint32_t i = 0; i < 2; i++) {
        if (!(both[i]->least < both[i]->most)) { /* one value, or none at all */
            double middle = isfinite(both[i]->least) ? both[i]->least : 0;
            both[i]->least = middle - 0.5;
            both[i]->most = middle + 0.5;
        }
    }
    double margin = 0.05 * (y->most - y->least);
    y->least -= margin;
    y->most += margin;
}

/* About five ticks a linear axis, at 1, 2 or 5 times a power of ten. */
static double tick_step(const struct axis *axis)
{
    double raw = (axis->most - axis->least) / 5, power = pow(10, floor(log10(raw))), part = raw / power;
    return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static int tick(const struct axis *axis, bool upright, double value, struct buf *out)
{
    char text[32];
    double at = place(axis, value);
    (void)snprintf(text, sizeof text, "%.6g", fabs(value) < 1e-12 ? 0 : value);
    int rc = upright ? buf_printf(out, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/>\n", LEFT, at, WIDTH - RIGHT)
                     : buf_printf(out, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#ddd\"/>\n", at, TOP, HEIGHT - BOTTOM);
    return rc        ? rc
           : upright ? label(LEFT - 6, at + 4, "end", text, out)
                     : label(at, HEIGHT - BOTTOM + 16, "middle", text, out);
}

static int ticks(const struct axis *axis, bool upright, struct buf *out)
{
    int rc = 0;
    if (!axis->log) {
        double step = tick_step(axis);
        double first = ceil(axis->least / step);
        for (uint32_t i = 0; rc == 0 && i < TICKS_MAX && (first + i) * step <= axis->most + 1e-9 * step; i++) {
            rc = tick(axis, upright, (first + i) * step, out);
        }
        return rc;
    }
    static const double within[] = {1, 2, 5};
    for (double power = floor(axis->least); rc == 0 && power <= axis->most; power++) {
        for (uint32_t i = 0; rc == 0 && i < 3; i++) {
            double v = pow(10, power) * within[i];
            if (log10(v) >= axis->least - 1e-9 && log10(v) <= axis->most + 1e-9) {
                rc = tick(axis, upright, v, out);
            }
        }
    }
    return rc;
}

static int draw_line(const struct chart *chart, uint32_t number, const struct axis *x, const struct axis *y,
                     struct buf *out)
{
    const struct chart_line *line = &chart->lines[number];
    const char *colour = colours[number % COLOURS], *dash = dashes[number / COLOURS % 3];
    double beside = TOP + 8 + 20 * number;
    int rc =
        buf_printf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\" points=\"",
                   colour, dash);
    for (uint32_t i = 0; rc == 0 && i < line->count; i++) {
        if (drawn(chart, line->x[i], line->y[i])) {
            rc = buf_printf(out, "%.1f,%.1f ", place(x, line->x[i]), place(y, line->y[i]));
        }
    }
    rc = rc ? rc : buf_printf(out, "\"/>\n");
    for (uint32_t i = 0; rc == 0 && i < line->count; i++) {
        if (drawn(chart, line->x[i], line->y[i])) {
            rc = buf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", place(x, line->x[i]),
                            place(y, line->y[i]), colour);
        }
    }
    rc = rc ? rc
            : buf_printf(out, "<path d=\"M%.1f %.1fh20\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\"/>\n",
                         WIDTH - RIGHT + 14, beside, colour, dash);
    return rc ? rc : label(WIDTH - RIGHT + 40, beside + 4, "start", line->name, out);
}

int chart_lines(const struct chart *chart, struct buf *out)
{
    struct axis x, y;
    find_range(chart, &x, &y);
    int rc = head(WIDTH, HEIGHT, chart->title, out);
    rc = rc ? rc : ticks(&x, false, out);
    rc = rc ? rc : ticks(&y, true, out);
    rc = rc ? rc : label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "middle", chart->x_label, out);
    rc = rc ? rc : buf_printf(out, "<g transform=\"translate(16 %.1f) rotate(-90)\">", (TOP + HEIGHT - BOTTOM) / 2);
    rc = rc ? rc : label(0, 0, "middle", chart->y_label, out);
    rc = rc ? rc : buf_printf(out, "</g>\n");
    for (uint32_t i = 0; rc == 0 && i < chart->lines_count; i++) {
        rc = draw_line(chart, i, &x, &y, out);
    }
    return rc ? rc : buf_printf(out, "</svg>\n");
}

/* ---- Dots ---- */

static int draw_panel(const struct chart_panel *panel, double left, const struct axis *x, const struct axis *y,
                      const float *dots_x, const float *dots_y, uint32_t dots, struct buf *out)
{
    int rc = label(left + PANEL / 2, TOP + 4, "middle", panel->title, out);
    for (uint32_t i = 0; rc == 0 && i < dots; i++) {
        rc = buf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\" fill=\"%s\" fill-opacity=\"0.75\"/>\n",
                        left + place(x, (double)dots_x[i]), place(y, (double)dots_y[i]),
                        colours[panel->group[i] % COLOURS]);
    }
    for (uint32_t g = 0; rc == 0 && g < panel->groups; g++) {
        double at_x = left + 16 + 86 * (g % 5), at_y = TOP + PANEL + 16 + 18 * (g / 5);
        rc = buf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", at_x, at_y,
                        colours[g % COLOURS]);
        rc = rc ? rc : label(at_x + 8, at_y + 4, "start", panel->names[g], out);
    }
    return rc;
}

int chart_dots(const char *title, const float *x, const float *y, uint32_t dots, const struct chart_panel *panels,
               uint32_t panels_count, struct buf *out)
{
    struct axis across = {.least = -1, .most = 1, .from = 10, .to = PANEL - 10};
    struct axis up = {.least = -1, .most = 1, .from = TOP + PANEL - 10, .to = TOP + 20};
    uint32_t most = 0;
    for (uint32_t i = 0; i < dots; i++) {
        across.most = fmax(across.most, fabs((double)x[i]));
        up.most = fmax(up.most, fabs((double)y[i]));
    }
    across.least = -across.most;
    up.least = -up.most;
    for (uint32_t i = 0; i < panels_count; i++) {
        most = panels[i].groups > most ? panels[i].groups : most;
    }
    double height = TOP + PANEL + 24 + 18 * ((most + 4) / 5);
    int rc = head(PANEL * panels_count, height, title, out);
    for (uint32_t i = 0; rc == 0 && i < panels_count; i++) {
        rc = draw_panel(&panels[i], PANEL * i, &across, &up, x, y, dots, out);
    }
    return rc ? rc : buf_printf(out, "</svg>\n");
}
