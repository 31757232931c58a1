// The RAM of a machine: bytes behind the DPI functions of ram.sv, the same for the library and for
// a cocotb simulation. Fresh memory reads zero and costs nothing until it is touched.
#pragma once

#include <cstdint>

namespace vmxlab {

class Ram {
  public:
    explicit Ram(uint64_t size);
    ~Ram();
    Ram(const Ram &) = delete;
    Ram &operator=(const Ram &) = delete;

    // Makes every byte zero again.
    void clear();
    uint8_t *bytes() { return bytes_; }
    uint64_t size() const { return size_; }

    // The RAM the DPI functions of this thread work on.
    static thread_local Ram *current;

  private:
    uint8_t *bytes_;
    uint64_t size_;
};

}  // namespace vmxlab
