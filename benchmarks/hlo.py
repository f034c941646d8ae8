"""What a compiled program sends between devices, and what a traced one computes."""

import math
import re
from collections import defaultdict

import jax
from jax.extend.core import jaxprs_in_params

KINDS = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"
)  # fmt: skip
BITS = {"pred": 8, "bf16": 16, "f8": 8}  # others end with theirs
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
CALLED = re.compile(r"(?:body|calls|to_apply|branch_computations)=\{?([%\w., -]+)")
PIECE = re.compile(r'channel_id=(\d+).*chain_id="(\d+)"')
TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')


def collectives(text: str) -> dict[str, dict[str, int]]:
    """For each kind of exchange in an optimized HLO module: how many are run, and the
    bytes that a device puts in or, where that is more, gets out of them.

    Bodies of loops count as often as the loop is known to run. An all-reduce of which a
    device keeps a part, as TPUs fuse it, is a reduce-scatter. What TPUs spread over
    several fusions, to compute meanwhile, is one exchange.
    """
    seen = set()
    found = {kind: {"count": 0, "bytes": 0} for kind in KINDS}
    bodies, entry = computations(text)
    for name, times in repetitions(bodies, entry).items():
        shapes = {left: result for left, result, _, _ in bodies[name]}
        for _, result, opcode, rest in bodies[name]:
            kind = opcode.removesuffix("-start")
            piece = PIECE.search(rest)
            if kind not in KINDS or (piece and piece.groups() in seen):
                continue
            if piece:
                seen.add(piece.groups())
            operands = re.findall(r"%([\w.-]+)", rest.split(")", 1)[0])
            size = sum(size_of(shapes[operand]) for operand in operands)
            if kind == "all-gather":
                size = size_of(result) - (size if opcode != kind else 0)
            if kind == "all-reduce" and "all-reduce-scatter" in name:
                kind = "reduce-scatter"
            found[kind]["count"] += times
            found[kind]["bytes"] += times * size
    return {kind: row for kind, row in found.items() if row["count"]}


def computations(text: str):
    """({computation: [(name, result, opcode, rest of the line)]}, the entry's name)."""
    bodies, entry, current = {}, None, None
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            current = bodies.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        elif current is not None and (match := INSTRUCTION.match(line)):
            current.append(match.groups())
    return bodies, entry


def repetitions(bodies, entry: str) -> dict[str, int]:
    """How often each computation that is reached from `entry` runs."""
    times = defaultdict(int)

    def visit(name: str, count: int) -> None:
        times[name] += count
        for _, _, opcode, rest in bodies[name]:
            trips = trip_count(bodies, rest) if opcode == "while" else 1
            for names in CALLED.findall(rest):
                for called in re.findall(r"[\w.-]+", names):
                    if called in bodies:
                        visit(called, count * trips)

    visit(entry, 1)
    return times


def trip_count(bodies, rest: str) -> int:
    """How often a loop runs: what the compiler says it knows, or else the number that
    its counter is held against; 1 where neither is to be seen."""
    if known := TRIPS.search(rest):
        return int(known[1])
    condition = bodies.get(re.search(r"condition=%?([\w.-]+)", rest)[1], [])
    constants = {name: x for name, _, kind, x in condition if kind == "constant"}
    if not condition or condition[-1][2] != "compare":
        return 1
    compared, _, how = condition[-1][3].partition(")")
    last = re.findall(r"%([\w.-]+)", compared)[-1]
    is_counted = "direction=LT" in how and last in constants
    return int(constants[last].split(")")[0]) if is_counted else 1


def size_of(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple, written as HLO does."""
    bits = 0
    for dtype, sizes in re.findall(r"\b([a-z]+\d*)[a-z\d]*\[([\d,]*)\]", shape):
        width = BITS.get(dtype) or int(re.search(r"\d+$", dtype)[0])
        bits += width * math.prod(int(size) for size in sizes.split(",") if size)
    return bits // 8


def matmul_flops(function, *args) -> int:
    """Floating point operations of all matrix products, on all devices, loops and what
    is computed again included; XLA's own count takes the body of a loop once."""
    return jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr)


def jaxpr_flops(jaxpr) -> int:
    """As `matmul_flops`, of a jaxpr."""
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = math.prod(shape[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
            continue
        times = params["length"] if name == "scan" else 1
        times *= params["mesh"].size if name == "shard_map" else 1
        inner = [jaxpr_flops(sub) for sub in jaxprs_in_params(params)]
        total += times * (max(inner, default=0) if name == "cond" else sum(inner))
    return total
