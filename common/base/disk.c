#include "common/base/disk.h"

#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* A file that may not be read and a disk that dies are both ERR_IO; whoever is called at night must know which. */
static _Thread_local int latest_errno;

static int from_errno(int number)
{
    latest_errno = number;
    return number == ENOSPC || number == EDQUOT    ? ERR_FULL
           : number == ENOENT || number == ENOTDIR ? ERR_NOTFOUND
                                                   : ERR_IO;
}

/* Of what was to change something. */
static int from_write_errno(int number)
{
    return number == EROFS || number == EACCES || number == EPERM ? ERR_READONLY : from_errno(number);
}

static int posix_create(void *ctx, const char *path, int *file)
{
    (void)ctx;
    *file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0600); /* a pipe waits for its reader */
    return *file < 0 ? from_write_errno(errno) : 0;
}

static int posix_write(void *ctx, int file, const void *data, size_t len)
{
    (void)ctx;
    const uint8_t *p = data;
    while (len > 0) {
        ssize_t n = write(file, p, len < (1u << 30) ? len : 1u << 30);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return from_errno(n == 0 ? EIO : errno);
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

static int posix_sync(void *ctx, int file)
{
    (void)ctx;
    return fsync(file) ? from_errno(errno) : 0;
}

static int posix_close(void *ctx, int file)
{
    (void)ctx;
    return close(file) ? from_errno(errno) : 0;
}

static int posix_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to) ? from_write_errno(errno) : 0;
}

static int posix_remove(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path) && errno != ENOENT ? from_write_errno(errno) : 0;
}

static int posix_sync_folder(void *ctx, const char *path)
{
    (void)ctx;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        return from_errno(errno);
    }
    int rc = fsync(folder) ? from_errno(errno) : 0;
    (void)close(folder);
    return rc;
}

/* A file in the way, or a place where there can be no folder, stays as it is however often one tries. */
static int from_folder_errno(int number)
{
    bool never = number == EEXIST || number == ENOTDIR || number == ENOENT || number == ENAMETOOLONG || number == ELOOP;
    int rc = from_write_errno(number);
    return never ? ERR_CANTCREATE : rc;
}

static int posix_make_folder(void *ctx, const char *path)
{
    (void)ctx;
    char part[DISK_PATH_MAX];
    if ((size_t)snprintf(part, sizeof part, "%s", path) >= sizeof part) {
        return from_folder_errno(ENAMETOOLONG);
    }
    for (char *c = part + 1; *c; c++) {
        if (*c == '/') {
            *c = '\0';
            if (mkdir(part, 0700) && errno != EEXIST) {
                return from_folder_errno(errno);
            }
            *c = '/';
        }
    }
    if (mkdir(part, 0700) && errno != EEXIST) {
        return from_folder_errno(errno);
    }
    struct stat st;
    if (stat(part, &st)) {
        return from_folder_errno(errno);
    }
    return S_ISDIR(st.st_mode) ? 0 : from_folder_errno(EEXIST);
}

static int posix_load(void *ctx, const char *path, size_t max, uint8_t **data, size_t *len)
{
    (void)ctx;
    *data = NULL;
    *len = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for its writer */
    if (file < 0) {
        return from_errno(errno);
    }
    struct stat st;
    int rc = fstat(file, &st) ? from_errno(errno) : !S_ISREG(st.st_mode) ? from_errno(0) : 0;
    if (rc == 0 && (uint64_t)st.st_size > max) {
        rc = ERR_LIMIT;
    }
    uint8_t *bytes = rc ? NULL : mem_new_aligned((size_t)st.st_size, 1);
    if (rc == 0 && !bytes) {
        rc = ERR_NOMEM;
    }
    size_t got = 0;
    while (rc == 0 && got < (size_t)st.st_size) {
        ssize_t n = read(file, bytes + got, (size_t)st.st_size - got);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            rc = from_errno(errno);
        } else if (n == 0) {
            break;
        } else {
            got += (size_t)n;
        }
    }
    (void)close(file);
    if (rc) {
        mem_free(bytes);
        return rc;
    }
    *data = bytes;
    *len = got;
    return 0;
}

