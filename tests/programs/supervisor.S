// Sv39: leaves of every size, permissions, A and D, ASIDs, faults and what they leave.
#include "test.h"

#define V 1
#define R 2
#define W 4
#define X 8
#define U 16
#define G 32
#define A 64
#define D 128
#define SV39 (8 << 60)
#define TEST 0x40000000         // the page under test: entry 0 of all three tables
#define PTE(index) (8 * (index))(s3)

// Entry 0 of the last table := the frame of `page` with these bits.
#define MAP(bits) \
    la t5, page; srli t5, t5, 2; ori t5, t5, (bits) & 0x7ff; \
    .if (bits) > 0x7ff; .error "bits"; .endif; \
    la t6, leaf; sd t5, 0(t6); sfence.vma
#define FAULT(number, cause, ...) \
    CHECK_TRAPS(number, cause, __VA_ARGS__)

BEGIN
    .option norvc
    // root: 1 -> middle -> leaf -> page; 0 and 2: 1 GiB leaves, devices and RAM onto themselves
    la s3, root
    li t0, V | R | W | A | D
    sd t0, 0(s3)
    la t0, middle
    srli t0, t0, 2
    ori t0, t0, V
    sd t0, 8(s3)
    li t0, (0x80000000 >> 2) | V | R | W | X | A | D
    sd t0, 16(s3)
    la s4, middle
    la t0, leaf
    srli t0, t0, 2
    ori t0, t0, V
    sd t0, 0(s4)
    // 2 MiB leaves: entry 1 aligned, entry 2 not
    li t0, (0x80000000 >> 2) | V | R | A | D
    sd t0, 8(s4)
    li t0, (0x80001000 >> 2) | V | R | A | D
    sd t0, 16(s4)
    la s5, page
    li s6, TEST
    li t0, 0xabcdef
    sd t0, 0(s5)

    // modes that do not exist leave satp as it was
    csrw satp, zero
    li t0, 1 << 60 | 5
    csrw satp, t0
    csrr a0, satp
    CHECK(1, a0, 0)

    la t0, root
    srli t0, t0, 12
    li t1, SV39
    or s2, t0, t1
    csrw satp, s2
    sfence.vma
    csrr a0, satp
    sub a0, a0, s2
    CHECK(2, a0, 0)
    ld a0, 0(s5)                // M-mode does not translate
    CHECK(3, a0, 0xabcdef)

    TO_SUPERVISOR
    // the three sizes
    MAP(V | R | W | A | D)
    ld a0, 0(s6)
    CHECK(10, a0, 0xabcdef)
    li a0, 0x1234
    sd a0, 8(s6)
    ld a1, 8(s5)
    CHECK(11, a1, 0x1234)
    li a0, TEST + 0x200000
    lwu a1, 0(a0)
    la a2, _start
    lwu a2, 0(a2)
    sub a1, a1, a2
    CHECK(12, a1, 0)
    li a0, TEST + 0x400000
    FAULT(13, 13, ld a1, 16(a0))        // misaligned large page
    CHECK(14, s11, TEST + 0x400010)

    // not there, not allowed
    li a0, TEST + 0x1000
    FAULT(15, 13, ld a1, 8(a0))
    CHECK(16, s11, TEST + 0x1008)
    FAULT(17, 15, sb a1, 7(a0))
    CHECK(18, s11, TEST + 0x1007)
    FAULT(19, 12, jr a0)
    CHECK(20, s10, TEST + 0x1000)
    CHECK(21, s11, TEST + 0x1000)
#ifndef QEMU
    FAULT(22, 15, amoadd.d a1, a1, (a0))
#endif
    FAULT(23, 13, lr.d a1, (a0))
    MAP(V | R | A | D)
    ld a0, 0(s6)
    CHECK(25, a0, 0xabcdef)
    FAULT(26, 15, sd a0, 0(s6))
    FAULT(27, 12, jr s6)
    MAP(V | W | R | X | A)
    ld a0, 0(s6)
    CHECK(28, a0, 0xabcdef)
#ifndef QEMU
    FAULT(29, 15, sd a0, 0(s6))         // D = 0
    MAP(V | R | W | X | D)
    FAULT(30, 13, ld a0, 0(s6))         // A = 0
    FAULT(31, 12, jr s6)
    la t0, leaf
    ld t0, 0(t0)
    andi t0, t0, A | D
    CHECK(32, t0, D)                    // nobody has set A
#endif
    MAP(V | W | A | D)                  // reserved
    FAULT(33, 13, ld a0, 0(s6))
    MAP(V | X | W | A | D)              // reserved
    FAULT(34, 13, ld a0, 0(s6))
    MAP(V | A | D)                      // a pointer in the last table
    FAULT(35, 13, ld a0, 0(s6))
    MAP(R | W | X | A | D)              // V = 0
    FAULT(36, 13, ld a0, 0(s6))

    // execute only, and MXR
    MAP(V | X | A | D)
    FAULT(40, 13, ld a0, 0(s6))
    li t0, MSTATUS_MXR
    csrs sstatus, t0
    ld a0, 0(s6)
    CHECK(41, a0, 0xabcdef)
    csrc sstatus, t0
    FAULT(42, 13, ld a0, 0(s6))

    // user pages: S reads them with SUM only, and never fetches from them
    MAP(V | R | W | X | U | A | D)
    FAULT(43, 13, ld a0, 0(s6))
    FAULT(44, 15, sd a0, 0(s6))
    li t0, MSTATUS_SUM
    csrs sstatus, t0
    ld a0, 0(s6)
    CHECK(45, a0, 0xabcdef)
