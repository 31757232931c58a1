// Interrupts: software, timer, external; enables, delegation, priority, vectored mode, Sstc.
#include "test.h"

#define MSIP CLINT_BASE
#define MTIMECMP (CLINT_BASE + 0x4000)
#define MTIME (CLINT_BASE + 0xbff8)
#define UART_IER (UART_BASE + 1)
#define UART_IIR (UART_BASE + 2)
#define PLIC_PRIORITY(source) (PLIC_BASE + 4 * (source))
#define PLIC_PENDING (PLIC_BASE + 0x1000)
#define PLIC_ENABLE(context) (PLIC_BASE + 0x2000 + 0x80 * (context))
#define PLIC_THRESHOLD(context) (PLIC_BASE + 0x200000 + 0x1000 * (context))
#define PLIC_CLAIM(context) (PLIC_BASE + 0x200004 + 0x1000 * (context))

#define STORE(size, address, value) li t5, address; li t6, value; s##size t6, 0(t5)
#define LOAD(size, register, address) li t5, address; l##size register, 0(t5)

BEGIN
    .option norvc
    la t0, on_interrupt
    csrw mtvec, t0
    STORE(d, MTIMECMP, -1)

    // pending but not enabled: seen in mip, not taken
    STORE(w, MSIP, 1)
1:  csrr a0, mip                // the line may take some cycles
    andi a0, a0, 8
    beqz a0, 1b
    li s0, 0
    csrsi mstatus, 8
    nop
    CHECK(1, s0, 0)
    // enabled: taken at once, with the pc of what comes next
    li a0, 8
here: csrs mie, a0
next: nop
    CHECK(2, s0, INTERRUPT + 3)
    CHECK_ADDRESS(3, s1, next)
    csrw mie, zero
    csrr a0, mip
    andi a0, a0, 8
    CHECK(4, a0, 0)             // the handler has cleared it

    // the timer
    LOAD(d, a0, MTIME)
    addi a0, a0, 20
    li t5, MTIMECMP
    sd a0, 0(t5)
    li s0, 0
    li a1, 0x80
    csrs mie, a1
2:  beqz s0, 2b
    CHECK(5, s0, INTERRUPT + 7)
    LOAD(d, a1, MTIME)
    sltu a1, a1, a0
    CHECK(6, a1, 0)             // not before its time
    csrw mie, zero

    // vectored: base + 4 * cause
    la t0, vectors + 1
    csrw mtvec, t0
    csrr a0, mtvec
    andi a0, a0, 3
    CHECK(7, a0, 1)
    li s0, 0
    STORE(w, MSIP, 1)
    li a0, 8
    csrs mie, a0
3:  beqz s0, 3b
    CHECK(8, s0, 103)
    csrw mie, zero
    la t0, on_interrupt
    csrw mtvec, t0

    // both pending: software before timer
    STORE(d, MTIMECMP, 0)
    STORE(w, MSIP, 1)
4:  csrr a0, mip
    andi a0, a0, 0x88
    addi a0, a0, -0x88
    bnez a0, 4b
    li s0, 0
    li s2, 0
    li a0, 0x88
    csrs mie, a0
    nop
5:  beqz s2, 5b
    CHECK(9, s3, INTERRUPT + 3) // the first
    CHECK(10, s2, INTERRUPT + 7)
    csrw mie, zero

    // external: the UART's transmitter, by the PLIC's M context
    STORE(w, PLIC_PRIORITY(UART_INTERRUPT), 3)
    STORE(w, PLIC_THRESHOLD(0), 3)
    STORE(w, PLIC_ENABLE(0), 1 << UART_INTERRUPT)
    STORE(b, UART_IER, 2)
    li a1, 200
6:  addi a1, a1, -1
    bnez a1, 6b
    csrr a0, mip
    srli a0, a0, 11
    andi a0, a0, 1
    CHECK(11, a0, 0)            // its priority is not above the threshold
    LOAD(w, a0, PLIC_PENDING)
    CHECK(12, a0, 1 << UART_INTERRUPT)
    STORE(w, PLIC_THRESHOLD(0), 2)
    li s0, 0
    li a0, 0x800
    csrs mie, a0
