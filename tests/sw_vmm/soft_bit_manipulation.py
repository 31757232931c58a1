"""Zba, Zbb and Zbs, written anew from the manual: part of ``soft_hart``, and like it nobody's copy."""

__all__ = ["bit_manipulation"]

M = (1 << 64) - 1
M32 = (1 << 32) - 1


def digits(value, width):
    """The value's bits as text, the highest first."""
    return f"{value & (1 << width) - 1:0{width}b}"


def rotate_right(value, count, width):
    text = digits(value, width)
    count %= width
    return int(text[width - count :] + text[: width - count], 2)


def sext(value, width):
    text = digits(value, width)
    return int(text[0] * (64 - width) + text, 2)


def bit_manipulation(word, a, b):
    """What a word in OP, OP-32, OP-IMM or OP-IMM-32 computes; None when it is none of these."""
    op, f3, f7 = word & 0x7F, word >> 12 & 7, word >> 25
    rs2, shamt = word >> 20 & 31, word >> 20 & 63
    if op == 0x33:
        return registers(f3, f7, a, b)
    if op == 0x3B:
        low = a & M32
        if f7 == 0x04 and f3 == 0:
            return low + b & M
        if f7 == 0x10 and f3 in (2, 4, 6):
            return low * 2 ** (f3 // 2) + b & M
        if f7 == 0x30 and f3 == 1:
            return sext(rotate_right(a, -(b % 32), 32), 32)
        if f7 == 0x30 and f3 == 5:
            return sext(rotate_right(a, b % 32, 32), 32)
        if f7 == 0x04 and f3 == 4 and rs2 == 0:
            return int(digits(a, 16), 2)
        return None
    if op == 0x1B:
        if f3 == 1 and f7 >> 1 == 0x02:
            return (a & M32) * 2**shamt & M
        if f3 == 1 and f7 == 0x30:
            return count(rs2, digits(a, 32))
        if f3 == 5 and f7 == 0x30:
            return sext(rotate_right(a, rs2, 32), 32)
        return None
    if op != 0x13:
        return None
    if f3 == 1 and f7 == 0x30:
        if rs2 in (4, 5):
            return sext(a, 8 if rs2 == 4 else 16)
        return count(rs2, digits(a, 64))
    if f3 == 5 and word >> 20 in (0x287, 0x6B8):
        octets = [digits(a, 64)[at : at + 8] for at in range(0, 64, 8)]
        if word >> 20 == 0x6B8:
            return int("".join(octets[::-1]), 2)
        return int("".join("1" * 8 if "1" in octet else "0" * 8 for octet in octets), 2)
    if f3 == 5 and f7 >> 1 == 0x18:
        return rotate_right(a, shamt, 64)
    return single_bit(f3, f7 >> 1, a, shamt)


def count(which, text):
    if which == 2:
        return text.count("1")
    if which not in (0, 1):
        return None
    if "1" not in text:
        return len(text)
    return text.index("1") if which == 0 else len(text) - 1 - text.rindex("1")


def single_bit(f3, f6, a, index):
    """bset, binv, bclr and bext by their six upper bits."""
    text = list(digits(a, 64)[::-1])
    if f3 == 5:
        return int(text[index]) if f6 == 0x12 else None
    if f3 != 1 or f6 not in (0x0A, 0x12, 0x1A):
        return None
    text[index] = {0x0A: "1", 0x12: "0", 0x1A: "10"[int(text[index])]}[f6]
    return int("".join(reversed(text)), 2)


def registers(f3, f7, a, b):
    signed = sorted((a, b), key=lambda value: (value >> 63 == 0, value))
    if f7 == 0x10 and f3 in (2, 4, 6):
        return a * 2 ** (f3 // 2) + b & M
    if f7 == 0x20 and f3 in (4, 6, 7):
        inverted = M - b
        return {4: a ^ inverted, 6: a | inverted, 7: a & inverted}[f3]
    if f7 == 0x05 and f3 in (4, 5, 6, 7):
        return {4: signed[0], 5: min(a, b), 6: signed[1], 7: max(a, b)}[f3]
    if f7 == 0x30 and f3 in (1, 5):
        return rotate_right(a, b % 64 if f3 == 5 else -(b % 64), 64)
    if f7 in (0x14, 0x24, 0x34):
        return single_bit(f3, f7 >> 1, a, b % 64)
    return None
