// M-mode: CSRs and their WARL rules, exceptions and what they leave, delegation, trap returns.
#include "test.h"

#define CSR_RESET_MASK (MSTATUS_MPRV | MSTATUS_SUM | MSTATUS_MXR | MSTATUS_TVM | MSTATUS_TW | MSTATUS_TSR)

BEGIN
    .option norvc
    // CSR instructions: old value, set, clear, immediates, x0 writes nothing
    li a0, 0x1234
    csrw mscratch, a0
    li a1, 0xff
    csrrs a2, mscratch, a1
    CHECK(1, a2, 0x1234)
    csrrc a2, mscratch, a1
    CHECK(2, a2, 0x12ff)
    csrrwi a2, mscratch, 31
    CHECK(3, a2, 0x1200)
    csrrsi a2, mscratch, 0
    CHECK(4, a2, 31)
    csrr a2, mhartid
    CHECK(5, a2, 0)
    csrr a2, misa
    srli a2, a2, 62
    CHECK(6, a2, 2)

    // fields that cannot be written
#ifndef QEMU
    li a0, 2 << 11              // mpp = 2 does not exist: the old one stays
    li a1, MSTATUS_MPP
    csrs mstatus, a1
    csrrc zero, mstatus, a1
    csrs mstatus, a0
    csrr a2, mstatus
    and a2, a2, a1
    CHECK(7, a2, 0)
    csrr a2, mstatus
    srli a2, a2, 32
    CHECK(8, a2, 0xa)           // uxl = sxl = 2
    li a0, 3 << 13              // fs is always off
    csrs mstatus, a0
    csrr a2, mstatus
    and a2, a2, a0
    CHECK(9, a2, 0)
    csrr a2, pmpcfg0
    CHECK(10, a2, 0)
    csrr a2, tselect
    CHECK(11, a2, 0)
    li a0, -1
    csrw mepc, a0
    csrr a2, mepc
    CHECK(12, a2, -2)
    csrw medeleg, a0
    csrr a2, medeleg
    srli a2, a2, 11
    andi a2, a2, 1
    CHECK(13, a2, 0)            // ecall from M is never delegated
    csrw medeleg, zero
#endif
    li a0, 0x80000003
    csrw mtvec, a0
    csrr a2, mtvec
    andi a2, a2, 2
    CHECK(14, a2, 0)
    la t6, trap
    csrw mtvec, t6

    // exceptions: cause, pc, value
    CHECK_TRAPS(20, 11, here_ecall: ecall)
    CHECK_ADDRESS(21, s10, here_ecall)
    CHECK(22, s11, 0)
    CHECK_TRAPS(23, 2, here_csr: csrw mhartid, zero)
    CHECK_ADDRESS(24, s10, here_csr)
    CHECK(25, s11, 0xf1401073)
    CHECK_TRAPS(26, 2, csrr a0, 0x800)
    CHECK_TRAPS(27, 2, .4byte 0xffffffff)
    CHECK_TRAPS(28, 3, here_ebreak: ebreak)
    CHECK_ADDRESS(29, s10, here_ebreak)
    li a0, 0x18000000           // nobody answers there
    CHECK_TRAPS(30, 5, ld a1, 0(a0))
    CHECK(31, s11, 0x18000000)
    CHECK_TRAPS(32, 7, sd a1, 8(a0))
    CHECK(33, s11, 0x18000008)
    CHECK_TRAPS(34, 1, jr a0)
    CHECK(35, s10, 0x18000000)
    CHECK(36, s11, 0x18000000)
    li a0, 1 << 60              // beyond every bus
    CHECK_TRAPS(37, 5, ld a1, 0(a0))
    CHECK_TRAPS(38, 1, jr a0)
    CHECK_TRAPS(39, 2, .4byte 0x00007053)       // fadd.s

    // a failing load leaves rd alone
    li a1, 77
    li a0, 0x18000000
    CHECK_TRAPS(40, 5, ld a1, 0(a0))
    CHECK(41, a1, 77)

    // mstatus over a trap and back
    csrsi mstatus, 8            // mie, with nothing enabled in mie
    csrr a0, mstatus
    TRAPS(ecall)
    csrr a1, mstatus
    andi a1, a1, 0x88
    CHECK(42, a1, 0x88)         // mret: mie = mpie, mpie = 1
    csrr a1, mstatus
    srli a1, a1, 11
    andi a1, a1, 3
    CHECK(43, a1, 0)            // mpp = U
    csrci mstatus, 8

    // U-mode may do nothing privileged
    TO_USER
    CHECK_TRAPS(50, 2, csrr a0, mscratch)
    CHECK_TRAPS(51, 2, csrr a0, sscratch)
    CHECK_TRAPS(52, 2, mret)
    CHECK_TRAPS(53, 2, sret)
    CHECK_TRAPS(54, 2, sfence.vma)
    CHECK_TRAPS(55, 2, csrr a0, time)
