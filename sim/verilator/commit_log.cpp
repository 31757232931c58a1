#include "commit_log.h"

#include <cstring>

namespace vmxlab {

namespace {

uint64_t bits(uint64_t value, unsigned lsb, unsigned width) {
    return value >> lsb & ((uint64_t{1} << width) - 1);
}

}  // namespace

CommitLog::CommitLog(FILE *file, const CommitLogFacts &facts, const uint64_t *gprs)
    : file_(file), facts_(facts), accesses_(facts.accesses, facts.accesses + facts.access_count) {
    if (gprs) {
        std::memcpy(gprs_, gprs, sizeof gprs_);
        known_ = ~uint32_t{0};
    }
    for (unsigned code = 0; code < CommitLogFacts::kTraps; ++code) {
        if (facts.traps[code]) names_[code] = facts.traps[code];
    }
    std::setvbuf(file_, nullptr, _IOFBF, 1 << 20);
}

CommitLog::~CommitLog() { std::fclose(file_); }

bool CommitLog::flush() { return !std::fflush(file_) && !std::ferror(file_); }

void CommitLog::text(const char *words) { line_ += words; }

void CommitLog::hexadecimal(uint64_t value, unsigned digits) {
    char place[18] = {'0', 'x'};
    for (unsigned digit = 0; digit < digits; ++digit) {
        place[2 + digit] = "0123456789abcdef"[value >> 4 * (digits - 1 - digit) & 0xF];
    }
    line_.append(place, 2 + digits);
}

void CommitLog::retired(const Retired &record) {
    line_.clear();
    if (record.trap) {
        trapped(record);
    } else {
        bool narrow = (record.instruction & 3) != 3;
        text("core   0: ");
        line_ += static_cast<char>('0' + record.privilege);
        line_ += ' ';
        hexadecimal(record.pc, 16);
        text(" (");
        hexadecimal(record.instruction, narrow ? 4 : 8);
        line_ += ')';
        uint64_t address = record.address;
        auto atomic = CommitLogFacts::NONE;
        if (record.load || record.store) {
            // The registers are still those before the instruction.
            if (const auto *access = find(record.instruction)) {
                address_of(*access, record.instruction, address);
                atomic = static_cast<CommitLogFacts::Atomic>(access->atomic);
            }
        }
        if (record.rd) {
            char name[8];
            std::snprintf(name, sizeof name, " x%-2u ", record.rd);
            text(name);
            hexadecimal(record.value, 16);
            writes(record.rd, record.value);
        }
        if (record.load) {
            text(" mem ");
            hexadecimal(address, 16);
        }
        if (record.store) {
            text(" mem ");
            hexadecimal(address, 16);
            line_ += ' ';
            hexadecimal(stored(atomic, record.value, record.data, record.size), 2u << record.size);
        }
        line_ += '\n';
    }
    std::fwrite(line_.data(), 1, line_.size(), file_);
}

void CommitLog::trapped(const Retired &record) {
    unsigned code = record.value & (CommitLogFacts::kTraps - 1);
    bool interrupt = record.value >> 63;
    text("core   0: exception ");
    if (interrupt || names_[code].empty()) {
        char name[24];
        std::snprintf(name, sizeof name, interrupt ? "interrupt #%u" : "trap #%u", code);
        text(name);
    } else {
        text(names_[code].c_str());
    }
    text(", epc ");
    hexadecimal(record.pc, 16);
    line_ += '\n';
    if (!interrupt && facts_.traps_with_value >> code & 1) {
        text("core   0:           tval ");
        hexadecimal(record.data, 16);
        line_ += '\n';
    }
}

const CommitLogFacts::Access *CommitLog::find(uint32_t instruction) const {
    for (const auto &access : accesses_) {
        if ((instruction & access.mask) == access.match) return &access;
    }
    return nullptr;
}

bool CommitLog::address_of(const CommitLogFacts::Access &access, uint32_t instruction,
                           uint64_t &address) const {
    unsigned base = access.base_first + bits(instruction, access.base_lsb, access.base_width);
    if (!(known_ >> base & 1)) return false;
    uint64_t immediate = 0;
    for (unsigned index = 0; index < access.slice_count; ++index) {
        const auto &slice = access.slices[index];
        immediate |= bits(instruction, slice.lsb, slice.width) << slice.place;
    }
    if (access.immediate_signed && bits(immediate, access.immediate_width - 1u, 1)) {
        immediate -= uint64_t{1} << access.immediate_width;
    }
    address = gprs_[base] + immediate;
    return true;
}

// What an AMO that read `old` has stored; the low bytes count.
uint64_t CommitLog::stored(CommitLogFacts::Atomic atomic, uint64_t old, uint64_t operand,
                           unsigned size) {
    bool word = size == 2;
    auto extended = [word](uint64_t value) {
        return word ? static_cast<int64_t>(static_cast<int32_t>(value))
                    : static_cast<int64_t>(value);
    };
    auto plain = [word](uint64_t value) { return word ? value & 0xFFFF'FFFF : value; };
    switch (atomic) {
        case CommitLogFacts::NONE:
        case CommitLogFacts::SWAP: return operand;
        case CommitLogFacts::ADD: return old + operand;
        case CommitLogFacts::XOR: return old ^ operand;
        case CommitLogFacts::OR: return old | operand;
        case CommitLogFacts::AND: return old & operand;
        case CommitLogFacts::MIN: return extended(old) < extended(operand) ? old : operand;
        case CommitLogFacts::MAX: return extended(old) > extended(operand) ? old : operand;
        case CommitLogFacts::MINU: return plain(old) < plain(operand) ? old : operand;
        case CommitLogFacts::MAXU: return plain(old) > plain(operand) ? old : operand;
    }
    return operand;
}

}  // namespace vmxlab
