// What Python calls (sim/library.py): plain C functions on one machine.
#include <cstring>
#include <new>

#include "machine.h"

using vmxlab::Machine;

extern "C" {
#pragma GCC visibility push(default)

Machine *vmxlab_new(uint64_t ram_size, uint32_t cycles_per_tick) {
    try {
        return new Machine(ram_size, cycles_per_tick);
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

void vmxlab_delete(Machine *machine) { delete machine; }
void vmxlab_reset(Machine *machine) { machine->reset(); }
const vmxlab::Status *vmxlab_status(Machine *machine) { return &machine->status(); }
uint8_t *vmxlab_ram(Machine *machine) { return machine->ram().bytes(); }

uint32_t vmxlab_run(Machine *machine, uint64_t budget) { return machine->run(budget); }

uint32_t vmxlab_resume_and_run(Machine *machine, uint64_t pc, uint64_t value, uint32_t rd,
                               uint32_t charge, uint64_t budget, int retires) {
    machine->resume(pc, value, rd, charge, retires);
    return machine->run(budget);
}

int vmxlab_access(Machine *machine, uint32_t address, int write, uint8_t mask, uint64_t data,
                  uint64_t *answer) {
    return static_cast<int>(machine->access(address, write, mask, data, answer));
}

// The same 64-bit register again and again, for registers behind which an address counts up. The
// first access that fails ends it.
int vmxlab_repeat(Machine *machine, uint32_t address, int write, uint64_t *words, uint64_t count) {
    for (uint64_t index = 0; index < count; ++index) {
        uint64_t ignored;
        vmxlab::HostResult result =
            machine->access(address, write, 0xFF, words[index], write ? &ignored : &words[index]);
        if (result != vmxlab::HostResult::OK) return static_cast<int>(result);
    }
    return static_cast<int>(vmxlab::HostResult::OK);
}

int vmxlab_skip(Machine *machine, uint32_t cycles) { return machine->skip(cycles); }
void vmxlab_set_skipping(Machine *machine, int on) { machine->set_skipping(on); }

void vmxlab_answer_window(Machine *machine, uint64_t data) { machine->answer_window(data); }
void vmxlab_window_interrupts(Machine *machine, uint8_t lines) { machine->window_interrupts(lines); }

uint64_t vmxlab_console_length(Machine *machine) { return machine->console().size(); }
const char *vmxlab_console_bytes(Machine *machine) { return machine->console().data(); }

void vmxlab_type_after(Machine *machine, const char *text, uint64_t text_length, const char *keys,
                       uint64_t keys_length) {
    machine->type_after(std::string(text, text_length), std::string(keys, keys_length));
}

void vmxlab_stop_at_text(Machine *machine, const char *text, uint64_t length) {
    machine->stop_at_text(std::string(text, length));
}

void vmxlab_stop_at_tohost(Machine *machine, uint32_t address, int on) {
    machine->stop_at_tohost(address, on);
}

void vmxlab_observe(Machine *machine, uint64_t capacity) { machine->observe(capacity); }
int vmxlab_observe_to_file(Machine *machine, const char *path) {
    return machine->observe_to_file(path);
}
uint64_t vmxlab_drain(Machine *machine, uint64_t *records, uint64_t most) {
    return machine->drain(records, most);
}
uint64_t vmxlab_lost(Machine *machine) { return machine->lost(); }
int vmxlab_log_commits(Machine *machine, const char *path, const vmxlab::CommitLogFacts *facts,
                       const uint64_t *gprs) {
    return machine->log_commits(path, facts, gprs);
}

#ifdef VMXLAB_DEBUG
// A copy of the machine's state, freed by vmxlab_free_state.
std::string *vmxlab_save(Machine *machine) { return new std::string(machine->save()); }
uint64_t vmxlab_state_length(const std::string *state) { return state->size(); }
const char *vmxlab_state_bytes(const std::string *state) { return state->data(); }
void vmxlab_free_state(std::string *state) { delete state; }
void vmxlab_restore(Machine *machine, const void *bytes, uint64_t length) {
    machine->restore(bytes, length);
}
int vmxlab_dump_waves(Machine *machine, const char *path, uint64_t from, uint64_t to) {
    return machine->dump_waves(path, from, to);
}
int vmxlab_dump_stages(Machine *machine, const char *path, uint64_t from, uint64_t to) {
    return machine->dump_stages(path, from, to);
}
#endif

#pragma GCC visibility pop
}  // extern "C"
