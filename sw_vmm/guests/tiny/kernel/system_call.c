// System calls: from numbers to what the kernel's parts do. Nothing a program passes is trusted.

#include "kernel.h"

// What the run leaves behind: digests by program, the same whenever and wherever it runs.
__attribute__((section(".signature"))) volatile struct {
    uint64_t reports;
    uint64_t digest[PROGRAMS];
} signature;

// What it took, for whoever looks from outside.
__attribute__((section(".programs"))) volatile struct {
    char name[PROGRAM_NAME];
    uint64_t cycles;
    uint64_t instructions;
} programs[PROGRAMS];

static int64_t report(uint64_t from) {
    struct report report;
    if (!space_copy_in(&current->space, &report, from, sizeof report) || report.place >= PROGRAMS)
        return -1;
    signature.reports++;
    signature.digest[report.place] = report.digest;
    for (int place = 0; place < PROGRAM_NAME; place++)
        programs[report.place].name[place] = report.name[place];
    programs[report.place].cycles = report.cycles;
    programs[report.place].instructions = report.instructions;
    return 0;
}

static struct file *file_at(uint64_t number) {
    return number < FILES && current->files[number].kind != FILE_CLOSED ? &current->files[number] : NULL;
}

static int open_file(enum file_kind kind, struct pipe *pipe) {
    // 0 is left for a console to read from.
    for (int number = CONSOLE_FILE; number < FILES; number++)
        if (current->files[number].kind == FILE_CLOSED) {
            current->files[number] = (struct file){kind, pipe};
            pipe_open(pipe, kind);
            return number;
        }
    return -1;
}

static int64_t close_file(uint64_t number) {
    struct file *file = file_at(number);
    if (!file)
        return -1;
    if (file->pipe)
        pipe_close(file->pipe, file->kind);
    *file = (struct file){0};
    return 0;
}

static int64_t create_pipe(uint64_t to) {
    struct pipe *pipe = pipe_create();
    if (!pipe)
        return -1;
    int files[2] = {open_file(FILE_PIPE_OUT, pipe), open_file(FILE_PIPE_IN, pipe)};
    if (files[0] >= 0 && files[1] >= 0 && space_copy_out(&current->space, to, files, sizeof files))
        return 0;
    close_file((uint64_t)files[0]);
    close_file((uint64_t)files[1]);
    return -1;
}

static int64_t read_file(uint64_t number, uint64_t to, uint64_t length) {
    struct file *file = file_at(number);
    return file && file->kind == FILE_PIPE_OUT ? pipe_read(file->pipe, to, length) : -1;
}

static int64_t write_file(uint64_t number, uint64_t from, uint64_t length) {
    struct file *file = file_at(number);
    if (file && file->kind == FILE_CONSOLE)
        return console_write(from, length);
    if (file && file->kind == FILE_TERMINAL)
        return terminal_write(from, length);
    return file && file->kind == FILE_PIPE_IN ? pipe_write(file->pipe, from, length) : -1;
}

static int64_t map(uint64_t length, uint64_t flags) {
    if (!length || length % PAGE_SIZE)
        return -1;
    uint64_t start = space_find(&current->space, length);
    int area_flags = AREA_WRITE | (flags & MAP_SHARED ? AREA_SHARED : 0);
    if (!start || !space_add(&current->space, (struct area){start, start + length, NULL, area_flags}))
        return -1;
    return (int64_t)start;
}

int64_t system_call(uint64_t number, const uint64_t arguments[3]) {
    uint64_t first = arguments[0], second = arguments[1], third = arguments[2];
    switch (number) {
    case CALL_EXIT:
        process_exit(first & 0xff);
    case CALL_FORK:
        return process_fork();
    case CALL_WAIT:
        return process_wait();
    case CALL_IDENTITY:
        return (int64_t)current->identity;
    case CALL_SLEEP:
        process_sleep(first);
        return 0;
    case CALL_PIPE:
        return create_pipe(first);
    case CALL_READ:
        return read_file(first, second, third);
    case CALL_WRITE:
        return write_file(first, second, third);
    case CALL_CLOSE:
        return close_file(first);
    case CALL_MAP:
        return map(first, second);
    case CALL_UNMAP:
        return space_remove(&current->space, first, second) ? 0 : -1;
    case CALL_REPORT:
        return report(first);
    case CALL_DISK:
        return disk_transfer(first == DISK_WRITE, second, third);
    default:
        return -1;
    }
}
