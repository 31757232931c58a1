// The disk: single sectors, by way of a buffer of the kernel's.

#include "virtio.h"

enum { IN = 0, OUT = 1, OK = 0 };

static struct virtio disk;
static struct {
    uint32_t kind, reserved;
    uint64_t sector;
} header;
static char data[SECTOR_SIZE];
static uint8_t status;

void disk_initialize(void) { virtio_start(&disk, VIRTIO_BLOCK, 0); }

int64_t disk_transfer(bool write, uint64_t sector, uint64_t address) {
    if (!disk.base)
        return -1;
    virtio_hold(&disk);
    bool right = !write || space_copy_in(&current->space, data, address, sizeof data);
    if (right) {
        header.kind = write ? OUT : IN;
        header.sector = sector;
        status = (uint8_t)~OK;
        virtio_request(&disk,
                       (struct virtio_buffer[]){{&header, sizeof header, false},
                                                {data, sizeof data, !write},
                                                {&status, sizeof status, true}},
                       3);
        right = *(volatile uint8_t *)&status == OK &&
                (write || space_copy_out(&current->space, address, data, sizeof data));
    }
    virtio_free(&disk);
    return right ? 0 : -1;
}
