// Threads: mutexes, condition variables, barriers, rwlocks, thread-local data, cancellation,
// floating-point state per thread.
#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS 6
#define ROUNDS 2000
#define SLOTS 8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_full = PTHREAD_COND_INITIALIZER, not_empty = PTHREAD_COND_INITIALIZER;
static int ring[SLOTS], first, used;
static long long consumed;
static atomic_long counter;
static __thread int own;
static pthread_key_t key;
static atomic_int destroyed;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static long shared_pair[2];

static void *produce(void *arg) {
    long id = (long)arg;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        while (used == SLOTS) pthread_cond_wait(&not_full, &lock);
        ring[(first + used++) % SLOTS] = (int)(id * ROUNDS + i);
        pthread_cond_signal(&not_empty);
        pthread_mutex_unlock(&lock);
    }
    return 0;
}

static void *consume(void *arg) {
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        while (used == 0) pthread_cond_wait(&not_empty, &lock);
        consumed += ring[first];
        first = (first + 1) % SLOTS, used--;
        pthread_cond_signal(&not_full);
        pthread_mutex_unlock(&lock);
    }
    return 0;
}

static void *compute(void *arg) {
    long id = (long)arg;
    own = (int)id;
    pthread_setspecific(key, arg);
    // Every thread rounds its own way; a switch must not mix them up.
    static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    fesetround(modes[id % 4]);
    volatile double sum = 0;
    volatile long double exact = 0;
    pthread_barrier_wait(&barrier);
    for (int i = 1; i <= 30000; i++) {
        sum += 1.0 / (i + id), exact += 1.0L / (i + id);
        atomic_fetch_add(&counter, 1);
        if (i % 1000 == 0) {
            sched_yield();
            pthread_rwlock_wrlock(&rwlock);
            shared_pair[0]++, shared_pair[1]--;
            pthread_rwlock_unlock(&rwlock);
        }
        if (i % 1500 == 0) {
            pthread_rwlock_rdlock(&rwlock);
            if (shared_pair[0] + shared_pair[1]) printf("torn\n");
            pthread_rwlock_unlock(&rwlock);
        }
    }
    if (own != id || pthread_getspecific(key) != arg) printf("thread-local data is mixed up\n");
    char *text = malloc(100);
    snprintf(text, 100, "%ld: %a %La", id, sum, exact);
    pthread_barrier_wait(&barrier);
    return text;
}

static void destroy(void *value) { (void)value, destroyed++; }

static sem_t never;
static void clean(void *arg) { *(int *)arg = 1; }
static int cleaned;
static void *wait_forever(void *arg) {
    (void)arg;
    pthread_cleanup_push(clean, &cleaned);
    while (1) sem_wait(&never);
    pthread_cleanup_pop(0);
    return 0;
}

int main(void) {
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], 0, i % 2 ? consume : produce, (void *)(i / 2));
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
    printf("consumed %lld, left %d\n", consumed, used);

    pthread_key_create(&key, destroy);
    pthread_barrier_init(&barrier, 0, THREADS);
    for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, compute, (void *)(i + 1));
    for (int i = 0; i < THREADS; i++) {
        void *text;
        pthread_join(threads[i], &text);
        printf("%s\n", (char *)text);
        free(text);
    }
    printf("counter %ld, pair %ld, destroyed %d\n", atomic_load(&counter), shared_pair[0],
           destroyed);

    sem_init(&never, 0, 0);
    pthread_create(&threads[0], 0, wait_forever, 0);
    usleep(1000);
    pthread_cancel(threads[0]);
    void *result;
    pthread_join(threads[0], &result);
    printf("cancelled %d, cleaned %d\n", result == PTHREAD_CANCELED, cleaned);

    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 10000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    printf("%s\n", sem_timedwait(&never, &until) && errno == ETIMEDOUT ? "timed out" : "not");
    pthread_mutex_lock(&lock);
    int waited = pthread_cond_timedwait(&not_full, &lock, &until);
    printf("%s\n", waited == ETIMEDOUT ? "timed out" : "not");
    return 0;
}
