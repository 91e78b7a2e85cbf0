// Signals: faults with their codes and addresses, alternate stacks, jumps out of handlers, queues,
// masks, timers.
#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static siginfo_t seen;
static long error_code;

static void fault(int number, siginfo_t *info, void *context) {
    seen = *info;
    error_code = ((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR];
    siglongjmp(back, number);
}

static void handle(int number, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&action.sa_mask);
    if (sigaction(number, &action, 0)) perror("sigaction");
}

#define TRY(name, ...)                                                             \
    do {                                                                           \
        int number = sigsetjmp(back, 1);                                           \
        if (number) printf("%s: signal %d code %d\n", name, number, seen.si_code); \
        else {                                                                     \
            __VA_ARGS__;                                                           \
            printf("%s: nothing\n", name);                                         \
        }                                                                          \
    } while (0)

static volatile int zero, one = 1;
static volatile double dzero, done = 1, dbig = 1e308;
static volatile long double lzero, lone = 1;
static volatile int sink;
static volatile double dsink;
static volatile long double lsink;

// A handler begins with all exceptions masked, and a jump out of it leaves them so.
static void unmask(void) {
    feclearexcept(FE_ALL_EXCEPT);
    feenableexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW);
}

static void arithmetic(void) {
    TRY("1/0", sink = one / zero);
    TRY("INT_MIN/-1", int least = -2147483647 - 1; sink = least / (zero - 1));
    TRY("64-bit overflow of a quotient",
        __asm__ volatile("divq %0" ::"r"(1UL), "d"(1UL), "a"(0UL) : "cc"));
    TRY("SSE 1/0", unmask(); dsink = done / dzero);
    TRY("SSE 0/0", unmask(); dsink = dzero / dzero);
    TRY("SSE overflow", unmask(); dsink = dbig * dbig);
    TRY("SSE inexact", unmask(); dsink = done / 3);
    TRY("x87 1/0", unmask(); lsink = lone / lzero; __asm__ volatile("fwait"));
    TRY("x87 0/0", unmask(); lsink = lzero / lzero; __asm__ volatile("fwait"));
    TRY("x87 stack", unmask(); __asm__ volatile("fstp %st(0); fwait"));
    fesetenv(FE_DFL_ENV);
}

static void memory(void) {
    char *page = mmap(0, 3 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile char *p = page;
    TRY("write to a page for reading", p[100] = 1);
    printf("  at %ld, error %ld\n", (long)((char *)seen.si_addr - page), error_code);
    mprotect(page + 4096, 4096, PROT_NONE);
    TRY("read of a page for nothing", sink = p[4096 + 7]);
    printf("  at %ld, error %ld\n", (long)((char *)seen.si_addr - page), error_code);
    TRY("read across pages", sink = *(volatile int *)(page + 4096 - 2));
    printf("  at %ld, error %ld\n", (long)((char *)seen.si_addr - page), error_code);
    TRY("null", sink = *(volatile int *)(uintptr_t)(zero + 8));
    printf("  at %p\n", seen.si_addr);
    TRY("not canonical", sink = *(volatile int *)(UINT64_C(0x8000000000000000) + zero));
    printf("  at %p\n", seen.si_addr);
    TRY("kernel", sink = *(volatile int *)(UINT64_C(0xffffffff81000000) + zero));
    printf("  at %p\n", seen.si_addr);
    TRY("code that is not", ((void (*)(void))(page + 2 * 4096 + 9))());
    printf("  at %ld, error %ld\n", (long)((char *)seen.si_addr - page), error_code);
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    TRY("write after mprotect", p[100] = 1);
    munmap(page, 3 * 4096);
}

static void instructions(void) {
    TRY("ud2", __asm__ volatile("ud2"));
    TRY("int3", __asm__ volatile("int3"));
    TRY("hlt", __asm__ volatile("hlt"));
    TRY("cli", __asm__ volatile("cli"));
    TRY("in", __asm__ volatile("inb $0x80, %%al" ::: "eax"));
    TRY("mov cr3", __asm__ volatile("movq %%cr3, %%rax" ::: "rax"));
    TRY("int 0x20", __asm__ volatile("int $0x20"));
    TRY("misaligned movaps",
        static char area[64] __attribute__((aligned(16)));
        __asm__ volatile("movaps 1(%0), %%xmm0" ::"r"(area) : "xmm0"));
    TRY("single step", __asm__ volatile("pushfq; orl $0x100, (%rsp); popfq; nop; nop"));
}

static volatile int order[16], orders;
static void note(int number, siginfo_t *info, void *context) {
    (void)context;
    if (orders < 16) order[orders++] = number * 1000 + info->si_value.sival_int;
}

static void queue(void) {
    handle(SIGRTMIN, note, 0);
    handle(SIGRTMIN + 1, note, 0);
    handle(SIGUSR1, note, 0);
    sigset_t mask;
    sigfillset(&mask);
    sigprocmask(SIG_BLOCK, &mask, 0);
    for (int i = 1; i <= 3; i++) {
        sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
        sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 10 * i});
    }
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR1);
    sigset_t pending;
    sigpending(&pending);
    printf("pending %d %d %d\n", sigismember(&pending, SIGUSR1), sigismember(&pending, SIGRTMIN),
           sigismember(&pending, SIGUSR2));
    sigprocmask(SIG_UNBLOCK, &mask, 0);
    printf("order");
    int usr1 = 0;
    for (int i = 0; i < orders; i++) {
        if (order[i] / 1000 == SIGUSR1) usr1++;
        else printf(" %d", order[i] - 1000 * SIGRTMIN);
    }
    printf(" and %d\n", usr1);
}

static int deep(int n) {
    volatile char frame[4096];
    memset((char *)frame, n, sizeof frame);
    return n == 1 << 30 ? 0 : deep(n + 1) + frame[n & 4095];
}

static void stack(void) {
    static char alternate[65536];
    stack_t s = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&s, 0);
    handle(SIGSEGV, fault, SA_ONSTACK);
    TRY("stack overflow", sink = deep(0));
    handle(SIGSEGV, fault, 0);
}

static volatile int ticks;
static void tick(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    ticks++;
}

static void timers(void) {
    handle(SIGALRM, tick, 0);
    struct itimerval every = {{0, 5000}, {0, 5000}}, off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &every, 0);
    struct timespec start, now, nap = {0, 20000000};
    clock_gettime(CLOCK_MONOTONIC, &start);
    int interrupted = 0;
    while (ticks < 5)
        if (nanosleep(&nap, 0) && errno == EINTR) interrupted++;
    setitimer(ITIMER_REAL, &off, 0);
    clock_gettime(CLOCK_MONOTONIC, &now);
    long us = (now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000;
    printf("ticks %d, interrupted %d, long enough %d\n", ticks >= 5, interrupted > 0, us >= 25000);
    handle(SIGVTALRM, tick, 0);
    ticks = 0;
    setitimer(ITIMER_VIRTUAL, &every, 0);
    while (ticks < 2) sink++;
    printf("virtual ticks\n");
}

int main(void) {
    handle(SIGFPE, fault, 0);
    handle(SIGSEGV, fault, 0);
    handle(SIGILL, fault, 0);
    handle(SIGTRAP, fault, 0);
    handle(SIGBUS, fault, 0);
    arithmetic();
    memory();
    instructions();
    queue();
    stack();
    timers();
    return 0;
}
