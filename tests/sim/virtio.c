// A bare program that drives the virtio console and disk, watching memory in one round and taking
// interrupts in the other.

#include <stdint.h>

#define REG32(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define CLAIM REG32(PLIC_BASE + 0x200004)

enum { DISK, CONSOLE, DEVICES };

static struct {
    _Alignas(16) struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptors[4];
    volatile uint16_t available[3 + 4];
    volatile _Alignas(4) uint16_t used[2 + 4 * 4];
} queues[DEVICES];

static struct {
    uint32_t kind, reserved;
    uint64_t sector;
} header;
static volatile uint8_t data[512], status;
static char text[] = "round 0\n";

__attribute__((section(".signature"))) volatile uint64_t signature[4];

static uint64_t base_of(int device) { return WINDOW_BASE + 0x1000 * (uint64_t)device; }

static void start(int device, uint32_t queue) {
    uint64_t base = base_of(device);
    REG32(base + 0x70) = 0;
    REG32(base + 0x70) = 3;
    REG32(base + 0x24) = 1;
    REG32(base + 0x20) = 1;
    REG32(base + 0x70) = 11;
    REG32(base + 0x30) = queue;
    REG32(base + 0x38) = 4;
    REG32(base + 0x80) = (uint32_t)(uintptr_t)queues[device].descriptors;
    REG32(base + 0x90) = (uint32_t)(uintptr_t)queues[device].available;
    REG32(base + 0xa0) = (uint32_t)(uintptr_t)queues[device].used;
    REG32(base + 0x44) = 1;
    REG32(base + 0x70) = 15;
    REG32(PLIC_BASE + 4 * (1 + device)) = 1;
    REG32(PLIC_BASE + 0x2000) |= 2u << device;
}

static void describe(int device, int place, volatile void *start, uint32_t length, uint16_t flags) {
    queues[device].descriptors[place].address = (uintptr_t)start;
    queues[device].descriptors[place].length = length;
    queues[device].descriptors[place].flags = flags;
    queues[device].descriptors[place].next = (uint16_t)(place + 1);
}

static void offer(int device, uint32_t queue, int by_interrupt) {
    volatile uint16_t *available = queues[device].available;
    available[2 + available[1] % 4] = 0;
    __asm__ volatile("fence" ::: "memory");
    available[1]++;
    __asm__ volatile("fence" ::: "memory");
    REG32(base_of(device) + 0x50) = queue;
    if (by_interrupt)
        while (!CLAIM) // sources pend although mie lets none through
            __asm__ volatile("wfi");
    else
        while (queues[device].used[1] != available[1]) {
        }
    __asm__ volatile("fence" ::: "memory");
    REG32(base_of(device) + 0x64) = 3;
    if (!by_interrupt)
        while (!CLAIM) {
        }
    CLAIM = (uint32_t)(1 + device);
}

static void transfer(uint32_t kind, uint64_t sector, int by_interrupt) {
    header.kind = kind;
    header.sector = sector;
    status = 99;
    describe(DISK, 0, &header, sizeof header, 1);
    describe(DISK, 1, data, sizeof data, kind ? 1 : 3);
    describe(DISK, 2, &status, 1, 2);
    offer(DISK, 0, by_interrupt);
}

int main(void) {
    __asm__ volatile("csrw mie, %0" ::"r"(1 << 11));
    start(DISK, 0);
    start(CONSOLE, 1);
    for (int round = 0; round < 2; round++) {
        transfer(0, 3, round);
        for (int place = 0; place < 512; place++) {
            signature[round] = signature[round] * 31 + data[place];
            data[place] ^= (uint8_t)(round + 1);
        }
        transfer(1, 3, round);
        signature[2 + round] = status;
        text[6] = (char)('0' + round);
        describe(CONSOLE, 0, text, sizeof text - 1, 0);
        offer(CONSOLE, 1, round);
    }
    return status;
}
