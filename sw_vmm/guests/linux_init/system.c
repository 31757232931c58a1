#include "system.h"

enum { STANDARD_OUTPUT = 1 };

void add_part(struct line *line, const char *text, size_t length) {
    // The last byte is kept for the line's end.
    size_t room = sizeof(line->text) - 1 - line->length;
    size_t count = length < room ? length : room;
    memcpy(line->text + line->length, text, count);
    line->length += count;
}

void add_text(struct line *line, const char *text) {
    add_part(line, text, length_of(text));
}

void add_number(struct line *line, uint64_t number) {
    char digits[20];
    size_t place = sizeof(digits);
    do {
        digits[--place] = '0' + number % 10;
        number /= 10;
    } while (number);
    add_part(line, digits + place, sizeof(digits) - place);
}

void write_line(struct line *line) {
    line->text[line->length++] = '\n';
    CALL(write, STANDARD_OUTPUT, line->text, line->length);
    line->length = 0;
}

size_t length_of(const char *text) {
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

const char *find_text(const char *text, const char *part) {
    size_t length = length_of(part);
    for (size_t left = length_of(text); left >= length; left--, text++)
        if (!memcmp(text, part, length))
            return text;
    return NULL;
}

void *memcpy(void *to, const void *from, size_t count) {
    for (size_t i = 0; i < count; i++)
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}

void *memset(void *to, int byte, size_t count) {
    for (size_t i = 0; i < count; i++)
        ((volatile uint8_t *)to)[i] = byte;
    return to;
}

int memcmp(const void *first, const void *second, size_t count) {
    const uint8_t *a = first, *b = second;
    for (size_t i = 0; i < count; i++)
        if (a[i] != b[i])
            return a[i] - b[i];
    return 0;
}
