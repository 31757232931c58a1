"""A conversation with the stand-in that both machines must have word for word."""

from sw_vmm.machine import BusError, ParkRecord

RAM_SIZE = 1 << 20
_BASE = 0x8000_0000


def scenario(soc) -> list:
    """Drive ``soc`` through everything a machine offers; what came of it, as plain data."""
    story = []

    def note(*what):
        story.append([int(item) if isinstance(item, int) else str(item) for item in what])

    # RAM: a write, and a burst whose beats come from bytes put there directly.
    soc.ram[64:128] = bytes(range(64))
    soc.write(0x28, 0x1122_3344_5566_7788)
    soc.write(0x30, _BASE + 64 | 0x0F << 32)
    note("ram", bytes(soc.ram[60:76]).hex())
    for beats in (1, 8):
        soc.write(0x00, _BASE + 64 | beats - 1 << 32)
        note("burst", *(soc.read(offset) for offset in (0x08, 0x10, 0x18, 0x20)))
    soc.write(0x00, _BASE + RAM_SIZE)
    note("outside", soc.read(0x20))
    try:
        soc.read(0xFF8)
    except BusError as error:
        note("refused", error)

    # Running: budgets, parking, charges.
    note("budget", soc.resume_and_run(0x1000, 50, 0, 0, 20), soc.cycles)
    note("parked", soc.run(1000), soc.cycles, ParkRecord.from_bytes(soc.park), soc.transition)
    note("skipped", soc.skip(12345), soc.cycles)
    note("charged", soc.resume_and_run(0x2000, 10, 0, 77, 1000), soc.cycles)
    soc.set_skipping(False)
    note("clocked", soc.resume_and_run(0x3000, 10, 0, 77, 1000), soc.cycles)

    # Console and keyboard.
    soc.type_after(b"key", b"ab")
    soc.type_after(b"c", b"x")
    soc.stop_at_text(b"any")
    for byte in b"Hit any key":
        soc.write(0x38, byte)
    note("text", soc.run(0))
    note("typed", soc.resume_and_run(0, 60, 0, 0, 1000), soc.cycles, soc.console())

    # Finisher, device window, retirement.
    soc.write(0x40, 0x5555)
    note("finished", soc.run(0), soc.finisher)
    soc.write(0x48, 0x1000_1040)
    note("window", soc.resume_and_run(0, 40, 0, 0, 1000), soc.cycles, *soc.window_request())
    soc.answer_window(0xCAFE)
    soc.window_interrupts(0x81)
    note("answered", soc.run(1000), soc.cycles, soc.read(0x50))
    soc.observe(2)
    soc.stop_at_tohost(0x8000_1000)
    for address, value in ((0x8000_1008, 1), (0x8000_1000, 0), (0x8000_1000, 0x539)):
        soc.write(0x58, address << 32 | value)
    note("tohost", soc.run(0), soc.tohost, soc.lost, soc.drain(10).hex())

    soc.reset()
    note("reset", soc.parked, soc.cycles, soc.console(), bytes(soc.ram[64:72]).hex())
    return story