#ifndef QEMU
    CHECK_TRAPS(56, 2, wfi)     // QEMU lets it through
#endif
    CHECK_TRAPS(57, 8, ecall)
    TO_MACHINE
    CHECK(58, s9, 8)

    // counters, when enabled
    li a0, 7
    csrw mcounteren, a0
    csrw scounteren, a0
    TO_USER
    rdinstret a0
    nop
    nop
    rdinstret a1
    sub a1, a1, a0
#ifndef QEMU
    CHECK(59, a1, 3)
#endif
    rdcycle a0
    rdcycle a1
    sltu a1, a1, a0
    CHECK(60, a1, 0)
    TO_MACHINE

    // S-mode: its CSRs are a view, TVM, TSR and TW trap
    li a0, MSTATUS_TVM | MSTATUS_TSR
    csrs mstatus, a0
    TO_SUPERVISOR
    CHECK_TRAPS(61, 2, csrr a0, satp)
    CHECK_TRAPS(62, 2, sfence.vma)
    CHECK_TRAPS(63, 2, sret)
    CHECK_TRAPS(64, 2, csrr a0, mstatus)
    csrr a0, sstatus
    li a1, MSTATUS_TVM | MSTATUS_TSR | MSTATUS_MPP | MSTATUS_MPRV
    and a0, a0, a1
    CHECK(65, a0, 0)
    CHECK_TRAPS(66, 9, ecall)
    TO_MACHINE
    li a0, MSTATUS_TVM | MSTATUS_TSR
    csrc mstatus, a0

    // delegation: S-mode takes its own trap, M-mode never delegates downwards
    li a0, 1 << 3 | 1 << 8
    csrw medeleg, a0
    la a0, supervisor_trap
    csrw stvec, a0
    CHECK_TRAPS(70, 3, ebreak)
    TO_SUPERVISOR
    li s0, 0
here_s:
    ebreak
    CHECK(71, s0, 3)
    CHECK_ADDRESS(72, s1, here_s)
    andi s2, s2, 0x100
    CHECK(73, s2, 0x100)        // spp = S
    // on to U
    la a0, 1f
    csrw sepc, a0
    li a0, 0x100
    csrc sstatus, a0
    sret
    .balign 4
1:  li s0, 0
    ecall
    CHECK(74, s0, 8)
    andi s2, s2, 0x100
    CHECK(75, s2, 0)            // spp = U
    CHECK_TRAPS(76, 2, csrr a0, sscratch)
    TO_MACHINE_BY_ILLEGAL
    csrw medeleg, zero

    // MPRV: loads and stores of M-mode with the privilege in mpp, here without paging
    li a0, MSTATUS_MPP
    csrc mstatus, a0
    li a0, MSTATUS_MPRV
    csrs mstatus, a0
    la a1, word
    ld a2, 0(a1)
    csrc mstatus, a0
    CHECK(80, a2, 0x5a5a)

    // mret to a lower level clears it
    li a0, MSTATUS_MPRV
    csrs mstatus, a0
    TO_SUPERVISOR
    TO_MACHINE
    csrr a0, mstatus
    li a1, MSTATUS_MPRV
    and a0, a0, a1
#ifndef QEMU
    CHECK(81, a0, 0)
#endif

    // counters can be written and stopped
    li a0, 5
    csrw mcountinhibit, a0
    csrwi mcycle, 9
    csrwi minstret, 8
    nop
    csrr a1, mcycle
    csrr a2, minstret
#ifndef QEMU
    CHECK(82, a1, 9)
    CHECK(83, a2, 8)
#endif
    csrw mcountinhibit, zero
    END

    .balign 4
supervisor_trap:
    csrr s0, scause
    csrr s1, sepc
    csrr s2, sstatus
    csrr t6, sepc
    addi t6, t6, 4
    csrw sepc, t6
    sret

    .data
    .balign 8
word:
    .dword 0x5a5a
