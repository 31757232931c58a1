// Recursion: Fibonacci numbers, Ackermann's function and the queens of a 5 by 5 board. Calls,
// returns, and a stack.

#include "bench.h"

enum { BOARD = 5 };

void prepare(void) {
}

__attribute__((noinline)) static uint64_t fibonacci(uint64_t n) {
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

__attribute__((noinline)) static uint64_t ackermann(uint64_t m, uint64_t n) {
    if (!m)
        return n + 1;
    return ackermann(m - 1, n ? ackermann(m, n - 1) : 1);
}

__attribute__((noinline)) static uint64_t queens(uint32_t columns, uint32_t left, uint32_t right) {
    const uint32_t all = (1u << BOARD) - 1;
    if (columns == all)
        return 1;
    uint64_t found = 0;
    for (uint32_t places = all & ~(columns | left | right); places; places &= places - 1) {
        uint32_t queen = places & -places;
        found += queens(columns | queen, (left | queen) << 1, (right | queen) >> 1);
    }
    return found;
}

uint64_t kernel(void) {
    return fibonacci(16) * 1000000 + ackermann(2, 18) * 1000 + queens(0, 0, 0);
}

const uint64_t expected = 0x3ad50522u;
