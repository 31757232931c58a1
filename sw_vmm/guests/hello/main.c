// hello: what firmware does in its first moments, small enough to be read in one sitting.
//
// It prints by polling the UART, takes exceptions and three kinds of interrupt, visits S-mode and
// U-mode, computes something, leaves its results between begin_signature and end_signature and
// ends by the test finisher. Nothing it prints or leaves behind depends on time.

#include <stdint.h>

#define REG8(address) (*(volatile uint8_t *)(uintptr_t)(address))
#define REG32(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define REG64(address) (*(volatile uint64_t *)(uintptr_t)(address))

#define CSR_READ(name) ({ uint64_t value_; __asm__ volatile("csrr %0, " #name : "=r"(value_)); value_; })
#define CSR_WRITE(name, value) __asm__ volatile("csrw " #name ", %0" ::"r"((uint64_t)(value)) : "memory")
#define CSR_SET(name, bits) __asm__ volatile("csrs " #name ", %0" ::"r"((uint64_t)(bits)) : "memory")
#define CSR_CLEAR(name, bits) __asm__ volatile("csrc " #name ", %0" ::"r"((uint64_t)(bits)) : "memory")

enum { UART_THR = 0, UART_IER = 1, UART_IIR = 2, UART_LSR = 5 };
enum { UART_IER_THRI = 2, UART_LSR_THRE = 0x20 };
enum { CLINT_MSIP = 0, CLINT_MTIMECMP = 0x4000, CLINT_MTIME = 0xBFF8 };
enum { PLIC_PRIORITY = 0, PLIC_ENABLE = 0x2000, PLIC_THRESHOLD = 0x200000, PLIC_CLAIM = 0x200004 };
enum { FINISHER_PASS = 0x5555, FINISHER_FAIL = 0x3333 };
enum { SOFTWARE = 3, TIMER = 7, EXTERNAL = 11, KINDS = 16 };
enum { MSTATUS_MIE = 1 << 3, MSTATUS_MPP = 3 << 11 };
enum { TICKS = 50, TIMER_INTERRUPTS = 3, PRIMES = 200, SIEVE = 1300 };

struct signature {
    uint64_t exceptions[KINDS];
    uint64_t interrupts[KINDS];
    uint64_t descended;
    uint64_t primes;
    uint64_t last_prime;
    uint64_t hash;
};

__attribute__((section(".signature"))) volatile struct signature signature;

static uint8_t composite[SIEVE];
static volatile uint64_t expected_fault;

uint64_t descend(void);
extern char back_in_machine[];

static void put(char character) {
    while (!(REG8(UART_BASE + UART_LSR) & UART_LSR_THRE)) {
    }
    REG8(UART_BASE + UART_THR) = character;
}

static void print(const char *text) {
    for (; *text; text++) {
        if (*text == '\n')
            put('\r');
        put(*text);
    }
}

static void print_number(uint64_t number) {
    char digits[20];
    int count = 0;
    do
        digits[count++] = '0' + number % 10;
    while (number /= 10);
    while (count)
        put(digits[--count]);
}

static void print_hex(uint64_t number) {
    for (int shift = 60; shift >= 0; shift -= 4)
        put("0123456789abcdef"[number >> shift & 15]);
}

static void report(const char *what, uint64_t number) {
    print(what);
    print_number(number);
    print("\n");
}

__attribute__((noreturn)) static void finish(uint32_t word) {
    REG32(FINISHER_BASE) = word;
    for (;;) {
    }
}

static void arm_timer(void) {
    REG64(CLINT_BASE + CLINT_MTIMECMP) = REG64(CLINT_BASE + CLINT_MTIME) + TICKS;
}

static void interrupt(uint64_t code) {
    signature.interrupts[code]++;
    switch (code) {
    case SOFTWARE:
        REG32(CLINT_BASE + CLINT_MSIP) = 0;
        break;
    case TIMER:
        if (signature.interrupts[TIMER] < TIMER_INTERRUPTS)
            arm_timer();
        else
            REG64(CLINT_BASE + CLINT_MTIMECMP) = ~0ull;
        break;
    case EXTERNAL: {
        uint32_t source = REG32(PLIC_BASE + PLIC_CLAIM);
        if (source == UART_INTERRUPT)
            REG8(UART_BASE + UART_IER) = 0;
        REG32(PLIC_BASE + PLIC_CLAIM) = source;
        break;
    }
    default:
        print("unexpected interrupt\n");
        finish(FINISHER_FAIL | 2 << 16);
    }
}

