// A state machine that cuts pseudorandom text into numbers, names, strings and comments: a switch in a
// loop, branches that depend on data.

#include "bench.h"

enum { LENGTH = 5000, ROUNDS = 2 };
enum state { START, NUMBER, NAME, STRING, ESCAPE, COMMENT, STATES };

static char text[LENGTH + 1];

void prepare(void) {
    static const char letters[] = "0123456789abcdefxyz_  \n\n\"\"#\\+-*/()=,.";
    uint64_t state = 5;
    for (int n = 0; n < LENGTH; n++)
        text[n] = letters[(next_random(&state) >> 33) % (sizeof letters - 1)];
    text[LENGTH] = 0;
}

static enum state step(enum state state, char character, uint64_t *counts) {
    switch (state) {
    case START:
        if (character >= '0' && character <= '9')
            state = NUMBER;
        else if ((character >= 'a' && character <= 'z') || character == '_')
            state = NAME;
        else if (character == '"')
            state = STRING;
        else if (character == '#')
            state = COMMENT;
        break;
    case NUMBER:
        if (!(character >= '0' && character <= '9') && character != '.')
            state = START;
        break;
    case NAME:
        if (!((character >= 'a' && character <= 'z') || character == '_' ||
              (character >= '0' && character <= '9')))
            state = START;
        break;
    case STRING:
        if (character == '\\')
            state = ESCAPE;
        else if (character == '"' || character == '\n')
            state = START;
        break;
    case ESCAPE:
        state = STRING;
        break;
    default:
        if (character == '\n')
            state = START;
        break;
    }
    counts[state]++;
    return state;
}

uint64_t kernel(void) {
    uint64_t counts[STATES] = {0}, hash = 0;
    enum state state = START;
    for (int round = 0; round < ROUNDS; round++)
        for (const char *place = text; *place; place++)
            state = step(state, *place, counts);
    for (int n = 0; n < STATES; n++)
        hash = mix(hash, counts[n]);
    return hash;
}

const uint64_t expected = 0x269182902f79ada0u;
