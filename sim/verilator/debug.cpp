// What only the library for debugging can do: snapshots, waves, the pipeline cycle by cycle.
#ifdef VMXLAB_DEBUG
#include <cstring>

#include "machine.h"
#include "verilated_save.h"

namespace vmxlab {

namespace {

class Writer final : public VerilatedSerialize {
  public:
    Writer() { m_isOpen = true; }
    void flush() override {
        bytes_.append(reinterpret_cast<const char *>(m_bufp), m_cp - m_bufp);
        m_cp = m_bufp;
    }
    std::string take() {
        flush();
        return std::move(bytes_);
    }

  private:
    std::string bytes_;
};

class Reader final : public VerilatedDeserialize {
  public:
    Reader(const void *bytes, uint64_t length)
        : next_(static_cast<const uint8_t *>(bytes)), left_(length) {
        m_isOpen = true;
        m_endp = m_bufp;
        fill();
    }
    // Behind the end there are zeros, so that the last field is read like any other.
    void fill() override {
        size_t kept = m_endp - m_cp, room = bufferSize() - kept;
        std::memmove(m_bufp, m_cp, kept);
        size_t count = left_ < room ? left_ : room;
        std::memcpy(m_bufp + kept, next_, count);
        std::memset(m_bufp + kept + count, 0, room - count);
        next_ += count;
        left_ -= count;
        m_cp = m_bufp;
        m_endp = m_bufp + bufferSize();
    }

  private:
    const uint8_t *next_;
    uint64_t left_;
};

}  // namespace

// Both directions name the members in the same order.
std::string Machine::save() {
    Writer out;
    out.write(&status_, sizeof status_);
    out << events_ << console_ << stop_text_ << keys_;
    out << uint64_t{triggers_.size()};
    for (const Trigger &trigger : triggers_) out << trigger.text << trigger.keys;
    out << uint64_t{searched_} << tohost_armed_ << tohost_address_ << skipping_;
    out << *top_;
    return out.take();
}

void Machine::restore(const void *bytes, uint64_t length) {
    Reader in(bytes, length);
    renew_top();
    in.read(&status_, sizeof status_);
    in >> events_ >> console_ >> stop_text_ >> keys_;
    uint64_t count, searched;
    in >> count;
    triggers_.assign(count, Trigger{});
    for (Trigger &trigger : triggers_) in >> trigger.text >> trigger.keys;
    in >> searched >> tohost_armed_ >> tohost_address_ >> skipping_;
    searched_ = searched;
    in >> *top_;
    kept_ = next_ = lost_ = 0;
    choose_observing();
}

bool Machine::dump_waves(const char *path, uint64_t from, uint64_t to) {
    waves_.reset();
    bool written = true;
    if (*path) {
        // The writer itself does not tell.
        FILE *file = std::fopen(path, "wb");
        written = file;
        if (file) {
            std::fclose(file);
            waves_ = std::make_unique<VerilatedFstC>();
            top_->trace(waves_.get(), 99);
            waves_->open(path);
            wave_window_ = {from, to, from};
        }
    }
    if (top_) choose_observing();
    return written;
}

bool Machine::dump_stages(const char *path, uint64_t from, uint64_t to) {
    bool wanted = *path;
    stage_file_.reset(wanted ? std::fopen(path, "wb") : nullptr);
    stage_window_ = {from, to, from};
    if (top_) choose_observing();
    return !wanted || stage_file_;
}

void Machine::dump() {
    Top &top = *top_;
    uint64_t cycle = ports::park_cycle.get(ports::park(top));
    // Cycles that are no machine time would be several pictures of one moment: the first stands.
    if (waves_ && cycle >= wave_window_.next) {
        if (cycle < wave_window_.to) {
            waves_->dump(cycle);
            wave_window_.next = cycle + 1;
        } else {
            dump_waves("", 0, 0);
        }
    }
    // The pipeline may move while the world outside stands still.
    if (stage_file_ && cycle >= stage_window_.from && !ports::parked(top)) {
        if (cycle < stage_window_.to) {
            uint64_t words[1 + words_of(ports::stages_width)];
            words[0] = cycle;
            copy_words(words + 1, ports::stages(top));
            std::fwrite(words, sizeof words, 1, stage_file_.get());
        } else {
            dump_stages("", 0, 0);
        }
    }
}

}  // namespace vmxlab
#endif
