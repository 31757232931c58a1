// The Verilated SoC with its clock loop: everything that happens in every cycle happens here.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "commit_log.h"
#include "ports.h"  // generated: accessors of the top's ports, places of their fields
#include "ram.h"
#include "verilated.h"
#ifdef VMXLAB_DEBUG
#include "verilated_fst_c.h"
#endif

namespace vmxlab {

// Bits of sw_vmm.machine.Event.
enum Event : uint32_t { PARKED = 1, WINDOW = 2, FINISHED = 4, TOHOST = 8, CONSOLE = 16, BUDGET = 32 };

// How an access to the host port ended.
enum class HostResult : int { OK = 0, ERROR = 1, NO_ANSWER = 2 };

// What Python reads without a call; up to date whenever no call is under way.
struct Status {
    uint64_t park[words_of(ports::park_width)];
    uint64_t cycles;  // machine cycles since reset
    uint64_t transition;
    uint64_t window_address;
    uint64_t window_data;
    uint64_t tohost;
    uint32_t window_mask;
    uint32_t window_write;
    uint32_t finisher;
    uint32_t parked;
};

// A record of the retirement port as 64-bit words.
constexpr unsigned kRetirementWords = words_of(ports::retirement_record_width);

class Machine {
  public:
    Machine(uint64_t ram_size, uint32_t cycles_per_tick);

    // Power-on: RAM zero, nothing on the console, nothing armed, the hart parked.
    void reset();

    uint32_t run(uint64_t budget);
    void resume(uint64_t pc, uint64_t value, uint32_t rd, uint32_t charge, bool retires);
    HostResult access(uint32_t address, bool write, uint8_t mask, uint64_t data, uint64_t *answer);

    // Lets `cycles` pass in one step if only timers are live; false (and nothing done) if not.
    bool skip(uint32_t cycles);
    void set_skipping(bool on) { skipping_ = on; }

    void answer_window(uint64_t data);
    void window_interrupts(uint8_t lines);

    void type_after(std::string text, std::string keys);
    void stop_at_text(std::string text);
    void stop_at_tohost(uint32_t address, bool on);
    const std::string &console() const { return console_; }

    // Keeps the newest `capacity` retirement records; 0 keeps none.
    void observe(uint64_t capacity);
    // Writes every retirement record to a file; an empty path ends that. False if it cannot.
    bool observe_to_file(const char *path);
    // Copies at most `most` of the kept records, oldest first, and forgets them.
    uint64_t drain(uint64_t *records, uint64_t most);
    uint64_t lost() const { return lost_; }
    // Writes a line per retired instruction to a file, with the registers as they stand; an empty
    // path ends that. False if something cannot be written.
    bool log_commits(const char *path, const CommitLogFacts *facts, const uint64_t *gprs);

#ifdef VMXLAB_DEBUG
    // The whole machine but its RAM and its observers, as bytes.
    std::string save();
    void restore(const void *bytes, uint64_t length);
    // Writes an FST, or a record of the pipeline per cycle, for machine cycles from `from` until
    // before `to`; an empty path ends that. False if the file cannot be written.
    bool dump_waves(const char *path, uint64_t from, uint64_t to);
    bool dump_stages(const char *path, uint64_t from, uint64_t to);
#endif

    const Status &status() const { return status_; }
    Ram &ram() { return ram_; }

  private:
    struct Trigger {
        std::string text, keys;
    };
    struct CloseFile {
        void operator()(FILE *file) const { std::fclose(file); }
    };

    template <bool kObserve> uint32_t loop(uint64_t budget);
    template <bool kObserve> void tick();
    void tick() { observing_ ? tick<true>() : tick<false>(); }
    void settle() { top_->eval(); }
    bool begin_skip(uint32_t cycles);
    void end_skip();
    void answer(uint64_t data, bool error);
    void refuse_window();
    void sent(uint8_t byte);
    void fire_trigger();
    void retired();
    void publish();
    void renew_top();
    void choose_observing();
#ifdef VMXLAB_DEBUG
    void dump();
#endif

    Ram ram_;
    uint32_t cycles_per_tick_;
    bool skipping_ = true;
    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Top> top_;
    Status status_{};
    uint32_t events_ = 0;  // that happened and have not been reported

    std::string console_, stop_text_, keys_;
    std::deque<Trigger> triggers_;
    size_t searched_ = 0;  // the console up to here belongs to triggers that have fired

    bool observing_ = false, tohost_armed_ = false;
    uint32_t tohost_address_ = 0;
    std::vector<uint64_t> records_;
    uint64_t capacity_ = 0, kept_ = 0, next_ = 0, lost_ = 0;
    std::unique_ptr<FILE, CloseFile> record_file_;
    std::unique_ptr<CommitLog> commit_log_;

#ifdef VMXLAB_DEBUG
    struct Window {
        uint64_t from = 0, to = 0, next = 0;
    };
    std::unique_ptr<VerilatedFstC> waves_;
    std::unique_ptr<FILE, CloseFile> stage_file_;
    Window wave_window_, stage_window_;
#endif
};

}  // namespace vmxlab
