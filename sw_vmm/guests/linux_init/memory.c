// Checks of virtual memory: paging on demand, copies, protection, and code that is written.

#include "checks.h"
#include "system.h"

#include <asm/signal.h>
#include <asm-generic/siginfo.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/wait.h>
#include <asm/sigcontext.h>
#include <asm/ucontext.h>

enum { PAGE = 4096, PAGES = 256, LARGE = 6 << 20 };

static uint8_t *map(size_t length, int protection) {
    long place = CALL(mmap, 0, length, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(place > 0);
    return (uint8_t *)place;
}

void check_demand_paging(void) {
    uint8_t *memory = map(PAGES * PAGE, PROT_READ | PROT_WRITE);
    // Backwards and with gaps, so that no page is there before it is touched.
    for (int page = PAGES - 1; page >= 0; page -= 2) {
        REQUIRE(!memory[page * PAGE + page]);
        *(volatile uint32_t *)(memory + page * PAGE) = page * 3;
    }
    // A read of a page never written finds zeros, a word across two pages both of them.
    for (int page = 0; page < PAGES - 2; page += 2) {
        uint64_t across;
        __asm__ volatile("ld %0, 0(%1)" : "=r"(across) : "r"(memory + (page + 1) * PAGE - 4) : "memory");
        REQUIRE(across >> 32 == (uint64_t)(page + 1) * 3 && !(uint32_t)across);
    }
    for (int page = 1; page < PAGES; page += 2)
        REQUIRE(*(volatile uint32_t *)(memory + page * PAGE) == (uint32_t)page * 3);
    REQUIRE(!CALL(munmap, memory, PAGES * PAGE));
    // The kernel's own accesses to memory that is gone are refused, not fatal.
    REQUIRE(CALL(getcwd, memory, PAGE) < 0);
}

void check_copy_on_write(void) {
    uint64_t *memory = (uint64_t *)map(PAGES * PAGE, PROT_READ | PROT_WRITE);
    const int words = PAGE / 8;
    for (int page = 0; page < PAGES; page++)
        memory[page * words] = page;
    long child = CALL(clone, SIGCHLD, 0);
    REQUIRE(child >= 0);
    if (!child) {
        for (int page = 0; page < PAGES; page++)
            memory[page * words] += 1000;
        for (int page = 0; page < PAGES; page++)
            REQUIRE(memory[page * words] == (uint64_t)page + 1000);
        CALL(exit_group, 0);
    }
    for (int page = PAGES - 1; page >= 0; page--)
        memory[page * words] += 5;
    int status = -1;
    REQUIRE(CALL(wait4, child, &status, 0, 0) == child && !status);
    for (int page = 0; page < PAGES; page++)
        REQUIRE(memory[page * words] == (uint64_t)page + 5);
    REQUIRE(!CALL(munmap, memory, PAGES * PAGE));
}

void check_large_memory(void) {
    // Large enough for pages of 2 MiB, which the kernel gives where it can and later splits.
    uint64_t *memory = (uint64_t *)map(LARGE, PROT_READ | PROT_WRITE);
    const size_t words = LARGE / 8, step = 509;
    for (size_t i = 0; i < words; i += step)
        memory[i] = i * i;
    REQUIRE(!CALL(mprotect, (uint8_t *)memory + LARGE / 2, PAGE, PROT_READ));
    REQUIRE(!CALL(madvise, memory, LARGE / 4 + PAGE, MADV_DONTNEED));
    for (size_t i = 0; i < words; i += step)
        REQUIRE(memory[i] == (i * 8 < LARGE / 4 + PAGE ? 0 : i * i));
    REQUIRE(!CALL(munmap, memory, LARGE));
}

static volatile int faults;
static uint8_t *volatile faulting;

// Lets the access that has faulted go on.
static void allow_access(int number, siginfo_t *info, void *context) {
    uint8_t *place = info->si_addr;
    (void)number, (void)context;
    REQUIRE(place == faulting);
    faults++;
    REQUIRE(!CALL(mprotect, (uintptr_t)place & -PAGE, PAGE, PROT_READ | PROT_WRITE));
}

static void handle(int number, void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action = {.sa_handler = (void *)handler, .sa_flags = SA_SIGINFO};
    REQUIRE(!CALL(rt_sigaction, number, &action, 0, sizeof(sigset_t)));
}

void check_faults(void) {
    enum { COUNT = 32 };
    handle(SIGSEGV, allow_access);
    volatile uint8_t *memory = map(COUNT * PAGE, PROT_READ | PROT_WRITE);
    for (int page = 0; page < COUNT; page++)
        memory[page * PAGE] = page;
    REQUIRE(!CALL(mprotect, memory, COUNT * PAGE / 2, PROT_READ));
    REQUIRE(!CALL(mprotect, memory + COUNT * PAGE / 2, COUNT * PAGE / 2, PROT_NONE));
    faults = 0;
    for (int page = 0; page < COUNT; page++) {
        // Reads of the first half are allowed, and take no fault.
        faulting = (uint8_t *)memory + page * PAGE;
        if (page < COUNT / 2)
            REQUIRE(memory[page * PAGE] == page && faults == page);
        memory[page * PAGE] += 100;
        REQUIRE(faults == page + 1 && memory[page * PAGE] == page + 100);
    }
    REQUIRE(!CALL(munmap, memory, COUNT * PAGE));
}

static volatile int illegal;

static void skip_instruction(int number, siginfo_t *info, void *context) {
    struct ucontext *stopped = context;
    (void)number;
    REQUIRE((unsigned long)info->si_addr == stopped->uc_mcontext.sc_regs.pc);
    illegal++;
    stopped->uc_mcontext.sc_regs.pc += 4;
    stopped->uc_mcontext.sc_regs.a0 = 99;
}

void check_illegal_instructions(void) {
    handle(SIGILL, skip_instruction);
    register long result __asm__("a0") = 0;
    // Privileged in all ways: an S-mode CSR, an M-mode CSR, a fence of translations, a trap return.
    __asm__ volatile(
        "csrr a0, sstatus\n csrr a0, mstatus\n sfence.vma\n sret\n .word 0xffffffff" : "+r"(result));
    REQUIRE(result == 99 && illegal == 5);
}

extern const uint32_t return_number[], return_number_end[];

void check_new_code(void) {
    size_t length = (return_number_end - return_number) * sizeof(uint32_t);
    uint32_t *code = (uint32_t *)map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(code, return_number, length);
    for (uint32_t number = 0; number < 100; number++) {
        // addi a0, zero, number
        code[0] = (return_number[0] & 0xfffff) | number << 20;
        REQUIRE(!CALL(riscv_flush_icache, code, (uint8_t *)code + length, 0));
        REQUIRE(((uint32_t (*)(void))code)() == number);
    }
    REQUIRE(!CALL(munmap, code, PAGE));
}
