/* Fails, or kills the process at, the Nth call that changes something below a folder.
 *
 * Preloaded into a process (LD_PRELOAD), it sees what Python, Rust (safetensors, tokenizers) and C++ (torch, Arrow) ask
 * of the C library. `fault_arm` says when; the counters lie in memory that a forked child shares with its parent.
 * Systems that call the kernel without the C library are not seen: in safetensors 0.8 the rename of its temporary file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, RENAME = 8, MKDIR = 16, TRUNCATE = 32, REMOVE = 64, TOUCH = 128 };
enum { FAIL_ONCE = 0, FAIL_FROM_THEN_ON = 1, KILL = 2, POWER_CUT = 3 };

struct plan {
    int armed, kinds, mode, error;
    /* What a file system does not have, whatever is armed: errno of fsync of a folder, of a file, of flock, and of the
     * renaming of folders; 0 where it has it. */
    int no_folder_sync, no_file_sync, no_lock, no_folder_rename;
    long at, calls, fired;
    char root[PATH_MAX], match[256], what[PATH_MAX + 64];
};
static struct plan *plan;

/* Files with bytes that no fsync has made safe: what a power cut takes away. */
static struct { int fd; dev_t device; ino_t inode; off_t safe; } dirty[256];
static int dirty_count;

__attribute__((constructor)) static void begin(void) {
    plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (plan == MAP_FAILED) abort();
}

void fault_arm(const char *root, const char *match, int kinds, long at, int mode, int error) {
    memset(plan, 0, sizeof *plan);
    snprintf(plan->root, sizeof plan->root, "%s", root);
    snprintf(plan->match, sizeof plan->match, "%s", match);
    plan->kinds = kinds, plan->at = at, plan->mode = mode, plan->error = error;
    plan->armed = 1;
}
void fault_file_system(int folder_sync, int file_sync, int lock, int folder_rename) {
    plan->no_folder_sync = folder_sync, plan->no_file_sync = file_sync;
    plan->no_lock = lock, plan->no_folder_rename = folder_rename;
}
void fault_disarm(void) { plan->armed = 0; }
long fault_calls(void) { return plan->calls; }
long fault_fired(void) { return plan->fired; }
const char *fault_what(void) { return plan->what; }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void full_path(int folder, const char *name, char *out) {
    if (name && name[0] == '/') { snprintf(out, PATH_MAX, "%s", name); return; }
    char link[64], base[PATH_MAX] = "";
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, base, sizeof base - 1);
    if (length < 0) { out[0] = 0; return; }
    base[length] = 0;
    if (!name) snprintf(out, PATH_MAX, "%s", base);
    else if (snprintf(out, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) out[0] = 0;
}

static int remember_unsafe(int fd, struct stat *status) {
    for (int i = 0; i < dirty_count; i++)
        if (dirty[i].device == status->st_dev && dirty[i].inode == status->st_ino) return i;
    if (dirty_count == 256) abort();
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 400);
    if (copy < 0) abort();
    dirty[dirty_count].fd = copy;
    dirty[dirty_count].device = status->st_dev, dirty[dirty_count].inode = status->st_ino;
    dirty[dirty_count].safe = status->st_size;
    return dirty_count++;
}

/* Called before a change of size: what is there now is safe, what comes is not. */
static void note_unsafe(int fd) {
    struct stat status;
    if (fd > 2 && plan->armed && plan->mode == POWER_CUT && !fstat(fd, &status) && S_ISREG(status.st_mode)) remember_unsafe(fd, &status);
}
static void note_safe(int fd) {
    struct stat status;
    if (!plan->armed || plan->mode != POWER_CUT || fstat(fd, &status)) return;
    for (int i = 0; i < dirty_count; i++)
        if (dirty[i].device == status.st_dev && dirty[i].inode == status.st_ino) {
            close(dirty[i].fd);
            dirty[i] = dirty[--dirty_count];
            return;
        }
}

static int shrink(int fd, off_t size) {
    static int (*real)(int, off_t);
    if (!real) real = (int (*)(int, off_t))dlsym(RTLD_NEXT, "ftruncate");
    return real(fd, size);
}

static void die(void) {
    if (plan->mode == POWER_CUT)
        for (int i = 0; i < dirty_count; i++) shrink(dirty[i].fd, dirty[i].safe);
    kill(getpid(), SIGKILL);
    pause();
}

/* 0: go on. 1: fail with errno. 2: write a part, then die. */
static int hit(int kind, const char *name_of_kind, int folder, const char *name) {
    if (!plan || !plan->armed || !(plan->kinds & kind)) return 0;
    int saved = errno;
    char path[PATH_MAX];
    full_path(folder, name, path);
    errno = saved;
    size_t length = strlen(plan->root);
    if (strncmp(path, plan->root, length) || (path[length] != '/' && path[length] != 0)) return 0;
    if (plan->match[0] && !strstr(path, plan->match)) return 0;
    long call = __atomic_add_fetch(&plan->calls, 1, __ATOMIC_SEQ_CST);
    if (getenv("FAULT_LOG")) dprintf(2, "FAULT %ld %s %s\n", call, name_of_kind, path + length);
    if (call != plan->at && !(plan->mode == FAIL_FROM_THEN_ON && plan->at && call > plan->at)) return 0;
    if (!plan->fired++) snprintf(plan->what, sizeof plan->what, "%s %s", name_of_kind, path + length);
    if (plan->mode >= KILL) {
        if (kind == WRITE) return 2;
        die();
    }
    errno = plan->error;
    return 1;
}

#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & (O_CREAT | O_TRUNC)))
#define OPEN_BODY(folder, path, call_with_mode) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); } \
    if (WRITES(flags) && hit(OPEN, "open", folder, path)) return -1; \
    return call_with_mode;

