/* What a process does to the files below a directory, in the order in which it happens: preloaded into
 * the gateway (LD_PRELOAD), so that a test can build what a disk might hold after a power cut at any
 * moment. See gateway/tests/it/power/log.rs for the reader of what is written here.
 *
 * PORTCULLIS_POWER_DIR  the directory, canonical
 * PORTCULLIS_POWER_LOG  the log; opened for appending, for the test appends its own marks to it
 *
 * Everything that changes a file or a name is done and logged under one lock, so the log's order is the
 * order of the changes. A sync is two entries, before and after: it covers what stands before its
 * beginning, and counts once its end is there. sync_file_range is no sync. What could change a file
 * unseen (copy_file_range, sendfile, writable shared mappings, links) is logged as unknown, and the test
 * fails on it. Calls go to the kernel directly; nothing here allocates. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536
#define MAGIC 0x31574f50u /* POW1 */

struct entry {
    uint32_t magic;
    uint32_t kind;
    uint64_t a;
    uint64_t b;
    uint32_t path_bytes;
    uint32_t data_bytes;
};

static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_bytes;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static atomic_ulong syncs = 1;
/* What a descriptor is: 0 not looked at, -1 nothing of ours, else the inode. */
static atomic_llong fds[FDS];

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("PORTCULLIS_POWER_DIR");
    const char *log = getenv("PORTCULLIS_POWER_LOG");
    if (!dir || !log || strlen(dir) >= sizeof root)
        return;
    strcpy(root, dir);
    root_bytes = strlen(root);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void give_up(const char *why) {
    (void)!syscall(SYS_write, 2, why, strlen(why));
    _exit(97);
}

static void note(char kind, uint64_t a, uint64_t b, const char *path, size_t path_bytes, const struct iovec *data,
                 int parts, size_t data_bytes) {
    struct entry entry = {MAGIC, (uint32_t)kind, a, b, (uint32_t)path_bytes, (uint32_t)data_bytes};
    struct iovec all[66];
    int saved = errno;
    int count = 0;
    if (parts > 64)
        give_up("recorder: too many parts in one write\n");
    all[count++] = (struct iovec){&entry, sizeof entry};
    all[count++] = (struct iovec){(void *)path, path_bytes};
    size_t left = data_bytes;
    for (int at = 0; at < parts && left > 0; at++) {
        size_t bytes = data[at].iov_len < left ? data[at].iov_len : left;
        all[count++] = (struct iovec){data[at].iov_base, bytes};
        left -= bytes;
    }
    /* One write, so that the entries of other writers stand before or behind it. */
    ssize_t written = syscall(SYS_writev, log_fd, all, count);
    if (written < 0 || (size_t)written != sizeof entry + path_bytes + data_bytes)
        give_up("recorder: the log cannot be written\n");
    errno = saved;
}

static void unknown(const char *what) { note('!', 0, 0, what, strlen(what), NULL, 0, 0); }

/* Whether an absolute path is in the directory; what stands behind it then. */
static const char *inside(const char *path) {
    if (strncmp(path, root, root_bytes) != 0)
        return NULL;
    if (path[root_bytes] == 0)
        return path + root_bytes;
    return path[root_bytes] == '/' ? path + root_bytes + 1 : NULL;
}

