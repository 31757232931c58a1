"""What becomes of the model's C++ before it is compiled."""

from sim.model import expecting_little


def test_what_happens_on_a_condition_is_not_expected():
    text = "    if ((1U & (a\n               >> 3U))) {\n        b = 1U;\n    } else {\n    }\n"
    expected = text.replace("if ((1U", "if (VL_UNLIKELY(((1U").replace("3U))) {", "3U))))) {")
    assert expecting_little(text) == expected


def test_alternatives_and_conditions_without_a_block_stay():
    text = """    if (a) {
        b = 1U;
    } else if (c) {
        b = 2U;
    }
    if (VL_UNLIKELY(!active)) return;
    for (i = 0; i < 4; ++i) {
        if (d) b = 3U;
        while (e) {
        }
    }
"""
    assert expecting_little(text) == text.replace("if (a)", "if (VL_UNLIKELY((a)))")
