// Address spaces: Sv39 tables, demand paging and copy-on-write.
//
// Physical memory and devices are mapped where they are, in every space alike; user programs have
// the gigabyte between them. The kernel sets A and D itself when it maps a page, so it does not
// matter whether the hardware would.

#include "kernel.h"

extern char kernel_text_start[], kernel_data_start[], kernel_data_end[];

enum { LEVEL_BITS = 9, ENTRIES = 1 << LEVEL_BITS, PAGE_BITS = 12 };
#define LARGE_PAGE BIT(PAGE_BITS + LEVEL_BITS)
#define USER_START 0x40000000ull
#define USER_END 0x80000000ull
#define MAPS_START 0x50000000ull

// Tables of the kernel's part of every space: the devices' gigabyte, and RAM's.
static uint64_t device_table[ENTRIES] __attribute__((aligned(4096)));
static uint64_t memory_table[ENTRIES] __attribute__((aligned(4096)));

static uint64_t entry_of(const void *frame, uint64_t flags) {
    return (uintptr_t)frame >> PAGE_BITS << PTE_PPN_LSB | flags;
}

static void *frame_of(uint64_t entry) {
    return (void *)(uintptr_t)(entry >> PTE_PPN_LSB << PAGE_BITS);
}

static uint64_t index_of(uint64_t address, int level) {
    return address >> (PAGE_BITS + LEVEL_BITS * level) & (ENTRIES - 1);
}

static void forget(const struct space *space, uint64_t address) {
    __asm__ volatile("sfence.vma %0, %1" ::"r"(address), "r"(space->asid) : "memory");
}

static void forget_all(const struct space *space) {
    __asm__ volatile("sfence.vma zero, %0" ::"r"(space->asid) : "memory");
}

// The entry of the user page at that address; NULL when there is no table and none is to be made.
static uint64_t *find_entry(const struct space *space, uint64_t address, bool make) {
    uint64_t *table = space->root;
    for (int level = 2; level > 0; level--) {
        uint64_t *entry = &table[index_of(address, level)];
        if (!(*entry & PTE_V)) {
            if (!make)
                return NULL;
            *entry = entry_of(frame_allocate(), PTE_V);
        }
        table = frame_of(*entry);
    }
    return &table[index_of(address, 0)];
}

// -- the kernel's part ---------------------------------------------------------------------------

static void map_large(uint64_t *table, uint64_t start, uint64_t end, uint64_t flags) {
    for (uint64_t at = start & ~(LARGE_PAGE - 1); at < end; at += LARGE_PAGE)
        table[index_of(at, 1)] = entry_of((void *)at, flags | PTE_V | PTE_G | PTE_A | PTE_D);
}

static void add_kernel(uint64_t *root) {
    root[index_of(FINISHER_BASE, 2)] = entry_of(device_table, PTE_V);
    root[index_of(RAM_BASE, 2)] = entry_of(memory_table, PTE_V);
}

void space_start_paging(void) {
    map_large(device_table, FINISHER_BASE, FINISHER_BASE + 1, PTE_R | PTE_W);
    map_large(device_table, PLIC_BASE, PLIC_BASE + 0x400000, PTE_R | PTE_W);
    map_large(device_table, UART_BASE, UART_BASE + 1, PTE_R | PTE_W);
    map_large(memory_table, (uintptr_t)kernel_text_start, (uintptr_t)kernel_data_start, PTE_R | PTE_X);
    map_large(memory_table, (uintptr_t)kernel_data_start, (uintptr_t)kernel_data_end, PTE_R | PTE_W);
}

// -- a space's life ------------------------------------------------------------------------------

void space_create(struct space *space, uint64_t asid) {
    *space = (struct space){.root = frame_allocate(), .asid = asid};
    add_kernel(space->root);
    // Another process may have had the same ASID.
    forget_all(space);
}

static void release_pages(struct space *space, const struct area *area) {
    for (uint64_t at = area->start; at < area->end; at += PAGE_SIZE) {
        uint64_t *entry = find_entry(space, at, false);
        if (!entry || !(*entry & PTE_V))
            continue;
        frame_release(frame_of(*entry));
        *entry = 0;
        forget(space, at);
    }
}

void space_destroy(struct space *space) {
    for (struct area *area = space->areas; area < space->areas + AREAS; area++)
        release_pages(space, area);
    uint64_t *middle = frame_of(space->root[index_of(USER_START, 2)]);
    if (middle) {
        for (int index = 0; index < ENTRIES; index++)
            if (middle[index] & PTE_V)
                frame_release(frame_of(middle[index]));
        frame_release(middle);
    }
    frame_release(space->root);
}

void space_activate(const struct space *space) {
    CSR_WRITE(satp, SATP_SV39 | space->asid << SATP_ASID_LSB | (uintptr_t)space->root >> PAGE_BITS);
}

// -- areas ---------------------------------------------------------------------------------------

static struct area *find_area(const struct space *space, uint64_t address) {
    for (const struct area *area = space->areas; area < space->areas + AREAS; area++)
        if (address >= area->start && address < area->end)
            return (struct area *)area;
    return NULL;
}

