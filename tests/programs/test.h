// Directed programs: each ends by tohost, 1 when all its checks hold, (n << 1) | 1 when check n
// does not. A trap nobody expected at check n is reported as 128 + n.
//
// gp holds the number of the current check, tp that of the check that shall expect something else
// (read from the word `wrong`, which the runner patches): it must fail. s7 to s11, t5 and t6 belong
// to the macros and to the trap handler.

#define MSTATUS_MPP (3 << 11)
#define MSTATUS_MPRV (1 << 17)
#define MSTATUS_SUM (1 << 18)
#define MSTATUS_MXR (1 << 19)
#define MSTATUS_TVM (1 << 20)
#define MSTATUS_TW (1 << 21)
#define MSTATUS_TSR (1 << 22)
#define INTERRUPT (1 << 63)

#define EXPECT(register) \
    bne gp, tp, 65f; \
    xori t6, t6, 1; \
65: bne register, t6, fail

// The register holds the constant.
#define CHECK(number, register, expected) \
    li gp, number; \
    li t6, expected; \
    EXPECT(register)

// The register holds the address of the label.
#define CHECK_ADDRESS(number, register, label) \
    li gp, number; \
    la t6, label; \
    EXPECT(register)

// The instructions trap; goes on behind them with mcause, mepc and mtval in s9, s10 and s11.
#define TRAPS(...) \
    la s8, 66f; \
    __VA_ARGS__; \
    .balign 4; \
66: bnez s8, fail

// They do, with this cause.
#define CHECK_TRAPS(number, cause, ...) \
    li gp, number; \
    TRAPS(__VA_ARGS__); \
    CHECK(number, s9, cause)

#define TO_MACHINE \
    li s7, 1; \
    la s8, 67f; \
    ecall; \
    .balign 4; \
67:

// The same where ecall is delegated.
#define TO_MACHINE_BY_ILLEGAL \
    li s7, 1; \
    la s8, 67f; \
    .4byte 0xffffffff; \
    .balign 4; \
67:

#define TO_LEVEL(mpp) \
    la t6, 68f; \
    csrw mepc, t6; \
    li t6, MSTATUS_MPP; \
    csrc mstatus, t6; \
    li t6, (mpp) << 11; \
    csrs mstatus, t6; \
    mret; \
    .balign 4; \
68:
#define TO_SUPERVISOR TO_LEVEL(1)
#define TO_USER TO_LEVEL(0)

// QEMU's virt machine, the second judge of these programs, ends by the test finisher. -DQEMU leaves
// out what QEMU 7.2 is known to do differently.
#ifdef QEMU
#define FINISH \
    srli gp, gp, 1; \
    li t6, 0x5555; \
    beqz gp, 2f; \
    slli gp, gp, 16; \
    li t6, 0x3333; \
    or t6, t6, gp; \
2:  li t5, FINISHER_BASE; \
    sw t6, 0(t5);
#else
#define FINISH
#endif

// For programs with a trap handler of their own: no trap is expected, ecall from S goes up.
#define TO_SUPERVISOR_QUIETLY TO_SUPERVISOR
#define TO_MACHINE_PLAINLY ecall

#define BEGIN \
    .section .text.start, "ax"; \
    .globl _start; \
_start: la sp, stack_top; \
    la t6, trap; \
    csrw mtvec, t6; \
    csrw mie, zero; \
    li t6, -1;              /* a hart with PMP lets S and U in nowhere by default */ \
    csrw pmpaddr0, t6; \
    li t6, 0x1f; \
    csrw pmpcfg0, t6; \
    li s7, 0; \
    li s8, 0; \
    li gp, 0; \
    la tp, wrong; \
    lw tp, 0(tp); \
    j begin; \
    .balign 4; \
trap: \
    beqz s8, unexpected; \
    csrr s9, mcause; \
    csrr s10, mepc; \
    csrr s11, mtval; \
    csrw mepc, s8; \
    li s8, 0; \
    beqz s7, 1f; \
    li s7, 0; \
    li t6, MSTATUS_MPP; \
    csrs mstatus, t6; \
1:  mret; \
unexpected: \
    addi gp, gp, 128; \
fail: \
    /* from S and U, with paging on, tohost is within reach: RAM is mapped onto itself */ \
    slli gp, gp, 1; \
    ori gp, gp, 1; \
    j 1f; \
pass: \
    li gp, 1; \
1:  la t6, tohost; \
    sd gp, 0(t6); \
    FINISH \
    j 1b; \
    .section .tohost, "aw", @progbits; \
    .balign 64; \
    .globl tohost; \
tohost: .dword 0; \
    .globl wrong; \
wrong: .dword 0; \
    .text; \
    .balign 4; \
begin:

#define END \
    j pass
