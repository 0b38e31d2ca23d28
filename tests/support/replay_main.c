/* Stands in for libFuzzer where it is not built in: runs a fuzz target once on every file of the folders named, so that
 * what fuzzing has found stays found. A folder without files is a failure: it would prove nothing. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat info;
    if (!file || fstat(fileno(file), &info) != 0) {
        perror(path);
        return 1;
    }
    int rc = 0;
    if (S_ISREG(info.st_mode)) {
        size_t size = (size_t)info.st_size;
        uint8_t *data = malloc(size ? size : 1); /* of exactly this size, so that ASan sees a read past the end */
        if (data && fread(data, 1, size, file) == size) {
            (void)LLVMFuzzerTestOneInput(data, size);
        } else {
            perror(path);
            rc = 1;
        }
        free(data);
    }
    (void)fclose(file);
    return rc;
}

static int replay_folder(const char *folder, int *files)
{
    DIR *dir = opendir(folder);
    if (!dir) {
        perror(folder);
        return 1;
    }
    int rc = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        char path[4096];
        if (entry->d_name[0] != '.') {
            (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            rc = replay_file(path);
            ++*files;
        }
    }
    (void)closedir(dir);
    return rc;
}

int main(int argc, char **argv)
{
    int files = 0;
    for (int i = 1; i < argc; i++) {
        if (replay_folder(argv[i], &files) != 0) {
            return 1;
        }
    }
    printf("%d files replayed\n", files);
    return files > 0 ? 0 : 1;
}
