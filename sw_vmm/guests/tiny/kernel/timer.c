// The timer: time slices by a deadline, set by the hart's own stimecmp or through SBI.
//
// There is no tick: while nobody can run, the deadline is when the first sleeper wants to wake.

#include "kernel.h"
#include "sbi_call.h"

// Long enough for the slowest technique to get somewhere in it.
enum { SLICE = 4000 };

static uint64_t slice_end;

uint64_t timer_now(void) { return CSR_READ(time); }

void timer_arm(uint64_t deadline) {
#ifdef TIMER_BY_SBI
    sbi_call(SBI_TIME, SBI_TIME_SET, deadline, 0);
#else
    __asm__ volatile("csrw %0, %1" ::"i"(CSR_STIMECMP), "r"(deadline));
#endif
}

void timer_initialize(void) {
    timer_arm(~0ull);
    CSR_SET(sie, BIT(SUPERVISOR_TIMER));
}

void timer_start_slice(void) {
    slice_end = timer_now() + SLICE;
    timer_arm(slice_end);
}

// The deadline has passed: whoever looks at the time sees that. The interrupt must only stop.
void timer_interrupt(void) { timer_arm(~0ull); }

bool timer_slice_over(void) { return timer_now() >= slice_end; }
