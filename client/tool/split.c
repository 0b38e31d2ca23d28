/* `starling split`: a folder of images dealt out to clients. client/data/split_plan.c decides, this file moves files.
 */
#include "client/tool/split.h"

#include "client/data/image.h"
#include "client/tool/cli.h"
#include "client/tool/folder.h"
#include "client/tool/human.h"
#include "client/tool/listing.h"
#include "client/tool/verbs.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TABLE_MAX     (4u << 20)
#define CLASSES_SHOWN 10

static int copy_file(const char *from, const char *to, struct err *err)
{
    uint8_t *data;
    size_t len;
    int rc = disk_load(&disk_posix, from, IMAGE_FILE_MAX, &data, &len, err);
    if (rc) {
        return rc;
    }
    int file = -1;
    rc = disk_posix.ops->create(disk_posix.ctx, to, &file);
    if (rc == 0) {
        rc = disk_posix.ops->write(disk_posix.ctx, file, data, len);
        int closed = disk_posix.ops->close(disk_posix.ctx, file);
        rc = rc ? rc : closed;
    }
    mem_free(data);
    return rc ? err_set(err, rc, "cannot copy %s to %s: %s", from, to, err_meaning(rc)) : 0;
}

static int place_file(const struct split_options *options, const char *path, uint32_t client, struct err *err)
{
    char name[DISK_PATH_MAX], folder[DISK_PATH_MAX], from[DISK_PATH_MAX], to[DISK_PATH_MAX];
    const char *slash = strrchr(path, '/');
    int length = slash ? (int)(slash - path) : 0;
    if (snprintf(name, sizeof name, "client-%u%s%.*s", client + 1, slash ? "/" : "", length, path) >=
            (int)sizeof name ||
        disk_join(from, options->images, path)) {
        return err_set(err, ERR_CANTCREATE, "%s: the path is too long", path);
    }
    int rc = folder_make(options->out, name, folder, err);
    if (rc == 0 && disk_join(to, folder, slash ? slash + 1 : path)) {
        rc = err_set(err, ERR_CANTCREATE, "%s/%s: the path is too long", folder, path);
    }
    if (rc) {
        return rc;
    }
    if (linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0) {
        return 0;
    }
    if (errno == ENOSPC || errno == EDQUOT) {
        return err_set(err, ERR_FULL, "cannot link %s to %s: %s", from, to, strerror(errno));
    }
    return copy_file(from, to, err); /* another file system, or one without links */
}

/* "client-1       400  dots 200, waves 200" */
static int table_row(const struct listing *images, const uint32_t *client_of, uint32_t client, uint32_t *counts,
                     struct buf *table)
{
    char text[HUMAN_MAX], name[32] = "(nobody)";
    uint32_t total = 0, shown = 0, more = 0, classes = images->classes.count;
    memset(counts, 0, classes * sizeof *counts);
    for (uint32_t i = 0; i < images->count; i++) {
        if (client_of[i] == client) {
            total++;
            if (classes) {
                counts[images->classes.labels[i]]++;
            }
        }
    }
    if (client != SPLIT_NOBODY) {
        (void)snprintf(name, sizeof name, "client-%u", client + 1);
    } else if (total == 0) {
        return 0;
    }
    int rc = buf_printf(table, "%-12s %9s", name, human_count(total, text));
    for (uint32_t c = 0; rc == 0 && c < classes; c++) {
        if (counts[c] && shown < CLASSES_SHOWN) {
            rc = buf_printf(table, "%s%s %s", shown++ ? ", " : "  ", images->classes.names[c],
                            human_count(counts[c], text));
        } else if (counts[c]) {
            more++;
        }
    }
    if (rc == 0 && more) {
        rc = buf_printf(table, " and %u classes more", more);
    }
    return rc ? rc : buf_append(table, "\n", 1);
}

