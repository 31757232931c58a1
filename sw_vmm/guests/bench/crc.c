// CRC-32 of 6 KiB, by a table of 256 words: a load that depends on the one before, byte by byte.

#include "bench.h"

enum { LENGTH = 6144, ROUNDS = 3 };

static uint32_t table[256];
static uint8_t message[LENGTH];

void prepare(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t value = n;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
        table[n] = value;
    }
    uint64_t state = 2;
    for (int n = 0; n < LENGTH; n++)
        message[n] = (uint8_t)(next_random(&state) >> 40);
}

uint64_t kernel(void) {
    uint32_t crc = ~0u;
    for (int round = 0; round < ROUNDS; round++)
        for (int n = 0; n < LENGTH; n++)
            crc = crc >> 8 ^ table[(crc ^ message[n]) & 255];
    return ~crc;
}

const uint64_t expected = 0x771de05cu;
