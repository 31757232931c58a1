// tiny's firmware: what M-mode must do before a kernel can run in S-mode, and a few SBI calls.

#include "../csr.h"
#include "../sbi.h"

// The firmware's code and data lie together, apart from the kernel's.
#define FIRMWARE __attribute__((section(".firmware")))

enum { CLINT_MTIMECMP = 0x4000 };
enum { FINISHER_PASS = 0x5555, FINISHER_FAIL = 0x3333, FIRMWARE_FAULT = 254 };
enum { SPECIFICATION = 2 << 24, IMPLEMENTATION = 0x766D78 };

struct answer {
    int64_t error;
    int64_t value;
};

extern char kernel_entry[];

__attribute__((noreturn)) FIRMWARE static void finish(uint32_t word) {
    REG32(FINISHER_BASE) = word;
    for (;;) {
    }
}

// Everything an S-mode kernel handles itself goes to it; it may read the counters and the time.
FIRMWARE void firmware_main(void) {
    CSR_WRITE(pmpaddr0, ~0ull); // a hart with PMP lets nobody else in by default
    CSR_WRITE(pmpcfg0, 0x1f);   // NAPOT, all of it, rwx
    CSR_WRITE(medeleg, BIT(CAUSE_INSTRUCTION_ADDRESS_MISALIGNED) | BIT(CAUSE_BREAKPOINT) |
                           BIT(CAUSE_ILLEGAL_INSTRUCTION) | BIT(CAUSE_INSTRUCTION_ACCESS_FAULT) |
                           BIT(CAUSE_LOAD_ADDRESS_MISALIGNED) | BIT(CAUSE_LOAD_ACCESS_FAULT) |
                           BIT(CAUSE_STORE_ADDRESS_MISALIGNED) | BIT(CAUSE_STORE_ACCESS_FAULT) |
                           BIT(CAUSE_ECALL_FROM_USER) | BIT(CAUSE_INSTRUCTION_PAGE_FAULT) |
                           BIT(CAUSE_LOAD_PAGE_FAULT) | BIT(CAUSE_STORE_PAGE_FAULT));
    CSR_WRITE(mideleg, BIT(SUPERVISOR_SOFTWARE) | BIT(SUPERVISOR_TIMER) | BIT(SUPERVISOR_EXTERNAL));
    CSR_WRITE(mcounteren, 7);
    REG64(CLINT_BASE + CLINT_MTIMECMP) = ~0ull;
#ifndef TIMER_BY_SBI
    CSR_SET(menvcfg, MENVCFG_STCE); // the kernel has stimecmp, and its timer never comes here
#endif
    CSR_WRITE(mie, 0);
    CSR_CLEAR(mstatus, MSTATUS_MPP);
    CSR_SET(mstatus, MSTATUS_MPP_SUPERVISOR);
    CSR_WRITE(mepc, kernel_entry);
}

FIRMWARE static struct answer set_timer(uint64_t deadline) {
    CSR_CLEAR(mip, BIT(SUPERVISOR_TIMER));
    REG64(CLINT_BASE + CLINT_MTIMECMP) = deadline;
    CSR_SET(mie, BIT(MACHINE_TIMER));
    return (struct answer){SBI_SUCCESS, 0};
}

FIRMWARE static struct answer base(uint64_t function, uint64_t extension) {
    struct answer answer = {SBI_SUCCESS, 0};
    if (function == SBI_BASE_VERSION)
        answer.value = SPECIFICATION;
    else if (function == SBI_BASE_IMPLEMENTATION)
        answer.value = IMPLEMENTATION;
    else if (function == SBI_BASE_PROBE)
        answer.value = extension == SBI_BASE || extension == SBI_SRST ||
                       extension == SBI_TIME;
    else if (function > SBI_BASE_PROBE + 3) // mvendorid, marchid and mimpid read zero
        answer.error = SBI_NOT_SUPPORTED;
    return answer;
}

// Registers a0 and a1 of the caller, its a6 and a7.
FIRMWARE void firmware_trap(uint64_t registers[2], uint64_t function, uint64_t extension) {
    uint64_t cause = CSR_READ(mcause);
    if (cause == (BIT(63) | MACHINE_TIMER)) {
        // The deadline is the kernel's business now; the machine's timer stays quiet until it
        // sets another.
        CSR_CLEAR(mie, BIT(MACHINE_TIMER));
        CSR_SET(mip, BIT(SUPERVISOR_TIMER));
        return;
    }
    if (cause != CAUSE_ECALL_FROM_SUPERVISOR)
        finish(FINISHER_FAIL | FIRMWARE_FAULT << 16);
    CSR_WRITE(mepc, CSR_READ(mepc) + 4);
    struct answer answer = {SBI_NOT_SUPPORTED, 0};
    if (extension == SBI_TIME && function == SBI_TIME_SET)
        answer = set_timer(registers[0]);
    else if (extension == SBI_BASE)
        answer = base(function, registers[0]);
    else if (extension == SBI_SRST && function == SBI_SRST_RESET)
        finish(registers[1] ? FINISHER_FAIL | 1 << 16 : FINISHER_PASS);
    registers[0] = (uint64_t)answer.error;
    registers[1] = (uint64_t)answer.value;
}
