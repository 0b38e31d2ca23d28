/* `starling import-cifar`: the official binary archives (Krizhevsky, 2009) as folders of PNG.
 *
 *   CIFAR-10   cifar-10-batches-bin/  data_batch_1.bin .. data_batch_5.bin, test_batch.bin, batches.meta.txt
 *   CIFAR-100  cifar-100-binary/      train.bin, test.bin, fine_label_names.txt
 *   record     CIFAR-10:  class (1 byte), then 3,072 bytes: 32 x 32 pixels, all red, all green, all blue
 *              CIFAR-100: superclass (1), class (1), then the same; the class is what folders are named after
 *   names      one class a line, in the order of their numbers
 *
 * An archive is valid if and only if (1) gzip and tar checksums are right, (2) all files of one of the two rows are in
 * it once, (3) each data file is a whole number of records, at least one, (4) each class is below the number of names,
 * which is 10 or 100. It is read twice: to judge all of it, then to write, so that a damaged one leaves nothing behind.
 */
#include "client/tool/import_cifar.h"

#include "client/data/image.h"
#include "client/tool/cli.h"
#include "client/tool/folder.h"
#include "client/tool/human.h"
#include "client/tool/targz.h"
#include "client/tool/verbs.h"
#include "common/base/mem.h"
#include "common/base/name.h"

#include <stdio.h>
#include <string.h>

#define SIDE        32u
#define PLANE       (SIDE * SIDE)
#define CLASSES_MAX 100u
#define NAMES_MAX   65536u
#define FILES_MAX   6

/* What the two archives look like. */
static const struct format {
    const char *title, *names;
    const char *data[FILES_MAX];   /* the last one is the test set */
    uint32_t files, classes, head; /* head: bytes before the pixels; the last of them is the class */
} formats[] = {
    {"CIFAR-10",
     "batches.meta.txt",
     {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin",
      "test_batch.bin"},
     6,
     10,
     1},
    {"CIFAR-100", "fine_label_names.txt", {"train.bin", "test.bin"}, 2, 100, 2},
};
#define FORMATS (sizeof formats / sizeof formats[0])

struct import {
    const struct import_cifar_options *options;
    const struct format *format; /* NULL until a file of one was seen */
    uint32_t seen;               /* bit per data file, then one for the names */
    char names[CLASSES_MAX][NAME_MAX_BYTES];
    char folders[2][CLASSES_MAX][DISK_PATH_MAX]; /* train, test */
    uint32_t written[2][CLASSES_MAX];
    uint64_t records[2];
};

/* Which part of which format a file is: a data file's number, or `files` for the names. */
static bool find_part(const char *name, const struct format **format, uint32_t *part)
{
    for (size_t f = 0; f < FORMATS; f++) {
        for (uint32_t i = 0; i <= formats[f].files; i++) {
            if (strcmp(name, i == formats[f].files ? formats[f].names : formats[f].data[i]) == 0) {
                *format = &formats[f];
                *part = i;
                return true;
            }
        }
    }
    return false;
}

/* One class a line; folders will be called like this, so only plain names are taken. */
static int read_names(struct import *import, struct targz *archive, uint64_t size, struct err *err)
{
    char *text = size <= NAMES_MAX ? mem_new((size_t)size + 1, 1) : NULL;
    if (!text) {
        return err_set(err, size <= NAMES_MAX ? ERR_NOMEM : ERR_DATA, "the list of classes has %llu bytes",
                       (unsigned long long)size);
    }
    int rc = targz_read(archive, text, (size_t)size, err);
    char *line = text;
    for (uint32_t i = 0; rc == 0 && i < import->format->classes; i++) {
        size_t length = strcspn(line, "\r\n");
        char *next = line + length + strspn(line + length, "\r\n");
        line[length] = '\0';
        if (!name_is_valid(line) || line[0] == '.') {
            rc = err_set(err, ERR_DATA, "the list of classes has no usable name for class %u", i);
        } else {
            memcpy(import->names[i], line, length + 1);
        }
        line = next;
    }
    mem_free(text);
    return rc;
}

static int write_record(struct import *import, int set, uint32_t class, const uint8_t *planes, struct err *err)
{
    uint8_t rgb[PLANE * 3];
    char name[24], path[DISK_PATH_MAX];
    for (uint32_t i = 0; i < PLANE; i++) {
        for (uint32_t c = 0; c < 3; c++) {
            rgb[i * 3 + c] = planes[c * PLANE + i];
        }
    }
    (void)snprintf(name, sizeof name, "%04u.png", import->written[set][class]++);
    if (disk_join(path, import->folders[set][class], name)) {
        return err_set(err, ERR_CANTCREATE, "%s: the path is too long", import->folders[set][class]);
    }
    return image_write_png(path, rgb, SIDE, SIDE, err);
}

