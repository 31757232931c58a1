// Counts in x1 and calls, with timer interrupts taken on the way; see test_time.py.
    .section .text.start
    .globl _start
_start:
calls:
    addi x1, x1, 1
    ecall
    addi x12, x12, -1
    bnez x12, calls
    ebreak

// Sleeps in M-mode until an interrupt is pending; x12 times.
sleeps:
    wfi
    addi x1, x1, 1
    rdtime x3
    csrr x4, mip
    ebreak

// Handler of the timers: counts in x2, moves the deadline that is due by x9 ticks.
    .balign 4
vector:
    addi x2, x2, 1
    csrr x5, mcause
    slli x5, x5, 1
    li x6, 14
    bne x5, x6, 1f
    li x7, CLINT_BASE + 0x4000
    ld x8, 0(x7)
    add x8, x8, x9
    sd x8, 0(x7)
    mret
1:  csrr x8, stimecmp
    add x8, x8, x9
    csrw stimecmp, x8
    mret
