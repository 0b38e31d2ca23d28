#include "client/tool/folder.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int found_one(void *arg, const char *name)
{
    (void)arg, (void)name;
    return 1;
}

bool folder_lies_in(const char *path, const char *source)
{
    char *inner = realpath(path, NULL), *outer = realpath(source, NULL);
    size_t len = outer ? strlen(outer) : 0;
    bool inside = inner && outer && strncmp(inner, outer, len) == 0 && (inner[len] == '/' || inner[len] == 0);
    free(inner);
    free(outer);
    return inside;
}

int folder_claim(const char *path, const char *source, struct err *err)
{
    struct err why;
    if (disk_make_folder(&disk_posix, path, &why)) {
        return err_set(err, ERR_CANTCREATE, "cannot create the folder %s: %s", path, why.text);
    }
    int rc = disk_posix.ops->list(disk_posix.ctx, path, found_one, NULL);
    if (rc > 0) {
        return err_set(err, ERR_CANTCREATE, "%s is not empty: remove it or name a new folder", path);
    }
    if (rc == 0 && source && folder_lies_in(path, source)) {
        (void)rmdir(path); /* It is empty. */
        return err_set(err, ERR_CANTCREATE, "%s lies in %s and would join its images: name a folder elsewhere", path,
                       source);
    }
    return rc ? err_set(err, ERR_CANTCREATE, "cannot read the folder %s", path) : 0;
}

int folder_path(const char *folder, const char *name, char out[DISK_PATH_MAX], struct err *err)
{
    return disk_join(out, folder, name) ? err_set(err, ERR_CANTCREATE, "%s/%s: the path is too long", folder, name) : 0;
}

static bool leads_to(const char *link, const char *source)
{
    char there[DISK_PATH_MAX];
    ssize_t len = readlink(link, there, sizeof there);
    return len >= 0 && (size_t)len == strlen(source) && memcmp(there, source, (size_t)len) == 0;
}

int folder_link(const char *from, const char *folder, const char *path, struct err *err)
{
    char parent[DISK_PATH_MAX], made[DISK_PATH_MAX], source[DISK_PATH_MAX], target[DISK_PATH_MAX];
    int rc = folder_path(from, path, source, err);
    rc = rc ? rc : folder_path(folder, path, target, err);
    if (rc) {
        return rc;
    }
    (void)snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash) {
        *slash = 0;
        rc = folder_make(folder, parent, made, err);
    }
    if (rc || leads_to(target, source)) {
        return rc;
    }
    (void)unlink(target);
    return symlink(source, target) ? err_set(err, ERR_CANTCREATE, "cannot link %s: %s", target, strerror(errno)) : 0;
}

int folder_make(const char *folder, const char *name, char out[DISK_PATH_MAX], struct err *err)
{
    struct err why = {0};
    int rc = disk_join(out, folder, name);
    if (rc) {
        return err_set(err, ERR_CANTCREATE, "%s/%s: the path is too long", folder, name);
    }
    rc = disk_make_folder(&disk_posix, out, &why);
    return rc ? err_set(err, rc == ERR_FULL ? ERR_FULL : ERR_CANTCREATE, "cannot create the folder %s: %s", out,
                        why.text)
              : 0;
}
