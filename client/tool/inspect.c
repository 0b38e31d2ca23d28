/* starling inspect: what a model file holds. Loading checks the whole file, so a damaged one is named as such. */
#include "client/tool/inspect.h"

#include "client/tool/cli.h"
#include "client/tool/human.h"
#include "client/tool/verbs.h"
#include "common/base/mem.h"

#include <jansson.h>

#define TEXT_MAX ((size_t)4 << 20)

json_t *inspect_json(const struct model_info *info, const struct layout *layout)
{
    char run[HASH_HEX], plan[HASH_HEX], fingerprint[HASH_HEX];
    json_t *tensors = json_array();
    for (uint32_t i = 0; tensors && i < layout->count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        json_t *shape = json_array();
        for (uint32_t j = 0; shape && j < tensor->dims; j++) {
            (void)json_array_append_new(shape, json_integer(tensor->shape[j]));
        }
        (void)json_array_append_new(tensors, json_pack("{s:s, s:o}", "name", tensor->name, "shape", shape));
    }
    return json_pack("{s:s, s:I, s:s, s:s, s:I, s:o}", "run", hash_hex(&info->run, run), "round",
                     (json_int_t)info->round, "plan_hash", hash_hex(&info->plan_hash, plan), "layout",
                     hash_hex(&layout->fingerprint, fingerprint), "parameters", (json_int_t)layout->total, "tensors",
                     tensors);
}

static int print_network(const struct layout *layout, struct buf *out)
{
    const struct model_spec *spec = &layout->spec;
    char total[HUMAN_MAX], trained[HUMAN_MAX], statistics[HUMAN_MAX];
    int code = buf_printf(out, "network     ResNet of %s blocks [",
                          spec->block == MODEL_BLOCK_BOTTLENECK ? "bottleneck" : "basic");
    for (uint32_t i = 0; !code && i < spec->stages; i++) {
        code = buf_printf(out, "%s%u", i ? ", " : "", spec->blocks[i]);
    }
    code = code ? code
                : buf_printf(out, "], width %u, %s stem, images of %u x %u pixels\n", spec->width,
                             spec->stem == MODEL_STEM_LARGE ? "large" : "small", spec->input, spec->input);
    code = code ? code
                : buf_printf(out, "features    %u from the backbone (what eval and embed use), %u exchanged\n",
                             layout->backbone, spec->features);
    return code ? code
                : buf_printf(out, "parameters  %s: %s trained, %s statistics\n", human_count(layout->total, total),
                             human_count(layout->trainable_end, trained),
                             human_count(layout->total - layout->trainable_end, statistics));
}

int inspect_text(const struct model_info *info, const struct layout *layout, struct buf *out)
{
    char hex[HASH_HEX];
    int code = hash_is_zero(&info->run) ? buf_printf(out, "run         none\n")
                                        : buf_printf(out, "run         %s\n", hash_hex(&info->run, hex));
    code = code ? code : buf_printf(out, "round       %u%s\n", info->round, info->round ? "" : " (not trained)");
    code = code ? code : buf_printf(out, "plan        %s\n", hash_hex(&info->plan_hash, hex));
    code = code ? code : buf_printf(out, "layout      %s\n", hash_hex(&layout->fingerprint, hex));
    code = code ? code : print_network(layout, out);
    code = code ? code : buf_printf(out, "\n%u tensors\n", layout->count);
    for (uint32_t i = 0; !code && i < layout->count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        code = buf_printf(out, "  %-34s", tensor->name);
        for (uint32_t j = 0; !code && j < tensor->dims; j++) {
            code = buf_printf(out, "%s%u", j ? " x " : " ", tensor->shape[j]);
        }
        code = code ? code : buf_printf(out, "\n");
    }
    return code;
}

int verb_inspect(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling inspect --model FILE [--json]",
        .about = "Shows the run, the round, the plan's hash and the tensors of a model file.",
        .examples = "  starling inspect --model starling-demo/server/models/round-000010.starling\n",
    };
    const char *model = NULL;
    bool json = false;
    const struct flag flags[] = {
        {"model", FLAG_TEXT, &model, "FILE", "the model file", 0, 0, true},
        {"json", FLAG_SWITCH, &json, NULL, "one JSON object instead of text", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    struct model_info info;
    struct layout *layout;
    float *params;
    struct err err;
    if (modelfile_load(&disk_posix, model, &info, &layout, &params, &err)) {
        return cli_fail(&err);
    }
    if (json) {
        exit_code = cli_print_json(inspect_json(&info, layout));
    } else {
        struct buf text;
        buf_init(&text, TEXT_MAX);
        int code = inspect_text(&info, layout, &text);
        exit_code = code ? cli_fail((err_set(&err, code, "%s", err_meaning(code)), &err)) : cli_print(&text);
        buf_fini(&text);
    }
    layout_free(layout);
    mem_free(params);
    return exit_code;
}
