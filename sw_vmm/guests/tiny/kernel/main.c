// The kernel's beginning and end.

#include "kernel.h"

enum { FINISHER_PASS = 0x5555, FINISHER_FAIL = 0x3333 };
enum { CYCLE_TIME_INSTRET = 7 };

void power_off(uint64_t exit_code) {
    console_print(""); // what is still to be printed
    REG32(FINISHER_BASE) = exit_code ? FINISHER_FAIL | (uint32_t)exit_code << 16 : FINISHER_PASS;
    for (;;) {
    }
}

__attribute__((noreturn)) void kernel_main(uint64_t hart, uint64_t device_tree) {
    (void)hart, (void)device_tree;
    CSR_WRITE(scounteren, CYCLE_TIME_INSTRET);
    // sret goes to U-mode with interrupts enabled.
    CSR_CLEAR(sstatus, MSTATUS_SPP | MSTATUS_SIE);
    CSR_SET(sstatus, MSTATUS_SPIE);
    frames_initialize();
    space_start_paging();
    interrupts_initialize();
    timer_initialize();
    console_initialize();
    disk_initialize();
    terminal_initialize();
    console_print("tiny: here we go\n");
    process_start_first();
}
