// wfi: waits until an enabled interrupt is pending, whether it is taken or not.
#include "test.h"

#define MSIP CLINT_BASE
#define MTIMECMP (CLINT_BASE + 0x4000)
#define MTIME (CLINT_BASE + 0xbff8)

BEGIN
    .option norvc
    li s0, MTIMECMP
    li s1, MTIME
    // woken with mstatus.mie clear: goes on behind it, no trap
    li a0, 0x80
    csrw mie, a0
    ld a1, 0(s1)
    addi a1, a1, 100
    sd a1, 0(s0)
    wfi
    csrr a0, mip
    andi a0, a0, 0x80
    CHECK(1, a0, 0x80)
    ld a2, 0(s1)
    sltu a2, a2, a1
    CHECK(2, a2, 0)

    // woken with mstatus.mie set: the trap's pc is the instruction behind it
    la t0, handler
    csrw mtvec, t0
    ld a1, 0(s1)
    addi a1, a1, 100
    sd a1, 0(s0)
1:  csrr a0, mip
    andi a0, a0, 0x80
    bnez a0, 1b
    li s2, 0
    csrsi mstatus, 8
    wfi
behind:
    nop
    CHECK(3, s2, INTERRUPT + 7)
    CHECK_ADDRESS(4, s3, behind)
    csrci mstatus, 8

    // already pending: no wait
    li t0, MSIP
    li a0, 1
    sw a0, 0(t0)
2:  csrr a0, mip
    andi a0, a0, 8
    beqz a0, 2b
    li a0, 8
    csrw mie, a0
    wfi
    CHECK(5, zero, 0)
    sw zero, 0(t0)
    la t0, trap
    csrw mtvec, t0
    csrw mie, zero

    // S-mode: trapped by TW
    li a0, MSTATUS_TW
    csrs mstatus, a0
    TO_SUPERVISOR
    CHECK_TRAPS(6, 2, wfi)
    TO_MACHINE
    li a0, MSTATUS_TW
    csrc mstatus, a0

    END

    .balign 4
handler:
    csrr s2, mcause
    csrr s3, mepc
    li t6, -1
    sd t6, 0(s0)
    mret