/* The path of a name, with its parent made canonical: what stands behind the directory, or NULL. */
static const char *name_inside(int dir, const char *path, char *out) {
    char whole[PATH_MAX], parent[PATH_MAX];
    int saved = errno;
    const char *found = NULL;
    if (log_fd < 0 || !path || !*path)
        return NULL;
    if (*path == '/') {
        if (strlen(path) >= sizeof whole)
            return NULL;
        strcpy(whole, path);
    } else {
        char link[64];
        if (dir == AT_FDCWD)
            strcpy(link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t bytes = readlink(link, whole, sizeof whole - 1);
        if (bytes < 0 || (size_t)bytes + strlen(path) + 2 > sizeof whole)
            goto out;
        whole[bytes] = '/';
        strcpy(whole + bytes + 1, path);
    }
    size_t length = strlen(whole);
    while (length > 1 && whole[length - 1] == '/')
        whole[--length] = 0;
    char *slash = strrchr(whole, '/');
    if (!slash)
        goto out;
    const char *name = slash + 1;
    *slash = 0;
    if (!realpath(*whole ? whole : "/", parent) || strlen(parent) + strlen(name) + 2 > PATH_MAX)
        goto out;
    strcpy(out, parent);
    strcat(out, "/");
    strcat(out, name);
    found = inside(out);
out:
    errno = saved;
    return found;
}

/* The inode of a descriptor that is ours, else 0. */
static uint64_t ours(int fd) {
    if (log_fd < 0 || fd < 0)
        return 0;
    if (fd >= FDS)
        give_up("recorder: too many descriptors\n");
    long long known = atomic_load(&fds[fd]);
    if (known)
        return known > 0 ? (uint64_t)known : 0;
    int saved = errno;
    struct stat st;
    char link[64], path[PATH_MAX];
    known = -1;
    if (fd != log_fd && fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t bytes = readlink(link, path, sizeof path - 1);
        if (bytes > 0) {
            path[bytes] = 0;
            if (inside(path))
                known = (long long)st.st_ino;
        }
    }
    atomic_store(&fds[fd], known);
    errno = saved;
    return known > 0 ? (uint64_t)known : 0;
}

static void forget(int fd) {
    if (fd >= 0 && fd < FDS)
        atomic_store(&fds[fd], 0);
}

/* Names. */

static int open_here(int dir, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = (flags & (O_CREAT | O_TRUNC)) ? name_inside(dir, path, buffer) : NULL;
    if (!name)
        return (int)syscall(SYS_openat, dir, path, flags, mode);
    pthread_mutex_lock(&order);
    struct stat st;
    int saved = errno;
    int was_there = fstatat(dir, path, &st, 0) == 0;
    errno = saved;
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0 && fstat(fd, &st) == 0) {
        if (!was_there)
            note('C', st.st_ino, 0, name, strlen(name), NULL, 0, 0);
        else if (flags & O_TRUNC)
            note('T', st.st_ino, 0, "", 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&order);
    return fd;
}

#define OPEN_MODE(last)                                                                                               \
    mode_t mode = 0;                                                                                                  \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                              \
        va_list rest;                                                                                                 \
        va_start(rest, last);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                  \
        va_end(rest);                                                                                                 \
    }