static int make_table(const struct listing *images, const uint32_t *client_of, uint32_t clients, struct buf *table,
                      struct err *err)
{
    uint32_t *counts = mem_new(images->classes.count, sizeof *counts);
    int rc = counts ? buf_printf(table, "%-12s %9s%s\n", "client", "images", images->classes.count ? "  classes" : "")
                    : ERR_NOMEM;
    for (uint32_t c = 0; rc == 0 && c < clients; c++) {
        rc = table_row(images, client_of, c, counts, table);
    }
    rc = rc ? rc : table_row(images, client_of, SPLIT_NOBODY, counts, table);
    mem_free(counts);
    return rc ? err_set(err, rc, "the table of clients: %s", err_meaning(rc)) : 0;
}

int split_run(const struct split_options *options, struct buf *table, struct err *err)
{
    struct listing images;
    uint32_t *client_of = NULL;
    int rc = listing_find(options->images, &images, err);
    if (rc) {
        goto done;
    }
    client_of = mem_new(images.count, sizeof *client_of);
    if (!client_of) {
        rc = err_set(err, ERR_NOMEM, "no memory for %u images", images.count);
        goto done;
    }
    rc = split_plan(&options->spec, images.classes.labels, images.count, images.classes.count, options->clients,
                    options->seed, client_of, err);
    if (rc) {
        (void)err_prefix(err, "%s", options->images);
        goto done;
    }
    rc = folder_claim(options->out, options->images, err);
    for (uint32_t i = 0; rc == 0 && i < images.count; i++) {
        if (client_of[i] != SPLIT_NOBODY) {
            rc = place_file(options, images.paths[i], client_of[i], err);
        }
    }
    if (rc == 0 && table) {
        rc = make_table(&images, client_of, options->clients, table, err);
    }
done:
    mem_free(client_of);
    listing_fini(&images);
    return rc;
}

int verb_split(int argc, char **argv)
{
    struct split_options options = {.seed = 1};
    const char *kind = NULL;
    const struct flag flags[] = {
        {.name = "images",
         .type = FLAG_TEXT,
         .value = &options.images,
         .operand = "DIR",
         .required = true,
         .help = "images, in one folder a class or all in one"},
        {.name = "clients",
         .type = FLAG_U32,
         .value = &options.clients,
         .operand = "N",
         .least = 1,
         .most = SPLIT_CLIENTS_MAX,
         .required = true,
         .help = "how many folders to make"},
        {.name = "split",
         .type = FLAG_TEXT,
         .value = &kind,
         .operand = "S",
         .required = true,
         .help = "iid: the same mix for all; classes:K: K classes each; dirichlet:A: uneven shares of every class, "
                 "the smaller A the more uneven"},
        {.name = "out",
         .type = FLAG_TEXT,
         .value = &options.out,
         .operand = "DIR",
         .required = true,
         .help = "new or empty folder; receives client-1, client-2, ..."},
        {.name = "seed",
         .type = FLAG_U64,
         .value = &options.seed,
         .operand = "S",
         .help = "another seed, another deal (default 1)"},
    };
    static const struct cli_verb verb = {
        .usage = "starling split --images DIR --clients N --split iid|classes:K|dirichlet:A --out DIR [--seed S]",
        .about =
            "Deals a folder of images out to clients, one folder each. Files are linked, or copied where links are "
            "not possible; class folders stay. Prints who got what.",
        .examples = "  starling split --images cifar10/train --clients 5 --split classes:2 --out sites\n"
                    "  starling split --images pictures --clients 3 --split dirichlet:0.5 --out sites --seed 7\n",
    };
    int exit_code;
    struct err err;
    struct buf table;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    if (split_parse(kind, &options.spec, &err)) {
        return cli_fail(&err);
    }
    buf_init(&table, TABLE_MAX);
    exit_code = split_run(&options, &table, &err) ? cli_fail(&err) : cli_print(&table);
    buf_fini(&table);
    return exit_code;
}
