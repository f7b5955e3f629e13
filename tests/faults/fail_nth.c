/* A library to preload: the N-th operation that writes below a folder fails with a given errno, or all from the N-th on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char prefix[PATH_MAX];
static long fail_at = -1, count = 0;
static int fail_errno = 0, persistent = 0;

void fault_arm(const char *folder, long at, int number, int for_good) {
    strncpy(prefix, folder, PATH_MAX - 1);
    fail_at = at; fail_errno = number; persistent = for_good; count = 0;
}
long fault_count(void) { return count; }

static int fails(const char *path) {
    if (!prefix[0] || !path || strncmp(path, prefix, strlen(prefix)) != 0) return 0;
    count++;
    if (count == fail_at || (persistent && fail_at > 0 && count > fail_at)) { errno = fail_errno; return 1; }
    return 0;
}
static int fails_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!prefix[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return fails(path);
}
#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *b, size_t n) { REAL(write); if (fails_fd(fd)) return -1; return real(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(pwrite); if (fails_fd(fd)) return -1; return real(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(pwrite64); if (fails_fd(fd)) return -1; return real(fd, b, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(writev); if (fails_fd(fd)) return -1; return real(fd, v, n); }
int fsync(int fd) { REAL(fsync); if (fails_fd(fd)) return -1; return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); if (fails_fd(fd)) return -1; return real(fd); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); if (fails_fd(fd)) return -1; return real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); if (fails_fd(fd)) return -1; return real(fd, n); }
int rename(const char *a, const char *b) { REAL(rename); if (fails(b)) return -1; return real(a, b); }
int renameat2(int x, const char *a, int y, const char *b, unsigned f) { REAL(renameat2); if (fails(b)) return -1; return real(x, a, y, b, f); }
int link(const char *a, const char *b) { REAL(link); if (fails(b)) return -1; return real(a, b); }
int symlink(const char *a, const char *b) { REAL(symlink); if (fails(b)) return -1; return real(a, b); }
int mkdir(const char *a, mode_t m) { REAL(mkdir); if (fails(a)) return -1; return real(a, m); }
ssize_t copy_file_range(int a, off64_t *x, int b, off64_t *y, size_t n, unsigned f) { REAL(copy_file_range); if (fails_fd(b)) return -1; return real(a, x, b, y, n, f); }
ssize_t sendfile(int o, int i, off_t *x, size_t n);
ssize_t sendfile(int o, int i, off_t *x, size_t n) { static ssize_t (*real)(int, int, off_t *, size_t); if (!real) real = dlsym(RTLD_NEXT, "sendfile"); if (fails_fd(o)) return -1; return real(o, i, x, n); }
ssize_t sendfile64(int o, int i, off64_t *x, size_t n);
ssize_t sendfile64(int o, int i, off64_t *x, size_t n) { static ssize_t (*real)(int, int, off64_t *, size_t); if (!real) real = dlsym(RTLD_NEXT, "sendfile64"); if (fails_fd(o)) return -1; return real(o, i, x, n); }
int open(const char *p, int f, ...) {
    REAL(open); va_list l; va_start(l, f); mode_t m = va_arg(l, mode_t); va_end(l);
    if ((f & (O_CREAT | O_WRONLY | O_RDWR)) && fails(p)) return -1; return real(p, f, m); }
int open64(const char *p, int f, ...) {
    REAL(open64); va_list l; va_start(l, f); mode_t m = va_arg(l, mode_t); va_end(l);
    if ((f & (O_CREAT | O_WRONLY | O_RDWR)) && fails(p)) return -1; return real(p, f, m); }
int openat(int d, const char *p, int f, ...) {
    REAL(openat); va_list l; va_start(l, f); mode_t m = va_arg(l, mode_t); va_end(l);
    if ((f & (O_CREAT | O_WRONLY | O_RDWR)) && fails(p)) return -1; return real(d, p, f, m); }
