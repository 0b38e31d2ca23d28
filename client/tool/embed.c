/* starling embed: the features of a folder of images as one NumPy array, row i being the i-th path in bytewise order.
 */
#include "client/tool/cli.h"
#include "client/tool/human.h"
#include "client/tool/npy.h"
#include "client/tool/verbs.h"
#include "client/train/evaluate.h"
#include "common/base/mem.h"
#include "common/vec/modelfile.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATHS_MAX ((size_t)1 << 32)

/* Said before the long work, not after it. */
static int check_writable(const char *path, struct err *err)
{
    char folder[DISK_PATH_MAX];
    if ((size_t)snprintf(folder, sizeof folder, "%s", path) >= sizeof folder) {
        return err_set(err, ERR_CANTCREATE, "%.64s...: the name is too long", path);
    }
    char *slash = strrchr(folder, '/');
    if (!slash) {
        (void)snprintf(folder, sizeof folder, ".");
    } else {
        slash[slash == folder ? 1 : 0] = 0;
    }
    struct stat at;
    if (lstat(path, &at) == 0 && !S_ISREG(at.st_mode)) {
        return err_set(err, ERR_CANTCREATE, "cannot create %s: something that is no regular file has this name", path);
    }
    return access(folder, W_OK | X_OK) ? err_set(err, ERR_CANTCREATE, "cannot create %s: %s", path, strerror(errno))
                                       : 0;
}

/* Two names of one file: what is written last would be all that is left. */
static bool are_one(const char *a, const char *b)
{
    struct stat first, second;
    return strcmp(a, b) == 0 || (stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
                                 first.st_ino == second.st_ino);
}

static int check_outputs(const char *model, const char *out, const char *paths, struct err *err)
{
    int code = check_writable(out, err);
    code = code || !paths ? code : check_writable(paths, err);
    if (!code && (are_one(out, model) || (paths && (are_one(paths, model) || are_one(paths, out))))) {
        code = err_set(err, ERR_CANTCREATE, "--model, --out and --paths must be different files");
    }
    return code;
}

static int save_features(const char *path, const float *features, uint32_t rows, uint32_t columns, struct err *err)
{
    uint8_t header[NPY_HEADER_BYTES];
    npy_header(rows, columns, header);
    const struct span parts[] = {{header, sizeof header}, {features, (size_t)rows * columns * sizeof *features}};
    return disk_save(&disk_posix, path, parts, 2, err);
}

static int save_paths(const char *path, const struct dataset *dataset, struct err *err)
{
    struct buf text;
    buf_init(&text, PATHS_MAX);
    int code = 0;
    for (uint32_t i = 0; !code && i < dataset_count(dataset); i++) {
        const char *name = dataset_path(dataset, i);
        code = strchr(name, '\n')
                   ? err_set(err, ERR_DATA, "%s: a name with a line break cannot stand in a list of lines", name)
                   : buf_printf(&text, "%s\n", name);
        if (code == ERR_NOMEM || code == ERR_LIMIT) {
            (void)err_set(err, code, "%s: %s", path, err_meaning(code));
        }
    }
    const struct span part = {text.data, text.len};
    code = code ? code : disk_save(&disk_posix, path, &part, 1, err);
    buf_fini(&text);
    return code;
}

static int embed(const char *model, const char *images, const char *out, const char *paths, struct err *err)
{
    struct model_info info;
    struct layout *layout = NULL;
    float *params = NULL, *features = NULL;
    struct dataset *dataset = NULL;
    int code = check_outputs(model, out, paths, err);
    code = code ? code : modelfile_load(&disk_posix, model, &info, &layout, &params, err);
    if (!code) {
        const struct dataset_options options = {
            .folder = images, .side = layout->spec.input, .threads = cli_processors(), .log = cli_log()};
        code = dataset_open(&options, &dataset, err);
    }
    code = code ? code : evaluation_features(dataset, layout, params, cli_processors(), &features, err);
    code = code ? code : save_features(out, features, dataset_count(dataset), layout->backbone, err);
    code = code || !paths ? code : save_paths(paths, dataset, err);
    if (!code) {
        char count[HUMAN_MAX];
        (void)fprintf(stderr, "%s: %s rows of %u features%s\n", out, human_count(dataset_count(dataset), count),
                      layout->backbone, dataset_skipped(dataset) ? "; broken images were skipped" : "");
    }
    dataset_close(dataset);
    mem_free(features);
    layout_free(layout);
    mem_free(params);
    return code;
}

int verb_embed(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling embed --model FILE --images DIR --out FILE.npy [--paths FILE.txt]",
        .about =
            "Writes one row of features for each image (the pooled backbone, float32) as a NumPy file. Rows are in "
            "bytewise order of the images' paths; --paths writes that order, one path a line.",
        .examples =
            "  starling embed --model round-000010.starling --images photos --out features.npy --paths paths.txt\n"
            "  python3 -c 'import numpy; print(numpy.load(\"features.npy\").shape)'\n",
    };
    const char *model = NULL, *images = NULL, *out = NULL, *paths = NULL;
    const struct flag flags[] = {
        {"model", FLAG_TEXT, &model, "FILE", "the model file", 0, 0, true},
        {"images", FLAG_TEXT, &images, "DIR", "folder of JPEG and PNG images, searched recursively", 0, 0, true},
        {"out", FLAG_TEXT, &out, "FILE.npy", "the NumPy file to write", 0, 0, true},
        {"paths", FLAG_TEXT, &paths, "FILE.txt", "also write the images' paths, row by row", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    struct err err;
    return embed(model, images, out, paths, &err) ? cli_fail(&err) : 0;
}
