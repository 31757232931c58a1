// Checks of threads and of time.

#include "checks.h"
#include "system.h"

#include <asm/signal.h>
#include <linux/futex.h>
#include <linux/time.h>

enum { THREADS = 3, ROUNDS = 3000, STACK = 16 << 10 };

static uint8_t stacks[THREADS][STACK] __attribute__((aligned(16)));
static uint32_t ids[THREADS];
static uint32_t mutex;
static uint64_t by_atomic, by_reservation, by_mutex;

// 0: free, 1: taken, 2: taken and somebody waits.
static void lock(void) {
    uint32_t free = 0;
    if (__atomic_compare_exchange_n(&mutex, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return;
    while (__atomic_exchange_n(&mutex, 2, __ATOMIC_ACQUIRE))
        CALL(futex, &mutex, FUTEX_WAIT, 2, 0);
}

static void unlock(void) {
    if (__atomic_exchange_n(&mutex, 0, __ATOMIC_RELEASE) == 2)
        CALL(futex, &mutex, FUTEX_WAKE, 1);
}

static void count(void) {
    for (int round = 0; round < ROUNDS; round++) {
        __atomic_fetch_add(&by_atomic, 1, __ATOMIC_RELAXED);
        uint64_t seen = __atomic_load_n(&by_reservation, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(
            &by_reservation, &seen, seen + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        }
        lock();
        uint64_t value = *(volatile uint64_t *)&by_mutex;
        // With the mutex held the others get the hart, and must wait.
        if (round % 100 == 0)
            CALL(sched_yield);
        *(volatile uint64_t *)&by_mutex = value + 1;
        unlock();
    }
}

void check_threads(void) {
    for (int i = 0; i < THREADS; i++)
        REQUIRE(start_thread(count, stacks[i] + STACK, &ids[i]) > 0);
    count();
    for (int i = 0; i < THREADS; i++)
        for (uint32_t id; (id = __atomic_load_n(&ids[i], __ATOMIC_ACQUIRE));)
            CALL(futex, &ids[i], FUTEX_WAIT, id, 0);
    const uint64_t all = (uint64_t)(THREADS + 1) * ROUNDS;
    REQUIRE(by_atomic == all && by_reservation == all && by_mutex == all);
}

enum { MILLISECOND = 1000000, SECOND = 1000 * MILLISECOND };

static int64_t now(void) {
    struct __kernel_timespec time;
    REQUIRE(!CALL(clock_gettime, CLOCK_MONOTONIC, &time));
    return time.tv_sec * SECOND + time.tv_nsec;
}

void check_sleep(void) {
    for (int milliseconds = 1; milliseconds <= 9; milliseconds += 4) {
        struct __kernel_timespec time = {.tv_nsec = milliseconds * MILLISECOND};
        int64_t start = now();
        REQUIRE(!CALL(nanosleep, &time, 0));
        int64_t slept = now() - start;
        REQUIRE(slept >= milliseconds * MILLISECOND && slept < SECOND);
    }
}

static volatile int alarms;

static void count_alarm(int number) {
    (void)number;
    alarms++;
}

void check_preemption(void) {
    struct sigaction action = {.sa_handler = count_alarm};
    struct __kernel_old_itimerval interval = {{0, 8000}, {0, 8000}}, off = {{0, 0}, {0, 0}};
    REQUIRE(!CALL(rt_sigaction, SIGALRM, &action, 0, sizeof(sigset_t)));
    uint64_t first, last;
    __asm__ volatile("rdtime %0" : "=r"(first));
    REQUIRE(!CALL(setitimer, ITIMER_REAL, &interval, 0));
    // No system call in here: only the timer's interrupt takes the hart from this loop.
    for (uint64_t before = first; alarms < 3; before = last) {
        __asm__ volatile("rdtime %0" : "=r"(last));
        REQUIRE(last >= before);
    }
    REQUIRE(!CALL(setitimer, ITIMER_REAL, &off, 0));
    REQUIRE(last > first);
}
