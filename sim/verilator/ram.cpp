#include "ram.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace vmxlab {

thread_local Ram *Ram::current = nullptr;

Ram::Ram(uint64_t size) : size_(size) {
    void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    bytes_ = static_cast<uint8_t *>(memory);
}

Ram::~Ram() {
    if (current == this) current = nullptr;
    munmap(bytes_, size_);
}

void Ram::clear() {
    // Private anonymous pages that are given back read zero when they are touched again.
    madvise(bytes_, size_, MADV_DONTNEED);
}

}  // namespace vmxlab

using vmxlab::Ram;

extern "C" {
#pragma GCC visibility push(default)

// The DPI functions of ram.sv. No RAM is fitted until a machine says so.
uint8_t vmxlab_ram_read(unsigned int offset, unsigned long long *data) {
    Ram *ram = Ram::current;
    if (!ram || uint64_t{offset} + 8 > ram->size()) {
        *data = 0;
        return 0;
    }
    std::memcpy(data, ram->bytes() + offset, 8);
    return 1;
}

uint8_t vmxlab_ram_write(unsigned int offset, unsigned long long data, unsigned char strobe) {
    Ram *ram = Ram::current;
    if (!ram || uint64_t{offset} + 8 > ram->size()) return 0;
    if (strobe == 0xFF) {
        std::memcpy(ram->bytes() + offset, &data, 8);
        return 1;
    }
    for (int byte = 0; byte < 8; ++byte) {
        if (strobe >> byte & 1) ram->bytes()[offset + byte] = static_cast<uint8_t>(data >> 8 * byte);
    }
    return 1;
}

// For a simulation that has no other owner of the RAM (cocotb): fits it, or clears it again.
uint8_t *vmxlab_ram_fit(uint64_t size) {
    static Ram *fitted = nullptr;
    if (fitted && fitted->size() == size) {
        fitted->clear();
    } else {
        delete fitted;
        fitted = nullptr;
        try {
            fitted = new Ram(size);
        } catch (const std::bad_alloc &) {
            return nullptr;
        }
    }
    Ram::current = fitted;
    return fitted->bytes();
}

#pragma GCC visibility pop
}  // extern "C"
