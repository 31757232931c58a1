// virtio over memory-mapped registers, version 2, with a split queue of a few descriptors.

#include "virtio.h"

enum {
    MAGIC = 0x00, VERSION = 0x04, DEVICE_ID = 0x08, DEVICE_FEATURES = 0x10,
    DEVICE_FEATURES_SELECT = 0x14, DRIVER_FEATURES = 0x20, DRIVER_FEATURES_SELECT = 0x24,
    QUEUE_SELECT = 0x30, QUEUE_SIZE_MAX = 0x34, QUEUE_SIZE = 0x38, QUEUE_READY = 0x44,
    QUEUE_NOTIFY = 0x50, INTERRUPT_STATUS = 0x60, INTERRUPT_ACKNOWLEDGE = 0x64, STATUS = 0x70,
    QUEUE_DESCRIPTORS = 0x80, QUEUE_AVAILABLE = 0x90, QUEUE_USED = 0xa0,
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { NEXT = 1, DEVICE_WRITES = 2 };
enum { MAGIC_NUMBER = 0x74726976, MODERN = 2, VERSION_1_WORD = 1, VERSION_1 = 1 };
enum { SIZE = 8, DEVICES = 2 };

struct virtio_queue {
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptors[SIZE];
    volatile struct {
        uint16_t flags, count, heads[SIZE];
    } available;
    volatile struct {
        _Alignas(4) uint16_t flags;
        uint16_t count;
        struct {
            uint32_t head, length;
        } given[SIZE];
    } used;
    uint32_t number;
};

static struct virtio_queue queues[DEVICES] __attribute__((aligned(16)));
static struct virtio *started[DEVICES];

static volatile uint32_t *at(const struct virtio *device, uint32_t place) {
    return (volatile uint32_t *)(device->base + place);
}

static void set_address(struct virtio *device, uint32_t place, const volatile void *address) {
    *at(device, place) = (uint32_t)(uintptr_t)address;
    *at(device, place + 4) = (uint32_t)((uintptr_t)address >> 32);
}

static uint64_t find(enum virtio_identity identity) {
    for (uint64_t slot = 0; slot < WINDOW_SLOTS; slot++) {
        uint64_t base = WINDOW_BASE + slot * WINDOW_SLOT_SIZE;
        if (REG32(base + MAGIC) == MAGIC_NUMBER && REG32(base + VERSION) == MODERN &&
            REG32(base + DEVICE_ID) == (uint32_t)identity)
            return base;
    }
    return 0;
}

static uint32_t source_of(const struct virtio *device) {
    return WINDOW_FIRST_INTERRUPT + (uint32_t)((device->base - WINDOW_BASE) / WINDOW_SLOT_SIZE);
}

// Nothing but the modern interface is asked for.
static bool agree(struct virtio *device) {
    *at(device, STATUS) = 0;
    *at(device, STATUS) = ACKNOWLEDGE;
    *at(device, STATUS) = ACKNOWLEDGE | DRIVER;
    *at(device, DRIVER_FEATURES_SELECT) = 0;
    *at(device, DRIVER_FEATURES) = 0;
    *at(device, DRIVER_FEATURES_SELECT) = VERSION_1_WORD;
    *at(device, DRIVER_FEATURES) = VERSION_1;
    *at(device, STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    return *at(device, STATUS) & FEATURES_OK;
}

// The queue of that number becomes this one; false when the device does not have it.
static bool set_queue_up(struct virtio *device, uint32_t number, struct virtio_queue *queue) {
    device->queue = queue;
    queue->number = number;
    *at(device, QUEUE_SELECT) = number;
    if (*at(device, QUEUE_SIZE_MAX) < SIZE)
        return false;
    *at(device, QUEUE_SIZE) = SIZE;
    set_address(device, QUEUE_DESCRIPTORS, device->queue->descriptors);
    set_address(device, QUEUE_AVAILABLE, &device->queue->available);
    set_address(device, QUEUE_USED, &device->queue->used);
    *at(device, QUEUE_READY) = 1;
    return true;
}

bool virtio_start(struct virtio *device, enum virtio_identity identity, uint32_t queue) {
    int place = started[0] ? 1 : 0;
    device->base = find(identity);
    if (!device->base)
        return false;
    if (!agree(device) || !set_queue_up(device, queue, &queues[place])) {
        device->base = 0;
        return false;
    }
    *at(device, STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    started[place] = device;
    interrupts_enable_source(source_of(device));
    return true;
}

void virtio_hold(struct virtio *device) {
    while (device->busy)
        process_wait_for(device);
    device->busy = true;
}

void virtio_free(struct virtio *device) {
    device->busy = false;
    process_wake(device);
}

void virtio_request(struct virtio *device, const struct virtio_buffer *buffers, uint16_t count) {
    struct virtio_queue *queue = device->queue;
    for (uint16_t place = 0; place < count; place++) {
        bool more = place + 1 < count;
        queue->descriptors[place].address = (uintptr_t)buffers[place].start;
        queue->descriptors[place].length = buffers[place].length;
        queue->descriptors[place].flags =
            (uint16_t)((buffers[place].device_writes ? DEVICE_WRITES : 0) | (more ? NEXT : 0));
        queue->descriptors[place].next = place + 1;
    }
    uint16_t number = queue->available.count;
    queue->available.heads[number % SIZE] = 0;
    // What the device reads first must not be seen before what it reads then.
    __asm__ volatile("fence rw, rw" ::: "memory");
    queue->available.count = number + 1;
    __asm__ volatile("fence rw, ow" ::: "memory");
    *at(device, QUEUE_NOTIFY) = queue->number;
    while (queue->used.count != queue->available.count)
        process_wait_for(queue);
    __asm__ volatile("fence r, rw" ::: "memory");
}

void virtio_interrupt(uint32_t source) {
    for (int place = 0; place < DEVICES; place++)
        if (started[place] && source_of(started[place]) == source) {
            *at(started[place], INTERRUPT_ACKNOWLEDGE) = *at(started[place], INTERRUPT_STATUS);
            process_wake(started[place]->queue);
        }
}
