// Interrupts: the hart's own timer, and devices by way of the PLIC's second context, the S-mode one.

#include "kernel.h"

enum { PRIORITY = 0, ENABLE = 0x2080, THRESHOLD = 0x201000, CLAIM = 0x201004 };

void interrupts_initialize(void) {
    REG32(PLIC_BASE + ENABLE) = 0;
    REG32(PLIC_BASE + THRESHOLD) = 0;
    CSR_SET(sie, BIT(SUPERVISOR_EXTERNAL));
}

void interrupts_enable_source(uint32_t source) {
    REG32(PLIC_BASE + PRIORITY + 4 * source) = 1;
    REG32(PLIC_BASE + ENABLE) = REG32(PLIC_BASE + ENABLE) | 1u << source;
}

static void external_interrupt(void) {
    uint32_t source = REG32(PLIC_BASE + CLAIM);
    if (source == UART_INTERRUPT)
        console_interrupt();
    else
        virtio_interrupt(source);
    if (source)
        REG32(PLIC_BASE + CLAIM) = source;
}

void interrupts_serve(void) {
    for (uint64_t pending; (pending = CSR_READ(sip) & CSR_READ(sie));) {
        if (pending & BIT(SUPERVISOR_TIMER))
            timer_interrupt();
        if (pending & BIT(SUPERVISOR_EXTERNAL))
            external_interrupt();
    }
}
