#include "client/tool/listing.h"

#include "client/data/image.h"
#include "common/base/disk.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static bool looks_like_image(const char *folder, const char *path)
{
    char full[DISK_PATH_MAX];
    uint8_t head[IMAGE_HEAD];
    int file = disk_join(full, folder, path) ? -1 : open(full, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    ssize_t n = read(file, head, sizeof head);
    (void)close(file);
    return n > 0 && image_kind(head, (size_t)n) != IMAGE_UNKNOWN;
}

int listing_find(const char *folder, struct listing *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    int rc = scan_folder(folder, NULL, &out->scan, err);
    if (rc) {
        return rc;
    }
    out->paths = mem_new(out->scan.count, sizeof *out->paths);
    for (uint32_t i = 0; out->paths && i < out->scan.count; i++) {
        if (looks_like_image(folder, out->scan.files[i].path)) {
            out->paths[out->count++] = out->scan.files[i].path;
        }
    }
    if (!out->paths || classes_of(out->paths, out->count, &out->classes)) {
        return err_set(err, ERR_NOMEM, "no memory for %u files", out->scan.count);
    }
    return out->count ? 0 : err_set(err, ERR_DATA, "image folder %s holds no JPEG or PNG image", folder);
}

void listing_fini(struct listing *listing)
{
    classes_fini(&listing->classes);
    scan_fini(&listing->scan);
    mem_free(listing->paths);
    memset(listing, 0, sizeof *listing);
}
