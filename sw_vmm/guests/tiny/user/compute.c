// Computing without the kernel: primes, products of matrices, a checksum bit by bit.

#include "user.h"

enum { SIEVE = 16384, ORDER = 24, ROUNDS = 4, BYTES = 4096 };

static uint8_t composite[SIEVE];
static int64_t left[ORDER][ORDER], right[ORDER][ORDER], product[ORDER][ORDER];

static uint64_t primes(void) {
    uint64_t digest = DIGEST_START;
    for (uint64_t number = 2; number < SIEVE; number++) {
        if (composite[number])
            continue;
        digest = add_to_digest(digest, number);
        for (uint64_t multiple = number * number; multiple < SIEVE; multiple += number)
            composite[multiple] = 1;
    }
    return digest;
}

static void multiply(void) {
    for (int row = 0; row < ORDER; row++)
        for (int column = 0; column < ORDER; column++) {
            int64_t sum = 0;
            for (int place = 0; place < ORDER; place++)
                sum += left[row][place] * right[place][column];
            product[row][column] = sum;
        }
}

static uint64_t matrices(void) {
    uint64_t digest = DIGEST_START;
    for (int row = 0; row < ORDER; row++)
        for (int column = 0; column < ORDER; column++) {
            left[row][column] = row * 7 - column * 3;
            right[row][column] = row ^ column;
        }
    for (int round = 0; round < ROUNDS; round++) {
        multiply();
        for (int row = 0; row < ORDER; row++)
            for (int column = 0; column < ORDER; column++) {
                digest = add_to_digest(digest, (uint64_t)product[row][column]);
                left[row][column] = product[row][column] % 1009;
            }
    }
    return digest;
}

static uint64_t checksum(void) {
    uint32_t crc = ~0u;
    for (int place = 0; place < BYTES; place++) {
        crc ^= composite[place];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

uint64_t compute(void) {
    uint64_t digest = primes();
    digest = add_to_digest(digest, matrices());
    return add_to_digest(digest, checksum());
}
