// Zba, Zbb and Zbs. The corners are in the blocks' own tests: here is one case of each instruction,
// and results used at once.
#include "test.h"

    .option arch, +zba, +zbb, +zbs

#define CHECK_RR(number, instruction, left, right, expected) \
    li a0, left; li a1, right; instruction a2, a0, a1; CHECK(number, a2, expected)
#define CHECK_RI(number, instruction, left, amount, expected) \
    li a0, left; instruction a2, a0, amount; CHECK(number, a2, expected)
#define CHECK_R(number, instruction, left, expected) \
    li a0, left; instruction a2, a0; CHECK(number, a2, expected)

BEGIN
    CHECK_RR(1, add.uw, 0x1234567880000001, 2, 0x80000003)
    CHECK_RR(2, sh1add, 0x4000000000000003, 5, 0x800000000000000b)
    CHECK_RR(3, sh2add, -1, 5, 1)
    CHECK_RR(4, sh3add, 0x1000000000000001, -1, 0x8000000000000007)
    CHECK_RR(5, sh1add.uw, -1, 1, 0x1ffffffff)
    CHECK_RR(6, sh2add.uw, -1, 1, 0x3fffffffd)
    CHECK_RR(7, sh3add.uw, -1, 1, 0x7fffffff9)
    CHECK_RI(8, slli.uw, -1, 36, 0xfffffff000000000)
    CHECK_RR(9, andn, 0xff00, 0xf0f0, 0x0f00)
    CHECK_RR(10, orn, 0x0f, -16, 0x0f)
    CHECK_RR(11, xnor, 0x0f, 0x05, -11)
    CHECK_R(12, clz, 0x10000, 47)
    CHECK_R(13, clz, 0, 64)
    CHECK_R(14, ctz, 0x10000, 16)
    CHECK_R(15, ctz, 0, 64)
    CHECK_R(16, cpop, 0x8000000100000001, 3)
    CHECK_R(17, clzw, 0x7fffffff00010000, 15)
    CHECK_R(18, clzw, 0x100000000, 32)
    CHECK_R(19, ctzw, 0x7fffffff00010000, 16)
    CHECK_R(20, cpopw, -1, 32)
    CHECK_RR(21, max, -1, 1, 1)
    CHECK_RR(22, maxu, -1, 1, -1)
    CHECK_RR(23, min, -1, 1, -1)
    CHECK_RR(24, minu, -1, 1, 1)
    CHECK_R(25, sext.b, 0x1280, -128)
    CHECK_R(26, sext.h, 0x128000, -32768)
    CHECK_R(27, zext.h, -1, 0xffff)
    CHECK_RR(28, rol, 0x8000000000000001, 4, 0x18)
    CHECK_RR(29, ror, 0x8000000000000018, 4, 0x8800000000000001)
    CHECK_RI(30, rori, 1, 63, 2)
    CHECK_RR(31, rolw, 0x40000001, 1, 0xffffffff80000002)
    CHECK_RR(32, rorw, 0x1234567800000001, 1, 0xffffffff80000000)
    CHECK_RI(33, roriw, 0x100, 8, 1)
    CHECK_R(34, orc.b, 0x0100008000000010, 0xff0000ff000000ff)
    CHECK_R(35, rev8, 0x0123456789abcdef, 0xefcdab8967452301)
    CHECK_RR(36, bclr, -1, 64 + 4, -17)
    CHECK_RR(37, bext, 0x10, 64 + 4, 1)
    CHECK_RR(38, binv, 0x10, 64 + 4, 0)
    CHECK_RR(39, bset, 0, 64 + 63, 0x8000000000000000)
    CHECK_RI(40, bclri, -1, 63, 0x7fffffffffffffff)
    CHECK_RI(41, bexti, 0x8000000000000000, 63, 1)
    CHECK_RI(42, binvi, 0, 32, 0x100000000)
    CHECK_RI(43, bseti, 1, 1, 3)
    // results used at once: a count by an addition, a branch and a count; a sum as an address
    li a0, 0xf0f0
    cpop a1, a0
    add a1, a1, a1
    cpop a1, a1
    bnez a1, 1f
    li a1, 99
1:  CHECK(44, a1, 1)
    li a0, 2
    la a1, numbers
    sh3add a1, a0, a1
    ld a1, 0(a1)
    ctz a1, a1
    rol a1, a0, a1
    CHECK(45, a1, 0x40)
    // the product of a late result, and a late operand of a count
    li a0, 7
    mul a0, a0, a0
    cpop a0, a0
    mul a0, a0, a0
    clz a0, a0
    CHECK(46, a0, 60)
    // the other operand is the one
    CHECK_RR(47, max, 1, -1, 1)
    CHECK_RR(48, maxu, 1, -1, -1)
    CHECK_RR(49, min, 1, -1, -1)
    CHECK_RR(50, minu, 1, -1, 1)
    END
    .data
    .balign 8
numbers:
    .dword 1, 2, 0x20
