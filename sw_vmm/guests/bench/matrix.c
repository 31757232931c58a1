// Product of two matrices of 26 by 26 words: multiply-accumulate, with strides.

#include "bench.h"

enum { SIZE = 26 };

static int32_t a[SIZE][SIZE], b[SIZE][SIZE];
static int64_t c[SIZE][SIZE];

void prepare(void) {
    uint64_t state = 3;
    for (int row = 0; row < SIZE; row++)
        for (int column = 0; column < SIZE; column++) {
            a[row][column] = (int32_t)(next_random(&state) >> 48);
            b[row][column] = -(int32_t)(next_random(&state) >> 48);
        }
}

uint64_t kernel(void) {
    for (int row = 0; row < SIZE; row++)
        for (int column = 0; column < SIZE; column++) {
            int64_t sum = 0;
            for (int n = 0; n < SIZE; n++)
                sum += (int64_t)a[row][n] * b[n][column];
            c[row][column] = sum;
        }
    uint64_t hash = 0;
    for (int row = 0; row < SIZE; row++)
        for (int column = 0; column < SIZE; column++)
            hash = mix(hash, (uint64_t)c[row][column]);
    return hash;
}

const uint64_t expected = 0x48c961bd0acf647fu;
