// Multiplication and division, with their corner cases.
#include "test.h"

#define RR(number, instruction, left, right, expected) \
    li a0, left; li a1, right; instruction a2, a0, a1; CHECK(number, a2, expected)
#define MIN 0x8000000000000000
#define MIN_W 0xffffffff80000000

BEGIN
    RR(1, mul, 0x100000001, 0x100000001, 0x200000001)
    RR(2, mul, -3, 5, -15)
    RR(3, mulh, MIN, MIN, 0x4000000000000000)
    RR(4, mulh, -1, 1, -1)
    RR(5, mulhu, -1, -1, -2)
    RR(6, mulhsu, -1, -1, -1)
    RR(7, mulhsu, MIN, 2, -1)
    RR(8, mulw, 0x7fffffff, 2, -2)
    RR(9, mulw, 0x100000003, 3, 9)
    RR(10, div, -7, 2, -3)
    RR(11, rem, -7, 2, -1)
    RR(12, div, 7, -2, -3)
    RR(13, rem, 7, -2, 1)
    RR(14, divu, -1, 10, 0x1999999999999999)
    RR(15, remu, -1, 10, 5)
    RR(16, div, MIN, -1, MIN)
    RR(17, rem, MIN, -1, 0)
    RR(18, div, 42, 0, -1)
    RR(19, rem, 42, 0, 42)
    RR(20, divu, 42, 0, -1)
    RR(21, remu, -42, 0, -42)
    RR(22, divw, MIN_W, -1, MIN_W)
    RR(23, remw, MIN_W, -1, 0)
    RR(24, divw, 0x1234567800000007, 2, 3)
    RR(25, remw, -7, 0, -7)
    RR(26, divuw, -1, 2, 0x7fffffff)
    RR(27, remuw, 0xffffffff, 0x10, 15)
    RR(28, divuw, 0x80000000, 1, MIN_W)
    RR(29, divuw, 5, 0, -1)
    RR(30, remuw, 0x80000000, 0, MIN_W)
    // results used at once, operands overwritten
    li a0, 1000003
    mul a0, a0, a0
    rem a1, a0, a0
    CHECK(31, a1, 0)
    li a2, 997
    divu a0, a0, a2
    mul a0, a0, a2
    CHECK(32, a0, 1000005999865)
    END
