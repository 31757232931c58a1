#include "machine.h"

#include <cstdlib>
#include <cstring>

namespace vmxlab {

namespace {

// The host port answers within some cycles; a cache clean writes back every line.
constexpr uint64_t kAnswerLimit = 1'000'000;

bool ends_with(const std::string &whole, size_t from, const std::string &end) {
    return whole.size() - from >= end.size() &&
           whole.compare(whole.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

Machine::Machine(uint64_t ram_size, uint32_t cycles_per_tick)
    : ram_(ram_size), cycles_per_tick_(cycles_per_tick) {
    reset();
}

void Machine::reset() {
    Ram::current = &ram_;
    ram_.clear();
    renew_top();
    status_ = Status{};
    events_ = 0;
    console_.clear();
    stop_text_.clear();
    keys_.clear();
    triggers_.clear();
    searched_ = 0;
    kept_ = next_ = lost_ = 0;
    tohost_armed_ = false;
    choose_observing();

    Top &top = *top_;
#ifdef VMXLAB_MUTANTS
    const char *mutant = std::getenv("VMXLAB_MUTANT");
    ports::mutant(top) = mutant ? std::atoi(mutant) : 0;
#endif
    ports::console_ready(top) = 1;
    ports::host_response_ready(top) = 1;
    top.rst = 1;
    settle();
    // The reset takes effect, and ends, one cycle late.
    tick();
    tick();
    top.rst = 0;
    tick();
    for (uint64_t cycle = 0; cycle < kAnswerLimit && !ports::parked(top); ++cycle) tick();
    publish();
}

void Machine::renew_top() {
#ifdef VMXLAB_DEBUG
    dump_waves("", 0, 0);
    dump_stages("", 0, 0);
#endif
    top_.reset();
    context_ = std::make_unique<VerilatedContext>();
    // The model uses no thread but the caller's. Others would wait for work in vain, and a fork that
    // lets go of the machine would wait for them.
    context_->threads(1);
#ifdef VMXLAB_DEBUG
    context_->traceEverOn(true);
#endif
    top_ = std::make_unique<Top>(context_.get());
}

void Machine::choose_observing() {
    observing_ = tohost_armed_ || capacity_ || record_file_ || commit_log_;
#ifdef VMXLAB_DEBUG
    observing_ = observing_ || waves_ || stage_file_;
#endif
}

// One cycle: the outputs before it are this cycle's, given the inputs they were last settled with.
// The top is clocked by both edges (VMXLAB_CLOCK), so that a cycle is one evaluation.
template <bool kObserve> void Machine::tick() {
    Top &top = *top_;
    if (__builtin_expect(ports::console_valid(top), 0)) sent(ports::console_payload(top));
    if (__builtin_expect(ports::finisher_valid.get(ports::finisher(top)), 0)) {
        status_.finisher = ports::finisher_code.get(ports::finisher(top));
        events_ |= FINISHED;
    }
    if (kObserve && ports::retirement_valid(top)) retired();
#ifdef VMXLAB_DEBUG
    if (kObserve) dump();
#endif
    top.clk ^= 1;
    top.eval();
}

template <bool kObserve> uint32_t Machine::loop(uint64_t budget) {
    Top &top = *top_;
    uint64_t cycles = 0;
    uint32_t events = 0;
    for (;;) {
        if (__builtin_expect(ports::parked(top), 0)) events |= PARKED;
        if (__builtin_expect(
                ports::window_request_valid(top) && !ports::window_request_ready(top), 0)) {
            events |= WINDOW;
        }
        events |= events_;
        if (events) break;
        if (cycles == budget) {
            events = BUDGET;
            break;
        }
        bool typing = false, asked = ports::window_request_ready(top);
        bool answered = ports::window_response_valid(top) && ports::window_response_ready(top);
        if (__builtin_expect(!keys_.empty(), 0) && ports::keyboard_empty(top)) {
            ports::keyboard_valid(top) = 1;
            ports::keyboard_payload(top) = static_cast<uint8_t>(keys_.front());
            settle();
            typing = ports::keyboard_ready(top);
        }
        tick<kObserve>();
        ++cycles;
        if (__builtin_expect(typing, 0)) keys_.erase(0, 1);
        if (__builtin_expect(ports::keyboard_valid(top), 0)) ports::keyboard_valid(top) = 0;
        if (__builtin_expect(asked, 0)) ports::window_request_ready(top) = 0;
        if (__builtin_expect(answered, 0)) ports::window_response_valid(top) = 0;
    }
    return events;
}

uint32_t Machine::run(uint64_t budget) {
    Ram::current = &ram_;
    events_ &= ~uint32_t{PARKED};
    uint32_t events = observing_ ? loop<true>(budget) : loop<false>(budget);
    events_ = 0;
    publish();
    return events;
}

// Below, inputs are set and take effect in the next cycle's evaluation: what the host sends
// goes to registers, so that no output need be settled before it is looked at.

void Machine::resume(uint64_t pc, uint64_t value, uint32_t rd, uint32_t charge,
                     bool retires) {
    Ram::current = &ram_;
    if (commit_log_) commit_log_->writes(rd, value);
    Top &top = *top_;
    // The cycle that takes the request is no machine time: the skip can be in it.
    bool skips = charge && begin_skip(charge);
    if (skips) charge = 0;
    ports::resume_payload_pc.set(ports::resume_payload(top), pc);
    ports::resume_payload_value.set(ports::resume_payload(top), value);
    ports::resume_payload_rd.set(ports::resume_payload(top), rd);
    ports::resume_payload_charge.set(ports::resume_payload(top), charge);
    ports::resume_payload_retires.set(ports::resume_payload(top), retires);
    ports::resume_valid(top) = 1;
    for (uint64_t cycle = 0; cycle < kAnswerLimit; ++cycle) {
        bool taken = ports::resume_ready(top);
        tick();
        if (skips) end_skip();
        if (taken) break;
    }
    ports::resume_valid(top) = 0;
}

HostResult Machine::access(uint32_t address, bool write, uint8_t mask, uint64_t data,
                           uint64_t *answer) {
    Ram::current = &ram_;
    if (commit_log_ && write) commit_log_->writes_at(address, data);
    Top &top = *top_;
    auto &request = ports::host_request_payload(top);
    ports::host_request_payload_address.set(request, address);
    ports::host_request_payload_write.set(request, write);
    ports::host_request_payload_mask.set(request, mask);
    ports::host_request_payload_data.set(request, data);
    ports::host_request_valid(top) = 1;
    HostResult result = HostResult::NO_ANSWER;
    for (uint64_t cycle = 0; cycle < kAnswerLimit; ++cycle) {
        refuse_window();
        bool taken = ports::host_request_valid(top) && ports::host_request_ready(top);
        bool answered = ports::host_response_valid(top);
        // The hart may run meanwhile, and take the answer to its own access of the window.
        bool asked = ports::window_request_ready(top);
        bool given = ports::window_response_valid(top) && ports::window_response_ready(top);
        if (answered) {
            const auto &response = ports::host_response_payload(top);
            *answer = ports::host_response_payload_data.get(response);
            result = ports::host_response_payload_error.get(response) ? HostResult::ERROR
                                                                      : HostResult::OK;
        }
        tick();
        if (taken) ports::host_request_valid(top) = 0;
        if (asked) ports::window_request_ready(top) = 0;
        if (given) ports::window_response_valid(top) = 0;
        if (answered) break;
    }
    ports::host_request_valid(top) = 0;
    if (ports::parked(top)) {
        ports::window_request_ready(top) = 0;
        ports::window_response_valid(top) = 0;
    }
    publish();
    return result;
}

// The host's own access has reached the device window: whoever answers there is the host itself.
void Machine::refuse_window() {
    Top &top = *top_;
    if (!ports::window_request_valid(top) || !ports::parked(top)) return;
    answer(0, true);
}

bool Machine::skip(uint32_t cycles) {
    Ram::current = &ram_;
    if (!begin_skip(cycles)) return false;
    tick();
    end_skip();
    publish();
    return true;
}

// Lets the next cycle pass `cycles` at once, if only timers are live.
bool Machine::begin_skip(uint32_t cycles) {
    Top &top = *top_;
    if (!skipping_ || !ports::parked(top) || !ports::quiet(top)) return false;
    uint64_t phase = ports::park_cycle.get(ports::park(top)) % cycles_per_tick_ + cycles;
    auto &port = ports::skip(top);
    ports::skip_cycles.set(port, cycles);
    ports::skip_ticks.set(port, phase / cycles_per_tick_);
    ports::skip_phase.set(port, phase % cycles_per_tick_);
    ports::skip_valid.set(port, 1);
    return true;
}

void Machine::end_skip() { ports::skip_valid.set(ports::skip(*top_), 0); }

void Machine::answer_window(uint64_t data) {
    Ram::current = &ram_;
    answer(data, false);
}

void Machine::answer(uint64_t data, bool error) {
    Top &top = *top_;
    ports::window_response_payload_data.set(ports::window_response_payload(top), data);
    ports::window_response_payload_error.set(ports::window_response_payload(top), error);
    ports::window_response_valid(top) = 1;
    ports::window_request_ready(top) = 1;
    settle();
}

void Machine::window_interrupts(uint8_t lines) {
    Ram::current = &ram_;
    ports::window_interrupts(*top_) = lines;
    settle();
}

void Machine::sent(uint8_t byte) {
    console_.push_back(static_cast<char>(byte));
    if (!stop_text_.empty() && ends_with(console_, 0, stop_text_)) {
        stop_text_.clear();
        events_ |= CONSOLE;
    }
    if (!triggers_.empty() && ends_with(console_, searched_, triggers_.front().text)) {
        fire_trigger();
    }
}

void Machine::fire_trigger() {
    keys_ += triggers_.front().keys;
    triggers_.pop_front();
    searched_ = console_.size();
    while (!triggers_.empty() && triggers_.front().text.empty()) {
        keys_ += triggers_.front().keys;
        triggers_.pop_front();
    }
}

void Machine::type_after(std::string text, std::string keys) {
    triggers_.push_back({std::move(text), std::move(keys)});
    if (triggers_.size() > 1) return;
    size_t place = console_.find(triggers_.front().text, searched_);
    if (place == std::string::npos) return;
    searched_ = place + triggers_.front().text.size();
    keys_ += triggers_.front().keys;
    triggers_.pop_front();
}

void Machine::stop_at_text(std::string text) {
    if (!text.empty() && console_.find(text) != std::string::npos) {
        events_ |= CONSOLE;
        text.clear();
    }
    stop_text_ = std::move(text);
}

void Machine::stop_at_tohost(uint32_t address, bool on) {
    tohost_armed_ = on;
    tohost_address_ = address;
    choose_observing();
}

void Machine::retired() {
    const auto &record = ports::retirement_record(*top_);
    if (tohost_armed_ && ports::retirement_record_store.get(record) &&
        !ports::retirement_record_trap.get(record) &&
        ports::retirement_record_address.get(record) == tohost_address_) {
        // Only the bytes stored count; the others of the field are not defined.
        unsigned bits = 8u << ports::retirement_record_size.get(record);
        uint64_t value = ports::retirement_record_data.get(record);
        if (bits < 64) value &= (uint64_t{1} << bits) - 1;
        if (value) {
            status_.tohost = value;
            events_ |= TOHOST;
        }
    }
    if (commit_log_) commit_log_->retired(record);
    if (!capacity_ && !record_file_) return;
    uint64_t words[kRetirementWords];
    copy_words(words, record);
    if (record_file_) std::fwrite(words, sizeof words, 1, record_file_.get());
    if (!capacity_) return;
    std::memcpy(&records_[next_ * kRetirementWords], words, sizeof words);
    if (++next_ == capacity_) next_ = 0;
    if (kept_ < capacity_) {
        ++kept_;
    } else {
        ++lost_;
    }
}

void Machine::observe(uint64_t capacity) {
    capacity_ = capacity;
    records_.assign(capacity * kRetirementWords, 0);
    records_.shrink_to_fit();
    kept_ = next_ = lost_ = 0;
    choose_observing();
}

bool Machine::observe_to_file(const char *path) {
    bool wanted = *path;
    record_file_.reset(wanted ? std::fopen(path, "wb") : nullptr);
    choose_observing();
    return !wanted || record_file_;
}

bool Machine::log_commits(const char *path, const CommitLogFacts *facts, const uint64_t *gprs) {
    bool written = !commit_log_ || commit_log_->flush();
    commit_log_.reset();
    if (*path) {
        FILE *file = std::fopen(path, "w");
        written = file;
        if (file) commit_log_ = std::make_unique<CommitLog>(file, *facts, gprs);
    }
    choose_observing();
    return written;
}

uint64_t Machine::drain(uint64_t *records, uint64_t most) {
    uint64_t count = kept_ < most ? kept_ : most;
    for (uint64_t index = 0; index < count; ++index) {
        uint64_t place = (next_ + capacity_ - kept_ + index) % capacity_;
        std::memcpy(records + index * kRetirementWords, &records_[place * kRetirementWords],
                    sizeof(uint64_t) * kRetirementWords);
    }
    kept_ -= count;
    return count;
}

void Machine::publish() {
    Top &top = *top_;
    status_.parked = ports::parked(top);
    status_.cycles = ports::park_cycle.get(ports::park(top));
    status_.transition = ports::transition(top);
    if (status_.parked) copy_words(status_.park, ports::park(top));
    if (ports::window_request_valid(top)) {
        const auto &request = ports::window_request_payload(top);
        status_.window_address = ports::window_request_payload_address.get(request);
        status_.window_write = ports::window_request_payload_write.get(request);
        status_.window_mask = ports::window_request_payload_mask.get(request);
        status_.window_data = ports::window_request_payload_data.get(request);
    }
}

}  // namespace vmxlab