7:  beqz s0, 7b
    CHECK(13, s0, INTERRUPT + 11)
    CHECK(14, s4, UART_INTERRUPT)
    csrw mie, zero
    LOAD(w, a0, PLIC_CLAIM(0))
    CHECK(15, a0, 0)            // nothing more to claim
    STORE(w, PLIC_ENABLE(0), 0)

    // delegated: S takes its software interrupt, M does not see it
    csrci mstatus, 8
    csrr a0, mideleg
    li a0, 0x222
    csrw mideleg, a0
    la t0, on_supervisor
    csrw stvec, t0
    li a0, 2
    csrs mie, a0
    csrs mip, a0
    csrsi mstatus, 8
    li s0, 0
    nop
    CHECK(20, s0, 0)
    csrci mstatus, 8
    TO_SUPERVISOR_QUIETLY
    CHECK(21, s0, 0)            // sie is clear
    csrsi sstatus, 2
    nop
    CHECK(22, s0, INTERRUPT + 1)
    csrr a0, sip
    CHECK(23, a0, 0)

    // Sstc: stimecmp drives the S timer
    TO_MACHINE_PLAINLY
    li a0, 1 << 63
    csrs 0x30a, a0              // menvcfg.stce
    li a0, 2
    csrw mcounteren, a0
    li a0, 0x20
    csrs mie, a0
    csrci mstatus, 2
    TO_SUPERVISOR_QUIETLY
    rdtime a0
    addi a0, a0, 20
    csrw 0x14d, a0              // stimecmp
    li s0, 0
    csrsi sstatus, 2
8:  beqz s0, 8b
    CHECK(24, s0, INTERRUPT + 5)
    rdtime a1
    sltu a1, a1, a0
    CHECK(25, a1, 0)
    TO_MACHINE_PLAINLY
    li a0, 1 << 63
    csrc 0x30a, a0

    // external for S, by the PLIC's S context
    STORE(w, PLIC_ENABLE(1), 1 << UART_INTERRUPT)
    STORE(w, PLIC_THRESHOLD(1), 0)
    li a0, 0x200
    csrs mie, a0
    csrci mstatus, 2
    STORE(b, UART_IER, 2)
    TO_SUPERVISOR_QUIETLY
    li s0, 0
    csrsi sstatus, 2
9:  beqz s0, 9b
    CHECK(26, s0, INTERRUPT + 9)
    CHECK(27, s4, UART_INTERRUPT)
    TO_MACHINE_PLAINLY
    csrw mie, zero
    END

    .balign 4
on_interrupt:
    csrr s0, mcause
    bgez s0, plain_trap
    csrr s1, mepc
    bnez s2, 1f
    mv s3, s2
1:  mv s3, s5
    mv s5, s0
    mv s2, s0
    andi t6, s0, 15
    li t5, 3
    beq t6, t5, software
    li t5, 7
    beq t6, t5, timer
    LOAD(w, s4, PLIC_CLAIM(0))
    STORE(b, UART_IER, 0)
    li t5, PLIC_CLAIM(0)
    sw s4, 0(t5)
    j leave
software:
    li s2, 0
    STORE(w, MSIP, 0)
    j leave
timer:
    STORE(d, MTIMECMP, -1)
leave:
    mret
plain_trap:
    li t6, 9                    // only an ecall from S is expected
    bne s0, t6, unexpected
    csrr t6, mepc
    addi t6, t6, 4
    csrw mepc, t6
    li t6, MSTATUS_MPP
    csrs mstatus, t6
    mret

    .balign 4
on_supervisor:
    csrr s0, scause
    andi t6, s0, 15
    li t5, 5
    beq t6, t5, 5f
    li t5, 9
    beq t6, t5, 9f
    csrci sip, 2
    sret
5:  li t6, -1
    csrw 0x14d, t6
    sret
9:  LOAD(w, s4, PLIC_CLAIM(1))
    STORE(b, UART_IER, 0)
    li t5, PLIC_CLAIM(1)
    sw s4, 0(t5)
    sret

    .balign 64
vectors:
    j unexpected
    j unexpected
    j unexpected
    j 3f
    .rept 12
    j unexpected
    .endr
3:  li s0, 103
    STORE(w, MSIP, 0)
    mret
