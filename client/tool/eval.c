/* starling eval: one model, two labelled folders, the scores. */
#include "client/tool/cli.h"
#include "client/tool/human.h"
#include "client/tool/verbs.h"
#include "client/train/evaluate.h"
#include "common/base/mem.h"
#include "common/vec/modelfile.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

struct scores {
    double knn, linear, pixels; /* NAN where not asked for */
};

static int print_json(const struct evaluation *evaluation, const struct scores *scores)
{
    return cli_print_json(
        json_pack("{s:I, s:I, s:o, s:o, s:o}", "images_train", (json_int_t)dataset_count(evaluation->train),
                  "images_test", (json_int_t)dataset_count(evaluation->test), "knn_top1", cli_number(scores->knn),
                  "linear_top1", cli_number(scores->linear), "knn_top1_pixels", cli_number(scores->pixels)));
}

static int print_text(const struct evaluation *evaluation, const struct scores *scores)
{
    char train[HUMAN_MAX], test[HUMAN_MAX];
    (void)printf(
        "%s training images and %s test images of %u classes; share of test images named right (chance: %.3f)\n",
        human_count(dataset_count(evaluation->train), train), human_count(dataset_count(evaluation->test), test),
        evaluation->classes, 1.0 / evaluation->classes);
    if (isfinite(scores->knn)) {
        (void)printf("  nearest neighbours   %.4f   (raw pixels: %.4f)\n", scores->knn, scores->pixels);
    }
    if (isfinite(scores->linear)) {
        (void)printf("  linear probe         %.4f\n", scores->linear);
    }
    struct buf none;
    buf_init(&none, 0);
    return cli_print(&none);
}

static int evaluate(const char *model, const char *train, const char *test, bool knn, bool linear,
                    struct evaluation *evaluation, struct scores *scores, struct err *err)
{
    struct model_info info;
    struct layout *layout;
    float *params;
    int code = modelfile_load(&disk_posix, model, &info, &layout, &params, err);
    if (code) {
        return code;
    }
    code = evaluation_open(train, test, layout->spec.input, cli_processors(), NULL, cli_log(), evaluation, err);
    if (!code) {
        code = evaluation_judge(evaluation, layout, params, knn ? &scores->knn : NULL, linear ? &scores->linear : NULL,
                                err);
        code = code || !knn ? code : evaluation_judge_pixels(evaluation, &scores->pixels, err);
    }
    layout_free(layout);
    mem_free(params);
    return code;
}

int verb_eval(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling eval --model FILE --train DIR --test DIR [--knn] [--linear] [--json]",
        .about =
            "Scores a model's frozen features on labelled images; the class of an image is the name of its folder. "
            "Nearest neighbours: cosine, the 200 nearest training images vote with exp(cosine / 0.1); raw pixels "
            "(less the training images' mean) are scored the same way for comparison. Linear probe: softmax "
            "regression. Without --knn and --linear both are done.",
        .examples = "  starling eval --model round-000010.starling --train photos/train --test photos/test\n"
                    "  starling eval --model round-000010.starling --train a --test b --knn --json\n",
    };
    const char *model = NULL, *train = NULL, *test = NULL;
    bool knn = false, linear = false, json = false;
    const struct flag flags[] = {
        {"model", FLAG_TEXT, &model, "FILE", "the model file", 0, 0, true},
        {"train", FLAG_TEXT, &train, "DIR", "labelled images to compare with: one folder a class", 0, 0, true},
        {"test", FLAG_TEXT, &test, "DIR", "labelled images to name", 0, 0, true},
        {"knn", FLAG_SWITCH, &knn, NULL, "nearest neighbours", 0, 0, false},
        {"linear", FLAG_SWITCH, &linear, NULL, "linear probe", 0, 0, false},
        {"json", FLAG_SWITCH, &json, NULL, "one JSON object instead of text", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    bool both = !knn && !linear;
    struct scores scores = {(double)NAN, (double)NAN, (double)NAN};
    struct evaluation evaluation = {0};
    struct err err;
    if (evaluate(model, train, test, knn || both, linear || both, &evaluation, &scores, &err)) {
        exit_code = cli_fail(&err);
    } else {
        exit_code = json ? print_json(&evaluation, &scores) : print_text(&evaluation, &scores);
    }
    evaluation_close(&evaluation);
    return exit_code;
}
