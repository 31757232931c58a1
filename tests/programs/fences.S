// sfence.vma in all its forms: what an entry said before is gone after each that names it.
#include "test.h"

#define LEAF 0xcf               // V R W X A D
#define GLOBAL 0x20
#define SV39 (8 << 60)
#define TEST 0x40000000

// satp := the tables under this ASID.
#define SPACE(asid) \
    li t0, (asid) << 44; \
    or t0, t0, s2; \
    csrw satp, t0

// Page `index` := the frame at `label`; no fence.
#define MAP(index, label, bits) \
    la t5, label; srli t5, t5, 2; ori t5, t5, bits; \
    la t6, leaf; sd t5, 8 * (index)(t6)

// a0 := what stands in the page.
#define LOAD(index) \
    li a0, TEST + ((index) << 12); \
    ld a0, 0(a0)

// a0 := what its code says.
#define CALL(index) \
    li a1, TEST + ((index) << 12) + 8; \
    jalr ra, a1

BEGIN
    .option norvc
    // root: 0 and 2 are 1 GiB leaves, devices and RAM onto themselves; 1 -> middle -> leaf
    la s3, root
    li t0, LEAF
    sd t0, 0(s3)
    la t0, middle
    srli t0, t0, 2
    ori t0, t0, 1
    sd t0, 8(s3)
    li t0, (0x80000000 >> 2) | LEAF | GLOBAL
    sd t0, 16(s3)
    la t0, leaf
    srli t0, t0, 2
    ori t0, t0, 1
    la t1, middle
    sd t0, 0(t1)
    la s2, root
    srli s2, s2, 12
    li t0, SV39
    or s2, s2, t0
    li s0, 7                    // an ASID, and
    li s1, TEST + 0x3000        // the address of page 3
    SPACE(7)
    sfence.vma
    TO_SUPERVISOR

    // everything: two pages of this ASID, one of another, a global one, loads and fetches
    MAP(0, one, LEAF)
    MAP(1, one, LEAF)
    MAP(2, one, LEAF | GLOBAL)
    sfence.vma
    LOAD(0)
    CHECK(1, a0, 0x11)
    LOAD(1)
    CHECK(2, a0, 0x11)
    LOAD(2)
    CHECK(3, a0, 0x11)
    CALL(1)
    CHECK(4, a0, 1)
    SPACE(9)
    LOAD(1)
    CHECK(5, a0, 0x11)
    CALL(0)
    CHECK(6, a0, 1)
    MAP(0, two, LEAF)
    MAP(1, two, LEAF)
    MAP(2, two, LEAF | GLOBAL)
    sfence.vma
    LOAD(1)
    CHECK(7, a0, 0x22)
    CALL(0)
    CHECK(8, a0, 2)
    SPACE(7)
    LOAD(0)
    CHECK(9, a0, 0x22)
    LOAD(1)
    CHECK(10, a0, 0x22)
    LOAD(2)
    CHECK(11, a0, 0x22)
    CALL(1)
    CHECK(12, a0, 2)

    // one page of all ASIDs, global or not
    MAP(3, one, LEAF)
    sfence.vma
    LOAD(3)
    CHECK(20, a0, 0x11)
    CALL(3)
    CHECK(21, a0, 1)
    SPACE(9)
    LOAD(3)
    CHECK(22, a0, 0x11)
    MAP(3, two, LEAF)
    sfence.vma s1, zero
    LOAD(3)
    CHECK(23, a0, 0x22)
    SPACE(7)
    LOAD(3)
    CHECK(24, a0, 0x22)
    CALL(3)
    CHECK(25, a0, 2)
    MAP(3, one, LEAF | GLOBAL)
    sfence.vma s1, zero
    LOAD(3)
    CHECK(26, a0, 0x11)
    MAP(3, two, LEAF | GLOBAL)
    sfence.vma s1, zero
    LOAD(3)
    CHECK(27, a0, 0x22)

    // all pages of one ASID, while another is in use
    MAP(3, one, LEAF)
    MAP(4, one, LEAF)
    sfence.vma
    LOAD(3)
    CHECK(30, a0, 0x11)
    LOAD(4)
    CHECK(31, a0, 0x11)
    CALL(4)
    CHECK(32, a0, 1)
    SPACE(9)
    MAP(3, two, LEAF)
    MAP(4, two, LEAF)
    sfence.vma zero, s0
    SPACE(7)
    LOAD(3)
    CHECK(33, a0, 0x22)
    LOAD(4)
    CHECK(34, a0, 0x22)
    CALL(4)
    CHECK(35, a0, 2)

    // one page of one ASID, while another is in use
    MAP(3, one, LEAF)
    sfence.vma
    LOAD(3)
    CHECK(40, a0, 0x11)
    CALL(3)
    CHECK(41, a0, 1)
    SPACE(9)
    MAP(3, two, LEAF)
    sfence.vma s1, s0
    SPACE(7)
    LOAD(3)
    CHECK(42, a0, 0x22)
    CALL(3)
    CHECK(43, a0, 2)

    TO_MACHINE
    csrw satp, zero
    END

    .data
    .balign 4096
root:
    .skip 4096
middle:
    .skip 4096
leaf:
    .skip 4096
one:
    .dword 0x11
    li a0, 1
    ret
    .balign 4096
two:
    .dword 0x22
    li a0, 2
    ret
    .balign 4096
