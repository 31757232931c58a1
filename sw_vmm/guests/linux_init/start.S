// Entry point of init, and what C cannot say: system calls, a thread's first steps.

// The kernel's headers then leave their C types out.
#define __ASSEMBLY__
#include <asm/unistd.h>
#include <linux/sched.h>

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | \
                      CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

    .globl _start
_start:
    .option push
    .option norelax
    lla     gp, __global_pointer$
    .option pop
    ld      a0, 0(sp)           // argc, and argv behind it
    addi    a1, sp, 8
    andi    sp, sp, -16
    call    init
    ebreak

    .globl system_call
system_call:
    mv      a7, a0
    mv      a0, a1
    mv      a1, a2
    mv      a2, a3
    mv      a3, a4
    mv      a4, a5
    mv      a5, a6
    ecall
    ret

    // a0 = function, a1 = top of its stack, a2 = word that holds its id while it lives
    .globl start_thread
start_thread:
    mv      t0, a0
    mv      a4, a2
    li      a3, 0
    li      a0, THREAD_FLAGS
    li      a7, __NR_clone
    ecall
    beqz    a0, 1f
    ret
1:  jalr    t0
    li      a0, 0
    li      a7, __NR_exit
    ecall

    // A function to be copied and changed: the first instruction says what it returns.
    .balign 4
    .globl return_number, return_number_end
return_number:
    .option push
    .option norvc
    li      a0, 0
    ret
    .option pop
return_number_end:
