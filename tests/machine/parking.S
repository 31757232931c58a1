// One instruction that traps, or does not, at each label; see test_parking.py.
    .section .text.start
    .globl _start
_start:
spin:
    .option push
    .option norvc
    addi x1, x1, 1
    j spin

ebreak_wide:
    .4byte 0x00100073
ecall:
    ecall
illegal_wide:
    .4byte 0xffffffff
illegal_csr:
    csrrw a0, 0x800, a1
load_wide:
    ld a2, 0(a0)
store_wide:
    sd a1, 0(a0)
amo:
    amoadd.w a2, a1, (a0)
load_reserved:
    lr.d a2, (a0)
store_conditional:
    sc.d a2, a1, (a0)
fence:
    sfence.vma a0, a1
supervisor_return:
    sret
machine_return:
    mret
read_time:
    csrr a2, time
    .option pop

    .balign 4
    nop
    .option norvc
load_straddling:        // reached at a word boundary plus two below
    .option rvc
ebreak_narrow:
    c.ebreak
illegal_narrow:
    .2byte 0
illegal_narrow_reserved:
    .2byte 0x9c41
load_narrow:
    c.ld a2, 0(a0)
store_narrow:
    c.sd a1, 0(a0)
load_stack_narrow:
    c.ldsp a2, 0(sp)
store_stack_narrow:
    c.sdsp a1, 0(sp)

// x12 times: counts, then calls.
calls:
    c.addi x1, 1
    ecall
    addi x12, x12, -1
    bnez x12, calls
    c.ebreak

// Straight code, for single steps; two of its instructions trap to "vector".
steps:
    li a0, 3
    c.mv a1, a0
    ecall
    add a2, a0, a1
    .2byte 0
    mul a3, a2, a2
1:  addi a0, a0, -1
    bnez a0, 1b
    la a4, buffer
    sd a3, 0(a4)
    ld a5, 0(a4)
    amoadd.d a6, a5, (a4)
    csrw mscratch, a6
    csrr a7, mscratch
    fence
    fence.i
    c.ebreak

    .balign 4
vector:
    csrr t0, mepc
    addi t0, t0, 2
    csrr t1, mcause
    addi t1, t1, -11
    bnez t1, 1f
    addi t0, t0, 2
1:  csrw mepc, t0
    mret

waits:
    wfi
    c.addi x1, 1
    c.ebreak

    .data
    .balign 64
buffer:
    .zero 64
