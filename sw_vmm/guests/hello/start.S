# hello: start, trap entry, and the way down to S-mode and U-mode.

    .section .text.start, "ax"
    .globl _start
_start:
    la      sp, stack_top
    la      t0, machine_trap
    csrw    mtvec, t0
    csrw    mie, zero
    call    main
    # main does not return
1:  j       1b

# Saves what C may clobber, calls machine_trap_handler(mcause, mepc, mtval), goes on where it says.
# S-mode and U-mode leave sp alone, so the stack is always the machine's.
    .text
    .balign 4
machine_trap:
    addi    sp, sp, -144
    sd      ra, 0(sp)
    sd      t0, 8(sp)
    sd      t1, 16(sp)
    sd      t2, 24(sp)
    sd      t3, 32(sp)
    sd      t4, 40(sp)
    sd      t5, 48(sp)
    sd      t6, 56(sp)
    sd      a0, 64(sp)
    sd      a1, 72(sp)
    sd      a2, 80(sp)
    sd      a3, 88(sp)
    sd      a4, 96(sp)
    sd      a5, 104(sp)
    sd      a6, 112(sp)
    sd      a7, 120(sp)
    csrr    a0, mcause
    csrr    a1, mepc
    csrr    a2, mtval
    call    machine_trap_handler
    csrw    mepc, a0
    ld      ra, 0(sp)
    ld      t0, 8(sp)
    ld      t1, 16(sp)
    ld      t2, 24(sp)
    ld      t3, 32(sp)
    ld      t4, 40(sp)
    ld      t5, 48(sp)
    ld      t6, 56(sp)
    ld      a0, 64(sp)
    ld      a1, 72(sp)
    ld      a2, 80(sp)
    ld      a3, 88(sp)
    ld      a4, 96(sp)
    ld      a5, 104(sp)
    ld      a6, 112(sp)
    ld      a7, 120(sp)
    addi    sp, sp, 144
    mret

# uint64_t descend(void): visits S-mode and U-mode and comes back with what U-mode computed.
# The way back is an ecall from S-mode that the handler answers by mpp = M.
    .globl descend
descend:
    addi    sp, sp, -112
    sd      ra, 0(sp)
    sd      s0, 8(sp)
    sd      s1, 16(sp)
    li      t0, -1                  # a hart with PMP lets nobody else in by default
    csrw    pmpaddr0, t0
    li      t0, 0x1f                # NAPOT, all of it, rwx
    csrw    pmpcfg0, t0
    li      t0, 1 << 8              # ecall from U goes to S
    csrw    medeleg, t0
    la      t0, supervisor
    csrw    mepc, t0
    li      t0, 3 << 11
    csrc    mstatus, t0
    li      t0, 1 << 11
    csrs    mstatus, t0             # mpp = S
    mret
    .globl back_in_machine
back_in_machine:
    csrw    medeleg, zero
    mv      a0, s1
    ld      ra, 0(sp)
    ld      s0, 8(sp)
    ld      s1, 16(sp)
    addi    sp, sp, 112
    ret

    .balign 4
supervisor:
    la      t0, supervisor_trap
    csrw    stvec, t0
    la      t0, user
    csrw    sepc, t0
    li      t0, 1 << 8
    csrc    sstatus, t0             # spp = U
    li      s0, 0
    li      s1, 0
    sret

user:
    addi    s1, s1, 5
    ecall                           # comes back behind itself, twice
    addi    s1, s1, 7
    ecall
    slli    s1, s1, 4
    li      s0, -1
    ecall                           # the third one ends it
1:  j       1b

    .balign 4
supervisor_trap:
    bltz    s0, 1f
    addi    s0, s0, 1
    csrr    t0, scause
    add     s1, s1, t0              # 8: ecall from U
    csrr    t0, sepc
    addi    t0, t0, 4
    csrw    sepc, t0
    sret
1:  ecall                           # from S: the machine's handler goes to back_in_machine
