// virtio devices behind memory-mapped registers, one request at a time.
#pragma once

#include "kernel.h"

enum virtio_identity { VIRTIO_BLOCK = 2, VIRTIO_CONSOLE = 3 };

struct virtio_queue;

struct virtio {
    uint64_t base; // 0: there is no such device
    struct virtio_queue *queue;
    bool busy;
};

// What a request is made of: bytes the device reads, or writes.
struct virtio_buffer {
    void *start;
    uint32_t length;
    bool device_writes;
};

// Find the device and set its queue of that number up; false when there is none that suits.
bool virtio_start(struct virtio *device, enum virtio_identity identity, uint32_t queue);
// Let the device have the buffers and wait until it gives them back; other processes run meanwhile.
// Whoever shares buffers with others holds the device from virtio_hold to virtio_free.
void virtio_hold(struct virtio *device);
void virtio_request(struct virtio *device, const struct virtio_buffer *buffers, uint16_t count);
void virtio_free(struct virtio *device);
