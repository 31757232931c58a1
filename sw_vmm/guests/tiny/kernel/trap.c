// Traps: what made a user program stop, and what the kernel does about it.

#include "kernel.h"

enum { KILLED = 128 };

static void serve(struct registers *registers, uint64_t cause) {
    uint64_t address = CSR_READ(stval);
    bool right = false;
    switch (cause) {
    case CAUSE_ECALL_FROM_USER:
        registers->pc += 4;
        registers->a[0] = (uint64_t)system_call(registers->a[7], registers->a);
        return;
    case CAUSE_LOAD_PAGE_FAULT:
        right = space_fault(&current->space, address, ACCESS_READ);
        break;
    case CAUSE_STORE_PAGE_FAULT:
        right = space_fault(&current->space, address, ACCESS_WRITE);
        break;
    case CAUSE_INSTRUCTION_PAGE_FAULT:
        right = space_fault(&current->space, address, ACCESS_FETCH);
        break;
    }
    if (!right)
        process_exit(KILLED + cause);
}

// On the process's kernel stack, below its registers.
void user_trap(struct registers *registers) {
    uint64_t cause = CSR_READ(scause);
    if (cause & BIT(63))
        interrupts_serve();
    else
        serve(registers, cause);
    if (timer_slice_over())
        process_yield();
}

void panic(const char *why) {
    console_print("\ntiny: ");
    console_print(why);
    console_print("\n");
    power_off(255);
}

void kernel_fault(uint64_t cause, uint64_t pc, uint64_t value) {
    console_print("\ncause ");
    console_print_hex(cause);
    console_print(" pc ");
    console_print_hex(pc);
    console_print(" value ");
    console_print_hex(value);
    panic("a trap in the kernel");
}