// The pc to go on at after the trap.
uint64_t machine_trap_handler(uint64_t cause, uint64_t pc, uint64_t value) {
    if (cause >> 63) {
        interrupt(cause & 63);
        return pc;
    }
    signature.exceptions[cause & 15]++;
    switch (cause) {
    case 2: // illegal instruction: always the 32-bit one below
    case 11: // ecall from M
        return pc + 4;
    case 3: // c.ebreak
        return pc + 2;
    case 5: // load access fault: the c.lw below
        if (value == expected_fault)
            return pc + 2;
        break;
    case 9: // ecall from S
        CSR_SET(mstatus, MSTATUS_MPP);
        return (uintptr_t)back_in_machine;
    }
    print("unexpected exception ");
    print_number(cause);
    print(" at ");
    print_hex(pc);
    print("\n");
    finish(FINISHER_FAIL | 1 << 16);
}

static void wait_for(int code, uint64_t count) {
    // Interrupts stay disabled between the test and wfi, so that none is slept through.
    for (;;) {
        CSR_CLEAR(mstatus, MSTATUS_MIE);
        if (signature.interrupts[code] >= count)
            return;
        __asm__ volatile("wfi");
        CSR_SET(mstatus, MSTATUS_MIE);
    }
}

static void take_exceptions(void) {
    __asm__ volatile("ecall");
    __asm__ volatile(".option push\n.option rvc\nc.ebreak\n.option pop");
    __asm__ volatile("csrrw zero, 0xfff, zero"); // no such CSR
    expected_fault = 0x18000000;                 // nobody answers there
    __asm__ volatile(".option push\n.option rvc\nc.lw a5, 0(%0)\n.option pop" ::"r"(expected_fault), "r"((uint64_t)0) : "a5", "memory");
    report("exceptions taken: ", signature.exceptions[2] + signature.exceptions[3] +
                                     signature.exceptions[5] + signature.exceptions[11]);
}

static void take_interrupts(void) {
    CSR_SET(mie, 1 << SOFTWARE | 1 << TIMER | 1 << EXTERNAL);
    REG32(CLINT_BASE + CLINT_MSIP) = 1;
    wait_for(SOFTWARE, 1);
    arm_timer();
    wait_for(TIMER, TIMER_INTERRUPTS);
    report("timer interrupts: ", signature.interrupts[TIMER]);
    REG32(PLIC_BASE + PLIC_PRIORITY + 4 * UART_INTERRUPT) = 1;
    REG32(PLIC_BASE + PLIC_ENABLE) = 1 << UART_INTERRUPT;
    REG32(PLIC_BASE + PLIC_THRESHOLD) = 0;
    REG8(UART_BASE + UART_IER) = UART_IER_THRI;
    wait_for(EXTERNAL, 1);
    REG32(PLIC_BASE + PLIC_ENABLE) = 0;
    report("external interrupts: ", signature.interrupts[EXTERNAL]);
    CSR_WRITE(mie, 0);
}

static void compute(void) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint64_t number = 2; number < SIEVE; number++) {
        if (composite[number])
            continue;
        signature.primes++;
        signature.last_prime = number;
        hash = (hash ^ number) * 0x100000001b3u;
        for (uint64_t multiple = number * number; multiple < SIEVE; multiple += number)
            composite[multiple] = 1;
        if (signature.primes == PRIMES)
            break;
    }
    __atomic_fetch_xor(&signature.hash, hash, __ATOMIC_RELAXED);
    print("the ");
    print_number(signature.primes);
    report("th prime: ", signature.last_prime);
    print("hash: ");
    print_hex(signature.hash);
    print("\n");
}

void main(void) {
    print("hello, world\n");
    print("misa: ");
    print_hex(CSR_READ(misa));
    report("\nhart: ", CSR_READ(mhartid));
    take_exceptions();
    take_interrupts();
    signature.descended = descend();
    report("back from S and U with ", signature.descended);
    compute();
    if (signature.descended != 448 || signature.last_prime != 1223) {
        print("wrong\n");
        finish(FINISHER_FAIL | 3 << 16);
    }
    print("goodbye\n");
    finish(FINISHER_PASS);
}
