"""The register bus reaches the device in whose region the address lies, and nobody else."""

from amaranth import *

from rtl.arch.memory_map import MEMORY_MAP
from tests.proofs.properties import Fault, Proof

__all__ = ["PROOFS"]


def _decoder(p, unit_class):
    m = p.m
    regions = [region for region in MEMORY_MAP.values() if not region.cached]
    decoder = unit_class(regions)
    inside = p.unit("decoder", decoder)
    request, response = decoder.bus.request, decoder.bus.response
    address = request.payload.address
    targets = [getattr(decoder, region.name) for region in regions]
    nobody = len(regions)

    in_flight, owner = Signal(), Signal(range(nobody + 1), init=nobody)
    belongs = [(address >= region.base) & (address < region.end) for region in regions]
    with m.If(response.valid & response.ready):
        m.d.sync += in_flight.eq(0)
    with m.If(request.valid & request.ready):
        m.d.sync += [in_flight.eq(1), owner.eq(nobody)]
        for number, here in enumerate(belongs):
            with m.If(here):
                m.d.sync += owner.eq(number)

    asked = [target.request.valid for target in targets]
    p.always(sum(asked) <= 1, "one target at most is asked")
    p.always(~(in_flight & Cat(asked).any()), "one access at a time")
    p.always(~(in_flight & request.ready), "the next one waits for the response")
    for region, target, here in zip(regions, targets, belongs, strict=True):
        asks = target.request
        p.always(asks.valid == (request.valid & here & ~in_flight), "who is asked is who is meant")
        p.always(
            ~asks.valid | (asks.payload.address == address - region.base),
            "it sees the address in its region",
        )
        for field in ("write", "mask", "data"):
            p.always(
                ~asks.valid | (asks.payload[field] == request.payload[field]),
                "it sees the rest unchanged",
            )
        p.always(
            ~(request.valid & here & ~in_flight) | (request.ready == asks.ready),
            "the access is taken when the target takes it",
        )
    p.always(
        ~request.valid | in_flight | Cat(belongs).any() | request.ready,
        "what nobody answers is taken at once",
    )
    with m.Switch(owner):
        for number, target in enumerate(targets):
            with m.Case(number):
                answer = target.response
                p.always(
                    ~in_flight
                    | (
                        (response.valid == answer.valid)
                        & (response.payload.as_value() == answer.payload.as_value())
                        & (response.ready == answer.ready)
                    ),
                    "the answer is that of the target",
                )
        with m.Default():
            p.always(
                ~in_flight | (response.valid & response.payload.error),
                "what nobody answers is an error",
            )
    p.always(in_flight | ~response.valid, "no answer without an access")
    for number, target in enumerate(targets):
        p.always(
            ~target.response.ready | (in_flight & (owner == number)),
            "no answer is taken from who was not asked",
        )

    p.invariant(inside["waiting"] == in_flight, "waiting for the response")
    p.invariant(~in_flight | (inside["owner"] == owner), "of the one asked")
    p.invariant(owner <= nobody, "numbers of targets")


PROOFS = (
    Proof(
        "register bus decoder, the SoC's map",
        "rtl.bus.register_decoder:RegisterDecoder",
        _decoder,
        (
            Fault("a region ends late", "while base < end:", "end += 8\n    while base < end:"),
            Fault(
                "the base is not subtracted",
                "(address[same:width] - (region.base >> same))",
                "address[same:width]",
            ),
            Fault(
                "a second access in flight",
                "target.request.valid.eq(~waiting)",
                "target.request.valid.eq(1)",
            ),
            Fault("nobody is no error", "response.p.error.eq(1)", "response.p.error.eq(0)"),
        ),
    ),
)
