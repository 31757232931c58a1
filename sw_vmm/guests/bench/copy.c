// Copies of 12 KiB, word by word and byte by byte, within the cache and beyond it: streams of
// loads and stores.

#include "bench.h"

enum { LENGTH = 12288, FAR = 96 * 1024, ROUNDS = 3 };

static uint8_t from[LENGTH] __attribute__((aligned(64)));
static uint8_t to[FAR] __attribute__((aligned(64)));

void prepare(void) {
    uint64_t state = 6;
    for (int n = 0; n < LENGTH; n++)
        from[n] = (uint8_t)(next_random(&state) >> 33);
}

static void copy_words(uint8_t *target, const uint8_t *source, size_t length) {
    uint64_t *out = (uint64_t *)target;
    const uint64_t *in = (const uint64_t *)source, *end = (const uint64_t *)(source + length);
    for (; in != end; in += 8, out += 8) {
        uint64_t a = in[0], b = in[1], c = in[2], d = in[3];
        out[0] = a, out[1] = b, out[2] = c, out[3] = d;
        a = in[4], b = in[5], c = in[6], d = in[7];
        out[4] = a, out[5] = b, out[6] = c, out[7] = d;
    }
}

__attribute__((noinline)) static void copy_bytes(volatile uint8_t *target, const uint8_t *source,
                                                 size_t length) {
    for (size_t n = 0; n < length; n++)
        target[n] = source[n];
}

uint64_t kernel(void) {
    for (int round = 0; round < ROUNDS; round++)
        copy_words(to, from, 4096);
    for (size_t place = 0; place < FAR; place += LENGTH)
        copy_words(to + place, from, LENGTH);
    copy_bytes(to + 1, from, LENGTH);
    uint64_t hash = 0;
    for (size_t place = 0; place < FAR; place += 512)
        hash = mix(hash, *(uint64_t *)(to + place));
    return hash;
}

const uint64_t expected = 0xc633b923d0ea6838u;
