// Pipes: a ring of bytes between processes, with an end to write to and an end to read from.

#include "kernel.h"

enum { PIPES = 8, SIZE = 512 };

struct pipe {
    uint64_t read, written; // bytes so far
    int readers, writers;
    char bytes[SIZE];
};

static struct pipe pipes[PIPES];

struct pipe *pipe_create(void) {
    for (struct pipe *pipe = pipes; pipe < pipes + PIPES; pipe++)
        if (!pipe->readers && !pipe->writers) {
            pipe->read = pipe->written = 0;
            return pipe;
        }
    return NULL;
}

static int *users(struct pipe *pipe, enum file_kind end) {
    return end == FILE_PIPE_OUT ? &pipe->readers : &pipe->writers;
}

void pipe_open(struct pipe *pipe, enum file_kind end) { ++*users(pipe, end); }

void pipe_close(struct pipe *pipe, enum file_kind end) {
    --*users(pipe, end);
    process_wake(pipe);
}

// How much can be moved at once from or to that place in the ring.
static uint64_t run(uint64_t place, uint64_t available, uint64_t wanted) {
    uint64_t to_end = SIZE - place % SIZE;
    uint64_t most = available < wanted ? available : wanted;
    return most < to_end ? most : to_end;
}

int64_t pipe_read(struct pipe *pipe, uint64_t to, uint64_t length) {
    while (pipe->read == pipe->written) {
        if (!pipe->writers)
            return 0;
        process_wait_for(pipe);
    }
    uint64_t part = run(pipe->read, pipe->written - pipe->read, length);
    if (!space_copy_out(&current->space, to, &pipe->bytes[pipe->read % SIZE], part))
        return -1;
    pipe->read += part;
    process_wake(pipe);
    return (int64_t)part;
}

int64_t pipe_write(struct pipe *pipe, uint64_t from, uint64_t length) {
    uint64_t done = 0;
    while (done < length) {
        if (!pipe->readers)
            return -1;
        uint64_t room = SIZE - (pipe->written - pipe->read);
        if (!room) {
            process_wait_for(pipe);
            continue;
        }
        uint64_t part = run(pipe->written, room, length - done);
        if (!space_copy_in(&current->space, &pipe->bytes[pipe->written % SIZE], from + done, part))
            return -1;
        pipe->written += part;
        done += part;
        process_wake(pipe);
    }
    return (int64_t)done;
}