int open(const char *path, int flags, ...) { REAL(open); OPEN_BODY(AT_FDCWD, path, real(path, flags, mode)) }
int open64(const char *path, int flags, ...) { REAL(open64); OPEN_BODY(AT_FDCWD, path, real(path, flags, mode)) }
int openat(int folder, const char *path, int flags, ...) { REAL(openat); OPEN_BODY(folder, path, real(folder, path, flags, mode)) }
int openat64(int folder, const char *path, int flags, ...) { REAL(openat64); OPEN_BODY(folder, path, real(folder, path, flags, mode)) }
FILE *fopen(const char *path, const char *how) {
    REAL(fopen);
    return strpbrk(how, "wa+") && hit(OPEN, "open", AT_FDCWD, path) ? NULL : real(path, how);
}
FILE *fopen64(const char *path, const char *how) {
    REAL(fopen64);
    return strpbrk(how, "wa+") && hit(OPEN, "open", AT_FDCWD, path) ? NULL : real(path, how);
}

#define WRITE_BODY(whole, part) \
    int found = hit(WRITE, "write", fd, NULL); \
    if (found == 1) return -1; \
    note_unsafe(fd); \
    if (found == 2) { if (part < 0) abort(); die(); } \
    return whole;
ssize_t write(int fd, const void *data, size_t size) { REAL(write); WRITE_BODY(real(fd, data, size), real(fd, data, size / 2)) }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { REAL(pwrite); WRITE_BODY(real(fd, data, size, at), real(fd, data, size / 2, at)) }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { REAL(pwrite64); WRITE_BODY(real(fd, data, size, at), real(fd, data, size / 2, at)) }
ssize_t writev(int fd, const struct iovec *parts, int count) { REAL(writev); WRITE_BODY(real(fd, parts, count), real(fd, parts, count / 2)) }

static int below_root(const char *path) {
    size_t length = strlen(plan->root);
    return length && !strncmp(path, plan->root, length) && (path[length] == '/' || path[length] == 0);
}
/* Whether the file system of the plan lacks fsync of this file or folder. */
static int lacks_sync(int fd) {
    struct stat status;
    char path[PATH_MAX];
    if (!plan || (!plan->no_folder_sync && !plan->no_file_sync) || fstat(fd, &status)) return 0;
    int error = S_ISDIR(status.st_mode) ? plan->no_folder_sync : plan->no_file_sync;
    full_path(fd, NULL, path);
    if (!error || !below_root(path)) return 0;
    errno = error;
    return 1;
}

#define SYNC_BODY \
    if (lacks_sync(fd)) return -1; \
    if (hit(SYNC, "fsync", fd, NULL)) return -1; \
    int found = real(fd); \
    if (!found) note_safe(fd); \
    return found;
int fsync(int fd) { REAL(fsync); SYNC_BODY }
int fdatasync(int fd) { REAL(fdatasync); SYNC_BODY }

int flock(int fd, int operation) {
    REAL(flock);
    char path[PATH_MAX];
    if (plan && plan->no_lock && !(operation & LOCK_UN)) {
        full_path(fd, NULL, path);
        if (below_root(path)) { errno = plan->no_lock; return -1; }
    }
    return real(fd, operation);
}

static int lacks_rename(const char *from) {
    struct stat status;
    char path[PATH_MAX];
    if (!plan || !plan->no_folder_rename || stat(from, &status) || !S_ISDIR(status.st_mode)) return 0;
    full_path(AT_FDCWD, from, path);
    /* As in the layers of a container's image: what was just made can be renamed. */
    if (!below_root(path) || strstr(path, "/.tmp-")) return 0;
    errno = plan->no_folder_rename;
    return 1;
}
int rename(const char *from, const char *to) { REAL(rename); if (lacks_rename(from)) return -1; return hit(RENAME, "rename", AT_FDCWD, to) ? -1 : real(from, to); }
int renameat(int a, const char *from, int b, const char *to) { REAL(renameat); return hit(RENAME, "rename", b, to) ? -1 : real(a, from, b, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { REAL(renameat2); return hit(RENAME, "rename", b, to) ? -1 : real(a, from, b, to, flags); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); return hit(MKDIR, "mkdir", AT_FDCWD, path) ? -1 : real(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { REAL(mkdirat); return hit(MKDIR, "mkdir", folder, path) ? -1 : real(folder, path, mode); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); if (hit(TRUNCATE, "truncate", fd, NULL)) return -1; note_unsafe(fd); return real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); if (hit(TRUNCATE, "truncate", fd, NULL)) return -1; note_unsafe(fd); return real(fd, size); }
int truncate(const char *path, off_t size) { REAL(truncate); return hit(TRUNCATE, "truncate", AT_FDCWD, path) ? -1 : real(path, size); }
int truncate64(const char *path, off64_t size) { REAL(truncate64); return hit(TRUNCATE, "truncate", AT_FDCWD, path) ? -1 : real(path, size); }
int unlink(const char *path) { REAL(unlink); return hit(REMOVE, "remove", AT_FDCWD, path) ? -1 : real(path); }
int rmdir(const char *path) { REAL(rmdir); return hit(REMOVE, "remove", AT_FDCWD, path) ? -1 : real(path); }
int unlinkat(int folder, const char *path, int flags) { REAL(unlinkat); return hit(REMOVE, "remove", folder, path) ? -1 : real(folder, path, flags); }
int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    REAL(utimensat);
    return hit(TOUCH, "touch", folder, path) ? -1 : real(folder, path, times, flags);
}
int futimens(int fd, const struct timespec times[2]) { REAL(futimens); return hit(TOUCH, "touch", fd, NULL) ? -1 : real(fd, times); }