#ifndef QEMU    // QEMU 7.2 keeps X from the translation of the load
    FAULT(46, 12, jr s6)
#endif
    csrc sstatus, t0

    // addresses that are no sign extension of bit 38
    li a0, 1 << 39 | TEST
    FAULT(47, 13, ld a1, 0(a0))
    CHECK(48, s11, 1 << 39 | TEST)
    FAULT(49, 12, jr a0)
    li a0, 0xffffffc000000000
    FAULT(50, 13, ld a1, 0(a0))

    // reserved bits of an entry
    MAP(V | R | W | A | D)
    la t1, leaf
    ld t0, 0(t1)
    li t2, 1 << 58
    or t0, t0, t2
    sd t0, 0(t1)
    sfence.vma
    FAULT(51, 13, ld a0, 0(s6))

    // a table nobody answers for: access fault
    li t0, (0x18000000 >> 2) | V
    la t1, middle
    sd t0, 24(t1)
    sfence.vma
    li a0, TEST + 0x600000
#ifndef QEMU
    FAULT(52, 5, ld a1, 0(a0))
    FAULT(53, 7, sd a1, 0(a0))
    FAULT(54, 1, jr a0)
    CHECK(55, s11, TEST + 0x600000)
#endif

    // what was mapped anew is seen after sfence.vma of that address and ASID
    MAP(V | R | W | A | D)
    ld a0, 0(s6)
    CHECK(60, a0, 0xabcdef)
    la t5, second
    li t0, 0x77
    sd t0, 0(t5)
    srli t5, t5, 2
    ori t5, t5, V | R | W | A | D
    la t6, leaf
    sd t5, 0(t6)
    sfence.vma s6, zero
    ld a0, 0(s6)
    CHECK(61, a0, 0x77)

    // ASIDs: 16 bits, an entry of one is not seen under another
    li t0, 0xffff << 44
    or t0, t0, s2
    csrw satp, t0
    csrr a0, satp
    srli a0, a0, 44
    CHECK(62, a0, 0x8ffff)
    ld a0, 0(s6)                        // now cached under ASID 0xffff
    CHECK(63, a0, 0x77)
    la t5, page
    srli t5, t5, 2
    ori t5, t5, V | R | W | A | D
    la t6, leaf
    sd t5, 0(t6)
    li t0, 1 << 44
    or t0, t0, s2
    csrw satp, t0
    li t1, 1
    sfence.vma zero, t1
    ld a0, 0(s6)
    CHECK(64, a0, 0xabcdef)
    csrw satp, s2
    sfence.vma

    // an access over the edge of two pages, the second one missing: the value is the second page's
    li a0, TEST + 0xffc
    FAULT(70, 13, ld a1, 0(a0))
#ifndef QEMU
    CHECK(71, s11, TEST + 0x1000)
#endif

    // U-mode in its own page: code there, ecall back
    la t0, user_code
    ld t1, 0(t0)
    ld t2, 8(t0)
    sd t1, 0x100(s5)
    sd t2, 0x108(s5)
    fence.i
    MAP(V | R | W | X | U | A | D)
    TO_MACHINE
    la t6, 1f
    li t5, TEST + 0x100
    csrw mepc, t5
    li t6, MSTATUS_MPP
    csrc mstatus, t6
    la s8, 1f
    li s7, 1
    li s0, 0
    li gp, 72
    mret
    .balign 4
1:  CHECK(72, s9, 8)
    CHECK(73, s0, 42)
    CHECK(74, s10, TEST + 0x104)

    // U-mode may not use S pages
    la s8, 2f
    li s7, 1
    li gp, 75
    la t5, 3f                           // RAM onto itself is an S page
    csrw mepc, t5
    li t6, MSTATUS_MPP
    csrc mstatus, t6
    mret
    .balign 4
3:  j fail
    .balign 4
2:  CHECK(75, s9, 12)

    // MPRV: M-mode loads through S's tables
    li t0, MSTATUS_MPP
    csrc mstatus, t0
    li t0, 1 << 11
    csrs mstatus, t0
    MAP(V | R | W | A | D)
    li t0, MSTATUS_MPRV
    csrs mstatus, t0
    ld a0, 0(s6)
    csrc mstatus, t0
    CHECK(76, a0, 0xabcdef)

    // a page fault delegated to S
    li t0, 1 << 13
    csrw medeleg, t0
    la t0, supervisor_trap
    csrw stvec, t0
    TO_SUPERVISOR
    li a0, TEST + 0x2000
here:
    ld a1, 24(a0)
    CHECK(77, s0, 13)
    CHECK_ADDRESS(78, s1, here)
    csrr a0, stval
    CHECK(79, a0, TEST + 0x2018)
    TO_MACHINE
    csrw medeleg, zero
    csrw satp, zero
    END

    .balign 8
user_code:
    li s0, 42
    ecall
    nop
    nop

    .balign 4
supervisor_trap:
    csrr s0, scause
    csrr s1, sepc
    addi t6, s1, 4
    csrw sepc, t6
    sret

    .data
    .balign 4096
root:
    .skip 4096
middle:
    .skip 4096
leaf:
    .skip 4096
page:
    .skip 4096
second:
    .skip 4096
