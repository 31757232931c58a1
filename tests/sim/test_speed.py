"""make speed measures, and says so in a table."""

import sim.speed


def test_the_table_has_every_measurement(capsys):
    assert sim.speed.main(["--cycles", "100000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "what",
        "simulated clock, cached code",
        "park and resume alone",
        "CSR exit under trap-emulate",
        "MMIO exit under trap-emulate",
        "simulated clock with the extension",
        "CSR exit of a guest without a VMM",
        "CSR exit under vmx-ept",
        "MMIO exit of a guest without a VMM",
        "MMIO exit under vmx-ept",
    ]
    figures = [float(line.split()[-2]) for line in lines[1:]]
    assert min(figures) > 0
    assert figures[1] < figures[3] and figures[5] < figures[6] and figures[7] < figures[8]
