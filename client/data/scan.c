/* Walking a folder.
 *
 * The result depends on the folder's contents alone: names are sorted bytewise, not as the file system hands them out.
 * Links to folders are not followed, so the walk ends; files that vanish while it runs are left out. */
#include "client/data/scan.h"

#include "common/base/byteorder.h"
#include "common/base/disk.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEPTH_MAX 64

struct walk {
    const char *folder;
    size_t prefix; /* bytes of "folder/" in a full path */
    const bool *cancel;
    struct scan *scan;
    struct err *err;
};

static int add_file(struct walk *walk, const char *path, const struct stat *st)
{
    struct scan *scan = walk->scan;
    if (scan->count == scan->capacity) {
        uint32_t capacity = scan->capacity < 512 ? 1024 : scan->capacity * 2;
        if (scan->count >= UINT32_MAX / 2) {
            return err_set(walk->err, ERR_LIMIT, "%s: too many files", walk->folder);
        }
        struct scan_file *files = mem_resize(scan->files, capacity, sizeof *files);
        if (!files) {
            return err_set(walk->err, ERR_NOMEM, "%s: no memory for %u file names", walk->folder, capacity);
        }
        scan->files = files;
        scan->capacity = capacity;
    }
    struct scan_file *file = &scan->files[scan->count];
    file->path = mem_text(path + walk->prefix, strlen(path + walk->prefix));
    if (!file->path) {
        return err_set(walk->err, ERR_NOMEM, "%s: no memory for file names", walk->folder);
    }
    file->size = (uint64_t)st->st_size;
    file->mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    scan->count++;
    return 0;
}

static int walk_folder(struct walk *walk, const char *path, unsigned depth)
{
    DIR *dir = opendir(path);
    if (!dir) {
        return err_set(walk->err, ERR_DATA, "image folder %s: %s", path, strerror(errno));
    }
    int rc = 0;
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        char full[DISK_PATH_MAX];
        struct stat st;
        if (entry->d_name[0] == '.') {
            continue;
        }
        if (walk->cancel && __atomic_load_n(walk->cancel, __ATOMIC_RELAXED)) {
            rc = err_set(walk->err, ERR_CANCELLED, "cancelled while %s was read", walk->folder);
        } else if (disk_join(full, path, entry->d_name)) {
            rc = err_set(walk->err, ERR_DATA, "%s/%s: the path is too long", path, entry->d_name);
        } else if (lstat(full, &st)) {
            continue;
        } else if (S_ISDIR(st.st_mode)) {
            rc = depth >= DEPTH_MAX ? err_set(walk->err, ERR_DATA, "%s: folders lie more than %d deep", full, DEPTH_MAX)
                                    : walk_folder(walk, full, depth + 1);
        } else if (stat(full, &st) == 0 && S_ISREG(st.st_mode)) {
            rc = add_file(walk, full, &st);
        }
    }
    (void)closedir(dir);
    return rc;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct scan_file *)a)->path, ((const struct scan_file *)b)->path);
}

int scan_folder(const char *folder, const bool *cancel, struct scan *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    char probe[DISK_PATH_MAX];
    if (disk_join(probe, folder, "x")) {
        return err_set(err, ERR_DATA, "image folder %s: the path is too long", folder);
    }
    struct walk walk = {.folder = folder, .prefix = strlen(probe) - 1, .cancel = cancel, .scan = out, .err = err};
    int rc = walk_folder(&walk, folder, 0);
    if (rc == 0 && out->count == 0) {
        rc = err_set(err, ERR_DATA, "image folder %s holds no files (links to folders are not followed)", folder);
    }
    if (rc) {
        scan_fini(out);
        return rc;
    }
    qsort(out->files, out->count, sizeof *out->files, by_path);
    return 0;
}

void scan_fini(struct scan *scan)
{
    for (uint32_t i = 0; i < scan->count; i++) {
        mem_free(scan->files[i].path);
    }
    mem_free(scan->files);
    memset(scan, 0, sizeof *scan);
}

struct hash128 scan_hash(const struct scan *scan)
{
    struct hash128 hash = {{0}};
    struct hash_stream *stream = hash_stream_new();
    if (!stream) {
        return hash;
    }
    for (uint32_t i = 0; i < scan->count; i++) {
        uint8_t numbers[16];
        store_u64(numbers, scan->files[i].size);
        store_u64(numbers + 8, (uint64_t)scan->files[i].mtime_ns);
        hash_stream_add(stream, scan->files[i].path, strlen(scan->files[i].path) + 1);
        hash_stream_add(stream, numbers, sizeof numbers);
    }
    hash = hash_stream_end(stream);
    hash_stream_free(stream);
    return hash;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_class(const char *path, size_t length, const char *name)
{
    int order = strncmp(path, name, length);
    return order ? order : name[length] ? -1 : 0;
}

/* Paths come sorted, so all that begin with "class/" are neighbours; the names are sorted again, since "a-b/" comes
 * before "a/" and "a" before "a-b". */
static int collect_names(const char *const *paths, uint32_t count, struct classes *out)
{
    for (uint32_t i = 0; i < count; i++) {
        size_t length = strcspn(paths[i], "/");
        if (out->count > 0 && compare_class(paths[i], length, out->names[out->count - 1]) == 0) {
            continue;
        }
        if ((out->count & (out->count - 1)) == 0) { /* room doubles at each power of two */
            char **names = mem_resize(out->names, out->count ? (size_t)out->count * 2 : 1, sizeof *names);
            if (!names) {
                return ERR_NOMEM;
            }
            out->names = names;
        }
        char *name = mem_text(paths[i], length);
        if (!name) {
            return ERR_NOMEM;
        }
        out->names[out->count++] = name;
    }
    qsort(out->names, out->count, sizeof *out->names, by_text);
    return 0;
}

int classes_of(const char *const *paths, uint32_t count, struct classes *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < count; i++) {
        if (!strchr(paths[i], '/')) {
            return 0;
        }
    }
    if (count == 0) {
        return 0;
    }
    int rc = collect_names(paths, count, out);
    if (rc == 0 && !(out->labels = mem_new(count, sizeof *out->labels))) {
        rc = ERR_NOMEM;
    }
    if (rc) {
        classes_fini(out);
        return rc;
    }
    for (uint32_t i = 0; i < count; i++) {
        size_t length = strcspn(paths[i], "/");
        uint32_t low = 0, high = out->count - 1;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (compare_class(paths[i], length, out->names[middle]) > 0) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        out->labels[i] = low;
    }
    return 0;
}

void classes_fini(struct classes *classes)
{
    for (uint32_t i = 0; i < classes->count; i++) {
        mem_free(classes->names[i]);
    }
    mem_free(classes->names);
    mem_free(classes->labels);
    memset(classes, 0, sizeof *classes);
}
