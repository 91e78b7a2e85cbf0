// Processes and memory: fork, vfork, exec, pipes, sockets, shared memory, mappings, time.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *self;

static uint64_t hash(const void *data, size_t n) {
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (const unsigned char *p = data; n--; p++) h = (h ^ *p) * UINT64_C(0x100000001b3);
    return h;
}

static void say(const char *what, int status) {
    if (WIFEXITED(status)) printf("%s: exit %d\n", what, WEXITSTATUS(status));
    else printf("%s: signal %d\n", what, WTERMSIG(status));
    fflush(stdout);
}

static void children(void) {
    int status;
    pid_t child = fork();
    if (!child) _exit(42);
    waitpid(child, &status, 0);
    say("fork", status);
    child = fork();
    if (!child) raise(SIGKILL);
    waitpid(child, &status, 0);
    say("killed", status);
    child = vfork();
    if (!child) {
        execl(self, self, "child", "of vfork", (char *)0);
        _exit(99);
    }
    waitpid(child, &status, 0);
    say("vfork and exec", status);
    child = fork();
    if (!child) {
        execl("/nonexistent", "x", (char *)0);
        _exit(errno);
    }
    waitpid(child, &status, 0);
    say("exec of nothing", status - (ENOENT << 8));
    // Many at once, to be waited for in any order.
    int sum = 0;
    for (int i = 0; i < 40; i++)
        if (!fork()) {
            for (volatile int n = 0; n < i * 1000; n++) continue;
            _exit(i);
        }
    while (wait(&status) > 0) sum += WEXITSTATUS(status);
    printf("sum of 40 children: %d\n", sum);
}

static void pipes(void) {
    int to[2], from[2], status;
    if (pipe(to) || pipe(from)) return;
    pid_t child = fork();
    if (!child) {
        close(to[1]), close(from[0]);
        unsigned char buffer[3001];
        ssize_t n;
        while ((n = read(to[0], buffer, sizeof buffer)) > 0) {
            for (ssize_t i = 0; i < n; i++) buffer[i] ^= 0x5a;
            for (ssize_t done = 0; done < n;) done += write(from[1], buffer + done, n - done);
        }
        _exit(0);
    }
    close(to[0]), close(from[1]);
    uint64_t sent = 0, got = 0;
    unsigned char out[5000], in[5000];
    for (int round = 0; round < 60; round++) {
        for (size_t i = 0; i < sizeof out; i++) out[i] = (unsigned char)(i * 7 + round);
        if (write(to[1], out, sizeof out) != sizeof out) break;
        size_t n = 0;
        while (n < sizeof in) n += read(from[0], in + n, sizeof in - n);
        for (size_t i = 0; i < sizeof in; i++) in[i] ^= 0x5a;
        sent ^= hash(out, sizeof out), got ^= hash(in, sizeof in);
    }
    close(to[1]);
    waitpid(child, &status, 0);
    printf("pipes %d %016lx\n", sent == got, (long)got);
    signal(SIGPIPE, SIG_IGN);
    close(from[0]);
    int broken[2];
    if (pipe(broken)) return;
    close(broken[0]);
    printf("broken pipe %d\n", write(broken[1], "x", 1) < 0 && errno == EPIPE);
}

static void sockets(void) {
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    // A descriptor travels through a socket.
    int file = memfd_create("passed", 0);
    if (write(file, "through a socket", 16) != 16) return;
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &file, sizeof file);
    sendmsg(pair[0], &message, 0);
    close(file);
    recvmsg(pair[1], &message, 0);
    int received;
    memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof received);
    char text[32] = {0};
    printf("%zd %s\n", pread(received, text, 31, 0), text);

    int poller = epoll_create1(0), event = eventfd(0, 0);
    struct epoll_event want = {EPOLLIN, {.u32 = 7}}, got;
    epoll_ctl(poller, EPOLL_CTL_ADD, event, &want);
    printf("epoll %d", epoll_wait(poller, &got, 1, 0));
    eventfd_write(event, 5);
    printf(" %d", epoll_wait(poller, &got, 1, 1000));
    eventfd_t value;
    eventfd_read(event, &value);
    printf(" %u %lu\n", got.data.u32, (long)value);
}

