// What a benchmark is: a kernel, what comes before it, and the result it must give.
//
// Nothing depends on time or on the machine. The harness (bench.c) stops all counters, runs
// prepare(), lets the counters run during kernel() alone, and leaves them in the signature.

#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

void prepare(void);
uint64_t kernel(void);
extern const uint64_t expected;

// Pseudorandom numbers (xorshift64*), the same everywhere.
static inline uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

static inline uint64_t mix(uint64_t hash, uint64_t value) {
    return (hash ^ value) * 0x100000001b3u;
}

#endif
