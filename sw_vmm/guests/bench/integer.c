// A mix of integer arithmetic: shifts, logic, additions, multiplications and some divisions, with
// the dependences of a hash function and of an integer square root.

#include "bench.h"

enum { ROUNDS = 2400 };

static uint32_t root(uint32_t square) {
    uint32_t result = 0;
    for (uint32_t bit = 1u << 30; bit; bit >>= 2) {
        if (square >= result + bit) {
            square -= result + bit;
            result = (result >> 1) + bit;
        } else {
            result >>= 1;
        }
    }
    return result;
}

void prepare(void) {
}

uint64_t kernel(void) {
    uint64_t state = 0x9e3779b97f4a7c15u, hash = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t a = next_random(&state), b = a >> 32 | a << 32;
        hash = mix(hash, (a & b) + (a ^ hash) + (uint64_t)((int64_t)b >> 7));
        hash += (uint32_t)(a * 2654435761u) >> 13;
        if (round % 8 == 0)
            hash ^= a / (b | 1) + (uint32_t)b % 1009;
        if (round % 16 == 3)
            hash += root((uint32_t)a);
    }
    return hash;
}

const uint64_t expected = 0x9072b0946f8fe51au;
