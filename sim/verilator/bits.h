// Fields of the top's ports. Verilator gives a port the smallest type that holds it: an integer up
// to 64 bits, else an array of 32-bit words.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "verilated.h"

namespace vmxlab {

constexpr unsigned words_of(unsigned bits) { return (bits + 63) / 64; }

struct Field {
    unsigned lsb, width;

    constexpr uint64_t mask() const { return width == 64 ? ~uint64_t{0} : (uint64_t{1} << width) - 1; }

    template <class Port> uint64_t get(const Port &port) const {
        if constexpr (std::is_integral_v<Port>) {
            return uint64_t{port} >> lsb & mask();
        } else {
            uint64_t value = 0;
            // A field of 64 bits can touch three words.
            for (unsigned bit = 0; bit < width;) {
                unsigned place = (lsb + bit) % 32;
                value |= uint64_t{port[(lsb + bit) / 32]} >> place << bit;
                bit += 32 - place;
            }
            return value & mask();
        }
    }

    template <class Port> void set(Port &port, uint64_t value) const {
        value &= mask();
        if constexpr (std::is_integral_v<Port>) {
            port = static_cast<Port>((uint64_t{port} & ~(mask() << lsb)) | value << lsb);
        } else {
            for (unsigned bit = 0; bit < width;) {
                unsigned place = (lsb + bit) % 32;
                unsigned count = 32 - place < width - bit ? 32 - place : width - bit;
                uint64_t part = ((uint64_t{1} << count) - 1) << place;
                auto &word = port[(lsb + bit) / 32];
                word = static_cast<uint32_t>((word & ~part) | (value >> bit << place & part));
                bit += count;
            }
        }
    }
};

// A port as 64-bit words, the lowest first.
template <class Port> void copy_words(uint64_t *words, const Port &port) {
    if constexpr (std::is_integral_v<Port>) {
        words[0] = port;
    } else {
        static_assert(sizeof(port[0]) == 4);
        constexpr unsigned count = sizeof(Port) / 4;
        words[words_of(32 * count) - 1] = 0;
        std::memcpy(words, &port[0], 4 * count);
    }
}

}  // namespace vmxlab
