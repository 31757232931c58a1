// Frames: pages of physical memory, each with the number of its owners.

#include "kernel.h"

extern char frames_start[], frames_end[];

enum { FRAMES = 640 };

static uint16_t owners[FRAMES];
// Free frames form a list through their first words.
static void *free_frames;

static bool counted(const void *frame) {
    return (const char *)frame >= frames_start && (const char *)frame < frames_end;
}

static uint16_t *owners_of(const void *frame) {
    return &owners[((const char *)frame - frames_start) / PAGE_SIZE];
}

void frames_initialize(void) {
    if (frames_end - frames_start != (ptrdiff_t)FRAMES * PAGE_SIZE)
        panic("the linker script and the kernel disagree about frames");
    for (char *frame = frames_end; frame > frames_start;) {
        frame -= PAGE_SIZE;
        *(void **)frame = free_frames;
        free_frames = frame;
    }
}

void *frame_allocate(void) {
    void *frame = free_frames;
    if (!frame)
        panic("out of memory");
    free_frames = *(void **)frame;
    *owners_of(frame) = 1;
    return memset(frame, 0, PAGE_SIZE);
}

void frame_share(void *frame) {
    if (counted(frame))
        ++*owners_of(frame);
}

void frame_release(void *frame) {
    if (counted(frame) && --*owners_of(frame) == 0) {
        *(void **)frame = free_frames;
        free_frames = frame;
    }
}

bool frame_is_shared(const void *frame) {
    return !counted(frame) || *owners_of(frame) > 1;
}
