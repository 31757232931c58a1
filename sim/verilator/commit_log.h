// The commit log in the words of Spike's `-l --log-commits`, from the retirement trace.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "ports.h"

namespace vmxlab {

// What Python (sim/commit_log.py) makes of rtl.arch: how instructions name the memory they access,
// and what traps are called.
struct CommitLogFacts {
    struct Slice {
        uint8_t lsb, width, place;
    };
    struct Access {
        uint32_t mask, match;
        uint8_t base_lsb, base_width, base_first;  // the base register's field, and what it adds
        uint8_t atomic;                            // place in the operations below; 0 for none
        uint8_t immediate_width, immediate_signed, slice_count;
        Slice slices[8];
    };
    enum Atomic : uint8_t { NONE, SWAP, ADD, XOR, OR, AND, MIN, MAX, MINU, MAXU };
    static constexpr unsigned kTraps = 64;

    const Access *accesses;
    uint32_t access_count;
    uint32_t gpr_base;             // where the host port has the registers
    const char *traps[kTraps];     // names of the exceptions; null for those that do not exist
    uint64_t traps_with_value;     // bit n: Spike prints the trap value of exception n
};

// Spike prints virtual addresses, the trace has bus addresses: the log keeps the registers itself
// and computes what the instruction did.
class CommitLog {
  public:
    // Takes the file, and a copy of the facts and of the 32 registers as they stand; without them,
    // addresses are bus addresses until the base register has been written.
    CommitLog(FILE *file, const CommitLogFacts &facts, const uint64_t *gprs);
    ~CommitLog();
    CommitLog(const CommitLog &) = delete;
    CommitLog &operator=(const CommitLog &) = delete;

    template <class Record> void retired(const Record &record) {
        namespace p = ports;
        retired({p::retirement_record_pc.get(record), p::retirement_record_value.get(record),
                 p::retirement_record_data.get(record),
                 static_cast<uint32_t>(p::retirement_record_instruction.get(record)),
                 static_cast<uint32_t>(p::retirement_record_address.get(record)),
                 static_cast<uint8_t>(p::retirement_record_rd.get(record)),
                 static_cast<uint8_t>(p::retirement_record_privilege.get(record)),
                 static_cast<uint8_t>(p::retirement_record_size.get(record)),
                 p::retirement_record_trap.get(record) != 0,
                 p::retirement_record_load.get(record) != 0,
                 p::retirement_record_store.get(record) != 0});
    }
    // Somebody has written a register; the host may do it by an access to the host port.
    void writes(uint32_t rd, uint64_t value) {
        if (!rd) return;
        gprs_[rd] = value;
        known_ |= uint32_t{1} << rd;
    }
    void writes_at(uint32_t address, uint64_t value) {
        if (address >= facts_.gpr_base && address < facts_.gpr_base + 8 * 32) {
            writes((address - facts_.gpr_base) / 8, value);
        }
    }
    // False when something could not be written.
    bool flush();

  private:
    struct Retired {
        uint64_t pc, value, data;
        uint32_t instruction, address;
        uint8_t rd, privilege, size;
        bool trap, load, store;
    };

    void retired(const Retired &record);
    void trapped(const Retired &record);
    const CommitLogFacts::Access *find(uint32_t instruction) const;
    bool address_of(const CommitLogFacts::Access &access, uint32_t instruction,
                    uint64_t &address) const;
    static uint64_t stored(CommitLogFacts::Atomic atomic, uint64_t old, uint64_t operand,
                           unsigned size);
    void text(const char *words);
    void hexadecimal(uint64_t value, unsigned digits);

    FILE *file_;
    CommitLogFacts facts_;
    std::vector<CommitLogFacts::Access> accesses_;
    std::string names_[CommitLogFacts::kTraps];
    uint64_t gprs_[32] = {};
    uint32_t known_ = 1;  // a bit per register: its value is known
    std::string line_;
};

}  // namespace vmxlab