int open(const char *path, int flags, ...) {
    OPEN_MODE(flags)
    return open_here(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    OPEN_MODE(flags)
    return open_here(AT_FDCWD, path, flags, mode);
}
int openat(int dir, const char *path, int flags, ...) {
    OPEN_MODE(flags)
    return open_here(dir, path, flags, mode);
}
int openat64(int dir, const char *path, int flags, ...) {
    OPEN_MODE(flags)
    return open_here(dir, path, flags, mode);
}
int creat(const char *path, mode_t mode) { return open_here(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    if (fd == log_fd && fd >= 0)
        return 0;
    forget(fd);
    return (int)syscall(SYS_close, fd);
}
int dup2(int from, int to) {
    if (from == to)
        return (int)syscall(SYS_fcntl, from, F_GETFD) < 0 ? -1 : to;
    forget(to);
    return (int)syscall(SYS_dup3, from, to, 0);
}
int dup3(int from, int to, int flags) {
    forget(to);
    return (int)syscall(SYS_dup3, from, to, flags);
}

static int mkdir_here(int dir, const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = name_inside(dir, path, buffer);
    if (!name)
        return (int)syscall(SYS_mkdirat, dir, path, mode);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_mkdirat, dir, path, mode);
    struct stat st;
    if (done == 0 && stat(buffer, &st) == 0)
        note('D', st.st_ino, 0, name, strlen(name), NULL, 0, 0);
    pthread_mutex_unlock(&order);
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdir_here(AT_FDCWD, path, mode); }
int mkdirat(int dir, const char *path, mode_t mode) { return mkdir_here(dir, path, mode); }

static int unlink_here(int dir, const char *path, int flags) {
    char buffer[PATH_MAX];
    const char *name = name_inside(dir, path, buffer);
    if (!name)
        return (int)syscall(SYS_unlinkat, dir, path, flags);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_unlinkat, dir, path, flags);
    if (done == 0)
        note('U', 0, 0, name, strlen(name), NULL, 0, 0);
    pthread_mutex_unlock(&order);
    return done;
}
int unlink(const char *path) { return unlink_here(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlink_here(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int dir, const char *path, int flags) { return unlink_here(dir, path, flags); }

static int rename_here(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX], both[2 * PATH_MAX];
    const char *from_name = name_inside(from_dir, from, from_buffer);
    const char *to_name = name_inside(to_dir, to, to_buffer);
    if (!from_name && !to_name)
        return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (done == 0) {
        if (!from_name || !to_name || (flags & 2 /* exchange */)) {
            unknown("a rename across the border");
        } else {
            size_t from_bytes = strlen(from_name), to_bytes = strlen(to_name);
            memcpy(both, from_name, from_bytes + 1);
            memcpy(both + from_bytes + 1, to_name, to_bytes);
            note('R', 0, 0, both, from_bytes + 1 + to_bytes, NULL, 0, 0);
        }
    }
    pthread_mutex_unlock(&order);
    return done;
}
int rename(const char *from, const char *to) { return rename_here(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return rename_here(from_dir, from, to_dir, to, 0);
}
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return rename_here(from_dir, from, to_dir, to, flags);
}

static int link_here(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char buffer[PATH_MAX];
    if (name_inside(to_dir, to, buffer))
        unknown("a hard link");
    return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}
int link(const char *from, const char *to) { return link_here(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    return link_here(from_dir, from, to_dir, to, flags);
}
int symlinkat(const char *target, int dir, const char *path) {
    char buffer[PATH_MAX];
    if (name_inside(dir, path, buffer))
        unknown("a symbolic link");
    return (int)syscall(SYS_symlinkat, target, dir, path);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

/* Contents. */

/* Under the lock: logs what a write at the file's own position wrote. */
static void note_at_position(int fd, uint64_t inode, const struct iovec *data, int parts, ssize_t written) {
    if (written <= 0)
        return;
    int saved = errno;
    off_t end = (off_t)syscall(SYS_lseek, fd, (off_t)0, SEEK_CUR);
    errno = saved;
    note('W', inode, (uint64_t)(end - written), "", 0, data, parts, (size_t)written);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    uint64_t inode = ours(fd);
    if (!inode)
        return syscall(SYS_write, fd, bytes, count);
    pthread_mutex_lock(&order);
    ssize_t written = syscall(SYS_write, fd, bytes, count);
    struct iovec data = {(void *)bytes, count};
    note_at_position(fd, inode, &data, 1, written);
    pthread_mutex_unlock(&order);
    return written;
}
ssize_t writev(int fd, const struct iovec *data, int parts) {
    uint64_t inode = ours(fd);
    if (!inode)
        return syscall(SYS_writev, fd, data, parts);
    pthread_mutex_lock(&order);
    ssize_t written = syscall(SYS_writev, fd, data, parts);
    note_at_position(fd, inode, data, parts, written);
    pthread_mutex_unlock(&order);
    return written;
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    uint64_t inode = ours(fd);
    if (!inode)
        return syscall(SYS_pwrite64, fd, bytes, count, at);
    pthread_mutex_lock(&order);
    ssize_t written = syscall(SYS_pwrite64, fd, bytes, count, at);
    struct iovec data = {(void *)bytes, count};
    if (written > 0)
        note('W', inode, (uint64_t)at, "", 0, &data, 1, (size_t)written);
    pthread_mutex_unlock(&order);
    return written;
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }
ssize_t pwritev64(int fd, const struct iovec *data, int parts, off64_t at) {
    uint64_t inode = ours(fd);
    if (!inode)
        return syscall(SYS_pwritev, fd, data, parts, at, 0L);
    pthread_mutex_lock(&order);
    ssize_t written = syscall(SYS_pwritev, fd, data, parts, at, 0L);
    if (written > 0)
        note('W', inode, (uint64_t)at, "", 0, data, parts, (size_t)written);
    pthread_mutex_unlock(&order);
    return written;
}
ssize_t pwritev(int fd, const struct iovec *data, int parts, off_t at) { return pwritev64(fd, data, parts, at); }

int ftruncate64(int fd, off64_t bytes) {
    uint64_t inode = ours(fd);
    if (!inode)
        return (int)syscall(SYS_ftruncate, fd, bytes);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_ftruncate, fd, bytes);
    if (done == 0)
        note('T', inode, (uint64_t)bytes, "", 0, NULL, 0, 0);
    pthread_mutex_unlock(&order);
    return done;
}
int ftruncate(int fd, off_t bytes) { return ftruncate64(fd, bytes); }
int truncate64(const char *path, off64_t bytes) {
    char buffer[PATH_MAX];
    if (name_inside(AT_FDCWD, path, buffer))
        unknown("a truncation by name");
    return (int)syscall(SYS_truncate, path, bytes);
}
int truncate(const char *path, off_t bytes) { return truncate64(path, bytes); }

int fallocate64(int fd, int mode, off64_t at, off64_t bytes) {
    uint64_t inode = ours(fd);
    if (!inode)
        return (int)syscall(SYS_fallocate, fd, mode, at, bytes);
    pthread_mutex_lock(&order);
    struct stat before, after;
    int known = fstat(fd, &before);
    int done = (int)syscall(SYS_fallocate, fd, mode, at, bytes);
    if (done == 0) {
        if (mode & ~FALLOC_FL_KEEP_SIZE)
            unknown("a hole punched into a file");
        else if (known == 0 && fstat(fd, &after) == 0 && after.st_size != before.st_size)
            note('T', inode, (uint64_t)after.st_size, "", 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&order);
    return done;
}
int fallocate(int fd, int mode, off_t at, off_t bytes) { return fallocate64(fd, mode, at, bytes); }
int posix_fallocate64(int fd, off64_t at, off64_t bytes) {
    int saved = errno;
    int code = fallocate64(fd, 0, at, bytes) == 0 ? 0 : errno;
    errno = saved;
    return code;
}
int posix_fallocate(int fd, off_t at, off_t bytes) { return posix_fallocate64(fd, at, bytes); }

/* Durability. */

static int sync_here(long call, int fd) {
    uint64_t inode = ours(fd);
    if (!inode)
        return (int)syscall(call, fd);
    uint64_t number = atomic_fetch_add(&syncs, 1);
    pthread_mutex_lock(&order);
    note('S', inode, number, "", 0, NULL, 0, 0);
    pthread_mutex_unlock(&order);
    int done = (int)syscall(call, fd);
    if (done == 0) {
        pthread_mutex_lock(&order);
        note('E', inode, number, "", 0, NULL, 0, 0);
        pthread_mutex_unlock(&order);
    }
    return done;
}
int fsync(int fd) { return sync_here(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_here(SYS_fdatasync, fd); }

/* What would change a file unseen. */

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t bytes, unsigned flags) {
    if (ours(out))
        unknown("copy_file_range");
    return syscall(SYS_copy_file_range, in, in_at, out, out_at, bytes, flags);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t bytes) {
    if (ours(out))
        unknown("sendfile");
    return syscall(SYS_sendfile, out, in, at, bytes);
}
ssize_t sendfile(int out, int in, off_t *at, size_t bytes) { return sendfile64(out, in, at, bytes); }
ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t bytes, unsigned flags) {
    if (ours(out))
        unknown("splice");
    return syscall(SYS_splice, in, in_at, out, out_at, bytes, flags);
}
static void *mmap_here(void *address, size_t bytes, int protection, int flags, int fd, off64_t at) {
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && ours(fd))
        unknown("a writable shared mapping");
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, at);
}
void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t at) {
    return mmap_here(address, bytes, protection, flags, fd, at);
}
void *mmap64(void *address, size_t bytes, int protection, int flags, int fd, off64_t at) {
    return mmap_here(address, bytes, protection, flags, fd, at);
}
