// The harness of the benchmarks: the counters around the kernel.

#include "bench.h"

enum { WRONG_RESULT = 1 };

// The events of mhpmcounter3 to 10, written into the image by whoever loads it.
__attribute__((section(".data.events"))) volatile uint64_t bench_events[8] = {0};

struct measurement {
    uint64_t cycles;
    uint64_t instructions;
    uint64_t events[8];
    uint64_t result;
};

__attribute__((section(".signature"))) volatile struct measurement measurement;

#define WRITE(csr, value) __asm__ volatile("csrw " #csr ", %0" ::"r"((uint64_t)(value)) : "memory")
#define READ(csr) ({ uint64_t value_; __asm__ volatile("csrr %0, " #csr : "=r"(value_)::"memory"); value_; })
#define SELECT(place, number)                            \
    do {                                                 \
        WRITE(mhpmevent##number, bench_events[place]);   \
        WRITE(mhpmcounter##number, 0);                   \
    } while (0)

// The compiler calls these for copies and fills of its own.
void *memcpy(void *restrict to, const void *restrict from, size_t length) {
    unsigned char *out = to;
    const unsigned char *in = from;
    if (((uintptr_t)out | (uintptr_t)in) % 8 == 0)
        for (; length >= 8; length -= 8, out += 8, in += 8)
            *(uint64_t *)out = *(const uint64_t *)in;
    while (length--)
        *out++ = *in++;
    return to;
}

void *memset(void *to, int value, size_t length) {
    unsigned char *out = to;
    while (length--)
        *out++ = (unsigned char)value;
    return to;
}

int run(void) {
    WRITE(mcountinhibit, -1);
    WRITE(mcycle, 0);
    WRITE(minstret, 0);
    SELECT(0, 3);
    SELECT(1, 4);
    SELECT(2, 5);
    SELECT(3, 6);
    SELECT(4, 7);
    SELECT(5, 8);
    SELECT(6, 9);
    SELECT(7, 10);
    prepare();
    WRITE(mcountinhibit, 0);
    uint64_t result = kernel();
    WRITE(mcountinhibit, -1);
    measurement.cycles = READ(mcycle);
    measurement.instructions = READ(minstret);
    measurement.events[0] = READ(mhpmcounter3);
    measurement.events[1] = READ(mhpmcounter4);
    measurement.events[2] = READ(mhpmcounter5);
    measurement.events[3] = READ(mhpmcounter6);
    measurement.events[4] = READ(mhpmcounter7);
    measurement.events[5] = READ(mhpmcounter8);
    measurement.events[6] = READ(mhpmcounter9);
    measurement.events[7] = READ(mhpmcounter10);
    measurement.result = result;
    return result == expected ? 0 : WRONG_RESULT;
}
