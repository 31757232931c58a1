// Compressed instructions, and 32-bit instructions at addresses that are no multiple of 4.
#include "test.h"

BEGIN
    .option rvc
    .balign 4
    c.li a0, -32
    CHECK(1, a0, -32)
    c.lui a0, 0xfffe0
    CHECK(2, a0, 0xfffffffffffe0000)
    c.li a0, 7
    c.addi a0, -9
    CHECK(3, a0, -2)
    li a0, 0x7fffffff
    c.addiw a0, 1
    CHECK(4, a0, 0xffffffff80000000)
    c.li a0, 3
    c.slli a0, 62
    CHECK(5, a0, 0xc000000000000000)
    c.srai a0, 62
    CHECK(6, a0, -1)
    c.srli a0, 60
    CHECK(7, a0, 15)
    c.andi a0, 10
    CHECK(8, a0, 10)
    c.li a1, 6
    c.sub a0, a1
    CHECK(9, a0, 4)
    c.xor a0, a1
    CHECK(10, a0, 2)
    c.or a0, a1
    CHECK(11, a0, 6)
    c.and a0, a1
    CHECK(12, a0, 6)
    c.add a0, a1
    CHECK(13, a0, 12)
    c.mv a2, a0
    CHECK(14, a2, 12)
    li a1, 0x7fffffff
    c.addw a1, a0
    CHECK(15, a1, 0xffffffff8000000b)
    c.li a0, 1
    li a1, 0x100000000
    c.subw a1, a0
    CHECK(16, a1, -1)

    la s0, data
    c.lw a0, 4(s0)
    CHECK(17, a0, 0xffffffff89abcdef)
    c.ld a0, 8(s0)
    CHECK(18, a0, 0x0123456789abcdef)
    c.sw a0, 16(s0)
    c.sd a0, 24(s0)
    ld a1, 16(s0)
    CHECK(19, a1, 0x89abcdef)
    ld a1, 24(s0)
    CHECK(20, a1, 0x0123456789abcdef)
    la sp, data
    c.lwsp a0, 4(sp)
    CHECK(21, a0, 0xffffffff89abcdef)
    c.ldsp a0, 8(sp)
    CHECK(22, a0, 0x0123456789abcdef)
    c.swsp a0, 32(sp)
    c.sdsp a0, 40(sp)
    ld a1, 32(s0)
    CHECK(23, a1, 0x89abcdef)
    c.addi4spn a0, sp, 40
    ld a1, 0(a0)
    CHECK(24, a1, 0x0123456789abcdef)
    c.addi16sp sp, -64
    addi a0, sp, 64
    CHECK_ADDRESS(25, a0, data)

    c.li a0, 0
    c.beqz a0, 1f
    c.j 2f
1:  c.addi a0, 1
2:  c.bnez a0, 3f
    c.j 4f
3:  c.addi a0, 1
4:  CHECK(26, a0, 2)
    la a1, 5f
    c.jalr a1
6:  j fail
5:  CHECK_ADDRESS(27, ra, 6b)
    la a1, 7f
    c.jr a1
    j fail
7:
    // a 32-bit instruction over the edge of a cache line, and over the edge of a page
    li a0, 0
    j line
    .balign 64
    .skip 56
line:
    c.nop
    c.nop
    c.nop
    addi a0, a0, 1000           // 2 bytes before the next line
    CHECK(28, a0, 1000)
    j page
    .balign 4096
    .skip 4090
page:
    c.nop
    c.nop
    addi a0, a0, 234
    CHECK(29, a0, 1234)

    // all zeros is illegal, and mtval may hold it
    li gp, 30
    la s8, 8f
    .balign 4
    .2byte 0
    j fail
    .balign 4
8:  CHECK(30, s9, 2)
    CHECK(31, s11, 0)
    la s8, 9f
    .balign 4
here:
    c.ebreak
    j fail
    .balign 4
9:  CHECK(32, s9, 3)
    CHECK_ADDRESS(33, s10, here)
    END

    .data
    .balign 64
data:
    .word 0, 0x89abcdef
    .dword 0x0123456789abcdef, 0, 0, 0, 0
