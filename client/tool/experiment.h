/* The parts of `starling experiment`, in the order in which they run:
 *
 *   experiment.c         the verb: flags, the cells and the processes that run them
 *   experiment_file.c    FILE.yaml: methods x splits x seeds
 *   experiment_images.c  the training and the judging part of the images, as links in OUT/images/
 *   experiment_cell.c    one cell: its federation (demo_run.c), its scores, its map
 *   experiment_result.c  a finished cell as a file, and back
 *   experiment_report.c  results.json, table.md and the charts, from the finished cells
 *
 * A cell is named by method, split and seed and has a folder OUT/cells/NAME/: result.json once it is finished, `log`
 * with the lines that a demo prints, and `work/` while it runs. What decides a cell's result is hashed into its key; a
 * result or a work folder of another key is not this cell's, and is made anew. */
#ifndef STARLING_TOOL_EXPERIMENT_H
#define STARLING_TOOL_EXPERIMENT_H

#include "client/tool/demo.h"
#include "common/base/hash.h"

#define METHODS_MAX     64
#define SPLITS_MAX      16
#define SEEDS_MAX       32
#define POINTS_MAX      64
#define CLIENTS_MAX     100
#define METHOD_NAME_MAX 32
#define SPLIT_NAME_MAX  32
#define CELL_NAME_MAX   128
#define MAP_DOTS_MAX    1000

enum place {
    PLACE_SITES, /* a federation of all clients */
    PLACE_ALONE, /* each client a federation of itself; the scores are means over clients */
    PLACE_ONE,   /* one client with everybody's images, and everybody's steps */
};

struct method {
    char name[METHOD_NAME_MAX];
    uint32_t place; /* enum place */
    uint32_t seeds; /* the first so many of the experiment's; 0: all */
    bool map;       /* a map of the features, for the first seed */
    struct plan plan;
};

struct experiment {
    char images[DISK_PATH_MAX], test[DISK_PATH_MAX];
    uint32_t train_per_class;      /* 0: all that are not held out */
    uint32_t validation_per_class; /* training images that are held out and judged; 0: `test` is judged */
    uint32_t clients;
    uint32_t points; /* of the curve: models that are scored, the last one included */
    uint64_t seeds[SEEDS_MAX];
    uint32_t seeds_count;
    char splits[SPLITS_MAX][SPLIT_NAME_MAX];
    uint32_t splits_count;
    struct method methods[METHODS_MAX];
    uint32_t methods_count;
};

struct cell {
    const struct method *method;
    const char *split;
    uint64_t seed;
    bool map;
    char name[CELL_NAME_MAX]; /* "fedavg-classes-2-seed-1" */
    struct hash128 key;
};

struct point {
    uint32_t round;
    uint64_t bytes; /* up and down, of all clients, until then */
    double knn;
};
struct map_dot {
    float x, y;
    uint32_t class, client;
};

struct cell_result {
    uint32_t clients;
    uint64_t images;      /* dealt out */
    uint64_t images_seen; /* with repeats */
    uint32_t rounds;
    double seconds;   /* scoring included; of an interrupted one, of its last part */
    bool interrupted; /* then its bytes lack those of the round that was cut, too */
    uint32_t restarts;
    uint64_t bytes_up, bytes_down; /* of all clients */
    double pixels, knn_untrained, knn, linear_untrained, linear;
    struct point points[POINTS_MAX];
    uint32_t points_count;
    char classes[64][64]; /* names, for the map */
    uint32_t classes_count;
    struct map_dot *dots; /* NULL: no map */
    uint32_t dots_count;
};

/* Where images lie on this machine, when the file's paths do not hold; NULL: they do. ERR_CONFIG with file:line:col. */
int experiment_read(const char *path, const char *images, const char *test, struct experiment *out, struct err *err);

/* The folders to train on and to be judged by. hash: of what lies in them. */
struct experiment_images {
    char train[DISK_PATH_MAX], judge[DISK_PATH_MAX];
    struct hash128 hash;
};
int experiment_images(const struct experiment *experiment, const char *out, struct experiment_images *images,
                      struct err *err);

/* Runs a cell from where it stands to its result.json in `folder`. Prints as a demo does. */
int cell_run(const struct experiment *experiment, const struct experiment_images *images, const struct cell *cell,
             const char *folder, struct err *err);

/* What a finished cell leaves when it was cut off before it had cleaned up. */
int cell_clean(const char *folder, struct err *err);

/* ERR_NOTFOUND: there is none, or of another key. result_fini frees what it points to. */
int result_load(const char *folder, const struct hash128 *key, struct cell_result *out, struct err *err);
int result_save(const char *folder, const struct cell *cell, const struct cell_result *result, struct err *err);
void result_fini(struct cell_result *result);

/* Of what is finished; results[i] may be NULL. */
int experiment_report(const struct experiment *experiment, const char *title, const struct cell *cells,
                      struct cell_result *const *results, uint32_t count, const char *out, struct err *err);

#endif
