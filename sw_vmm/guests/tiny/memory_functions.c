// What the compiler calls for copies and fills of its own.

#include <stddef.h>
#include <stdint.h>

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
    uint64_t word = 0x0101010101010101u * (unsigned char)value;
    if ((uintptr_t)out % 8 == 0)
        for (; length >= 8; length -= 8, out += 8)
            *(uint64_t *)out = word;
    while (length--)
        *out++ = (unsigned char)value;
    return to;
}
