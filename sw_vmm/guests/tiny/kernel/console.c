// The console: a UART 16550 that takes sixteen bytes whenever it interrupts.

#include "kernel.h"

enum { THR = 0, IER = 1, FCR = 2, LSR = 5 };
enum { IER_THRI = 2, FCR_ENABLE = 1, LSR_THRE = 0x20, FIFO = 16 };
enum { SIZE = 256 };

static char waiting[SIZE];
static uint64_t taken, given; // bytes so far

void console_initialize(void) {
    REG8(UART_BASE + IER) = 0;
    REG8(UART_BASE + FCR) = FCR_ENABLE;
    interrupts_enable_source(UART_INTERRUPT);
}

static void fill_fifo(void) {
    for (int count = 0; count < FIFO && taken < given; count++)
        REG8(UART_BASE + THR) = (uint8_t)waiting[taken++ % SIZE];
}

static bool ready(void) { return REG8(UART_BASE + LSR) & LSR_THRE; }

void console_interrupt(void) {
    if (ready())
        fill_fifo();
    if (taken == given)
        REG8(UART_BASE + IER) = 0;
    process_wake(waiting);
}

static void put(char character) {
    while (given - taken == SIZE)
        process_wait_for(waiting);
    waiting[given++ % SIZE] = character;
}

int64_t console_write(uint64_t from, uint64_t length) {
    char part[32];
    for (uint64_t done = 0; done < length;) {
        uint64_t count = length - done < sizeof part ? length - done : sizeof part;
        if (!space_copy_in(&current->space, part, from + done, count))
            return -1;
        for (uint64_t place = 0; place < count; place++) {
            if (part[place] == '\n')
                put('\r');
            put(part[place]);
        }
        done += count;
        // Interrupts when the FIFO is empty, so also now if it is.
        REG8(UART_BASE + IER) = IER_THRI;
    }
    return (int64_t)length;
}

static void put_now(char character) {
    while (!ready()) {
    }
    REG8(UART_BASE + THR) = (uint8_t)character;
}

static void drain(void) {
    REG8(UART_BASE + IER) = 0;
    while (taken < given)
        put_now(waiting[taken++ % SIZE]);
}

void console_print(const char *text) {
    for (drain(); *text; text++) {
        if (*text == '\n')
            put_now('\r');
        put_now(*text);
    }
}

void console_print_hex(uint64_t number) {
    drain();
    for (int shift = 60; shift >= 0; shift -= 4)
        put_now("0123456789abcdef"[number >> shift & 15]);
}
