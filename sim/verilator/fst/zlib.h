// The part of zlib that Verilator's FST writer calls, for tables too small to be worth a package:
// deflate's stored blocks.
#pragma once

#include <cstdint>
#include <cstring>

using uLong = unsigned long;
using uLongf = uLong;
using Bytef = unsigned char;

constexpr int Z_OK = 0, Z_BUF_ERROR = -5;

inline uLong compressBound(uLong size) { return size + 5 * (size / 65535 + 1) + 6; }

inline int compress2(Bytef *target, uLongf *room, const Bytef *source, uLong size, int) {
    if (*room < compressBound(size)) return Z_BUF_ERROR;
    Bytef *out = target;
    *out++ = 0x78;
    *out++ = 0x01;
    uint32_t low = 1, high = 0;  // Adler-32
    uLong left = size;
    do {
        unsigned count = left < 65535 ? static_cast<unsigned>(left) : 65535;
        left -= count;
        *out++ = left == 0;
        for (unsigned word : {count, ~count}) {
            *out++ = static_cast<Bytef>(word);
            *out++ = static_cast<Bytef>(word >> 8);
        }
        for (unsigned index = 0; index < count; ++index) {
            low = (low + source[index]) % 65521;
            high = (high + low) % 65521;
        }
        std::memcpy(out, source, count);
        out += count;
        source += count;
    } while (left);
    for (int shift : {24, 16, 8, 0}) *out++ = static_cast<Bytef>((high << 16 | low) >> shift);
    *room = static_cast<uLongf>(out - target);
    return Z_OK;
}
