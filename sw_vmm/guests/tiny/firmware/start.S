# tiny's firmware: the first instruction, and the way into M-mode and back.

    .section .firmware.start, "ax"
    .globl firmware_entry
firmware_entry:
    la      sp, firmware_stack_top
    mv      s0, a0                  # hart id
    mv      s1, a1                  # device tree
    la      t0, machine_trap
    csrw    mtvec, t0
    csrw    mscratch, sp
    call    firmware_main
    mv      a0, s0
    mv      a1, s1
    mret                            # to the kernel, in S-mode

# Only ecall from S-mode and the machine timer come here, and neither may change a register but
# a0 and a1; the C code below clobbers the caller-saved ones.
    .section .firmware, "ax"
    .balign 4
machine_trap:
    csrrw   sp, mscratch, sp
    addi    sp, sp, -128
    sd      ra, 0(sp)
    sd      t0, 8(sp)
    sd      t1, 16(sp)
    sd      t2, 24(sp)
    sd      t3, 32(sp)
    sd      t4, 40(sp)
    sd      t5, 48(sp)
    sd      t6, 56(sp)
    sd      a2, 64(sp)
    sd      a3, 72(sp)
    sd      a4, 80(sp)
    sd      a5, 88(sp)
    sd      a6, 96(sp)
    sd      a7, 104(sp)
    sd      a0, 112(sp)
    sd      a1, 120(sp)
    addi    a0, sp, 112             # where a0 and a1 are
    mv      a1, a6
    mv      a2, a7
    call    firmware_trap
    ld      ra, 0(sp)
    ld      t0, 8(sp)
    ld      t1, 16(sp)
    ld      t2, 24(sp)
    ld      t3, 32(sp)
    ld      t4, 40(sp)
    ld      t5, 48(sp)
    ld      t6, 56(sp)
    ld      a2, 64(sp)
    ld      a3, 72(sp)
    ld      a4, 80(sp)
    ld      a5, 88(sp)
    ld      a6, 96(sp)
    ld      a7, 104(sp)
    ld      a0, 112(sp)
    ld      a1, 120(sp)
    addi    sp, sp, 128
    csrrw   sp, mscratch, sp
    mret

    .section .firmware.stack, "aw", @nobits
    .balign 16
    .skip   1024
firmware_stack_top:
