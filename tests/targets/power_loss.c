/* Keeps, beside the files of one folder, what of them a power failure would leave: contents as of their last fsync,
   names as of the last fsync of the file or of its folder. Preloaded into the program under test.

   POWER_LOSS_ROOT is the folder, POWER_LOSS_KEPT where contents (by inode) and names (a list for each folder) go. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *under_root(int fd, char *path)
{
    const char *root = getenv("POWER_LOSS_ROOT");
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (!root || length < 0)
        return NULL;
    path[length] = 0;
    size_t n = strlen(root);
    if (strncmp(path, root, n) || (path[n] && path[n] != '/'))
        return NULL;
    return path[n] ? path + n + 1 : "";
}

static void list_of(char *list, const char *folder)
{
    int n = snprintf(list, PATH_MAX, "%s/names-", getenv("POWER_LOSS_KEPT"));
    snprintf(list + n, PATH_MAX - n, "%s", folder);
    for (char *at = list + n; *at; at++)
        if (*at == '/')
            *at = '!';
}

static void keep_content(int fd, unsigned long inode)
{
    char to[PATH_MAX], fresh[PATH_MAX + 8], buffer[65536];
    snprintf(to, sizeof to, "%s/%lu", getenv("POWER_LOSS_KEPT"), inode);
    snprintf(fresh, sizeof fresh, "%s.new", to);
    int out = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    off_t at = 0;
    ssize_t n;
    while ((n = pread(fd, buffer, sizeof buffer, at)) > 0) {
        if (write(out, buffer, n) != n)
            abort();
        at += n;
    }
    /* A file that is open for writing alone is read under its name. */
    if (n < 0) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int in = open(link, O_RDONLY);
        while ((n = read(in, buffer, sizeof buffer)) > 0)
            if (write(out, buffer, n) != n)
                abort();
        close(in);
    }
    close(out);
    rename(fresh, to);
}

static void keep(int fd)
{
    char path[PATH_MAX], list[PATH_MAX], fresh[PATH_MAX + 8];
    struct stat about;
    const char *name = under_root(fd, path);
    if (!name || fstat(fd, &about))
        return;
    if (S_ISDIR(about.st_mode)) {
        list_of(list, name);
        snprintf(fresh, sizeof fresh, "%s.new", list);
        FILE *out = fopen(fresh, "w");
        DIR *folder = opendir(path);
        for (struct dirent *each; folder && (each = readdir(folder));)
            if (each->d_type == DT_REG)
                fprintf(out, "%lu %s\n", (unsigned long)each->d_ino, each->d_name);
        closedir(folder);
        fclose(out);
        rename(fresh, list);
        return;
    }
    keep_content(fd, about.st_ino);
    char *slash = strrchr(path, '/');
    const char *base = slash + 1;
    char folder[PATH_MAX] = "";
    if (base - name > 0 && base != name)
        snprintf(folder, sizeof folder, "%.*s", (int)(base - name - 1), name);
    list_of(list, folder);
    FILE *out = fopen(list, "a");
    fprintf(out, "%lu %s\n", (unsigned long)about.st_ino, base);
    fclose(out);
}

int fsync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int result = real(fd);
    if (!result)
        keep(fd);
    return result;
}

int fdatasync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int result = real(fd);
    if (!result)
        keep(fd);
    return result;
}