static int posix_list(void *ctx, const char *path, int (*visit)(void *arg, const char *name), void *arg)
{
    (void)ctx;
    DIR *folder = opendir(path);
    if (!folder) {
        return from_errno(errno);
    }
    int rc = 0;
    for (struct dirent *entry = readdir(folder); entry && rc == 0; entry = readdir(folder)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            rc = visit(arg, entry->d_name);
        }
    }
    (void)closedir(folder);
    return rc;
}

static int posix_read_at(void *ctx, const char *path, uint64_t offset, void *data, size_t len)
{
    (void)ctx;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return from_errno(errno);
    }
    uint8_t *p = data;
    int rc = 0;
    for (size_t got = 0; rc == 0 && got < len;) {
        ssize_t n = pread(file, p + got, len - got, (off_t)(offset + got));
        if (n > 0) {
            got += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            rc = n == 0 ? ERR_DATA : from_errno(errno);
        }
    }
    (void)close(file);
    return rc;
}

static int posix_room(void *ctx, const char *path, uint64_t *bytes)
{
    (void)ctx;
    struct statvfs st;
    if (statvfs(path, &st)) {
        return from_errno(errno);
    }
    *bytes = (uint64_t)st.f_bavail * st.f_frsize;
    return 0;
}

static const char *posix_why(void *ctx)
{
    (void)ctx;
    return latest_errno ? strerror(latest_errno) : "no regular file";
}

static const struct disk_ops posix_ops = {
    .create = posix_create,
    .write = posix_write,
    .sync = posix_sync,
    .close = posix_close,
    .rename = posix_rename,
    .remove = posix_remove,
    .sync_folder = posix_sync_folder,
    .make_folder = posix_make_folder,
    .load = posix_load,
    .list = posix_list,
    .why = posix_why,
    .read_at = posix_read_at,
    .room = posix_room,
};
const struct disk disk_posix = {.ops = &posix_ops, .ctx = NULL};

int disk_join(char out[DISK_PATH_MAX], const char *folder, const char *name)
{
    int n = snprintf(out, DISK_PATH_MAX, "%s/%s", folder, name);
    return n < 0 || n >= DISK_PATH_MAX ? ERR_LIMIT : 0;
}

/* Whether the file that was opened still stands under its name: who undoes a start removes the lock that it made. */
static bool is_at(int file, const char *path)
{
    struct stat opened, named;
    return fstat(file, &opened) == 0 && stat(path, &named) == 0 && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

int disk_lock(const char *folder, const char *who, int *lock, struct err *err)
{
    char path[DISK_PATH_MAX];
    *lock = -1;
    if (disk_join(path, folder, "lock")) {
        return err_set(err, ERR_LIMIT, "%.80s...: the path is too long", folder);
    }
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) {
        return err_set(err, ERR_CANTCREATE, "%s: %s", path, strerror(errno));
    }
    int reason = flock(file, LOCK_EX | LOCK_NB) ? errno : is_at(file, path) ? 0 : EWOULDBLOCK;
    if (reason) {
        (void)close(file);
        return reason == EWOULDBLOCK
                   ? err_set(err, ERR_UNAVAILABLE, "%s: another %s uses this state folder", folder, who)
                   : err_set(err, ERR_IO, "%s: lock: %s", path, strerror(reason));
    }
    *lock = file;
    return 0;
}

/* Cuts the last part off; false: nothing is left. */
static bool cut_last(char *path)
{
    char *slash = strrchr(path, '/');
    *(slash ? slash : path) = '\0';
    return path[0] != '\0';
}

size_t disk_there(const char *path)
{
    char part[DISK_PATH_MAX];
    struct stat st;
    if ((size_t)snprintf(part, sizeof part, "%s", path) >= sizeof part) {
        return strlen(path); /* nobody can make it either */
    }
    while (stat(part, &st) && cut_last(part)) {
    }
    return strlen(part);
}

