// Self-modifying code: what was stored is fetched after fence.i.
#include "test.h"

BEGIN
    .option norvc
    la s0, patch
    la s1, instructions
    li s2, 0                    // number of the instruction
    li s3, 0                    // sum of what the patched code returned
1:  slli a0, s2, 2
    add a0, a0, s1
    lw a1, 0(a0)
    sw a1, 0(s0)
    fence.i
    jalr s0
    slli s3, s3, 4
    add s3, s3, a0
    addi s2, s2, 1
    li a2, 6
    bne s2, a2, 1b
    CHECK(1, s3, 0x123456)

    // code that patches what comes right behind it
    la a0, here
    lw a1, 8(s1)
    sw a1, 0(a0)
    fence.i
here:
    li a0, 9
    CHECK(2, a0, 3)

    // code copied elsewhere, and the copy over a line's edge
    la a1, elsewhere
    lw a2, 16(s1)
    sw a2, 0(a1)
    la a3, return
    lw a2, 0(a3)
    sw a2, 4(a1)
    fence.i
    jalr a1
    CHECK(3, a0, 5)
    END

    .balign 64
patch:
    li a0, 0
return:
    ret
instructions:
    li a0, 1
    li a0, 2
    li a0, 3
    li a0, 4
    li a0, 5
    li a0, 6

    .balign 64
    .skip 60
elsewhere:
    nop
    nop
