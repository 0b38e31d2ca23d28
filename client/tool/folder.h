/* Folders that verbs write to. */
#ifndef STARLING_TOOL_FOLDER_H
#define STARLING_TOOL_FOLDER_H

#include "common/base/disk.h"

#include <stdbool.h>

/* A new or empty folder for output: what is already there is never mixed with something new, and what is written never
 * joins the images in `source` (NULL: none) that it is made of. ERR_CANTCREATE. */
int folder_claim(const char *path, const char *source, struct err *err);
/* "folder/name", made or not. ERR_CANTCREATE: too long. */
int folder_path(const char *folder, const char *name, char out[DISK_PATH_MAX], struct err *err);
/* Whether `path`, which exists, is `source` or lies in it. */
bool folder_lies_in(const char *path, const char *source);
/* A symbolic link `folder`/`path`, its folders made, to `from`/`path`; one that leads elsewhere is replaced. from:
 * absolute. ERR_CANTCREATE. */
int folder_link(const char *from, const char *folder, const char *path, struct err *err);
/* "folder/name", made when missing (name may have parts). ERR_CANTCREATE. */
int folder_make(const char *folder, const char *name, char out[DISK_PATH_MAX], struct err *err);

#endif