void disk_remove_made(const char *path, size_t there)
{
    char part[DISK_PATH_MAX];
    if ((size_t)snprintf(part, sizeof part, "%s", path) >= sizeof part) {
        return;
    }
    /* ENOENT: "a//b" has a part that is removed already, or one that could not be made */
    while (strlen(part) > there && (rmdir(part) == 0 || errno == ENOENT) && cut_last(part)) {
    }
}

const char *disk_why(const struct disk *disk, int rc)
{
    return (rc == ERR_IO || rc == ERR_CANTCREATE) && disk->ops->why ? disk->ops->why(disk->ctx) : err_meaning(rc);
}

static int step_failed(const struct disk *disk, struct err *err, int rc, const char *step, const char *path)
{
    return err_set(err, rc, "%s: %s: %s", path, step, disk_why(disk, rc));
}

int disk_save(const struct disk *disk, const char *path, const struct span *parts, size_t count, struct err *err)
{
    const struct disk_ops *ops = disk->ops;
    char temporary[DISK_PATH_MAX], folder[DISK_PATH_MAX];
    const char *slash = strrchr(path, '/');
    int n = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (n < 0 || (size_t)n >= sizeof temporary) {
        return err_set(err, ERR_LIMIT, "%s: the path is too long", path);
    }
    (void)snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    if (slash == path) {
        (void)snprintf(folder, sizeof folder, "/");
    }
    int file = -1;
    int rc = ops->create(disk->ctx, temporary, &file);
    if (rc) {
        return step_failed(disk, err, rc, "create", temporary);
    }
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = ops->write(disk->ctx, file, parts[i].data, parts[i].len);
    }
    if (rc) {
        (void)step_failed(disk, err, rc, "write", temporary);
    } else if ((rc = ops->sync(disk->ctx, file)) != 0) {
        (void)step_failed(disk, err, rc, "sync", temporary);
    }
    int closed = ops->close(disk->ctx, file);
    if (rc == 0 && closed) {
        rc = step_failed(disk, err, closed, "sync", temporary);
    }
    if (rc == 0 && (rc = ops->rename(disk->ctx, temporary, path)) != 0) {
        (void)step_failed(disk, err, rc, "rename", path);
    }
    if (rc) { /* The reason is told by now: this may fail too, for another one. */
        (void)ops->remove(disk->ctx, temporary);
        return rc;
    }
    rc = ops->sync_folder(disk->ctx, folder);
    return rc ? step_failed(disk, err, rc, "sync folder", folder) : 0;
}

int disk_load(const struct disk *disk, const char *path, size_t max, uint8_t **data, size_t *len, struct err *err)
{
    int rc = disk->ops->load(disk->ctx, path, max, data, len);
    if (rc == ERR_LIMIT) {
        return err_set(err, rc, "%s: read: larger than %zu bytes", path, max);
    }
    return rc ? step_failed(disk, err, rc, "read", path) : 0;
}

int disk_read_at(const struct disk *disk, const char *path, uint64_t offset, void *data, size_t len, struct err *err)
{
    int rc = disk->ops->read_at(disk->ctx, path, offset, data, len);
    if (rc == ERR_DATA) {
        return err_set(err, rc, "%s: read: it ends before byte %llu", path, (unsigned long long)(offset + len));
    }
    return rc ? step_failed(disk, err, rc, "read", path) : 0;
}

int disk_remove(const struct disk *disk, const char *path, struct err *err)
{
    int rc = disk->ops->remove(disk->ctx, path);
    return rc ? step_failed(disk, err, rc, "remove", path) : 0;
}

int disk_make_folder(const struct disk *disk, const char *path, struct err *err)
{
    int rc = disk->ops->make_folder(disk->ctx, path);
    return rc ? step_failed(disk, err, rc, "create folder", path) : 0;
}
