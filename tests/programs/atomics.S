// Atomic instructions: results, sign extension, reservations, alignment.
#include "test.h"

#define AMO(number, instruction, old, operand, new) \
    li a1, old; sd a1, 0(s0); li a2, operand; instruction a3, a2, (s0); \
    CHECK(number, a3, old); ld a3, 0(s0); CHECK((number) + 1, a3, new)

BEGIN
    la s0, word
    AMO(1, amoswap.d, 5, 7, 7)
    AMO(3, amoadd.d, -1, 2, 1)
    AMO(5, amoxor.d, 0xff, 0x0f, 0xf0)
    AMO(7, amoand.d, 0xff, 0x3c, 0x3c)
    AMO(9, amoor.d, 0xf0, 0x0f, 0xff)
    AMO(11, amomin.d, -1, 1, -1)
    AMO(13, amomax.d, -1, 1, 1)
    AMO(15, amominu.d, -1, 1, 1)
    AMO(17, amomaxu.d, -1, 1, -1)

    // words: the other half of the doubleword stays
    li a1, 0x1122334480000000
    sd a1, 0(s0)
    li a2, 0x7fffffff80000001
    amoadd.w a3, a2, (s0)
    CHECK(19, a3, 0xffffffff80000000)
    ld a3, 0(s0)
    CHECK(20, a3, 0x1122334400000001)
    addi s1, s0, 4
    amomaxu.w.aqrl a3, a2, (s1)
    CHECK(21, a3, 0x11223344)
    ld a3, 0(s0)
    CHECK(22, a3, 0x8000000100000001)
    li a2, 5
    amomin.w a2, a2, (s1)               // rd may be rs2
    CHECK(23, a2, 0xffffffff80000001)

    // sc after lr succeeds once
    lr.d a0, (s0)
    li a1, 99
    sc.d a2, a1, (s0)
    CHECK(24, a2, 0)
    ld a0, 0(s0)
    CHECK(25, a0, 99)
    sc.d a2, zero, (s0)
    snez a2, a2
    CHECK(26, a2, 1)
    ld a0, 0(s0)
    CHECK(27, a0, 99)

    // sc to another address fails, and takes the reservation with it
    la s1, other
    lr.d a0, (s0)
    sc.d a2, zero, (s1)
    snez a2, a2
    CHECK(28, a2, 1)
    sc.d a2, zero, (s0)
    snez a2, a2
    CHECK(29, a2, 1)

    // a trap return drops the reservation
    lr.w a0, (s0)
    TRAPS(ecall)
    sc.w a2, zero, (s0)
    snez a2, a2
#ifndef QEMU
    CHECK(30, a2, 1)
#endif

    // lr.w extends its sign
    li a1, 0x80000000
    sw a1, 0(s0)
    lr.w a0, (s0)
    CHECK(31, a0, 0xffffffff80000000)

    // a contended counter, as an lr/sc loop
    sd zero, 0(s0)
    li a3, 50
1:  lr.d a0, (s0)
    addi a0, a0, 3
    sc.d a1, a0, (s0)
    bnez a1, 1b
    addi a3, a3, -1
    bnez a3, 1b
    ld a0, 0(s0)
    CHECK(32, a0, 150)

    // misaligned ones trap
#ifndef QEMU
    addi s1, s0, 2
    CHECK_TRAPS(33, 4, lr.w a0, (s1))
    CHECK_ADDRESS(34, s11, word + 2)
    CHECK_TRAPS(35, 6, sc.w a0, a1, (s1))
    CHECK_TRAPS(36, 6, amoadd.w a0, a1, (s1))
    addi s1, s0, 4
    CHECK_TRAPS(37, 6, amoswap.d a0, a1, (s1))
    CHECK_ADDRESS(38, s11, word + 4)
#endif
    END

    .data
    .balign 64
word:
    .dword 0
    .balign 64
other:
    .dword 0
