// The part of liblz4 that Verilator's FST writer calls, so that waves need no package installed:
// the LZ4 block format, matches found greedily by a table of four-byte prefixes.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline int LZ4_compress_default(const char *source, char *target, int size, int capacity) {
    // Rules of the format: the last five bytes are literals, the last match starts twelve bytes
    // before the end or earlier.
    constexpr int kLastLiterals = 5, kMatchLimit = 12, kShortest = 4, kFarthest = 65535;
    constexpr int kHashBits = 14;
    if (capacity < LZ4_compressBound(size)) return 0;
    auto *in = reinterpret_cast<const uint8_t *>(source);
    auto *out = reinterpret_cast<uint8_t *>(target);
    auto length = [&out](int rest) {
        for (; rest >= 255; rest -= 255) *out++ = 255;
        *out++ = static_cast<uint8_t>(rest);
    };
    auto literals = [&](int from, int to, int match) {
        int count = to - from, code = match < 15 ? match : 15;
        *out++ = static_cast<uint8_t>((count < 15 ? count : 15) << 4 | code);
        if (count >= 15) length(count - 15);
        if (count) std::memcpy(out, in + from, count);
        out += count;
    };
    std::vector<int> seen(1 << kHashBits, -1);
    int anchor = 0;
    for (int at = 0; at + kMatchLimit <= size;) {
        uint32_t word;
        std::memcpy(&word, in + at, sizeof word);
        int &place = seen[word * 2654435761u >> (32 - kHashBits)];
        int candidate = place;
        place = at;
        if (candidate < 0 || at - candidate > kFarthest ||
            std::memcmp(in + candidate, in + at, kShortest)) {
            ++at;
            continue;
        }
        int end = at + kShortest;
        while (end < size - kLastLiterals && in[end] == in[end - at + candidate]) ++end;
        literals(anchor, at, end - at - kShortest);
        *out++ = static_cast<uint8_t>(at - candidate);
        *out++ = static_cast<uint8_t>((at - candidate) >> 8);
        if (end - at - kShortest >= 15) length(end - at - kShortest - 15);
        anchor = at = end;
    }
    literals(anchor, size, 0);
    return static_cast<int>(out - reinterpret_cast<uint8_t *>(target));
}
