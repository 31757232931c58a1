// Integer instructions: results, sign extension, shifts, branches, jumps, loads and stores.
#include "test.h"

#define RR(number, instruction, left, right, expected) \
    li a0, left; li a1, right; instruction a2, a0, a1; CHECK(number, a2, expected)
#define RI(number, instruction, left, right, expected) \
    li a0, left; instruction a2, a0, right; CHECK(number, a2, expected)

BEGIN
    RR(1, add, 0x7fffffffffffffff, 1, 0x8000000000000000)
    RR(2, addw, 0x7fffffff, 1, 0xffffffff80000000)
    RR(3, sub, 0, 1, -1)
    RR(4, subw, 0x100000000, 1, -1)
    RR(5, and, 0xff00ff00ff00ff00, 0x0ff00ff00ff00ff0, 0x0f000f000f000f00)
    RR(6, or, 0xf0, 0x0f, 0xff)
    RR(7, xor, -1, 0x5555, 0xffffffffffffaaaa)
    RR(8, slt, -1, 0, 1)
    RR(9, sltu, -1, 0, 0)
    RR(10, sll, 1, 127, 0x8000000000000000)
    RR(11, sllw, 1, 63, 0xffffffff80000000)
    RR(12, srl, -1, 63, 1)
    RR(13, srlw, 0xffffffff80000000, 31, 1)
    RR(14, sra, 0x8000000000000000, 63, -1)
    RR(15, sraw, 0x80000000, 31, -1)
    RI(16, addi, 5, -2048, -2043)
    RI(17, addiw, 0x7fffffff, 1, 0xffffffff80000000)
    RI(18, slti, -5, -4, 1)
    RI(19, sltiu, 1, -1, 1)
    RI(20, xori, 0, -1, -1)
    RI(21, ori, 0x100, 0xf, 0x10f)
    RI(22, andi, -1, 0x7f0, 0x7f0)
    RI(23, slli, 3, 62, 0xc000000000000000)
    RI(24, srli, -1, 1, 0x7fffffffffffffff)
    RI(25, srai, -2, 1, -1)
    RI(26, slliw, 0xffffffff, 4, 0xfffffffffffffff0)
    RI(27, srliw, 0xffffffff00000010, 4, 1)
    RI(28, sraiw, 0x80000000, 4, 0xfffffffff8000000)
    lui a0, 0x80000
    CHECK(29, a0, 0xffffffff80000000)
    li zero, 5
    CHECK(30, zero, 0)

    // loads extend, stores write their bytes only
    la s0, data
    lb a0, 0(s0)
    CHECK(31, a0, -1)
    lbu a0, 0(s0)
    CHECK(32, a0, 0xff)
    lh a0, 0(s0)
    CHECK(33, a0, -257)
    lhu a0, 0(s0)
    CHECK(34, a0, 0xfeff)
    lw a0, 0(s0)
    CHECK(35, a0, 0xfffffffffcfdfeff)
    lwu a0, 0(s0)
    CHECK(36, a0, 0xfcfdfeff)
    ld a0, 0(s0)
    CHECK(37, a0, 0xf8f9fafbfcfdfeff)
    li a1, 0x11223344
    sb a1, 9(s0)
    sh a1, 10(s0)
    sw a1, 12(s0)
    ld a0, 8(s0)
    CHECK(38, a0, 0x1122334433444400)

    // branches, taken and not
    li a0, -1
    li a1, 1
    li a2, 0
    blt a0, a1, 1f
    j 2f
1:  ori a2, a2, 1
2:  bltu a0, a1, 3f
    ori a2, a2, 2
3:  bge a1, a0, 4f
    j 5f
4:  ori a2, a2, 4
5:  bgeu a1, a0, 6f
    ori a2, a2, 8
6:  beq a0, a1, 7f
    ori a2, a2, 16
7:  bne a0, a1, 8f
    j 9f
8:  ori a2, a2, 32
9:  CHECK(39, a2, 63)

    // a loop long enough for the branch to be taken often
    li a0, 100
    li a1, 0
1:  add a1, a1, a0
    addi a0, a0, -1
    bnez a0, 1b
    CHECK(40, a1, 5050)

    jal a0, 1f
2:  j fail
1:  CHECK_ADDRESS(41, a0, 2b)
    la a1, 3f
    jalr a1, 1(a1)              // bit 0 of the target is dropped; rd may be rs1
4:  j fail
    .balign 4
3:  CHECK_ADDRESS(42, a1, 4b)

    // a value used right after it is loaded, stored right after it is made
    ld a0, 0(s0)
    addi a0, a0, 1
    sd a0, 16(s0)
    ld a1, 16(s0)
    sub a1, a1, a0
    CHECK(43, a1, 0)
    END

    .data
    .balign 8
data:
    .dword 0xf8f9fafbfcfdfeff, 0, 0
