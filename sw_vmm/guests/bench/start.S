# Start of a benchmark: a stack, a trap handler that fails, and the end by HTIF.

    .section .text.start, "ax"
    .globl _start
_start:
    la      sp, stack_top
    la      t0, unexpected
    csrw    mtvec, t0
    csrw    mie, zero
    call    run
    slli    a0, a0, 1
    ori     a0, a0, 1
    la      t0, tohost
    sd      a0, 0(t0)
1:  j       1b

    .balign 4
unexpected:
    csrr    a0, mcause
    addi    a0, a0, 100
    slli    a0, a0, 1
    ori     a0, a0, 1
    la      t0, tohost
    sd      a0, 0(t0)
1:  j       1b

    .section .tohost, "aw"
    .balign 64
    .globl tohost
tohost:
    .dword  0