bool space_add(struct space *space, struct area area) {
    for (struct area *place = space->areas; place < space->areas + AREAS; place++) {
        if (place->start != place->end)
            continue;
        *place = area;
        if (area.flags & AREA_SHARED)
            // All at once, so that fork finds every page both sides are to have.
            for (uint64_t at = area.start; at < area.end; at += PAGE_SIZE)
                space_fault(space, at, ACCESS_WRITE);
        return true;
    }
    return false;
}

bool space_remove(struct space *space, uint64_t start, uint64_t length) {
    struct area *area = find_area(space, start);
    if (!area || area->start != start || area->end - area->start != length)
        return false;
    release_pages(space, area);
    *area = (struct area){0};
    return true;
}

uint64_t space_find(const struct space *space, uint64_t length) {
    uint64_t start = MAPS_START;
    for (bool moved = true; moved;) {
        moved = false;
        for (const struct area *area = space->areas; area < space->areas + AREAS; area++)
            if (start < area->end && area->start < start + length) {
                start = area->end;
                moved = true;
            }
        if (length > USER_END - start)
            return 0;
    }
    return start;
}

// -- fork ----------------------------------------------------------------------------------------

static void fork_area(struct space *child, struct space *parent, const struct area *area) {
    bool shared = area->flags & AREA_SHARED;
    for (uint64_t at = area->start; at < area->end; at += PAGE_SIZE) {
        uint64_t *entry = find_entry(parent, at, false);
        if (!entry || !(*entry & PTE_V))
            continue;
        if (*entry & PTE_W && !shared) {
            *entry &= ~(uint64_t)(PTE_W | PTE_D);
            forget(parent, at);
        }
        frame_share(frame_of(*entry));
        *find_entry(child, at, true) = *entry;
    }
}

void space_fork(struct space *child, struct space *parent) {
    for (int number = 0; number < AREAS; number++) {
        child->areas[number] = parent->areas[number];
        fork_area(child, parent, &parent->areas[number]);
    }
}

// -- faults --------------------------------------------------------------------------------------

static void *fetch_page(const struct area *area, uint64_t page, enum access access) {
    const char *image = area->image ? area->image + (page - area->start) : NULL;
    if (image && access != ACCESS_WRITE)
        return (void *)image; // itself, until it is written
    void *frame = frame_allocate();
    return image ? memcpy(frame, image, PAGE_SIZE) : frame;
}

bool space_fault(struct space *space, uint64_t address, enum access access) {
    struct area *area = find_area(space, address);
    if (!area || (access == ACCESS_WRITE && !(area->flags & AREA_WRITE)) ||
        (access == ACCESS_FETCH && !(area->flags & AREA_FETCH)))
        return false;
    uint64_t page = address & ~(uint64_t)(PAGE_SIZE - 1);
    uint64_t *entry = find_entry(space, page, true);
    uint64_t flags = PTE_V | PTE_R | PTE_U | PTE_A;
    if (area->flags & AREA_FETCH)
        flags |= PTE_X;
    if (access == ACCESS_WRITE)
        flags |= PTE_W | PTE_D;
    void *frame;
    if (!(*entry & PTE_V)) {
        frame = fetch_page(area, page, access);
    } else if (access == ACCESS_WRITE && !(*entry & PTE_W)) {
        frame = frame_of(*entry);
        if (frame_is_shared(frame)) {
            void *copy = memcpy(frame_allocate(), frame, PAGE_SIZE);
            frame_release(frame);
            frame = copy;
        }
    } else {
        return true; // mapped so already: the translation was an old one
    }
    *entry = entry_of(frame, flags);
    forget(space, page);
    return true;
}

// -- between the kernel and a program -------------------------------------------------------------

// Where the kernel finds a byte of a program's, up to the end of its page; NULL if it may not.
static char *reach(struct space *space, uint64_t address, enum access access) {
    uint64_t needed = access == ACCESS_WRITE ? PTE_V | PTE_W : PTE_V;
    uint64_t *entry = find_entry(space, address, false);
    if (!entry || (*entry & needed) != needed) {
        if (!space_fault(space, address, access))
            return NULL;
        entry = find_entry(space, address, false);
    }
    return (char *)frame_of(*entry) + address % PAGE_SIZE;
}

bool space_copy_in(struct space *space, void *to, uint64_t from, size_t length) {
    for (char *out = to; length;) {
        const char *in = from < USER_START || from >= USER_END ? NULL : reach(space, from, ACCESS_READ);
        if (!in)
            return false;
        size_t part = PAGE_SIZE - from % PAGE_SIZE;
        if (part > length)
            part = length;
        memcpy(out, in, part);
        out += part, from += part, length -= part;
    }
    return true;
}

bool space_copy_out(struct space *space, uint64_t to, const void *from, size_t length) {
    for (const char *in = from; length;) {
        char *out = to < USER_START || to >= USER_END ? NULL : reach(space, to, ACCESS_WRITE);
        if (!out)
            return false;
        size_t part = PAGE_SIZE - to % PAGE_SIZE;
        if (part > length)
            part = length;
        memcpy(out, in, part);
        in += part, to += part, length -= part;
    }
    return true;
}
