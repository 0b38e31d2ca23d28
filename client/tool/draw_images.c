/* `starling draw-images`: a labelled set of drawn pictures (client/data/draw.c) as files. */
#include "client/tool/draw_images.h"

#include "client/data/draw.h"
#include "client/data/image.h"
#include "client/tool/cli.h"
#include "client/tool/folder.h"
#include "client/tool/verbs.h"
#include "common/base/mem.h"

#include <stdio.h>

static int draw_class(const struct draw_images_options *options, uint32_t class, uint8_t *rgb, struct err *err)
{
    char folder[DISK_PATH_MAX], path[DISK_PATH_MAX], name[24];
    int rc = folder_make(options->out, draw_class_name(class), folder, err);
    for (uint32_t i = 0; rc == 0 && i < options->per_class; i++) {
        draw_image(class, options->seed, i, options->size, rgb);
        (void)snprintf(name, sizeof name, "%04u.png", i);
        rc = disk_join(path, folder, name) ? err_set(err, ERR_CANTCREATE, "%s: the path is too long", folder)
                                           : image_write_png(path, rgb, options->size, options->size, err);
    }
    return rc;
}

int draw_images_run(const struct draw_images_options *options, struct err *err)
{
    int rc = folder_claim(options->out, NULL, err);
    if (rc) {
        return rc;
    }
    uint8_t *rgb = mem_new((size_t)options->size * options->size, 3);
    if (!rgb) {
        return err_set(err, ERR_NOMEM, "no memory for a picture of %u pixels a side", options->size);
    }
    for (uint32_t class = 0; rc == 0 && class < options->classes; class ++) {
        rc = draw_class(options, class, rgb, err);
    }
    mem_free(rgb);
    return rc;
}

int verb_draw_images(int argc, char **argv)
{
    struct draw_images_options options = {.classes = 10, .per_class = 200, .size = 32, .seed = 1};
    const struct flag flags[] = {
        {.name = "out",
         .type = FLAG_TEXT,
         .value = &options.out,
         .operand = "DIR",
         .required = true,
         .help = "new or empty folder; one folder a class is made in it"},
        {.name = "classes",
         .type = FLAG_U32,
         .value = &options.classes,
         .operand = "K",
         .least = 1,
         .most = DRAW_CLASSES_MAX,
         .help = "kinds of pattern (default 10)"},
        {.name = "per-class",
         .type = FLAG_U32,
         .value = &options.per_class,
         .operand = "N",
         .least = 1,
         .most = 1000000,
         .help = "pictures of each (default 200)"},
        {.name = "size",
         .type = FLAG_U32,
         .value = &options.size,
         .operand = "P",
         .least = DRAW_SIZE_MIN,
         .most = DRAW_SIZE_MAX,
         .help = "pixels a side (default 32)"},
        {.name = "seed",
         .type = FLAG_U64,
         .value = &options.seed,
         .operand = "S",
         .help = "another seed, other pictures (default 1)"},
    };
    static const struct cli_verb verb = {
        .usage = "starling draw-images --out DIR [--classes K] [--per-class N] [--size P] [--seed S]",
        .about = "Draws a labelled set of pictures: the class is the kind of pattern, all else is chance.",
        .examples = "  starling draw-images --out pictures\n"
                    "  starling draw-images --out test --per-class 50 --seed 2\n",
    };
    int exit_code;
    struct err err;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    if (draw_images_run(&options, &err)) {
        return cli_fail(&err);
    }
    struct buf text;
    buf_init(&text, 8192);
    (void)buf_printf(&text, "%s: %u classes, %u pictures each, %u x %u pixels\n", options.out, options.classes,
                     options.per_class, options.size, options.size);
    exit_code = cli_print(&text);
    buf_fini(&text);
    return exit_code;
}