static int read_records(struct import *import, struct targz *archive, uint32_t part, uint64_t size, bool writing,
                        struct err *err)
{
    const struct format *format = import->format;
    uint8_t record[2 + 3 * PLANE];
    uint32_t bytes = format->head + 3 * PLANE;
    int set = part + 1 == format->files, rc = 0;
    if (size == 0 || size % bytes != 0) {
        return err_set(err, ERR_DATA, "%s: %llu bytes are no whole number of records of %u bytes", format->data[part],
                       (unsigned long long)size, bytes);
    }
    for (uint64_t i = 0; rc == 0 && i < size / bytes; i++) {
        rc = targz_read(archive, record, bytes, err);
        uint32_t class = record[format->head - 1];
        if (rc == 0 && class >= format->classes) {
            rc = err_set(err, ERR_DATA, "%s: record %llu is of class %u, but there are %u classes", format->data[part],
                         (unsigned long long)i, class, format->classes);
        } else if (rc == 0 && writing) {
            rc = write_record(import, set, class, record + format->head, err);
        }
    }
    import->records[set] += writing ? size / bytes : 0;
    return rc;
}

static int judge_part(struct import *import, struct targz *archive, const struct format *format, uint32_t part,
                      uint64_t size, struct err *err)
{
    if (import->format && import->format != format) {
        return err_set(err, ERR_DATA, "it holds parts of %s and of %s", import->format->title, format->title);
    }
    if (import->seen >> part & 1) {
        return err_set(err, ERR_DATA, "%s is in it twice", part == format->files ? format->names : format->data[part]);
    }
    import->format = format;
    import->seen |= 1u << part;
    return part == format->files ? read_names(import, archive, size, err)
                                 : read_records(import, archive, part, size, false, err);
}

/* One pass over the archive. */
static int pass(struct import *import, bool writing, struct err *err)
{
    struct targz *archive;
    int rc = targz_open(import->options->archive, &archive, err);
    if (rc) {
        return rc;
    }
    for (;;) {
        char name[TARGZ_NAME_MAX];
        uint64_t size;
        int more;
        const struct format *format;
        uint32_t part;
        rc = targz_next(archive, name, &size, &more, err);
        if (rc || !more) {
            break;
        }
        if (!find_part(name, &format, &part)) {
            continue;
        }
        if (!writing) {
            rc = judge_part(import, archive, format, part, size, err);
        } else if (part < format->files) {
            rc = read_records(import, archive, part, size, true, err);
        }
        if (rc) {
            break;
        }
    }
    targz_close(archive);
    return rc == ERR_DATA ? err_prefix(err, "archive %s", import->options->archive) : rc;
}

static int check_complete(const struct import *import, struct err *err)
{
    const struct format *format = import->format;
    if (!format) {
        return err_set(err, ERR_DATA, "archive %s is no binary version of CIFAR-10 or CIFAR-100",
                       import->options->archive);
    }
    for (uint32_t part = 0; part <= format->files; part++) {
        if (!(import->seen >> part & 1)) {
            return err_set(err, ERR_DATA, "archive %s lacks %s", import->options->archive,
                           part == format->files ? format->names : format->data[part]);
        }
    }
    return 0;
}

static int make_folders(struct import *import, struct err *err)
{
    int rc = folder_claim(import->options->out, NULL, err);
    for (uint32_t set = 0; set < 2; set++) {
        for (uint32_t c = 0; rc == 0 && c < import->format->classes; c++) {
            char name[NAME_MAX_BYTES + 8];
            (void)snprintf(name, sizeof name, "%s/%s", set ? "test" : "train", import->names[c]);
            rc = folder_make(import->options->out, name, import->folders[set][c], err);
        }
    }
    return rc;
}

int import_cifar_run(const struct import_cifar_options *options, struct import_cifar_result *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    struct import *import = mem_new(1, sizeof *import);
    if (!import) {
        return err_set(err, ERR_NOMEM, "no memory for an import");
    }
    import->options = options;
    int rc = pass(import, false, err);
    rc = rc ? rc : check_complete(import, err);
    rc = rc ? rc : make_folders(import, err);
    rc = rc ? rc : pass(import, true, err);
    if (rc == 0) {
        out->classes = import->format->classes;
        out->train = import->records[0];
        out->test = import->records[1];
    }
    mem_free(import);
    return rc;
}

int verb_import_cifar(int argc, char **argv)
{
    struct import_cifar_options options = {0};
    const struct flag flags[] = {
        {.name = "archive",
         .type = FLAG_TEXT,
         .value = &options.archive,
         .operand = "FILE",
         .required = true,
         .help = "cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, as published"},
        {.name = "out",
         .type = FLAG_TEXT,
         .value = &options.out,
         .operand = "DIR",
         .required = true,
         .help = "new or empty folder; receives train/<class>/ and test/<class>/"},
    };
    static const struct cli_verb verb = {
        .usage = "starling import-cifar --archive FILE --out DIR",
        .about = "Unpacks the official binary archive of CIFAR-10 or CIFAR-100 into folders of PNG files.",
        .examples = "  starling import-cifar --archive cifar-10-binary.tar.gz --out cifar10\n",
    };
    int exit_code;
    struct err err;
    struct import_cifar_result result;
    char train[HUMAN_MAX], test[HUMAN_MAX];
    struct buf text;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    if (import_cifar_run(&options, &result, &err)) {
        return cli_fail(&err);
    }
    buf_init(&text, 8192);
    (void)buf_printf(&text, "%s: %u classes, %s images in train, %s in test\n", options.out, result.classes,
                     human_count(result.train, train), human_count(result.test, test));
    exit_code = cli_print(&text);
    buf_fini(&text);
    return exit_code;
}