static void sharing(void) {
    volatile long *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    volatile long *private = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int id = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600);
    volatile long *sysv = shmat(id, 0, 0);
    *private = 1;
    if (!fork()) {
        for (int i = 0; i < 10000; i++) __sync_fetch_and_add(shared, 1);
        *private = 2, sysv[512] = 77;
        _exit(0);
    }
    for (int i = 0; i < 10000; i++) __sync_fetch_and_add(shared, 2);
    wait(0);
    printf("shared %ld, private %ld, System V %ld\n", *shared, *private, sysv[512]);
    shmdt((void *)sysv), shmctl(id, IPC_RMID, 0);
    int posix = shm_open("/guest-programs", O_CREAT | O_RDWR, 0600);
    if (ftruncate(posix, 3 * 4096)) return;
    char *one = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, posix, 0);
    char *two = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, posix, 0);
    strcpy(one + 4090, "across two pages");
    printf("POSIX: %s\n", two + 4090);
    shm_unlink("/guest-programs");
}

static void mappings(void) {
    size_t n = 24 << 20;
    char *a = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *b = malloc(n + 100);
    for (size_t i = 0; i < n; i += 8) *(uint64_t *)(a + i) = i * UINT64_C(0x9e3779b97f4a7c15);
    memcpy(b + 3, a, n);
    printf("copy %d\n", memcmp(a, b + 3, n));
    memmove(b + 50, b + 3, n);
    printf("move up %d\n", memcmp(a, b + 50, n));
    memmove(b, b + 50, n);
    printf("move down %d\n", memcmp(a, b, n));
    memset(b + 1001, 0x77, 1 << 20);
    printf("%016lx\n", (long)hash(b, 2 << 20));
    a = mremap(a, n, 2 * n, MREMAP_MAYMOVE);
    printf("grown %d %d\n", memcmp(a + (1 << 20), b + 1001 + (1 << 20), 0), a[2 * n - 1]);
    madvise(a, 1 << 20, MADV_DONTNEED);
    printf("given back %d\n", a[4096]);
    munmap(a, 2 * n), free(b);
    char name[] = "/tmp/guest-programs-XXXXXX";
    int file = mkstemp(name);
    unlink(name);
    if (ftruncate(file, 10000)) return;
    char *map = mmap(0, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    strcpy(map + 8190, "written through a mapping");
    char text[64] = {0};
    printf("%zd", pread(file, text, 25, 8190));
    printf(" %s\n", text);
}

static void clocks(void) {
    struct timespec last = {0, 0}, now;
    int back = 0;
    for (int i = 0; i < 20000; i++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        back += now.tv_sec < last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec < last.tv_nsec);
        last = now;
    }
    struct timespec nap = {0, 30000000}, after;
    nanosleep(&nap, 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    long ns = (after.tv_sec - now.tv_sec) * 1000000000 + after.tv_nsec - now.tv_nsec;
    printf("backwards %d, slept %d\n", back, ns >= 30000000);
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec every = {{0, 2000000}, {0, 2000000}};
    timerfd_settime(timer, 0, &every, 0);
    uint64_t sum = 0, n;
    while (sum < 5 && read(timer, &n, sizeof n) == sizeof n) sum += n;
    printf("timer %d\n", sum >= 5);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("faults %d\n", usage.ru_minflt > 100);
}

int main(int argc, char **argv) {
    self = argv[0];
    setvbuf(stdout, 0, _IOLBF, 0);
    if (argc > 1) {
        printf("%s %s\n", argv[1], argv[2]);
        return 7;
    }
    children();
    pipes();
    sockets();
    sharing();
    mappings();
    clocks();
    return 0;
}
