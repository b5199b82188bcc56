// Stands between a program and its disk (LD_PRELOAD): from the Nth write or sync of a lease database on, those fail.
//
// DUPIP_FAULT  "sync N"   the Nth sync and all after it: EIO
//              "write N"  the Nth write: half of it is written; all after it: ENOSPC
//              "die N"    the process ends at the Nth write or sync, as by kill -9
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int calls;

static int is_database(int fd) {
    char link[64], path[4096] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) > 0 && strstr(path, "leases.db") != NULL;
}

// How many of these calls are over the limit; negative or 0 before it, 1 for the first that is to fail.
static int over(const char *kind, int fd) {
    char wanted[16] = {0};
    int limit = 0;
    const char *fault = getenv("DUPIP_FAULT");
    if (!fault || sscanf(fault, "%15s %d", wanted, &limit) != 2 || !is_database(fd)) return 0;
    int dies = strcmp(wanted, "die") == 0;
    if (!dies && strcmp(wanted, kind) != 0) return 0;
    int now = atomic_fetch_add(&calls, 1) + 1;
    if (dies && now >= limit) kill(getpid(), SIGKILL);
    return now - limit + 1;
}

static int sync_with(const char *name, int fd) {
    if (over("sync", fd) > 0) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd) { return sync_with("fsync", fd); }
int fdatasync(int fd) { return sync_with("fdatasync", fd); }

static ssize_t write_with(const char *name, int fd, const void *from, size_t len, off64_t at) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, name);
    int past = over("write", fd);
    if (past > 1) {
        errno = ENOSPC;
        return -1;
    }
    return real(fd, from, past == 1 ? len / 2 : len, at);
}

ssize_t pwrite64(int fd, const void *from, size_t len, off64_t at) { return write_with("pwrite64", fd, from, len, at); }
ssize_t pwrite(int fd, const void *from, size_t len, off_t at) { return write_with("pwrite", fd, from, len, at); }
