# Start of virtio.c: a stack, main, and the end by the test finisher.

    .section .text.start, "ax"
    .globl _start
_start:
    la      sp, stack_top
    la      t0, 1f
    csrw    mtvec, t0
    call    main
    li      t0, FINISHER_BASE
    li      t1, 0x5555
    beqz    a0, 2f
    .balign 4
1:  li      t0, FINISHER_BASE
    li      t1, 0x13333
2:  sw      t1, 0(t0)
3:  j       3b
