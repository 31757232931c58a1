"""Progress as plain lines."""

from sim.progress import progress


def test_a_stage_is_a_line_and_its_details_are_not(capsys):
    with progress("Building") as say:
        say("compiling", "1/2")
        say("compiling", "2/2")
        say("linking")
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" (")[0] for line in lines] == [
        "Building: compiling 1/2",
        "Building: linking",
    ]


def test_nothing_is_said_when_there_is_nothing_to_say(capsys):
    with progress("Building"):
        pass
    assert capsys.readouterr() == ("", "")
