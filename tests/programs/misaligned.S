// Misaligned loads and stores of every size at every place, over the edges of words and lines.
#include "test.h"

BEGIN
    // fill 192 bytes with i * 7 + 1
    la s0, area
    li a0, 0
    li a2, 1
1:  add a1, s0, a0
    sb a2, 0(a1)
    addi a2, a2, 7
    addi a0, a0, 1
    li a3, 192
    bne a0, a3, 1b

    // loads at every offset: compare with the bytes put together one by one
    li s1, 0                    // offset
    li s2, 0                    // sum of differences
2:  add a0, s0, s1
    ld a1, 0(a0)
    li a2, 0
    li a3, 8
3:  addi a3, a3, -1
    slli a2, a2, 8
    add a4, a0, a3
    lbu a4, 0(a4)
    or a2, a2, a4
    bnez a3, 3b
    xor a4, a1, a2
    or s2, s2, a4
    lw a1, 0(a0)
    sext.w a4, a2
    xor a4, a1, a4
    or s2, s2, a4
    lwu a1, 0(a0)
    slli a4, a2, 32
    srli a4, a4, 32
    xor a4, a1, a4
    or s2, s2, a4
    lh a1, 0(a0)
    slli a4, a2, 48
    srai a4, a4, 48
    xor a4, a1, a4
    or s2, s2, a4
    lhu a1, 0(a0)
    slli a4, a2, 48
    srli a4, a4, 48
    xor a4, a1, a4
    or s2, s2, a4
    addi s1, s1, 1
    li a3, 184
    bne s1, a3, 2b
    CHECK(1, s2, 0)

    // stores at every offset: the bytes meant change, their neighbours do not
    li s1, 1
    li s2, 0
4:  add a0, s0, s1
    lbu s3, -1(a0)
    lbu s4, 8(a0)
    li a1, 0x8877665544332211
    sd a1, 0(a0)
    li a2, 0
    li a3, 8
5:  addi a3, a3, -1
    slli a2, a2, 8
    add a4, a0, a3
    lbu a4, 0(a4)
    or a2, a2, a4
    bnez a3, 5b
    xor a4, a1, a2
    or s2, s2, a4
    lbu a4, -1(a0)
    xor a4, a4, s3
    or s2, s2, a4
    lbu a4, 8(a0)
    xor a4, a4, s4
    or s2, s2, a4
    li a1, 0x0a0b0c0d
    sw a1, 2(a0)
    ld a2, 0(a0)
    li a4, 0x88770a0b0c0d2211
    xor a4, a2, a4
    or s2, s2, a4
    sh a1, 3(a0)
    ld a2, 0(a0)
    li a4, 0x88770a0c0d0d2211
    xor a4, a2, a4
    or s2, s2, a4
    addi s1, s1, 1
    li a3, 183
    bne s1, a3, 4b
    CHECK(2, s2, 0)

    // over the edge of a page
    la a0, edge
    li a1, 0x1122334455667788
    sd a1, -3(a0)
    ld a2, -3(a0)
    CHECK(3, a2, 0x1122334455667788)
    lbu a2, -1(a0)
    CHECK(4, a2, 0x66)
    lbu a2, 0(a0)
    CHECK(5, a2, 0x55)
    END

    .data
    .balign 64
area:
    .skip 192
    .balign 4096
    .skip 4096
edge:
    .dword 0
